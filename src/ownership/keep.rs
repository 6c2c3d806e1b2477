//! Keeping leases: what a worker of a sharded role does to own its share, and no more (rule P3).

use super::{
    GIVE_UP_MS, LEASE_MS, Lease, LeaseUnits, Ownership, OwnershipError, OwnershipPort, Plan, RENEW_MS,
    ShardedRole,
};
use crate::domain::plan::assign;
use crate::edge_link::Generation;
use crate::log::ShardSet;
use crate::log::reading::{DOUBT_AFTER, Health};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use futures_util::StreamExt;
use futures_util::future::{self, join_all};
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use reedi_protocol::Shard;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the plan is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked who leads and who is there: what a worker that died adds to the life of its
/// lease, until another is planned in its place.
const LEAD_EVERY: Duration = Duration::from_secs(1);

/// How long who doubted waits for the others to come back before it plans: until each that lost the log
/// with it has looked at it again, and has announced itself.
const SETTLED_AFTER: Duration = DOUBT_AFTER.saturating_mul(2);

/// A plan of another division is nobody's any more when nobody has held a lease for this long: all who held one may
/// have lost them together, and come back.
const VACANT_FOR: Duration = Duration::from_millis(LEASE_MS);

/// Whether this worker divides the shards into lease units as those do who hold them. One that does not takes none: by
/// their plan it would work on other shards than they leave to it, and some would be nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Division {
    /// The plan could not be read yet.
    #[default]
    Unknown,
    Same,
    /// They divide into so many.
    Other(u16),
}

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

/// How long one answer about ownership may take. Two such waits, and what lies between them, fit into the
/// 8 s after which a lease is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

struct Held {
    lease: Lease,
    renewed: Instant,
    /// A renewal is under way.
    asking: bool,
}

/// What this worker holds now. Never locked across an await.
type Leases = Mutex<BTreeMap<u16, Held>>;

/// One worker's keeper.
pub struct Keeper {
    pub ownership: Ownership,
    pub role: ShardedRole,
    pub units: LeaseUnits,
    /// This worker's name, fresh at every start.
    pub worker: String,
    pub metrics: Metrics,
    /// Whether this worker can read the log: one that cannot is of no use to its shards.
    pub health: watch::Receiver<Health>,
    /// What the keeper tells of how the shards are divided.
    pub division: watch::Sender<Division>,
}

/// An answer about ownership, or that there was none in time.
async fn answered<T>(answer: impl Future<Output = Result<T, OwnershipError>>) -> Result<T, OwnershipError> {
    let late = |_| OwnershipError::Unavailable(format!("no answer within {ANSWER_WITHIN:?}"));
    tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(late)?
}

/// Ends at a change of one. Without somebody who tells, all stays as it is.
async fn either_changed(health: &mut watch::Receiver<Health>, division: &mut watch::Receiver<Division>) {
    let changed = tokio::select! {
        changed = health.changed() => changed,
        changed = division.changed() => changed,
    };
    if changed.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits, or until the process leaves.
async fn pause_until(then: Instant, shutdown: &Shutdown) {
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        () = tokio::time::sleep_until(then) => {}
    }
}

impl Keeper {
    /// Keeps this worker's share until the process leaves, then gives it back. `owned` always says
    /// what may be worked on.
    pub async fn run(self, owned: watch::Sender<Owned>, shutdown: Shutdown) {
        let held = Leases::default();
        if self.look_at_division(&mut None).await.is_ok() && self.stands() {
            // Before the first plan, so that whoever makes it knows of this worker.
            let _ = answered(self.ownership.announce(self.role, &self.worker)).await;
        }
        // None waits for another: who has much to acquire, or leads, loses nothing meanwhile.
        tokio::join!(
            self.keep_standing(&shutdown),
            self.keep_renewed(&held, &owned, &shutdown),
            self.keep_to_plan(&held, &owned, &shutdown),
        );
        let leases = std::mem::take(&mut *held.lock()).into_values().map(|held| held.lease).collect();
        self.publish(&held, &owned);
        self.release(leases).await;
        let _ = answered(self.ownership.withdraw(self.role, &self.worker)).await;
    }

    fn can_read(&self) -> bool {
        self.health.borrow().can_read()
    }

    fn stands(&self) -> bool {
        self.can_read() && *self.division.borrow() == Division::Same
    }

    /// Waits until this worker can take shards, or cannot.
    async fn until_it_stands(&self, does: bool) {
        let (mut health, mut division) = (self.health.clone(), self.division.subscribe());
        while self.stands() != does {
            either_changed(&mut health, &mut division).await;
        }
    }

    /// Stands for shards and for the lead, while this worker can read the log and divides the shards as the others do.
    /// What it has goes to others as the plan says, and where nobody else can read either there is no other plan: all
    /// keep what they have, and go on at once when the log is back.
    async fn keep_standing(&self, shutdown: &Shutdown) {
        let role = self.role.name();
        loop {
            self.metrics.set_log_unreadable(role, !self.can_read());
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                () = self.until_it_stands(false) => {}
                _ = future::join(self.keep_announced(shutdown), self.keep_leading(shutdown)) => return,
            }
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                () = self.until_it_stands(true) => {}
                _ = future::join(self.tell_why_not(), self.stand_back()) => {}
            }
            tracing::info!(role, "taking shards");
        }
    }

    /// Tells why this worker takes no shards, whenever that changes.
    async fn tell_why_not(&self) {
        let role = self.role.name();
        let (mut health, mut division) = (self.health.clone(), self.division.subscribe());
        let mut told = None;
        loop {
            let (can_read, divided) = (self.can_read(), *division.borrow_and_update());
            if told.replace((can_read, divided)) != Some((can_read, divided)) {
                self.metrics.set_log_unreadable(role, !can_read);
                if let Division::Other(theirs) = divided {
                    let here = self.units.count();
                    tracing::warn!(
                        role,
                        here,
                        theirs,
                        "those who hold the shards divide them otherwise: taking none"
                    );
                }
                if !can_read {
                    tracing::warn!(role, "the log cannot be read here: leaving the shards to others");
                }
            }
            either_changed(&mut health, &mut division).await;
        }
    }

    /// Takes the announcement and the lead back, and waits.
    async fn stand_back(&self) {
        while let Err(error) = answered(self.ownership.withdraw(self.role, &self.worker)).await {
            tracing::debug!(%error, role = self.role.name(), "the announcement could not be taken back");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        std::future::pending().await
    }

    async fn keep_announced(&self, shutdown: &Shutdown) {
        while !shutdown.is_draining() {
            let asked = Instant::now();
            let again = match answered(self.ownership.announce(self.role, &self.worker)).await {
                Ok(()) => asked + Duration::from_millis(RENEW_MS),
                Err(_) => Instant::now() + LOOK_EVERY,
            };
            pause_until(again, shutdown).await;
        }
    }

    async fn keep_leading(&self, shutdown: &Shutdown) {
        while !shutdown.is_draining() {
            let asked = Instant::now();
            if let Err(error) = self.lead().await {
                tracing::debug!(%error, role = self.role.name(), "it cannot be told who leads");
            }
            pause_until(asked + LEAD_EVERY, shutdown).await;
        }
    }

    /// Makes the plan, where nobody else does.
    async fn lead(&self) -> Result<(), OwnershipError> {
        if answered(self.ownership.lead(self.role, &self.worker)).await? {
            // Before the list: a plan that somebody makes of a newer one is not overwritten.
            let current = answered(self.ownership.plan(self.role)).await?;
            let workers = answered(self.ownership.workers(self.role)).await?;
            if !workers.contains(&self.worker) {
                // Announcements run out while they cannot be renewed, all at once, and come back one by one: by a list
                // without even this worker everything would be taken from everybody.
                return Ok(());
            }
            // One of another division is nobody's any more: this worker would not stand otherwise.
            let kept = if self.is_mine(&current) { &current.units } else { &BTreeMap::new() };
            let plan = assign(self.units.count(), &workers, kept);
            if plan != current.units && self.may_plan() {
                let is_put = answered(self.ownership.put_plan(self.role, &plan, current.revision)).await?;
                tracing::info!(role = self.role.name(), workers = workers.len(), is_put, "a new plan");
            }
        }
        Ok(())
    }

    /// Whether it can be told from the list who is gone. What this worker could not read others could not
    /// either, perhaps, and are about to announce themselves again, one by one.
    fn may_plan(&self) -> bool {
        match *self.health.borrow() {
            Health::Reads { since } => since.is_none_or(|since| since.elapsed() >= SETTLED_AFTER),
            Health::Doubtful | Health::Cannot => false,
        }
    }

    /// Renews each lease when it is due, and stops what could not be renewed in time.
    async fn keep_renewed(&self, held: &Leases, owned: &watch::Sender<Owned>, shutdown: &Shutdown) {
        let mut renewals = FuturesUnordered::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                _ = look.tick() => {
                    self.give_up(held);
                    self.publish(held, owned);
                    renewals.extend(due(held).into_iter().map(|lease| self.renew(lease)));
                }
                Some((lease, asked, renewed)) = renewals.next() => self.note_renewal(held, lease, asked, renewed),
            }
        }
    }

    async fn renew(&self, lease: Lease) -> (Lease, Instant, Result<Lease, OwnershipError>) {
        // Counted from before the request: the lease cannot run out sooner.
        let asked = Instant::now();
        (lease, asked, answered(self.ownership.renew(&lease, &self.worker)).await)
    }

    fn note_renewal(
        &self,
        held: &Leases,
        lease: Lease,
        asked: Instant,
        renewed: Result<Lease, OwnershipError>,
    ) {
        let mut held = held.lock();
        // Given back or acquired anew meanwhile: the answer is about something that is over.
        let still = held.get_mut(&lease.unit).filter(|held| held.lease.generation == lease.generation);
        let Some(still) = still else { return };
        match renewed {
            Ok(lease) => *still = Held { lease, renewed: asked, asking: false },
            Err(OwnershipError::Unavailable(_)) => still.asking = false,
            Err(OwnershipError::Lost) => {
                tracing::warn!(role = self.role.name(), unit = lease.unit, "a lease was lost");
                self.metrics.lease_lost(self.role.name());
                held.remove(&lease.unit);
            }
        }
    }

    /// Lets go of what could not be renewed in time, before anybody else may begin.
    fn give_up(&self, held: &Leases) {
        let within = Duration::from_millis(GIVE_UP_MS);
        let mut held = held.lock();
        let before = held.len();
        held.retain(|_, held| held.renewed.elapsed() < within);
        if held.len() != before {
            let units = before - held.len();
            tracing::warn!(role = self.role.name(), units, "leases could not be renewed in time");
            (0..units).for_each(|_| self.metrics.lease_lost(self.role.name()));
        }
    }

    async fn keep_to_plan(&self, held: &Leases, owned: &watch::Sender<Owned>, shutdown: &Shutdown) {
        let mut vacant_since = None;
        while !shutdown.is_draining() {
            if let Err(error) = self.follow_plan(held, owned, &mut vacant_since).await {
                tracing::debug!(%error, role = self.role.name(), "ownership cannot be told now");
            }
            pause_until(Instant::now() + LOOK_EVERY, shutdown).await;
        }
    }

    /// Whether `plan` divides the shards as this worker does: a plan has all units, or none.
    fn is_mine(&self, plan: &Plan) -> bool {
        plan.units.is_empty() || plan.units.len() == usize::from(self.units.count())
    }

    /// Reads the plan, and tells whether it divides as this worker does, or is by now of nobody who holds anything;
    /// `vacant_since` is kept from one look to the next.
    async fn look_at_division(&self, vacant_since: &mut Option<Instant>) -> Result<Plan, OwnershipError> {
        let seen_vacant = vacant_since.take();
        let plan = answered(self.ownership.plan(self.role)).await?;
        let mut division = Division::Same;
        if !self.is_mine(&plan) {
            let holders = answered(self.ownership.holders(self.role)).await?;
            if holders.values().all(|holder| *holder == self.worker) {
                *vacant_since = Some(seen_vacant.unwrap_or_else(Instant::now));
            }
            if vacant_since.is_none_or(|since| since.elapsed() < VACANT_FOR) {
                division = Division::Other(u16::try_from(plan.units.len()).unwrap_or(u16::MAX));
            }
        }
        self.division.send_if_modified(|told| std::mem::replace(told, division) != division);
        Ok(plan)
    }

    /// Gives back what another should have and acquires what is missing, all at once.
    async fn follow_plan(
        &self,
        held: &Leases,
        owned: &watch::Sender<Owned>,
        vacant_since: &mut Option<Instant>,
    ) -> Result<(), OwnershipError> {
        let plan = self.look_at_division(vacant_since).await?;
        let is_mine = self.is_mine(&plan);
        let plan = plan.units;
        let mine = |unit: &u16| is_mine && plan.get(unit).is_some_and(|worker| *worker == self.worker);
        let surplus: Vec<Lease> =
            held.lock().extract_if(.., |unit, _| !mine(unit)).map(|(_, held)| held.lease).collect();
        if !surplus.is_empty() {
            // Stop first, then let go.
            self.publish(held, owned);
            self.release(surplus).await;
        }
        let missing: Vec<u16> = {
            let (held, can_read) = (held.lock(), self.can_read());
            let is_missing = |unit: &&u16| can_read && mine(unit) && !held.contains_key(unit);
            plan.keys().filter(is_missing).copied().collect()
        };
        let acquiring = missing.into_iter().map(|unit| async move {
            let asked = Instant::now();
            (asked, answered(self.ownership.acquire(self.role, unit, &self.worker)).await)
        });
        let mut acquiring: FuturesUnordered<_> = acquiring.collect();
        let mut error = None;
        while let Some((asked, acquired)) = acquiring.next().await {
            match acquired {
                // What is acquired is renewed from here on, whatever the others wait for.
                Ok(Some(lease)) => {
                    held.lock().insert(lease.unit, Held { lease, renewed: asked, asking: false });
                }
                Ok(None) => {}
                Err(why) => error = Some(why),
            }
        }
        self.publish(held, owned);
        error.map_or(Ok(()), Err)
    }

    /// Gives leases back, all at once. One that cannot be given back runs out by itself.
    async fn release(&self, leases: Vec<Lease>) {
        let releasing = leases.iter().map(|lease| answered(self.ownership.release(lease, &self.worker)));
        for released in join_all(releasing).await {
            if let Err(error) = released {
                tracing::debug!(%error, role = self.role.name(), "a lease was not given back");
            }
        }
    }

    fn publish(&self, held: &Leases, owned: &watch::Sender<Owned>) {
        let held = held.lock();
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

/// The leases that it is time to renew; from here on they count as being asked for.
fn due(held: &Leases) -> Vec<Lease> {
    let due = Duration::from_millis(RENEW_MS);
    let mut held = held.lock();
    let held = held.values_mut().filter(|held| !held.asking && held.renewed.elapsed() >= due);
    held.map(|held| {
        held.asking = true;
        held.lease
    })
    .collect()
}

#[cfg(test)]
mod simulated;
