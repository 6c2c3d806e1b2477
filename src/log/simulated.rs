//! The log of a simulation: the embedded one in memory, reached by calls that may be late, lost or
//! refused, and able to be made anew under the same name.

use super::embedded::{EmbeddedLog, EmbeddedReader};
use super::{
    Append, AppendError, Appended, LogPort, LogReader, RawRecord, ReadError, ShardSet, Slice, SliceState,
};
use crate::domain::send_key::DuplicateKey;
use crate::runtime::fault::{Process, happens, up_to, within};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use reedi_protocol::{Epoch, Position, Shard, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a caller waits for an answer that does not come, before its connection gives up.
const NO_ANSWER: Duration = Duration::from_secs(10);
/// An append that is on its way for less than this is known to the log's leader as being in flight.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// Sees what the log is about to forget.
pub type OnTrim = Arc<dyn Fn(Vec<RawRecord>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What all processes share: the log itself, and everything it ever took.
#[derive(Clone)]
pub struct Disks(Arc<Shared>);

struct Shared {
    log: Mutex<EmbeddedLog>,
    taken: Mutex<Vec<RawRecord>>,
    in_flight: Mutex<BTreeSet<[u8; 16]>>,
    /// Grows when connections break, and when the log is made anew.
    term: watch::Sender<u64>,
    on_trim: Mutex<Option<OnTrim>>,
}

impl Disks {
    #[must_use]
    pub fn new(epoch: Epoch, incarnation: &str, now: Timestamp) -> Self {
        Self(Arc::new(Shared {
            log: Mutex::new(EmbeddedLog::in_memory(epoch, incarnation, now)),
            taken: Mutex::default(),
            in_flight: Mutex::default(),
            term: watch::channel(0).0,
            on_trim: Mutex::default(),
        }))
    }

    fn log(&self) -> EmbeddedLog {
        self.0.log.lock().clone()
    }

    /// Everything that the log ever took, as it was then.
    #[must_use]
    pub fn taken(&self) -> Vec<RawRecord> {
        self.0.taken.lock().clone()
    }

    pub fn set_on_trim(&self, see: OnTrim) {
        *self.0.on_trim.lock() = Some(see);
    }

    /// Breaks every connection: readers begin anew.
    pub fn break_connections(&self) {
        self.0.term.send_modify(|term| *term += 1);
    }

    /// Puts another log under the same name: a stream deleted and made again, or restored from before.
    pub fn replace(&self, log: EmbeddedLog) {
        *self.0.log.lock() = log;
        self.break_connections();
    }

    /// Takes a record, as the log's leader does.
    ///
    /// # Errors
    /// As the embedded log.
    pub async fn take(&self, append: Append) -> Result<Appended, AppendError> {
        let (log, shard) = (self.log(), append.conversation.shard());
        let appended = log.append(append).await?;
        if let Appended::New(position) = appended
            && let Ok(Some(record)) = log.get(shard, position).await
        {
            self.0.taken.lock().push(record);
        }
        Ok(appended)
    }
}

/// The log as one process reaches it.
#[derive(Clone)]
pub struct SimulatedLog {
    disks: Disks,
    process: Process,
    watched: Arc<Mutex<Watched>>,
}

/// What this process knows of the log's identity (rule P9).
struct Watched {
    incarnation: Option<String>,
    term: u64,
    /// The highest acknowledgement or watermark seen.
    seen: Position,
    fenced: Option<String>,
}

impl SimulatedLog {
    #[must_use]
    pub fn new(disks: Disks, process: Process) -> Self {
        let watched = Watched { incarnation: None, term: u64::MAX, seen: Position::START, fenced: None };
        Self { disks, process, watched: Arc::new(Mutex::new(watched)) }
    }

    /// Takes in how far the store has the log: one that ends before is not the one that was (rule P9).
    pub fn expect_at_least(&self, watermarks: &[(Shard, Position)]) {
        let mut watched = self.watched.lock();
        watched.seen = watermarks.iter().map(|(_, position)| *position).fold(watched.seen, Ord::max);
    }

    /// Reaches the log: a new connection looks whether it is still the one it was.
    async fn reach(&self) -> Result<EmbeddedLog, String> {
        self.process.travels().await;
        if self.process.faults().log.away {
            return Err("the log is away".to_owned());
        }
        let (log, term) = (self.disks.log(), *self.disks.0.term.borrow());
        if self.watched.lock().term != term {
            let slice = log.slices()[0];
            let state = log.state(slice).await.map_err(|error| error.to_string())?;
            let mut watched = self.watched.lock();
            watched.term = term;
            let known = watched.incarnation.get_or_insert_with(|| state.incarnation.clone());
            if *known != state.incarnation {
                watched.fenced = Some("the stream is another one".to_owned());
            } else if state.last < watched.seen {
                watched.fenced = Some("the stream ends before what was acknowledged".to_owned());
            }
        }
        Ok(log)
    }

    fn fenced(&self) -> Option<String> {
        self.watched.lock().fenced.clone()
    }

    async fn reach_for_reading(&self) -> Result<EmbeddedLog, ReadError> {
        let log = self.reach().await.map_err(ReadError::Unavailable)?;
        self.fenced().map_or(Ok(log), |why| Err(ReadError::Fenced(why)))
    }

    fn spawn_late(&self, append: Append, late_by: Duration) {
        let (disks, key) = (self.disks.clone(), append.duplicate_key.map(|DuplicateKey(key)| key));
        if late_by < IN_FLIGHT {
            disks.0.in_flight.lock().extend(key);
        }
        // It is on the network: it arrives whatever becomes of the process that sent it.
        tokio::spawn(async move {
            tokio::time::sleep(late_by).await;
            if let Some(key) = key {
                disks.0.in_flight.lock().remove(&key);
            }
            let _ = disks.take(append).await;
        });
    }
}

impl LogPort for SimulatedLog {
    type Reader = SimulatedReader;

    fn slices(&self) -> Vec<Slice> {
        self.disks.log().slices()
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let reached = self.reach().await;
        if let Some(why) = self.fenced() {
            return Err(AppendError::Fenced(why));
        }
        reached.map_err(AppendError::Unavailable)?;
        let faults = self.process.faults().log;
        if happens(faults.refused) {
            return Err(AppendError::Unavailable("refused".to_owned()));
        }
        if append.duplicate_key.is_some_and(|DuplicateKey(key)| self.disks.0.in_flight.lock().contains(&key))
        {
            return Err(AppendError::InFlight);
        }
        if happens(faults.late) {
            let late_by = within(&faults.late_by_ms);
            self.process.note(|| format!("an append to {:?} lands {late_by:?} late", append.conversation));
            self.spawn_late(append, late_by);
            tokio::time::sleep(NO_ANSWER).await;
            self.process.runs().await;
            return Err(AppendError::OutcomeUnknown("no answer".to_owned()));
        }
        let conversation = append.conversation;
        let outcome = self.disks.take(append).await;
        self.process.note(|| format!("append to {conversation:?}: {outcome:?}"));
        if happens(faults.unanswered) {
            self.process.note(|| "its answer is lost".to_owned());
            tokio::time::sleep(up_to(NO_ANSWER)).await;
            self.process.runs().await;
            return Err(AppendError::OutcomeUnknown("no answer".to_owned()));
        }
        self.process.travels().await;
        if let Ok(Appended::New(position) | Appended::Duplicate(position)) = outcome {
            let mut watched = self.watched.lock();
            watched.seen = watched.seen.max(position);
        }
        outcome
    }

    async fn read(
        &self,
        slice: Slice,
        shards: ShardSet,
        after: Position,
    ) -> Result<SimulatedReader, ReadError> {
        let log = self.reach_for_reading().await?;
        let inner = log.read(slice, shards, after).await?;
        self.process.note(|| format!("reads {} shards after {after}", shards.len()));
        let term = self.disks.0.term.subscribe();
        Ok(SimulatedReader { inner, process: self.process.clone(), term, ready: Vec::new() })
    }

    async fn get(&self, shard: Shard, position: Position) -> Result<Option<RawRecord>, ReadError> {
        let found = self.reach_for_reading().await?.get(shard, position).await;
        self.process.travels().await;
        found
    }

    async fn trim(&self, slice: Slice, up_to: Position) -> Result<(), ReadError> {
        let log = self.reach_for_reading().await?;
        let first = log.state(slice).await?.first;
        let gone: Vec<RawRecord> =
            self.disks.taken().into_iter().filter(|r| first <= r.position && r.position <= up_to).collect();
        self.process.note(|| format!("trims up to {up_to}, {} records", gone.len()));
        let see = self.disks.0.on_trim.lock().clone();
        if let Some(see) = see {
            see(gone).await;
        }
        log.trim(slice, up_to).await
    }

    async fn erase(&self, shard: Shard, position: Position) -> Result<(), ReadError> {
        self.process.note(|| format!("erases {position}"));
        self.reach_for_reading().await?.erase(shard, position).await
    }

    async fn state(&self, slice: Slice) -> Result<SliceState, ReadError> {
        let state = self.reach_for_reading().await?.state(slice).await;
        self.process.travels().await;
        state
    }

    async fn now(&self) -> Result<Timestamp, ReadError> {
        let now = self.reach_for_reading().await?.now().await;
        self.process.travels().await;
        now
    }
}

/// A reader whose connection may break.
pub struct SimulatedReader {
    inner: EmbeddedReader,
    process: Process,
    term: watch::Receiver<u64>,
    /// Read and not given yet: a call that is cancelled on its way back loses nothing.
    ready: Vec<RawRecord>,
}

impl LogReader for SimulatedReader {
    async fn next(&mut self, most: usize) -> Result<Vec<RawRecord>, ReadError> {
        self.process.runs().await;
        let broken = || ReadError::Unavailable("the connection broke".to_owned());
        if self.ready.is_empty() {
            let faults = self.process.faults().log;
            if faults.away || happens(faults.reset) {
                return Err(broken());
            }
            self.ready = tokio::select! {
                biased;
                _ = self.term.changed() => return Err(broken()),
                records = self.inner.next(most) => records?,
            };
        }
        self.process.travels().await;
        Ok(std::mem::take(&mut self.ready))
    }

    fn is_drained(&self) -> bool {
        self.ready.is_empty() && self.inner.is_drained()
    }
}
