//! Reading frames: bytes as they come, messages as they are whole.

use super::encode::{CONTROL_MOST, FINAL, LENGTH_16, LENGTH_64, Opcode};
use super::{Said, Violation};

/// The bits of a frame's first byte that only extensions use.
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
/// The bit of the second byte that says that the payload is masked, as every client's is.
const MASKED: u8 = 0x80;

/// Codes that a client may close with (RFC 6455, section 7.4).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Makes messages of a client's bytes. Holds no memory between messages.
pub struct Decoder {
    /// Bytes that came and are no messages yet, from `at` on.
    bytes: Vec<u8>,
    at: usize,
    /// A message of which not all frames have come.
    begun: Option<Box<Begun>>,
    most: usize,
}

struct Begun {
    is_text: bool,
    payload: Vec<u8>,
    /// So much of it is known to be UTF-8.
    valid: usize,
}

/// A frame's head.
struct Head {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    /// Where the payload begins and ends, from the head's first byte.
    payload: (usize, usize),
}

impl Decoder {
    /// For messages of at most `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), at: 0, begun: None, most }
    }

    /// From here on messages of up to `most` bytes are taken.
    pub fn allow(&mut self, most: usize) {
        self.most = most;
    }

    /// Takes in what has come.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is whole. `None` where more must come first.
    ///
    /// # Errors
    /// What came is not the protocol; there is no going on from there.
    pub fn message(&mut self) -> Result<Option<Said>, Violation> {
        while let Some(head) = self.head()? {
            let end = self.at + head.payload.1;
            if self.bytes.len() < end {
                break;
            }
            let payload = &mut self.bytes[self.at + head.payload.0..end];
            unmask(payload, head.mask);
            let said = match head.opcode {
                Opcode::Ping => Some(Said::Ping(payload.to_vec())),
                Opcode::Pong => Some(Said::Pong),
                Opcode::Close => Some(Said::Close(close(payload)?)),
                Opcode::Text | Opcode::Binary if head.is_final => Some(whole(head.opcode, payload)?),
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    let begun = self.begun.get_or_insert_with(|| {
                        let is_text = head.opcode == Opcode::Text;
                        Box::new(Begun { is_text, payload: Vec::new(), valid: 0 })
                    });
                    begun.join(payload)?;
                    if head.is_final { self.begun.take().map(|begun| begun.end()).transpose()? } else { None }
                }
            };
            self.at = end;
            if said.is_some() {
                self.let_go();
                return Ok(said);
            }
        }
        self.let_go();
        Ok(None)
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.bytes.capacity()
            + self.begun.as_ref().map_or(0, |begun| size_of::<Begun>() + begun.payload.capacity())
    }

    /// Forgets what was read, and the memory for it where nothing is left.
    fn let_go(&mut self) {
        if self.at >= self.bytes.len() {
            self.bytes = Vec::new();
            self.at = 0;
        } else if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }

    /// The head of the next frame, judged; `None` where it is not whole.
    fn head(&self) -> Result<Option<Head>, Violation> {
        let bytes = &self.bytes[self.at..];
        let [first, second, ..] = *bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Violation::NotAFrame("a reserved bit is set"));
        }
        let opcode = match first & OPCODE {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Violation::NotAFrame("a reserved opcode")),
        };
        if second & MASKED == 0 {
            return Err(Violation::NotAFrame("a client's frame is not masked"));
        }
        let Some((length, begins)) = length(bytes, second & !MASKED) else { return Ok(None) };
        let is_final = first & FINAL != 0;
        let so_far = self.begun.as_ref().map_or(0, |begun| begun.payload.len());
        match opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong if !is_final || length > CONTROL_MOST as u64 => {
                return Err(Violation::NotAFrame("a control frame that is long or in parts"));
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
            Opcode::Continuation if self.begun.is_none() => {
                return Err(Violation::NotAFrame("a part of no message"));
            }
            Opcode::Text | Opcode::Binary if self.begun.is_some() => {
                return Err(Violation::NotAFrame("a message within another"));
            }
            _ if length.saturating_add(so_far as u64) > self.most as u64 => return Err(Violation::TooLarge),
            _ => {}
        }
        let Some(mask) = bytes.get(begins..begins + 4).and_then(|mask| mask.try_into().ok()) else {
            return Ok(None);
        };
        let payload = (begins + 4, begins + 4 + length as usize);
        Ok(Some(Head { opcode, is_final, mask, payload }))
    }
}

/// The length of a payload, and where the mask begins; `None` where the length is not whole.
fn length(bytes: &[u8], short: u8) -> Option<(u64, usize)> {
    match short {
        LENGTH_16 => Some((u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4)),
        LENGTH_64 => Some((u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10)),
        short => Some((u64::from(short), 2)),
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut eights = payload.chunks_exact_mut(8);
    for eight in &mut eights {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*eight) {
            eight.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    let rest = eights.into_remainder();
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

fn whole(opcode: Opcode, payload: &[u8]) -> Result<Said, Violation> {
    if opcode == Opcode::Binary {
        return Ok(Said::Binary);
    }
    let text = std::str::from_utf8(payload).map_err(|_| Violation::NotUtf8)?;
    Ok(Said::Text(text.to_owned()))
}

/// The code of a close. Its reason is for people and not kept, but has to be text.
fn close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::NotAFrame("a close code that nobody may send"));
            }
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(Some(code))
        }
        [_] => Err(Violation::NotAFrame("half a close code")),
    }
}

impl Begun {
    /// Adds a part. A part may end within a character, and bytes that begin none are refused at once.
    fn join(&mut self, part: &[u8]) -> Result<(), Violation> {
        if !self.is_text {
            // Its length counts against the limit all the same.
            self.payload.extend_from_slice(part);
            return Ok(());
        }
        self.payload.extend_from_slice(part);
        match std::str::from_utf8(&self.payload[self.valid..]) {
            Ok(_) => self.valid = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    fn end(self) -> Result<Said, Violation> {
        if !self.is_text {
            return Ok(Said::Binary);
        }
        String::from_utf8(self.payload).map(Said::Text).map_err(|_| Violation::NotUtf8)
    }
}
