//! The store of one machine: an ordered key-value engine, on disk or in memory.
//!
//! What the log's events come to is written as joins of cells with positions for timestamps
//! ([`apply`]), as rule P8 has it for CQL. Everything that reads before it writes runs alone
//! ([`commit`]), so that claims need no further care.

mod answers;
mod apply;
mod claims;
pub mod clock;
mod commit;
mod disk;
mod ends;
mod engine;
mod keys;
mod purge;
mod transaction;
mod value;

#[cfg(test)]
mod tests;

use super::{StorePort, StoreResult, Writes};
use crate::domain::write::Write;
use clock::Clock;
use commit::Commits;
use engine::{Engine, MemoryEngine};
use reedi_protocol::{Position, Shard};
use std::path::Path;
use std::sync::Arc;
use transaction::{Reader, Transaction};

/// Cheap to clone; the last clone that goes waits for what is being committed.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    // Goes first: its thread has a share in the engine.
    commits: Commits,
    engine: Arc<dyn Engine>,
    clock: Clock,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or makes it; what has ended is judged by `clock`. What it has answered for survives the machine's sudden
    /// end. Blocks while what was written last is read back.
    ///
    /// # Errors
    /// Another process has it, the disk fails, or what is there is no store.
    pub fn open(dir: &Path, clock: impl Into<Clock>) -> StoreResult<Self> {
        let clock = clock.into();
        let engine: Arc<dyn Engine> = Arc::new(disk::DiskEngine::open(dir)?);
        let commits = Commits::thread(Arc::clone(&engine), clock.clone())?;
        Ok(Self { inner: Arc::new(Inner { commits, engine, clock }) })
    }

    /// A store that lasts as long as its clones. It starts no thread and never waits, so that a
    /// simulation with a clock of its own runs the same every time.
    #[must_use]
    pub fn in_memory(clock: impl Into<Clock>) -> Self {
        let clock = clock.into();
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
        let commits = Commits::inline(Arc::clone(&engine), clock.clone());
        Self { inner: Arc::new(Inner { commits, engine, clock }) }
    }

    /// Reads take no lock and are done where they are asked: a page is some tens of blocks, and those
    /// that are asked for are mostly in memory.
    fn reader(&self) -> Reader<'_> {
        Reader { engine: &*self.inner.engine, now: self.inner.clock.now() }
    }

    /// All that the log's events came to, by its key, without when it ends: two stores that were told the
    /// same have the same.
    ///
    /// # Errors
    /// What stands there cannot be read.
    #[cfg(feature = "simulation")]
    pub fn contents(&self) -> StoreResult<std::collections::BTreeMap<String, Vec<u8>>> {
        let mut all = std::collections::BTreeMap::new();
        for span in keys::of_the_log() {
            self.inner.engine.scan(&span, super::Order::OldestFirst, &mut |key, bytes| {
                let name = key.iter().map(|byte| format!("{byte:02x}")).collect();
                all.insert(name, value::without_end(bytes).to_vec());
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
        }
        Ok(all)
    }

    /// Both in one commit, so that there is one sync where else there are two.
    ///
    /// # Errors
    /// Neither stands.
    pub async fn persist(&self, writes: Vec<Write>, watermarks: Vec<(Shard, Position)>) -> StoreResult<()> {
        self.change(move |tx| apply::persist(tx, writes, watermarks)).await
    }

    async fn change<T, W>(&self, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> StoreResult<T> + Send + 'static,
    {
        self.inner.commits.run(work).await
    }
}

/// Of the log's messages [`EmbeddedStore::persist`] alone writes new ones: it goes by that nothing stands beyond a watermark.
impl Writes for EmbeddedStore {
    async fn apply(&self, writes: &[Write]) -> StoreResult<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let writes = writes.to_vec();
        self.change(move |tx| writes.into_iter().try_for_each(|write| apply::apply(tx, write))).await
    }
}

impl StorePort for EmbeddedStore {
    /// Goes the way of every change: it answers only while changes would be committed.
    async fn ping(&self) -> StoreResult<()> {
        self.change(|_| Ok(())).await
    }
}
