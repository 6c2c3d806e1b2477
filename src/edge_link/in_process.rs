//! The edge link within one process: bounded channels.

use super::{
    EdgeId, EdgeLinkPort, Inbound, LinkError, PresenceChange, QUEUE_FRAMES, ToEdge, ToWorkers, WorkerId,
};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc::{self, Sender, error::TrySendError};

/// Cheap to clone; clones share their ends.
#[derive(Clone, Default)]
pub struct InProcessLink {
    ends: Arc<RwLock<Ends>>,
}

#[derive(Default)]
struct Ends {
    edges: BTreeMap<EdgeId, (Sender<ToEdge>, Sender<Vec<PresenceChange>>)>,
    workers: BTreeMap<WorkerId, Sender<ToWorkers>>,
}

fn give<T>(end: &Sender<T>, frame: T) -> Result<(), LinkError> {
    match end.try_send(frame) {
        // An end that left is no error: what it missed is nobody's.
        Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        Err(TrySendError::Full(_)) => Err(LinkError::Full),
    }
}

/// Gives every end its frame, whatever becomes of the others.
fn give_all<'a, T: 'a>(
    ends: impl Iterator<Item = &'a Sender<T>>,
    frame: impl Fn() -> T,
) -> Result<(), LinkError> {
    let mut outcome = Ok(());
    for end in ends {
        outcome = give(end, frame()).and(outcome);
    }
    outcome
}

impl EdgeLinkPort for InProcessLink {
    async fn to_edge(&self, edge: EdgeId, frame: ToEdge) -> Result<(), LinkError> {
        match self.ends.read().edges.get(&edge) {
            Some((end, _)) => give(end, frame),
            None => Ok(()),
        }
    }

    async fn to_workers(&self, frame: ToWorkers) -> Result<(), LinkError> {
        give_all(self.ends.read().workers.values(), || frame.clone())
    }

    async fn to_all_edges(&self, frame: ToEdge) -> Result<(), LinkError> {
        give_all(self.ends.read().edges.values().map(|(end, _)| end), || frame.clone())
    }

    async fn presence(&self, changes: Vec<PresenceChange>) -> Result<(), LinkError> {
        give_all(self.ends.read().edges.values().map(|(_, end)| end), || changes.clone())
    }

    /// What was sent is in its queues.
    async fn flush(&self) -> Result<(), LinkError> {
        Ok(())
    }

    async fn listen_as_edge(
        &self,
        edge: EdgeId,
    ) -> Result<(Inbound<ToEdge>, Inbound<Vec<PresenceChange>>), LinkError> {
        let (frames, inbound) = mpsc::channel(QUEUE_FRAMES);
        let (changes, presence) = mpsc::channel(QUEUE_FRAMES);
        let mut ends = self.ends.write();
        ends.edges.retain(|_, (end, _)| !end.is_closed());
        ends.edges.insert(edge, (frames, changes));
        Ok((inbound, presence))
    }

    async fn listen_as_worker(&self, worker: WorkerId) -> Result<Inbound<ToWorkers>, LinkError> {
        let (frames, inbound) = mpsc::channel(QUEUE_FRAMES);
        let mut ends = self.ends.write();
        ends.workers.retain(|_, end| !end.is_closed());
        ends.workers.insert(worker, frames);
        Ok(inbound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        crate::edge_link::conformance::all(&InProcessLink::default()).await;
    }
}
