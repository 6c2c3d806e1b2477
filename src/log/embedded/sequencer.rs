//! What decides: gives every record its sequence, knows duplicates and the newest control events.
//! Pure but for the clock it is given.

use crate::domain::send_key::DuplicateKey;
use crate::log::{Append, AppendError, DUPLICATE_WINDOW_MS, Lane, RawRecord};
use crate::runtime::trace_context::TraceContext;
use bytes::Bytes;
use parking_lot::Mutex;
use reedi_protocol::{ConversationKey, Position, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes of payload kept in memory for readers at the tail; older ones are read from disk.
const RECENT_BYTES: usize = 64 << 20;

type Tell = oneshot::Sender<Result<(), String>>;

/// Appends that repeated one which was not durable yet, by its sequence.
pub(super) type Waiters = Arc<Mutex<HashMap<u64, Vec<Tell>>>>;

/// A record on its way to the disk, and who waits for it.
pub(super) struct Commit {
    pub record: StoredRecord,
    pub tell: Option<Tell>,
    pub also: Waiters,
}

impl Commit {
    pub fn tell(self, outcome: Result<(), String>) {
        let others = self.also.lock().remove(&self.record.position.sequence()).unwrap_or_default();
        for waiter in self.tell.into_iter().chain(others) {
            // Whoever stopped waiting asks again with the same key.
            let _ = waiter.send(outcome.clone());
        }
    }
}

/// A record with its duplicate key, as it goes to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRecord {
    pub position: Position,
    pub log_time: Timestamp,
    pub conversation: ConversationKey,
    pub is_control: bool,
    pub duplicate_key: Option<DuplicateKey>,
    pub traceparent: Option<TraceContext>,
    pub payload: Bytes,
}

impl StoredRecord {
    pub fn raw(&self) -> RawRecord {
        RawRecord {
            position: self.position,
            log_time: self.log_time,
            conversation: self.conversation,
            is_control: self.is_control,
            payload: self.payload.clone(),
            traceparent: self.traceparent,
        }
    }
}

pub(super) enum Taken {
    New(StoredRecord),
    Known { sequence: u64, durable: bool },
}

pub(super) struct Sequencer {
    last: u64,
    first: u64,
    durable: u64,
    last_time: Timestamp,
    controls: HashMap<ConversationKey, u64>,
    duplicates: HashMap<DuplicateKey, u64>,
    duplicates_by_age: VecDeque<(Timestamp, DuplicateKey)>,
    recent: VecDeque<RawRecord>,
    recent_bytes: usize,
    recent_bounded: bool,
    waiters: Waiters,
    poisoned: Option<String>,
}

impl Sequencer {
    pub fn new(now: Timestamp) -> Self {
        Self {
            last: 0,
            first: 1,
            durable: 0,
            last_time: now,
            controls: HashMap::new(),
            duplicates: HashMap::new(),
            duplicates_by_age: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bounded: false,
            waiters: Waiters::default(),
            poisoned: None,
        }
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    pub fn waiters(&self) -> Waiters {
        self.waiters.clone()
    }

    /// Learns a record that stood on disk.
    pub fn recover(&mut self, record: StoredRecord) {
        self.last = record.position.sequence();
        self.durable = self.last;
        self.learn(&record);
        self.remember(record.raw());
    }

    /// All that stood on disk has been learnt; from here on the disk has what memory forgets.
    pub fn recovered(&mut self, first: u64) {
        self.first = first.max(1);
        self.recent_bounded = true;
        self.forget_surplus();
    }

    fn learn(&mut self, record: &StoredRecord) {
        let sequence = record.position.sequence();
        self.last_time = self.last_time.max(record.log_time);
        if record.is_control {
            self.controls.insert(record.conversation, sequence);
        }
        if let Some(key) = record.duplicate_key {
            self.duplicates.insert(key, sequence);
            self.duplicates_by_age.push_back((record.log_time, key));
        }
        self.forget_duplicates();
    }

    fn forget_duplicates(&mut self) {
        while let Some((time, key)) = self.duplicates_by_age.front() {
            if time.plus_millis(DUPLICATE_WINDOW_MS) >= self.last_time {
                break;
            }
            self.duplicates.remove(key);
            self.duplicates_by_age.pop_front();
        }
    }

    /// Decides about one append: its place, a duplicate, or a refusal.
    pub fn take(
        &mut self,
        append: Append,
        now: Timestamp,
        position: impl Fn(u64) -> Position,
        sequence: impl Fn(Position) -> u64,
    ) -> Result<Taken, AppendError> {
        if let Some(error) = &self.poisoned {
            return Err(AppendError::Unavailable(error.clone()));
        }
        self.last_time = self.last_time.max(now);
        self.forget_duplicates();
        if let Some(known) = append.duplicate_key.and_then(|key| self.duplicates.get(&key)) {
            return Ok(Taken::Known { sequence: *known, durable: *known <= self.durable });
        }
        if let Lane::Control { expected } = append.lane {
            let stands = self.controls.get(&append.conversation).copied().unwrap_or(0);
            if stands != sequence(expected) {
                let stands = if stands == 0 { Position::START } else { position(stands) };
                return Err(AppendError::ControlMoved(Some(stands)));
            }
        }
        self.last += 1;
        let record = StoredRecord {
            position: position(self.last),
            log_time: self.last_time,
            conversation: append.conversation,
            is_control: append.lane != Lane::Event,
            duplicate_key: append.duplicate_key,
            traceparent: append.traceparent,
            payload: append.payload,
        };
        self.learn(&record);
        Ok(Taken::New(record))
    }

    /// A commit of this sequence is on its way: repeats may wait for it.
    pub fn waiting(&self, sequence: u64) {
        self.waiters.lock().insert(sequence, Vec::new());
    }

    /// Tells this waiter too, when `sequence` is on disk.
    pub fn also_tell(&self, sequence: u64, tell: Tell) {
        match self.waiters.lock().get_mut(&sequence) {
            Some(waiting) => waiting.push(tell),
            // Decided in between: on disk.
            None => drop(tell.send(Ok(()))),
        }
    }

    pub fn committed(&mut self, records: impl Iterator<Item = StoredRecord>) {
        for record in records {
            self.durable = record.position.sequence();
            self.remember(record.raw());
        }
        self.forget_surplus();
    }

    pub fn poison(&mut self, error: String) {
        self.poisoned = Some(error);
    }

    fn remember(&mut self, record: RawRecord) {
        self.recent_bytes += record.payload.len();
        self.recent.push_back(record);
        if self.recent_bounded || self.recent.len() > 1 << 20 {
            self.forget_surplus();
        }
    }

    fn forget_surplus(&mut self) {
        while self.recent_bounded && self.recent_bytes > RECENT_BYTES {
            match self.recent.pop_front() {
                Some(record) => self.recent_bytes -= record.payload.len(),
                None => self.recent_bytes = 0,
            }
        }
    }

    /// Records after `after` from memory; `None` where the disk must be read.
    pub fn recent_after(&self, after: u64, most: usize) -> Option<Vec<RawRecord>> {
        let Some(front) = self.recent.front() else { return (after >= self.durable).then(Vec::new) };
        let front = front.position.sequence();
        if after + 1 < front {
            return None;
        }
        let skip = (after + 1 - front) as usize;
        Some(self.recent.iter().skip(skip).take(most).cloned().collect())
    }

    /// Forgets everything up to and including `sequence`; gives the first that is kept.
    pub fn trim(&mut self, sequence: u64) -> u64 {
        self.first = self.first.max(sequence + 1);
        while self.recent.front().is_some_and(|r| r.position.sequence() < self.first) {
            if let Some(record) = self.recent.pop_front() {
                self.recent_bytes -= record.payload.len();
            }
        }
        let first = self.first;
        self.controls.retain(|_, control| *control >= first);
        self.first
    }

    pub fn erase(&mut self, sequence: u64) {
        let Some(front) = self.recent.front().map(|r| r.position.sequence()) else { return };
        if let Some(record) = sequence.checked_sub(front).and_then(|i| self.recent.get_mut(i as usize)) {
            self.recent_bytes -= record.payload.len();
            record.payload = Bytes::new();
        }
    }
}
