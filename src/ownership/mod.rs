//! Ownership: which worker owns a lease unit now, and which should (rule P3).

pub mod conformance;
pub mod in_process;
pub mod keep;
pub mod nats;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;

use crate::edge_link::Generation;
use crate::log::ShardSet;
use reedi_protocol::Shard;
use std::collections::BTreeMap;
use std::future::Future;

/// A lease that was not renewed for this long is anybody's, in milliseconds.
pub const LEASE_MS: u64 = 10_000;
/// How often an owner renews, in milliseconds.
pub const RENEW_MS: u64 = 3_000;
/// An owner that could not renew for this long stops, in milliseconds: before anybody else may start.
pub const GIVE_UP_MS: u64 = 8_000;

/// A role whose work is sharded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardedRole {
    Delivery,
    Writer,
}

impl ShardedRole {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Writer => "writer",
        }
    }
}

/// How the 256 shards are grouped to lease units: `REEDI_SHARDS` of them, each the same number of
/// neighbouring shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseUnits(u16);

impl LeaseUnits {
    /// `None` unless a power of two from 1 to 256.
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= 256).then_some(Self(count))
    }

    /// As configured.
    #[must_use]
    pub fn of(count: crate::runtime::config::PowerOfTwo) -> Self {
        Self(count.count())
    }

    #[must_use]
    pub fn count(self) -> u16 {
        self.0
    }

    /// The shards of `unit`.
    pub fn shards(self, unit: u16) -> ShardSet {
        let size = 256 / self.0;
        (unit * size..(unit + 1) * size).map(|shard| Shard(shard as u8)).collect()
    }
}

/// A held lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub role: ShardedRole,
    pub unit: u16,
    pub generation: Generation,
    /// What the last renewal left behind; the adapter's own.
    pub token: u64,
}

/// Who should own which unit, as it was written last; empty while nobody has written it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub units: BTreeMap<u16, String>,
    /// Of this writing; 0 where nothing was written. Another plan has another.
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnershipError {
    #[error("ownership cannot be told: {0}")]
    Unavailable(String),
    /// Somebody else has it now.
    #[error("the lease was lost")]
    Lost,
}

/// The port. Both adapters pass the conformance suite. A worker's name is its own, fresh at every start.
pub trait OwnershipPort: Clone + Send + Sync + 'static {
    /// Takes a lease that nobody else holds; `None` if somebody does. Whoever holds it already gets it
    /// anew, with a higher generation: the answer to its first ask may have been lost.
    fn acquire(
        &self,
        role: ShardedRole,
        unit: u16,
        worker: &str,
    ) -> impl Future<Output = Result<Option<Lease>, OwnershipError>> + Send;

    /// Holds on to it for another [`LEASE_MS`]. An earlier token of the same holding does too: the
    /// answer to a renewal may have been lost.
    fn renew(
        &self,
        lease: &Lease,
        worker: &str,
    ) -> impl Future<Output = Result<Lease, OwnershipError>> + Send;

    /// Gives it back, so that another need not wait.
    fn release(&self, lease: &Lease, worker: &str)
    -> impl Future<Output = Result<(), OwnershipError>> + Send;

    /// Who holds which unit of `role`.
    fn holders(
        &self,
        role: ShardedRole,
    ) -> impl Future<Output = Result<BTreeMap<u16, String>, OwnershipError>> + Send;

    /// Says that `worker` is there for another [`LEASE_MS`].
    fn announce(
        &self,
        role: ShardedRole,
        worker: &str,
    ) -> impl Future<Output = Result<(), OwnershipError>> + Send;

    /// Says that `worker` leaves: it is not listed any more, and another may lead at once.
    fn withdraw(
        &self,
        role: ShardedRole,
        worker: &str,
    ) -> impl Future<Output = Result<(), OwnershipError>> + Send;

    /// Who is there.
    fn workers(&self, role: ShardedRole) -> impl Future<Output = Result<Vec<String>, OwnershipError>> + Send;

    /// Elects whoever writes the plan: true while it is `candidate`, who asks every [`RENEW_MS`].
    fn lead(
        &self,
        role: ShardedRole,
        candidate: &str,
    ) -> impl Future<Output = Result<bool, OwnershipError>> + Send;

    fn plan(&self, role: ShardedRole) -> impl Future<Output = Result<Plan, OwnershipError>> + Send;

    /// Writes the plan over the one of revision `over`, by which it was made; false where that is not the
    /// newest any more: a leader that slept must not overwrite what its successor planned.
    fn put_plan(
        &self,
        role: ShardedRole,
        units: &BTreeMap<u16, String>,
        over: u64,
    ) -> impl Future<Output = Result<bool, OwnershipError>> + Send;
}

/// The ownership of this process.
#[derive(Clone)]
pub enum Ownership {
    InProcess(in_process::InProcessOwnership),
    Nats(nats::NatsOwnership),
    #[cfg(any(test, feature = "simulation"))]
    Simulated(simulated::SimulatedOwnership),
}

macro_rules! dispatch {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $out:ty;)*) => {
        impl OwnershipPort for Ownership {
            $(async fn $name(&self $(, $arg: $type)*) -> Result<$out, OwnershipError> {
                match self {
                    Ownership::InProcess(ownership) => ownership.$name($($arg),*).await,
                    Ownership::Nats(ownership) => ownership.$name($($arg),*).await,
                    #[cfg(any(test, feature = "simulation"))]
                    Ownership::Simulated(ownership) => ownership.call(ownership.inner.$name($($arg),*)).await,
                }
            })*
        }
    };
}

dispatch! {
    fn acquire(&self, role: ShardedRole, unit: u16, worker: &str) -> Option<Lease>;
    fn renew(&self, lease: &Lease, worker: &str) -> Lease;
    fn release(&self, lease: &Lease, worker: &str) -> ();
    fn holders(&self, role: ShardedRole) -> BTreeMap<u16, String>;
    fn announce(&self, role: ShardedRole, worker: &str) -> ();
    fn withdraw(&self, role: ShardedRole, worker: &str) -> ();
    fn workers(&self, role: ShardedRole) -> Vec<String>;
    fn lead(&self, role: ShardedRole, candidate: &str) -> bool;
    fn plan(&self, role: ShardedRole) -> Plan;
    fn put_plan(&self, role: ShardedRole, units: &BTreeMap<u16, String>, over: u64) -> bool;
}
