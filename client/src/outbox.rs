//! Messages that the server has not acknowledged yet: kept in order per conversation, each with its
//! key, and handed out one at a time per conversation, so that a message that must be sent again
//! cannot be overtaken by the one after it. Pure and synchronous.

use reedi_protocol::ConversationId;
use reedi_protocol::command::SendMessage;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// Names an entry as long as it is here. Not the `clientMessageId`, which a refusal may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryKey(pub u64);

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    pub messages: usize,
    /// Content in all, in bytes.
    pub bytes: usize,
    /// Messages sent and not answered, over all conversations.
    pub in_flight: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { messages: 10_000, bytes: 16 * 1024 * 1024, in_flight: 64 }
    }
}

/// The application has to wait until the server acknowledges again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full: {messages} messages of {bytes} bytes wait to be sent")]
pub struct OutboxFull {
    pub messages: usize,
    pub bytes: usize,
}

/// What becomes of a message that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server surely has not taken it.
    NotTaken,
    /// It may have.
    Unknown,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: EntryKey,
    pub(crate) message: SendMessage,
    /// Refusals so far.
    pub(crate) refusals: u32,
    /// Ids that it was given since the first, because of the time in them.
    pub(crate) mints: u32,
    /// Whether the server may have it already.
    pub(crate) perhaps_taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Ready,
    InFlight,
    RestingUntil(Instant),
}

struct Lane {
    entries: VecDeque<Entry>,
    turn: Turn,
}

/// The messages that wait.
pub struct Outbox {
    limits: OutboxLimits,
    lanes: HashMap<ConversationId, Lane>,
    ready: VecDeque<ConversationId>,
    resting: BTreeSet<(Instant, ConversationId)>,
    in_flight: HashMap<EntryKey, ConversationId>,
    messages: usize,
    bytes: usize,
}

impl Outbox {
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            resting: BTreeSet::new(),
            in_flight: HashMap::new(),
            messages: 0,
            bytes: 0,
        }
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.messages
    }

    /// Whether another message of so many bytes fits.
    ///
    /// # Errors
    /// It does not.
    pub const fn has_room(&self, bytes: usize) -> Result<(), OutboxFull> {
        if self.messages >= self.limits.messages || self.bytes + bytes > self.limits.bytes {
            return Err(OutboxFull { messages: self.messages, bytes: self.bytes });
        }
        Ok(())
    }

    /// Puts a message behind the others of its conversation, whether [`Self::has_room`] or not: what an
    /// earlier process accepted must not be refused by this one.
    pub fn push(
        &mut self,
        conversation: ConversationId,
        key: EntryKey,
        message: SendMessage,
        perhaps_taken: bool,
    ) {
        self.messages += 1;
        self.bytes += message.content.len();
        let lane = self.lanes.entry(conversation).or_insert_with(|| {
            self.ready.push_back(conversation);
            Lane { entries: VecDeque::new(), turn: Turn::Ready }
        });
        lane.entries.push_back(Entry { key, message, refusals: 0, mints: 0, perhaps_taken });
    }

    /// The next message to send, which is in flight from now on. Conversations take turns.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(ConversationId, Entry)> {
        while let Some(&(at, conversation)) = self.resting.first().filter(|(at, _)| *at <= now) {
            self.resting.remove(&(at, conversation));
            self.make_ready(conversation);
        }
        if self.in_flight.len() >= self.limits.in_flight {
            return None;
        }
        let conversation = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&conversation)?;
        let entry = lane.entries.front()?.clone();
        lane.turn = Turn::InFlight;
        self.in_flight.insert(entry.key, conversation);
        Some((conversation, entry))
    }

    /// When a resting conversation is due again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at)
    }

    /// Takes a message away, acknowledged or refused for good. `None` where it is not in flight.
    pub(crate) fn finish(&mut self, key: EntryKey) -> Option<(ConversationId, Entry)> {
        let conversation = self.in_flight.remove(&key)?;
        let lane = self.lanes.get_mut(&conversation)?;
        let entry = lane.entries.pop_front()?;
        self.messages -= 1;
        self.bytes -= entry.message.content.len();
        if lane.entries.is_empty() {
            self.lanes.remove(&conversation);
        } else {
            self.make_ready(conversation);
        }
        Some((conversation, entry))
    }

    /// The message in flight, to look at or to mint its key anew.
    pub(crate) fn in_flight_mut(&mut self, key: EntryKey) -> Option<(ConversationId, &mut Entry)> {
        let conversation = *self.in_flight.get(&key)?;
        Some((conversation, self.lanes.get_mut(&conversation)?.entries.front_mut()?))
    }

    /// Refused for now: the conversation rests until `at`.
    pub(crate) fn again(&mut self, key: EntryKey, outcome: Outcome, at: Instant) {
        let Some(conversation) = self.in_flight.remove(&key) else { return };
        let Some(lane) = self.lanes.get_mut(&conversation) else { return };
        lane.turn = Turn::RestingUntil(at);
        if let Some(entry) = lane.entries.front_mut() {
            entry.refusals = entry.refusals.saturating_add(1);
            entry.perhaps_taken |= outcome == Outcome::Unknown;
        }
        self.resting.insert((at, conversation));
    }

    /// Everything that waits, in order per conversation.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (ConversationId, &Entry)> {
        self.lanes.iter().flat_map(|(id, lane)| lane.entries.iter().map(|entry| (*id, entry)))
    }

    /// The connection is gone: what was in flight goes again, first.
    pub(crate) fn disconnected(&mut self) {
        let lost: Vec<_> = self.in_flight.drain().collect();
        for (_, conversation) in lost {
            if let Some(entry) = self.lanes.get_mut(&conversation).and_then(|l| l.entries.front_mut()) {
                entry.perhaps_taken = true;
            }
            self.make_ready(conversation);
        }
    }

    /// The largest message in flight: the one that a server means which closes with "too large".
    pub(crate) fn largest_in_flight(&self) -> Option<EntryKey> {
        let size = |(key, conversation): (&EntryKey, &ConversationId)| {
            let entry = self.lanes.get(conversation)?.entries.front()?;
            Some((entry.message.content.len(), *key))
        };
        self.in_flight.iter().filter_map(size).max().map(|(_, key)| key)
    }

    fn make_ready(&mut self, conversation: ConversationId) {
        if let Some(lane) = self.lanes.get_mut(&conversation).filter(|lane| lane.turn != Turn::Ready) {
            lane.turn = Turn::Ready;
            self.ready.push_back(conversation);
        }
    }
}

impl std::fmt::Debug for Outbox {
    /// Without what is written in the messages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("messages", &self.messages).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
