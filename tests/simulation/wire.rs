//! The line between a client and an edge: bytes that take their time, stop while the edge is paused, and
//! are cut when it dies or the network does.

use crate::cluster::EdgeProcess;
use futures_util::{SinkExt, StreamExt};
use reedi::edge::authenticate::Identity;
use reedi::edge::connection::Present;
use reedi::edge::connection::websocket::{self, Entry};
use reedi::edge::refused::Refused;
use reedi_protocol::{AccountId, Timestamp};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Bytes on their way in each direction: what a socket's buffers hold.
const IN_FLIGHT_BYTES: usize = 16 * 1024;

/// Asks an edge something, as a request of REST does. `None` where no answer comes.
pub async fn ask<T, F>(edge: &EdgeProcess, work: F) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let process = edge.process.clone();
    let asked = tokio::spawn(async move {
        process.travels().await;
        let answer = work.await;
        process.travels().await;
        answer
    });
    edge.process.owns(asked.abort_handle());
    tokio::time::timeout(Duration::from_secs(15), asked).await.ok()?.ok()
}

/// One connection, from the client's side.
pub struct Line {
    socket: WebSocketStream<DuplexStream>,
    tasks: Vec<AbortHandle>,
}

/// Why there is no line.
#[derive(Debug)]
pub enum NoLine {
    /// The edge said so.
    Refused(Refused),
    Silence,
}

impl Line {
    /// Connects `account` to an edge.
    pub async fn open(edge: &EdgeProcess, account: AccountId, until: Timestamp) -> Result<Self, NoLine> {
        let identity = Identity { account, device: None, expires_at: until };
        let coming = edge.edge.clone();
        let came = ask(edge, async move { Present::come(&coming, identity).await }).await;
        let present = came.ok_or(NoLine::Silence)?.map_err(NoLine::Refused)?;
        let (ours, near) = tokio::io::duplex(IN_FLIGHT_BYTES);
        let (far, theirs) = tokio::io::duplex(IN_FLIGHT_BYTES);
        let serving =
            tokio::spawn(websocket::serve(edge.edge.clone(), theirs, Entry::Known(Box::new(present))));
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        let up = tokio::spawn(carry(edge.clone(), near_read, far_write));
        let down = tokio::spawn(carry(edge.clone(), far_read, near_write));
        edge.process.owns(serving.abort_handle());
        let tasks = vec![up.abort_handle(), down.abort_handle()];
        tasks.iter().for_each(|task| edge.process.owns(task.clone()));
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        Ok(Self { socket, tasks })
    }

    /// The next text; `Err` with the close code once the line is gone.
    pub async fn next(&mut self) -> Result<String, Option<u16>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// Says that the client is there. False once the line is gone.
    pub async fn ping(&mut self) -> bool {
        let sending = self.socket.send(Message::Ping(bytes::Bytes::new()));
        tokio::time::timeout(Duration::from_secs(10), sending).await.is_ok_and(|sent| sent.is_ok())
    }

    /// False once the line is gone.
    pub async fn send(&mut self, text: String) -> bool {
        let sending = self.socket.send(Message::text(text));
        tokio::time::timeout(Duration::from_secs(10), sending).await.is_ok_and(|sent| sent.is_ok())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Carries bytes one way, for as long as both ends are there.
async fn carry(edge: EdgeProcess, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut bytes = vec![0; IN_FLIGHT_BYTES];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        edge.process.travels().await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    // Told to the other end, as a closed socket is.
    let _ = to.shutdown().await;
}
