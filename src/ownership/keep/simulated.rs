//! Keepers over an ownership that answers slowly, on a paused clock.

use super::*;
use crate::ownership::LEASE_MS;
use crate::ownership::in_process::InProcessOwnership;
use crate::ownership::simulated::SimulatedOwnership;
use crate::runtime::fault::{Faults, Lines, Process, Trace};

const UNITS: u16 = 64;
const ROLE: ShardedRole = ShardedRole::Delivery;

/// One worker with a keeper that runs.
struct Worker {
    name: String,
    owned: watch::Receiver<Owned>,
    /// What its reading tells the keeper.
    reading: watch::Sender<Health>,
    division: watch::Receiver<Division>,
    shutdown: Shutdown,
    keeping: tokio::task::JoinHandle<()>,
}

/// A keeper over `ownership`, each call of which takes up to `latency` there and as much back.
fn keeper(name: &str, ownership: &InProcessOwnership, latency: Duration) -> Keeper {
    let faults = Faults { latency, ..Faults::default() };
    let process = Process::new(name, faults, Trace::new(Lines::Hashed));
    Keeper {
        ownership: Ownership::Simulated(SimulatedOwnership::new(ownership.clone(), process)),
        role: ROLE,
        units: LeaseUnits::new(UNITS).unwrap(),
        worker: name.to_owned(),
        metrics: Metrics::new(),
        health: watch::channel(Health::Reads { since: None }).1,
        division: watch::Sender::default(),
    }
}

/// Begins to keep leases of `ownership`.
fn begin(name: &str, ownership: &InProcessOwnership, latency: Duration) -> Worker {
    begin_with(UNITS, name, ownership, latency)
}

/// As [`begin`], dividing the shards into `units`.
fn begin_with(units: u16, name: &str, ownership: &InProcessOwnership, latency: Duration) -> Worker {
    let reading = watch::Sender::new(Health::Reads { since: None });
    let (health, units) = (reading.subscribe(), LeaseUnits::new(units).unwrap());
    let keeper = Keeper { health, units, ..keeper(name, ownership, latency) };
    let division = keeper.division.subscribe();
    let ((tell, owned), shutdown) = (watch::channel(Owned::default()), Shutdown::new());
    let keeping = tokio::spawn(keeper.run(tell, shutdown.clone()));
    Worker { name: name.to_owned(), owned, reading, division, shutdown, keeping }
}

impl Worker {
    fn owns(&self) -> Owned {
        self.owned.borrow().clone()
    }

    /// Waits until it owns `shards` shards. Gives how long that took.
    async fn until_it_owns(&mut self, shards: usize, within: Duration) -> Duration {
        let begun = Instant::now();
        let owning = self.owned.wait_for(|owned| owned.iter().count() == shards);
        let owns = tokio::time::timeout(within, owning).await.is_ok();
        assert!(
            owns,
            "{} owns {} of {shards} shards after {within:?}",
            self.name,
            self.owns().iter().count()
        );
        begun.elapsed()
    }

    /// Looks for as long as `time` that it loses nothing.
    async fn keeps_all(&mut self, time: Duration) {
        let (before, until) = (self.owns(), Instant::now() + time);
        while let Ok(changed) = tokio::time::timeout_at(until, self.owned.changed()).await {
            changed.unwrap();
            let now = self.owns();
            let lost =
                before.iter().filter(|(shard, generation)| now.generation(*shard) != Some(*generation));
            assert_eq!(
                lost.count(),
                0,
                "{} lost shards after {:?}",
                self.name,
                time - (until - Instant::now())
            );
        }
    }

    fn cannot_read(&self) {
        self.reading.send_replace(Health::Cannot);
    }

    fn reads_again(&self) {
        self.reading.send_replace(Health::Reads { since: Some(Instant::now()) });
    }

    async fn leave(self) -> Duration {
        let begun = Instant::now();
        self.shutdown.drain();
        self.keeping.await.unwrap();
        begun.elapsed()
    }
}

/// One after the other, 64 leases take 13 s where an answer takes 200 ms: the first ran out before the
/// last was there, and so on for ever.
#[tokio::test(start_paused = true)]
async fn all_leases_of_a_lone_worker_are_held_soon_and_none_runs_out_meanwhile() {
    let ownership = InProcessOwnership::default();
    let mut worker = begin("lone", &ownership, Duration::from_millis(200));
    worker.until_it_owns(256, Duration::from_secs(5)).await;
    worker.keeps_all(Duration::from_secs(300)).await;
}

/// Announcing, leading and planning are five questions, which together take longer than a lease may wait.
#[tokio::test(start_paused = true)]
async fn a_leader_with_much_to_ask_does_not_lose_its_own() {
    let ownership = InProcessOwnership::default();
    let mut worker = begin("leader", &ownership, Duration::from_millis(900));
    worker.until_it_owns(256, Duration::from_secs(30)).await;
    worker.keeps_all(Duration::from_secs(300)).await;
}

/// Where nobody could announce itself for a while, the list comes back one by one: who leads before it is listed
/// itself must not take everything from everybody.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_listed_leaves_the_plan_alone() {
    let ownership = InProcessOwnership::default();
    let keeper = keeper("first", &ownership, Duration::ZERO);
    ownership.announce(ROLE, "second").await.unwrap();
    keeper.lead().await.unwrap();
    assert!(ownership.plan(ROLE).await.unwrap().units.is_empty(), "it does not know of itself yet");
    ownership.announce(ROLE, "first").await.unwrap();
    keeper.lead().await.unwrap();
    let plan = ownership.plan(ROLE).await.unwrap();
    let owners: Vec<&String> = plan.units.values().collect();
    assert_eq!(owners.len(), usize::from(UNITS));
    assert!(owners.iter().any(|owner| *owner == "first") && owners.iter().any(|owner| *owner == "second"));
    tokio::time::advance(Duration::from_millis(LEASE_MS + 1)).await;
    keeper.lead().await.unwrap();
    assert_eq!(ownership.plan(ROLE).await.unwrap(), plan);
}

/// Where answers are slow, a renewal may come back after its lease was given back: who has let go of a
/// unit must not take it for its own again.
#[tokio::test(start_paused = true)]
async fn no_unit_has_two_owners_while_workers_come_and_go() {
    let ownership = InProcessOwnership::default();
    let slowly = |name: &str| begin(name, &ownership, Duration::from_millis(900));
    let mut workers = vec![slowly("one")];
    workers[0].until_it_owns(256, Duration::from_secs(30)).await;
    for name in ["two", "three", "four"] {
        workers.push(slowly(name));
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let owners: Vec<Owned> = workers.iter().map(Worker::owns).collect();
            for shard in Shard::all() {
                let owners = owners.iter().filter(|owned| owned.generation(shard).is_some()).count();
                assert!(owners <= 1, "{owners} workers take shard {} for their own", shard.0);
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let shares: Vec<usize> = workers.iter().map(|worker| worker.owns().iter().count()).collect();
        assert_eq!(shares.iter().sum::<usize>(), 256, "{shares:?}");
        assert!(shares.iter().all(|share| share.abs_diff(256 / workers.len()) <= 4), "{shares:?}");
    }
}

/// Who leaves gives its leases back together, well before they would run out.
#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_gives_everything_back_at_once() {
    let ownership = InProcessOwnership::default();
    let latency = Duration::from_millis(200);
    let mut worker = begin("one", &ownership, latency);
    worker.until_it_owns(256, Duration::from_secs(60)).await;
    let left = worker.leave().await;
    assert!(left < Duration::from_millis(LEASE_MS / 4), "it took {left:?} to leave");
    assert_eq!(ownership.holders(ROLE).await, Ok(BTreeMap::new()));
    let mut heir = begin("two", &ownership, latency);
    heir.until_it_owns(256, Duration::from_secs(5)).await;
}

/// Renewing goes over another connection than reading: who hears nothing of the log any more would keep its shards
/// and deliver nothing.
#[tokio::test(start_paused = true)]
async fn who_cannot_read_leaves_its_shards_to_others_until_it_can() {
    let ownership = InProcessOwnership::default();
    let latency = Duration::from_millis(50);
    let mut deaf = begin("deaf", &ownership, latency);
    deaf.until_it_owns(256, Duration::from_secs(10)).await;
    let mut other = begin("other", &ownership, latency);
    other.until_it_owns(128, Duration::from_secs(10)).await;
    // It leads, and the lead goes as well.
    deaf.cannot_read();
    let took = other.until_it_owns(256, Duration::from_secs(10)).await;
    assert!(took < Duration::from_secs(4), "edges take themselves for deaf meanwhile: {took:?}");
    assert_eq!(deaf.owns(), Owned::default());
    assert_eq!(ownership.workers(ROLE).await.unwrap(), ["other"]);
    other.keeps_all(Duration::from_secs(120)).await;
    assert_eq!(deaf.owns(), Owned::default());
    deaf.reads_again();
    deaf.until_it_owns(128, Duration::from_secs(10)).await;
    other.until_it_owns(128, Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_read_takes_nothing() {
    let ownership = InProcessOwnership::default();
    ownership.put_plan(ROLE, &(0..UNITS).map(|unit| (unit, "deaf".to_owned())).collect(), 0).await.unwrap();
    let mut deaf = begin("deaf", &ownership, Duration::ZERO);
    deaf.cannot_read();
    deaf.keeps_all(Duration::from_secs(60)).await;
    assert_eq!(deaf.owns(), Owned::default());
    assert!(ownership.workers(ROLE).await.unwrap().is_empty());
    deaf.reads_again();
    deaf.until_it_owns(256, Duration::from_secs(5)).await;
}

/// With nobody to take them over, letting go of shards would help nobody, and cost everybody a handover.
#[tokio::test(start_paused = true)]
async fn where_nobody_can_read_all_keep_what_they_have() {
    let ownership = InProcessOwnership::default();
    let latency = Duration::from_millis(50);
    let mut workers = vec![begin("one", &ownership, latency)];
    workers[0].until_it_owns(256, Duration::from_secs(10)).await;
    workers.extend(["two", "three", "four"].map(|name| begin(name, &ownership, latency)));
    for worker in &mut workers {
        worker.until_it_owns(64, Duration::from_secs(20)).await;
    }
    let plan = ownership.plan(ROLE).await.unwrap();
    let readings: Vec<watch::Sender<Health>> = workers.iter().map(|worker| worker.reading.clone()).collect();
    let keeping = join_all(workers.iter_mut().map(|worker| worker.keeps_all(Duration::from_secs(120))));
    let away = async {
        for _ in 0..3 {
            for reading in &readings {
                reading.send_replace(Health::Doubtful);
            }
            // Some say so sooner than others, and it is over before the last does.
            for reading in &readings[..3] {
                reading.send_replace(Health::Cannot);
                // sleeps: what lies between two workers' looks, on a paused clock
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            // sleeps: the log is away, on a paused clock
            tokio::time::sleep(Duration::from_secs(20)).await;
            for reading in readings.iter().rev() {
                reading.send_replace(Health::Reads { since: Some(Instant::now()) });
                // sleeps: they come back one by one, on a paused clock
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // sleeps: whoever leads may plan again, on a paused clock
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    tokio::join!(keeping, away);
    assert_eq!(ownership.plan(ROLE).await.unwrap(), plan);
}

/// By a plan of 64 units one that divides into 32 worked on other shards than those that were left to it: some were
/// nobody's, for as long as it was there.
#[tokio::test(start_paused = true)]
async fn who_divides_the_shards_otherwise_takes_none_until_nobody_else_has_any() {
    let ownership = InProcessOwnership::default();
    let latency = Duration::from_millis(50);
    let mut first = begin("first", &ownership, latency);
    first.until_it_owns(256, Duration::from_secs(10)).await;
    let mut other = begin_with(32, "other", &ownership, latency);
    first.keeps_all(Duration::from_secs(60)).await;
    assert_eq!(other.owns(), Owned::default());
    assert_eq!(*other.division.borrow(), Division::Other(UNITS));
    assert_eq!(ownership.workers(ROLE).await.unwrap(), ["first"]);

    // Leases that run out because nobody can be asked are nobody's for a moment only.
    first.leave().await;
    let mut again = begin("again", &ownership, latency);
    again.until_it_owns(256, Duration::from_secs(10)).await;
    // For longer than there is between two looks: what nobody saw held counts as free all the time.
    again.keeps_all(4 * LOOK_EVERY).await;
    assert_eq!(other.owns(), Owned::default());

    // Its leases are free before it has left.
    let leaving = Instant::now();
    again.leave().await;
    other.until_it_owns(256, Duration::from_secs(20)).await;
    assert!(leaving.elapsed() >= VACANT_FOR, "{:?}", leaving.elapsed());
    assert_eq!(*other.division.borrow(), Division::Same);
    let mut same = begin_with(32, "same", &ownership, latency);
    same.until_it_owns(128, Duration::from_secs(10)).await;
    let late = begin("late", &ownership, latency);
    other.keeps_all(Duration::from_secs(60)).await;
    assert_eq!((late.owns(), *late.division.borrow()), (Owned::default(), Division::Other(32)));
}

/// Both see that there is no plan yet.
#[tokio::test(start_paused = true)]
async fn of_two_that_begin_at_once_and_divide_otherwise_one_owns_everything() {
    let ownership = InProcessOwnership::default();
    let latency = Duration::from_millis(50);
    let workers = [begin("one", &ownership, latency), begin_with(32, "two", &ownership, latency)];
    // sleeps: leases run out and are taken, on a paused clock
    tokio::time::sleep(Duration::from_secs(30)).await;
    for _ in 0..60 {
        let mut owning: Vec<usize> = workers.iter().map(|worker| worker.owns().iter().count()).collect();
        owning.sort_unstable();
        assert_eq!(owning, [0, 256]);
        // sleeps: it stays so, on a paused clock
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
