//! The wire of one WebSocket, with a handle to end it: socketioxide ends namespaces and everything,
//! but no single connection.

use super::refusal::undisguised;
use futures_util::task::AtomicWaker;
use reedi_protocol::limits;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;

/// How long a client may take to notice that its connection was closed.
const LINGER_FOR: Duration = Duration::from_secs(2);
/// A client that is not let in is told so within this much.
const BEGINNING_BYTES: u64 = 4_096;
/// What a client may say before it has said who it is: twice a plain WebSocket's first frame, since pings and the
/// like are among it.
const STRANGERS_BYTES: usize = 2 * limits::FIRST_FRAME_BYTES;
/// Stages of a wire's end; it begins at 0.
const DEAF: u8 = 1;
const GONE: u8 = 2;

#[derive(Default)]
struct State {
    stage: AtomicU8,
    /// Bytes written, and how many of them had been when all was flushed last.
    written: AtomicU64,
    flushed: AtomicU64,
    told: Notify,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// Ends a wire.
#[derive(Clone, Default)]
pub struct Cut(Arc<State>);

impl Cut {
    /// How much was written until now.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::SeqCst)
    }

    /// Waits until more than `before` was written, and is on its way.
    pub async fn flushed(&self, before: u64) {
        loop {
            let told = self.0.told.notified();
            if self.0.flushed.load(Ordering::SeqCst) > before {
                return;
            }
            told.await;
        }
    }

    /// Nothing is heard any more, which whoever serves the connection takes for its end.
    pub fn end(&self) {
        self.to(DEAF);
    }

    /// Nothing is written any more either, not even what is waiting for the client to read.
    pub fn now(&self) {
        self.to(GONE);
    }

    fn to(&self, stage: u8) {
        self.0.stage.fetch_max(stage, Ordering::SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    fn is(&self, stage: u8) -> bool {
        self.0.stage.load(Ordering::SeqCst) >= stage
    }
}

/// What a wire carries.
pub trait Carries: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carries for S {}

/// What lives as long as a wire.
pub trait Carried: Unpin + Send + 'static {
    /// Whether the client has not said yet who it is.
    fn is_stranger(&self) -> bool;
}

/// A connection that a [`Cut`] ends; `kept` lives as long.
pub struct Wire<S: Carries, K: Carried> {
    /// Taken when dropped.
    io: Option<S>,
    cut: Cut,
    kept: K,
    /// Bytes that a stranger may still say; `None` once it is none.
    stranger: Option<usize>,
}

impl<S: Carries, K: Carried> Wire<S, K> {
    pub fn new(io: S, cut: Cut, kept: K) -> Self {
        Self { io: Some(io), cut, kept, stranger: Some(STRANGERS_BYTES) }
    }

    /// Counts `read` bytes more, as long as nobody knows whose they are.
    fn hear(&mut self, read: usize) -> io::Result<()> {
        let Some(left) = self.stranger else { return Ok(()) };
        if !self.kept.is_stranger() {
            self.stranger = None;
            return Ok(());
        }
        self.stranger = Some(left.saturating_sub(read));
        if read > left { Err(io::Error::other("a stranger says too much")) } else { Ok(()) }
    }
}

impl<S: Carries, K: Carried> Drop for Wire<S, K> {
    fn drop(&mut self) {
        if let (Some(io), true, false) = (self.io.take(), self.cut.is(DEAF), self.cut.is(GONE)) {
            tokio::spawn(linger(io));
        }
    }
}

/// Closes a connection on which the client may still be sending: were it closed at once, the client
/// would learn that its data was not taken, and might not read its goodbye.
async fn linger(mut io: impl Carries) {
    let until_closed = async {
        io.shutdown().await?;
        let mut unheard = [0; 1_024];
        while io.read(&mut unheard).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // Gone either way.
    let _ = tokio::time::timeout(LINGER_FOR, until_closed).await;
}

impl<S: Carries, K: Carried> AsyncRead for Wire<S, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.0.reader.register(cx.waker());
        if self.cut.is(DEAF) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match &mut self.io {
            Some(io) => ready!(Pin::new(io).poll_read(cx, buf))?,
            None => return Poll::Ready(Ok(())),
        }
        Poll::Ready(self.hear(buf.filled().len() - before))
    }
}

impl<S: Carries, K: Carried> Wire<S, K> {
    fn unless_gone<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.cut.0.writer.register(cx.waker());
        match &mut self.io {
            Some(io) if !self.cut.is(GONE) => poll(Pin::new(io), cx),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl<S: Carries, K: Carried> AsyncWrite for Wire<S, K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Of what was put in another's place as much is written as of that, since both are of one length.
        let told = (self.cut.written() < BEGINNING_BYTES).then(|| undisguised(bytes)).flatten();
        let bytes = told.as_deref().unwrap_or(bytes);
        let written = ready!(self.unless_gone(cx, |io, cx| io.poll_write(cx, bytes)))?;
        self.cut.0.written.fetch_add(written as u64, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.unless_gone(cx, AsyncWrite::poll_flush))?;
        self.cut.0.flushed.store(self.cut.written(), Ordering::SeqCst);
        self.cut.0.told.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_gone(cx, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Known or not.
    struct Known(Arc<AtomicBool>);

    impl Carried for Known {
        fn is_stranger(&self) -> bool {
            !self.0.load(Ordering::SeqCst)
        }
    }

    fn known(is_known: bool) -> (Known, Arc<AtomicBool>) {
        let is_known = Arc::new(AtomicBool::new(is_known));
        (Known(is_known.clone()), is_known)
    }

    #[tokio::test]
    async fn a_stranger_may_say_so_much() {
        let (mut client, server) = tokio::io::duplex(STRANGERS_BYTES);
        let (kept, _) = known(false);
        let mut wire = Wire::new(server, Cut::default(), kept);
        let mut heard = vec![0; STRANGERS_BYTES];
        client.write_all(&heard.clone()).await.unwrap();
        wire.read_exact(&mut heard).await.unwrap();
        client.write_all(b"more").await.unwrap();
        assert!(wire.read(&mut heard).await.is_err());

        let (mut client, server) = tokio::io::duplex(STRANGERS_BYTES);
        let (kept, is_known) = known(false);
        let mut wire = Wire::new(server, Cut::default(), kept);
        client.write_all(b"token").await.unwrap();
        wire.read_exact(&mut heard[..5]).await.unwrap();
        is_known.store(true, Ordering::SeqCst);
        for _ in 0..4 {
            client.write_all(&[0; STRANGERS_BYTES]).await.unwrap();
            wire.read_exact(&mut heard).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_ended_wire_reads_nothing_more_and_still_writes() {
        let (mut client, server) = tokio::io::duplex(16);
        let cut = Cut::default();
        let mut wire = Wire::new(server, cut.clone(), known(true).0);
        let flushed = tokio::spawn({
            let cut = cut.clone();
            async move { cut.flushed(0).await }
        });
        let reading = tokio::spawn(async move {
            let mut heard = Vec::new();
            wire.read_to_end(&mut heard).await.map(|_| (heard, wire))
        });
        client.write_all(b"before").await.unwrap();
        while !reading.is_finished() {
            // The reader waits for more until it is woken by the cut.
            tokio::task::yield_now().await;
            cut.end();
        }
        let (_, mut wire) = reading.await.unwrap().unwrap();
        wire.write_all(b"goodbye").await.unwrap();
        assert_eq!(cut.written(), 7);
        assert!(!flushed.is_finished());
        wire.flush().await.unwrap();
        flushed.await.unwrap();
        drop(wire);
        // What it still sends is taken, so that it can read its goodbye.
        client.write_all(&[b'x'; 1_000]).await.unwrap();
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"goodbye");
    }

    #[tokio::test]
    async fn a_writer_that_waits_for_its_client_is_let_go() {
        let (_client, server) = tokio::io::duplex(4);
        let cut = Cut::default();
        let mut wire = Wire::new(server, cut.clone(), known(true).0);
        let writing = tokio::spawn(async move { wire.write_all(b"more than fits").await });
        tokio::task::yield_now().await;
        cut.now();
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
