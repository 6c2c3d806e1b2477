//! A connection for a load test: frames go in encoded and come out as text, one task each.

use crate::socket::{Closed, Socket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Frames taken from the queue for one flush.
const FRAMES_PER_FLUSH: usize = 64;

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RawSendError {
    #[error("the queue of this connection is full")]
    Full,
    #[error("the connection is over")]
    Closed,
}

/// A socket driven by a single task. Nothing is retried, decoded or remembered.
#[derive(Debug)]
pub struct RawConnection {
    outgoing: mpsc::Sender<Utf8Bytes>,
    task: JoinHandle<Closed>,
}

impl RawConnection {
    /// `on_frame` is called within the task for each text frame, so it must not block. At most
    /// `queue` frames (at least one) wait to be written.
    pub fn spawn<F>(socket: Socket, queue: usize, on_frame: F) -> Self
    where
        F: FnMut(&str) + Send + 'static,
    {
        let (outgoing, frames) = mpsc::channel(queue.max(1));
        Self { outgoing, task: tokio::spawn(drive(socket, frames, on_frame)) }
    }

    /// Queues a frame, or says at once that it cannot: an open-loop load test must not wait here.
    ///
    /// # Errors
    /// The queue is full, or the connection over.
    pub fn try_send(&self, frame: Utf8Bytes) -> Result<(), RawSendError> {
        self.outgoing.try_send(frame).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => RawSendError::Full,
            mpsc::error::TrySendError::Closed(_) => RawSendError::Closed,
        })
    }

    /// Queues a frame, waiting for room.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn send(&self, frame: Utf8Bytes) -> Result<(), RawSendError> {
        self.outgoing.send(frame).await.map_err(|_| RawSendError::Closed)
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed()
    }

    /// Sends what is queued, says goodbye, and returns how the connection ended.
    pub async fn close(self) -> Closed {
        drop(self.outgoing);
        ended(self.task).await
    }

    /// Waits until the server ends the connection, and returns how.
    pub async fn ended(mut self) -> Closed {
        ended(&mut self.task).await
    }

    /// Drops the connection as a process that was killed would: no goodbye.
    pub fn kill(self) {
        self.task.abort();
    }
}

async fn ended(task: impl Future<Output = Result<Closed, tokio::task::JoinError>>) -> Closed {
    task.await.unwrap_or_else(|e| Closed::broken(e.to_string()))
}

async fn drive<F: FnMut(&str) + Send>(
    mut socket: Socket,
    mut frames: mpsc::Receiver<Utf8Bytes>,
    mut on_frame: F,
) -> Closed {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            incoming = socket.next() => match incoming {
                Ok(text) => on_frame(&text),
                Err(closed) => return closed,
            },
            count = frames.recv_many(&mut batch, FRAMES_PER_FLUSH) => {
                if count == 0 {
                    socket.close().await;
                    return Closed::broken("closed by this side");
                }
                if let Err(closed) = socket.send_all(batch.drain(..)).await {
                    return closed;
                }
            }
        }
    }
}
