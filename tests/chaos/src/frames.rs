//! What a NATS server says, cut into whole frames, so that a line can lose one without breaking the
//! stream of bytes.

/// One frame as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// A message for a subscription; what else there is belongs to the connection.
    pub is_message: bool,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let line = self.buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let head = &self.buffer[..line];
        let is_message = head.starts_with(b"MSG ") || head.starts_with(b"HMSG ");
        let payload = if is_message { payload_bytes(head)? + 2 } else { 0 };
        let end = line + 2 + payload;
        if self.buffer.len() < end {
            return None;
        }
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        Some(Frame { bytes, is_message })
    }
}

/// The last word of `MSG subject sid [reply] bytes` and `HMSG subject sid [reply] head-bytes bytes`.
fn payload_bytes(head: &[u8]) -> Option<usize> {
    std::str::from_utf8(head).ok()?.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_however_the_bytes_come() {
        let stream = b"INFO {}\r\nMSG a.b 1 5\r\nhe\r\no\r\nPING\r\nHMSG c 2 r.1 4 6\r\nNATSab\r\n+OK\r\n";
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for byte in stream {
            frames.push(&[*byte]);
            while let Some(frame) = frames.next_frame() {
                seen.push((String::from_utf8_lossy(&frame.bytes).into_owned(), frame.is_message));
            }
        }
        let expected = [
            ("INFO {}\r\n", false),
            ("MSG a.b 1 5\r\nhe\r\no\r\n", true),
            ("PING\r\n", false),
            ("HMSG c 2 r.1 4 6\r\nNATSab\r\n", true),
            ("+OK\r\n", false),
        ];
        assert_eq!(seen, expected.map(|(text, message)| (text.to_owned(), message)));
    }
}
