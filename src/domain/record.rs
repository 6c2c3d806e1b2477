//! The record: one event as it stands in the log, and the one place that encodes and decodes it.

use super::conversation::ConversationState;
use bytes::Bytes;
use reedi_protocol::resource::{ConversationType, MessageType, Role};
use reedi_protocol::text::{ClientMessageId, Reaction};
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};
use serde::{Deserialize, Serialize};

/// The version that is written. Older ones stay readable: their fixtures are tests.
pub const VERSION: u8 = 1;

/// A record that the log took later than this after its stamp is void for every reader (rule P4):
/// its edge gave up on it long before, and a retry may already stand elsewhere.
pub const LATE_MS: u64 = 30_000;

/// What was asked, hashed: tells a repeat of a request from another request under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestDigest(pub [u8; 16]);

/// Content as the edge sealed it; only an edge with the key ring can open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Bytes);

/// Who gets an event, as the edge saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// The control event that this membership comes from.
    pub control: Position,
    /// Every control event of the shard up to here had been seen when it was taken.
    pub known_through: Position,
    /// The members, all of them; at most [`super::conversation::AUDIENCE_MOST`].
    pub accounts: Vec<AccountId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub conversation: ConversationKey,
    pub kind: ConversationType,
    /// Who did it.
    pub actor: AccountId,
    /// The log's clock as the edge read it when it published.
    pub stamp: Timestamp,
    pub digest: RequestDigest,
    /// `None` where the conversation is too large to name its members.
    pub audience: Option<Audience>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    Message(NewMessage),
    /// `expires_at` is the target's, so that the store needs no reading to keep it.
    Edit {
        target: Position,
        content: Option<Sealed>,
        expires_at: Option<Timestamp>,
    },
    Delete {
        target: Position,
    },
    /// The actor takes a message out of their own sight.
    Hide {
        target: Position,
    },
    React {
        target: Position,
        reaction: Reaction,
        expires_at: Option<Timestamp>,
    },
    Unreact {
        target: Position,
        reaction: Reaction,
    },
    Receipt(ReceiptMark),
    Control {
        change: Change,
        after: ConversationState,
    },
    /// Nothing happened; it moves a shard's watermark.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    pub client_message_id: ClientMessageId,
    /// Whether the client gave the key: only then is it promised and told back.
    pub keyed_by_client: bool,
    pub message_type: MessageType,
    /// `None` only in the store's copy of an event, which must not keep content.
    pub content: Option<Sealed>,
    pub reply_to: Option<Position>,
    pub expires_after_s: Option<u64>,
}

impl NewMessage {
    /// When it disappears, of one that was sent at `stamp`.
    #[must_use]
    pub fn expires_at(&self, stamp: Timestamp) -> Option<Timestamp> {
        self.expires_after_s.map(|s| stamp.plus_millis(s.saturating_mul(1_000)))
    }
}

/// How far the actor has received and read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptMark {
    pub delivered: Option<Position>,
    pub read: Option<Position>,
    /// The senders of what it covers; the actor, where there is no other one. Empty where the actor keeps it private.
    pub tell: Vec<AccountId>,
}

impl ReceiptMark {
    /// Whether nobody but the actor may know of it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.tell.is_empty()
    }

    /// Who is told of it: the senders, and of what was read the actor's other sessions.
    #[must_use]
    pub fn told(&self, actor: AccountId) -> Vec<AccountId> {
        let senders = self.tell.iter().copied().filter(|account| *account != actor);
        senders.chain(self.read.map(|_| actor)).collect()
    }
}

/// What a control event did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Created,
    Added { accounts: Vec<AccountId> },
    Removed { account: AccountId },
    Left { promoted: Option<AccountId> },
    RoleSet { account: AccountId, role: Role },
    Settings { name_changed: bool, avatar_changed: bool, expiry_changed: bool },
}

impl Change {
    /// Who comes by it, where `after` is what the conversation came to.
    #[must_use]
    pub fn came(&self, after: &ConversationState) -> Vec<AccountId> {
        match self {
            Self::Created => after.accounts(),
            Self::Added { accounts } => accounts.clone(),
            Self::Removed { .. } | Self::Left { .. } | Self::RoleSet { .. } | Self::Settings { .. } => {
                Vec::new()
            }
        }
    }

    /// Who goes by it, where `actor` did it.
    #[must_use]
    pub const fn gone(&self, actor: AccountId) -> Option<AccountId> {
        match self {
            Self::Removed { account } => Some(*account),
            Self::Left { .. } => Some(actor),
            Self::Created | Self::Added { .. } | Self::RoleSet { .. } | Self::Settings { .. } => None,
        }
    }
}

/// A record with its place. `Void` still moves the position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    /// When the log took it, by the log's clock. Clients are shown the record's `stamp`.
    pub log_time: Timestamp,
    pub record: Record,
}

/// Why bytes of the log are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    #[error("the log took it {late_ms} ms after its stamp")]
    Late { late_ms: u64 },
    #[error("record version {0} is not known to this binary")]
    Version(u8),
    #[error("the record does not decode")]
    Malformed,
}

impl Record {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // What most records fit in: a message of some hundred letters. Bytes that grow are copied each time.
        let mut bytes = Vec::with_capacity(512);
        bytes.push(VERSION);
        // Serializing to memory fails only for types that postcard cannot hold; these have fixtures.
        match postcard::to_extend(self, bytes) {
            Ok(bytes) => Bytes::from(bytes),
            Err(_) => Bytes::new(),
        }
    }

    /// Decodes without judging the time; readers of the log use [`Entry::decode`].
    ///
    /// # Errors
    /// Unknown version, or not a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAnEvent> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| NotAnEvent::Malformed),
            Some((version, _)) => Err(NotAnEvent::Version(*version)),
            None => Err(NotAnEvent::Malformed),
        }
    }

    /// When the message that this is disappears.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        match &self.body {
            Body::Message(message) => message.expires_at(self.stamp),
            _ => None,
        }
    }

    /// The record as the store may keep it for catching up: without content, which lives in one
    /// place only, so that deleting it there deletes it.
    #[must_use]
    pub fn without_content(&self) -> Self {
        let mut copy = self.clone();
        copy.audience = None;
        match &mut copy.body {
            Body::Message(message) => message.content = None,
            Body::Edit { content, .. } => *content = None,
            _ => {}
        }
        copy
    }
}

impl Entry {
    /// The one way from the log's bytes to an event: every reader skips the same records.
    ///
    /// # Errors
    /// The record is void or cannot be read; the reader counts it and moves on past `position`.
    pub fn decode(position: Position, log_time: Timestamp, bytes: &[u8]) -> Result<Self, NotAnEvent> {
        let mut record = Record::decode(bytes)?;
        let late_ms = log_time.as_millis().saturating_sub(record.stamp.as_millis());
        if late_ms > LATE_MS {
            return Err(NotAnEvent::Late { late_ms });
        }
        if let Body::Control { after, .. } = &mut record.body {
            *after = after.clone().placed_at(position);
        }
        Ok(Self { position, log_time, record })
    }

    /// Whether every member is told of it, so that it is a link of the `previousPosition` chain.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !matches!(self.record.body, Body::Receipt(_) | Body::Hide { .. } | Body::Tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reedi_protocol::Epoch;

    fn sample() -> Record {
        Record {
            conversation: ConversationKey::from_u64(0x1234_5678_9abc_def0),
            kind: ConversationType::Direct,
            actor: AccountId::new(uuid::Uuid::from_u128(7)),
            stamp: Timestamp::from_millis(1_700_000_000_000),
            digest: RequestDigest([9; 16]),
            audience: Some(Audience {
                control: Position::new(Epoch::FIRST, 1).unwrap(),
                known_through: Position::new(Epoch::FIRST, 2).unwrap(),
                accounts: vec![AccountId::new(uuid::Uuid::from_u128(7))],
            }),
            body: Body::Message(NewMessage {
                client_message_id: ClientMessageId::parse("key").unwrap(),
                keyed_by_client: true,
                message_type: MessageType::Text,
                content: Some(Sealed(Bytes::from_static(b"sealed"))),
                reply_to: None,
                expires_after_s: None,
            }),
        }
    }

    #[test]
    fn version_1_is_still_read() {
        let fixture = include_str!("fixtures/record-v1.hex");
        let bytes: Vec<u8> = (0..fixture.trim().len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&fixture[i..i + 2], 16).unwrap())
            .collect();
        assert_eq!(Record::decode(&bytes).unwrap(), sample());
    }

    #[test]
    fn a_late_record_is_void() {
        let bytes = sample().encode();
        let position = Position::new(Epoch::FIRST, 3).unwrap();
        let on_time = sample().stamp.plus_millis(LATE_MS);
        assert!(Entry::decode(position, on_time, &bytes).is_ok());
        assert_eq!(
            Entry::decode(position, on_time.plus_millis(1), &bytes),
            Err(NotAnEvent::Late { late_ms: LATE_MS + 1 })
        );
    }

    #[test]
    fn the_copy_for_the_store_has_no_content() {
        let bytes = sample().without_content().encode();
        assert!(!bytes.windows(6).any(|w| w == b"sealed"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
