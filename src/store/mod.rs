//! The store: what the log's events came to, for reading. One small trait per kind of record.

pub mod conformance;
pub mod cql;
pub mod embedded;
mod error;
#[cfg(feature = "simulation")]
pub mod simulated;

use crate::domain::conversation::ConversationState;
use crate::domain::record::{Record, RequestDigest, Sealed};
use crate::domain::write::{MessageRow, Write};
use reedi_protocol::resource::{ConversationType, MessageType, Settings};
use reedi_protocol::text::{ClientMessageId, Name, Username};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Shard, Timestamp};
use std::future::Future;

pub use error::StoreError;

pub type StoreResult<T> = Result<T, StoreError>;

/// A message as the store has it. Gone ones (expired) are not returned at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    pub row: MessageRow,
    /// `None` once deleted, and for `system` messages.
    pub content: Option<Sealed>,
    pub edited_at: Option<Timestamp>,
    pub deleted: Option<(Timestamp, AccountId)>,
}

/// What there is to count of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    pub position: Position,
    pub sender: AccountId,
    pub message_type: MessageType,
    pub is_deleted: bool,
}

impl Outline {
    fn of(StoredMessage { row, deleted, .. }: &StoredMessage) -> Self {
        let MessageRow { position, sender, message_type, .. } = *row;
        Self { position, sender, message_type, is_deleted: deleted.is_some() }
    }
}

/// An event that is no message, as the store keeps it for catching up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub position: Position,
    pub log_time: Timestamp,
    /// Without content.
    pub record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReaction {
    pub target: Position,
    pub account: AccountId,
    pub reaction: String,
    pub at: Position,
}

/// How far an account has received and read a conversation, and when it got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    pub account: AccountId,
    /// (up to, when, kept private)
    pub delivered: Option<(Position, Timestamp, bool)>,
    pub read: Option<(Position, Timestamp, bool)>,
}

/// Which message a `clientMessageId` became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSend {
    pub position: Position,
    pub digest: RequestDigest,
}

/// One conversation in an account's inbox, left ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxRow {
    pub conversation: ConversationKey,
    pub kind: ConversationType,
    pub joined: Position,
    pub left: Option<Position>,
    /// Where the account left before it joined the last time, if it did.
    pub left_before: Option<Position>,
    /// The newest public event that this inbox was told of. Large groups tell only
    /// [`Conversations::heads`], so for groups the later of the two counts.
    pub head: Option<(Position, Timestamp)>,
    /// The newest event of any kind that concerns the account, receipts included.
    pub touched: Option<Position>,
    /// What the account has read itself.
    pub read: Position,
    pub muted_until: Option<Timestamp>,
}

/// Which part of a conversation to read: positions strictly between `after` and `before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub after: Position,
    pub before: Position,
}

impl Range {
    /// The latest place that a range can end before.
    pub const END: Position = match Position::from_u64((101 << 44) | ((1 << 44) - 1)) {
        Some(end) => end,
        None => Position::START,
    };

    #[must_use]
    pub fn after(after: Position) -> Self {
        Self { after, before: Self::END }
    }

    #[must_use]
    pub fn before(before: Position) -> Self {
        Self { after: Position::START, before }
    }

    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        self.after < position && position < self.before
    }
}

/// Which end of a range to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    NewestFirst,
    OldestFirst,
}

/// The write side: what the writer, and for large groups' receipts the edge, does.
pub trait Writes {
    /// Makes all `writes` durable, in any order and any number of times with the same end.
    fn apply(&self, writes: &[Write]) -> impl Future<Output = StoreResult<()>> + Send;
}

pub trait Messages {
    fn message(
        &self,
        conversation: ConversationKey,
        position: Position,
    ) -> impl Future<Output = StoreResult<Option<StoredMessage>>> + Send;

    /// At most `limit` messages within `range`.
    fn messages(
        &self,
        conversation: ConversationKey,
        range: Range,
        order: Order,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<StoredMessage>>> + Send;

    /// The same messages, oldest first, without what they are about: content is not looked at.
    fn outlines(
        &self,
        conversation: ConversationKey,
        range: Range,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<Outline>>> + Send;

    /// At most `limit` events that are no messages, oldest first.
    fn events(
        &self,
        conversation: ConversationKey,
        range: Range,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<StoredEvent>>> + Send;

    /// The reactions to all messages within `range`, oldest reaction of each message first.
    fn reactions(
        &self,
        conversation: ConversationKey,
        range: Range,
    ) -> impl Future<Output = StoreResult<Vec<StoredReaction>>> + Send;

    /// The messages within `range` that `account` has hidden from itself.
    fn hidden(
        &self,
        conversation: ConversationKey,
        account: AccountId,
        range: Range,
    ) -> impl Future<Output = StoreResult<Vec<Position>>> + Send;

    fn sent(
        &self,
        conversation: ConversationKey,
        sender: AccountId,
        id: &ClientMessageId,
    ) -> impl Future<Output = StoreResult<Option<StoredSend>>> + Send;

    fn receipts(
        &self,
        conversation: ConversationKey,
    ) -> impl Future<Output = StoreResult<Vec<StoredReceipt>>> + Send;
}

/// How creating something that may stand already ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed<T> {
    /// It is the caller's.
    New,
    /// It stood already, as this.
    Stood(T),
}

pub trait Conversations {
    /// The state after the newest stored control event, and that event's position.
    fn state(
        &self,
        conversation: ConversationKey,
    ) -> impl Future<Output = StoreResult<Option<(Position, ConversationState)>>> + Send;

    /// The newest public event of each; in the order asked.
    fn heads(
        &self,
        conversations: &[ConversationKey],
    ) -> impl Future<Output = StoreResult<Vec<Option<(Position, Timestamp)>>>> + Send;

    /// The direct conversation of a pair, in either order: claims `key` for it unless one stands.
    fn claim_direct(
        &self,
        a: AccountId,
        b: AccountId,
        key: ConversationKey,
    ) -> impl Future<Output = StoreResult<Claimed<ConversationKey>>> + Send;

    /// Claims a random key for a new group, so that no two conversations share one.
    fn claim_group(&self, key: ConversationKey) -> impl Future<Output = StoreResult<Claimed<()>>> + Send;

    /// Mutes a conversation for one account; `None` unmutes.
    fn mute(
        &self,
        account: AccountId,
        conversation: ConversationKey,
        until: Option<Timestamp>,
    ) -> impl Future<Output = StoreResult<()>> + Send;
}

pub trait Inboxes {
    /// An account's conversations, left ones included, at most `limit` in an order of the store's own: those behind
    /// `after`, or from the first. Fewer than `limit` are the last.
    fn inbox(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<InboxRow>>> + Send;

    fn inbox_row(
        &self,
        account: AccountId,
        conversation: ConversationKey,
    ) -> impl Future<Output = StoreResult<Option<InboxRow>>> + Send;
}

pub trait Watermarks {
    /// How far every shard has been stored; absent ones are at the start.
    fn watermarks(&self) -> impl Future<Output = StoreResult<Vec<(Shard, Position)>>> + Send;

    /// Moves watermarks forward; one that stands further already stays.
    fn advance(&self, watermarks: &[(Shard, Position)]) -> impl Future<Output = StoreResult<()>> + Send;

    /// The first position that was stored of each day of a shard, and when the log took it; oldest first, as far back as
    /// [`crate::domain::retention::DAYS_TTL_S`].
    fn first_of_days(
        &self,
        shard: Shard,
    ) -> impl Future<Output = StoreResult<Vec<(Position, Timestamp)>>> + Send;
}

/// One life of the log (rule P9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRow {
    pub epoch: Epoch,
    /// The incarnation that each slice's stream must have, by index; its length is the slice count.
    pub incarnations: Vec<String>,
    /// Whether it takes no more records.
    pub sealed: bool,
}

pub trait Epochs {
    fn epochs(&self) -> impl Future<Output = StoreResult<Vec<EpochRow>>> + Send;

    /// Claims an epoch; whoever comes second gets what stands.
    fn claim_epoch(&self, row: &EpochRow) -> impl Future<Output = StoreResult<Claimed<EpochRow>>> + Send;

    fn seal_epoch(&self, epoch: Epoch) -> impl Future<Output = StoreResult<()>> + Send;
}

pub trait Preferences {
    fn settings(&self, account: AccountId) -> impl Future<Output = StoreResult<Settings>> + Send;

    fn put_settings(
        &self,
        account: AccountId,
        settings: Settings,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    fn is_blocked(&self, by: AccountId, account: AccountId)
    -> impl Future<Output = StoreResult<bool>> + Send;

    /// Whom `by` has blocked, at most `limit`.
    fn blocks(&self, by: AccountId, limit: usize)
    -> impl Future<Output = StoreResult<Vec<AccountId>>> + Send;

    fn set_block(
        &self,
        by: AccountId,
        account: AccountId,
        blocked: bool,
    ) -> impl Future<Output = StoreResult<()>> + Send;
}

/// An own account, as `REEDI_ACCOUNTS=own` keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnAccount {
    pub account: AccountId,
    pub username: Username,
    pub display_name: Name,
    /// PHC string of Argon2id.
    pub password_hash: String,
    pub created_at: Timestamp,
}

pub trait Accounts {
    /// User names are unique: whoever comes second learns whose it is.
    fn create_account(
        &self,
        account: &OwnAccount,
    ) -> impl Future<Output = StoreResult<Claimed<AccountId>>> + Send;

    fn account_by_username(
        &self,
        username: &Username,
    ) -> impl Future<Output = StoreResult<Option<OwnAccount>>> + Send;

    fn account(&self, account: AccountId) -> impl Future<Output = StoreResult<Option<OwnAccount>>> + Send;

    /// Accounts whose user name begins with `prefix` (lower case), in order, at most `limit`.
    fn search_accounts(
        &self,
        prefix: &str,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Vec<OwnAccount>>> + Send;
}

/// Everything a store adapter does; both adapters pass the conformance suite.
pub trait StorePort:
    Writes
    + Messages
    + Conversations
    + Inboxes
    + Watermarks
    + Epochs
    + Preferences
    + Accounts
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Whether it answers now, for readiness.
    fn ping(&self) -> impl Future<Output = StoreResult<()>> + Send;
}

/// The store of this process.
#[derive(Clone)]
pub enum Store {
    Embedded(embedded::EmbeddedStore),
    Cql(cql::CqlStore),
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedStore),
}

/// Implements a trait of the port for [`Store`] by asking the adapter that it is. What asks over a network is
/// boxed: it takes kilobytes, which everything that waits for a store would carry along.
macro_rules! dispatch {
    ($trait:ident { $(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $out:ty;)* }) => {
        impl $trait for Store {
            $(async fn $name(&self $(, $arg: $type)*) -> $out {
                match self {
                    Store::Embedded(store) => $trait::$name(store $(, $arg)*).await,
                    Store::Cql(store) => Box::pin($trait::$name(store $(, $arg)*)).await,
                    #[cfg(feature = "simulation")]
                    Store::Simulated(store) => store.call($trait::$name(&store.inner $(, $arg)*)).await,
                }
            })*
        }
    };
}

impl Store {
    /// Stores what a batch of the log came to: all of `writes`, and only then moves `watermarks` (invariant
    /// `stored_before_trimmed`). Where both can be done at once, they are.
    ///
    /// # Errors
    /// The watermarks have not moved.
    pub async fn persist(&self, writes: Vec<Write>, watermarks: Vec<(Shard, Position)>) -> StoreResult<()> {
        if let Self::Embedded(store) = self {
            return if writes.is_empty() && watermarks.is_empty() {
                Ok(())
            } else {
                store.persist(writes, watermarks).await
            };
        }
        if !writes.is_empty() {
            self.apply(&writes).await?;
        }
        if watermarks.is_empty() { Ok(()) } else { self.advance(&watermarks).await }
    }
}

impl Writes for Store {
    async fn apply(&self, writes: &[Write]) -> StoreResult<()> {
        match self {
            Store::Embedded(store) => store.apply(writes).await,
            Store::Cql(store) => Box::pin(store.apply(writes)).await,
            #[cfg(feature = "simulation")]
            Store::Simulated(store) => store.apply(writes).await,
        }
    }
}

dispatch!(Messages {
    fn message(&self, conversation: ConversationKey, position: Position) -> StoreResult<Option<StoredMessage>>;
    fn messages(&self, conversation: ConversationKey, range: Range, order: Order, limit: usize) -> StoreResult<Vec<StoredMessage>>;
    fn outlines(&self, conversation: ConversationKey, range: Range, limit: usize) -> StoreResult<Vec<Outline>>;
    fn events(&self, conversation: ConversationKey, range: Range, limit: usize) -> StoreResult<Vec<StoredEvent>>;
    fn reactions(&self, conversation: ConversationKey, range: Range) -> StoreResult<Vec<StoredReaction>>;
    fn hidden(&self, conversation: ConversationKey, account: AccountId, range: Range) -> StoreResult<Vec<Position>>;
    fn sent(&self, conversation: ConversationKey, sender: AccountId, id: &ClientMessageId) -> StoreResult<Option<StoredSend>>;
    fn receipts(&self, conversation: ConversationKey) -> StoreResult<Vec<StoredReceipt>>;
});
dispatch!(Conversations {
    fn state(&self, conversation: ConversationKey) -> StoreResult<Option<(Position, ConversationState)>>;
    fn heads(&self, conversations: &[ConversationKey]) -> StoreResult<Vec<Option<(Position, Timestamp)>>>;
    fn claim_direct(&self, a: AccountId, b: AccountId, key: ConversationKey) -> StoreResult<Claimed<ConversationKey>>;
    fn claim_group(&self, key: ConversationKey) -> StoreResult<Claimed<()>>;
    fn mute(&self, account: AccountId, conversation: ConversationKey, until: Option<Timestamp>) -> StoreResult<()>;
});
dispatch!(Inboxes {
    fn inbox(&self, account: AccountId, after: Option<ConversationKey>, limit: usize) -> StoreResult<Vec<InboxRow>>;
    fn inbox_row(&self, account: AccountId, conversation: ConversationKey) -> StoreResult<Option<InboxRow>>;
});
dispatch!(Watermarks {
    fn watermarks(&self) -> StoreResult<Vec<(Shard, Position)>>;
    fn advance(&self, watermarks: &[(Shard, Position)]) -> StoreResult<()>;
    fn first_of_days(&self, shard: Shard) -> StoreResult<Vec<(Position, Timestamp)>>;
});
dispatch!(Epochs {
    fn epochs(&self) -> StoreResult<Vec<EpochRow>>;
    fn claim_epoch(&self, row: &EpochRow) -> StoreResult<Claimed<EpochRow>>;
    fn seal_epoch(&self, epoch: Epoch) -> StoreResult<()>;
});
dispatch!(Preferences {
    fn settings(&self, account: AccountId) -> StoreResult<Settings>;
    fn put_settings(&self, account: AccountId, settings: Settings) -> StoreResult<()>;
    fn is_blocked(&self, by: AccountId, account: AccountId) -> StoreResult<bool>;
    fn blocks(&self, by: AccountId, limit: usize) -> StoreResult<Vec<AccountId>>;
    fn set_block(&self, by: AccountId, account: AccountId, blocked: bool) -> StoreResult<()>;
});
dispatch!(Accounts {
    fn create_account(&self, account: &OwnAccount) -> StoreResult<Claimed<AccountId>>;
    fn account_by_username(&self, username: &Username) -> StoreResult<Option<OwnAccount>>;
    fn account(&self, account: AccountId) -> StoreResult<Option<OwnAccount>>;
    fn search_accounts(&self, prefix: &str, limit: usize) -> StoreResult<Vec<OwnAccount>>;
});

impl StorePort for Store {
    async fn ping(&self) -> StoreResult<()> {
        match self {
            Store::Embedded(store) => store.ping().await,
            Store::Cql(store) => Box::pin(store.ping()).await,
            #[cfg(feature = "simulation")]
            Store::Simulated(store) => store.call(store.inner.ping()).await,
        }
    }
}
