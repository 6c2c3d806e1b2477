//! Own shards: where each owned shard stands, and where a new owner begins (rule P5).

use crate::edge_link::{Generation, ToWorkers};
use crate::log::tick::tick;
use crate::log::{Log, LogPort as _, ReadError};
use crate::runtime::clock::LogClock;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reedi_protocol::{Position, Shard};
use std::collections::HashMap;

/// Ticks on their way at the same time.
const TICKS_AT_ONCE: usize = 32;

/// One owned shard.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub generation: Generation,
    /// Everything up to here has been pushed.
    pub pushed: Position,
    /// The last record read; before [`Standing::pushed`] only control events are looked at.
    pub read: Position,
}

/// What the edges said of how far they were served, for a worker that is new.
#[derive(Default)]
pub struct Collected {
    lowest: HashMap<Shard, Position>,
    pub edges: usize,
}

impl Collected {
    pub fn take(&mut self, frame: &ToWorkers) {
        if let ToWorkers::Snapshot { through, .. } = frame {
            self.edges += 1;
            for (shard, position) in through {
                let lowest = self.lowest.entry(*shard).or_insert(*position);
                *lowest = (*lowest).min(*position);
            }
        }
    }

    /// Whether an edge said how far it was told of the shard.
    #[must_use]
    pub fn is_needed(&self, shard: Shard) -> bool {
        self.lowest.contains_key(&shard)
    }

    /// Where pushing begins: at the lowest that any edge needs. Where none needs anything, at the
    /// watermark, so that what is claimed to be served is never ahead of what will be stored while
    /// nothing happens (a resume waits for that); with the store away, at the end of the log, and the shard
    /// gets a tick ([`tick_all`]) for the same reason.
    #[must_use]
    pub fn begin(&self, shard: Shard, watermark: Option<Position>, end: Position) -> Position {
        self.lowest.get(&shard).copied().or(watermark).unwrap_or(end).min(end)
    }
}
/// Appends a tick to each shard: once the store has them, it has everything that the log had before.
///
/// # Errors
/// The log is away.
pub async fn tick_all(log: &Log, shards: Vec<Shard>) -> Result<(), ReadError> {
    let clock = LogClock::starting_at(log.now().await?);
    let ticking = shards.into_iter().map(|shard| log.append(tick(shard, &clock)));
    let ticked: Result<(), _> = stream::iter(ticking)
        .buffer_unordered(TICKS_AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await;
    ticked.map_err(|error| ReadError::Unavailable(error.to_string()))
}
