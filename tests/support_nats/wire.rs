//! The frames of the NATS protocol, as far as a line must know them to hold some back or change them.

use bytes::{Buf, Bytes, BytesMut};

/// One frame as it stands on the line: its control line, and its payload if it has one.
pub struct Frame {
    pub line: String,
    pub payload: Bytes,
}

impl Frame {
    /// Takes the next whole frame out of `bytes`.
    pub fn take(bytes: &mut BytesMut) -> Option<Self> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..end]).unwrap().to_owned();
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        let has_payload = ["PUB", "HPUB", "MSG", "HMSG"].contains(&verb.as_str());
        let length: usize = if has_payload { line.rsplit(' ').next().unwrap().parse().unwrap() } else { 0 };
        let whole = end + 2 + if has_payload { length + 2 } else { 0 };
        if bytes.len() < whole {
            return None;
        }
        let mut frame = bytes.split_to(whole);
        frame.advance(end + 2);
        Some(Self { line, payload: frame.freeze() })
    }

    pub fn is(&self, verb: &str) -> bool {
        self.line.split(' ').next().unwrap().eq_ignore_ascii_case(verb)
    }

    /// Where a message goes or comes from; empty for other frames.
    pub fn subject(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// As the bytes that it was.
    pub fn bytes(&self) -> Vec<u8> {
        [self.line.as_bytes(), b"\r\n", &self.payload].concat()
    }
}
