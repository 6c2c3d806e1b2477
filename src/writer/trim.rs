//! Trim: the log forgets what the store has, a day later (rule P2).

use super::Writer;
use crate::domain::retention::LOG_KEEPS_MS;
use crate::log::{LogPort, ReadError, Slice};
use crate::ownership::keep::Owned;
use crate::runtime::shutdown::Shutdown;
use crate::store::Watermarks as _;
use reedi_protocol::{Position, Shard, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(60);
/// The log is trimmed once it keeps this much longer than it must, so that looking is mostly one
/// question.
const SLACK_MS: u64 = 600_000;
/// Places looked at beside one whose record was erased, before it counts as young.
const BESIDE: u64 = 16;

/// Trims every slice whose first shard this writer owns, until the process leaves.
pub async fn run(writer: Writer, owned: watch::Receiver<Owned>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.draining() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for slice in writer.log.slices() {
            let leads =
                slice.shards().iter().next().is_some_and(|first| owned.borrow().generation(first).is_some());
            if leads && let Err(error) = look(&writer, slice).await {
                tracing::warn!(error, "the log could not be trimmed");
            }
        }
    }
}

/// Trims one slice up to the last record that every shard has stored and that is old enough.
async fn look(writer: &Writer, slice: Slice) -> Result<(), String> {
    let text = |error: ReadError| error.to_string();
    let stored = writer.store.watermarks().await.map_err(|e| e.to_string())?;
    let stored: BTreeMap<Shard, Position> = stored.into_iter().collect();
    let state = writer.log.state(slice).await.map_err(text)?;
    let shards = slice.shards();
    let lowest = shards.iter().map(|shard| stored.get(&shard).copied().unwrap_or_default()).min();
    let lowest = lowest.unwrap_or_default();
    let now_ms = writer.clock.now().as_millis();
    let until = |kept_ms: u64| Timestamp::from_millis(now_ms.saturating_sub(kept_ms));
    if !is_older(writer, slice, state.first, until(LOG_KEEPS_MS + SLACK_MS)).await.map_err(text)? {
        return Ok(());
    }
    match newest_older(writer, slice, (state.first, lowest), until(LOG_KEEPS_MS)).await.map_err(text)? {
        Some(up_to) => writer.log.trim(slice, up_to).await.map_err(text),
        None => Ok(()),
    }
}

/// Whether the record at `position`, or the next that is there, was taken before `time`.
async fn is_older(
    writer: &Writer,
    slice: Slice,
    position: Position,
    time: Timestamp,
) -> Result<bool, ReadError> {
    let Some(shard) = slice.shards().iter().next() else { return Ok(false) };
    for beside in 0..BESIDE {
        let Some(place) = Position::from_u64(position.as_u64() + beside) else { return Ok(false) };
        if let Some(record) = writer.log.get(shard, place).await? {
            return Ok(record.log_time < time);
        }
    }
    Ok(false)
}

/// The last position from `first` to `last` whose record was taken before `time`, by halving.
async fn newest_older(
    writer: &Writer,
    slice: Slice,
    (first, last): (Position, Position),
    time: Timestamp,
) -> Result<Option<Position>, ReadError> {
    if last < first || !is_older(writer, slice, first, time).await? {
        return Ok(None);
    }
    let (mut older, mut end) = (first.as_u64(), last.as_u64());
    while older < end {
        let middle = older + (end - older).div_ceil(2);
        let Some(position) = Position::from_u64(middle) else { break };
        if is_older(writer, slice, position, time).await? {
            older = middle;
        } else {
            end = middle - 1;
        }
    }
    Ok(Position::from_u64(older))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::EmbeddedLog;
    use crate::log::reading::Reading;
    use crate::log::tick::tick;
    use crate::log::{Log, ShardSet};
    use crate::runtime::clock::LogClock;
    use crate::runtime::metrics::Metrics;
    use crate::store::Store;
    use crate::store::embedded::EmbeddedStore;
    use reedi_protocol::Epoch;

    async fn ticks(writer: &Writer, count: usize) {
        for _ in 0..count {
            writer.log.append(tick(Shard(7), &writer.clock)).await.unwrap();
        }
    }

    async fn store_up_to(writer: &Writer, position: Position) {
        let all: Vec<_> = ShardSet::all().iter().map(|shard| (shard, position)).collect();
        writer.store.advance(&all).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stored_and_a_day_old_goes_and_nothing_else() {
        let begin = Timestamp::from_millis(1_700_000_000_000);
        let clock = LogClock::starting_at(begin);
        let writer = Writer {
            log: Log::Embedded(EmbeddedLog::in_memory(Epoch::FIRST, "a", begin)),
            store: Store::Embedded(EmbeddedStore::in_memory(LogClock::from_system())),
            clock,
            metrics: Metrics::new(),
            reading: Reading::default(),
            erase_after: crate::writer::erase::AFTER,
        };
        let slice = writer.log.slices()[0];
        let at = |n| Position::new(Epoch::FIRST, n).unwrap();
        ticks(&writer, 10).await;
        tokio::time::advance(Duration::from_secs(23 * 3_600)).await;
        ticks(&writer, 10).await;
        store_up_to(&writer, at(5)).await;
        look(&writer, slice).await.unwrap();
        assert_eq!(writer.log.state(slice).await.unwrap().first, at(1), "nothing is old enough");
        tokio::time::advance(Duration::from_secs(2 * 3_600)).await;
        look(&writer, slice).await.unwrap();
        assert_eq!(writer.log.state(slice).await.unwrap().first, at(6), "not beyond what is stored");
        store_up_to(&writer, at(20)).await;
        look(&writer, slice).await.unwrap();
        assert_eq!(writer.log.state(slice).await.unwrap().first, at(11), "not beyond what is a day old");
    }
}
