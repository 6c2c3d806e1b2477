//! The store of a simulation: the embedded one in memory, reached by calls that may be slow, refused,
//! done in part, or done and not answered.

use super::embedded::EmbeddedStore;
use super::{StoreError, StoreResult, Writes as _};
use crate::domain::write::Write;
use crate::runtime::fault::{Process, happens, up_to};
use crate::runtime::random;
use rand::Rng;
use rand::seq::SliceRandom;

/// The store as one process reaches it.
#[derive(Clone)]
pub struct SimulatedStore {
    pub(super) inner: EmbeddedStore,
    process: Process,
}

fn away(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

impl SimulatedStore {
    #[must_use]
    pub fn new(inner: EmbeddedStore, process: Process) -> Self {
        Self { inner, process }
    }

    async fn reach(&self) -> StoreResult<()> {
        self.process.travels().await;
        let faults = self.process.faults().store;
        if happens(faults.slow) {
            tokio::time::sleep(up_to(faults.slow_by)).await;
            self.process.runs().await;
        }
        if faults.away || happens(faults.refused) { Err(away("refused")) } else { Ok(()) }
    }

    async fn come_back(&self) -> StoreResult<()> {
        self.process.travels().await;
        let lost = happens(self.process.faults().store.unanswered);
        if lost { Err(away("no answer")) } else { Ok(()) }
    }

    /// One call, there and back.
    pub(super) async fn call<T>(&self, work: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.reach().await?;
        let outcome = work.await;
        self.come_back().await?;
        outcome
    }

    /// Writes arrive in any order, and where the call fails only some of them.
    pub(super) async fn apply(&self, writes: &[Write]) -> StoreResult<()> {
        self.reach().await?;
        let mut writes = writes.to_vec();
        let faults = self.process.faults().store;
        if faults.refused > 0 || faults.unanswered > 0 {
            writes.shuffle(&mut random::rng());
        }
        if happens(faults.unanswered) {
            let some = random::rng().random_range(0..=writes.len());
            self.process.note(|| format!("{some} of {} writes are done", writes.len()));
            self.inner.apply(&writes[..some]).await?;
            return Err(away("no answer"));
        }
        self.process.note(|| format!("{} writes", writes.len()));
        self.inner.apply(&writes).await?;
        self.come_back().await
    }
}
