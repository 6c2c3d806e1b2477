//! What a run writes down. All of it plain data; whoever cannot see a part leaves its list empty.

use reedi_protocol::{AccountId, ConversationKey, EventId, Position};

/// A client was told that its message stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    pub sender: AccountId,
    pub client_message_id: String,
    pub message: EventId,
    /// When, by the clock of the run.
    pub at_ms: u64,
}

/// The log has an event, on a quorum of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    pub event: EventId,
    /// Since when, by the clock of the run; 0 where the run only looked afterwards.
    pub since_ms: u64,
}

/// A message as history tells it, one for every time that it tells it. Deleted ones stand there too,
/// without content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    pub message: EventId,
    pub sender: AccountId,
    /// Where the reader may know it: the sender's own view has it.
    pub client_message_id: Option<String>,
}

/// One event as the log decided it, void ones left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    pub event: EventId,
    /// The accounts it is for, of those who are members there; `None`: all of them.
    pub only_for: Option<Vec<AccountId>>,
}

/// An account was a member from `joined` on, and no more from `left` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub conversation: ConversationKey,
    pub account: AccountId,
    pub joined: Position,
    pub left: Option<Position>,
}

/// A client was told something of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldEvent {
    pub event: EventId,
    /// The name of the server's event.
    pub name: String,
}

/// Where a client was told that it misses something, or shown it by a page of history: from after
/// `after` up to and including `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub conversation: ConversationKey,
    pub after: Position,
    pub up_to: Position,
}

/// What one client has been told, in order: one connection of it, or all of them where the client puts
/// them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Names it in a violation.
    pub client: String,
    pub account: Option<AccountId>,
    pub told: Vec<ToldEvent>,
    /// The spans it believes to have without a gap: (conversation, after, up to).
    pub complete: Vec<Gap>,
    /// What it knows that it misses.
    pub noticed: Vec<Gap>,
}

/// Bytes found somewhere: a file, a stream, a table, a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub place: &'a str,
    pub bytes: &'a [u8],
}

/// A queue, cache, batch or list: its limit, and the most that it ever held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    pub name: String,
    pub limit: u64,
    pub most: u64,
}

/// Things that were not kept, and how many of them anybody was told of, by an error, a close code or a
/// metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub name: String,
    pub dropped: u64,
    pub told: u64,
}

/// The log forgot an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    pub event: EventId,
    /// Whether the store had it at that moment.
    pub stored: bool,
}
