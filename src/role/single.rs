//! `reedi dev`: every role in one process, with embedded parts.

use super::{EdgeParts, RoleError, Running, Shared, bind, start_delivery, start_edge, start_writer};
use crate::edge_link::EdgeLink;
use crate::edge_link::in_process::InProcessLink;
use crate::log::Log;
use crate::log::embedded::EmbeddedLog;
use crate::ownership::Ownership;
use crate::ownership::in_process::InProcessOwnership;
use crate::people::People;
use crate::people::own::OwnPeople;
use crate::people::platform::Platform;
use crate::presence::PresenceStore;
use crate::presence::in_memory::InMemoryPresence;
use crate::rate_limit::RateLimit;
use crate::rate_limit::in_memory::InMemoryRateLimit;
use crate::runtime::clock::LogClock;
use crate::runtime::config::{AccountsOf, Config};
use crate::runtime::health::{self, Readiness};
use crate::runtime::metrics::Metrics;
use crate::runtime::own_secrets;
use crate::runtime::shutdown::Shutdown;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use reedi_protocol::Epoch;
use std::net::SocketAddr;
use std::sync::Arc;

/// A whole service that runs.
pub struct Single {
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    pub shared: Shared,
    running: Vec<Running>,
}

impl Single {
    /// Waits until every role has ended.
    pub async fn ended(self) {
        for role in self.running {
            let _ = role.await;
        }
    }
}

/// Starts all roles on the data in the configured folder.
///
/// # Errors
/// What cannot be opened, made or listened on.
pub async fn start(mut config: Config, shutdown: Shutdown) -> Result<Single, RoleError> {
    let folder = config.process.data_dir.clone();
    if config.auth.hs256_secret.is_none() && config.auth.jwks_url.is_none() {
        config.auth.hs256_secret = Some(own_secrets::signing_secret(&folder)?);
    }
    let seal_keys = match config.seal.keys.clone() {
        Some(keys) => keys,
        None => own_secrets::seal_keys(&folder)?,
    };
    let listener = bind(config.process.listen).await?;
    let admin = bind(config.process.admin_listen).await?;
    let log = Log::Embedded(EmbeddedLog::open(&folder.join("log"), Epoch::FIRST)?);
    let store = Store::Embedded(EmbeddedStore::open(&folder.join("store"))?);
    let people = match config.accounts_of(true) {
        AccountsOf::Own => People::Own(OwnPeople::new(store.clone())),
        AccountsOf::Platform => People::Platform(platform(&config)?),
    };
    let metrics = Metrics::new();
    let readiness = Readiness::new(shutdown.clone(), metrics.clone());
    let shared = Shared {
        config: Arc::new(config),
        log,
        store,
        link: EdgeLink::InProcess(InProcessLink::default()),
        ownership: Ownership::InProcess(InProcessOwnership::default()),
        clock: LogClock::from_system(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        shutdown,
    };
    let (address, admin_address) = (local(&listener), local(&admin));
    let parts = EdgeParts {
        presence: PresenceStore::InMemory(InMemoryPresence::default()),
        rate_limit: RateLimit::InMemory(InMemoryRateLimit::default()),
        people,
        seal_keys,
    };
    let writer = start_writer(&shared);
    let delivery = start_delivery(&shared);
    let (_, edge) = start_edge(&shared, parts, listener).await?;
    tokio::spawn(health::serve(admin, readiness, metrics));
    Ok(Single { address, admin_address, shared, running: vec![edge, delivery, writer] })
}

fn local(listener: &tokio::net::TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The platform's people.
///
/// # Errors
/// Its address is not configured.
pub fn platform(config: &Config) -> Result<Platform, RoleError> {
    let url = config.people_url()?;
    Platform::new(url.url().clone()).map_err(|error| RoleError::People(error.to_string()))
}
