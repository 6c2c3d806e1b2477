//! What the conformance suite cannot see: time that is set, what is on the disk, groups of commits.

mod expiry;
mod fixture;
mod groups;
mod persist;

use super::EmbeddedStore;
use super::clock::Clock;
use super::keys::Key;
use crate::store::Order;
use reedi_protocol::Timestamp;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that a test sets.
#[derive(Clone)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn at(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let hand = self.clone();
        Clock::from_fn(move || Timestamp::from_millis(hand.0.load(Ordering::Relaxed)))
    }
}

/// All that is in the engine, notes of ends included.
fn dump(store: &EmbeddedStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut keep = |key: &[u8], value: &[u8]| {
        all.push((key.to_vec(), value.to_vec()));
        Ok(ControlFlow::Continue(()))
    };
    store.inner.engine.scan(&Key::all(), Order::OldestFirst, &mut keep).unwrap();
    all
}

fn holds(store: &EmbeddedStore, bytes: &[u8]) -> bool {
    dump(store).iter().any(|(_, value)| value.windows(bytes.len()).any(|part| part == bytes))
}
