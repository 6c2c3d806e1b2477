//! The whole cluster: components, processes, and the lines between them.

use crate::balancer;
use crate::components::{ComponentError, Components};
use crate::line::Lines;
use crate::role::{Place, Role, RoleError};
use base64::Engine;
use rand::Rng;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// How many processes of each role there are.
const EDGES: usize = 3;
const DELIVERY: usize = 2;
const WRITERS: usize = 2;
/// Below the ports from which Linux takes those of outgoing connections, and below the components': a
/// process that is killed finds its port free when it comes back.
const PORTS: std::ops::Range<u16> = 12_000..19_900;
/// For `reedi migrate`, which waits by itself for the store.
const MIGRATE_WITHIN: Duration = Duration::from_secs(120);
/// For everything to be ready at the start, and again after each fault.
const READY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why there is no whole cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Component(#[from] ComponentError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("the run cannot be prepared: {0}")]
    Prepare(#[from] io::Error),
    #[error("reedi migrate {0}")]
    Migrate(String),
    #[error("not everything is ready after {READY_WITHIN:?}: {0}")]
    NotReady(String),
}

/// What must be found in no log and in no file.
pub struct Secrets {
    pub token_secret: String,
    pub seal_key: String,
    pub password: String,
}

impl Secrets {
    fn make() -> Self {
        let word = || uuid::Uuid::new_v4().simple().to_string();
        let key: [u8; 32] = rand::random();
        Self {
            token_secret: format!("{}{}", word(), word()),
            seal_key: base64::engine::general_purpose::STANDARD.encode(key),
            password: word(),
        }
    }
}

pub struct Cluster {
    pub components: Components,
    pub roles: Vec<Role>,
    pub secrets: Secrets,
    /// Where clients connect: the balancer before the edges.
    pub entry: SocketAddr,
}

impl Cluster {
    /// Starts everything and waits until it is ready. `parts` is the folder of all nodes.
    pub async fn start(binary: &Path, scripts: &Path, parts: &Path) -> Result<Self, ClusterError> {
        let components = Components::start(scripts, parts).await?;
        let secrets = Secrets::make();
        let settings = settings(&components, &secrets)?;
        migrate(binary, &settings, parts).await?;
        let servers: Vec<String> =
            components.address("REEDI_TEST_NATS_URL")?.split(',').map(str::to_owned).collect();
        let mut ports = free_ports((EDGES + DELIVERY + WRITERS) * 2)?.into_iter();
        let mut roles = Vec::new();
        for (role, count) in [("writer", WRITERS), ("delivery", DELIVERY), ("edge", EDGES)] {
            for number in 1..=count {
                let mut address = || (Ipv4Addr::LOCALHOST, ports.next().unwrap_or_default()).into();
                let place = Place {
                    name: format!("{role}-{number}"),
                    role,
                    listen: address(),
                    admin: address(),
                    binary,
                    parts,
                };
                roles.push(Role::new(place, Lines::open(&servers).await?, settings.clone())?);
            }
        }
        let edges: Vec<_> =
            roles.iter().filter(|r| r.name.starts_with("edge")).map(|r| (r.listen, r.admin)).collect();
        let entry = balancer::start(&edges).await?;
        let mut cluster = Self { components, roles, secrets, entry };
        for role in &mut cluster.roles {
            role.start()?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    pub fn edges(&self) -> impl Iterator<Item = &Role> {
        self.roles.iter().filter(|role| role.name.starts_with("edge"))
    }

    pub fn role(&mut self, name: &str) -> Option<&mut Role> {
        self.roles.iter_mut().find(|role| role.name == name)
    }

    /// Waits until every process says that it is ready, and none has ended by itself.
    pub async fn ready(&mut self) -> Result<(), ClusterError> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let mut lacks = Vec::new();
            for role in &mut self.roles {
                role.check()?;
                lacks.extend(role.ready().await.err());
            }
            if lacks.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(ClusterError::NotReady(lacks.join("; ")));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn settings(
    components: &Components,
    secrets: &Secrets,
) -> Result<Vec<(&'static str, String)>, ComponentError> {
    Ok(vec![
        ("REEDI_CQL_CONTACT_POINTS", components.address("REEDI_TEST_CQL")?.to_owned()),
        ("REEDI_CQL_REPLICATION", "3".to_owned()),
        ("REEDI_REDIS_URL", components.address("REEDI_TEST_REDIS_URL")?.to_owned()),
        ("REEDI_NATS_REPLICAS", "3".to_owned()),
        // Reserved at once on each of the three nodes, which share one disk here.
        ("REEDI_NATS_MAX_BYTES", "1GiB".to_owned()),
        ("REEDI_ACCOUNTS", "own".to_owned()),
        ("REEDI_AUTH_HS256_SECRET", secrets.token_secret.clone()),
        ("REEDI_SEAL_KEYS", format!("chaos:{}", secrets.seal_key)),
        ("REEDI_DRAIN_SECONDS", "5".to_owned()),
        // All accounts sign up from one address.
        ("REEDI_SIGN_IN_RATE", "1000".to_owned()),
        ("REEDI_SIGN_IN_BURST", "1000".to_owned()),
        ("RUST_BACKTRACE", "1".to_owned()),
    ])
}

async fn migrate(
    binary: &Path,
    settings: &[(&'static str, String)],
    parts: &Path,
) -> Result<(), ClusterError> {
    let log: PathBuf = parts.join("migrate.log");
    let file = std::fs::File::create(&log)?;
    let mut command = Command::new(binary);
    let needed = settings.iter().filter(|(name, _)| name.starts_with("REEDI_CQL"));
    command.arg("migrate").env_clear().envs(needed.cloned());
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    match tokio::time::timeout(MIGRATE_WITHIN, command.status()).await {
        Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
        Ok(Ok(status)) => Err(ClusterError::Migrate(format!("failed ({status}):\n{}", said()))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ClusterError::Migrate(format!("is not done after {MIGRATE_WITHIN:?}:\n{}", said()))),
    }
}

/// A block of ports where nobody listens.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let most = PORTS.end - u16::try_from(count).unwrap_or(u16::MAX);
    for _ in 0..100 {
        let first = rand::rng().random_range(PORTS.start..most);
        let ports: Vec<u16> = (first..PORTS.end).take(count).collect();
        if ports.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()) {
            return Ok(ports);
        }
    }
    Err(io::Error::other("no block of free ports was found"))
}
