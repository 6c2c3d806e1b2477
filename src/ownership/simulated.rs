//! The ownership of a simulation: the one in process, reached by calls that fail.

use super::OwnershipError;
use super::in_process::InProcessOwnership;
use crate::runtime::fault::Process;

/// Ownership as one process reaches it.
#[derive(Clone)]
pub struct SimulatedOwnership {
    pub(super) inner: InProcessOwnership,
    process: Process,
}

impl SimulatedOwnership {
    #[must_use]
    pub fn new(inner: InProcessOwnership, process: Process) -> Self {
        Self { inner, process }
    }

    /// One call, there and back.
    pub(super) async fn call<T>(
        &self,
        work: impl Future<Output = Result<T, OwnershipError>>,
    ) -> Result<T, OwnershipError> {
        self.process.travels().await;
        if self.process.faults().ownership_away {
            return Err(OwnershipError::Unavailable("ownership is away".to_owned()));
        }
        let outcome = work.await;
        self.process.travels().await;
        outcome
    }
}
