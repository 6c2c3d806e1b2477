//! A WebSocket over a connection.

use super::encode::{CONTROL_MOST, Opcode, header};
use super::{Decoder, Said, Violation};
use bytes::Bytes;
use std::future::poll_fn;
use std::iter::Peekable;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once, on the stack of whoever polls: a connection that waits holds none.
const READ_BYTES: usize = 4_096;
/// Frames are joined up to so many bytes for one write.
const WRITE_BYTES: usize = 64 * 1_024;
/// Most bytes of a frame's head.
const HEAD_BYTES: usize = 10;
/// What a control frame leaves for the reason of a close (RFC 6455, section 5.5), in bytes.
const REASON_BYTES: usize = 123;

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

pub struct WebSocket<S> {
    io: S,
    decoder: Decoder,
    /// Frames on their way out, from `written` on. A write that was given up leaves its rest here, so that
    /// what is said next does not stand in the middle of a frame.
    out: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Speaks on `io`, on which the opening handshake is over. Messages of more than `most` bytes are
    /// refused.
    #[must_use]
    pub fn new(io: S, most: usize) -> Self {
        Self { io, decoder: Decoder::new(most), out: Vec::new(), written: 0 }
    }

    /// From here on messages of up to `most` bytes are taken.
    pub fn allow(&mut self, most: usize) {
        self.decoder.allow(most);
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.out.capacity() + self.decoder.held()
    }

    /// The next that the client says; `None` once it has left. Pings are the caller's to answer.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection failed, or the client does not keep to the protocol.
    pub async fn next(&mut self) -> Result<Option<Said>, Broken> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Said>, Broken>> {
        loop {
            if let Some(said) = self.decoder.message()? {
                return Poll::Ready(Ok(Some(said)));
            }
            let decoder = &mut self.decoder;
            if !ready!(poll_some(&mut self.io, cx, |bytes| decoder.take(bytes)))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Writes text messages, in order and joined, as many as make one write; nothing where there are none.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn texts(&mut self, texts: &mut Peekable<impl Iterator<Item = Bytes>>) -> std::io::Result<()> {
        let Some(first) = texts.next() else { return Ok(()) };
        self.out.reserve(HEAD_BYTES + first.len());
        self.put(Opcode::Text, &first);
        while let Some(text) = texts.next_if(|next| self.out.len() + HEAD_BYTES + next.len() <= WRITE_BYTES) {
            self.put(Opcode::Text, &text);
        }
        self.flush().await
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        header(opcode, payload.len(), &mut self.out);
        self.out.extend_from_slice(payload);
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        poll_fn(|cx| {
            while self.written < self.out.len() {
                let io = Pin::new(&mut self.io);
                match ready!(io.poll_write(cx, &self.out[self.written..]))? {
                    0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                    more => self.written += more,
                }
            }
            Pin::new(&mut self.io).poll_flush(cx)
        })
        .await?;
        // The memory goes with it: an idle connection holds none.
        (self.out, self.written) = (Vec::new(), 0);
        Ok(())
    }

    /// # Errors
    /// The connection failed.
    pub async fn ping(&mut self) -> std::io::Result<()> {
        self.control(Opcode::Ping, &[]).await
    }

    /// Answers a ping.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn pong(&mut self, payload: &[u8]) -> std::io::Result<()> {
        self.control(Opcode::Pong, payload).await
    }

    /// Says goodbye, or answers one. Of `reason` as much is said as there is room for.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn close(&mut self, code: Option<u16>, reason: &str) -> std::io::Result<()> {
        let mut payload = Vec::new();
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES)]);
        }
        self.control(Opcode::Close, &payload).await
    }

    async fn control(&mut self, opcode: Opcode, payload: &[u8]) -> std::io::Result<()> {
        self.put(opcode, &payload[..payload.len().min(CONTROL_MOST)]);
        self.flush().await
    }

    /// Reads and throws away what was under way. A connection closed over unread bytes is reset, and
    /// with it the goodbye.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn discard(&mut self) -> std::io::Result<()> {
        while poll_fn(|cx| poll_some(&mut self.io, cx, |_| ())).await? {}
        Ok(())
    }
}

/// Reads what is there and hands it over; false at the end.
fn poll_some(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<std::io::Result<bool>> {
    let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut bytes);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    let filled = buffer.filled();
    if !filled.is_empty() {
        take(filled);
    }
    Poll::Ready(Ok(!filled.is_empty()))
}
