//! Persist: all writes of a batch, and only then the watermarks (invariant `stored_before_trimmed`).

use super::batch::Batch;
use crate::domain::record::Entry;
use crate::domain::retention::day_of;
use crate::domain::write::{Write, writes_of};
use crate::runtime::metrics::Metrics;
use crate::store::{Store, StoreError};
use reedi_protocol::{AccountId, ConversationKey, Position, Shard, Timestamp};
use std::collections::HashMap;

pub struct Persist {
    store: Store,
    metrics: Metrics,
    /// What the store has for sure.
    stored: HashMap<Shard, Position>,
    /// The day of each shard whose beginning the store has for sure.
    days: HashMap<Shard, i32>,
}

impl Persist {
    #[must_use]
    pub fn new(store: Store, metrics: Metrics, stored: HashMap<Shard, Position>) -> Self {
        Self { store, metrics, stored, days: HashMap::new() }
    }

    /// Makes a batch durable.
    ///
    /// # Errors
    /// The store is away: nothing is claimed, and the same batch comes again.
    pub async fn run(&mut self, batch: &Batch, now: Timestamp) -> Result<(), StoreError> {
        let fresh = batch.entries.iter().filter(|entry| {
            let stored = self.stored.get(&entry.record.conversation.shard());
            stored.is_none_or(|stored| entry.position > *stored)
        });
        let mut writes = Vec::with_capacity(batch.entries.len() * 5);
        let mut days = HashMap::new();
        let mut count = 0;
        for entry in fresh {
            writes.extend(self.first_of_day(entry, &mut days));
            writes.extend(writes_of(entry));
            count += 1;
        }
        coalesce_heads(&mut writes);
        let moved: Vec<(Shard, Position)> = batch
            .last
            .iter()
            .filter(|(shard, last)| self.stored.get(shard).is_none_or(|stored| *last > stored))
            .map(|(shard, last)| (*shard, *last))
            .collect();
        self.store.persist(writes, moved.clone()).await?;
        self.stored.extend(moved);
        self.days.extend(days);
        self.metrics.records_stored.inc_by(count);
        for entry in &batch.entries {
            let age_ms = now.as_millis().saturating_sub(entry.log_time.as_millis());
            self.metrics.append_to_stored.observe(age_ms as f64 / 1_000.0);
        }
        Ok(())
    }
}

impl Persist {
    /// Notes where a day begins in a shard, ticks included, so that there is one every day (ADR 0034). Whoever begins
    /// in the middle of a day notes that: of two the lower stands.
    fn first_of_day(&self, entry: &Entry, days: &mut HashMap<Shard, i32>) -> Option<Write> {
        let (shard, day) = (entry.record.conversation.shard(), day_of(entry.log_time));
        let known = days.get(&shard).or_else(|| self.days.get(&shard));
        if known.is_some_and(|known| *known >= day) {
            return None;
        }
        days.insert(shard, day);
        Some(Write::FirstOfDay { shard, position: entry.position, log_time: entry.log_time })
    }
}

/// Of the moves of one head within a batch only the last needs writing.
fn coalesce_heads(writes: &mut Vec<Write>) {
    let mut newest: HashMap<(Option<AccountId>, ConversationKey, u8), Position> = HashMap::new();
    let key = |write: &Write| match write {
        Write::InboxHead { account, conversation, head, .. } => {
            Some(((Some(*account), *conversation, 0), *head))
        }
        Write::InboxRead { account, conversation, up_to } => {
            Some(((Some(*account), *conversation, 1), *up_to))
        }
        Write::InboxTouched { account, conversation, at } => Some(((Some(*account), *conversation, 2), *at)),
        Write::Head { conversation, head, .. } => Some(((None, *conversation, 3), *head)),
        _ => None,
    };
    for (key, position) in writes.iter().filter_map(key) {
        let newest = newest.entry(key).or_default();
        *newest = (*newest).max(position);
    }
    writes.retain(|write| key(write).is_none_or(|(key, position)| newest.get(&key) == Some(&position)));
}
