//! The log: the ordered, durable sequence of events, and the only thing that orders them.

pub mod conformance;
pub mod embedded;
pub mod lag;
pub mod measure;
pub mod nats;
pub mod reading;
#[cfg(feature = "simulation")]
pub mod simulated;
pub mod tick;

use crate::domain::send_key::DuplicateKey;
use crate::runtime::trace_context::TraceContext;
use bytes::Bytes;
use reedi_protocol::{ConversationKey, Epoch, Position, Shard, Timestamp};
use std::future::Future;

/// How long the log remembers a duplicate key, in milliseconds (rule P1).
pub const DUPLICATE_WINDOW_MS: u64 = 120_000;

/// A set of shards, as a bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    #[must_use]
    pub fn all() -> Self {
        Self([u64::MAX; 4])
    }

    pub fn insert(&mut self, shard: Shard) {
        self.0[shard.index() / 64] |= 1 << (shard.index() % 64);
    }

    pub fn remove(&mut self, shard: Shard) {
        self.0[shard.index() / 64] &= !(1 << (shard.index() % 64));
    }

    #[must_use]
    pub fn contains(&self, shard: Shard) -> bool {
        self.0[shard.index() / 64] >> (shard.index() % 64) & 1 == 1
    }

    pub fn iter(&self) -> impl Iterator<Item = Shard> + '_ {
        Shard::all().filter(|shard| self.contains(*shard))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

impl std::fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|s| s.0)).finish()
    }
}

/// Under which condition a record is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// An ordinary event: no condition.
    Event,
    /// A control event: only if the conversation's newest control event in the log is at `expected`
    /// (rule P7). [`Position::START`]: if the log has none.
    Control { expected: Position },
}

/// One record to append.
#[derive(Clone, Debug)]
pub struct Append {
    pub conversation: ConversationKey,
    pub lane: Lane,
    /// Where the log has taken this key within [`DUPLICATE_WINDOW_MS`], it answers with the first.
    pub duplicate_key: Option<DuplicateKey>,
    pub payload: Bytes,
    /// The trace of the request that it came from.
    pub traceparent: Option<TraceContext>,
}

/// The log has it, on a quorum of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    New(Position),
    /// The key was known; whatever stands at this position came first. It may be void or another
    /// request: read it.
    Duplicate(Position),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Surely not taken.
    #[error("the log is away: {0}")]
    Unavailable(String),
    /// Taken or not: nobody can say yet.
    #[error("the log did not answer: {0}")]
    OutcomeUnknown(String),
    /// A newer control event than the expected one stands in the log; it names its position where
    /// the log told it. [`Position::START`]: the log has none (any more), and one was expected.
    #[error("another control event came first")]
    ControlMoved(Option<Position>),
    /// The first append with this key is not decided yet: ask again in 50 ms.
    #[error("an append with the same key is in flight")]
    InFlight,
    #[error("the log is full")]
    Full,
    /// The log is not the one it was (rule P9).
    #[error("the log is fenced: {0}")]
    Fenced(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the log is away: {0}")]
    Unavailable(String),
    /// The position asked for has been trimmed.
    #[error("the log begins after {asked}, at {first}")]
    Trimmed { asked: Position, first: Position },
    #[error("the log is fenced: {0}")]
    Fenced(String),
}

/// A record as it stands in the log, not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub position: Position,
    pub log_time: Timestamp,
    pub conversation: ConversationKey,
    pub is_control: bool,
    pub payload: Bytes,
    pub traceparent: Option<TraceContext>,
}

/// A part of the log with a sequence of its own, holding a fixed range of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    pub index: u8,
    /// How many slices there are; a power of two.
    pub count: u8,
}

impl Slice {
    #[must_use]
    pub fn shards(self) -> ShardSet {
        Shard::all().filter(|shard| self.holds(*shard)).collect()
    }

    #[must_use]
    pub fn holds(self, shard: Shard) -> bool {
        usize::from(self.index) == shard.index() * usize::from(self.count) / Shard::COUNT
    }
}

/// How a slice stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceState {
    pub epoch: Epoch,
    /// A random name given when the slice was made: another means another log (rule P9).
    pub incarnation: String,
    /// Of the oldest record kept, or where the next will be if none is.
    pub first: Position,
    /// Of the newest record ever taken; [`Position::START`] if none was.
    pub last: Position,
    /// How full it is, 0 to 100.
    pub fill_percent: u8,
}

/// The port. Both adapters pass the conformance suite.
pub trait LogPort: Clone + Send + Sync + 'static {
    type Reader: LogReader;

    /// All slices, in order of their shards.
    fn slices(&self) -> Vec<Slice>;

    fn append(&self, append: Append) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Reads the records of `shards` (all of `slice`) after `after`, in order, without end.
    fn read(
        &self,
        slice: Slice,
        shards: ShardSet,
        after: Position,
    ) -> impl Future<Output = Result<Self::Reader, ReadError>> + Send;

    /// One record, read where the log is decided (never from a replica that may be stale). `None`:
    /// trimmed, erased or never there.
    fn get(
        &self,
        shard: Shard,
        position: Position,
    ) -> impl Future<Output = Result<Option<RawRecord>, ReadError>> + Send;

    /// Forgets everything up to and including `up_to`. The caller has made sure that the store has
    /// it (invariant `stored_before_trimmed`).
    fn trim(&self, slice: Slice, up_to: Position) -> impl Future<Output = Result<(), ReadError>> + Send;

    /// Overwrites one record so that its content is on no disk of the log; readers skip it.
    fn erase(&self, shard: Shard, position: Position) -> impl Future<Output = Result<(), ReadError>> + Send;

    fn state(&self, slice: Slice) -> impl Future<Output = Result<SliceState, ReadError>> + Send;

    /// What the log's clock shows now.
    fn now(&self) -> impl Future<Output = Result<Timestamp, ReadError>> + Send;
}

/// Reads one slice from a position on.
pub trait LogReader: Send + 'static {
    /// Waits until there is at least one record and gives at most `most`, in order, none twice. After
    /// an error the reader is spent: the caller begins anew from what it has done, never from what
    /// the reader remembers (rule P3). Cancel-safe.
    fn next(&mut self, most: usize) -> impl Future<Output = Result<Vec<RawRecord>, ReadError>> + Send;

    /// Whether the log had nothing more of this reader's shards when it gave what was read last, or began,
    /// as far as the reader can tell: at NATS a replica says so that may be behind for some seconds. Good
    /// for telling lag; no promise rests on it.
    fn is_drained(&self) -> bool;
}

/// The log of this process.
#[derive(Clone)]
pub enum Log {
    Embedded(embedded::EmbeddedLog),
    Nats(nats::NatsLog),
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedLog),
}

/// A reader of it.
pub enum Reader {
    Embedded(embedded::EmbeddedReader),
    Nats(nats::NatsReader),
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedReader),
}

/// Asks the adapter that a log is. What asks over a network is boxed: it takes kilobytes, which everything that
/// waits for a log would carry along.
macro_rules! on_adapter {
    ($self:ident, $log:ident => await $call:expr) => {
        match $self {
            Log::Embedded($log) => $call.await,
            Log::Nats($log) => Box::pin($call).await,
            #[cfg(feature = "simulation")]
            Log::Simulated($log) => Box::pin($call).await,
        }
    };
    ($self:ident, $log:ident => $call:expr) => {
        match $self {
            Log::Embedded($log) => $call,
            Log::Nats($log) => $call,
            #[cfg(feature = "simulation")]
            Log::Simulated($log) => $call,
        }
    };
}

impl LogPort for Log {
    type Reader = Reader;

    fn slices(&self) -> Vec<Slice> {
        on_adapter!(self, log => log.slices())
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        on_adapter!(self, log => await log.append(append))
    }

    async fn read(&self, slice: Slice, shards: ShardSet, after: Position) -> Result<Reader, ReadError> {
        match self {
            Log::Embedded(log) => Ok(Reader::Embedded(log.read(slice, shards, after).await?)),
            Log::Nats(log) => Ok(Reader::Nats(Box::pin(log.read(slice, shards, after)).await?)),
            #[cfg(feature = "simulation")]
            Log::Simulated(log) => Ok(Reader::Simulated(log.read(slice, shards, after).await?)),
        }
    }

    async fn get(&self, shard: Shard, position: Position) -> Result<Option<RawRecord>, ReadError> {
        on_adapter!(self, log => await log.get(shard, position))
    }

    async fn trim(&self, slice: Slice, up_to: Position) -> Result<(), ReadError> {
        on_adapter!(self, log => await log.trim(slice, up_to))
    }

    async fn erase(&self, shard: Shard, position: Position) -> Result<(), ReadError> {
        on_adapter!(self, log => await log.erase(shard, position))
    }

    async fn state(&self, slice: Slice) -> Result<SliceState, ReadError> {
        on_adapter!(self, log => await log.state(slice))
    }

    async fn now(&self) -> Result<Timestamp, ReadError> {
        on_adapter!(self, log => await log.now())
    }
}

impl LogReader for Reader {
    async fn next(&mut self, most: usize) -> Result<Vec<RawRecord>, ReadError> {
        match self {
            Reader::Embedded(reader) => reader.next(most).await,
            Reader::Nats(reader) => Box::pin(reader.next(most)).await,
            #[cfg(feature = "simulation")]
            Reader::Simulated(reader) => reader.next(most).await,
        }
    }

    fn is_drained(&self) -> bool {
        match self {
            Reader::Embedded(reader) => reader.is_drained(),
            Reader::Nats(reader) => reader.is_drained(),
            #[cfg(feature = "simulation")]
            Reader::Simulated(reader) => reader.is_drained(),
        }
    }
}
