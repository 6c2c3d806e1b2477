//! Every value of the embedded store and how it is encoded: a version, when it ends, and the value in
//! postcard. What has ended is absent, for readers and for writers.

use crate::domain::conversation::ConversationState;
use crate::domain::record::{RequestDigest, Sealed};
use crate::domain::write::MessageRow;
use crate::store::{InboxRow, Outline, OwnAccount, StoreError, StoreResult, StoredMessage};
use bytes::Bytes;
use reedi_protocol::resource::{ConversationType, Settings};
use reedi_protocol::text::{Name, Username};
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version that is written. Older ones stay readable: their fixtures are tests.
pub const VERSION: u8 = 1;

/// The version and the end.
const HEADER_BYTES: usize = 1 + 8;

/// A value with its end; `None`: for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<T> {
    pub value: T,
    pub expires_at: Option<Timestamp>,
}

impl<T> Held<T> {
    pub fn for_ever(value: T) -> Self {
        Self { value, expires_at: None }
    }

    pub fn until(expires_at: Timestamp, value: T) -> Self {
        Self { value, expires_at: Some(expires_at) }
    }
}

/// What stands under a key: one type per table, and nothing else is encoded.
pub trait Stored: Serialize + DeserializeOwned + PartialEq + Clone {}

pub fn encode<T: Stored>(held: &Held<T>) -> StoreResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(VERSION);
    bytes.extend_from_slice(&held.expires_at.map_or(u64::MAX, Timestamp::as_millis).to_be_bytes());
    postcard::to_extend(&held.value, bytes).map_err(|e| StoreError::Corrupt(e.to_string()))
}

/// The value alone, whatever it is.
#[cfg(feature = "simulation")]
pub fn without_end(bytes: &[u8]) -> &[u8] {
    bytes.get(HEADER_BYTES..).unwrap_or_default()
}

/// When the value ends, whatever it is.
pub fn expires_at(bytes: &[u8]) -> StoreResult<Option<Timestamp>> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(StoreError::Corrupt("a value without a header".to_owned()));
    };
    let [version, end @ ..] = *header;
    match (version, u64::from_be_bytes(end)) {
        (VERSION, u64::MAX) => Ok(None),
        (VERSION, ms) => Ok(Some(Timestamp::from_millis(ms))),
        (version, _) => Err(StoreError::Corrupt(format!("a value of version {version}"))),
    }
}

/// `None` once it has ended.
pub fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8], now: Timestamp) -> StoreResult<Option<Held<T>>> {
    let expires_at = expires_at(bytes)?;
    if expires_at.is_some_and(|end| end <= now) {
        return Ok(None);
    }
    let value = postcard::from_bytes(&bytes[HEADER_BYTES..])
        .map_err(|e| StoreError::Corrupt(format!("a value does not decode: {e}")))?;
    Ok(Some(Held { value, expires_at }))
}

macro_rules! stored {
    ($($type:ty),* $(,)?) => { $(impl Stored for $type {})* };
}

stored!(
    MessageValue,
    EventValue,
    ReactionValue,
    HiddenValue,
    SentValue,
    ReceiptValue,
    StateValue,
    HeadValue,
    InboxValue,
    MuteValue,
    DirectValue,
    GroupValue,
    WatermarkValue,
    DayValue,
    EpochValue,
    SettingsValue,
    BlockValue,
    AccountValue,
    UsernameValue,
);

/// A cell's timestamp that no position reaches: a deletion's.
pub const ABOVE_EVERY_POSITION: u64 = u64::MAX;

/// A message's row, its content and its marks. Each part is written on its own, so that changes and
/// their message may come in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageValue {
    /// `None` while there are changes alone.
    pub row: Option<MessageRow>,
    pub content: ContentCell,
    pub deleted: Option<(Timestamp, AccountId)>,
}

/// The content that was written with the highest timestamp.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentCell {
    /// A position, or [`ABOVE_EVERY_POSITION`].
    pub timestamp: u64,
    pub content: Option<Sealed>,
    pub edited_at: Option<Timestamp>,
}

impl ContentCell {
    pub fn take_later(&mut self, other: Self) {
        if other.timestamp > self.timestamp {
            *self = other;
        }
    }
}

/// A [`MessageValue`] whose content is stepped over and not copied.
#[derive(Deserialize)]
pub struct MessageOutline<'a> {
    pub row: Option<MessageRow>,
    #[serde(borrow)]
    _content: ContentOutline<'a>,
    pub deleted: Option<(Timestamp, AccountId)>,
}

/// A [`ContentCell`], field by field as that is encoded.
#[derive(Deserialize)]
struct ContentOutline<'a> {
    _timestamp: u64,
    #[serde(borrow)]
    _content: Option<&'a [u8]>,
    _edited_at: Option<Timestamp>,
}

impl MessageOutline<'_> {
    /// `None` where there are changes alone.
    #[must_use]
    pub fn into_outline(self) -> Option<Outline> {
        let MessageRow { position, sender, message_type, .. } = self.row?;
        Some(Outline { position, sender, message_type, is_deleted: self.deleted.is_some() })
    }
}

impl MessageValue {
    #[must_use]
    pub fn into_stored(self) -> Option<StoredMessage> {
        let Self { row, content: ContentCell { content, edited_at, .. }, deleted } = self;
        row.map(|row| StoredMessage { row, content, edited_at, deleted })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventValue {
    pub log_time: Timestamp,
    /// With a version of its own, see [`crate::domain::record`].
    pub record: Bytes,
}

/// The latest adding or removing of one account's one reaction to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionValue {
    pub at: Position,
    pub present: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenValue;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentValue {
    pub position: Position,
    pub digest: RequestDigest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptValue {
    pub delivered: Option<Mark>,
    pub read: Option<Mark>,
}

/// How far, when, and whether it is kept private.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub up_to: Position,
    pub at: Timestamp,
    pub private: bool,
}

impl Mark {
    /// The further one; of two equally far ones the earlier, for that is when it got there.
    #[must_use]
    pub fn further(one: Option<Self>, other: Self) -> Self {
        let rank = |m: &Self| (m.up_to, std::cmp::Reverse(m.at), m.private);
        one.into_iter().chain([other]).max_by_key(rank).unwrap_or(other)
    }

    #[must_use]
    pub fn as_parts(self) -> (Position, Timestamp, bool) {
        (self.up_to, self.at, self.private)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateValue {
    pub at: Position,
    pub state: ConversationState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadValue {
    pub head: Position,
    pub head_time: Timestamp,
}

impl HeadValue {
    #[must_use]
    pub fn further(one: Option<Self>, other: Self) -> Self {
        one.filter(|one| one.head >= other.head).unwrap_or(other)
    }
}

/// One conversation of one account. Its mute is apart, being of another kind of table (rule P8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxValue {
    pub joined: Option<Joined>,
    /// The latest leaving; over, where a joining is later.
    pub left: Option<Position>,
    pub head: Option<HeadValue>,
    pub touched: Option<Position>,
    pub read: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub at: Position,
    pub kind: ConversationType,
}

impl InboxValue {
    /// `None` where the account never joined.
    #[must_use]
    pub fn as_row(&self, conversation: ConversationKey, muted_until: Option<Timestamp>) -> Option<InboxRow> {
        let Joined { at, kind } = self.joined?;
        Some(InboxRow {
            conversation,
            kind,
            joined: at,
            left: self.left.filter(|left| *left > at),
            left_before: self.left.filter(|left| *left < at),
            head: self.head.map(|h| (h.head, h.head_time)),
            touched: self.touched,
            read: self.read,
            muted_until,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuteValue(pub Timestamp);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectValue(pub ConversationKey);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupValue;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkValue(pub Position);

/// The first record of a day, and when the log took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayValue {
    pub first: Position,
    pub log_time: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochValue {
    pub incarnations: Vec<String>,
    pub sealed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsValue(pub Settings);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockValue;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountValue {
    pub username: Username,
    pub display_name: Name,
    pub password_hash: String,
    pub created_at: Timestamp,
}

impl AccountValue {
    #[must_use]
    pub fn into_own(self, account: AccountId) -> OwnAccount {
        let Self { username, display_name, password_hash, created_at } = self;
        OwnAccount { account, username, display_name, password_hash, created_at }
    }
}

impl From<&OwnAccount> for AccountValue {
    fn from(own: &OwnAccount) -> Self {
        Self {
            username: own.username.clone(),
            display_name: own.display_name.clone(),
            password_hash: own.password_hash.clone(),
            created_at: own.created_at,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsernameValue(pub AccountId);

#[cfg(test)]
mod tests;
