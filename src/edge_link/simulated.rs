//! The edge link of a simulation: frames that are lost, doubled and overtaken, and processes that hear
//! nothing while they are paused.

use super::in_process::InProcessLink;
use super::{EdgeId, EdgeLinkPort, Inbound, LinkError, PresenceChange, ToEdge, ToWorkers, WorkerId};
use crate::runtime::fault::{Process, happens, up_to};
use tokio::sync::mpsc;

/// The link as one process reaches it.
#[derive(Clone)]
pub struct SimulatedLink {
    inner: InProcessLink,
    process: Process,
}

impl SimulatedLink {
    #[must_use]
    pub fn new(inner: InProcessLink, process: Process) -> Self {
        Self { inner, process }
    }

    /// Sends a frame, once, twice, later or not at all.
    async fn send<F, S>(&self, send: S) -> Result<(), LinkError>
    where
        S: Fn(InProcessLink) -> F + Send + 'static,
        F: Future<Output = Result<(), LinkError>> + Send,
    {
        self.process.runs().await;
        let faults = self.process.faults().link;
        if faults.away {
            return Err(LinkError::Unavailable("the link is away".to_owned()));
        }
        if happens(faults.lost) {
            self.process.note(|| "a frame of the link is lost".to_owned());
            return Ok(());
        }
        if happens(faults.doubled) {
            let (inner, later) = (self.inner.clone(), up_to(faults.delayed_by));
            let _ = send(self.inner.clone()).await;
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let _ = send(inner).await;
            });
            return Ok(());
        }
        if happens(faults.delayed) {
            let (inner, later) = (self.inner.clone(), up_to(faults.delayed_by));
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let _ = send(inner).await;
            });
            return Ok(());
        }
        send(self.inner.clone()).await
    }

    /// Frames reach the process only while it runs; until then they wait where they are bounded.
    fn heard<T: Send + 'static>(&self, mut frames: Inbound<T>) -> Inbound<T> {
        let (heard, inbound) = mpsc::channel(1);
        let process = self.process.clone();
        let hearing = tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                process.runs().await;
                if heard.send(frame).await.is_err() {
                    return;
                }
            }
        });
        self.process.owns(hearing.abort_handle());
        inbound
    }
}

impl EdgeLinkPort for SimulatedLink {
    async fn to_edge(&self, edge: EdgeId, frame: ToEdge) -> Result<(), LinkError> {
        self.send(move |link| {
            let frame = frame.clone();
            async move { link.to_edge(edge, frame).await }
        })
        .await
    }

    async fn to_workers(&self, frame: ToWorkers) -> Result<(), LinkError> {
        self.send(move |link| {
            let frame = frame.clone();
            async move { link.to_workers(frame).await }
        })
        .await
    }

    async fn to_all_edges(&self, frame: ToEdge) -> Result<(), LinkError> {
        self.send(move |link| {
            let frame = frame.clone();
            async move { link.to_all_edges(frame).await }
        })
        .await
    }

    async fn presence(&self, changes: Vec<PresenceChange>) -> Result<(), LinkError> {
        self.send(move |link| {
            let changes = changes.clone();
            async move { link.presence(changes).await }
        })
        .await
    }

    async fn flush(&self) -> Result<(), LinkError> {
        self.inner.flush().await
    }

    async fn listen_as_edge(
        &self,
        edge: EdgeId,
    ) -> Result<(Inbound<ToEdge>, Inbound<Vec<PresenceChange>>), LinkError> {
        let (frames, presence) = self.inner.listen_as_edge(edge).await?;
        Ok((self.heard(frames), self.heard(presence)))
    }

    async fn listen_as_worker(&self, worker: WorkerId) -> Result<Inbound<ToWorkers>, LinkError> {
        let frames = self.inner.listen_as_worker(worker).await?;
        Ok(self.heard(frames))
    }
}
