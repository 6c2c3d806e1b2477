//! What the embedded store asks of an ordered key-value engine, and the engine in memory.

use super::keys::{Key, Span};
use crate::store::{Order, StoreResult};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Changes by key; `None` removes.
pub type Changes = BTreeMap<Key, Option<Vec<u8>>>;

/// Is shown keys and values until it breaks.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> StoreResult<ControlFlow<()>>;

/// An ordered map from keys to values. Calls may block for as long as a disk takes.
pub trait Engine: Send + Sync + 'static {
    fn get(&self, key: &Key) -> StoreResult<Option<Vec<u8>>>;

    /// Visits a span as it is at one moment; oldest first is the order of the keys.
    fn scan(&self, span: &Span, order: Order, visit: Visit<'_>) -> StoreResult<()>;

    /// All of `changes` or none, durable for engines that last. Only one caller at a time.
    fn commit(&self, changes: Changes) -> StoreResult<()>;
}

/// Lasts as long as its process: for tests and the deterministic simulation.
#[derive(Default)]
pub struct MemoryEngine {
    map: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Engine for MemoryEngine {
    fn get(&self, key: &Key) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.map.read().get(key.as_bytes()).cloned())
    }

    fn scan(&self, span: &Span, order: Order, visit: Visit<'_>) -> StoreResult<()> {
        if span.is_empty() {
            return Ok(());
        }
        let map = self.map.read();
        let mut range = map.range::<[u8], _>((
            std::ops::Bound::Included(span.from.as_bytes()),
            std::ops::Bound::Excluded(span.to.as_bytes()),
        ));
        loop {
            let next = match order {
                Order::OldestFirst => range.next(),
                Order::NewestFirst => range.next_back(),
            };
            let Some((key, value)) = next else { return Ok(()) };
            if visit(key, value)?.is_break() {
                return Ok(());
            }
        }
    }

    fn commit(&self, changes: Changes) -> StoreResult<()> {
        let mut map = self.map.write();
        for (key, value) in changes {
            match value {
                Some(value) => map.insert(key.as_bytes().to_vec(), value),
                None => map.remove(key.as_bytes()),
            };
        }
        Ok(())
    }
}
