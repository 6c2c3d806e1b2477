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
    /// Read and not given yet.
    found: Vec<RawRecord>,
    /// Nothing of `shards` stood behind `after` when it was looked at last.
    drained: bool,
    durable: watch::Receiver<u64>,
}

impl EmbeddedReader {
    pub(super) async fn begin(shared: Arc<Shared>, shards: ShardSet, after: u64) -> Result<Self, ReadError> {
        let durable = shared.durable.subscribe();
        let mut reader = Self { shared, shards, after, found: Vec::new(), drained: false, durable };
        reader.gather(0).await?;
        Ok(reader)
    }

    /// Gathers up to `most` records of its shards that are there. What other shards have behind them is passed over,
    /// so that it is known whether anything is left. What was found stays with the reader until it is given, so
    /// that a cancelled call loses nothing and a slow disk is not read again and again.
    async fn gather(&mut self, most: usize) -> Result<(), ReadError> {
        let mut left = false;
        while !left && self.after < *self.durable.borrow() {
            let step = if self.found.len() < most { STEP.min(most - self.found.len() + 1) } else { STEP };
            let records = records_after(&self.shared, self.after, step).await?;
            if records.is_empty() {
                break;
            }
            for record in records {
                let is_own = self.shards.contains(record.conversation.shard()) && !record.payload.is_empty();
                if is_own && self.found.len() >= most {
                    left = true;
                    break;
                }
                self.after = record.position.sequence();
                self.found.extend(is_own.then_some(record));
            }
        }
        self.drained = !left;
        Ok(())
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
            let most = most.max(1);
            self.gather(most).await?;
            if self.found.len() > most {
                return Ok(self.found.drain(..most).collect());
            }
            if !self.found.is_empty() {
                return Ok(std::mem::take(&mut self.found));
            }
            let after = self.after;
            self.durable
                .wait_for(|durable| *durable > after)
                .await
                .map_err(|_| ReadError::Unavailable("the log has stopped".into()))?;
        }
    }

    fn is_drained(&self) -> bool {
        self.drained && self.found.is_empty()
    }
}
