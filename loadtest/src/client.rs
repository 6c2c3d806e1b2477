//! The clients of a load test: accounts, tokens, connections, and what comes in on them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rand::Rng;
use reedi_client::{
    Endpoint, OpenError, RawConnection, Rest, RestError, RestOptions, Socket, SocketOptions, Token, Utf8Bytes,
};
use reedi_protocol::{AccountId, ConversationId, Position};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Addresses of loopback that connections come from, so that reconnecting thousands of them does not
/// run out of ports: each has some 28,000, which rest for a minute after use.
const ADDRESSES: usize = 8;
/// Frames that may wait in one connection of the generator. More says that the server does not keep
/// up, and is counted.
const QUEUE: usize = 256;
/// Connections and calls begun at once while a scenario is set up.
pub const AT_ONCE: usize = 128;
/// Tries to open a connection, with a growing wait between them.
const TRIES: u32 = 6;
/// A token outlives any scenario.
const TOKEN_SECONDS: u64 = 24 * 3_600;

/// A simulated person.
#[derive(Clone)]
pub struct Person {
    pub account: AccountId,
    pub token: Token,
}

#[derive(Serialize)]
struct Claims {
    sub: AccountId,
    exp: u64,
}

/// Why a scenario cannot go on. Not for what the server under load does wrong: that is counted.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Server(#[from] crate::server::ServerError),
    #[error("a connection cannot be opened: {0}")]
    Open(#[from] OpenError),
    #[error("a call failed: {0}")]
    Rest(#[from] RestError),
    #[error("{0}")]
    Other(String),
}

/// `count` people with tokens that the server with this secret accepts.
///
/// # Errors
/// The library cannot sign.
pub fn people(count: usize, secret: &str) -> Result<Vec<Person>, Failure> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = EncodingKey::from_secret(secret.as_bytes());
    let person = |_| {
        let account = AccountId::new(Uuid::new_v4());
        let claims = Claims { sub: account, exp: now_s + TOKEN_SECONDS };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
        let token = token.map_err(|e| Failure::Other(format!("no token: {e}")))?;
        Ok(Person { account, token: Token::new(&token) })
    };
    (0..count).map(person).collect()
}

/// REST at one edge.
///
/// # Errors
/// The HTTP client cannot be made.
pub fn rest(endpoint: &Endpoint) -> Result<Rest, Failure> {
    Ok(Rest::new(endpoint.clone(), RestOptions { idle_connections: AT_ONCE, ..RestOptions::default() })?)
}

/// What the connection of client number `client` is opened with.
#[must_use]
pub fn socket_options(client: usize) -> SocketOptions {
    options_from(Ipv4Addr::new(127, 0, 0, 2 + (client % ADDRESSES) as u8))
}

/// What a connection from `address` is opened with.
#[must_use]
pub fn options_from(address: Ipv4Addr) -> SocketOptions {
    SocketOptions {
        connect_within: Duration::from_secs(20),
        local_address: Some(IpAddr::V4(address)),
        ..SocketOptions::default()
    }
}

/// Opens the connection of client number `client`, trying again where the server is busy.
///
/// # Errors
/// It was refused at every try.
pub async fn open(endpoint: &Endpoint, person: &Person, client: usize) -> Result<(Socket, u32), OpenError> {
    let mut tries = 0;
    loop {
        match Socket::open(endpoint, Some(&person.token), &socket_options(client)).await {
            Ok(socket) => return Ok((socket, tries)),
            Err(error) if tries + 1 >= TRIES => return Err(error),
            Err(_) => {
                let most_ms = 100u64 << tries;
                let pause = Duration::from_millis(rand::rng().random_range(most_ms / 2..=most_ms));
                tokio::time::sleep(pause).await;
                tries += 1;
            }
        }
    }
}

/// Opens one connection for each person, whose text frames go to what `on_frame` makes for it.
///
/// # Errors
/// One of them cannot be opened.
pub async fn connect<F>(
    server: &crate::server::Server,
    people: &[Person],
    mut on_frame: impl FnMut(usize) -> F,
) -> Result<Vec<RawConnection>, Failure>
where
    F: FnMut(&str) + Send + 'static,
{
    use futures_util::{StreamExt, TryStreamExt, stream};
    let opening = people.iter().enumerate().map(|(i, person)| open(server.edge(i), person, i));
    let mut opened = stream::iter(opening).buffered(AT_ONCE);
    let mut connections = Vec::with_capacity(people.len());
    while let Some((socket, _)) = opened.try_next().await? {
        connections.push(RawConnection::spawn(socket, QUEUE, on_frame(connections.len())));
    }
    Ok(connections)
}

/// Makes the frames of one connection's messages. What does not change is encoded once.
#[derive(Clone)]
pub struct FrameMaker {
    before: String,
    padding: String,
}

impl FrameMaker {
    /// For messages of about `content_bytes` bytes in `conversation`.
    #[must_use]
    pub fn new(conversation: ConversationId, content_bytes: usize) -> Self {
        let before = format!(
            r#"{{"event":"send_message","data":{{"conversationId":"{conversation}","messageType":"text","content":""#
        );
        Self { before, padding: ".".repeat(content_bytes.saturating_sub(10)) }
    }

    /// Message `number`, which is also what the server is asked to acknowledge it by.
    #[must_use]
    pub fn message(&self, number: u64) -> Utf8Bytes {
        let mut text = String::with_capacity(self.before.len() + self.padding.len() + 110);
        text.push_str(&self.before);
        // To a String nothing fails.
        let _ = write!(
            text,
            r#"{number:010}{}","clientMessageId":"{}"}},"ack":{number}}}"#,
            self.padding,
            Uuid::now_v7()
        );
        text.into()
    }
}

/// The number that a message of [`FrameMaker`] was written with.
#[must_use]
pub fn number_in(content: &str) -> Option<u64> {
    content.get(..10)?.parse().ok()
}

/// What a load test wants to know of a frame of the server.
#[derive(Debug, Deserialize)]
pub struct Incoming<'a> {
    #[serde(borrow, default)]
    pub event: Option<&'a str>,
    #[serde(default)]
    pub ack: Option<u64>,
    #[serde(borrow, default)]
    pub data: Data<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data<'a> {
    #[serde(default)]
    pub ok: Option<bool>,
    #[serde(default)]
    pub position: Option<Position>,
    #[serde(borrow, default)]
    pub conversation_id: Option<&'a str>,
    #[serde(borrow, default)]
    pub sender_id: Option<&'a str>,
    #[serde(borrow, default)]
    pub content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub checkpoint: Option<&'a str>,
}

impl<'a> Incoming<'a> {
    /// `None` for what is no frame of the contract.
    #[must_use]
    pub fn decode(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::frame::CommandFrame;
    use reedi_protocol::{ConversationKey, Epoch};

    #[test]
    fn a_made_frame_is_a_command_that_names_its_number() {
        let conversation = ConversationKey::from_u64(7).conversation_id();
        let text = FrameMaker::new(conversation, 100).message(42);
        let frame = CommandFrame::decode(&text).unwrap();
        assert_eq!((frame.event.as_ref(), frame.ack), ("send_message", Some(42)));
        let data: reedi_protocol::command::SendMessage =
            serde_json::from_str(frame.data.unwrap().get()).unwrap();
        assert_eq!((data.content.len(), number_in(&data.content)), (100, Some(42)));
        assert!(data.client_message_id.is_some());
    }

    #[test]
    fn frames_of_the_server_are_read() {
        let told = r#"{"event":"new_message","data":{"messageId":"m","conversationId":"c","senderId":"s","content":"0000000007..","messageType":"text","position":17592186044425,"reactions":[]}}"#;
        let told = Incoming::decode(told).unwrap();
        assert_eq!((told.event, told.data.position), (Some("new_message"), Position::new(Epoch::FIRST, 9)));
        assert_eq!(number_in(&told.data.content.unwrap()), Some(7));
        let answer = Incoming::decode(r#"{"ack":7,"data":{"ok":true,"position":17592186044425}}"#).unwrap();
        assert_eq!((answer.ack, answer.data.ok), (Some(7), Some(true)));
        assert!(Incoming::decode("no frame").is_none());
        assert!(Incoming::decode(r#"{"ack":7,"data":{"ok":true,"position":9}}"#).is_none(), "of no epoch");
    }
}
