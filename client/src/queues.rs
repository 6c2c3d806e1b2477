//! What outlives a connection: unsent messages and their tickets, receipts to give, open
//! conversations. Shared by the handles of a client and its session.

use crate::backoff::wait_after;
use crate::error::SendError;
use crate::frame;
use crate::journal::{Journal, Kept};
use crate::marks::Marks;
use crate::outbox::{Entry, EntryKey, Outbox, OutboxLimits, Outcome};
use crate::update::{Ended, Update};
use reedi_protocol::command::SendMessage;
use reedi_protocol::frame::{Answer, Refusal};
use reedi_protocol::resource::MessageType;
use reedi_protocol::text::{ClientMessageId, Content};
use reedi_protocol::{ConversationId, ErrorCode, MessageId, Timestamp, limits};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{oneshot, watch};

/// Waits between refusals of one message. The longest is what somebody waits for nothing once the
/// service is back; a refusal costs the server little, and it says itself where it wants more.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_MOST: Duration = Duration::from_secs(5);
/// The longest wait that a server may ask for.
const ASKED_MOST: Duration = Duration::from_secs(300);
/// How often a message may get a new id because of its time, before that is no clock problem any more.
const MINTS: u32 = 3;
/// Conversations that may be open at once; presence and typing of each cost the server something.
pub(crate) const JOINED: usize = 100;

/// A message to be sent.
#[derive(Clone)]
pub struct Draft {
    pub content: String,
    pub message_type: MessageType,
    pub reply_to: Option<MessageId>,
}

impl From<String> for Draft {
    fn from(content: String) -> Self {
        Self { content, message_type: MessageType::Text, reply_to: None }
    }
}

impl From<&str> for Draft {
    fn from(content: &str) -> Self {
        content.to_owned().into()
    }
}

/// An acknowledged message: the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    pub message_id: MessageId,
    pub timestamp: Timestamp,
    /// The server had it already, from a send whose answer was lost.
    #[serde(default)]
    pub duplicate: bool,
}

/// Resolves once the server has acknowledged a message, however many connections that takes.
/// Dropping it does not take the message back.
#[derive(Debug)]
pub struct SendTicket {
    client_message_id: String,
    outcome: oneshot::Receiver<Result<Sent, SendError>>,
}

impl SendTicket {
    /// The id that the message was accepted with. Carried by its `new_message` event too, unless the
    /// server's clock made another one necessary.
    #[must_use]
    pub fn client_message_id(&self) -> &str {
        &self.client_message_id
    }
}

impl Future for SendTicket {
    type Output = Result<Sent, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = || Err(SendError::Ended(Ended::Closed));
        Pin::new(&mut self.outcome).poll(context).map(|outcome| outcome.unwrap_or_else(|_| ended()))
    }
}

pub(crate) struct Queues {
    outbox: Outbox,
    journal: Option<Journal>,
    tickets: HashMap<EntryKey, oneshot::Sender<Result<Sent, SendError>>>,
    pub(crate) marks: Marks,
    pub(crate) joined: BTreeSet<ConversationId>,
    last_key: u64,
    /// Milliseconds that the server's clock is ahead of this machine's, where it has complained.
    clock_ahead_ms: i64,
    unsent: watch::Sender<usize>,
    ended: Option<Ended>,
}

impl Queues {
    pub(crate) fn new(limits: OutboxLimits, journal: Option<(Journal, Vec<Kept>)>) -> Self {
        let mut outbox = Outbox::new(limits);
        let (journal, waiting) = journal.map_or((None, Vec::new()), |(j, w)| (Some(j), w));
        let last_key = waiting.iter().map(|kept| kept.key.0).max().unwrap_or_default();
        for kept in waiting {
            outbox.push(kept.conversation, kept.key, kept.message, true);
        }
        let unsent = watch::Sender::new(outbox.len());
        Self {
            outbox,
            journal,
            tickets: HashMap::new(),
            marks: Marks::default(),
            joined: BTreeSet::new(),
            last_key,
            clock_ahead_ms: 0,
            unsent,
            ended: None,
        }
    }

    pub(crate) fn unsent(&self) -> watch::Receiver<usize> {
        self.unsent.subscribe()
    }

    /// Accepts a message, or refuses it at once.
    pub(crate) fn send(
        &mut self,
        conversation: ConversationId,
        draft: Draft,
    ) -> Result<SendTicket, SendError> {
        if let Some(ended) = &self.ended {
            return Err(SendError::Ended(ended.clone()));
        }
        let content = Content::parse(draft.content)?.into_string();
        let client_message_id = self.mint();
        let message = SendMessage {
            content,
            message_type: draft.message_type,
            reply_to_id: draft.reply_to.map(|id| id.to_string()),
            client_message_id: Some(client_message_id.clone()),
        };
        let bytes = frame::send_message(conversation, &message, u64::MAX).len();
        if bytes > limits::FRAME_BYTES {
            return Err(SendError::TooLarge { bytes, most: limits::FRAME_BYTES });
        }
        self.outbox.has_room(message.content.len())?;
        let key = EntryKey(self.last_key + 1);
        if let Some(journal) = &mut self.journal {
            journal.keep(&Kept { key, conversation, message: message.clone() })?;
        }
        self.last_key = key.0;
        self.outbox.push(conversation, key, message, false);
        let (ticket, outcome) = oneshot::channel();
        self.tickets.insert(key, ticket);
        self.unsent.send_replace(self.outbox.len());
        Ok(SendTicket { client_message_id, outcome })
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(ConversationId, Entry)> {
        self.outbox.take_due(now)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.outbox.next_due()
    }

    /// The answer to a message. `Err` where it makes no sense, and the message stays in flight.
    pub(crate) fn answered(
        &mut self,
        key: EntryKey,
        answer: Answer,
        now: Instant,
    ) -> Result<Option<Update>, &'static str> {
        if answer.ok {
            let sent: Sent = serde_json::from_value(answer.fields.into())
                .map_err(|_| "an acknowledgement without messageId and timestamp")?;
            return Ok(self.finish(key, Ok(sent)));
        }
        let refusal = answer.error.ok_or("a refusal without error")?;
        if refusal.code == ErrorCode::ClientMessageIdTime {
            return Ok(self.refused_for_time(key, refusal, now));
        }
        if !refusal.code.is_retryable() {
            return Ok(self.finish(key, Err(SendError::Refused(refusal))));
        }
        let outcome = match refusal.code {
            ErrorCode::LogUnavailable | ErrorCode::RateLimited | ErrorCode::Unavailable => Outcome::NotTaken,
            _ => Outcome::Unknown,
        };
        let refusals = self.outbox.in_flight_mut(key).map_or(0, |(_, entry)| entry.refusals);
        let asked = refusal.retry_after.map_or(Duration::ZERO, Duration::from_secs);
        let wait = wait_after(AGAIN_FIRST, AGAIN_MOST, refusals).max(asked.min(ASKED_MOST));
        self.outbox.again(key, outcome, now + wait);
        Ok(None)
    }

    /// The time within the id is out of range. A new id is safe where no send with the old one can have
    /// been taken: the server refuses ids of the future always, and this one was never perhaps taken.
    fn refused_for_time(&mut self, key: EntryKey, refusal: Refusal, now: Instant) -> Option<Update> {
        let (_, entry) = self.outbox.in_flight_mut(key)?;
        let minted_at = entry.message.client_message_id.as_deref().and_then(minted_at);
        let server_time = refusal.server_time.map(Timestamp::as_millis);
        let of_the_future = server_time.zip(minted_at).is_some_and(|(server, minted)| minted > server);
        if entry.mints >= MINTS {
            return self.finish(key, Err(SendError::Refused(refusal)));
        }
        if entry.perhaps_taken && !of_the_future {
            return self.finish(key, Err(SendError::OutcomeUnknown));
        }
        if let Some(server) = server_time {
            self.clock_ahead_ms = server.cast_signed().saturating_sub(now_ms().cast_signed());
        }
        let id = self.mint();
        let (conversation, entry) = self.outbox.in_flight_mut(key)?;
        entry.message.client_message_id = Some(id);
        entry.mints += 1;
        let kept = Kept { key, conversation, message: entry.message.clone() };
        if let Some(Err(error)) = self.journal.as_mut().map(|journal| journal.keep(&kept)) {
            return self.finish(key, Err(error.into()));
        }
        self.outbox.again(key, Outcome::NotTaken, now);
        None
    }

    /// A frame of this connection was too large: the largest message in flight is the one.
    pub(crate) fn too_large(&mut self) -> Option<Update> {
        let key = self.outbox.largest_in_flight()?;
        let bytes = self.outbox.in_flight_mut(key)?.1.message.content.len();
        self.finish(key, Err(SendError::TooLarge { bytes, most: limits::FRAME_BYTES }))
    }

    pub(crate) fn disconnected(&mut self) {
        self.outbox.disconnected();
        self.marks.again();
    }

    /// No more messages are accepted, and whoever waits for one is told. The journal keeps them.
    pub(crate) fn end(&mut self, ended: &Ended) {
        self.ended = Some(ended.clone());
        self.journal = None;
        for (_, ticket) in self.tickets.drain() {
            let _ = ticket.send(Err(SendError::Ended(ended.clone())));
        }
    }

    /// Settles a message. What its ticket's owner does not hear, the update says.
    fn finish(&mut self, key: EntryKey, outcome: Result<Sent, SendError>) -> Option<Update> {
        let (conversation, entry) = self.outbox.finish(key)?;
        let outbox = &self.outbox;
        let waiting = || {
            let keep = |(conversation, entry): (ConversationId, &Entry)| Kept {
                key: entry.key,
                conversation,
                message: entry.message.clone(),
            };
            outbox.waiting().map(keep).collect()
        };
        if let Some(Err(error)) =
            self.journal.as_mut().map(|journal| journal.forget(key, outbox.len() == 0, waiting))
        {
            // The next process sends it again with the same id, and the server knows it.
            tracing::warn!(%error, "a settled message stays in the outbox file");
        }
        let untold = match self.tickets.remove(&key) {
            Some(ticket) => ticket.send(outcome).err(),
            None => Some(outcome),
        };
        // Last: who waits until all is sent then finds every ticket settled.
        self.unsent.send_replace(self.outbox.len());
        let error = untold?.err()?;
        let client_message_id = entry.message.client_message_id.unwrap_or_default();
        Some(Update::NotSent { conversation, client_message_id, error })
    }

    /// A UUIDv7 of the server's time, as far as it is known.
    fn mint(&self) -> String {
        let ms = now_ms().saturating_add_signed(self.clock_ahead_ms);
        uuid::Builder::from_unix_timestamp_millis(ms, &rand::random()).into_uuid().to_string()
    }
}

fn minted_at(id: &str) -> Option<u64> {
    ClientMessageId::parse(id).ok()?.minted_at_ms()
}

/// Milliseconds since 1970 on this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
