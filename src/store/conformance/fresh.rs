//! Accounts, conversations and writes that no other check has, and the ways to apply them.

use crate::domain::record::{Body, Record, RequestDigest, Sealed};
use crate::domain::write::{MessageRow, Write};
use crate::store::StorePort;
use bytes::Bytes;
use rand::seq::SliceRandom;
use reedi_protocol::resource::{ConversationType, MessageType};
use reedi_protocol::text::{ClientMessageId, Reaction};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Timestamp};
use std::time::{SystemTime, UNIX_EPOCH};

pub const HOUR_MS: u64 = 3_600_000;
pub const DAY_MS: u64 = 24 * HOUR_MS;

#[must_use]
pub fn account() -> AccountId {
    AccountId::new(uuid::Uuid::new_v4())
}

#[must_use]
pub fn conversation() -> ConversationKey {
    ConversationKey::from_u64(rand::random())
}

/// The `sequence`th place of the first epoch.
#[must_use]
pub fn position(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).expect("checks count from 1")
}

/// The time of the machine: stores count what is left of a life by it.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
    Timestamp::from_millis(u64::try_from(since.as_millis()).expect("earlier than the year 9999"))
}

#[must_use]
pub fn ago(ms: u64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() - ms)
}

#[must_use]
pub fn sealed(bytes: &[u8]) -> Sealed {
    Sealed(Bytes::copy_from_slice(bytes))
}

#[must_use]
pub fn reaction(text: &str) -> Reaction {
    Reaction::parse(text).expect("an emoji")
}

#[must_use]
pub fn send_id(text: &str) -> ClientMessageId {
    ClientMessageId::parse(text).expect("1 to 255 bytes")
}

/// A plain text of `sender`, sent and taken by the log at `log_time`.
#[must_use]
pub fn row(kind: ConversationType, at: Position, sender: AccountId, log_time: Timestamp) -> MessageRow {
    MessageRow {
        position: at,
        kind,
        sender,
        message_type: MessageType::Text,
        timestamp: log_time,
        log_time,
        reply_to: None,
        client_message_id: Some(send_id("key")),
        keyed_by_client: true,
        expires_at: None,
        system: None,
        system_name: None,
    }
}

/// A message in a direct conversation, of now, with `text` for its sealed content.
#[must_use]
pub fn message(conversation: ConversationKey, at: Position, sender: AccountId, text: &str) -> Write {
    let row = row(ConversationType::Direct, at, sender, now());
    Write::Message { conversation, row, content: Some(sealed(text.as_bytes())) }
}

/// An event that is no message.
#[must_use]
pub fn event(conversation: ConversationKey, at: Position, actor: AccountId, log_time: Timestamp) -> Write {
    let kind = ConversationType::Direct;
    let record = Record {
        conversation,
        kind,
        actor,
        stamp: log_time,
        digest: RequestDigest([7; 16]),
        audience: None,
        body: Body::Hide { target: at },
    };
    Write::Event { conversation, kind, position: at, log_time, record }
}

/// A way to bring writes into the store: every one must end the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    OneByOne,
    OneByOneBackwards,
    Batch,
    BatchTwice,
    ShuffledBatches,
    OneByOneShuffledTwice,
}

impl Manner {
    pub const ALL: [Manner; 6] = [
        Manner::OneByOne,
        Manner::OneByOneBackwards,
        Manner::Batch,
        Manner::BatchTwice,
        Manner::ShuffledBatches,
        Manner::OneByOneShuffledTwice,
    ];

    /// Applies `writes` in this manner.
    pub async fn apply<S: StorePort>(self, store: &S, writes: &[Write]) {
        let mut writes = writes.to_vec();
        let size = writes.len().max(1);
        let (rounds, size) = match self {
            Manner::OneByOne | Manner::OneByOneBackwards => (1, 1),
            Manner::Batch => (1, size),
            Manner::BatchTwice => (2, size),
            Manner::ShuffledBatches => (3, size.div_ceil(3)),
            Manner::OneByOneShuffledTwice => (2, 1),
        };
        for _ in 0..rounds {
            match self {
                Manner::OneByOneBackwards => writes.reverse(),
                Manner::ShuffledBatches | Manner::OneByOneShuffledTwice => writes.shuffle(&mut rand::rng()),
                _ => {}
            }
            for batch in writes.chunks(size) {
                store.apply(batch).await.expect("it applies");
            }
        }
    }
}
