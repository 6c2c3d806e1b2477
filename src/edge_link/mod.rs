//! The edge link: between delivery workers and edges. It may lose, repeat and reorder; numbers in
//! its frames (coverage, route versions) let either side notice and ask again (rule P5).

pub mod conformance;
pub mod in_process;
pub mod nats;
#[cfg(feature = "simulation")]
pub mod simulated;

use crate::runtime::trace_context::TraceContext;
use bytes::Bytes;
use reedi_protocol::event::PresenceStatus;
use reedi_protocol::{AccountId, ConversationKey, DeviceId, Position, Shard, Timestamp};
use serde::{Deserialize, Serialize};
use std::future::Future;

/// Names an edge process, fresh at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EdgeId(pub u64);

/// Names a delivery worker process, fresh at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

impl std::fmt::Display for EdgeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "edge-{:016x}", self.0)
    }
}

impl std::fmt::Display for WorkerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker-{:016x}", self.0)
    }
}

/// The number that fences an old owner: ordered, and higher for each later ownership of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// "These are all events of this shard in (after, through] for your accounts."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    pub shard: Shard,
    pub generation: Generation,
    pub after: Position,
    pub through: Position,
}

/// Who of an edge's accounts gets an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEvent {
    pub position: Position,
    pub log_time: Timestamp,
    pub conversation: ConversationKey,
    /// The public event before this one in its conversation, where the worker knows it.
    pub previous: Option<Position>,
    pub recipients: Vec<AccountId>,
    /// The record as it stands in the log.
    pub payload: Bytes,
    #[serde(deserialize_with = "trace_or_none")]
    pub traceparent: Option<TraceContext>,
}

/// A trace is for whoever looks for something: one that cannot be read must not cost the batch that it comes with.
fn trace_or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<TraceContext>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// A device that connected, and when by the log's clock: the later connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCame {
    pub account: AccountId,
    pub device: DeviceId,
    pub at: Timestamp,
}

/// To edges: from a worker to one, and to all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToEdge {
    Batch {
        worker: WorkerId,
        /// The version of this edge's routes that the worker had applied.
        routes: u64,
        coverage: Vec<Coverage>,
        /// In position order within a shard.
        events: Vec<LinkEvent>,
    },
    /// The worker does not know the edge's routes, or lost a delta: send a snapshot.
    Collect { worker: WorkerId },
    /// The worker cannot serve this shard from where the edge stands: what lies up to `through` is
    /// not coming.
    Skip { shard: Shard, generation: Generation, through: Position },
    /// Devices that came to the edge `by`: an earlier session of one of them elsewhere is replaced.
    Devices { by: EdgeId, came: Vec<DeviceCame> },
    /// Something told and forgotten, for those of these accounts who joined the conversation.
    Fleeting { conversation: ConversationKey, audience: Vec<AccountId>, what: Fleeting },
    /// An account changed its settings or whom it blocks: what an edge remembers of that is out of date.
    Preferences { account: AccountId },
}

/// Told once and stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fleeting {
    Typing { account: AccountId, typing: bool },
}

/// From an edge to the workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorkers {
    /// Accounts that came to or left an edge since version `from`; the edge is at `to` with it.
    Routes { edge: EdgeId, from: u64, to: u64, came: Vec<AccountId>, left: Vec<AccountId> },
    /// All accounts of an edge, and how far it has been served.
    Snapshot { edge: EdgeId, version: u64, accounts: Vec<AccountId>, through: Vec<(Shard, Position)> },
    /// The edge missed something: serve this shard again from `after`.
    Repeat { edge: EdgeId, shard: Shard, after: Position },
    /// To the owner of the conversation's shard, to pass on.
    Fleeting { conversation: ConversationKey, audience: Vec<AccountId>, what: Fleeting },
    /// The edge is leaving; forget its routes.
    Bye { edge: EdgeId },
}

/// Between edges: accounts whose presence changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceChange {
    pub account: AccountId,
    pub status: PresenceStatus,
    pub last_seen: Option<Timestamp>,
}

/// Why a frame did not go out. It is never retried: the receiver notices by its numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("the edge link is away: {0}")]
    Unavailable(String),
    /// The receiver does not keep up; counted and left to the numbers.
    #[error("the receiver's queue is full")]
    Full,
}

/// Frames that may wait at a receiver before further ones are dropped and counted.
pub const QUEUE_FRAMES: usize = 4_096;

/// A receiving end; ends when the process leaves. Frames of one sender keep their order.
pub type Inbound<T> = tokio::sync::mpsc::Receiver<T>;

/// The port. Both adapters pass the conformance suite.
pub trait EdgeLinkPort: Clone + Send + Sync + 'static {
    fn to_edge(&self, edge: EdgeId, frame: ToEdge) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// To every worker.
    fn to_workers(&self, frame: ToWorkers) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// To every edge: a worker that is new, or lost track, asks all for their snapshots.
    fn to_all_edges(&self, frame: ToEdge) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// To every edge, the own one included.
    fn presence(&self, changes: Vec<PresenceChange>) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Waits until everything that was sent before is with others: the last words of a process that leaves.
    fn flush(&self) -> impl Future<Output = Result<(), LinkError>> + Send;

    fn listen_as_edge(
        &self,
        edge: EdgeId,
    ) -> impl Future<Output = Result<(Inbound<ToEdge>, Inbound<Vec<PresenceChange>>), LinkError>> + Send;

    fn listen_as_worker(
        &self,
        worker: WorkerId,
    ) -> impl Future<Output = Result<Inbound<ToWorkers>, LinkError>> + Send;
}

/// The edge link of this process.
#[derive(Clone)]
pub enum EdgeLink {
    InProcess(in_process::InProcessLink),
    Nats(nats::NatsLink),
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedLink),
}

macro_rules! on_adapter {
    ($self:ident, $link:ident => $call:expr) => {
        match $self {
            EdgeLink::InProcess($link) => $call.await,
            EdgeLink::Nats($link) => Box::pin($call).await,
            #[cfg(feature = "simulation")]
            EdgeLink::Simulated($link) => $call.await,
        }
    };
}

impl EdgeLinkPort for EdgeLink {
    async fn to_edge(&self, edge: EdgeId, frame: ToEdge) -> Result<(), LinkError> {
        on_adapter!(self, link => link.to_edge(edge, frame))
    }

    async fn to_workers(&self, frame: ToWorkers) -> Result<(), LinkError> {
        on_adapter!(self, link => link.to_workers(frame))
    }

    async fn to_all_edges(&self, frame: ToEdge) -> Result<(), LinkError> {
        on_adapter!(self, link => link.to_all_edges(frame))
    }

    async fn presence(&self, changes: Vec<PresenceChange>) -> Result<(), LinkError> {
        on_adapter!(self, link => link.presence(changes))
    }

    async fn flush(&self) -> Result<(), LinkError> {
        on_adapter!(self, link => link.flush())
    }

    async fn listen_as_edge(
        &self,
        edge: EdgeId,
    ) -> Result<(Inbound<ToEdge>, Inbound<Vec<PresenceChange>>), LinkError> {
        on_adapter!(self, link => link.listen_as_edge(edge))
    }

    async fn listen_as_worker(&self, worker: WorkerId) -> Result<Inbound<ToWorkers>, LinkError> {
        on_adapter!(self, link => link.listen_as_worker(worker))
    }
}
