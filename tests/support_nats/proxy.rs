//! A line to NATS that can be held and cut, and that can pass for a server which was cut off.

use crate::plain::nats;
use crate::wire::Frame;
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// What the client sends waits at the line.
    Held,
    /// No connection stands, and none is taken.
    Cut,
    /// As a server that was cut off from the others: connections are taken and pings answered, and
    /// nothing else comes of what the client sends.
    Deaf,
    /// As a leader that was cut off: it tells of streams as they were before the first record, and
    /// acknowledges no record.
    Stale,
    /// As a leader of the past, or a replica that is behind, beside a leader that takes records: it tells of
    /// streams as they were.
    Behind,
    /// Records on their way to the client are lost, and nothing else.
    Lossy,
}

/// A line to one NATS server that the test holds in its hand.
pub struct Proxy {
    pub url: String,
    line: watch::Sender<Line>,
    /// Counts how often all connections were dropped.
    drops: watch::Sender<u32>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    withheld: AtomicUsize,
}

impl Proxy {
    /// A line to the first server.
    pub async fn start() -> Self {
        Self::to_server(0).await
    }

    pub async fn to_server(number: usize) -> Self {
        let urls = nats().urls;
        let server = urls[number % urls.len()].trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let line = watch::Sender::new(Line::Open);
        let state = line.subscribe();
        let drops = watch::Sender::new(0);
        let dropped = drops.subscribe();
        let counts = Arc::new(Counts::default());
        let counting = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *state.borrow() != Line::Cut {
                    counting.connections.fetch_add(1, Ordering::Relaxed);
                    let mut dropped = dropped.clone();
                    dropped.mark_unchanged();
                    let upstream = TcpStream::connect(server.as_str()).await.unwrap();
                    let carried = Carried { client, upstream, counts: Arc::clone(&counting) };
                    tokio::spawn(carried.carry(state.clone(), dropped));
                }
            }
        });
        Self { url, line, drops, counts }
    }

    /// Ends all connections; new ones are taken as before.
    pub fn drop_all(&self) {
        self.drops.send_modify(|count| *count += 1);
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How many records it has kept from whom they were for.
    pub fn withheld(&self) -> usize {
        self.counts.withheld.load(Ordering::Relaxed)
    }
}

/// One connection.
struct Carried {
    client: TcpStream,
    upstream: TcpStream,
    counts: Arc<Counts>,
}

/// A subject under which records stand.
fn is_record(frame: &Frame) -> bool {
    frame.subject().contains(".log.")
}

/// The end of a stream, or how far a consumer has gone through it, as it was before the first record, in as
/// many bytes.
fn before_the_first(frame: &mut Frame) {
    let mut text = String::from_utf8_lossy(&frame.payload).into_owned();
    for key in ["\"last_seq\":", "Nats-Last-Stream: "] {
        if let Some(at) = text.find(key).map(|at| at + key.len()) {
            let digits = text[at..].chars().take_while(char::is_ascii_digit).count();
            text.replace_range(at..at + digits, &format!("{:>digits$}", 0));
            frame.payload = text.clone().into();
        }
    }
}

impl Carried {
    async fn carry(mut self, mut line: watch::Receiver<Line>, mut dropped: watch::Receiver<u32>) {
        let (mut from_client, mut from_server) = (BytesMut::new(), BytesMut::new());
        loop {
            let now = *line.borrow_and_update();
            if now == Line::Cut {
                return;
            }
            let went_on = tokio::select! {
                _ = dropped.changed() => return,
                changed = line.changed() => changed.is_ok(),
                read = self.client.read_buf(&mut from_client), if now != Line::Held => {
                    matches!(read, Ok(count) if count > 0) && self.carry_there(&mut from_client, now).await
                }
                read = self.upstream.read_buf(&mut from_server) => {
                    matches!(read, Ok(count) if count > 0) && self.carry_back(&mut from_server, now).await
                }
            };
            if !went_on {
                return;
            }
        }
    }

    async fn carry_there(&mut self, bytes: &mut BytesMut, line: Line) -> bool {
        while let Some(frame) = Frame::take(bytes) {
            let passes = match line {
                Line::Deaf if frame.is("PING") => {
                    if self.client.write_all(b"PONG\r\n").await.is_err() {
                        return false;
                    }
                    false
                }
                Line::Deaf => frame.is("CONNECT") || frame.is("PONG"),
                Line::Stale => !is_record(&frame),
                _ => true,
            };
            if !passes && is_record(&frame) {
                self.counts.withheld.fetch_add(1, Ordering::Relaxed);
            }
            if passes && self.upstream.write_all(&frame.bytes()).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn carry_back(&mut self, bytes: &mut BytesMut, line: Line) -> bool {
        while let Some(mut frame) = Frame::take(bytes) {
            if line == Line::Lossy && is_record(&frame) {
                self.counts.withheld.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if matches!(line, Line::Stale | Line::Behind) && !is_record(&frame) {
                before_the_first(&mut frame);
            }
            if self.client.write_all(&frame.bytes()).await.is_err() {
                return false;
            }
        }
        true
    }
}
