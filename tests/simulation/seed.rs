//! One seed: which cluster, which clients, and what goes wrong when. Then everything heals, what was
//! begun is finished, and the invariants are asked.

use crate::client::{Client, Manner, Phase, between, pick};
use crate::cluster::{Cluster, Shape};
use crate::groups;
use crate::judge::judge;
use crate::observed::Observed;
use rand::Rng;
use reedi::ownership::ShardedRole;
use reedi::runtime::fault::{Faults, Lines, Process};
use reedi::runtime::random;
use reedi_protocol::{AccountId, ConversationKey};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::Instant;

/// Everything is well again and still somebody has not finished after this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(200);
/// After all have finished: the lease of a worker that died runs out, its successor collects what edges
/// say, and a heartbeat calls for a repeat.
const QUIET: Duration = Duration::from_secs(20);

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub wrong: Vec<String>,
    pub trace: String,
    pub lines: Vec<String>,
    pub sent: u64,
    pub acked: usize,
    pub simulated: Duration,
}

/// Which kinds of faults a seed has: few at a time find more than all at once.
#[derive(Clone, Copy, Debug)]
struct Kinds {
    log: bool,
    store: bool,
    link: bool,
    pauses: bool,
    long_pauses: bool,
    crashes: bool,
    ownership: bool,
    redis: bool,
    days: bool,
}

impl Kinds {
    fn draw() -> Self {
        let kind = |percent: u32| random::rng().random_range(0..100) < percent;
        Self {
            log: kind(45),
            store: kind(40),
            link: kind(45),
            pauses: kind(25),
            long_pauses: kind(6),
            crashes: kind(45),
            ownership: kind(25),
            redis: kind(25),
            days: kind(3),
        }
    }
}

/// Runs one seed on a thread of its own.
pub fn run(seed: u64, lines: Lines) -> Outcome {
    simulate(seed, move || whole_run(lines))
}

/// Runs `work` by a clock that stands still while anything can be done, and with randomness that
/// follows from `seed`: ours, and the runtime's own, which decides who of several is woken first.
pub fn simulate<F: Future>(seed: u64, work: impl FnOnce() -> F) -> F::Output {
    random::seed(seed);
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    let runtime = seeded(&mut builder, seed).build().expect("a runtime");
    runtime.block_on(async move { work().await })
}

#[cfg(tokio_unstable)]
fn seeded(builder: &mut Builder, seed: u64) -> &mut Builder {
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()))
}

/// Lints see the simulation without the flag; it does not run so.
#[cfg(not(tokio_unstable))]
fn seeded(_: &mut Builder, _: u64) -> &mut Builder {
    panic!("the runtime's own randomness is seeded by `--cfg tokio_unstable`: run `make simulate`");
}

async fn whole_run(lines: Lines) -> Outcome {
    let kinds = Kinds::draw();
    let shape = Shape {
        edges: random::rng().random_range(1..=3),
        deliveries: random::rng().random_range(1..=2),
        writers: random::rng().random_range(1..=2),
        outbox_frames: if random::rng().random_bool(0.1) { 12 } else { 1_024 },
    };
    let cluster = Cluster::start(shape, lines).await;
    cluster.note(|| format!("{shape:?} {kinds:?}"));
    let observed = Observed::default();
    let (phase, clients) = begin(&cluster, &observed, kinds).await;
    let work = between(8_000, 25_000);
    go_wrong(&cluster, kinds, work).await;
    let wrong = finish(&cluster, &observed, &phase, clients.len()).await;
    for client in clients {
        client.await.expect("no client panics");
    }
    let mut wrong: Vec<String> = wrong.into_iter().collect();
    wrong.extend(judge(&cluster, &observed).await);
    Outcome {
        wrong,
        trace: cluster.trace().hash(),
        lines: cluster.trace().lines(),
        sent: observed.sent_count(),
        acked: observed.all_acked().len(),
        simulated: Duration::from_millis(cluster.elapsed_ms()),
    }
}

type Clients = Vec<tokio::task::JoinHandle<()>>;

/// People, their conversations, and clients that begin to talk.
async fn begin(cluster: &Cluster, observed: &Observed, kinds: Kinds) -> (watch::Sender<Phase>, Clients) {
    let people: Vec<AccountId> = (0..random::rng().random_range(2..=5)).map(|_| account()).collect();
    let conversations = conversations(cluster, &people).await;
    let retries = if kinds.long_pauses || kinds.days {
        [200, 1_000, 29_000, 31_000, 119_000, 121_000].to_vec()
    } else {
        [50, 200, 500, 1_000, 3_000].to_vec()
    };
    let manner = Manner {
        pause: between(100, 1_500),
        leaves: random::rng().random_range(0..8),
        retries: retries.into_iter().map(Duration::from_millis).collect(),
        doubles: random::rng().random_bool(0.5),
        groups: random::rng().random_bool(0.5),
    };
    let (phase, _) = watch::channel(Phase::Working);
    let mut clients = Vec::new();
    // Some people have two clients.
    let more = random::rng().random_range(0..=1);
    for number in (0..people.len()).chain(0..more) {
        let mut client = Client::new(cluster, observed, number, &people, manner.clone());
        client.name = format!("client {} of {number}", clients.len());
        client.rename();
        client.conversations = conversations.clone();
        clients.push(tokio::spawn(client.run(phase.subscribe())));
    }
    (phase, clients)
}

pub fn account() -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(random::rng().random()))
}

/// A group of all, and a few direct conversations; asked for until they stand.
pub async fn conversations(cluster: &Cluster, people: &[AccountId]) -> BTreeSet<ConversationKey> {
    let mut made = BTreeSet::new();
    let (first, others) = people.split_first().expect("somebody");
    while made.is_empty() {
        if let Some(edge) = pick(&cluster.edges()) {
            made.extend(groups::group(&edge, *first, others).await);
        }
    }
    for pair in people.windows(2) {
        if let Some(edge) = pick(&cluster.edges()) {
            made.extend(groups::direct(&edge, pair[0], pair[1]).await);
        }
    }
    made
}

/// Lets things go wrong until `work` is over.
async fn go_wrong(cluster: &Cluster, kinds: Kinds, work: Duration) {
    // First everybody connects.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.set_faults(|faults| *faults = drawn_faults(kinds));
    let until = Instant::now() + work;
    while Instant::now() < until {
        tokio::time::sleep(between(200, 4_000)).await;
        cluster.look_at_outboxes();
        one_event(cluster, kinds).await;
    }
}

fn drawn_faults(kinds: Kinds) -> Faults {
    let mut faults = Faults::default();
    let often = |on: bool| if on { random::rng().random_range(0..60) } else { 0 };
    faults.log.refused = often(kinds.log);
    faults.log.unanswered = often(kinds.log);
    faults.log.late = often(kinds.log) / 2;
    faults.log.reset = often(kinds.log);
    faults.store.refused = often(kinds.store);
    faults.store.unanswered = often(kinds.store);
    faults.store.slow = often(kinds.store);
    faults.link.lost = often(kinds.link);
    faults.link.doubled = often(kinds.link);
    faults.link.delayed = often(kinds.link);
    faults.log.late_by_ms = 0..pick(&[1_500, 20_000, 40_000, 150_000]).unwrap_or(1_500);
    faults.store.slow_by = Duration::from_millis(1_500);
    faults.link.delayed_by = Duration::from_millis(pick(&[20, 700, 3_000]).unwrap_or(20));
    faults.latency = Duration::from_millis(pick(&[0, 1, 8]).unwrap_or(0));
    faults
}

/// One thing that goes wrong and, mostly, heals by itself after a while.
async fn one_event(cluster: &Cluster, kinds: Kinds) {
    let Some(process) = pick(&cluster.processes()) else { return };
    match random::rng().random_range(0..12) {
        0 if kinds.log => away(cluster, &process, "log", |f, away| f.log.away = away),
        1 if kinds.log => {
            cluster.note(|| "connections to the log break".to_owned());
            cluster.disks().break_connections();
        }
        2 if kinds.store => away(cluster, &process, "store", |f, away| f.store.away = away),
        3 if kinds.link => away(cluster, &process, "link", |f, away| f.link.away = away),
        4 if kinds.ownership => {
            away(cluster, &process, "ownership", |f, away| f.ownership_away = away);
        }
        5 if kinds.redis => {
            cluster.note(|| "Redis is emptied".to_owned());
            cluster.redis().empty();
        }
        6 if kinds.redis => away(cluster, &process, "Redis", |f, away| f.redis_away = away),
        7 | 8 if kinds.crashes => crash(cluster, &process).await,
        9 if kinds.pauses => pause(cluster, &process, between(100, 6_000)),
        10 if kinds.long_pauses => {
            pause(cluster, &process, Duration::from_secs(pick(&[5, 12, 40, 180]).unwrap_or(5)));
        }
        11 if kinds.days => pass_days(cluster).await,
        _ => {}
    }
}

/// A part is away, for one process or for all of them.
fn away(cluster: &Cluster, process: &Process, part: &str, turn: fn(&mut Faults, bool)) {
    let (all, time) = (random::rng().random_bool(0.4), between(300, 12_000));
    let who = if all { "all" } else { process.name() };
    cluster.note(|| format!("{part} is away for {who}, {time:?}"));
    let (cluster, process) = (cluster.clone(), process.clone());
    let set = move |away| {
        if all {
            cluster.set_faults(|faults| turn(faults, away));
        } else {
            process.set_faults(|faults| turn(faults, away));
        }
    };
    set(true);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        set(false);
    });
}

/// Kills a process; another starts in its place after a while.
pub async fn crash(cluster: &Cluster, process: &Process) {
    let worker = [ShardedRole::Delivery, ShardedRole::Writer]
        .into_iter()
        .find(|role| process.name().starts_with(role.name()));
    cluster.kill(process);
    tokio::time::sleep(between(0, 2_000)).await;
    match worker {
        Some(role) => drop(cluster.start_worker(role)),
        None => drop(cluster.start_edge().await),
    }
}

pub fn pause(cluster: &Cluster, process: &Process, time: Duration) {
    cluster.note(|| format!("{} is paused for {time:?}", process.name()));
    process.pause();
    let process = process.clone();
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        process.wake();
    });
}

/// The machines stand still for a long time, so that the log forgets: first until every shard has had
/// its tick, then for more than a day.
pub async fn pass_days(cluster: &Cluster) {
    for pause in [Duration::from_secs(11 * 60), Duration::from_secs(25 * 3_600)] {
        cluster.note(|| format!("{pause:?} pass"));
        tokio::time::advance(pause).await;
        tokio::time::sleep(Duration::from_secs(130)).await;
    }
}

/// Heals everything and waits until all clients have nothing to do any more.
pub async fn finish(
    cluster: &Cluster,
    observed: &Observed,
    phase: &watch::Sender<Phase>,
    clients: usize,
) -> Option<String> {
    cluster.note(|| "everything heals".to_owned());
    heal(cluster).await;
    phase.send_replace(Phase::Settling);
    let healed = Instant::now();
    let mut stuck = None;
    while observed.settled_clients().len() < clients {
        if healed.elapsed() > SETTLED_WITHIN {
            stuck = Some(format!("only {:?} of {clients} have finished", observed.settled_clients()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        heal(cluster).await;
    }
    cluster.note(|| "all have finished".to_owned());
    tokio::time::sleep(QUIET).await;
    phase.send_replace(Phase::Done);
    stuck
}

/// Whatever was away is back, whoever was paused runs, and no role is without a process.
async fn heal(cluster: &Cluster) {
    cluster.set_faults(|faults| *faults = Faults::default());
    cluster.processes().iter().for_each(Process::wake);
    for role in [ShardedRole::Delivery, ShardedRole::Writer] {
        if cluster.workers(role).is_empty() {
            cluster.start_worker(role);
        }
    }
    if cluster.edges().is_empty() {
        cluster.start_edge().await;
    }
}
