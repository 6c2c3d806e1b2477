//! Identifiers. An event's id names its conversation, its shard and its place, so that no index from
//! message to conversation is needed anywhere.

use crate::position::{POSITION_BITS, Position};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Bits of a UUID below its variant: 4 of the key and 58 of the position (RFC 9562, section 5.8).
const BELOW_VARIANT: u32 = 62;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// Why a text or number is no identifier of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("not a UUID")]
    NotAUuid,
    #[error("not a UUID of version 8 made by this service")]
    NotOurs,
    #[error("a conversation id has no position, this one has")]
    HasPosition,
    #[error("an event id has a position, this one has none")]
    NoPosition,
    #[error("a device id is 1 to 127")]
    Device,
}

/// A person, as the identity provider names them: the `sub` of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(Uuid);

impl AccountId {
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// One installation of an account with keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeviceId(u8);

impl DeviceId {
    /// # Errors
    /// Outside 1..=127, the range of a Signal device id.
    pub const fn new(number: u8) -> Result<Self, IdError> {
        if number >= 1 && number <= 127 { Ok(Self(number)) } else { Err(IdError::Device) }
    }

    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u8::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A fixed part, one of 256, of all conversations; the unit of ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(pub u8);

impl Shard {
    /// How many shards there are, for ever: watermarks, checkpoints and subjects are keyed by them.
    pub const COUNT: usize = 256;

    pub fn all() -> impl DoubleEndedIterator<Item = Shard> + ExactSizeIterator {
        (0..=255u16).map(|n| Shard(n as u8)).collect::<Vec<_>>().into_iter()
    }

    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The 64 random bits that a conversation and all its events share. Its leading 8 bits are the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConversationKey(u64);

impl ConversationKey {
    #[must_use]
    pub const fn from_u64(random: u64) -> Self {
        Self(random)
    }

    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn shard(self) -> Shard {
        Shard((self.0 >> 56) as u8)
    }

    #[must_use]
    pub fn conversation_id(self) -> ConversationId {
        ConversationId(self)
    }

    /// The id of this conversation's event at `position`.
    #[must_use]
    pub fn event_id(self, position: Position) -> EventId {
        EventId { key: self, position }
    }
}

fn to_uuid(key: ConversationKey, position: Position) -> Uuid {
    let high = key.0 >> 16; // 48 bits before the version
    let middle = (key.0 >> 4) & 0xfff; // 12 bits between version and variant
    let low = key.0 & 0xf; // 4 bits below the variant
    let upper_half = (high << 16) | 0x8000 | middle;
    let lower_half = (0b10 << BELOW_VARIANT) | (low << POSITION_BITS) | position.as_u64();
    Uuid::from_u64_pair(upper_half, lower_half)
}

fn from_uuid(uuid: Uuid) -> Result<(ConversationKey, Position), IdError> {
    let (upper_half, lower_half) = uuid.as_u64_pair();
    if upper_half & 0xf000 != 0x8000 || lower_half >> BELOW_VARIANT != 0b10 {
        return Err(IdError::NotOurs);
    }
    let key =
        ((upper_half >> 16) << 16) | ((upper_half & 0xfff) << 4) | ((lower_half >> POSITION_BITS) & 0xf);
    let position = Position::from_u64(lower_half & POSITION_MASK).ok_or(IdError::NotOurs)?;
    Ok((ConversationKey(key), position))
}

/// Names a conversation: a UUIDv8 of a random 64-bit key and a zero position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(ConversationKey);

impl ConversationId {
    #[must_use]
    pub const fn key(self) -> ConversationKey {
        self.0
    }

    #[must_use]
    pub const fn shard(self) -> Shard {
        self.0.shard()
    }

    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        to_uuid(self.0, Position::START)
    }
}

impl TryFrom<Uuid> for ConversationId {
    type Error = IdError;

    fn try_from(uuid: Uuid) -> Result<Self, IdError> {
        let (key, position) = from_uuid(uuid)?;
        if position.is_start() { Ok(Self(key)) } else { Err(IdError::HasPosition) }
    }
}

/// Names an event: the conversation's key and the event's position. Ids of one conversation sort as
/// strings in position order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    key: ConversationKey,
    position: Position,
}

/// The id of an event that is a message.
pub type MessageId = EventId;

impl EventId {
    #[must_use]
    pub const fn key(self) -> ConversationKey {
        self.key
    }

    #[must_use]
    pub const fn position(self) -> Position {
        self.position
    }

    #[must_use]
    pub fn conversation_id(self) -> ConversationId {
        ConversationId(self.key)
    }

    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        to_uuid(self.key, self.position)
    }
}

impl TryFrom<Uuid> for EventId {
    type Error = IdError;

    fn try_from(uuid: Uuid) -> Result<Self, IdError> {
        let (key, position) = from_uuid(uuid)?;
        if position.is_start() {
            return Err(IdError::NoPosition);
        }
        Ok(Self { key, position })
    }
}

macro_rules! textual_id {
    ($type:ty, $to_uuid:expr, $from_uuid:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                #[allow(clippy::redundant_closure_call)]
                fmt::Display::fmt(&$to_uuid(self).hyphenated(), f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let uuid = Uuid::try_parse(text).map_err(|_| IdError::NotAUuid)?;
                #[allow(clippy::redundant_closure_call)]
                $from_uuid(uuid)
            }
        }
    };
}

textual_id!(AccountId, |id: &AccountId| id.0, |uuid| Ok::<_, IdError>(AccountId(uuid)));
textual_id!(ConversationId, |id: &ConversationId| id.as_uuid(), ConversationId::try_from);
textual_id!(EventId, |id: &EventId| id.as_uuid(), EventId::try_from);

macro_rules! serde_as_uuid {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.as_uuid().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let uuid = Uuid::deserialize(deserializer)?;
                Self::try_from(uuid).map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_uuid!(ConversationId);
serde_as_uuid!(EventId);

macro_rules! uuid_schema {
    ($($type:ty => $name:literal),*) => {$(
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
                    .into()
            }
        }
        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}

uuid_schema!(AccountId => "AccountId", ConversationId => "ConversationId", EventId => "EventId");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, SEQUENCE_BITS};
    use proptest::prelude::*;

    fn position(epoch: u16, sequence: u64) -> Position {
        Position::new(Epoch::new(epoch).unwrap(), sequence).unwrap()
    }

    proptest! {
        #[test]
        fn an_event_id_names_conversation_shard_and_place(
            key: u64, epoch in 1u16..=101, sequence in 1u64..(1 << SEQUENCE_BITS)
        ) {
            let key = ConversationKey::from_u64(key);
            let id = key.event_id(position(epoch, sequence));
            let text = id.to_string();
            let back: EventId = text.parse().unwrap();
            prop_assert_eq!(back, id);
            prop_assert_eq!(back.conversation_id(), key.conversation_id());
            prop_assert_eq!(back.conversation_id().shard(), key.shard());
            prop_assert_eq!(back.position(), position(epoch, sequence));
            prop_assert_eq!(back.as_uuid().get_version_num(), 8);
            prop_assert_eq!(back.as_uuid().get_variant(), uuid::Variant::RFC4122);
        }

        #[test]
        fn ids_of_one_conversation_sort_as_strings(
            key: u64, a in 1u64..(1 << SEQUENCE_BITS), b in 1u64..(1 << SEQUENCE_BITS), e in 1u16..=101, f in 1u16..=101
        ) {
            let key = ConversationKey::from_u64(key);
            let (p, q) = (position(e, a), position(f, b));
            prop_assert_eq!(p.cmp(&q), key.event_id(p).to_string().cmp(&key.event_id(q).to_string()));
        }

        #[test]
        fn any_uuid_is_parsed_or_refused(raw: u128) {
            let uuid = Uuid::from_u128(raw);
            if let Ok(id) = ConversationId::try_from(uuid) { prop_assert_eq!(id.as_uuid(), uuid); }
            if let Ok(id) = EventId::try_from(uuid) { prop_assert_eq!(id.as_uuid(), uuid); }
        }
    }

    #[test]
    fn a_conversation_id_is_no_event_id_and_the_other_way_round() {
        let key = ConversationKey::from_u64(0xfedc_ba98_7654_3210);
        assert_eq!(key.shard(), Shard(0xfe));
        assert_eq!(EventId::try_from(key.conversation_id().as_uuid()), Err(IdError::NoPosition));
        let event = key.event_id(position(1, 7));
        assert_eq!(ConversationId::try_from(event.as_uuid()), Err(IdError::HasPosition));
    }
}
