//! A WebSocket client that can do everything wrong.

use crate::http::Reply;
use crate::raw::Raw;
use crate::service::Service;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The service answers in milliseconds, and after ten seconds at the latest.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Socket {
    pub stream: WebSocketStream<TcpStream>,
    acks: u64,
}

/// The headers of a good upgrade.
pub const UPGRADE: &[(&str, &str)] = &[
    ("Host", "a"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

impl Socket {
    /// Connects with exactly these headers.
    pub async fn upgrade(service: &Service, headers: &[(&str, &str)]) -> Result<(Self, Reply), Reply> {
        Self::upgrade_on(Raw::connect(service).await, headers).await
    }

    /// Connects so that the system takes in only so many bytes before they are read.
    pub async fn connect_with_buffer(service: &Service, token: &str, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("a small buffer");
        let stream = socket.connect(service.address).await.expect("a connection");
        let bearer = format!("Bearer {token}");
        let mut headers = UPGRADE.to_vec();
        headers.push(("Authorization", &bearer));
        Self::upgrade_on(Raw(BufReader::new(stream)), &headers).await.expect("a socket").0
    }

    async fn upgrade_on(mut raw: Raw, headers: &[(&str, &str)]) -> Result<(Self, Reply), Reply> {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        raw.write(format!("GET /api/messages/ws HTTP/1.1\r\n{lines}\r\n").as_bytes()).await;
        let reply = raw.reply().await.expect("an answer");
        if reply.status != 101 {
            return Err(reply);
        }
        let first = raw.0.buffer().to_vec();
        let stream = raw.0.into_inner();
        let stream = WebSocketStream::from_partially_read(stream, first, Role::Client, None).await;
        Ok((Self { stream, acks: 0 }, reply))
    }

    pub async fn try_connect(service: &Service, token: Option<&str>) -> Result<Self, Reply> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = UPGRADE.to_vec();
        headers.push(("Sec-WebSocket-Protocol", "reedi.v1"));
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        Self::upgrade(service, &headers).await.map(|(socket, _)| socket)
    }

    pub async fn connect(service: &Service, token: Option<&str>) -> Self {
        Self::try_connect(service, token).await.expect("a socket")
    }

    pub async fn message(&mut self, message: Message) {
        let _ = self.stream.send(message).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.message(Message::text(text)).await;
    }

    pub async fn send(&mut self, frame: Value) {
        self.text(&frame.to_string()).await;
    }

    /// The next frame of text.
    pub async fn next(&mut self) -> Value {
        loop {
            match self.any().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).expect("a JSON frame"),
                Some(Message::Close(close)) => panic!("closed with {close:?}"),
                None => panic!("ended without a close"),
                Some(_) => {}
            }
        }
    }

    /// The next frame of any kind; `None` at the end.
    pub async fn any(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
        next.expect("a frame or an end in time").and_then(Result::ok)
    }

    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["event"] == name {
                return frame["data"].clone();
            }
        }
    }

    /// Does a command; gives its answer. Events that come before it are passed over.
    pub async fn command(&mut self, event: &str, data: Value) -> Value {
        self.acks += 1;
        let ack = self.acks;
        self.send(json!({ "event": event, "data": data, "ack": ack })).await;
        self.answer(ack).await
    }

    pub async fn answer(&mut self, ack: u64) -> Value {
        loop {
            let frame = self.next().await;
            if frame["ack"] == ack {
                return frame["data"].clone();
            }
        }
    }

    /// The code and reason that the server closes with.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.any().await {
                Some(Message::Close(Some(close))) => return (close.code.into(), close.reason.to_string()),
                Some(Message::Close(None)) => return (1005, String::new()),
                None => return (1006, String::new()),
                Some(_) => {}
            }
        }
    }

    /// Whether the connection still does what it is asked.
    pub async fn is_well(&mut self) -> bool {
        self.command("resume", json!({})).await["ok"] == true
    }
}
