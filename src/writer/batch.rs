//! A batch: records decoded, in order, void ones as positions only.

use crate::domain::record::{Entry, NotAnEvent};
use crate::log::RawRecord;
use crate::runtime::metrics::Metrics;
use reedi_protocol::{Position, Shard};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Batch {
    pub entries: Vec<Entry>,
    /// The last position of every shard in it, void records included.
    pub last: BTreeMap<Shard, Position>,
}

/// Decodes what was read. A record that counts for nothing still moves the watermark.
#[must_use]
pub fn decode(records: Vec<RawRecord>, metrics: &Metrics) -> Batch {
    let mut batch = Batch::default();
    metrics.read("writer", records.len() as u64);
    for raw in records {
        batch.last.insert(raw.conversation.shard(), raw.position);
        match Entry::decode(raw.position, raw.log_time, &raw.payload) {
            Ok(entry) => batch.entries.push(entry),
            Err(NotAnEvent::Late { late_ms }) => {
                metrics.records_void.inc();
                tracing::info!(
                    position = raw.position.as_u64(),
                    late_ms,
                    "a record landed too late and is void"
                );
            }
            Err(error) => {
                metrics.records_unreadable.inc();
                tracing::error!(%error, position = raw.position.as_u64(), "a record cannot be read and is skipped");
            }
        }
    }
    batch
}
