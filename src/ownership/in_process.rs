//! Ownership within one process. Workers that share it share its leases; time is tokio's, so that a
//! simulation with a paused clock expires them too.

use super::{LEASE_MS, Lease, OwnershipError, OwnershipPort, Plan, ShardedRole};
use crate::edge_link::Generation;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Cheap to clone; clones share the leases.
#[derive(Clone, Default)]
pub struct InProcessOwnership {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Grows with every change, as a bucket's revision does: tokens and generations come from it.
    revision: u64,
    leases: BTreeMap<(ShardedRole, u16), Held>,
    announced: BTreeMap<(ShardedRole, String), Instant>,
    leaders: BTreeMap<ShardedRole, (String, Instant)>,
    plans: BTreeMap<ShardedRole, Plan>,
}

struct Held {
    worker: String,
    generation: Generation,
    token: u64,
    until: Instant,
}

fn expiry() -> Instant {
    Instant::now() + Duration::from_millis(LEASE_MS)
}

impl State {
    fn next(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// The lease as its holder holds it, unless it is another's by now.
    fn held(&mut self, lease: &Lease, worker: &str) -> Result<&mut Held, OwnershipError> {
        let held = self.leases.get_mut(&(lease.role, lease.unit)).filter(|held| {
            held.until > Instant::now() && held.worker == worker && held.generation == lease.generation
        });
        held.ok_or(OwnershipError::Lost)
    }
}

impl OwnershipPort for InProcessOwnership {
    async fn acquire(
        &self,
        role: ShardedRole,
        unit: u16,
        worker: &str,
    ) -> Result<Option<Lease>, OwnershipError> {
        let mut state = self.state.lock();
        let others = |held: &Held| held.until > Instant::now() && held.worker != worker;
        if state.leases.get(&(role, unit)).is_some_and(others) {
            return Ok(None);
        }
        let token = state.next();
        let generation = Generation(token);
        let held = Held { worker: worker.to_owned(), generation, token, until: expiry() };
        state.leases.insert((role, unit), held);
        Ok(Some(Lease { role, unit, generation, token }))
    }

    async fn renew(&self, lease: &Lease, worker: &str) -> Result<Lease, OwnershipError> {
        let mut state = self.state.lock();
        let token = state.next();
        let held = state.held(lease, worker)?;
        (held.token, held.until) = (token, expiry());
        Ok(Lease { token, ..*lease })
    }

    async fn release(&self, lease: &Lease, worker: &str) -> Result<(), OwnershipError> {
        let mut state = self.state.lock();
        state.held(lease, worker)?;
        state.leases.remove(&(lease.role, lease.unit));
        Ok(())
    }

    async fn holders(&self, role: ShardedRole) -> Result<BTreeMap<u16, String>, OwnershipError> {
        let (state, now) = (self.state.lock(), Instant::now());
        let held = state.leases.iter().filter(|((of, _), held)| *of == role && held.until > now);
        Ok(held.map(|((_, unit), held)| (*unit, held.worker.clone())).collect())
    }

    async fn announce(&self, role: ShardedRole, worker: &str) -> Result<(), OwnershipError> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.announced.retain(|_, until| *until > now);
        state.announced.insert((role, worker.to_owned()), expiry());
        Ok(())
    }

    async fn withdraw(&self, role: ShardedRole, worker: &str) -> Result<(), OwnershipError> {
        let mut state = self.state.lock();
        state.announced.remove(&(role, worker.to_owned()));
        if state.leaders.get(&role).is_some_and(|(leader, _)| leader == worker) {
            state.leaders.remove(&role);
        }
        Ok(())
    }

    async fn workers(&self, role: ShardedRole) -> Result<Vec<String>, OwnershipError> {
        let (state, now) = (self.state.lock(), Instant::now());
        let there = state.announced.iter().filter(|((of, _), until)| *of == role && **until > now);
        Ok(there.map(|((_, worker), _)| worker.clone()).collect())
    }

    async fn lead(&self, role: ShardedRole, candidate: &str) -> Result<bool, OwnershipError> {
        let mut state = self.state.lock();
        let leads = |(leader, until): &(String, Instant)| leader != candidate && *until > Instant::now();
        if state.leaders.get(&role).is_some_and(leads) {
            return Ok(false);
        }
        state.leaders.insert(role, (candidate.to_owned(), expiry()));
        Ok(true)
    }

    async fn plan(&self, role: ShardedRole) -> Result<Plan, OwnershipError> {
        Ok(self.state.lock().plans.get(&role).cloned().unwrap_or_default())
    }

    async fn put_plan(
        &self,
        role: ShardedRole,
        units: &BTreeMap<u16, String>,
        over: u64,
    ) -> Result<bool, OwnershipError> {
        let mut state = self.state.lock();
        if state.plans.get(&role).map_or(0, |plan| plan.revision) != over {
            return Ok(false);
        }
        let revision = state.next();
        state.plans.insert(role, Plan { units: units.clone(), revision });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn conforms() {
        crate::ownership::conformance::all(&InProcessOwnership::default()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_lasts_as_long_as_it_says() {
        let ownership = InProcessOwnership::default();
        let (role, after) = (ShardedRole::Writer, |ms| tokio::time::advance(Duration::from_millis(ms)));
        let lease = ownership.acquire(role, 0, "a").await.unwrap().unwrap();
        after(LEASE_MS - 1).await;
        assert_eq!(ownership.acquire(role, 0, "b").await, Ok(None));
        let lease = ownership.renew(&lease, "a").await.unwrap();
        after(LEASE_MS - 1).await;
        assert_eq!(ownership.acquire(role, 0, "b").await, Ok(None));
        after(1).await;
        assert!(ownership.acquire(role, 0, "b").await.unwrap().unwrap().generation > lease.generation);
        assert_eq!(ownership.renew(&lease, "a").await, Err(OwnershipError::Lost));
    }
}
