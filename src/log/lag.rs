//! Lag: how far a worker is behind the end of a slice of the log, told by shard. Looked at apart from the
//! work itself, because it matters most where the work stands still.

use super::measure::ANSWER_WITHIN;
use super::{Log, LogPort, RawRecord, ShardSet, Slice};
use crate::runtime::clock::LogClock;
use crate::runtime::metrics::Metrics;
use parking_lot::Mutex;
use reedi_protocol::{Position, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked: a question to each stream's leader.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How far one worker is with one slice. Clones share it.
#[derive(Clone, Default)]
pub struct Lag(Arc<Mutex<Standing>>);

#[derive(Default)]
struct Standing {
    shards: ShardSet,
    /// Everything of these shards up to here is done.
    done: Position,
    /// Everything of them that the log took before this is done; `None` while nobody knows.
    done_at: Option<Timestamp>,
    /// Nothing is in hand, and the log had nothing more when it gave the last.
    idle: bool,
    /// The end of the slice at the last look, and when that was, if it has been idle since. Who is so at the next has
    /// everything up to there: what was there at this look may still be on its way.
    looked: Option<(Position, Timestamp)>,
}

impl Standing {
    /// What comes from here on is not in hand at once.
    fn becomes_busy(&mut self) {
        (self.idle, self.looked) = (false, None);
    }
}

/// What is told of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    shards: ShardSet,
    behind: u64,
    oldest: Option<Duration>,
}

impl Lag {
    /// Reading begins, of `shards` from after `done`.
    pub fn begins(&self, shards: ShardSet, done: Position, drained: bool) {
        let mut standing = self.0.lock();
        if standing.shards != shards {
            *standing = Standing { shards, ..Standing::default() };
        }
        standing.done = standing.done.max(done);
        standing.idle = drained;
    }

    /// Records came and are in hand.
    pub fn has_in_hand(&self, records: &[RawRecord]) {
        let mut standing = self.0.lock();
        standing.becomes_busy();
        if let Some(first) = records.first() {
            standing.done_at = standing.done_at.or(Some(first.log_time));
        }
    }

    /// Everything up to `last`, which the log took at `time`, is done. `drained`: the log had no more.
    pub fn is_done(&self, last: Position, time: Timestamp, drained: bool) {
        let mut standing = self.0.lock();
        standing.done = standing.done.max(last);
        standing.done_at = standing.done_at.max(Some(time));
        standing.idle = drained;
    }

    /// Nothing is read for a while: what comes is not in hand.
    pub fn pauses(&self) {
        self.0.lock().becomes_busy();
    }

    /// Nothing is in hand, and more is waited for. `drained`: the log had no more when it gave the last.
    pub fn waits(&self, drained: bool) {
        self.0.lock().idle = drained;
    }

    /// Reading is interrupted; `shards` are what will be read next.
    pub fn stops(&self, shards: ShardSet) {
        let mut standing = self.0.lock();
        standing.becomes_busy();
        if standing.shards != shards {
            *standing = Standing { shards, ..Standing::default() };
        }
    }

    /// Compares with the end of the slice, which was there at `now`.
    fn look(&self, end: Position, now: Timestamp) -> Seen {
        let mut standing = self.0.lock();
        if standing.idle {
            if let Some((end, then)) = standing.looked.replace((end, now)) {
                standing.done = standing.done.max(end);
                standing.done_at = standing.done_at.max(Some(then));
            }
            return Seen { shards: standing.shards, behind: 0, oldest: Some(Duration::ZERO) };
        }
        let behind = match standing.done.epoch() == end.epoch() {
            true => end.sequence().saturating_sub(standing.done.sequence()),
            false if standing.done > end => 0,
            false => end.sequence(),
        };
        let since = |at: Timestamp| Duration::from_millis(now.as_millis().saturating_sub(at.as_millis()));
        let oldest = if behind == 0 { Some(Duration::ZERO) } else { standing.done_at.map(since) };
        Seen { shards: standing.shards, behind, oldest }
    }

    /// Tells it for as long as it is polled.
    pub async fn tell(self, log: Log, slice: Slice, metrics: Metrics, role: Role) {
        let mut told = ShardSet::default();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Ok(Ok(state)) = tokio::time::timeout(ANSWER_WITHIN, log.state(slice)).await else { continue };
            let seen = self.look(state.last, role.now());
            for shard in told.iter().filter(|shard| !seen.shards.contains(*shard)) {
                metrics.forget_shard(role.name(), shard);
            }
            told = seen.shards;
            // Also by one that holds no shard, lest it goes on telling how full the log was when it held one.
            if matches!(role, Role::Writer(_)) {
                metrics.set_log_fill(slice.index, state.fill_percent);
            }
            for shard in told.iter() {
                metrics.set_lag(role.name(), shard, seen.behind);
                if let (Role::Writer(_), Some(age)) = (&role, seen.oldest) {
                    metrics.set_watermark_age(shard, age);
                }
            }
        }
    }
}

/// Whose lag it is. A writer's has an age by its clock.
#[derive(Clone, Debug)]
pub enum Role {
    Delivery,
    Writer(LogClock),
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Writer(_) => "writer",
        }
    }

    fn now(&self) -> Timestamp {
        match self {
            Self::Delivery => Timestamp::default(),
            Self::Writer(clock) => clock.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::EmbeddedLog;
    use bytes::Bytes;
    use reedi_protocol::{ConversationKey, Epoch, Shard};

    fn at(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    fn time(s: u64) -> Timestamp {
        Timestamp::from_millis(s * 1_000)
    }

    fn record(sequence: u64, s: u64) -> RawRecord {
        RawRecord {
            position: at(sequence),
            log_time: time(s),
            conversation: ConversationKey::from_u64(1),
            is_control: false,
            payload: Bytes::new(),
            traceparent: None,
        }
    }

    fn seen(lag: &Lag, end: u64, now: u64) -> (u64, Option<u64>) {
        let seen = lag.look(at(end), time(now));
        (seen.behind, seen.oldest.map(|age| age.as_secs()))
    }

    #[test]
    fn who_waits_for_records_is_not_behind_however_much_comes_for_others() {
        let lag = Lag::default();
        lag.begins([Shard(1)].into_iter().collect(), at(10), false);
        lag.has_in_hand(&[record(11, 100)]);
        lag.is_done(at(11), time(100), true);
        assert_eq!(seen(&lag, 500, 200), (0, Some(0)), "none of these was of its shards");
        assert_eq!(seen(&lag, 505, 202), (0, Some(0)));
        lag.has_in_hand(&[record(506, 203)]);
        assert_eq!(seen(&lag, 510, 204), (10, Some(4)), "all before the last look but one is done");
    }

    /// What the log took just before a look comes in hand just after it. It counted as done for as long as the store was
    /// away.
    #[test]
    fn what_is_on_its_way_at_a_look_is_not_done() {
        let lag = Lag::default();
        lag.begins([Shard(1)].into_iter().collect(), at(10), true);
        seen(&lag, 10, 198);
        assert_eq!(seen(&lag, 13, 200), (0, Some(0)), "nobody knows of them yet");
        lag.has_in_hand(&[record(11, 200), record(13, 200)]);
        assert_eq!(seen(&lag, 13, 202), (3, Some(4)));
    }

    /// The writer erases, the store is away, and nobody reads what comes meanwhile.
    #[test]
    fn who_does_something_else_is_not_waiting() {
        let lag = Lag::default();
        lag.begins([Shard(1)].into_iter().collect(), at(10), true);
        seen(&lag, 10, 198);
        seen(&lag, 10, 200);
        lag.pauses();
        assert_eq!(seen(&lag, 13, 202), (3, Some(4)));
        assert_eq!(seen(&lag, 13, 204), (3, Some(6)));
        lag.waits(true);
        assert_eq!(seen(&lag, 13, 206), (0, Some(0)));
        lag.has_in_hand(&[record(13, 201)]);
        assert_eq!(seen(&lag, 13, 208), (3, Some(10)), "one look does not tell what is done");
    }

    #[test]
    fn who_stands_still_falls_behind() {
        let lag = Lag::default();
        let shards: ShardSet = [Shard(1)].into_iter().collect();
        lag.begins(shards, at(10), false);
        assert_eq!(seen(&lag, 30, 200), (20, None), "how old nobody knows yet");
        lag.has_in_hand(&[record(12, 150), record(20, 160)]);
        assert_eq!(seen(&lag, 30, 200), (20, Some(50)));
        // The store went away: reading begins anew, and what is known stays known.
        lag.stops(shards);
        lag.begins(shards, at(10), false);
        assert_eq!(seen(&lag, 40, 300), (30, Some(150)));
        lag.is_done(at(20), time(160), false);
        assert_eq!(seen(&lag, 40, 300), (20, Some(140)));
        // Other shards are another story.
        lag.stops([Shard(2)].into_iter().collect());
        assert_eq!(seen(&lag, 40, 300), (40, None));
    }

    /// One that had given up its last shard went on telling how full the log was when it held it.
    #[tokio::test]
    async fn a_writer_without_shards_tells_how_full_the_log_is() {
        let folder = std::env::temp_dir().join(format!("reedi-lag-{:016x}", rand::random::<u64>()));
        let log = Log::Embedded(EmbeddedLog::open(&folder, Epoch::FIRST).unwrap());
        let (slice, metrics) = (log.slices()[0], Metrics::new());
        metrics.set_log_fill(slice.index, 95);
        let telling = Lag::default().tell(log, slice, metrics.clone(), Role::Writer(LogClock::from_system()));
        let told = async {
            while !metrics.encode().contains("reedi_log_fill_percent{slice=\"0\"} 0\n") {
                // sleeps: between two looks at what is told
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = telling => unreachable!("it tells for ever"),
            told = tokio::time::timeout(LOOK_EVERY * 10, told) => told.expect("it is told"),
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}
