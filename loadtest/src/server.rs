//! The server under load: starts its processes, measures them by role, and ends them.

mod admin;
pub mod process;

use crate::cluster::Components;
use crate::procfs::{self, MachineCpu, Memory};
use process::Process;
use reedi_client::Endpoint;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a process may take to be ready. Cassandra has answered before.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A limit that a load test never reaches.
const NO_LIMIT: &str = "1000000";
/// Sockets of one edge that may wait for their token: the default, set so that a scenario knows it.
pub const WAITING_MOST: usize = 4_096;
/// The gauge of those that wait.
const WAITING: &str = "reedi_sockets_unauthenticated";

/// What the service runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// One `reedi dev` with embedded parts.
    Embedded,
    /// Processes for each role, on real NATS, Cassandra and Redis.
    Cluster,
}

/// What is started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub reedi: PathBuf,
    pub backend: Backend,
    /// Processes of each role in a cluster.
    pub edges: usize,
    pub deliveries: usize,
    pub writers: usize,
    /// Data and logs; emptied first.
    pub folder: PathBuf,
    /// The folder with `start.sh` and `stop.sh` of the real components.
    pub components: PathBuf,
}

/// A service that runs, for one scenario.
pub struct Server {
    pub edges: Vec<Endpoint>,
    /// Signs the tokens that it accepts.
    pub secret: String,
    /// Where each edge has its `/metrics`.
    admins: Vec<SocketAddr>,
    processes: Vec<(&'static str, Process)>,
    components: Option<Components>,
    ticks_per_second: u64,
}

/// Why there is no service to load.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{what} ended or was not ready within {within:?}; the end of its log:\n{log}")]
    NotReady { what: String, within: Duration, log: String },
    #[error("{0}")]
    Components(String),
}

impl ServerError {
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// CPU time used so far.
#[derive(Clone, Debug)]
pub struct CpuReading {
    at: Instant,
    by_role: BTreeMap<String, Duration>,
    machine: MachineCpu,
}

/// CPU used between two readings.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuUse {
    pub seconds: f64,
    /// Cores in use on average, by role; `generator` is the load test itself.
    pub cores_by_role: BTreeMap<String, f64>,
    /// Of all processes of ours together: without the generator, and without what is not ours.
    pub server_cores: f64,
    /// Of NATS, Cassandra and Redis.
    pub component_cores: f64,
    pub machine_cores: f64,
    pub stolen_cores: f64,
}

impl CpuUse {
    /// Microseconds of our roles for each of `count` things done meanwhile.
    #[must_use]
    pub fn micros_each(&self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { self.server_cores * self.seconds * 1e6 / count as f64 }
    }

    #[must_use]
    pub fn generator_cores(&self) -> f64 {
        self.cores_by_role.get(GENERATOR).copied().unwrap_or_default()
    }
}

const GENERATOR: &str = "generator";
const COMPONENTS: [&str; 3] = ["nats", "cassandra", "redis"];

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr, ServerError> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    bind().map_err(ServerError::io("no port is free"))
}

impl Server {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Something does not start; its log is told.
    pub async fn start(setup: &Setup) -> Result<Self, ServerError> {
        let folder = &setup.folder;
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(ServerError::io("old data cannot be removed"))?;
        }
        std::fs::create_dir_all(folder).map_err(ServerError::io("no folder for data"))?;
        let mut server = Self {
            edges: Vec::new(),
            secret: format!("{}{}", uuid::Uuid::new_v4(), uuid::Uuid::new_v4()),
            admins: Vec::new(),
            processes: Vec::new(),
            components: None,
            ticks_per_second: procfs::ticks_per_second(),
        };
        match setup.backend {
            Backend::Embedded => server.start_embedded(setup).await?,
            Backend::Cluster => server.start_cluster(setup).await?,
        }
        Ok(server)
    }

    async fn start_embedded(&mut self, setup: &Setup) -> Result<(), ServerError> {
        self.start_role(setup, "dev", "dev", &[]).await
    }

    async fn start_cluster(&mut self, setup: &Setup) -> Result<(), ServerError> {
        let components = Components::start(&setup.components, &setup.folder.join("components")).await?;
        let settings = components.settings.clone();
        self.components = Some(components);
        let migrate = Process::spawn(&setup.reedi, "migrate", &settings, &setup.folder.join("migrate.log"))?;
        migrate.ended_well(READY_WITHIN).await?;
        let roles = [("writer", setup.writers), ("delivery", setup.deliveries), ("edge", setup.edges)];
        for (role, count) in roles {
            for i in 1..=count {
                self.start_role(setup, role, &format!("{role}-{i}"), &settings).await?;
            }
        }
        Ok(())
    }

    async fn start_role(
        &mut self,
        setup: &Setup,
        role: &'static str,
        name: &str,
        settings: &[(String, String)],
    ) -> Result<(), ServerError> {
        let (listen, admin) = (free_address()?, free_address()?);
        let mut settings = settings.to_vec();
        let mut set = |name: &str, value: &str| settings.push((name.to_owned(), value.to_owned()));
        set("REEDI_LISTEN", &listen.to_string());
        set("REEDI_ADMIN_LISTEN", &admin.to_string());
        set("REEDI_DATA_DIR", &setup.folder.join("data").to_string_lossy());
        set("REEDI_AUTH_HS256_SECRET", &self.secret);
        set("REEDI_ACCOUNTS", "own");
        set("REEDI_LOG_LEVEL", "warn");
        set("REEDI_DRAIN_SECONDS", "0");
        for what in ["ACCOUNT", "CONVERSATION", "READ"] {
            set(&format!("REEDI_{what}_RATE"), NO_LIMIT);
            set(&format!("REEDI_{what}_BURST"), NO_LIMIT);
        }
        // All clients come from one address, of which an edge takes half as many.
        set("REEDI_HTTP_CONNECTIONS", NO_LIMIT);
        set("REEDI_SOCKETS_UNAUTHENTICATED", &WAITING_MOST.to_string());
        let log = setup.folder.join(format!("{name}.log"));
        let mut process = Process::spawn(&setup.reedi, role, &settings, &log)?;
        process.ready(admin, READY_WITHIN).await?;
        if matches!(role, "dev" | "edge") {
            let endpoint = Endpoint::parse(&format!("http://{listen}"));
            self.edges.push(endpoint.map_err(|e| ServerError::Components(e.to_string()))?);
            self.admins.push(admin);
        }
        self.processes.push((role, process));
        Ok(())
    }

    /// The edge that a client with this number goes to.
    #[must_use]
    pub fn edge(&self, client: usize) -> &Endpoint {
        &self.edges[client % self.edges.len()]
    }

    /// Sockets of all edges that have not said yet whose they are, as the edges count them.
    ///
    /// # Errors
    /// An edge does not say.
    pub async fn waiting(&self) -> Result<u64, ServerError> {
        let mut sum = 0;
        for admin in &self.admins {
            sum += admin::gauge(*admin, WAITING).await.map_err(ServerError::io("/metrics of an edge"))?;
        }
        Ok(sum)
    }

    fn pids(&self) -> impl Iterator<Item = (&str, u32)> {
        let own = self.processes.iter().map(|(role, process)| (*role, process.pid()));
        own.chain(self.components.iter().flat_map(Components::pids))
    }

    #[must_use]
    pub fn cpu(&self) -> CpuReading {
        let mut by_role = BTreeMap::new();
        for (role, pid) in self.pids().chain([(GENERATOR, std::process::id())]) {
            let used = procfs::cpu(pid, self.ticks_per_second).unwrap_or_default();
            *by_role.entry(role.to_owned()).or_default() += used;
        }
        CpuReading { at: Instant::now(), by_role, machine: procfs::machine_cpu(self.ticks_per_second) }
    }

    #[must_use]
    pub fn cpu_since(&self, before: &CpuReading) -> CpuUse {
        let now = self.cpu();
        let seconds = (now.at - before.at).as_secs_f64();
        let cores = |later: Duration, earlier: Duration| {
            later.saturating_sub(earlier).as_secs_f64() / seconds.max(f64::EPSILON)
        };
        let cores_by_role: BTreeMap<String, f64> = now
            .by_role
            .iter()
            .map(|(role, used)| {
                let earlier = before.by_role.get(role).copied().unwrap_or_default();
                (role.clone(), cores(*used, earlier))
            })
            .collect();
        let sum = |wanted: &dyn Fn(&str) -> bool| {
            // From a zero that is none below zero, as the sum of nothing is.
            cores_by_role.iter().filter(|(role, _)| wanted(role)).fold(0.0, |sum, (_, cores)| sum + cores)
        };
        CpuUse {
            seconds,
            server_cores: sum(&|role| role != GENERATOR && !COMPONENTS.contains(&role)),
            component_cores: sum(&|role| COMPONENTS.contains(&role)),
            machine_cores: cores(now.machine.busy, before.machine.busy),
            stolen_cores: cores(now.machine.stolen, before.machine.stolen),
            cores_by_role,
        }
    }

    /// Memory by role.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<String, Memory> {
        let mut by_role = BTreeMap::<String, Memory>::new();
        for (role, pid) in self.pids().chain([(GENERATOR, std::process::id())]) {
            *by_role.entry(role.to_owned()).or_default() += procfs::memory(pid).unwrap_or_default();
        }
        by_role
    }

    /// Memory of the processes that hold sockets.
    #[must_use]
    pub fn edge_memory(&self) -> Memory {
        let mut sum = Memory::default();
        for (_, process) in self.processes.iter().filter(|(role, _)| matches!(*role, "dev" | "edge")) {
            sum += procfs::memory(process.pid()).unwrap_or_default();
        }
        sum
    }

    /// Ends all processes, the last started first.
    pub async fn stop(mut self) {
        while let Some((_, process)) = self.processes.pop() {
            process.stop().await;
        }
        if let Some(components) = self.components.take() {
            components.stop().await;
        }
    }
}
