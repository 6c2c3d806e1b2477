//! The embedded log: append-only segments on the local disk, synced in groups. In memory, the same
//! sequencer without a disk, for the simulation.

mod erasure;
mod reader;
mod segment;
mod sequencer;

pub use reader::EmbeddedReader;

use super::{Append, AppendError, Appended, LogPort, RawRecord, ReadError, ShardSet, Slice, SliceState};
use parking_lot::Mutex;
use reedi_protocol::{Epoch, Position, Shard, Timestamp};
use segment::Segments;
use sequencer::{Commit, Sequencer, Taken};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Records that one group commit takes at most: bounds the latency of the first of them.
const GROUP_MOST: usize = 4_096;
/// The least time from one group to the next: a sync costs some 60 us of CPU whatever it takes with it, and
/// one for each record would be most of what a message costs. A record that comes alone does not wait.
const GROUP_EVERY: Duration = Duration::from_millis(2);

/// Cheap to clone; clones share the log.
#[derive(Clone)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    epoch: Epoch,
    incarnation: String,
    sequencer: Mutex<Sequencer>,
    /// The last sequence that is on disk; readers wait for it.
    durable: watch::Sender<u64>,
    /// To the thread that writes; `None` in memory.
    commits: Option<Sender<Commit>>,
    segments: Option<Arc<Mutex<Segments>>>,
    clock: LogTime,
    /// Held for as long as the log is open.
    lock: Option<File>,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the log in {path} cannot be read or written: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the log in {path} is in use: is another server running on the same folder?")]
    InUse { path: String },
    #[error(
        "the log in {path} is damaged at byte {at}: restore it from a backup, or move the folder away to begin anew"
    )]
    Damaged { path: String, at: u64 },
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.display().to_string(), source }
}

/// The log's clock: never runs backwards, and can be paused with tokio's. One on a disk goes forward with the system's
/// clock: the monotonic one stands still while a machine is suspended.
struct LogTime {
    base: Mutex<(Timestamp, Instant)>,
    follows_system: bool,
}

impl LogTime {
    fn starting_at(time: Timestamp, follows_system: bool) -> Self {
        Self { base: Mutex::new((time, Instant::now())), follows_system }
    }

    fn now(&self) -> Timestamp {
        self.at(if self.follows_system { system_now() } else { Timestamp::from_millis(0) })
    }

    /// What time it is where the system's clock shows `system`.
    fn at(&self, system: Timestamp) -> Timestamp {
        let mut base = self.base.lock();
        let (time, now) = (base.0, Instant::now());
        let time = time.plus_millis(now.duration_since(base.1).as_millis() as u64);
        if system <= time {
            return time;
        }
        *base = (system, now);
        system
    }
}

fn system_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as u64)
}

impl EmbeddedLog {
    /// Opens or makes the log in `folder`. A record half written when the machine stopped was never
    /// acknowledged and is cut off.
    ///
    /// # Errors
    /// The folder cannot be used, or what is in it is damaged before its end.
    pub fn open(folder: &Path, epoch: Epoch) -> Result<Self, OpenError> {
        std::fs::create_dir_all(folder).map_err(io_error(folder))?;
        let lock = lock(folder)?;
        let incarnation = incarnation(folder).map_err(io_error(folder))?;
        let mut sequencer = Sequencer::new(system_now());
        let segments = Segments::open(folder, |record| sequencer.recover(record))?;
        sequencer.recovered(segments.first_sequence());
        let segments = Arc::new(Mutex::new(segments));
        let (commits, queue) = channel();
        let mut log = Self::assemble(epoch, incarnation, sequencer, Some(commits), Some(segments.clone()));
        if let Some(shared) = Arc::get_mut(&mut log.shared) {
            shared.lock = Some(lock);
        }
        let shared = Arc::downgrade(&log.shared);
        std::thread::Builder::new()
            .name("reedi-log".into())
            .spawn(move || write_groups(&queue, &segments, &shared))
            .map_err(io_error(folder))?;
        Ok(log)
    }

    /// A log that is gone with the process.
    #[must_use]
    pub fn in_memory(epoch: Epoch, incarnation: &str, now: Timestamp) -> Self {
        Self::assemble(epoch, incarnation.to_owned(), Sequencer::new(now), None, None)
    }

    fn assemble(
        epoch: Epoch,
        incarnation: String,
        sequencer: Sequencer,
        commits: Option<Sender<Commit>>,
        segments: Option<Arc<Mutex<Segments>>>,
    ) -> Self {
        let follows_system = segments.is_some();
        let clock = LogTime::starting_at(sequencer.last_time(), follows_system);
        let (durable, _) = watch::channel(sequencer.last());
        let sequencer = Mutex::new(sequencer);
        let shared = Shared { epoch, incarnation, sequencer, durable, commits, segments, clock, lock: None };
        Self { shared: Arc::new(shared) }
    }
}

/// One process at a time: two would write over each other.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let file = File::create(folder.join("lock")).map_err(io_error(folder))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: folder.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(io_error(folder)(error)),
    }
}

fn incarnation(folder: &Path) -> std::io::Result<String> {
    let path = folder.join("incarnation");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let fresh = uuid::Uuid::new_v4().to_string();
            std::fs::write(&path, &fresh)?;
            Ok(fresh)
        }
        Err(e) => Err(e),
    }
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn position(&self, sequence: u64) -> Position {
        Position::new(self.epoch, sequence).unwrap_or(Position::START)
    }

    /// The sequence that `position` stands for here: of an older epoch, before all of ours.
    fn sequence(&self, position: Position) -> u64 {
        match position.epoch() {
            Some(epoch) if epoch == self.epoch => position.sequence(),
            Some(epoch) if epoch > self.epoch => u64::MAX,
            _ => 0,
        }
    }
}

/// Takes what waits, writes it, syncs once, tells all; then lets more gather. Ends with the log.
fn write_groups(queue: &Receiver<Commit>, segments: &Mutex<Segments>, shared: &std::sync::Weak<Shared>) {
    let mut next = std::time::Instant::now();
    while let Ok(first) = queue.recv() {
        std::thread::sleep(next.saturating_duration_since(std::time::Instant::now()));
        next = std::time::Instant::now() + GROUP_EVERY;
        let group: Vec<Commit> =
            std::iter::once(first).chain(queue.try_iter().take(GROUP_MOST - 1)).collect();
        let written = {
            let mut segments = segments.lock();
            segments.append(group.iter().map(|commit| &commit.record))
        };
        let Some(shared) = shared.upgrade() else { return };
        let told = match written {
            Ok(()) => {
                let last = group.last().map_or(0, |commit| commit.record.position.sequence());
                shared.sequencer.lock().committed(group.iter().map(|c| c.record.clone()));
                shared.durable.send_replace(last);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be written; nothing is accepted until the disk is well and the process restarted");
                shared.sequencer.lock().poison(error.to_string());
                Err(error.to_string())
            }
        };
        // Let go before telling: whoever hears of the last commit may close the log and open it anew.
        drop(shared);
        for commit in group {
            commit.tell(told.clone());
        }
    }
}

impl LogPort for EmbeddedLog {
    type Reader = EmbeddedReader;

    fn slices(&self) -> Vec<Slice> {
        vec![Slice { index: 0, count: 1 }]
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let (tell, told) = oneshot::channel();
        let outcome = {
            let mut sequencer = self.shared.sequencer.lock();
            let taken = sequencer.take(
                append,
                self.shared.now(),
                |s| self.shared.position(s),
                |p| self.shared.sequence(p),
            )?;
            match taken {
                Taken::Known { sequence, durable: true } => {
                    return Ok(Appended::Duplicate(self.shared.position(sequence)));
                }
                Taken::Known { sequence, durable: false } => {
                    sequencer.also_tell(sequence, tell);
                    Appended::Duplicate(self.shared.position(sequence))
                }
                Taken::New(record) => {
                    let outcome = Appended::New(record.position);
                    match &self.shared.commits {
                        Some(commits) => {
                            sequencer.waiting(record.position.sequence());
                            // Sent under the lock, so that the file has the order of the sequence.
                            commits
                                .send(Commit { record, tell: Some(tell), also: sequencer.waiters() })
                                .map_err(|_| AppendError::Unavailable("the log has stopped".into()))?;
                        }
                        None => {
                            let sequence = record.position.sequence();
                            sequencer.committed(std::iter::once(record));
                            self.shared.durable.send_replace(sequence);
                            return Ok(outcome);
                        }
                    }
                    outcome
                }
            }
        };
        match told.await {
            Ok(Ok(())) => Ok(outcome),
            Ok(Err(error)) => Err(AppendError::OutcomeUnknown(error)),
            Err(_) => Err(AppendError::OutcomeUnknown("the log has stopped".into())),
        }
    }

    async fn read(&self, _: Slice, shards: ShardSet, after: Position) -> Result<EmbeddedReader, ReadError> {
        let from = self.shared.sequence(after);
        let first = self.shared.sequencer.lock().first();
        if from + 1 < first {
            return Err(ReadError::Trimmed { asked: after, first: self.shared.position(first) });
        }
        EmbeddedReader::begin(self.shared.clone(), shards, from).await
    }

    async fn get(&self, _: Shard, position: Position) -> Result<Option<RawRecord>, ReadError> {
        let sequence = self.shared.sequence(position);
        let first = self.shared.sequencer.lock().first();
        if sequence < first || sequence > *self.shared.durable.borrow() {
            return Ok(None);
        }
        let found = reader::records_after(&self.shared, sequence - 1, 1).await?;
        Ok(found.into_iter().find(|r| r.position == position && !r.payload.is_empty()))
    }

    async fn trim(&self, _: Slice, up_to: Position) -> Result<(), ReadError> {
        let sequence = self.shared.sequence(up_to).min(*self.shared.durable.borrow());
        let first = self.shared.sequencer.lock().trim(sequence);
        if let Some(segments) = &self.shared.segments {
            segments.lock().trim(first).map_err(|e| ReadError::Unavailable(e.to_string()))?;
        }
        Ok(())
    }

    async fn erase(&self, _: Shard, position: Position) -> Result<(), ReadError> {
        let sequence = self.shared.sequence(position);
        self.shared.sequencer.lock().erase(sequence);
        if let Some(segments) = &self.shared.segments {
            segments.lock().erase(sequence).map_err(|e| ReadError::Unavailable(e.to_string()))?;
        }
        Ok(())
    }

    async fn state(&self, _: Slice) -> Result<SliceState, ReadError> {
        let sequencer = self.shared.sequencer.lock();
        let last = *self.shared.durable.borrow();
        Ok(SliceState {
            epoch: self.shared.epoch,
            incarnation: self.shared.incarnation.clone(),
            first: self.shared.position(sequencer.first()),
            last: if last == 0 { Position::START } else { self.shared.position(last) },
            fill_percent: 0,
        })
    }

    async fn now(&self) -> Result<Timestamp, ReadError> {
        Ok(self.shared.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn its_time_goes_forward_with_the_systems_and_never_back() {
        let at = Timestamp::from_millis;
        let time = LogTime::starting_at(at(1_000_000), true);
        assert_eq!(time.at(at(900_000)), at(1_000_000), "what it has is later than the system's clock");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(time.at(at(901_000)), at(1_001_000));
        // Suspended: the monotonic clock stood still.
        assert_eq!(time.at(at(30_000_000)), at(30_000_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(time.at(at(1_000_000)), at(30_001_000), "the system's clock was set back");
    }

    #[tokio::test]
    async fn a_log_on_a_disk_goes_by_the_systems_clock_and_one_in_memory_by_its_own() {
        let folder = std::env::temp_dir().join(format!("reedi-log-time-{}", uuid::Uuid::new_v4()));
        let log = EmbeddedLog::open(&folder, Epoch::FIRST).unwrap();
        // As after a night in which the monotonic clock stood still.
        log.shared.clock.base.lock().0 = Timestamp::from_millis(1_000_000);
        let before = system_now();
        assert!(log.now().await.unwrap() >= before);
        drop(log);
        std::fs::remove_dir_all(&folder).unwrap();
        let log = EmbeddedLog::in_memory(Epoch::FIRST, "a", Timestamp::from_millis(1_000_000));
        assert!(log.now().await.unwrap() < before);
    }
}
