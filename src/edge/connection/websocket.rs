//! The plain WebSocket (`reedi.v1`): one task a connection, which reads commands and writes what its
//! outbox has.

use super::Present;
use super::rfc6455::{Broken, Said, Violation, WebSocket};
use crate::edge::Edge;
use crate::edge::admission::WaitingSocket;
use crate::edge::answer::Answer;
use crate::edge::authenticate::Identity;
use crate::edge::command::socket;
use crate::edge::refused::Refused;
use crate::edge::session::{Close, Next, OutFrame};
use bytes::Bytes;
use futures_util::FutureExt as _;
use reedi_protocol::command::{Authenticate, name};
use reedi_protocol::frame::{self, CommandFrame};
use reedi_protocol::{CloseCode, ErrorCode, limits};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long a client may take to take what is written to it.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

type Command = Pin<Box<dyn Future<Output = Option<OutFrame>> + Send>>;

/// Serves an upgraded connection until it ends. With no identity the client authenticates in its
/// first frame, in time.
pub async fn serve<S>(edge: Arc<Edge>, io: S, identity: Entry)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut socket = WebSocket::new(io, limits::FIRST_FRAME_BYTES);
    // What is rare is boxed: a connection takes as much memory as the largest thing that it may wait for.
    let present = match identity {
        Entry::Known(present) => present,
        Entry::Unknown(waiting) => match Box::pin(authenticate(&edge, &mut socket, waiting)).await {
            Ok(present) => Box::new(present),
            Err(close) => return Box::pin(end(&edge, &mut socket, close)).await,
        },
    };
    drop(edge);
    socket.allow(limits::FRAME_BYTES);
    match converse(&present, &mut socket).await {
        Ended::Gone => {}
        Ended::ByClient(code) => {
            // Answered as RFC 6455 has it (section 5.5.1); the client has said all that it says.
            let _ = tokio::time::timeout(GOODBYE_WITHIN, socket.close(code, "")).await;
        }
        Ended::ByUs(close) => Box::pin(end(&present.edge, &mut socket, close)).await,
    }
}

/// How a connection came in.
pub enum Entry {
    /// With a token in its request.
    Known(Box<Present>),
    /// Without: it waits among the unauthenticated.
    Unknown(WaitingSocket),
}

/// How a conversation with a client ended.
enum Ended {
    Gone,
    /// With a close, and perhaps a code.
    ByClient(Option<u16>),
    ByUs(Close),
}

async fn end<S: AsyncRead + AsyncWrite + Unpin>(edge: &Edge, socket: &mut WebSocket<S>, close: Close) {
    edge.metrics.closed(close.code);
    let goodbye = async {
        socket.close(Some(close.code.code()), &close.reason).await?;
        loop {
            match socket.next().await {
                Ok(Some(Said::Close(_)) | None) => return Ok(()),
                Ok(Some(_)) => {}
                Err(Broken::Violation(_)) => return socket.discard().await,
                Err(Broken::Io(error)) => return Err(error),
            }
        }
    };
    // A client that does not say goodbye is dropped.
    let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
}

async fn authenticate<S>(
    edge: &Arc<Edge>,
    socket: &mut WebSocket<S>,
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
    let identity: Identity = verified.map_err(|error| match Refused::from(error) {
        // Nothing is wrong with the token: the keys to judge it by are away.
        refused if refused.code == ErrorCode::Unavailable => refused_close(refused),
        _ => close(CloseCode::Unauthenticated, &error.to_string()),
    })?;
    drop(waiting);
    let present = Present::come(edge, identity).await.map_err(refused_close)?;
    if let Some(ack) = frame.ack {
        let answer =
            Answer::with(serde_json::json!({ "userId": identity.account, "expiresAt": identity.expires_at }));
        let text = Bytes::from(frame::encode_answer(ack, answer.text()));
        let gone = |_| close(CloseCode::GoingAway, "gone");
        socket.texts(&mut std::iter::once(text).peekable()).await.map_err(gone)?;
    }
    Ok(present)
}

async fn first_text<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocket<S>) -> Result<String, Close> {
    loop {
        match socket.next().await {
            Ok(Some(Said::Text(text))) => return Ok(text),
            Ok(Some(Said::Ping(payload))) => {
                socket.pong(&payload).await.map_err(|error| close_for(&Broken::Io(error)))?;
            }
            Ok(Some(Said::Pong)) => {}
            Err(broken) => return Err(close_for(&broken)),
            Ok(Some(Said::Binary | Said::Close(_)) | None) => {
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

fn close_for(broken: &Broken) -> Close {
    let (code, reason) = match broken {
        Broken::Violation(Violation::TooLarge) => {
            (CloseCode::TooLarge, "a frame has at most 256 KiB, and 16 KiB before authentication")
        }
        Broken::Violation(Violation::NotUtf8) => (CloseCode::ProtocolViolation, "a text frame must be UTF-8"),
        Broken::Violation(Violation::NotAFrame(_)) => (CloseCode::ProtocolViolation, "not a WebSocket frame"),
        Broken::Io(_) => (CloseCode::GoingAway, "the connection failed"),
    };
    Close { code, reason: reason.to_owned() }
}

/// Reads and writes until one side ends it.
async fn converse<S>(present: &Present, socket: &mut WebSocket<S>) -> Ended
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
            said = socket.next(), if running.is_none() => Step::Read(said),
        };
        let written = match step {
            Step::Write(Next::Close(close)) => return Ended::ByUs(close),
            Step::Write(Next::Frames(frames)) => {
                let answer = answered(&mut running);
                write(socket, texts(frames).chain(answer)).await
            }
            Step::Write(Next::Ping) => {
                // One that is gone is noticed by its silence.
                let _ = within(socket.ping()).await;
                Ok(())
            }
            Step::Answer(answer) => {
                running = None;
                let frames = session.take_frames();
                write(socket, answer.map(|frame| frame.text).into_iter().chain(texts(frames))).await
            }
            Step::Read(Ok(None)) => return Ended::Gone,
            Step::Read(Err(broken)) => return Ended::ByUs(close_for(&broken)),
            Step::Read(Ok(Some(said))) => {
                session.heard(present.edge.uptime_ms());
                match said {
                    Said::Text(text) => match begin(present, &text) {
                        Ok(command) => {
                            running = command;
                            Ok(())
                        }
                        Err(close) => return Ended::ByUs(close),
                    },
                    Said::Binary => {
                        return Ended::ByUs(Close {
                            code: CloseCode::ProtocolViolation,
                            reason: "frames are text".into(),
                        });
                    }
                    Said::Close(code) => return Ended::ByClient(code),
                    Said::Ping(payload) => match session.no_command(present.edge.uptime_ms()) {
                        Ok(()) => within(socket.pong(&payload)).await,
                        Err(_) => Ok(()),
                    },
                    Said::Pong => {
                        // One that comes unasked is small talk too; who sends a flood of them is sent away.
                        let _ = session.no_command(present.edge.uptime_ms());
                        Ok(())
                    }
                }
            }
        };
        if let Err(ended) = written {
            return ended;
        }
    }
}

enum Step {
    Write(Next),
    Answer(Option<OutFrame>),
    Read(Result<Option<Said>, Broken>),
}

async fn poll_running(running: &mut Option<Command>) -> Option<OutFrame> {
    match running {
        Some(command) => command.await,
        None => std::future::pending().await,
    }
}

/// The answer of the running command, where it is there by now: it goes in the write that is due anyway, for
/// what a write costs is most of what a message does.
fn answered(running: &mut Option<Command>) -> Option<Bytes> {
    // Whatever this leaves pending is polled again before the connection waits.
    let answer = poll_running(running).now_or_never()?;
    *running = None;
    answer.map(|frame| frame.text)
}

fn texts(frames: Vec<OutFrame>) -> impl Iterator<Item = Bytes> + Send {
    frames.into_iter().map(|frame| frame.text)
}

/// Writes messages, as long as the client takes them: however slowly it takes them all, it takes some.
async fn write<S>(socket: &mut WebSocket<S>, texts: impl Iterator<Item = Bytes> + Send) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut texts = texts.peekable();
    while texts.peek().is_some() {
        within(socket.texts(&mut texts)).await?;
    }
    Ok(())
}

/// Writes, as long as the client takes what is written. Mostly it is taken at once, and needs no timer. What
/// writes is boxed, so that a connection that waits has no room for it.
async fn within(writing: impl Future<Output = std::io::Result<()>>) -> Result<(), Ended> {
    let mut writing = Box::pin(writing);
    let written = match writing.as_mut().now_or_never() {
        Some(written) => Ok(written),
        None => Box::pin(tokio::time::timeout(WRITE_WITHIN, writing)).await,
    };
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Ended::Gone),
        Err(_) => Err(Ended::ByUs(Close {
            code: CloseCode::SlowConsumer,
            reason: "nothing was read for 10 s".into(),
        })),
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
            let counted = session.no_command(edge.uptime_ms());
            let refused =
                counted.err().unwrap_or_else(|| Refused::new(ErrorCode::Malformed, error.to_string()));
            edge.metrics.refused(refused.code);
            session.push(crate::edge::wire::encode(&refused.refusal().into_event(None)));
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
            answer_frame(ack, &event, &answer)
        }
    };
    if !patient {
        return Ok(Some(Box::pin(command)));
    }
    let Some(counted) = session.begin_patient() else {
        // Enough of them wait: this one does so in its turn, and nothing is read meanwhile.
        return Ok(Some(Box::pin(command)));
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
fn answer_frame(ack: Option<u64>, command: &str, answer: &Answer) -> Option<OutFrame> {
    let text = match (ack, answer.refusal()) {
        (Some(ack), _) => frame::encode_answer(ack, answer.text()),
        (None, None) => return None,
        (None, Some(refusal)) => frame::encode_event(&refusal.clone().into_event(Some(command))),
    };
    Some(OutFrame { text: Bytes::from(text), place: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// Frames that come to more than is written at once, to a client that takes so many bytes every nine seconds.
    async fn written_to(bytes_at_once: usize) -> Result<(), Ended> {
        const FRAMES: usize = 40;
        const FRAME: usize = 10_000;
        let (mut client, server) = tokio::io::duplex(1_024);
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; bytes_at_once];
            loop {
                // sleeps: paused time, in which the client takes nothing
                tokio::time::sleep(Duration::from_secs(9)).await;
                if client.read_exact(&mut buffer).await.is_err() {
                    return;
                }
            }
        });
        let mut socket = WebSocket::new(server, limits::FRAME_BYTES);
        let frames = std::iter::repeat_with(|| Bytes::from(vec![b'x'; FRAME])).take(FRAMES);
        let written = write(&mut socket, frames).await;
        drop(socket);
        reading.await.expect("the client lives");
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_as_long_as_it_takes_something() {
        let began = tokio::time::Instant::now();
        assert!(written_to(100_000).await.is_ok());
        assert!(began.elapsed() > 2 * WRITE_WITHIN, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_next_to_nothing_is_too_slow() {
        let ended = written_to(1_000).await.expect_err("too slow");
        assert!(matches!(ended, Ended::ByUs(close) if close.code == CloseCode::SlowConsumer));
    }
}
