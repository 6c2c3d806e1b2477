//! A plain WebSocket that remembers every frame it was sent.

use super::cluster::WITHIN;
use parking_lot::Mutex;
use reedi_client::{Closed, Endpoint, OpenError, RawConnection, Socket, SocketOptions, Token};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

pub struct Session {
    connection: RawConnection,
    frames: Arc<Frames>,
    next_ack: AtomicU64,
}

struct Frames {
    list: Mutex<Vec<Value>>,
    count: watch::Sender<usize>,
}

/// # Errors
/// The server does not let this one in.
pub async fn try_open(url: &str, token: Option<&str>) -> Result<Socket, OpenError> {
    let endpoint = Endpoint::parse(url).expect("an address");
    Socket::open(&endpoint, token.map(Token::new).as_ref(), &SocketOptions::default()).await
}

impl Session {
    /// Connects; again where a server on a busy machine says that it cannot tell events now.
    pub async fn open(url: &str, token: &str) -> Self {
        let opening = async {
            loop {
                match try_open(url, Some(token)).await {
                    Ok(socket) => return Self::of(socket),
                    Err(OpenError::Refused { status: 503, .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(WITHIN, opening).await.expect("it is let in")
    }

    pub fn of(socket: Socket) -> Self {
        let frames = Arc::new(Frames { list: Mutex::default(), count: watch::channel(0).0 });
        let heard = frames.clone();
        let connection = RawConnection::spawn(socket, 4_096, move |text| {
            let frame =
                serde_json::from_str(text).unwrap_or_else(|_| panic!("a frame that is no JSON: {text}"));
            heard.list.lock().push(frame);
            heard.count.send_modify(|count| *count += 1);
        });
        Self { connection, frames, next_ack: AtomicU64::new(1) }
    }

    /// Sends a frame as it is.
    pub async fn raw(&self, text: &str) {
        self.connection.send(text.into()).await.expect("an open connection");
    }

    /// Sends a command; gives what it is answered with, once it is.
    pub async fn command(&self, event: &str, data: Value) -> Value {
        let ack = self.next_ack.fetch_add(1, Ordering::Relaxed);
        self.raw(&json!({ "event": event, "data": data, "ack": ack }).to_string()).await;
        self.frame(&format!("an answer to {event}"), |frame| frame["ack"] == ack).await["data"].clone()
    }

    /// The same for a command that succeeds.
    pub async fn ok(&self, event: &str, data: Value) -> Value {
        let answer = self.command(event, data).await;
        assert_eq!(answer["ok"], true, "{event}: {answer}");
        answer
    }

    /// The code of the refusal of a command.
    pub async fn refused(&self, event: &str, data: Value) -> String {
        let answer = self.command(event, data).await;
        assert_eq!(answer["ok"], false, "{event}: {answer}");
        answer["error"]["code"].as_str().expect("a code").to_owned()
    }

    pub async fn send(&self, conversation: &str, text: &str) -> Value {
        let data = json!({ "conversationId": conversation, "content": text, "messageType": "text" });
        self.ok("send_message", data).await
    }

    /// The first frame that fits, whether it has come already or is still to come.
    pub async fn frame(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut count = self.frames.count.subscribe();
        let deadline = tokio::time::Instant::now() + WITHIN;
        let mut looked = 0;
        loop {
            count.mark_unchanged();
            {
                let list = self.frames.list.lock();
                if let Some(frame) = list[looked..].iter().find(|frame| fits(frame)) {
                    return frame.clone();
                }
                looked = list.len();
            }
            tokio::select! {
                changed = count.changed() => changed.expect("frames live as long as this"),
                () = sleep_until(deadline) => panic!("no {what} among {:#?}", self.frames.list.lock()),
            }
        }
    }

    /// The data of the first event of this name that fits.
    pub async fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let frame = self.frame(name, |frame| frame["event"] == name && fits(&frame["data"])).await;
        frame["data"].clone()
    }

    /// The message with this content.
    pub async fn message(&self, text: &str) -> Value {
        self.event("new_message", |data| data["content"] == text).await
    }

    /// Every event so far: name and data.
    pub fn events(&self) -> Vec<(String, Value)> {
        let list = self.frames.list.lock();
        let event =
            |frame: &Value| frame["event"].as_str().map(|name| (name.to_owned(), frame["data"].clone()));
        list.iter().filter_map(event).collect()
    }

    /// The data of all events of this name so far.
    pub fn all(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|(event, _)| event == name).map(|(_, data)| data).collect()
    }

    /// The data of the event of this name that is the `number`th, counted from 1.
    pub async fn nth(&self, name: &str, number: usize) -> Value {
        let mut count = self.frames.count.subscribe();
        let waiting = async {
            loop {
                if let Some(data) = self.all(name).into_iter().nth(number - 1) {
                    return data;
                }
                count.changed().await.expect("frames live as long as this");
            }
        };
        let waited = timeout(WITHIN, waiting).await;
        waited.unwrap_or_else(|_| panic!("no {number} of {name}: {:#?}", self.events()))
    }

    /// Asks for everything since `checkpoint`; ends when the server says that this was all, and gives its
    /// checkpoint. `None` where it says that it cannot tell yet.
    pub async fn try_resume(&self, checkpoint: Option<&str>, cursors: Value) -> Option<String> {
        let ends = |name: &str| matches!(name, "resume_complete" | "resume_pending");
        let before = self.events().iter().filter(|(name, _)| ends(name)).count();
        self.ok("resume", json!({ "checkpoint": checkpoint, "cursors": cursors })).await;
        let mut count = self.frames.count.subscribe();
        let waiting = async {
            loop {
                if let Some((_, end)) = self.events().into_iter().filter(|(name, _)| ends(name)).nth(before) {
                    return end["checkpoint"].as_str().map(str::to_owned);
                }
                count.changed().await.expect("frames live as long as this");
            }
        };
        timeout(WITHIN, waiting).await.unwrap_or_else(|_| panic!("no end of it: {:#?}", self.events()))
    }

    /// The same where the server can tell: it is asked again on a machine that is too busy to.
    pub async fn resume(&self, checkpoint: Option<&str>, cursors: Value) -> String {
        loop {
            if let Some(complete) = self.try_resume(checkpoint, cursors.clone()).await {
                return complete;
            }
        }
    }

    /// How the server ends the connection.
    pub async fn closed(self) -> Closed {
        timeout(WITHIN, self.connection.ended()).await.expect("the server closes")
    }

    pub fn is_open(&self) -> bool {
        !self.connection.is_closed()
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// Breaks off without a word.
    pub fn kill(self) {
        self.connection.kill();
    }
}
