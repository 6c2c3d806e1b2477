//! A batch: records decoded, in order, void ones as positions only.

use crate::domain::record::{Entry, NotAnEvent};
use crate::log::RawRecord;
use crate::runtime::metrics::Metrics;
use crate::runtime::trace_context::TraceContext;
use reedi_protocol::{Position, Shard};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Batch {
    pub entries: Vec<Entry>,
    /// The last position of every shard in it, void records included.
    pub last: BTreeMap<Shard, Position>,
    /// The traces of the entries; only where they are logged.
    traces: Vec<(Position, TraceContext)>,
}

impl Batch {
    /// Logs that the batch is durable, each event under its trace.
    pub fn trace_stored(&self) {
        for (position, trace) in &self.traces {
            tracing::debug!(trace_id = %trace.trace_id(), position = position.as_u64(), "the store has an event");
        }
    }
}

/// Decodes what was read. A record that counts for nothing still moves the watermark.
#[must_use]
pub fn decode(records: Vec<RawRecord>, metrics: &Metrics) -> Batch {
    let mut batch = Batch::default();
    metrics.read("writer", records.len() as u64);
    let traced = tracing::enabled!(tracing::Level::DEBUG);
    for raw in records {
        batch.last.insert(raw.conversation.shard(), raw.position);
        match Entry::decode(raw.position, raw.log_time, &raw.payload) {
            Ok(entry) => {
                batch.entries.push(entry);
                if traced && let Some(trace) = raw.traceparent {
                    batch.traces.push((raw.position, trace));
                }
            }
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
