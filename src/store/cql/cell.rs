//! Values as they stand in the store: the bytes of each blob column, and what a statement binds.

use crate::domain::conversation::ConversationState;
use crate::domain::record::RequestDigest;
use crate::domain::write::MessageRow;
use crate::store::{StoreError, StoreResult, StoredSend};
use bytes::Bytes;
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};
use scylla::cluster::metadata::ColumnType;
use scylla::serialize::SerializationError;
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::{CellWriter, WrittenCellProof};
use scylla::value::Unset;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// The version that blobs are written with. Older ones stay readable.
const VERSION: u8 = 1;

/// One bound value. Closed, so that writes of all tables can stand in one list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cell {
    Big(i64),
    Int(i32),
    Id(Uuid),
    Text(String),
    Blob(Bytes),
    /// Leaves the column alone; a null would write a tombstone.
    Unset,
}

impl SerializeValue for Cell {
    fn serialize<'b>(
        &self,
        typ: &ColumnType,
        writer: CellWriter<'b>,
    ) -> Result<WrittenCellProof<'b>, SerializationError> {
        match self {
            Self::Big(value) => SerializeValue::serialize(value, typ, writer),
            Self::Int(value) => SerializeValue::serialize(value, typ, writer),
            Self::Id(value) => SerializeValue::serialize(value, typ, writer),
            Self::Text(value) => SerializeValue::serialize(value, typ, writer),
            Self::Blob(value) => SerializeValue::serialize(&&value[..], typ, writer),
            Self::Unset => Unset.serialize(typ, writer),
        }
    }
}

impl Cell {
    /// Bytes that it adds to a request, about.
    pub(super) fn weight(&self) -> usize {
        4 + match self {
            Self::Big(_) => 8,
            Self::Int(_) => 4,
            Self::Id(_) => 16,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
            Self::Unset => 0,
        }
    }
}

impl From<ConversationKey> for Cell {
    fn from(key: ConversationKey) -> Self {
        Self::Big(key.as_u64().cast_signed())
    }
}

impl From<Position> for Cell {
    fn from(position: Position) -> Self {
        Self::Big(micros(position))
    }
}

impl From<AccountId> for Cell {
    fn from(account: AccountId) -> Self {
        Self::Id(*account.as_uuid())
    }
}

impl From<Timestamp> for Cell {
    fn from(time: Timestamp) -> Self {
        Self::Big(time.as_millis().cast_signed())
    }
}

/// A position as the number that is bound, and as the microseconds of a write.
pub(super) fn micros(position: Position) -> i64 {
    position.as_u64().cast_signed()
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

pub(super) fn position(raw: i64) -> StoreResult<Position> {
    u64::try_from(raw).ok().and_then(Position::from_u64).ok_or_else(|| corrupt("a position out of range"))
}

pub(super) fn key(raw: i64) -> ConversationKey {
    ConversationKey::from_u64(raw.cast_unsigned())
}

pub(super) fn time(raw: i64) -> StoreResult<Timestamp> {
    u64::try_from(raw).map(Timestamp::from_millis).map_err(|_| corrupt("a time before 1970"))
}

pub(super) fn kind_number(kind: ConversationType) -> i32 {
    match kind {
        ConversationType::Direct => 0,
        ConversationType::Group => 1,
        ConversationType::Account => 2,
    }
}

pub(super) fn kind(number: i32) -> StoreResult<ConversationType> {
    match number {
        0 => Ok(ConversationType::Direct),
        1 => Ok(ConversationType::Group),
        2 => Ok(ConversationType::Account),
        _ => Err(corrupt("a kind of conversation that is not known")),
    }
}

fn encode<T: Serialize>(value: &T) -> StoreResult<Bytes> {
    postcard::to_extend(value, vec![VERSION])
        .map(Bytes::from)
        .map_err(|error| StoreError::Corrupt(format!("cannot be written: {error}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> StoreResult<T> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|e| StoreError::Corrupt(format!("{what}: {e}")))
        }
        Some((version, _)) => Err(StoreError::Corrupt(format!("{what} of version {version}"))),
        None => Err(StoreError::Corrupt(format!("{what} without a byte"))),
    }
}

pub(super) fn encode_header(row: &MessageRow) -> StoreResult<Bytes> {
    encode(row)
}

pub(super) fn decode_header(bytes: &[u8]) -> StoreResult<MessageRow> {
    decode(bytes, "a message's header")
}

pub(super) fn encode_state(state: &ConversationState) -> StoreResult<Bytes> {
    encode(state)
}

pub(super) fn decode_state(bytes: &[u8]) -> StoreResult<ConversationState> {
    decode(bytes, "a conversation's state")
}

/// Fixed-width fields after each other; `None` where the bytes end early.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

/// When and by whom a message was deleted, in one cell, so that two deletions cannot mix.
pub(super) fn encode_deletion(at: Timestamp, by: AccountId) -> Bytes {
    let mut bytes = Vec::with_capacity(24);
    bytes.extend_from_slice(&at.as_millis().to_be_bytes());
    bytes.extend_from_slice(by.as_bytes());
    Bytes::from(bytes)
}

pub(super) fn decode_deletion(bytes: &[u8]) -> StoreResult<(Timestamp, AccountId)> {
    let mut fields = Fields(bytes);
    match (fields.take::<8>(), fields.take::<16>()) {
        (Some(at), Some(by)) => {
            Ok((Timestamp::from_millis(u64::from_be_bytes(at)), AccountId::new(Uuid::from_bytes(by))))
        }
        _ => Err(corrupt("a deletion too short")),
    }
}

/// A receipt mark in one cell. Of two with the same position the server keeps the greater bytes: the
/// time is inverted, so that this is the earlier one.
pub(super) fn encode_mark(up_to: Position, at: Timestamp, private: bool) -> Bytes {
    let mut bytes = Vec::with_capacity(17);
    bytes.extend_from_slice(&up_to.as_u64().to_be_bytes());
    bytes.extend_from_slice(&(!at.as_millis()).to_be_bytes());
    bytes.push(u8::from(private));
    Bytes::from(bytes)
}

pub(super) fn decode_mark(bytes: &[u8]) -> StoreResult<(Position, Timestamp, bool)> {
    let mut fields = Fields(bytes);
    match (fields.take::<8>(), fields.take::<8>(), fields.take::<1>()) {
        (Some(up_to), Some(at), Some([private])) => Ok((
            position(i64::from_be_bytes(up_to))?,
            Timestamp::from_millis(!u64::from_be_bytes(at)),
            private != 0,
        )),
        _ => Err(corrupt("a receipt too short")),
    }
}

pub(super) fn encode_send(position: Position, digest: RequestDigest) -> Bytes {
    let mut bytes = Vec::with_capacity(24);
    bytes.extend_from_slice(&position.as_u64().to_be_bytes());
    bytes.extend_from_slice(&digest.0);
    Bytes::from(bytes)
}

pub(super) fn decode_send(bytes: &[u8]) -> StoreResult<StoredSend> {
    let mut fields = Fields(bytes);
    match (fields.take::<8>(), fields.take::<16>()) {
        (Some(at), Some(digest)) => {
            Ok(StoredSend { position: position(i64::from_be_bytes(at))?, digest: RequestDigest(digest) })
        }
        _ => Err(corrupt("a send too short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::conversation::Member;
    use proptest::prelude::*;
    use reedi_protocol::Epoch;
    use reedi_protocol::resource::{MessageType, Role};
    use reedi_protocol::text::Name;

    fn place(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    fn sample() -> MessageRow {
        MessageRow {
            position: place(7),
            kind: ConversationType::Group,
            sender: AccountId::new(Uuid::from_u128(3)),
            message_type: MessageType::Text,
            timestamp: Timestamp::from_millis(1_700_000_000_000),
            log_time: Timestamp::from_millis(1_700_000_000_001),
            reply_to: Some(place(5)),
            client_message_id: None,
            keyed_by_client: false,
            expires_at: None,
            system: None,
            system_name: None,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let text = text.trim();
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_header_of_version_1_is_still_read() {
        let fixture = include_str!("fixtures/header-v1.hex");
        assert_eq!(hex(&encode_header(&sample()).unwrap()), fixture.trim());
        assert_eq!(decode_header(&unhex(fixture)).unwrap(), sample());
        assert!(matches!(decode_header(&[2, 1]), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn a_state_of_version_1_is_still_read() {
        let state = ConversationState {
            kind: ConversationType::Group,
            name: Some(Name::parse("Größe").unwrap()),
            avatar_url: None,
            expires_after_s: Some(3_600),
            created_at: Timestamp::from_millis(1_700_000_000_000),
            members: vec![Member {
                account: AccountId::new(Uuid::from_u128(3)),
                role: Role::Admin,
                joined: place(1),
                joined_at: Timestamp::from_millis(1_700_000_000_000),
            }],
        };
        let fixture = include_str!("fixtures/state-v1.hex");
        assert_eq!(hex(&encode_state(&state).unwrap()), fixture.trim());
        assert_eq!(decode_state(&unhex(fixture)).unwrap(), state);
    }

    #[test]
    fn of_two_marks_at_one_position_the_earlier_has_the_greater_bytes() {
        let (early, late) = (Timestamp::from_millis(1_000), Timestamp::from_millis(1_001));
        assert!(encode_mark(place(1), early, false) > encode_mark(place(1), late, false));
        assert_eq!(decode_mark(&encode_mark(place(1), late, true)).unwrap(), (place(1), late, true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = (decode_header(&bytes), decode_state(&bytes), decode_mark(&bytes));
            let _ = (decode_deletion(&bytes), decode_send(&bytes));
        }
    }
}
