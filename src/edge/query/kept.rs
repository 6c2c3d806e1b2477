//! Since where the events of a shard are all there: they live for a time, and a position says none. The writer
//! notes the first position of each day (ADR 0034).

use super::behind;
use crate::domain::retention::EVENTS_TTL_S;
use crate::edge::Edge;
use crate::store::{Range, StoreResult, Watermarks as _};
use parking_lot::Mutex;
use reedi_protocol::{Position, Shard, Timestamp};
use std::collections::HashMap;

/// What is counted on to be there ends this much sooner than it does, in milliseconds: clocks are apart, the log's
/// steps back a little when its leader changes, and a replay takes its time.
const SLACK_MS: u64 = 3_600 * 1_000;

/// The events of one shard that are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// From here on, this position included, no event has ended.
    from: Position,
    /// When the log took what stands there.
    time: Timestamp,
}

/// What was last read, by shard. What it says of a shard stays true until its time has come.
#[derive(Default)]
pub struct KeptBook(Mutex<HashMap<Shard, Kept>>);

/// Of the first positions of days, oldest first, the first one that no event after it can have ended of.
fn first_kept(days: &[(Position, Timestamp)], now: Timestamp) -> Option<Kept> {
    let since = oldest(now);
    days.iter().find(|(_, time)| *time >= since).map(|(from, time)| Kept { from: *from, time: *time })
}

fn oldest(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_sub(u64::from(EVENTS_TTL_S) * 1_000 - SLACK_MS))
}

impl Edge {
    /// From which position on all events of `shard` are there. Where nothing is known that is beyond all there is. It may
    /// be later than it could be, but not where it could be `after` or the next.
    ///
    /// # Errors
    /// The store is away.
    pub(in crate::edge) async fn kept_from(&self, shard: Shard, after: Position) -> StoreResult<Position> {
        let now = self.clock.now();
        let known = self.kept.0.lock().get(&shard).copied();
        match known.filter(|kept| kept.time >= oldest(now) && kept.from <= behind(after)) {
            Some(kept) => Ok(kept.from),
            None => {
                let kept = first_kept(&self.store.first_of_days(shard).await?, now);
                if let Some(kept) = kept {
                    self.kept.0.lock().insert(shard, kept);
                }
                Ok(kept.map_or(Range::END, |kept| kept.from))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::Epoch;

    const DAY_MS: u64 = 24 * 3_600 * 1_000;

    #[test]
    fn the_oldest_day_within_the_time_that_events_live_counts() {
        let place = |n| Position::new(Epoch::FIRST, n).unwrap();
        let day = |n: u64| Timestamp::from_millis(n * DAY_MS);
        let days: Vec<_> = (1..=40).map(|n| (place(n), day(n))).collect();
        let from = |now| first_kept(&days, now).map(|kept| kept.from);
        assert_eq!(from(day(20)), Some(place(1)));
        assert_eq!(from(day(35)), Some(place(6)), "the fifth day is ending now");
        assert_eq!(from(day(69)), Some(place(40)));
        assert_eq!(from(day(70)), None);
        assert_eq!(first_kept(&[], day(1)), None);
    }
}
