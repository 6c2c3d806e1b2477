//! Writing frames: a server's are whole and not masked.

/// The kinds of frames (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// Says that no frame of this message follows.
pub(super) const FINAL: u8 = 0x80;
/// Most bytes in a control frame (RFC 6455, section 5.5).
pub(super) const CONTROL_MOST: usize = 125;
/// Lengths of up to this stand in the second byte; the two above it announce a longer form.
const SHORT_MOST: usize = 125;
pub(super) const LENGTH_16: u8 = 126;
pub(super) const LENGTH_64: u8 = 127;

/// Begins a whole frame of `length` bytes, which the caller appends.
pub fn header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    out.push(FINAL | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if length <= SHORT_MOST => out.push(short),
        (_, Ok(length)) => {
            out.push(LENGTH_16);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
