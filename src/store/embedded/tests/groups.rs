//! Jobs that wait for the disk at once are committed at once, and each hears of its own end.

use super::Hand;
use crate::store::conformance::fresh::{self, position};
use crate::store::embedded::commit::Commits;
use crate::store::embedded::engine::{Changes, Engine, MemoryEngine, Visit};
use crate::store::embedded::keys::{self, Key, Span};
use crate::store::embedded::value::{GroupValue, Held};
use crate::store::embedded::{EmbeddedStore, Inner};
use crate::store::{Claimed, Conversations, Messages, Order, StoreError, StoreResult, Writes};
use futures_util::future::join_all;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// The engine in memory, whose commits wait for leave and may be told to fail.
#[derive(Default)]
struct SlowEngine {
    memory: MemoryEngine,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    fails: bool,
    /// Commits that have come, and those that have been done.
    came: usize,
    done: usize,
}

impl SlowEngine {
    fn set(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate.lock());
        self.changed.notify_all();
    }

    fn wait_for(&self, wanted: impl Fn(&Gate) -> bool) {
        let mut gate = self.gate.lock();
        while !wanted(&gate) {
            self.changed.wait(&mut gate);
        }
    }
}

impl Engine for SlowEngine {
    fn get(&self, key: &Key) -> StoreResult<Option<Vec<u8>>> {
        self.memory.get(key)
    }

    fn scan(&self, span: &Span, order: Order, visit: Visit<'_>) -> StoreResult<()> {
        self.memory.scan(span, order, visit)
    }

    fn commit(&self, changes: Changes) -> StoreResult<()> {
        self.set(|gate| gate.came += 1);
        self.wait_for(|gate| !gate.closed);
        if self.gate.lock().fails {
            return Err(StoreError::Unavailable("the disk is full".to_owned()));
        }
        self.memory.commit(changes)?;
        self.set(|gate| gate.done += 1);
        Ok(())
    }
}

fn slow() -> (EmbeddedStore, Arc<SlowEngine>) {
    let slow = Arc::new(SlowEngine::default());
    let engine: Arc<dyn Engine> = slow.clone();
    let clock = Hand::at(1_700_000_000_000).clock();
    let commits = Commits::thread(Arc::clone(&engine), clock.clone()).unwrap();
    (EmbeddedStore { inner: Arc::new(Inner { commits, engine, clock }) }, slow)
}

/// One commit waits for the disk; forty callers gather behind it and go with the second.
#[tokio::test]
async fn who_waits_together_is_committed_together() {
    let (store, engine) = slow();
    engine.set(|gate| gate.closed = true);
    let claim = |key| {
        let store = store.clone();
        tokio::spawn(async move { store.claim_group(key).await })
    };
    let first = claim(fresh::conversation());
    let waiting = engine.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for(|gate| gate.came == 1)).await.unwrap();
    let key = fresh::conversation();
    let rest: Vec<_> = (0..40).map(|_| claim(key)).collect();
    // One turn of this runtime: each of them has handed its job over.
    tokio::task::yield_now().await;
    engine.set(|gate| gate.closed = false);
    assert_eq!(first.await.unwrap(), Ok(Claimed::New));
    let answers = join_all(rest).await;
    let new = answers.iter().filter(|a| matches!(a, Ok(Ok(Claimed::New)))).count();
    assert_eq!((answers.len(), new), (40, 1), "a job sees those of its group before it");
    assert_eq!(engine.gate.lock().done, 2);
}

#[tokio::test]
async fn a_failing_job_leaves_nothing_and_harms_nobody() {
    let (store, engine) = slow();
    engine.set(|gate| gate.closed = true);
    let (bad, good) = (fresh::conversation(), fresh::conversation());
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.claim_group(fresh::conversation()).await }
    });
    let waiting = engine.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for(|gate| gate.came == 1)).await.unwrap();
    let failing = store.change(move |tx| {
        tx.put(keys::group(bad), &Held::for_ever(GroupValue))?;
        Err::<(), _>(StoreError::Corrupt("on purpose".to_owned()))
    });
    let opened = engine.clone();
    let (failed, claimed, ()) = tokio::join!(failing, store.claim_group(good), async move {
        tokio::task::yield_now().await;
        opened.set(|gate| gate.closed = false);
    });
    assert!(first.await.unwrap().is_ok());
    assert_eq!(failed, Err(StoreError::Corrupt("on purpose".to_owned())));
    assert_eq!(claimed, Ok(Claimed::New));
    assert_eq!(store.claim_group(good).await, Ok(Claimed::Stood(())));
    assert_eq!(store.claim_group(bad).await, Ok(Claimed::New));
}

/// A commit that fails is told, nothing of it shows, and the next may go through.
#[tokio::test]
async fn a_failed_commit_is_told() {
    let (store, engine) = slow();
    let conversation = fresh::conversation();
    let write = [fresh::message(conversation, position(1), fresh::account(), "x")];
    engine.set(|gate| gate.fails = true);
    let failed = store.apply(&write).await;
    assert_eq!(failed, Err(StoreError::Unavailable("the disk is full".to_owned())));
    assert_eq!(store.message(conversation, position(1)).await, Ok(None));
    engine.set(|gate| gate.fails = false);
    store.apply(&write).await.unwrap();
    assert!(store.message(conversation, position(1)).await.unwrap().is_some());
}
