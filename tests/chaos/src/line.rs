//! The lines between one process and the NATS servers, which the run holds in its hand: it cuts them,
//! holds them still, or loses messages on them.

use crate::frames::Frames;
use rand::Rng;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How a connection of the edge link names itself when it connects.
const EDGE_LINK: &[u8] = b"\"name\":\"reedi edge link\"";
/// Of three messages on a lossy edge link one is lost: most batches then need a repeat.
const LOST_OF_MESSAGES: f64 = 0.33;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Connections stand, and nothing passes in either direction.
    Held,
    /// No connection stands, and none is taken.
    Cut,
    /// Messages of the edge link are lost at random; the log and the leases are not touched, since
    /// JetStream's own protocol promises no more than a connection that breaks.
    Lossy,
}

/// All lines of one process. Clones are the same lines.
#[derive(Clone)]
pub struct Lines {
    /// What the process takes for NATS.
    pub urls: Vec<String>,
    state: watch::Sender<Line>,
}

impl Lines {
    /// Opens a line to each of `servers` (`nats://host:port`).
    pub async fn open(servers: &[String]) -> io::Result<Self> {
        let (state, lost) = (watch::Sender::new(Line::Open), Arc::new(AtomicU64::new(0)));
        let mut urls = Vec::new();
        for server in servers {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            urls.push(format!("nats://{}", listener.local_addr()?));
            let server = server.trim_start_matches("nats://").to_owned();
            tokio::spawn(accept(listener, server, state.clone(), Arc::clone(&lost)));
        }
        Ok(Self { urls, state })
    }

    pub fn set(&self, line: Line) {
        self.state.send_replace(line);
    }
}

async fn accept(listener: TcpListener, server: String, state: watch::Sender<Line>, lost: Arc<AtomicU64>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if *state.borrow() == Line::Cut {
            continue;
        }
        let (server, state, lost) = (server.clone(), state.subscribe(), Arc::clone(&lost));
        tokio::spawn(async move {
            if let Ok(upstream) = TcpStream::connect(&server).await {
                carry(client, upstream, state, lost).await;
            }
        });
    }
}

/// Carries both directions until either ends, or the line is cut.
async fn carry(client: TcpStream, upstream: TcpStream, state: watch::Receiver<Line>, lost: Arc<AtomicU64>) {
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), upstream.into_split());
    let is_link = Arc::new(AtomicBool::new(false));
    let up = carry_up(from_client, to_server, state.clone(), Arc::clone(&is_link));
    let down = carry_down(from_server, to_client, state, is_link, lost);
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn carry_up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Line>,
    is_link: Arc<AtomicBool>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut is_first = true;
    while let Some(count) = read(&mut from, &mut chunk, &mut state).await {
        if std::mem::take(&mut is_first) {
            let names_link = chunk[..count].windows(EDGE_LINK.len()).any(|words| words == EDGE_LINK);
            is_link.store(names_link, Ordering::Relaxed);
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

async fn carry_down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Line>,
    is_link: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
) {
    let (mut chunk, mut frames) = (vec![0; CHUNK_BYTES], Frames::default());
    while let Some(count) = read(&mut from, &mut chunk, &mut state).await {
        frames.push(&chunk[..count]);
        let is_lossy = *state.borrow() == Line::Lossy && is_link.load(Ordering::Relaxed);
        let mut passed = Vec::with_capacity(count);
        while let Some(frame) = frames.next_frame() {
            if is_lossy && frame.is_message && rand::rng().random_bool(LOST_OF_MESSAGES) {
                lost.fetch_add(1, Ordering::Relaxed);
            } else {
                passed.extend(frame.bytes);
            }
        }
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
}

/// Reads what comes while the line is not held; `None` at its end.
async fn read(
    from: &mut OwnedReadHalf,
    chunk: &mut [u8],
    state: &mut watch::Receiver<Line>,
) -> Option<usize> {
    loop {
        let line = *state.borrow_and_update();
        if line == Line::Cut {
            return None;
        }
        tokio::select! {
            changed = state.changed() => changed.ok()?,
            read = from.read(chunk), if line != Line::Held => return read.ok().filter(|count| *count > 0),
        }
    }
}
