//! What every ownership must do, as checks that each adapter's test calls. They need it for
//! themselves: units are numbers, and there is one plan and one leader per role.
//!
//! A check panics with what it found; there is nothing to return. What expires is asked for again and
//! again with a bound, by tokio's clock, so that a paused one makes no one wait.

use super::{LEASE_MS, Lease, LeaseUnits, OwnershipError, OwnershipPort, Plan, ShardedRole};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What expires must be gone after three times its life.
const PATIENCE: Duration = Duration::from_millis(3 * LEASE_MS);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Every check, those that wait for something to expire at the same time.
///
/// # Panics
/// As every check: where the ownership does not keep its contract.
pub async fn all<O: OwnershipPort>(ownership: &O) {
    one_holds_a_unit(ownership).await;
    a_released_unit_is_free(ownership).await;
    roles_do_not_meet(ownership).await;
    many_race_for_one_unit(ownership).await;
    a_plan_is_read_back(ownership).await;
    workers_come_and_go(ownership).await;
    tokio::join!(
        what_is_not_renewed_is_lost(ownership),
        what_is_renewed_stays(ownership),
        a_silent_worker_is_gone(ownership),
        one_leads(ownership),
    );
}

/// A name as a worker gives itself, fresh at every start.
fn worker() -> String {
    format!("worker-{:08x}.host", rand::random::<u32>())
}

async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        sleep(LOOK_EVERY).await;
    }
}

async fn take<O: OwnershipPort>(ownership: &O, role: ShardedRole, unit: u16, worker: &str) -> Lease {
    let lease = ownership.acquire(role, unit, worker).await.expect("acquire");
    lease.unwrap_or_else(|| panic!("nobody holds {unit}, and {worker} did not get it"))
}

/// Whoever holds a unit holds it alone, and asks again without harm.
pub async fn one_holds_a_unit<O: OwnershipPort>(ownership: &O) {
    let (role, one, other) = (ShardedRole::Delivery, worker(), worker());
    let lease = take(ownership, role, 1, &one).await;
    assert_eq!((lease.role, lease.unit), (role, 1));
    assert_eq!(ownership.acquire(role, 1, &other).await, Ok(None));
    let renewed = ownership.renew(&lease, &one).await.expect("renew");
    assert_eq!(renewed.generation, lease.generation, "renewing is no new ownership");
    assert_eq!(ownership.acquire(role, 1, &other).await, Ok(None));
    // The answer to a renewal may be lost; the token from before it still renews.
    let again = ownership.renew(&lease, &one).await.expect("renewing with the token before");
    // And that of an acquisition: the holder gets it anew, above the one that it did not hear of.
    let anew = take(ownership, role, 1, &one).await;
    assert!(anew.generation > again.generation);
    assert_eq!(ownership.renew(&again, &one).await, Err(OwnershipError::Lost));
    assert_eq!(ownership.holders(role).await.expect("holders").get(&1), Some(&one));
    ownership.release(&anew, &one).await.expect("release");
}

/// A released unit can be taken at once, and by a higher generation each time.
pub async fn a_released_unit_is_free<O: OwnershipPort>(ownership: &O) {
    let (role, mut generation) = (ShardedRole::Delivery, None);
    for _ in 0..5 {
        let one = worker();
        let lease = take(ownership, role, 2, &one).await;
        assert!(Some(lease.generation) > generation, "a generation came twice");
        generation = Some(lease.generation);
        let lease = ownership.renew(&lease, &one).await.expect("renew");
        ownership.release(&lease, &one).await.expect("release");
        assert_eq!(ownership.renew(&lease, &one).await, Err(OwnershipError::Lost), "released is lost");
        assert_eq!(ownership.holders(role).await.expect("holders").get(&2), None);
    }
    let (old, new) = (worker(), worker());
    let lease = take(ownership, role, 2, &old).await;
    ownership.release(&lease, &old).await.expect("release");
    let newer = take(ownership, role, 2, &new).await;
    assert_eq!(
        ownership.release(&lease, &old).await,
        Err(OwnershipError::Lost),
        "releasing what is another's"
    );
    assert!(ownership.renew(&newer, &new).await.is_ok(), "the new holder keeps it");
}

/// The same unit of another role is another unit.
pub async fn roles_do_not_meet<O: OwnershipPort>(ownership: &O) {
    let (one, other) = (worker(), worker());
    take(ownership, ShardedRole::Delivery, 3, &one).await;
    take(ownership, ShardedRole::Writer, 3, &other).await;
    let holder = |role| async move { ownership.holders(role).await.expect("holders").get(&3).cloned() };
    assert_eq!(holder(ShardedRole::Delivery).await, Some(one));
    assert_eq!(holder(ShardedRole::Writer).await, Some(other));
}

/// Of many who want a unit at once one gets it.
pub async fn many_race_for_one_unit<O: OwnershipPort>(ownership: &O) {
    let last = LeaseUnits::new(256).expect("256 units").count() - 1;
    let workers: Vec<String> = (0..10).map(|_| worker()).collect();
    let asked = workers.iter().map(|worker| ownership.acquire(ShardedRole::Writer, last, worker));
    let answers = futures_util::future::join_all(asked).await;
    let won: Vec<&String> = workers
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.as_ref().expect("acquire").is_some())
        .map(|(worker, _)| worker)
        .collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert_eq!(ownership.holders(ShardedRole::Writer).await.expect("holders").get(&last), Some(won[0]));
}

/// The newest plan is what everybody reads, and is overwritten only by who has read it.
pub async fn a_plan_is_read_back<O: OwnershipPort>(ownership: &O) {
    let role = ShardedRole::Delivery;
    for role in [role, ShardedRole::Writer] {
        assert_eq!(ownership.plan(role).await, Ok(Plan::default()), "nobody has written one");
    }
    let units: BTreeMap<u16, String> = (0..256).map(|unit| (unit, worker())).collect();
    assert_eq!(ownership.put_plan(role, &units, 0).await, Ok(true));
    let first = ownership.plan(role).await.expect("plan");
    assert_eq!(first.units, units);
    assert_eq!(ownership.plan(ShardedRole::Writer).await, Ok(Plan::default()));
    let newer: BTreeMap<u16, String> = [(7, worker())].into();
    assert_eq!(ownership.put_plan(role, &newer, first.revision).await, Ok(true));
    for old in [0, first.revision] {
        assert_eq!(ownership.put_plan(role, &units, old).await, Ok(false), "made of a plan that is over");
    }
    let stands = ownership.plan(role).await.expect("plan");
    assert_eq!(stands.units, newer);
    assert!(stands.revision > first.revision);
}

/// Announced workers are listed, withdrawn ones are not.
pub async fn workers_come_and_go<O: OwnershipPort>(ownership: &O) {
    let role = ShardedRole::Writer;
    let (mut one, mut other) = (worker(), worker());
    if other < one {
        std::mem::swap(&mut one, &mut other);
    }
    for worker in [&other, &one, &one] {
        ownership.announce(role, worker).await.expect("announce");
    }
    ownership.announce(ShardedRole::Delivery, &worker()).await.expect("announce");
    let listed = async || {
        let mut workers = ownership.workers(role).await.expect("workers");
        workers.sort();
        workers
    };
    eventually("both are listed, once each", || async { listed().await == [one.clone(), other.clone()] })
        .await;
    ownership.withdraw(role, &one).await.expect("withdraw");
    eventually("one has left", || async { listed().await == [other.clone()] }).await;
    ownership.withdraw(role, &other).await.expect("withdraw");
    eventually("all have left", || async { listed().await.is_empty() }).await;
}

/// A lease that is not renewed can be taken, and is lost for whoever had it.
pub async fn what_is_not_renewed_is_lost<O: OwnershipPort>(ownership: &O) {
    let (role, old, new) = (ShardedRole::Delivery, worker(), worker());
    let lease = take(ownership, role, 10, &old).await;
    let began = Instant::now();
    let taken = loop {
        assert!(began.elapsed() < PATIENCE, "a lease outlived its owner");
        match ownership.acquire(role, 10, &new).await.expect("acquire") {
            Some(taken) => break taken,
            None => sleep(LOOK_EVERY).await,
        }
    };
    assert!(began.elapsed() >= Duration::from_millis(LEASE_MS - 500), "taken after {:?}", began.elapsed());
    assert!(taken.generation > lease.generation);
    assert_eq!(ownership.renew(&lease, &old).await, Err(OwnershipError::Lost));
    assert_eq!(ownership.release(&lease, &old).await, Err(OwnershipError::Lost));
    assert_eq!(ownership.holders(role).await.expect("holders").get(&10), Some(&new));
}

/// A lease that is renewed is not taken, however long it lasts.
pub async fn what_is_renewed_stays<O: OwnershipPort>(ownership: &O) {
    let (role, one, other) = (ShardedRole::Delivery, worker(), worker());
    let mut lease = take(ownership, role, 11, &one).await;
    let until = Instant::now() + Duration::from_millis(LEASE_MS + LEASE_MS / 2);
    while Instant::now() < until {
        sleep(Duration::from_millis(super::RENEW_MS)).await;
        lease = ownership.renew(&lease, &one).await.expect("renew");
        assert_eq!(ownership.acquire(role, 11, &other).await, Ok(None));
    }
    ownership.release(&lease, &one).await.expect("release");
}

/// A worker that does not announce itself any more is not listed, and leaves no lease behind.
pub async fn a_silent_worker_is_gone<O: OwnershipPort>(ownership: &O) {
    let (role, silent) = (ShardedRole::Writer, worker());
    ownership.announce(role, &silent).await.expect("announce");
    take(ownership, role, 12, &silent).await;
    let is_listed = async || ownership.workers(role).await.expect("workers").contains(&silent);
    eventually("it is listed", || async { is_listed().await }).await;
    eventually("it is gone", || async { !is_listed().await }).await;
    let holds = async || ownership.holders(role).await.expect("holders").contains_key(&12);
    eventually("its lease is gone", || async { !holds().await }).await;
}

/// One candidate leads as long as it asks; then another does.
pub async fn one_leads<O: OwnershipPort>(ownership: &O) {
    let (role, one, other) = (ShardedRole::Delivery, worker(), worker());
    assert_eq!(ownership.lead(role, &one).await, Ok(true));
    assert_eq!(ownership.lead(role, &other).await, Ok(false));
    assert_eq!(ownership.lead(ShardedRole::Writer, &other).await, Ok(true), "each role has its own");
    let until = Instant::now() + Duration::from_millis(LEASE_MS + LEASE_MS / 2);
    while Instant::now() < until {
        sleep(Duration::from_millis(super::RENEW_MS)).await;
        assert_eq!(ownership.lead(role, &one).await, Ok(true));
        assert_eq!(ownership.lead(role, &other).await, Ok(false));
    }
    eventually("another leads", || async { ownership.lead(role, &other).await == Ok(true) }).await;
    assert_eq!(ownership.lead(role, &one).await, Ok(false), "whoever came back does not lead");
    ownership.withdraw(role, &one).await.expect("withdraw");
    assert_eq!(ownership.lead(role, &one).await, Ok(false), "one that does not lead leaves the leader alone");
    ownership.withdraw(role, &other).await.expect("withdraw");
    assert_eq!(ownership.lead(role, &one).await, Ok(true), "a leader that leaves makes room at once");
}
