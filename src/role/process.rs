//! A process: listeners, the roles that it plays, and the parts they share. The same for one process
//! with everything, for each process of a cluster, and for a whole cluster within one test.

use super::{EdgeParts, RoleError, Running, Shared, bind, start_delivery, start_edge, start_writer};
use crate::edge::Edge;
use crate::edge_link::EdgeLink;
use crate::log::Log;
use crate::log::measure::keep_measuring;
use crate::ownership::Ownership;
use crate::runtime::clock::LogClock;
use crate::runtime::config::Config;
use crate::runtime::health::{self, Readiness};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::store::Store;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Which roles a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    pub edge: bool,
    pub delivery: bool,
    pub writer: bool,
}

impl Roles {
    pub const ALL: Self = Self { edge: true, delivery: true, writer: true };
    pub const EDGE: Self = Self { edge: true, delivery: false, writer: false };
    pub const DELIVERY: Self = Self { edge: false, delivery: true, writer: false };
    pub const WRITER: Self = Self { edge: false, delivery: false, writer: true };
}

/// What stands behind the ports. Processes of one cluster hold parts that lead to the same place: the
/// same servers, or, within one process, clones of the same adapters.
#[derive(Clone)]
pub struct Parts {
    pub log: Log,
    pub store: Store,
    pub link: EdgeLink,
    pub ownership: Ownership,
    /// Needed where an edge is among the roles.
    pub edge: Option<EdgeParts>,
}

/// A process that listens and lives and has no parts yet: `/readyz` says what is missing.
pub struct Process {
    pub config: Arc<Config>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// The log's, once it is measured. The store goes by it too.
    pub clock: LogClock,
    roles: Roles,
    pub(super) shutdown: Shutdown,
    listener: Option<TcpListener>,
    admin_address: SocketAddr,
}

impl Process {
    /// Listens where the configuration says, and answers probes.
    ///
    /// # Errors
    /// An address is taken or not ours.
    pub async fn open(config: Config, roles: Roles, shutdown: Shutdown) -> Result<Self, RoleError> {
        let metrics = Metrics::new();
        let readiness = Readiness::new(shutdown.clone(), metrics.clone());
        let listener = if roles.edge { Some(bind(config.process.listen).await?) } else { None };
        let admin = bind(config.process.admin_listen).await?;
        let admin_address = admin.local_addr().unwrap_or(config.process.admin_listen);
        // At once, so that probes find them lacking while the outside parts are waited for.
        let _ = readiness.part(if roles.edge { "edge" } else { "roles" });
        let serving = tokio::spawn(health::serve(admin, readiness.clone(), metrics.clone()));
        shutdown.supervise("the admin listener", serving);
        let (config, clock) = (Arc::new(config), LogClock::from_system());
        Ok(Self { config, metrics, readiness, clock, roles, shutdown, listener, admin_address })
    }

    /// Starts the roles on `parts`.
    ///
    /// # Errors
    /// Nothing to verify tokens with, or the edge link is away.
    pub async fn start(self, parts: Parts) -> Result<Member, RoleError> {
        let (answers, log_answers) = watch::channel(false);
        let measuring = keep_measuring(parts.log.clone(), self.clock.clone(), self.metrics.clone(), answers);
        self.shutdown.supervise("measuring the log's clock", tokio::spawn(measuring));
        let shared = Shared {
            config: self.config,
            log: parts.log,
            store: parts.store,
            link: parts.link,
            ownership: parts.ownership,
            clock: self.clock,
            log_answers,
            metrics: self.metrics,
            readiness: self.readiness,
            shutdown: self.shutdown,
        };
        let mut running = Vec::new();
        if self.roles.writer {
            running.push(start_writer(&shared));
        }
        if self.roles.delivery {
            running.push(start_delivery(&shared));
        }
        let (mut address, mut edge) = (None, None);
        if let (Some(listener), Some(edge_parts)) = (self.listener, parts.edge) {
            address = listener.local_addr().ok();
            let (started, serving) = start_edge(&shared, edge_parts, listener).await?;
            edge = Some(started);
            running.push(serving);
        }
        if edge.is_none() {
            // An edge says by itself what it lacks; workers take up work as they get leases.
            shared.readiness.part("roles").ready();
        }
        Ok(Member { address, admin_address: self.admin_address, shared, edge, running })
    }
}

/// A process whose roles run.
pub struct Member {
    /// Where its edge listens.
    pub address: Option<SocketAddr>,
    pub admin_address: SocketAddr,
    pub shared: Shared,
    pub edge: Option<Arc<Edge>>,
    running: Vec<Running>,
}

impl Member {
    /// Waits until every role has ended.
    pub async fn ended(self) {
        for role in self.running {
            let _ = role.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config::Inputs;

    #[tokio::test]
    async fn a_process_without_its_roles_is_not_ready_whatever_else_is_there() {
        for (roles, lacks) in [(Roles::EDGE, "edge"), (Roles::ALL, "edge"), (Roles::WRITER, "roles")] {
            let mut config = Inputs::default().resolve().expect("the defaults work alone").config;
            config.process.listen = SocketAddr::from(([127, 0, 0, 1], 0));
            config.process.admin_listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let process = Process::open(config, roles, Shutdown::new()).await.expect("the ports are free");
            for part in ["store", "nats"] {
                process.readiness.part(part).ready();
            }
            assert_eq!(process.readiness.missing().into_keys().collect::<Vec<_>>(), [lacks], "{roles:?}");
        }
    }
}
