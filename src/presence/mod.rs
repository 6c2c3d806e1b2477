//! Presence: who is online. Nothing here may not be lost.

pub mod conformance;
pub mod in_memory;
pub mod redis;
#[cfg(feature = "simulation")]
pub mod simulated;

use crate::edge_link::EdgeId;
use reedi_protocol::{AccountId, Timestamp};
use std::future::Future;

/// An edge that did not refresh an account for this long does not hold it any more, in milliseconds.
pub const HOLD_MS: u64 = 90_000;
/// How often an edge refreshes its accounts, in milliseconds.
pub const REFRESH_MS: u64 = 30_000;
/// How long it is remembered when an account was last seen, in milliseconds: 30 days, like events in the
/// store. Afterwards nothing of the account is left here.
pub const LAST_SEEN_KEPT_MS: u64 = 30 * 24 * 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    pub online: bool,
    /// When the account was last seen; while online `None`.
    pub last_seen: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("presence cannot be told: {0}")]
pub struct PresenceError(pub String);

/// What is said of each account, in the order asked: accounts are kept in different places, and some of these may be away.
pub type Answers<T> = Vec<Result<T, PresenceError>>;

/// The port. Both adapters pass the conformance suite.
///
/// Who holds is the truth, and says so again every [`REFRESH_MS`]: a hold or a leave that failed, or was
/// forgotten here, is healed by the next hold or by [`HOLD_MS`] passing.
pub trait PresencePort: Clone + Send + Sync + 'static {
    /// `accounts` are connected to `edge` for another [`HOLD_MS`]. Gives of each whether it was offline
    /// everywhere before.
    fn hold(
        &self,
        edge: EdgeId,
        accounts: &[AccountId],
        now: Timestamp,
    ) -> impl Future<Output = Answers<bool>> + Send;

    /// `accounts` have left `edge`. Gives of each whether it is offline everywhere now, and was or was not
    /// known to be held before.
    fn leave(
        &self,
        edge: EdgeId,
        accounts: &[AccountId],
        now: Timestamp,
    ) -> impl Future<Output = Answers<bool>> + Send;

    /// Whether each of `accounts` is connected anywhere.
    fn look(&self, accounts: &[AccountId], now: Timestamp) -> impl Future<Output = Answers<Presence>> + Send;
}

/// The presence of this process.
#[derive(Clone)]
pub enum PresenceStore {
    InMemory(in_memory::InMemoryPresence),
    Redis(redis::RedisPresence),
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedRedis),
}

impl PresenceStore {
    /// Whether answers are missing, in part at least.
    #[must_use]
    pub fn degraded(&self) -> bool {
        match self {
            PresenceStore::InMemory(_) => false,
            PresenceStore::Redis(presence) => presence.degraded(),
            #[cfg(feature = "simulation")]
            PresenceStore::Simulated(_) => false,
        }
    }
}

macro_rules! on_adapter {
    ($self:ident, $p:ident => $call:expr) => {
        match $self {
            PresenceStore::InMemory($p) => $call.await,
            PresenceStore::Redis($p) => Box::pin($call).await,
            #[cfg(feature = "simulation")]
            PresenceStore::Simulated($p) => $call.await,
        }
    };
}

impl PresencePort for PresenceStore {
    async fn hold(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        on_adapter!(self, p => p.hold(edge, accounts, now))
    }

    async fn leave(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        on_adapter!(self, p => p.leave(edge, accounts, now))
    }

    async fn look(&self, accounts: &[AccountId], now: Timestamp) -> Answers<Presence> {
        on_adapter!(self, p => p.look(accounts, now))
    }
}
