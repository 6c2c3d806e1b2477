//! Converse: one task a session, which does what the client asks, in order, and writes what its outbox
//! has, no faster than the client reads.

use super::Door;
use super::enter::{Entered, Whole};
use super::front::Ending;
use super::goodbye::{Goodbye, comes_back};
use super::inbox::{Asked, Asking, Inbox};
use crate::edge::answer::Answer;
use crate::edge::command::socket;
use crate::edge::connection::Present;
use crate::edge::refused::Refused;
use crate::edge::session::{Close, Next, PATIENT_MOST};
use crate::edge::wire::encode;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reedi_protocol::{CloseCode, ErrorCode};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client may take to take what is written to it; as on the plain WebSocket.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take to take its goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// socketioxide does not say when it has room again: it is asked again after the first, then less and
/// less often up to the second. A client that reads makes room within a round trip.
const ASK_AGAIN: Duration = Duration::from_millis(2);
const ASK_AGAIN_MOST: Duration = Duration::from_millis(50);

/// What is written to a client in answer.
struct Reply {
    ack: Option<i64>,
    /// What is answered, where it was a command.
    command: Option<String>,
    answer: Answer,
}

type Command = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// How a conversation ends.
enum End {
    Close(Close),
    /// The client is gone.
    Gone,
}

/// Serves a session until it ends.
pub async fn run(door: Arc<Door>, Whole(socket): Whole) {
    let Some(entered) = socket.extensions.get::<Entered>() else { return };
    let Some(present) = entered.take_present() else { return };
    let conversation = door.conversations.token();
    let pen = Pen { socket };
    let mut under_way = UnderWay::default();
    let ended = converse(&present, &pen, &entered.inbox, &mut under_way).await;
    // What waits for others is done all the same, as on the plain WebSocket.
    tokio::spawn(under_way.patient.for_each(async |_| {}));
    match ended {
        End::Gone => finish(&present, &entered.inbox, under_way.running).await,
        End::Close(close) => {
            entered.inbox.close();
            pen.socket.extensions.remove::<Entered>();
            drop(present);
            let ending = end(&door, &pen, &close).await;
            drop(conversation);
            door.let_go(ending).await;
        }
    }
}

/// Commands that were begun.
#[derive(Default)]
struct UnderWay {
    /// The one whose turn it is.
    running: Option<Command>,
    /// Those that wait for others on purpose.
    patient: FuturesUnordered<Command>,
}

async fn converse(present: &Present, pen: &Pen, inbox: &Inbox, under_way: &mut UnderWay) -> End {
    let session = &present.session;
    let UnderWay { running, patient } = under_way;
    loop {
        let step = tokio::select! {
            biased;
            next = session.next() => Step::Write(next),
            reply = poll_running(running) => Step::Reply(reply, true),
            Some(reply) = patient.next(), if !patient.is_empty() => Step::Reply(reply, false),
            asking = inbox.take(), if running.is_none() && patient.len() < PATIENT_MOST as usize => Step::Do(asking),
        };
        let written = match step {
            Step::Write(Next::Close(close)) => return End::Close(close),
            Step::Write(Next::Frames(frames)) => pen.events(frames.iter().map(|frame| &frame.text[..])).await,
            // Its transport asks for signs of life by itself.
            Step::Write(Next::Ping) => Ok(()),
            Step::Reply(reply, in_turn) => {
                if in_turn {
                    *running = None;
                }
                pen.reply(reply).await
            }
            Step::Do(None) => return End::Gone,
            Step::Do(Some(asking)) => {
                let is_patient =
                    matches!(&asking.asked, Asked::Command { event, .. } if socket::is_patient(event));
                let command = begin(present, asking);
                if is_patient {
                    patient.push(command);
                } else {
                    *running = Some(command);
                }
                Ok(())
            }
        };
        if let Err(end) = written {
            return end;
        }
    }
}

enum Step {
    Write(Next),
    /// An answer; true if the command that it is of was running in turn.
    Reply(Reply, bool),
    Do(Option<Asking>),
}

async fn poll_running(running: &mut Option<Command>) -> Reply {
    match running {
        Some(command) => command.await,
        None => std::future::pending().await,
    }
}

fn begin(present: &Present, asking: Asking) -> Command {
    let (edge, session) = (present.edge.clone(), present.session.clone());
    if let Asked::Command { event, .. } = &asking.asked {
        socket::arrives(&edge, &session, event);
    }
    Box::pin(async move {
        let (command, answer) = match asking.asked {
            Asked::Command { event, data } => {
                let answer = socket::handle(&edge, &session, &event, data.get(), None).await;
                (Some(event), answer)
            }
            Asked::Refused(refused) => {
                let refused = session.no_command(edge.uptime_ms()).err().unwrap_or(refused);
                edge.metrics.refused(refused.code);
                (None, Answer::from(&refused))
            }
            // Never put into the inbox: it ends the session.
            Asked::TooLarge => (None, Answer::from(&Refused::from(ErrorCode::TooLarge))),
        };
        Reply { ack: asking.ack, command, answer }
    })
}

/// Does what a client sent before it left; nobody waits for the answers.
async fn finish(present: &Present, inbox: &Inbox, running: Option<Command>) {
    inbox.close();
    if let Some(running) = running {
        running.await;
    }
    while let Some(asking) = inbox.take().await {
        begin(present, asking).await;
    }
}

/// Tells the client why its session ends, and ends it: the connection where it is to come back by
/// itself, as Socket.IO's clients do after a broken one, else the namespace, after which they stay away.
async fn end(door: &Door, pen: &Pen, close: &Close) -> Ending {
    door.edge.metrics.closed(close.code);
    let ending = door.ending(&pen.socket);
    let goodbye = async {
        if let Ok(data) = to_raw_value(&Goodbye::new(close)) {
            let within = Instant::now() + GOODBYE_WITHIN;
            pen.insist(within, || pen.socket.emit("error", &*data)).await?;
        }
        if !comes_back(close.code) {
            let within = Instant::now() + GOODBYE_WITHIN;
            pen.insist(within, || pen.socket.clone().disconnect().map_err(SendError::Socket)).await?;
        }
        Ok::<(), End>(())
    };
    if goodbye.await.is_err() || comes_back(close.code) {
        door.hang_up(&ending).await;
    }
    // Who leaves the namespace is seen off where it has left.
    ending
}

/// Writes to one client.
struct Pen {
    socket: Arc<Socket<LocalAdapter>>,
}

/// A frame of the plain WebSocket, taken apart without parsing its data.
#[derive(Deserialize)]
struct Named<'a> {
    event: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Pen {
    async fn events(&self, frames: impl Iterator<Item = &[u8]>) -> Result<(), End> {
        for frame in frames {
            let named: Named = match serde_json::from_slice(frame) {
                Ok(named) => named,
                Err(error) => {
                    tracing::error!(%error, "a frame is no event");
                    continue;
                }
            };
            let within = Instant::now() + WRITE_WITHIN;
            self.insist(within, || self.socket.emit(named.event, named.data)).await?;
        }
        Ok(())
    }

    /// Answers a command; where nobody waits for it only a refusal is told, as an error.
    async fn reply(&self, Reply { ack, command, answer }: Reply) -> Result<(), End> {
        let within = Instant::now() + WRITE_WITHIN;
        match (ack, answer.refusal()) {
            (Some(_), _) => self.insist(within, || self.sender(ack).send(answer.text())).await,
            (None, Some(refusal)) => {
                let event = encode(&refusal.clone().into_event(command.as_deref()));
                self.events(std::iter::once(&event.text[..])).await
            }
            (None, None) => Ok(()),
        }
    }

    /// Sending uses one up, whether it succeeds or not.
    fn sender(&self, ack: Option<i64>) -> AckSender {
        let Ok(sender) =
            AckSender::from_message_parts(&self.socket, &mut Value::Bytes(bytes::Bytes::new()), &ack);
        sender
    }

    /// Sends once socketioxide has room.
    async fn insist(
        &self,
        within: Instant,
        mut send: impl FnMut() -> Result<(), SendError>,
    ) -> Result<(), End> {
        let mut pause = ASK_AGAIN;
        loop {
            match send() {
                Ok(()) => return Ok(()),
                Err(SendError::Socket(SocketError::InternalChannelFull)) if Instant::now() < within => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ASK_AGAIN_MOST);
                }
                Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                    let reason = "nothing was read for 10 s".to_owned();
                    return Err(End::Close(Close { code: CloseCode::SlowConsumer, reason }));
                }
                Err(SendError::Socket(SocketError::Closed)) => return Err(End::Gone),
                Err(SendError::Serialize(error)) => {
                    // It was JSON before.
                    tracing::error!(%error, "a frame cannot be encoded");
                    return Ok(());
                }
            }
        }
    }
}
