//! The plain WebSocket (`reedi.v1`): one task a connection, which reads commands and writes what its
//! outbox has.

use super::Present;
use crate::edge::Edge;
use crate::edge::admission::WaitingSocket;
use crate::edge::authenticate::Identity;
use crate::edge::command::socket;
use crate::edge::refused::Refused;
use crate::edge::session::{Close, Next, OutFrame};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use reedi_protocol::command::{Authenticate, name};
use reedi_protocol::event::ServerEvent;
use reedi_protocol::frame::{self, Answer, CommandFrame};
use reedi_protocol::{CloseCode, ErrorCode, limits};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WireCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, error::CapacityError};

/// Bytes that a connection reads at once: what an idle one holds for reading.
const READ_BUFFER: usize = 1_024;
/// What a control frame leaves for the reason of a close (RFC 6455, section 5.5), in bytes.
const REASON_BYTES: usize = 123;
/// How long a client may take to take what is written to it.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

type Command = Pin<Box<dyn Future<Output = Option<OutFrame>> + Send>>;

/// Serves an upgraded connection until it ends. With no identity the client authenticates in its
/// first frame, in time.
pub async fn serve<S>(edge: Arc<Edge>, io: S, identity: Entry)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(limits::FRAME_BYTES))
        .max_frame_size(Some(limits::FRAME_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let present = match identity {
        Entry::Known(present) => *present,
        Entry::Unknown(waiting) => match authenticate(&edge, &mut socket, waiting).await {
            Ok(present) => present,
            Err(close) => return end(&edge, socket, close).await,
        },
    };
    if let Some(close) = converse(&present, &mut socket).await {
        end(&edge, socket, close).await;
    }
}

/// How a connection came in.
pub enum Entry {
    /// With a token in its request.
    Known(Box<Present>),
    /// Without: it waits among the unauthenticated.
    Unknown(WaitingSocket),
}

async fn end<S: AsyncRead + AsyncWrite + Unpin>(edge: &Edge, mut socket: WebSocketStream<S>, close: Close) {
    edge.metrics.closed(close.code);
    let reason = &close.reason[..close.reason.floor_char_boundary(REASON_BYTES)];
    let frame = CloseFrame { code: WireCode::from(close.code.code()), reason: reason.into() };
    let goodbye = async {
        socket.send(Message::Close(Some(frame))).await?;
        while let Some(message) = socket.next().await {
            match message {
                Ok(Message::Close(_)) => break,
                Ok(_) => {}
                Err(_) => return discard(socket.get_mut()).await,
            }
        }
        Ok::<(), Error>(())
    };
    // A client that does not say goodbye is dropped.
    let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
}

/// Reads and throws away what was under way. A connection closed over unread bytes is reset, and with it
/// the goodbye.
async fn discard(io: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    let mut scrap = [0; READ_BUFFER];
    while io.read(&mut scrap).await? > 0 {}
    Ok(())
}

async fn authenticate<S>(
    edge: &Arc<Edge>,
    socket: &mut WebSocketStream<S>,
    waiting: WaitingSocket,
) -> Result<Present, Close>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let within = Duration::from_millis(limits::AUTHENTICATE_WITHIN_MS);
    let close = |code, reason: &str| Close { code, reason: reason.to_owned() };
    let first = tokio::time::timeout(within, first_text(socket)).await;
    let text = match first {
        Err(_) => return Err(close(CloseCode::Unauthenticated, "no authenticate command came within 10 s")),
        Ok(Err(refused)) => return Err(refused),
        Ok(Ok(text)) => text,
    };
    let frame =
        CommandFrame::decode(&text).map_err(|e| close(CloseCode::ProtocolViolation, &e.to_string()))?;
    if frame.event != name::AUTHENTICATE {
        return Err(close(CloseCode::Unauthenticated, "the first command must be authenticate"));
    }
    let data = frame.data.map_or("null", serde_json::value::RawValue::get);
    let command = socket::parse::<Authenticate>(data);
    let command = command.map_err(|refused| close(CloseCode::ProtocolViolation, &refused.detail))?;
    let verified = edge.verifier.verify(&command.token).await;
    let identity: Identity =
        verified.map_err(|error| close(CloseCode::Unauthenticated, &error.to_string()))?;
    drop(waiting);
    let present = Present::come(edge, identity).await.map_err(refused_close)?;
    if let Some(ack) = frame.ack {
        let answer =
            socket::ok(serde_json::json!({ "userId": identity.account, "expiresAt": identity.expires_at }));
        let text = Message::text(frame::encode_answer(ack, &answer));
        socket.send(text).await.map_err(|_| close(CloseCode::GoingAway, "gone"))?;
    }
    Ok(present)
}

async fn first_text<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Result<Utf8Bytes, Close> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Err(error)) => return Err(close_for(&error)),
            _ => {
                return Err(Close {
                    code: CloseCode::ProtocolViolation,
                    reason: "the first frame must be text".into(),
                });
            }
        }
    }
}

/// The close code for a client that cannot be let in.
#[must_use]
pub fn refused_close(refused: Refused) -> Close {
    let code = match refused.code {
        ErrorCode::RateLimited => CloseCode::TooMany,
        ErrorCode::Unavailable => CloseCode::Restarting,
        _ => CloseCode::ProtocolViolation,
    };
    let wait_ms = refused.retry_after.unwrap_or(1) * 1_000;
    Close { code, reason: format!("{{\"reconnectAfterMs\":{wait_ms}}}") }
}

fn close_for(error: &Error) -> Close {
    let (code, reason) = match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            (CloseCode::TooLarge, "a frame has at most 256 KiB")
        }
        Error::Utf8(_) => (CloseCode::ProtocolViolation, "a text frame must be UTF-8"),
        Error::Protocol(_) => (CloseCode::ProtocolViolation, "not a WebSocket frame"),
        _ => (CloseCode::GoingAway, "the connection failed"),
    };
    Close { code, reason: reason.to_owned() }
}

/// Reads and writes until one side ends it; gives the close to say, if there is one to say.
async fn converse<S>(present: &Present, socket: &mut WebSocketStream<S>) -> Option<Close>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let session = &present.session;
    let mut running: Option<Command> = None;
    loop {
        let step = tokio::select! {
            biased;
            next = session.next() => Step::Write(next),
            answer = poll_running(&mut running) => Step::Answer(answer),
            message = socket.next(), if running.is_none() => Step::Read(message),
        };
        let result = match step {
            Step::Write(Next::Close(close)) => return Some(close),
            Step::Write(Next::Frames(frames)) => write(socket, frames).await,
            Step::Write(Next::Ping) => {
                // One that is gone is noticed by its silence.
                let _ = tokio::time::timeout(WRITE_WITHIN, socket.send(Message::Ping(Bytes::new()))).await;
                Ok(())
            }
            Step::Answer(answer) => {
                running = None;
                match answer {
                    Some(frame) => write(socket, vec![frame]).await,
                    None => Ok(()),
                }
            }
            Step::Read(None) => return None,
            Step::Read(Some(Err(error))) => return Some(close_for(&error)),
            Step::Read(Some(Ok(message))) => {
                session.heard(present.edge.uptime_ms());
                match message {
                    Message::Text(text) => match begin(present, &text) {
                        Ok(command) => running = command,
                        Err(close) => return Some(close),
                    },
                    Message::Binary(_) => {
                        return Some(Close {
                            code: CloseCode::ProtocolViolation,
                            reason: "frames are text".into(),
                        });
                    }
                    Message::Close(_) => return None,
                    _ => {}
                }
                Ok(())
            }
        };
        if let Err(close) = result {
            return close;
        }
    }
}

enum Step {
    Write(Next),
    Answer(Option<OutFrame>),
    Read(Option<Result<Message, Error>>),
}

async fn poll_running(running: &mut Option<Command>) -> Option<OutFrame> {
    match running {
        Some(command) => command.await,
        None => std::future::pending().await,
    }
}

async fn write<S>(socket: &mut WebSocketStream<S>, frames: Vec<OutFrame>) -> Result<(), Option<Close>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let writing = async {
        for frame in frames {
            // Frames are made by serde_json and so are UTF-8.
            let Ok(text) = Utf8Bytes::try_from(frame.text) else { continue };
            socket.feed(Message::Text(text)).await?;
        }
        socket.flush().await
    };
    match tokio::time::timeout(WRITE_WITHIN, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => {
            Err(Some(Close { code: CloseCode::SlowConsumer, reason: "nothing was read for 10 s".into() }))
        }
    }
}

/// Begins a command. Most run in turn, so that what a client sends in order happens in order;
/// patient ones run beside.
fn begin(present: &Present, text: &str) -> Result<Option<Command>, Close> {
    let (edge, session) = (present.edge.clone(), present.session.clone());
    let frame = match CommandFrame::decode(text) {
        Ok(frame) => frame,
        Err(error) => {
            // One bad frame is a mistake to tell; the connection is still in step.
            let event = ServerEvent::Error {
                code: ErrorCode::Malformed,
                message: error.to_string(),
                retry_after: None,
            };
            edge.metrics.refused(ErrorCode::Malformed);
            session.push(crate::edge::wire::encode(&event));
            return Ok(None);
        }
    };
    let event = frame.event.into_owned();
    let data = frame.data.map_or("null", serde_json::value::RawValue::get).to_owned();
    let ack = frame.ack;
    let patient = socket::is_patient(&event);
    socket::arrives(&edge, &session, &event);
    let command = {
        let session = session.clone();
        async move {
            let answer = socket::handle(&edge, &session, &event, &data, None).await;
            answer_frame(ack, &answer)
        }
    };
    if !patient {
        return Ok(Some(Box::pin(command)));
    }
    let Some(counted) = session.begin_patient() else {
        return Err(Close { code: CloseCode::TooMany, reason: "{\"reconnectAfterMs\":2000}".into() });
    };
    tokio::spawn(async move {
        if let Some(frame) = command.await {
            session.push(frame);
        }
        drop(counted);
    });
    Ok(None)
}

/// The frame that answers a command; without an `ack` number only a refusal is told, as an error.
fn answer_frame(ack: Option<u64>, answer: &Answer) -> Option<OutFrame> {
    let text = match (ack, &answer.error) {
        (Some(ack), _) => frame::encode_answer(ack, answer),
        (None, None) => return None,
        (None, Some(error)) => frame::encode_event(&ServerEvent::Error {
            code: error.code,
            message: error.message.clone(),
            retry_after: error.retry_after,
        }),
    };
    Some(OutFrame { text: Bytes::from(text), place: None })
}
