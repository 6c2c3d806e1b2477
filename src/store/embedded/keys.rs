//! Every key of the embedded store, made and taken apart here alone. A key is its table's number and
//! then its parts, numbers in big-endian, so that the order of keys is the order of what they name. At
//! most one part has no fixed length, so that no two keys can be mistaken for each other.

use crate::store::{Range, StoreError, StoreResult};
use reedi_protocol::text::{ClientMessageId, Reaction, Username};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Shard, Timestamp};

/// The first byte of a key. Numbers are for ever: what is on disk goes by them.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Table {
    Message = 1,
    Event = 2,
    Reaction = 3,
    Hidden = 4,
    /// Only read: see [`sent_by_conversation`].
    SentByConversation = 5,
    Receipt = 6,
    State = 7,
    Head = 8,
    Inbox = 9,
    Mute = 10,
    Direct = 11,
    Group = 12,
    Watermark = 13,
    Epoch = 14,
    Settings = 15,
    Block = 16,
    Account = 17,
    Username = 18,
    /// When what ends: (time, key), or (time) with a list of keys as its value.
    Expiry = 19,
    Sent = 20,
    /// The first of each day: (shard, day).
    Day = 21,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

/// The keys from one, included, to another, not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Key,
    pub to: Key,
}

impl Span {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

impl Key {
    /// The note that a send ends, with a UUID as its key: what nearly all keys are within.
    const USUAL_BYTES: usize = 1 + 8 + (1 + 8 + 16 + 36);

    fn of(table: Table) -> Self {
        let mut bytes = Vec::with_capacity(Self::USUAL_BYTES);
        bytes.push(table as u8);
        Self(bytes)
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn conversation(self, conversation: ConversationKey) -> Self {
        self.number(conversation.as_u64())
    }

    fn account(self, account: AccountId) -> Self {
        self.rest(account.as_bytes())
    }

    fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// One that was found in the engine.
    #[must_use]
    pub fn found(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Whether what stands here is read and written again with nearly every event of its conversation.
    #[must_use]
    pub fn is_hot(&self) -> bool {
        const HOT: [u8; 4] =
            [Table::Receipt as u8, Table::Head as u8, Table::Inbox as u8, Table::Watermark as u8];
        self.0.first().is_some_and(|table| HOT.contains(table))
    }

    /// Every key there is.
    #[cfg(test)]
    pub fn all() -> Span {
        Span { from: Self(Vec::new()), to: Self(vec![u8::MAX]) }
    }

    /// All keys that begin with this one.
    fn prefix(self) -> Span {
        let mut to = self.0.clone();
        // The table's number is below 0xff, so that something is always left.
        while to.last() == Some(&u8::MAX) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Span { from: self, to: Key(to) }
    }

    /// All keys that begin with this one and a position within `range`, ends not included.
    fn within(self, range: Range) -> Span {
        let from = self.clone().number(range.after.as_u64() + 1);
        Span { from, to: self.number(range.before.as_u64()) }
    }
}

/// Every table that the log's events come to.
#[cfg(feature = "simulation")]
#[must_use]
pub fn of_the_log() -> [Span; 2] {
    [Span { from: Key::of(Table::Message), to: Key::of(Table::Mute) }, Key::of(Table::Sent).prefix()]
}

/// A watermark or a note of an end: what the log's events do not come to.
#[cfg(test)]
#[must_use]
pub fn is_of_the_store_alone(key: &[u8]) -> bool {
    key.first().is_some_and(|table| [Table::Watermark as u8, Table::Expiry as u8].contains(table))
}

#[must_use]
pub fn message(conversation: ConversationKey, position: Position) -> Key {
    Key::of(Table::Message).conversation(conversation).number(position.as_u64())
}

#[must_use]
pub fn messages(conversation: ConversationKey, range: Range) -> Span {
    Key::of(Table::Message).conversation(conversation).within(range)
}

#[must_use]
pub fn event(conversation: ConversationKey, position: Position) -> Key {
    Key::of(Table::Event).conversation(conversation).number(position.as_u64())
}

#[must_use]
pub fn events(conversation: ConversationKey, range: Range) -> Span {
    Key::of(Table::Event).conversation(conversation).within(range)
}

#[must_use]
pub fn reaction(
    conversation: ConversationKey,
    target: Position,
    account: AccountId,
    reaction: &Reaction,
) -> Key {
    Key::of(Table::Reaction)
        .conversation(conversation)
        .number(target.as_u64())
        .account(account)
        .rest(reaction.as_str().as_bytes())
}

#[must_use]
pub fn reactions(conversation: ConversationKey, range: Range) -> Span {
    Key::of(Table::Reaction).conversation(conversation).within(range)
}

#[must_use]
pub fn hidden(conversation: ConversationKey, account: AccountId, target: Position) -> Key {
    Key::of(Table::Hidden).conversation(conversation).account(account).number(target.as_u64())
}

#[must_use]
pub fn all_hidden(conversation: ConversationKey, account: AccountId, range: Range) -> Span {
    Key::of(Table::Hidden).conversation(conversation).account(account).within(range)
}

/// By the id first, which mostly is a UUIDv7 and so of its time: what is written now stands together, and the tree finds
/// its place by what it touched just before.
#[must_use]
pub fn sent(conversation: ConversationKey, sender: AccountId, id: &ClientMessageId) -> Key {
    Key::of(Table::Sent).rest(id.as_str().as_bytes()).conversation(conversation).account(sender)
}

/// Where stores from before [`sent`] have it. What stands there ends within [`crate::domain::retention::SENDS_TTL_S`].
#[must_use]
pub fn sent_by_conversation(conversation: ConversationKey, sender: AccountId, id: &ClientMessageId) -> Key {
    Key::of(Table::SentByConversation).conversation(conversation).account(sender).rest(id.as_str().as_bytes())
}

#[must_use]
pub fn receipt(conversation: ConversationKey, account: AccountId) -> Key {
    Key::of(Table::Receipt).conversation(conversation).account(account)
}

#[must_use]
pub fn receipts(conversation: ConversationKey) -> Span {
    Key::of(Table::Receipt).conversation(conversation).prefix()
}

#[must_use]
pub fn state(conversation: ConversationKey) -> Key {
    Key::of(Table::State).conversation(conversation)
}

#[must_use]
pub fn head(conversation: ConversationKey) -> Key {
    Key::of(Table::Head).conversation(conversation)
}

#[must_use]
pub fn inbox_row(account: AccountId, conversation: ConversationKey) -> Key {
    Key::of(Table::Inbox).account(account).conversation(conversation)
}

#[must_use]
pub fn inbox_after(account: AccountId, after: Option<ConversationKey>) -> Span {
    let all = Key::of(Table::Inbox).account(account).prefix();
    match after {
        // The next key there can be: none is as long.
        Some(after) => Span { from: inbox_row(account, after).rest(&[0]), to: all.to },
        None => all,
    }
}

#[must_use]
pub fn mute(account: AccountId, conversation: ConversationKey) -> Key {
    Key::of(Table::Mute).account(account).conversation(conversation)
}

/// The same for a pair in either order.
#[must_use]
pub fn direct(a: AccountId, b: AccountId) -> Key {
    Key::of(Table::Direct).account(a.min(b)).account(a.max(b))
}

#[must_use]
pub fn group(key: ConversationKey) -> Key {
    Key::of(Table::Group).conversation(key)
}

#[must_use]
pub fn watermark(shard: Shard) -> Key {
    Key::of(Table::Watermark).rest(&[shard.0])
}

#[must_use]
pub fn day(shard: Shard, day: i32) -> Key {
    Key::of(Table::Day).rest(&[shard.0]).rest(&day.to_be_bytes())
}

#[must_use]
pub fn days(shard: Shard) -> Span {
    Key::of(Table::Day).rest(&[shard.0]).prefix()
}

#[must_use]
pub fn epoch(epoch: Epoch) -> Key {
    Key::of(Table::Epoch).rest(&epoch.number().to_be_bytes())
}

#[must_use]
pub fn epochs() -> Span {
    Key::of(Table::Epoch).prefix()
}

#[must_use]
pub fn settings(account: AccountId) -> Key {
    Key::of(Table::Settings).account(account)
}

#[must_use]
pub fn block(by: AccountId, account: AccountId) -> Key {
    Key::of(Table::Block).account(by).account(account)
}

#[must_use]
pub fn blocks(by: AccountId) -> Span {
    Key::of(Table::Block).account(by).prefix()
}

#[must_use]
pub fn account(account: AccountId) -> Key {
    Key::of(Table::Account).account(account)
}

/// The index that finds accounts by user name, or by how it begins.
#[must_use]
pub fn username(username: &Username) -> Key {
    Key::of(Table::Username).rest(username.as_str().as_bytes())
}

#[must_use]
pub fn usernames(prefix: &str) -> Span {
    Key::of(Table::Username).rest(prefix.as_bytes()).prefix()
}

/// The note that `key` ends at `at`.
#[must_use]
pub fn expiry(at: Timestamp, key: &Key) -> Key {
    Key::of(Table::Expiry).number(at.as_millis()).rest(key.as_bytes())
}

/// The note of all that ends at `at`, as a list.
#[must_use]
pub fn expiries_at(at: Timestamp) -> Key {
    Key::of(Table::Expiry).number(at.as_millis())
}

/// Adds `keys` to a list, each after its length. All tables' keys are far below what two bytes can say.
pub fn append_list<'k>(list: &mut Vec<u8>, keys: impl IntoIterator<Item = &'k Key>) {
    for key in keys {
        list.extend_from_slice(&(key.0.len() as u16).to_be_bytes());
        list.extend_from_slice(&key.0);
    }
}

/// The keys of a list.
pub fn parts_of_list(list: &[u8]) -> StoreResult<Vec<Key>> {
    let mut keys = Vec::new();
    let mut parts = Parts(list);
    while !parts.0.is_empty() {
        let length = usize::from(u16::from_be_bytes(parts.bytes()?));
        let (key, rest) = parts.0.split_at_checked(length).ok_or_else(malformed)?;
        keys.push(Key::found(key));
        parts.0 = rest;
    }
    Ok(keys)
}

/// The notes of what ends from `from` on, up to and with `until`.
#[must_use]
pub fn expiries(from: Timestamp, until: Timestamp) -> Span {
    let at = |ms| Key::of(Table::Expiry).number(ms);
    Span { from: at(from.as_millis()), to: at(until.as_millis() + 1) }
}

/// A key's parts, from its front.
struct Parts<'k>(&'k [u8]);

impl<'k> Parts<'k> {
    /// Without the table's number.
    fn of(key: &'k [u8]) -> StoreResult<Self> {
        key.split_first().map(|(_, rest)| Self(rest)).ok_or_else(malformed)
    }

    fn bytes<const N: usize>(&mut self) -> StoreResult<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> StoreResult<u64> {
        self.bytes().map(u64::from_be_bytes)
    }

    fn conversation(&mut self) -> StoreResult<ConversationKey> {
        self.number().map(ConversationKey::from_u64)
    }

    fn position(&mut self) -> StoreResult<Position> {
        Position::from_u64(self.number()?).ok_or_else(malformed)
    }

    fn account(&mut self) -> StoreResult<AccountId> {
        self.bytes().map(|bytes| AccountId::new(uuid::Uuid::from_bytes(bytes)))
    }
}

fn malformed() -> StoreError {
    StoreError::Corrupt("a key of no known form".to_owned())
}

pub fn position_of_event(key: &[u8]) -> StoreResult<Position> {
    let mut parts = Parts::of(key)?;
    parts.conversation()?;
    parts.position()
}

pub fn parts_of_reaction(key: &[u8]) -> StoreResult<(Position, AccountId, String)> {
    let mut parts = Parts::of(key)?;
    parts.conversation()?;
    let (target, account) = (parts.position()?, parts.account()?);
    let reaction = std::str::from_utf8(parts.0).map_err(|_| malformed())?;
    Ok((target, account, reaction.to_owned()))
}

pub fn target_of_hidden(key: &[u8]) -> StoreResult<Position> {
    let mut parts = Parts::of(key)?;
    parts.conversation()?;
    parts.account()?;
    parts.position()
}

pub fn account_of_receipt(key: &[u8]) -> StoreResult<AccountId> {
    let mut parts = Parts::of(key)?;
    parts.conversation()?;
    parts.account()
}

pub fn conversation_of_inbox(key: &[u8]) -> StoreResult<ConversationKey> {
    let mut parts = Parts::of(key)?;
    parts.account()?;
    parts.conversation()
}

pub fn epoch_of(key: &[u8]) -> StoreResult<Epoch> {
    let number = Parts::of(key)?.bytes().map(u16::from_be_bytes)?;
    Epoch::new(number).ok_or_else(malformed)
}

pub fn account_of_block(key: &[u8]) -> StoreResult<AccountId> {
    let mut parts = Parts::of(key)?;
    parts.account()?;
    parts.account()
}

/// When and what a note of an end is about; `None` where its value is the list of that.
pub fn parts_of_expiry(key: &[u8]) -> StoreResult<(Timestamp, Option<Key>)> {
    let mut parts = Parts::of(key)?;
    let at = Timestamp::from_millis(parts.number()?);
    Ok((at, (!parts.0.is_empty()).then(|| Key::found(parts.0))))
}

#[cfg(test)]
mod tests;
