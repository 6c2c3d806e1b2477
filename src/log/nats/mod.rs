//! The log on NATS JetStream: one stream per slice (rule P1).

mod api;
mod append;
pub(crate) mod connection;
mod identity;
mod reader;
mod stream;
pub(crate) mod subject;

pub(crate) use api::{ANSWER_WITHIN, ApiError, Stored, Which, code};
pub use connection::{NatsConfig, NatsConfigError};
pub use reader::NatsReader;
pub use subject::Namespace;

use super::{Append, AppendError, Appended, LogPort, RawRecord, ReadError, ShardSet, Slice, SliceState};
use connection::{Live, NatsConnection};
use reedi_protocol::{Epoch, Position, Shard, Timestamp};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use stream::SliceStream;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Appends that may wait for their acknowledgement at once; more wait for their turn. nats-server
/// refuses beyond 10,000 waiting in a stream, from all processes.
const APPENDS_IN_FLIGHT: usize = 8_192;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct NatsLogConfig {
    pub nats: NatsConfig,
    pub namespace: Namespace,
    /// Copies of every record: 3, or 1 where there is one server.
    pub replicas: u8,
    /// Of one slice, in bytes; a full log refuses appends.
    pub max_bytes: u64,
    /// Connections that share the appends.
    pub append_connections: u8,
}

/// Why there is no log to work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsLogError {
    #[error(transparent)]
    Config(#[from] NatsConfigError),
    /// The number of slices is no power of two up to 128.
    #[error("{0} slices cannot share 256 shards")]
    Slices(usize),
    #[error("the log is fenced: {0}")]
    Fenced(String),
    /// JetStream refuses the stream, and waiting will not help.
    #[error("{stream} cannot be made: {why}")]
    Stream { stream: String, why: String },
}

/// The log of one epoch. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct NatsLog {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

struct Shared {
    namespace: Namespace,
    epoch: Epoch,
    slices: Vec<SliceStream>,
    appends: Vec<NatsConnection>,
    next_append: AtomicUsize,
    in_flight: Semaphore,
    /// For everything else, so that an acknowledgement never waits behind a page of records.
    reads: NatsConnection,
    /// Why nothing may be done any more (rule P9).
    fenced: OnceLock<String>,
}

impl NatsLog {
    /// Waits for NATS and makes the streams that are missing. `incarnations` are the ones that the
    /// epoch was claimed with, one for each slice; `watermarks` how far the store has the log: a log
    /// that ends before them has forgotten what was acknowledged.
    ///
    /// # Errors
    /// What waiting cannot mend.
    pub async fn connect(
        config: NatsLogConfig,
        epoch: Epoch,
        incarnations: &[String],
        watermarks: &[(Shard, Position)],
    ) -> Result<Self, NatsLogError> {
        let count = u8::try_from(incarnations.len()).ok().filter(|count| count.is_power_of_two());
        let count = count.ok_or(NatsLogError::Slices(incarnations.len()))?;
        let reads = NatsConnection::open(&config.nats, "log reads").await?;
        let mut appends = Vec::new();
        for _ in 0..config.append_connections.max(1) {
            appends.push(NatsConnection::open(&config.nats, "log appends").await?);
        }
        let slices = incarnations.iter().zip(0..count).map(|(incarnation, index)| {
            SliceStream::new(&config.namespace, epoch, Slice { index, count }, incarnation.clone())
        });
        let shared = Arc::new(Shared {
            slices: slices.collect(),
            namespace: config.namespace.clone(),
            epoch,
            appends,
            next_append: AtomicUsize::new(0),
            in_flight: Semaphore::new(APPENDS_IN_FLIGHT),
            reads,
            fenced: OnceLock::new(),
        });
        for slice in &shared.slices {
            slice.open(&shared.reads, &config).await?;
        }
        shared.reach_all().await;
        shared.expect_at_least(watermarks);
        shared.check_until_known().await;
        if let Some(why) = shared.fenced.get() {
            return Err(NatsLogError::Fenced(why.clone()));
        }
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(identity::watch(Arc::clone(&shared))));
        Ok(Self { shared, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Tells how far the store has the log, so that a log which lost that much is noticed (rule P9).
    pub fn expect_at_least(&self, watermarks: &[(Shard, Position)]) {
        self.shared.expect_at_least(watermarks);
    }

    /// Why the log is fenced, if it is.
    #[must_use]
    pub fn fenced(&self) -> Option<&str> {
        self.shared.fenced.get().map(String::as_str)
    }

    /// Whether NATS is connected now, for readiness.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.reads.live().is_some() && self.shared.appends.iter().all(|one| one.live().is_some())
    }
}

impl Shared {
    fn slice_of(&self, shard: Shard) -> &SliceStream {
        &self.slices[shard.index() * self.slices.len() / Shard::COUNT]
    }

    fn named(&self, slice: Slice) -> Result<&SliceStream, ReadError> {
        let stream = self.slices.iter().find(|own| own.slice == slice);
        stream.ok_or_else(|| ReadError::Unavailable(format!("{slice:?} is no slice of this log")))
    }

    fn fence(&self, why: String) {
        tracing::error!(why, "the log is fenced: it is not the one it was, and takes and gives nothing more");
        // The first reason stays.
        let _ = self.fenced.set(why);
    }

    fn expect_at_least(&self, watermarks: &[(Shard, Position)]) {
        for (shard, position) in watermarks {
            if position.epoch() == Some(self.epoch) {
                self.slice_of(*shard).saw(position.sequence());
            }
        }
    }

    /// The client to read with.
    fn reading(&self) -> Result<Arc<Live>, ReadError> {
        if let Some(why) = self.fenced.get() {
            return Err(ReadError::Fenced(why.clone()));
        }
        self.reads.live().ok_or_else(|| ReadError::Unavailable("NATS is disconnected".to_owned()))
    }

    /// The client to append with.
    fn appending(&self) -> Result<Arc<Live>, AppendError> {
        let turn = self.next_append.fetch_add(1, Ordering::Relaxed);
        let count = self.appends.len();
        let mut in_turn = (0..count).map(|step| &self.appends[(turn + step) % count]);
        in_turn
            .find_map(NatsConnection::live)
            .ok_or_else(|| AppendError::Unavailable("NATS is disconnected".to_owned()))
    }

    fn position(&self, sequence: u64) -> Result<Position, ReadError> {
        Position::new(self.epoch, sequence)
            .ok_or_else(|| ReadError::Unavailable(format!("{sequence} is no sequence of a log")))
    }
}

impl From<ApiError> for ReadError {
    fn from(error: ApiError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl LogPort for NatsLog {
    type Reader = NatsReader;

    fn slices(&self) -> Vec<Slice> {
        self.shared.slices.iter().map(|stream| stream.slice).collect()
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.shared.append(append).await
    }

    async fn read(&self, slice: Slice, shards: ShardSet, after: Position) -> Result<NatsReader, ReadError> {
        NatsReader::begin(Arc::clone(&self.shared), slice, shards, after).await
    }

    async fn get(&self, shard: Shard, position: Position) -> Result<Option<RawRecord>, ReadError> {
        self.shared.get(shard, position).await
    }

    async fn trim(&self, slice: Slice, up_to: Position) -> Result<(), ReadError> {
        self.shared.trim(slice, up_to).await
    }

    async fn erase(&self, shard: Shard, position: Position) -> Result<(), ReadError> {
        self.shared.erase(shard, position).await
    }

    async fn state(&self, slice: Slice) -> Result<SliceState, ReadError> {
        self.shared.state(slice).await
    }

    async fn now(&self) -> Result<Timestamp, ReadError> {
        self.shared.now().await
    }
}
