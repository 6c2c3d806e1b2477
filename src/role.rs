//! Roles: what a process is made of. The only place that names concrete adapters.

pub mod cluster;
pub mod process;
pub mod single;

use crate::delivery::Delivery;
use crate::edge::admission::Limits;
use crate::edge::append::seal::KeyRing;
use crate::edge::authenticate::{Signer, Verifier, VerifierError};
use crate::edge::body_room::BodyRoom;
use crate::edge::fair_share::FairShare;
use crate::edge::listener::Doorway;
use crate::edge::rest::Api;
use crate::edge::session::OutboxLimits;
use crate::edge::socketio::SocketIoDoor;
use crate::edge::{Edge, Parts, drain, listener, rest};
use crate::edge_link::{EdgeLink, LinkError, WorkerId};
use crate::log::Log;
use crate::log::reading::{Health, Reading};
use crate::ownership::keep::{Division, Keeper, Owned};
use crate::ownership::{LeaseUnits, Ownership, ShardedRole};
use crate::people::People;
use crate::presence::PresenceStore;
use crate::rate_limit::{Rate, RateLimit};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::LogClock;
use crate::runtime::config::{Config, ConfigErrors, LimitsConfig, SealKeys};
use crate::runtime::health::{Part, Readiness};
use crate::runtime::metrics::Metrics;
use crate::runtime::random;
use crate::runtime::shutdown::Shutdown;
use crate::store::Store;
use crate::writer::Writer;
use rand::RngCore;
use reedi_protocol::Position;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often readiness is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a role cannot run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(
        "{address} cannot be listened on: {source}. Is another one running there? REEDI_LISTEN and REEDI_ADMIN_LISTEN choose the addresses."
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] crate::log::embedded::OpenError),
    #[error(
        "the log ends at {ends}, and the store has it up to {stored}: files of the log are missing, or are older than the store. Put back both as they were at the same time, or move the whole data folder away to begin anew."
    )]
    LogBehind { ends: Position, stored: Position },
    #[error("the log cannot be read: {0}")]
    LogUnread(String),
    #[error(transparent)]
    NatsLog(#[from] crate::log::nats::NatsLogError),
    #[error(transparent)]
    Nats(#[from] crate::log::nats::connection::NatsConfigError),
    #[error(transparent)]
    Redis(#[from] crate::redis_access::RedisConfigError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Secret(#[from] crate::runtime::own_secrets::OwnSecretError),
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    #[error("the store cannot be connected to: {0}")]
    Cql(String),
    #[error("the edge link is away: {0}")]
    Link(#[from] LinkError),
    #[error("REEDI_SEAL_KEYS is needed: content is sealed with them")]
    SealKeys,
    #[error("{0:?} cannot name anything at NATS")]
    NatsName(String),
    #[error("the platform cannot be asked for people: {0}")]
    People(String),
}

/// What all roles of a process share.
#[derive(Clone)]
pub struct Shared {
    pub config: Arc<Config>,
    pub log: Log,
    pub store: Store,
    pub link: EdgeLink,
    pub ownership: Ownership,
    pub clock: LogClock,
    /// Whether the log answers when it is asked for its time.
    pub log_answers: watch::Receiver<bool>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub shutdown: Shutdown,
}

/// What an edge needs besides.
#[derive(Clone)]
pub struct EdgeParts {
    pub presence: PresenceStore,
    pub rate_limit: RateLimit,
    pub people: People,
    pub seal_keys: SealKeys,
}

/// A role that runs; it ends when the process leaves.
pub type Running = JoinHandle<()>;

/// Listens where the configuration says.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, RoleError> {
    TcpListener::bind(address).await.map_err(|source| RoleError::Listen { address, source })
}

/// Starts an edge on `listener`.
///
/// # Errors
/// Nothing to verify tokens with, or the edge link is away.
pub async fn start_edge(
    shared: &Shared,
    parts: EdgeParts,
    listener: TcpListener,
) -> Result<(Arc<Edge>, Running), RoleError> {
    let config = &shared.config;
    let verifier = Verifier::new(&config.auth, shared.clock.clone())?;
    let signer = match parts.people {
        People::Own(_) => Signer::new(&config.auth, shared.clock.clone()),
        People::Platform(_) => None,
    };
    let limits = limits(&config.limits, Duration::from_secs(config.process.drain_seconds));
    let edge = Edge::new(Parts {
        log: shared.log.clone(),
        store: shared.store.clone(),
        link: shared.link.clone(),
        presence: parts.presence,
        rate_limit: parts.rate_limit,
        people: parts.people,
        verifier,
        key_ring: KeyRing::new(&parts.seal_keys),
        clock: shared.clock.clone(),
        log_answers: shared.log_answers.clone(),
        metrics: shared.metrics.clone(),
        limits,
    });
    for task in edge.start().await? {
        shared.shutdown.supervise("a task of the edge", task);
    }
    shared.shutdown.supervise("the watch on the edge", watch_readiness(edge.clone(), &shared.readiness));
    fetch_keys(edge.verifier.clone(), shared.readiness.part("keys"));
    let door = SocketIoDoor::open(edge.clone());
    let router = rest::router(Api { edge: edge.clone(), signer }).merge(door.router());
    let router = router.layer(rest::cors(&config.process.cors_origins));
    let doorway = Doorway {
        proxies: config.process.trusted_proxies.clone(),
        connections: FairShare::new(config.limits.http_connections as usize),
        bodies: BodyRoom::new(shared.metrics.clone()),
        metrics: shared.metrics.clone(),
    };
    let (served, shutdown) = (edge.clone(), shared.shutdown.clone());
    let running = tokio::spawn(async move {
        let leaving = shutdown.clone();
        let serving = listener::serve(listener, router, doorway, async move { leaving.draining().await });
        let (draining, window) = (shutdown.clone(), served.limits.drain);
        let saying_goodbye = async move {
            draining.draining().await;
            drain::drain(served, window).await;
            door.close().await;
        };
        tokio::join!(serving, saying_goodbye);
    });
    Ok((edge, shared.shutdown.supervise("the edge", running)))
}

/// An edge that cannot verify a token is ready for nobody. Once it could, it keeps what it knows.
fn fetch_keys(verifier: Verifier, part: Part) {
    part.lacks("the keys that verify tokens have not been fetched yet");
    tokio::spawn(async move {
        let mut backoff = Backoff::for_parts();
        while let Err(error) = verifier.fetch_keys().await {
            part.lacks(format!("the keys that verify tokens cannot be fetched: {error}"));
            tokio::time::sleep(backoff.next().unwrap_or(LOOK_EVERY)).await;
        }
        part.ready();
    });
}

fn watch_readiness(edge: Arc<Edge>, readiness: &Readiness) -> Running {
    let part = readiness.part("edge");
    part.lacks("it has only just started");
    tokio::spawn(async move {
        loop {
            let missing = edge.missing();
            part.set(if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

/// Starts a delivery worker.
pub fn start_delivery(shared: &Shared) -> Running {
    let (id, reading) = (WorkerId(random::rng().next_u64()), Reading::default());
    let delivery = Delivery {
        id,
        log: shared.log.clone(),
        store: shared.store.clone(),
        link: shared.link.clone(),
        metrics: shared.metrics.clone(),
        reading: reading.clone(),
    };
    let (owned, keeping) = start_keeper(shared, ShardedRole::Delivery, id.to_string(), reading.health());
    let shutdown = shared.shutdown.clone();
    let working = tokio::spawn(delivery.run(owned, shutdown.clone()));
    run_worker("delivery", working, keeping, &shutdown)
}

/// Starts a writer.
pub fn start_writer(shared: &Shared) -> Running {
    let reading = Reading::default();
    let writer = Writer {
        log: shared.log.clone(),
        store: shared.store.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        reading: reading.clone(),
        erase_after: crate::writer::erase::AFTER,
    };
    let name = format!("writer-{:016x}", random::rng().next_u64());
    let (owned, keeping) = start_keeper(shared, ShardedRole::Writer, name, reading.health());
    let shutdown = shared.shutdown.clone();
    let working = tokio::spawn(writer.run(owned, shutdown.clone()));
    run_worker("the writer", working, keeping, &shutdown)
}

/// One that works and one that keeps its leases: where either ends alone the process leaves, and the leases go to
/// somebody who works.
fn run_worker(what: &'static str, working: Running, keeping: Running, shutdown: &Shutdown) -> Running {
    let working = shutdown.supervise(what, working);
    let keeping = shutdown.supervise("the keeper of leases", keeping);
    tokio::spawn(async move {
        let _ = tokio::join!(working, keeping);
    })
}

fn start_keeper(
    shared: &Shared,
    role: ShardedRole,
    worker: String,
    health: watch::Receiver<Health>,
) -> (watch::Receiver<Owned>, Running) {
    let (owned, owns) = watch::channel(Owned::default());
    let keeper = Keeper {
        ownership: shared.ownership.clone(),
        role,
        units: LeaseUnits::of(shared.config.division.shards),
        worker,
        metrics: shared.metrics.clone(),
        health,
        division: watch::Sender::default(),
    };
    tell_division(keeper.division.subscribe(), keeper.units, shared.readiness.part(role.name()));
    (owns, tokio::spawn(keeper.run(owned, shared.shutdown.clone())))
}

/// A worker that divides the shards otherwise than those who hold them is of no use, and a rollout must not go on with it.
fn tell_division(mut division: watch::Receiver<Division>, units: LeaseUnits, part: Part) {
    tokio::spawn(async move {
        loop {
            let told = *division.borrow_and_update();
            part.set(match told {
                Division::Unknown => Err("who owns which shards cannot be told yet".to_owned()),
                Division::Same => Ok(()),
                Division::Other(theirs) => Err(format!(
                    "REEDI_SHARDS is {} here and {theirs} at the workers that hold the shards: set it to {theirs}, or stop \
                     all of them to change it",
                    units.count()
                )),
            });
            if division.changed().await.is_err() {
                return;
            }
        }
    });
}

/// What an edge may take in, as configured.
#[must_use]
pub fn limits(config: &LimitsConfig, drain: Duration) -> Limits {
    Limits {
        group_members: config.group_members as usize,
        typing_members: config.typing_members as usize,
        presence_members: config.presence_members as usize,
        account: Rate { per_second: config.account_rate, burst: config.account_burst },
        conversation: Rate { per_second: config.conversation_rate, burst: config.conversation_burst },
        read: Rate { per_second: config.read_rate, burst: config.read_burst },
        answer_bytes: config.answer_bytes.in_memory(),
        sign_in: Rate { per_second: config.sign_in_rate, burst: config.sign_in_burst },
        sessions_per_account: config.connections_per_account as usize,
        sessions: config.connections as usize,
        unauthenticated: config.sockets_unauthenticated as usize,
        outbox: OutboxLimits {
            frames: config.outbox_frames as usize,
            bytes: config.outbox_bytes.in_memory(),
        },
        drain,
    }
}
