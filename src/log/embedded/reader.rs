//! Reading the embedded log: from memory at the tail, from disk before it.

use super::Shared;
use crate::log::{LogReader, RawRecord, ReadError, ShardSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Records looked at in one step: bounds how long the lock is held.
const STEP: usize = 1_024;

pub struct EmbeddedReader {
    shared: Arc<Shared>,
    shards: ShardSet,
    after: u64,
    durable: watch::Receiver<u64>,
}

impl EmbeddedReader {
    pub(super) fn new(shared: Arc<Shared>, shards: ShardSet, after: u64) -> Self {
        let durable = shared.durable.subscribe();
        Self { shared, shards, after, durable }
    }
}

/// At most `most` records after `after`, erased ones (with no payload) included.
pub(super) async fn records_after(
    shared: &Arc<Shared>,
    after: u64,
    most: usize,
) -> Result<Vec<RawRecord>, ReadError> {
    if let Some(records) = shared.sequencer.lock().recent_after(after, most) {
        return Ok(records);
    }
    let Some(segments) = shared.segments.clone() else { return Ok(Vec::new()) };
    let read = tokio::task::spawn_blocking(move || segments.lock().read_after(after, most)).await;
    match read {
        Ok(Ok(records)) => Ok(records.iter().map(super::sequencer::StoredRecord::raw).collect()),
        Ok(Err(error)) => Err(ReadError::Unavailable(error.to_string())),
        Err(error) => Err(ReadError::Unavailable(error.to_string())),
    }
}

impl LogReader for EmbeddedReader {
    async fn next(&mut self, most: usize) -> Result<Vec<RawRecord>, ReadError> {
        loop {
            let first = self.shared.sequencer.lock().first();
            if self.after + 1 < first {
                let (asked, first) = (self.shared.position(self.after), self.shared.position(first));
                return Err(ReadError::Trimmed { asked, first });
            }
            let found = records_after(&self.shared, self.after, STEP.min(most.max(1))).await?;
            if let Some(last) = found.last() {
                // Set only after the last await, so that a cancelled call loses nothing.
                self.after = last.position.sequence();
                let wanted: Vec<RawRecord> = found
                    .into_iter()
                    .filter(|r| self.shards.contains(r.conversation.shard()) && !r.payload.is_empty())
                    .collect();
                if !wanted.is_empty() {
                    return Ok(wanted);
                }
                continue;
            }
            let after = self.after;
            self.durable
                .wait_for(|durable| *durable > after)
                .await
                .map_err(|_| ReadError::Unavailable("the log has stopped".into()))?;
        }
    }

    fn is_drained(&self) -> bool {
        *self.durable.borrow() <= self.after
    }
}
