//! The roles of a cluster: the log and ownership on NATS, the store on CQL, presence and rate limits
//! on Redis.

use super::process::{Member, Parts, Process, Roles};
use super::{EdgeParts, RoleError};
use crate::edge_link::EdgeLink;
use crate::edge_link::nats::NatsLink;
use crate::log::Log;
use crate::log::nats::connection::NatsConfig;
use crate::log::nats::subject::Namespace;
use crate::log::nats::{NatsLog, NatsLogConfig, NatsLogError};
use crate::ownership::Ownership;
use crate::ownership::nats::{NatsOwnership, NatsOwnershipConfig};
use crate::people::People;
use crate::people::own::OwnPeople;
use crate::presence::PresenceStore;
use crate::presence::redis::RedisPresence;
use crate::rate_limit::RateLimit;
use crate::rate_limit::redis::RedisRateLimit;
use crate::redis_access::{RedisAccess, RedisConfig};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::LogClock;
use crate::runtime::config::{AccountsOf, Config};
use crate::runtime::health::Part;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::store::cql::{CqlConfig, CqlStore};
use crate::store::{Claimed, EpochRow, Epochs as _, Store, Watermarks as _};
use reedi_protocol::{Epoch, Position, Shard};
use std::time::Duration;

/// How often the outside parts are looked at for readiness.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the store is.
#[must_use]
pub fn cql_config(config: &Config) -> CqlConfig {
    CqlConfig {
        contact_points: config.cql.contact_points.iter().flat_map(|points| points.addresses()).collect(),
        keyspace: config.cql.keyspace.as_str().to_owned(),
        user: config.cql.user.as_ref().map(|user| user.as_str().to_owned()),
        password: config.cql.password.as_ref().map(|password| password.reveal().to_owned()),
        tls_ca_file: config.cql.ca.clone(),
        replication: config.cql.replication.clone(),
        local_datacenter: config.cql.local_datacenter.as_ref().map(|name| name.as_str().to_owned()),
    }
}

fn nats_config(config: &Config) -> NatsConfig {
    NatsConfig {
        urls: config.nats.urls.iter().flat_map(|urls| urls.urls().iter().map(ToString::to_string)).collect(),
        credentials_file: config.nats.credentials.clone(),
        ca_file: config.nats.ca.clone(),
        tls: config.nats.ca.is_some(),
    }
}

/// Starts the roles of one process. Waits for the outside parts, saying which is missing; meanwhile
/// the process lives and is not ready.
///
/// # Errors
/// What no waiting can mend.
pub async fn start(config: Config, roles: Roles, shutdown: Shutdown) -> Result<Member, RoleError> {
    config.cluster()?;
    if roles.edge {
        config.check_edge()?;
    }
    let process = Process::open(config, roles, shutdown).await?;
    let (store_part, nats_part) = (process.readiness.part("store"), process.readiness.part("nats"));
    store_part.lacks("waiting for the CQL cluster at REEDI_CQL_CONTACT_POINTS");
    nats_part.lacks("not looked for yet: the store is first, for it knows which log is ours");
    let config = process.config.clone();
    let store = Store::Cql(connect_store(&config, &process.clock, &store_part).await?);
    let (log, link, ownership) = log_of(&config, &store, &store_part, &nats_part).await?;
    let watching = watch_parts(store.clone(), log.clone(), link.clone(), store_part, nats_part);
    process.shutdown.supervise("the watch on outside parts", tokio::spawn(watching));
    let edge = match roles.edge {
        true => Some(edge_parts(&config, &store, &process.metrics).await?),
        false => None,
    };
    let parts = Parts {
        log: Log::Nats(log),
        store,
        link: EdgeLink::Nats(link),
        ownership: Ownership::Nats(ownership),
        edge,
    };
    process.start(parts).await
}

async fn connect_store(config: &Config, clock: &LogClock, part: &Part) -> Result<CqlStore, RoleError> {
    let waits = |why: &str| part.lacks(why);
    let connected = CqlStore::connect(&cql_config(config), clock.clone(), waits).await;
    let store = connected.map_err(|error| RoleError::Cql(error.to_string()))?;
    part.ready();
    Ok(store)
}

/// The epoch that the log is in; the first process of a new installation claims the first one.
async fn current_epoch(store: &Store, slices: u16, part: &Part) -> Result<EpochRow, RoleError> {
    let mut backoff = Backoff::for_parts();
    loop {
        let claimed = async {
            if let Some(newest) =
                store.epochs().await?.into_iter().filter(|row| !row.sealed).max_by_key(|row| row.epoch)
            {
                return Ok(newest);
            }
            let incarnations = (0..slices).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
            let first = EpochRow { epoch: Epoch::FIRST, incarnations, sealed: false };
            match store.claim_epoch(&first).await? {
                Claimed::New => Ok(first),
                Claimed::Stood(row) => Ok::<_, crate::store::StoreError>(row),
            }
        };
        match claimed.await {
            Ok(row) => return Ok(row),
            Err(error) => {
                tracing::warn!(%error, "the log's epoch cannot be read from the store; has `reedi migrate` been run?");
                part.lacks(format!(
                    "the log's epoch cannot be read ({error}); has `reedi migrate` been run?"
                ));
                tokio::time::sleep(backoff.next().unwrap_or(LOOK_EVERY)).await;
            }
        }
    }
}

/// How far the store has each shard, which the log must not end before (rule P9): without it nothing would be checked.
async fn watermarks(store: &Store, part: &Part) -> Vec<(Shard, Position)> {
    let mut backoff = Backoff::for_parts();
    loop {
        match store.watermarks().await {
            Ok(watermarks) => {
                part.ready();
                return watermarks;
            }
            Err(error) => {
                part.lacks(format!("the watermarks cannot be read ({error})"));
                tokio::time::sleep(backoff.next().unwrap_or(LOOK_EVERY)).await;
            }
        }
    }
}

/// The log that the store knows of, once it can be used.
async fn log_of(
    config: &Config,
    store: &Store,
    store_part: &Part,
    nats_part: &Part,
) -> Result<(NatsLog, NatsLink, NatsOwnership), RoleError> {
    let mut backoff = Backoff::for_parts();
    loop {
        // Read anew each time: a store that was put back names an earlier place.
        let epoch = current_epoch(store, config.division.log_slices.count(), store_part).await?;
        let watermarks = watermarks(store, store_part).await;
        match connect_nats(config, &watermarks, &epoch, nats_part).await {
            // A person has to mend it, and finds out here why; a process that ends would be started again and again.
            Err(RoleError::NatsLog(error @ (NatsLogError::Fenced(_) | NatsLogError::Stream { .. }))) => {
                tracing::error!(%error, "the log cannot be used; looking again until it can");
                nats_part.lacks(format!("{error}; looking again"));
                tokio::time::sleep(backoff.next().unwrap_or(LOOK_EVERY)).await;
            }
            ended => return ended,
        }
    }
}

async fn connect_nats(
    config: &Config,
    watermarks: &[(Shard, Position)],
    epoch: &EpochRow,
    part: &Part,
) -> Result<(NatsLog, NatsLink, NatsOwnership), RoleError> {
    part.lacks("waiting for NATS at REEDI_NATS_URL");
    let name = config.nats.name.as_str();
    let namespace = Namespace::new(name).ok_or_else(|| RoleError::NatsName(name.to_owned()))?;
    let nats = nats_config(config);
    let log_config = NatsLogConfig {
        nats: nats.clone(),
        namespace: namespace.clone(),
        replicas: config.nats.replicas,
        max_bytes: config.nats.max_bytes.bytes(),
        append_connections: 1,
    };
    let log = NatsLog::connect(log_config, epoch.epoch, &epoch.incarnations, watermarks).await?;
    let link = NatsLink::connect(&nats, namespace.clone()).await?;
    let ownership_config =
        NatsOwnershipConfig { nats, namespace, replicas: config.nats.replicas, epoch: epoch.epoch };
    Ok((log, link, NatsOwnership::connect(&ownership_config).await?))
}

fn redis_config(config: &Config) -> RedisConfig {
    let urls = config.redis.urls.iter().flat_map(|urls| urls.urls().iter().map(ToString::to_string));
    RedisConfig { ca_file: config.redis.ca.clone(), ..RedisConfig::new(urls.collect()) }
}

async fn edge_parts(config: &Config, store: &Store, metrics: &Metrics) -> Result<EdgeParts, RoleError> {
    let redis = RedisAccess::connect(&redis_config(config)).await?;
    let people = match config.accounts_of(false) {
        AccountsOf::Own => People::Own(OwnPeople::new(store.clone())),
        AccountsOf::Platform => People::Platform(super::single::platform(config)?),
    };
    let seal_keys = config.seal.keys.clone().ok_or(RoleError::SealKeys)?;
    let rate_limit = RateLimit::redis(RedisRateLimit::new(redis.clone()));
    let presence = PresenceStore::Redis(RedisPresence::new(redis));
    let (limits, metrics) = (rate_limit.clone(), metrics.clone());
    tokio::spawn(async move {
        loop {
            // Nothing stops without Redis, so readiness does not ask for it.
            metrics.set_degraded("redis", limits.degraded());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    Ok(EdgeParts { presence, rate_limit, people, seal_keys })
}

async fn watch_parts(store: Store, log: NatsLog, link: NatsLink, store_part: Part, nats_part: Part) {
    loop {
        let stored = tokio::time::timeout(Duration::from_secs(5), store.watermarks()).await;
        match stored {
            Ok(Ok(watermarks)) => {
                log.expect_at_least(&watermarks);
                store_part.ready();
            }
            // With the store away live messages go on: that is no reason to send clients elsewhere.
            Ok(Err(_)) | Err(_) => tracing::debug!("the store does not answer"),
        }
        nats_part.set(match log.fenced() {
            Some(why) => Err(format!("the log is fenced: {why}")),
            None if log.is_connected() && link.is_connected() => Ok(()),
            None => Err("NATS is not connected".into()),
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config::Inputs;

    #[test]
    fn what_is_configured_reaches_the_parts() {
        let set = [
            ("cql_replication", "east:3,west:3"),
            ("cql_local_datacenter", "west"),
            ("redis_url", "rediss://a,rediss://b"),
            ("redis_ca", "/etc/redis.pem"),
        ];
        let flags = set.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let config = Inputs { flags, ..Inputs::default() }.resolve().unwrap().config;
        assert_eq!(cql_config(&config).local_datacenter.as_deref(), Some("west"));
        let redis = redis_config(&config);
        assert_eq!(redis.urls, ["rediss://a", "rediss://b"]);
        assert_eq!(redis.ca_file.as_deref(), Some(std::path::Path::new("/etc/redis.pem")));
    }
}
