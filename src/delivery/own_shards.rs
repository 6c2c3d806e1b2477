//! Own shards: where each owned shard stands, and where a new owner begins (rule P5).

use crate::edge_link::{Generation, ToWorkers};
use reedi_protocol::{Position, Shard};
use std::collections::HashMap;

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

    /// Where pushing begins: at the lowest that any edge needs. Where none needs anything, at the
    /// watermark, so that what is claimed to be served is never ahead of what will be stored while
    /// nothing happens (a resume waits for that); with the store away, at the end of the log.
    #[must_use]
    pub fn begin(&self, shard: Shard, watermark: Option<Position>, end: Position) -> Position {
        self.lowest.get(&shard).copied().or(watermark).unwrap_or(end).min(end)
    }
}
