//! Reading: whether a worker can read the log, told in one place. Its right to own shards hangs on it
//! (rule P3): leases are renewed over another connection than the one that records come by, so that they
//! say nothing of it.
//!
//! Reading is proven by records that came, by a reader that the log has let begin, and by an answer of the
//! log's leader while a reader stands or none is wanted. An error of a reader proves nothing by itself:
//! proof just stays away until the next reader has begun.

use super::measure::ANSWER_WITHIN;
use super::{Log, LogPort, ReadError, Slice};
use parking_lot::Mutex;
use reedi_protocol::Position;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A worker without proof for this long cannot read. With what follows (its shards are planned for others
/// within 1 s, they acquire them within 1 s and ask the edges for 0.5 s) it stays well below the 15 s after
/// which edges take themselves for deaf (rule P5).
pub const CANNOT_AFTER: Duration = Duration::from_secs(5);
/// One without proof for this long may be about to say so, and does not judge others: what it lacks they
/// may lack as well. Workers that lose the same log at the same moment differ by one look, and what an
/// answer takes.
pub const DOUBT_AFTER: Duration = Duration::from_millis(2_500);
/// How often the log's leader is asked, and how long it has to answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// How often it is judged whether proof is missing.
const JUDGE_EVERY: Duration = Duration::from_millis(500);

/// Whether a worker can read the log now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can; `since` then, if there was ever a doubt.
    Reads { since: Option<Instant> },
    /// No proof for [`DOUBT_AFTER`].
    Doubtful,
    /// No proof for [`CANNOT_AFTER`], or the log is fenced.
    Cannot,
}

impl Health {
    #[must_use]
    pub fn can_read(self) -> bool {
        self != Self::Cannot
    }
}

/// What is known of one slice.
struct Standing {
    /// The last proof, counted from before what proved it was asked for.
    proven: Instant,
    /// The last reader failed, and none has begun since: answers of the leader prove nothing.
    is_broken: bool,
    /// The worker has shards there, and reads them by itself.
    is_wanted: bool,
    is_fenced: bool,
}

impl Standing {
    fn without_proof(&self) -> Duration {
        if self.is_fenced { Duration::MAX } else { self.proven.elapsed() }
    }
}

/// Reading of one worker, of all slices: as good as that of the worst. Clones share it.
#[derive(Clone)]
pub struct Reading(Arc<Shared>);

struct Shared {
    slices: Mutex<BTreeMap<Slice, Standing>>,
    told: watch::Sender<Health>,
}

impl Default for Reading {
    fn default() -> Self {
        let told = watch::Sender::new(Health::Reads { since: None });
        Self(Arc::new(Shared { slices: Mutex::default(), told }))
    }
}

impl Reading {
    /// What the keeper of the worker's leases watches.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.told.subscribe()
    }

    /// Reading of one slice, which counts as proven now.
    #[must_use]
    pub fn of(&self, slice: Slice) -> SliceReading {
        let standing =
            Standing { proven: Instant::now(), is_broken: false, is_wanted: false, is_fenced: false };
        self.0.slices.lock().entry(slice).or_insert(standing);
        SliceReading { reading: self.clone(), slice }
    }

    fn judge(&self) {
        let without = self.0.slices.lock().values().map(Standing::without_proof).max().unwrap_or_default();
        self.0.told.send_if_modified(|told| {
            let health = match *told {
                _ if without >= CANNOT_AFTER => Health::Cannot,
                Health::Reads { .. } if without >= DOUBT_AFTER => Health::Doubtful,
                Health::Doubtful | Health::Cannot if without < DOUBT_AFTER => {
                    Health::Reads { since: Some(Instant::now()) }
                }
                same => same,
            };
            let changed = *told != health;
            *told = health;
            changed
        });
    }
}

/// Reading of one slice, as whoever reads it tells it.
#[derive(Clone)]
pub struct SliceReading {
    reading: Reading,
    slice: Slice,
}

impl SliceReading {
    #[must_use]
    pub fn slice(&self) -> Slice {
        self.slice
    }

    fn note(&self, note: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.reading.0.slices.lock().get_mut(&self.slice) {
            note(standing);
        }
        self.reading.judge();
    }

    /// Whether there are shards to read.
    pub fn wants(&self, any: bool) {
        self.note(|standing| standing.is_wanted = any);
    }

    /// The log has let a reader begin, or given records to one.
    pub fn works(&self) {
        self.note(|standing| {
            standing.is_broken = false;
            standing.proven = Instant::now();
        });
    }

    /// A reader failed or could not begin. What was trimmed is told by a log that answers.
    pub fn failed(&self, error: &ReadError) {
        self.note(|standing| match error {
            ReadError::Fenced(_) => standing.is_fenced = true,
            ReadError::Unavailable(_) => standing.is_broken = true,
            ReadError::Trimmed { .. } => {}
        });
    }

    /// Whether this slice can be read.
    #[must_use]
    pub fn can_read(&self) -> bool {
        let slices = self.reading.0.slices.lock();
        slices.get(&self.slice).is_none_or(|standing| standing.without_proof() < CANNOT_AFTER)
    }

    /// Asks the log and judges what is known, for as long as it is polled.
    pub async fn keep_looking(&self, log: &Log) {
        let looking = async {
            loop {
                self.look(log).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let judging = async {
            loop {
                tokio::time::sleep(JUDGE_EVERY).await;
                self.reading.judge();
            }
        };
        tokio::join!(looking, judging);
    }

    async fn look(&self, log: &Log) {
        let is_idle_and_broken = {
            let slices = self.reading.0.slices.lock();
            slices.get(&self.slice).is_some_and(|standing| standing.is_broken && !standing.is_wanted)
        };
        if is_idle_and_broken {
            return self.try_reading(log).await;
        }
        let asked = Instant::now();
        match timeout(LOOK_WITHIN, log.state(self.slice)).await {
            Ok(Ok(_)) => self.note(|standing| {
                if !standing.is_broken {
                    standing.proven = standing.proven.max(asked);
                }
            }),
            Ok(Err(error @ ReadError::Fenced(_))) => self.failed(&error),
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Begins to read what nobody needs: who gave all shards away would else never know that it can again.
    /// An answer alone does not tell; a leader that was cut off goes on to answer for a while.
    async fn try_reading(&self, log: &Log) {
        let (slice, nothing) = (self.slice, Position::START);
        let began = async {
            let end = log.state(slice).await.map_or(nothing, |state| state.last);
            log.read(slice, slice.shards(), end).await.map(drop)
        };
        match timeout(ANSWER_WITHIN, began).await {
            Ok(Ok(())) => self.works(),
            Ok(Err(error)) => self.failed(&error),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Slice = Slice { index: 0, count: 2 };
    const OTHER: Slice = Slice { index: 1, count: 2 };

    async fn after(reading: &Reading, time: Duration) -> Health {
        tokio::time::advance(time).await;
        reading.judge();
        *reading.health().borrow()
    }

    fn away() -> ReadError {
        ReadError::Unavailable("away".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_no_proof_doubts_and_then_cannot_read() {
        let reading = Reading::default();
        let slice = reading.of(SLICE);
        slice.works();
        slice.failed(&away());
        let just_before = DOUBT_AFTER - Duration::from_millis(1);
        assert_eq!(after(&reading, just_before).await, Health::Reads { since: None }, "an error is no proof");
        assert_eq!(after(&reading, Duration::from_millis(1)).await, Health::Doubtful);
        assert!(slice.can_read());
        assert_eq!(after(&reading, CANNOT_AFTER - DOUBT_AFTER).await, Health::Cannot);
        assert!(!slice.can_read());
        slice.works();
        assert_eq!(*reading.health().borrow(), Health::Reads { since: Some(Instant::now()) });
    }

    #[tokio::test(start_paused = true)]
    async fn the_worst_slice_counts() {
        let reading = Reading::default();
        let (slice, other) = (reading.of(SLICE), reading.of(OTHER));
        tokio::time::advance(CANNOT_AFTER).await;
        slice.works();
        assert_eq!(after(&reading, Duration::ZERO).await, Health::Cannot);
        assert!(slice.can_read() && !other.can_read());
        other.works();
        assert!(matches!(*reading.health().borrow(), Health::Reads { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_log_is_not_read_however_much_it_gave() {
        let reading = Reading::default();
        let slice = reading.of(SLICE);
        slice.failed(&ReadError::Fenced("another".to_owned()));
        assert_eq!(*reading.health().borrow(), Health::Cannot);
        slice.works();
        assert_eq!(*reading.health().borrow(), Health::Cannot);
    }
}
