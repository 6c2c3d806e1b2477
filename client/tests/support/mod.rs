//! A server that speaks the frames of the contract and has no mind of its own.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt};
use reedi_client::{Token, Update, Updates};
use reedi_protocol::event::ServerEvent;
use reedi_protocol::frame::SUBPROTOCOL;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

pub const ACCOUNT: &str = "018f6d1e-0000-7000-8000-000000000001";
/// Longer than anything here takes, shorter than anybody's patience.
const WITHIN: Duration = Duration::from_secs(10);

pub fn token() -> Token {
    let claims = format!(r#"{{"sub":"{ACCOUNT}","exp":4000000000}}"#);
    Token::new(&format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims)))
}

/// An empty folder of this test process.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("reedi-client-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

pub struct Server(TcpListener);

impl Server {
    pub async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    pub async fn accept(&mut self) -> Peer {
        let (stream, _) = timeout(WITHIN, self.0.accept()).await.expect("nobody connects").unwrap();
        let mut authorization = String::new();
        #[allow(clippy::result_large_err)]
        let agree = |request: &Request, mut response: Response| {
            let header = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
            authorization = header("authorization").unwrap_or_default().to_owned();
            assert_eq!(request.uri().path(), "/api/messages/ws");
            assert_eq!(header("sec-websocket-protocol"), Some(SUBPROTOCOL));
            let agreed = HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert("sec-websocket-protocol", agreed);
            Ok(response)
        };
        let stream = accept_hdr_async(stream, agree).await.unwrap();
        Peer { authorization, stream }
    }
}

pub struct Peer {
    pub authorization: String,
    stream: WebSocketStream<TcpStream>,
}

impl Peer {
    /// The next command of this name; others before it are passed over.
    pub async fn command(&mut self, name: &str) -> Value {
        let searching = async {
            loop {
                let message = self.stream.next().await.expect("a frame").unwrap();
                if let Message::Text(text) = message {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["event"] == name {
                        return frame;
                    }
                }
            }
        };
        timeout(WITHIN, searching).await.unwrap_or_else(|_| panic!("no {name}"))
    }

    pub async fn send(&mut self, frame: Value) {
        self.stream.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.stream.close(Some(frame)).await.unwrap();
    }
}

/// Passes updates over until one fits.
pub async fn until(updates: &mut Updates, fits: impl Fn(&Update) -> bool) -> Update {
    let searching = async {
        loop {
            let update = updates.recv().await.expect("no more updates");
            if fits(&update) {
                return update;
            }
        }
    };
    timeout(WITHIN, searching).await.expect("no such update")
}

pub async fn next_event(updates: &mut Updates) -> ServerEvent {
    match until(updates, |update| matches!(update, Update::Event(_))).await {
        Update::Event(event) => *event,
        _ => unreachable!(),
    }
}
