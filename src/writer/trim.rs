//! Trim: the log forgets what the store has, a day later (rule P2).

use super::Writer;
use crate::domain::retention::LOG_KEEPS_MS;
use crate::log::{LogPort, Slice};
use crate::ownership::keep::Owned;
use crate::runtime::shutdown::Shutdown;
use crate::store::Watermarks as _;
use reedi_protocol::{Position, Shard};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(60);

/// Trims every slice whose first shard this writer owns, until the process leaves.
pub async fn run(writer: Writer, owned: watch::Receiver<Owned>, shutdown: Shutdown) {
    let mut seen: HashMap<Slice, VecDeque<(u64, Position)>> = HashMap::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.draining() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for slice in writer.log.slices() {
            let leads =
                slice.shards().iter().next().is_some_and(|first| owned.borrow().generation(first).is_some());
            if leads && let Err(error) = look(&writer, slice, seen.entry(slice).or_default()).await {
                tracing::warn!(error, "the log could not be trimmed");
            }
        }
    }
}

/// Notes where the watermarks are now, and trims up to where they were a day ago: what is below was
/// stored then, and taken by the log before.
async fn look(writer: &Writer, slice: Slice, seen: &mut VecDeque<(u64, Position)>) -> Result<(), String> {
    let stored: HashMap<Shard, Position> =
        writer.store.watermarks().await.map_err(|e| e.to_string())?.into_iter().collect();
    let state = writer.log.state(slice).await.map_err(|e| e.to_string())?;
    writer.metrics.log_fill_percent.set(i64::from(state.fill_percent));
    let lowest = slice
        .shards()
        .iter()
        .map(|shard| stored.get(&shard).copied().unwrap_or_default())
        .min()
        .unwrap_or_default();
    let now_ms = writer.clock.now().as_millis();
    if seen.back().is_none_or(|(_, position)| *position < lowest) {
        seen.push_back((now_ms, lowest));
    }
    let mut due = None;
    while seen.front().is_some_and(|(at_ms, _)| at_ms + LOG_KEEPS_MS <= now_ms) {
        due = seen.pop_front().map(|(_, position)| position);
    }
    match due {
        Some(up_to) if up_to >= state.first => writer.log.trim(slice, up_to).await.map_err(|e| e.to_string()),
        _ => Ok(()),
    }
}
