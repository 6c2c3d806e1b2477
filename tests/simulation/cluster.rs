//! A cluster in one thread: the roles as they are, over parts that can fail, by a clock that is moved.

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use reedi::delivery::Delivery;
use reedi::domain::record::{Body, Entry};
use reedi::edge::admission::Limits;
use reedi::edge::append::seal::KeyRing;
use reedi::edge::authenticate::Verifier;
use reedi::edge::session::OutboxLimits;
use reedi::edge::{Edge, Parts};
use reedi::edge_link::in_process::InProcessLink;
use reedi::edge_link::simulated::SimulatedLink;
use reedi::edge_link::{EdgeLink, WorkerId};
use reedi::log::measure::keep_measuring;
use reedi::log::reading::Reading;
use reedi::log::simulated::{Disks, SimulatedLog};
use reedi::log::{Log, RawRecord};
use reedi::ownership::in_process::InProcessOwnership;
use reedi::ownership::keep::{Keeper, Owned};
use reedi::ownership::simulated::SimulatedOwnership;
use reedi::ownership::{LeaseUnits, Ownership, ShardedRole};
use reedi::people::People;
use reedi::people::own::OwnPeople;
use reedi::presence::PresenceStore;
use reedi::presence::simulated::{Redis, SimulatedRedis};
use reedi::rate_limit::RateLimit;
use reedi::role;
use reedi::runtime::clock::LogClock;
use reedi::runtime::config::{Config, Inputs};
use reedi::runtime::fault::{Faults, Lines, Process, Trace};
use reedi::runtime::metrics::Metrics;
use reedi::runtime::random;
use reedi::runtime::shutdown::Shutdown;
use reedi::store::embedded::EmbeddedStore;
use reedi::store::embedded::clock::Clock;
use reedi::store::simulated::SimulatedStore;
use reedi::store::{Messages as _, Range, Store, Watermarks as _};
use reedi::writer::Writer;
use reedi_protocol::{Epoch, Position, Timestamp};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// When every simulation begins: any moment after 2020 will do.
pub const BEGIN: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Lease units: few, so that a worker's share moves in one piece.
const UNITS: u16 = 4;

/// How many processes of each role, and how much each connection may have waiting.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub edges: usize,
    pub deliveries: usize,
    pub writers: usize,
    pub outbox_frames: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { edges: 2, deliveries: 2, writers: 2, outbox_frames: 1_024 }
    }
}

/// An edge that runs.
#[derive(Clone)]
pub struct EdgeProcess {
    pub process: Process,
    pub edge: Arc<Edge>,
}

/// A worker that runs.
#[derive(Clone)]
pub struct WorkerProcess {
    pub process: Process,
    pub role: ShardedRole,
    pub metrics: Metrics,
}

/// Everything. Cheap to clone; clones are the same cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    begun: Instant,
    config: Config,
    pub disks: Disks,
    pub store: EmbeddedStore,
    link: InProcessLink,
    ownership: InProcessOwnership,
    pub redis: Redis,
    pub trace: Trace,
    shape: Shape,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    edges: Vec<EdgeProcess>,
    workers: Vec<WorkerProcess>,
    started: usize,
    /// What new processes begin with.
    faults: Faults,
    trimmed: Vec<(RawRecord, bool)>,
    /// The most frames that were ever seen waiting for one connection.
    waiting_most: usize,
}

impl Cluster {
    /// Starts all processes.
    pub async fn start(shape: Shape, lines: Lines) -> Self {
        let config = config();
        let begun = Instant::now();
        let clock = Clock::from_fn(move || BEGIN.plus_millis(begun.elapsed().as_millis() as u64));
        let shared = Shared {
            begun,
            config,
            disks: Disks::new(Epoch::FIRST, "first", BEGIN),
            store: EmbeddedStore::in_memory(clock),
            link: InProcessLink::default(),
            ownership: InProcessOwnership::default(),
            redis: Redis::default(),
            trace: Trace::new(lines),
            shape,
            state: Mutex::default(),
        };
        let cluster = Self(Arc::new(shared));
        cluster.see_trims();
        for _ in 0..shape.writers {
            cluster.start_worker(ShardedRole::Writer);
        }
        for _ in 0..shape.deliveries {
            cluster.start_worker(ShardedRole::Delivery);
        }
        for _ in 0..shape.edges {
            cluster.start_edge().await;
        }
        cluster
    }

    /// Notes of everything that the log forgets whether the store had it.
    fn see_trims(&self) {
        let weak = Arc::downgrade(&self.0);
        self.0.disks.set_on_trim(Arc::new(move |gone: Vec<RawRecord>| -> BoxFuture<'static, ()> {
            let shared = weak.upgrade();
            Box::pin(async move {
                let Some(shared) = shared else { return };
                for raw in gone {
                    let stored = is_stored(&shared.store, &raw).await;
                    shared.state.lock().trimmed.push((raw, stored));
                }
            })
        }));
    }

    pub fn now(&self) -> Timestamp {
        BEGIN.plus_millis(self.0.begun.elapsed().as_millis() as u64)
    }

    pub fn elapsed_ms(&self) -> u64 {
        self.0.begun.elapsed().as_millis() as u64
    }

    pub fn disks(&self) -> &Disks {
        &self.0.disks
    }

    pub fn store(&self) -> &EmbeddedStore {
        &self.0.store
    }

    pub fn redis(&self) -> &Redis {
        &self.0.redis
    }

    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    pub fn shape(&self) -> Shape {
        self.0.shape
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        self.0.trace.note("world", what);
    }

    pub fn trimmed(&self) -> Vec<(RawRecord, bool)> {
        self.0.state.lock().trimmed.clone()
    }

    pub fn edges(&self) -> Vec<EdgeProcess> {
        self.0.state.lock().edges.clone()
    }

    pub fn workers(&self, role: ShardedRole) -> Vec<WorkerProcess> {
        self.0.state.lock().workers.iter().filter(|worker| worker.role == role).cloned().collect()
    }

    pub fn processes(&self) -> Vec<Process> {
        let state = self.0.state.lock();
        let workers = state.workers.iter().map(|worker| worker.process.clone());
        state.edges.iter().map(|edge| edge.process.clone()).chain(workers).collect()
    }

    /// Changes what goes wrong, for all processes and those to come.
    pub fn set_faults(&self, change: impl Fn(&mut Faults)) {
        change(&mut self.0.state.lock().faults);
        self.processes().iter().for_each(|process| process.set_faults(&change));
    }

    fn process(&self, role: &str) -> Process {
        let mut state = self.0.state.lock();
        state.started += 1;
        let name = format!("{role} {}", state.started);
        Process::new(name, state.faults.clone(), self.0.trace.clone())
    }

    /// The log as a process reaches it, which looks now and then how far the store has it, as every process
    /// of a cluster does (rule P9).
    fn log(&self, process: &Process) -> Log {
        let log = SimulatedLog::new(self.0.disks.clone(), process.clone());
        let (looking, store) = (log.clone(), self.store_of(process));
        let watching = tokio::spawn(async move {
            loop {
                if let Ok(watermarks) = store.watermarks().await {
                    looking.expect_at_least(&watermarks);
                }
                tokio::time::sleep(role::cluster::LOOK_EVERY).await;
            }
        });
        process.owns(watching.abort_handle());
        Log::Simulated(log)
    }

    fn store_of(&self, process: &Process) -> Store {
        Store::Simulated(SimulatedStore::new(self.0.store.clone(), process.clone()))
    }

    fn link(&self, process: &Process) -> EdgeLink {
        EdgeLink::Simulated(SimulatedLink::new(self.0.link.clone(), process.clone()))
    }

    /// Starts another edge.
    pub async fn start_edge(&self) -> EdgeProcess {
        let process = self.process("edge");
        let clock = LogClock::starting_at(self.now());
        let redis = SimulatedRedis::new(self.0.redis.clone(), process.clone());
        let store = self.store_of(&process);
        let seal_keys = self.0.config.seal.keys.as_ref().expect("configured");
        let log = self.log(&process);
        let log_answers = measured(&process, &log, &clock);
        let edge = Edge::new(Parts {
            log,
            store: store.clone(),
            link: self.link(&process),
            presence: PresenceStore::Simulated(redis.clone()),
            rate_limit: RateLimit::Simulated(redis),
            people: People::Own(OwnPeople::new(store)),
            verifier: Verifier::new(&self.0.config.auth, clock.clone()).expect("configured"),
            key_ring: KeyRing::new(seal_keys),
            clock,
            log_answers,
            metrics: Metrics::new(),
            limits: self.limits(),
        });
        let tasks = edge.start().await.expect("the link is there");
        tasks.iter().for_each(|task| process.owns(task.abort_handle()));
        let started = EdgeProcess { process, edge };
        self.0.state.lock().edges.push(started.clone());
        started
    }

    fn limits(&self) -> Limits {
        let limits = role::limits(&self.0.config.limits, std::time::Duration::from_secs(5));
        Limits { outbox: OutboxLimits { frames: self.0.shape.outbox_frames, ..limits.outbox }, ..limits }
    }

    /// Starts another worker.
    pub fn start_worker(&self, role: ShardedRole) -> WorkerProcess {
        let process = self.process(role.name());
        let (metrics, reading) = (Metrics::new(), Reading::default());
        let (owned, owns) = watch::channel(Owned::default());
        let ownership = SimulatedOwnership::new(self.0.ownership.clone(), process.clone());
        let keeper = Keeper {
            ownership: Ownership::Simulated(ownership),
            role,
            units: LeaseUnits::new(UNITS).expect("a power of two"),
            worker: process.name().to_owned(),
            metrics: metrics.clone(),
            health: reading.health(),
            division: watch::Sender::default(),
        };
        let told = metrics.clone();
        let (log, store) = (self.log(&process), self.store_of(&process));
        let shutdown = Shutdown::new();
        let keeping = tokio::spawn(keeper.run(owned, shutdown.clone()));
        let working = match role {
            ShardedRole::Delivery => {
                let id = WorkerId(rand::RngCore::next_u64(&mut random::rng()));
                let link = self.link(&process);
                let delivery = Delivery { id, log, store, link, metrics, reading };
                tokio::spawn(delivery.run(owns, shutdown))
            }
            ShardedRole::Writer => {
                let clock = LogClock::starting_at(self.now());
                let _ = measured(&process, &log, &clock);
                let erase_after = reedi::writer::erase::AFTER;
                tokio::spawn(Writer { log, store, clock, metrics, reading, erase_after }.run(owns, shutdown))
            }
        };
        process.owns(keeping.abort_handle());
        process.owns(working.abort_handle());
        let started = WorkerProcess { process, role, metrics: told };
        self.0.state.lock().workers.push(started.clone());
        started
    }

    /// Ends a process, as SIGKILL does.
    pub fn kill(&self, process: &Process) {
        self.0.trace.note("world", || format!("kills {}", process.name()));
        process.kill();
        let mut state = self.0.state.lock();
        state.edges.retain(|edge| !edge.process.is_dead());
        state.workers.retain(|worker| !worker.process.is_dead());
    }

    /// Looks how much waits for connections.
    pub fn look_at_outboxes(&self) {
        let waiting = |edge: &EdgeProcess| {
            edge.edge.routes.sessions().iter().map(|s| s.waiting_frames()).max().unwrap_or(0)
        };
        let most = self.edges().iter().map(waiting).max().unwrap_or(0);
        let mut state = self.0.state.lock();
        state.waiting_most = state.waiting_most.max(most);
    }

    pub fn waiting_most(&self) -> usize {
        self.0.state.lock().waiting_most
    }
}

/// Whether the store has what a record came to.
async fn is_stored(store: &EmbeddedStore, raw: &RawRecord) -> bool {
    let Ok(entry) = Entry::decode(raw.position, raw.log_time, &raw.payload) else { return true };
    let (at, conversation) = (raw.position.as_u64(), raw.conversation);
    match entry.record.body {
        Body::Tick => true,
        Body::Message(_) => {
            store.message(conversation, raw.position).await.is_ok_and(|found| found.is_some())
        }
        _ => {
            let near = |raw| Position::from_u64(raw).unwrap_or_default();
            let range = Range { after: near(at - 1), before: near(at + 1) };
            store.events(conversation, range, 1).await.is_ok_and(|found| !found.is_empty())
        }
    }
}

/// Measures a process's clock, as each does; whether its log answers.
fn measured(process: &Process, log: &Log, clock: &LogClock) -> watch::Receiver<bool> {
    let (answers, log_answers) = watch::channel(false);
    let measuring = keep_measuring(log.clone(), clock.clone(), Metrics::new(), answers);
    process.owns(tokio::spawn(measuring).abort_handle());
    log_answers
}

fn config() -> Config {
    let flags = [
        ("auth_hs256_secret", "a secret for the simulation alone"),
        ("seal_keys", "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let inputs = Inputs { flags, ..Inputs::default() };
    inputs.resolve().unwrap_or_else(|errors| panic!("{errors}")).config
}
