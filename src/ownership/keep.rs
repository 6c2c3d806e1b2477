//! Keeping leases: what a worker of a sharded role does to own its share, and no more (rule P3).

use super::{GIVE_UP_MS, Lease, LeaseUnits, Ownership, OwnershipError, OwnershipPort, RENEW_MS, ShardedRole};
use crate::domain::plan::assign;
use crate::edge_link::Generation;
use crate::log::ShardSet;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use reedi_protocol::Shard;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the plan is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The shards that a worker owns now, each with its generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned(BTreeMap<Shard, Generation>);

impl Owned {
    #[must_use]
    pub fn shards(&self) -> ShardSet {
        self.0.keys().copied().collect()
    }

    #[must_use]
    pub fn generation(&self, shard: Shard) -> Option<Generation> {
        self.0.get(&shard).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Shard, Generation)> + '_ {
        self.0.iter().map(|(shard, generation)| (*shard, *generation))
    }
}

/// How long an answer about leases may take; all are asked for at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

struct Held {
    lease: Lease,
    renewed: Instant,
}

/// One worker's keeper.
pub struct Keeper {
    pub ownership: Ownership,
    pub role: ShardedRole,
    pub units: LeaseUnits,
    /// This worker's name, fresh at every start.
    pub worker: String,
    pub metrics: Metrics,
}

impl Keeper {
    /// Keeps this worker's share until the process leaves, then gives it back. `owned` always says
    /// what may be worked on.
    pub async fn run(self, owned: watch::Sender<Owned>, shutdown: Shutdown) {
        let mut held: BTreeMap<u16, Held> = BTreeMap::new();
        let mut announced: Option<Instant> = None;
        let renew_every = Duration::from_millis(RENEW_MS);
        while !shutdown.is_draining() {
            if announced.is_none_or(|at| at.elapsed() >= renew_every) {
                announced = self.announce_and_lead().await.ok().map(|()| Instant::now()).or(announced);
            }
            self.renew(&mut held).await;
            self.give_up(&mut held, &owned);
            if let Err(error) = self.follow_plan(&mut held, &owned).await {
                tracing::debug!(%error, role = self.role.name(), "ownership cannot be told now");
            }
            self.publish(&held, &owned);
            tokio::select! {
                biased;
                () = shutdown.draining() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let leases: Vec<Lease> = held.values().map(|held| held.lease).collect();
        held.clear();
        self.publish(&held, &owned);
        for lease in leases {
            // One that cannot be given back runs out by itself.
            let _ = self.ownership.release(&lease, &self.worker).await;
        }
        let _ = self.ownership.withdraw(self.role, &self.worker).await;
    }

    async fn announce_and_lead(&self) -> Result<(), OwnershipError> {
        self.ownership.announce(self.role, &self.worker).await?;
        if self.ownership.lead(self.role, &self.worker).await? {
            let workers = self.ownership.workers(self.role).await?;
            let current = self.ownership.plan(self.role).await?;
            let plan = assign(self.units.count(), &workers, &current);
            if plan != current {
                tracing::info!(role = self.role.name(), workers = workers.len(), "a new plan");
                self.ownership.put_plan(self.role, &plan).await?;
            }
        }
        Ok(())
    }

    async fn renew(&self, held: &mut BTreeMap<u16, Held>) {
        let due = Duration::from_millis(RENEW_MS);
        // Counted from before the request: the lease cannot run out sooner.
        let asked = Instant::now();
        let renewals = held.iter().filter(|(_, held)| held.renewed.elapsed() >= due).map(|(unit, held)| {
            let (unit, lease) = (*unit, held.lease);
            async move {
                let renewal = self.ownership.renew(&lease, &self.worker);
                (unit, tokio::time::timeout(ANSWER_WITHIN, renewal).await)
            }
        });
        let mut lost = Vec::new();
        for (unit, renewed) in futures_util::future::join_all(renewals).await {
            match renewed {
                Ok(Ok(lease)) => drop(held.insert(unit, Held { lease, renewed: asked })),
                Ok(Err(OwnershipError::Lost)) => lost.push(unit),
                Ok(Err(OwnershipError::Unavailable(_))) | Err(_) => {}
            }
        }
        for unit in lost {
            tracing::warn!(role = self.role.name(), unit, "a lease was lost to another worker");
            self.metrics.lease_lost(self.role.name());
            held.remove(&unit);
        }
    }

    /// Stops what could not be renewed in time, before anybody else may begin.
    fn give_up(&self, held: &mut BTreeMap<u16, Held>, owned: &watch::Sender<Owned>) {
        let within = Duration::from_millis(GIVE_UP_MS);
        let before = held.len();
        held.retain(|_, held| held.renewed.elapsed() < within);
        if held.len() != before {
            tracing::warn!(
                role = self.role.name(),
                units = before - held.len(),
                "leases could not be renewed in time"
            );
            self.publish(held, owned);
        }
    }

    async fn follow_plan(
        &self,
        held: &mut BTreeMap<u16, Held>,
        owned: &watch::Sender<Owned>,
    ) -> Result<(), OwnershipError> {
        let plan = self.ownership.plan(self.role).await?;
        let mine = |unit: &u16| plan.get(unit).is_some_and(|worker| *worker == self.worker);
        let surplus: Vec<u16> = held.keys().filter(|unit| !mine(unit)).copied().collect();
        for unit in surplus {
            if let Some(gone) = held.remove(&unit) {
                // Stop first, then let go.
                self.publish(held, owned);
                self.ownership.release(&gone.lease, &self.worker).await?;
            }
        }
        for unit in
            plan.keys().filter(|unit| mine(unit) && !held.contains_key(unit)).copied().collect::<Vec<_>>()
        {
            let asked = Instant::now();
            if let Some(lease) = self.ownership.acquire(self.role, unit, &self.worker).await? {
                held.insert(unit, Held { lease, renewed: asked });
            }
        }
        Ok(())
    }

    fn publish(&self, held: &BTreeMap<u16, Held>, owned: &watch::Sender<Owned>) {
        let shards = held
            .iter()
            .flat_map(|(unit, held)| {
                let shards: Vec<Shard> = self.units.shards(*unit).iter().collect();
                shards.into_iter().map(|shard| (shard, held.lease.generation))
            })
            .collect();
        self.metrics.set_leases(self.role.name(), held.len());
        owned.send_if_modified(|owned| {
            let fresh = Owned(shards);
            let changed = *owned != fresh;
            *owned = fresh;
            changed
        });
    }
}
