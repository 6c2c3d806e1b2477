//! The edge: terminates clients' connections, judges what they ask, seals and publishes it, and
//! tells them what happens. Everything durable is elsewhere (invariant `nothing_lives_on_an_edge`).

pub mod admission;
pub mod answer;
pub mod answer_room;
pub mod append;
pub mod authenticate;
pub mod body_room;
pub mod client_address;
pub mod command;
pub mod connection;
pub mod coverage;
pub mod degraded;
pub mod deletions;
pub mod deliver;
pub mod drain;
pub mod fair_share;
pub mod fleeting;
pub mod listener;
pub mod newest;
pub mod outbox;
pub mod place;
pub mod presence;
pub mod query;
pub mod refused;
pub mod rest;
pub mod resume;
pub mod routes;
pub mod session;
pub mod socketio;
pub mod touched;
pub mod view;
pub mod watermarks;
pub mod wire;

use crate::edge_link::{EdgeId, EdgeLink, EdgeLinkPort, LinkError, ToEdge};
use crate::log::Log;
use crate::people::People;
use crate::presence::PresenceStore;
use crate::rate_limit::RateLimit;
use crate::runtime::clock::LogClock;
use crate::runtime::metrics::Metrics;
use crate::runtime::random;
use crate::store::Store;
use admission::{Admission, Limits};
use answer_room::AnswerRoom;
use append::Appender;
use append::seal::KeyRing;
use authenticate::Verifier;
use coverage::CoverageBook;
use newest::Newest;
use parking_lot::Mutex;
use rand::RngCore;
use routes::Routes;
use session::Session;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use touched::Touched;
use view::Views;
use watermarks::Watermarks;

/// Changes of routes go out together after this time: a storm of connections makes few deltas.
const ROUTES_TOGETHER: Duration = Duration::from_millis(3);
/// An edge with nothing to say says that it is there this often.
const ROUTES_IDLE: Duration = Duration::from_secs(1);

/// Devices told of in one frame; some 30 bytes each, far below what a frame of the link may have.
const DEVICES_MOST: usize = 1_000;

/// What an edge is made of; `role` chooses the adapters.
pub struct Parts {
    pub log: Log,
    pub store: Store,
    pub link: EdgeLink,
    pub presence: PresenceStore,
    pub rate_limit: RateLimit,
    pub people: People,
    pub verifier: Verifier,
    pub key_ring: KeyRing,
    pub clock: LogClock,
    /// Whether the log answers.
    pub log_answers: watch::Receiver<bool>,
    pub metrics: Metrics,
    pub limits: Limits,
}

pub struct Edge {
    pub id: EdgeId,
    pub appender: Appender,
    pub store: Store,
    pub link: EdgeLink,
    pub presence: PresenceStore,
    pub people: People,
    pub verifier: Verifier,
    pub key_ring: KeyRing,
    pub clock: LogClock,
    pub metrics: Metrics,
    pub limits: Limits,
    pub admission: Admission,
    pub answer_room: AnswerRoom,
    pub watermarks: Watermarks,
    pub views: Views,
    pub newest: Newest,
    kept: query::kept::KeptBook,
    pub routes: Routes,
    pub coverage: Mutex<CoverageBook>,
    /// The version of the routes that all workers have applied.
    pub routes_applied: watch::Sender<u64>,
    pub interest: fleeting::Interest,
    /// Who came or left, and nobody was told yet.
    pub presence_touched: Touched,
    /// Whose preferences have changed and were not gone by yet.
    pub preferences_touched: Touched,
    presence_told: presence::Told,
    /// How many accounts others were told to be here, after each time that changes were told.
    presence_held: watch::Sender<usize>,
    marks: command::mark::MarkBook,
    preferences: command::preferences::Cache,
    /// Sessions that still hold live frames back.
    fresh: Mutex<Vec<Arc<Session>>>,
    by_id: Mutex<HashMap<u64, Arc<Session>>>,
    next_session: AtomicU64,
    started: Instant,
    log_answers: watch::Receiver<bool>,
    deletions: deletions::Deletions,
    degraded: degraded::Degraded,
}

impl Edge {
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let id = EdgeId(random::rng().next_u64());
        let watermarks = Watermarks::new(parts.store.clone());
        let newest = Newest::new(watermarks.clone());
        let views = Views::new(parts.store.clone(), watermarks.clone());
        let (clock, metrics) = (parts.clock.clone(), parts.metrics.clone());
        let appender = Appender::new(parts.log, parts.store.clone(), clock, watermarks.clone(), metrics);
        let admission = Admission::new(parts.rate_limit, parts.limits, parts.metrics.clone());
        let answer_room = AnswerRoom::new(parts.limits.answer_bytes, parts.metrics.clone());
        Arc::new(Self {
            id,
            appender,
            admission,
            answer_room,
            views,
            watermarks,
            store: parts.store,
            link: parts.link,
            presence: parts.presence,
            people: parts.people,
            verifier: parts.verifier,
            key_ring: parts.key_ring,
            clock: parts.clock,
            metrics: parts.metrics,
            limits: parts.limits,
            newest,
            kept: query::kept::KeptBook::default(),
            routes: Routes::new(id),
            coverage: Mutex::new(CoverageBook::new(id)),
            routes_applied: watch::channel(0).0,
            interest: fleeting::Interest::default(),
            presence_touched: Touched::default(),
            preferences_touched: Touched::default(),
            presence_told: presence::Told::default(),
            presence_held: watch::channel(0).0,
            marks: command::mark::MarkBook::default(),
            preferences: command::preferences::Cache::default(),
            fresh: Mutex::default(),
            by_id: Mutex::default(),
            next_session: AtomicU64::new(1),
            started: Instant::now(),
            log_answers: parts.log_answers,
            deletions: deletions::Deletions::default(),
            degraded: degraded::Degraded::default(),
        })
    }

    /// Begins to listen to the workers and to keep itself; ends with the runtime, or where these are
    /// aborted.
    ///
    /// # Errors
    /// The edge link is away.
    pub async fn start(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>, LinkError> {
        let (frames, presence) = self.link.listen_as_edge(self.id).await?;
        Ok(vec![
            tokio::spawn(deliver::run(self.clone(), frames)),
            tokio::spawn(deliver::run_presence(self.clone(), presence)),
            tokio::spawn(self.clone().tell_routes()),
            tokio::spawn(self.watermarks.clone().run()),
            tokio::spawn(fleeting::run(self.clone())),
            tokio::spawn(fleeting::run_preferences(self.clone())),
            tokio::spawn(connection::sweep::run(self.clone())),
            tokio::spawn(degraded::run(self.clone())),
        ])
    }

    /// Why this edge should get no new clients; empty while it should.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !*self.log_answers.borrow() {
            missing.push("the log does not answer".to_owned());
        }
        let deaf = self.coverage.lock().deaf_shards();
        if deaf > 0 {
            missing.push(format!("no delivery worker speaks for {deaf} of 256 shards"));
        }
        missing
    }

    async fn tell_routes(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.routes.changed() => tokio::time::sleep(ROUTES_TOGETHER).await,
                () = tokio::time::sleep(ROUTES_IDLE) => {}
            }
            if let Err(error) = self.link.to_workers(self.routes.delta()).await {
                // Workers notice by the version and ask for a snapshot.
                tracing::debug!(%error, "a delta of the routes was not passed on");
            }
            for came in self.routes.take_devices().chunks(DEVICES_MOST) {
                let frame = ToEdge::Devices { by: self.id, came: came.to_vec() };
                if let Err(error) = self.link.to_all_edges(frame).await {
                    tracing::warn!(%error, "other edges were not told which devices came");
                }
            }
        }
    }

    #[must_use]
    pub fn next_session_id(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Gives the sessions with these ids to `each`.
    pub fn sessions_by_id(&self, ids: &[u64], mut each: impl FnMut(&Arc<Session>)) {
        let by_id = self.by_id.lock();
        ids.iter().filter_map(|id| by_id.get(id)).for_each(&mut each);
    }
}
