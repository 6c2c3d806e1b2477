//! A line to NATS that can be held and cut.

use crate::plain::nats;
use std::sync::Arc;
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
}

/// A line to the first NATS server that the test holds in its hand.
pub struct Proxy {
    pub url: String,
    line: watch::Sender<Line>,
    /// Counts how often all connections were dropped.
    drops: watch::Sender<u32>,
}

impl Proxy {
    pub async fn start() -> Self {
        let server = nats().urls[0].trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let line = watch::Sender::new(Line::Open);
        let server = Arc::new(server);
        let state = line.subscribe();
        let drops = watch::Sender::new(0);
        let dropped = drops.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *state.borrow() != Line::Cut {
                    let mut dropped = dropped.clone();
                    dropped.mark_unchanged();
                    tokio::spawn(carry(client, Arc::clone(&server), state.clone(), dropped));
                }
            }
        });
        Self { url, line, drops }
    }

    /// Ends all connections; new ones are taken as before.
    pub fn drop_all(&self) {
        self.drops.send_modify(|count| *count += 1);
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(
    mut client: TcpStream,
    server: Arc<String>,
    mut line: watch::Receiver<Line>,
    mut dropped: watch::Receiver<u32>,
) {
    let mut upstream = TcpStream::connect(server.as_str()).await.unwrap();
    let (mut from_client, mut from_server) = ([0; 65_536], [0; 65_536]);
    loop {
        let now = *line.borrow_and_update();
        if now == Line::Cut {
            return;
        }
        tokio::select! {
            _ = dropped.changed() => return,
            changed = line.changed() => if changed.is_err() { return },
            read = client.read(&mut from_client), if now == Line::Open => match read {
                Ok(count) if count > 0 => upstream.write_all(&from_client[..count]).await.unwrap(),
                _ => return,
            },
            read = upstream.read(&mut from_server) => match read {
                Ok(count) if count > 0 => if client.write_all(&from_server[..count]).await.is_err() { return },
                _ => return,
            },
        }
    }
}
