//! `reedi dev`: every role in one process, with embedded parts.

use super::process::{Member, Parts, Process, Roles};
use super::{EdgeParts, RoleError};
use crate::edge_link::EdgeLink;
use crate::edge_link::in_process::InProcessLink;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Log, LogPort as _};
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
use crate::runtime::own_secrets;
use crate::runtime::shutdown::Shutdown;
use crate::store::embedded::EmbeddedStore;
use crate::store::{Store, Watermarks as _};
use reedi_protocol::Epoch;

/// Starts all roles on the data in the configured folder.
///
/// # Errors
/// What cannot be opened, made or listened on.
pub async fn start(mut config: Config, shutdown: Shutdown) -> Result<Member, RoleError> {
    let folder = config.process.data_dir.clone();
    if config.auth.hs256_secret.is_none() && config.auth.jwks_url.is_none() {
        config.auth.hs256_secret = Some(own_secrets::signing_secret(&folder)?);
    }
    if config.seal.keys.is_none() {
        config.seal.keys = Some(own_secrets::seal_keys(&folder)?);
    }
    let process = Process::open(config, Roles::ALL, shutdown).await?;
    let parts = embedded_parts(&process.config, &process.clock)?;
    check_whole(&parts.log, &parts.store).await?;
    process.start(parts).await
}

/// Refuses a log that ends before what the store has of it (rule P9): it would give places a second time, and what
/// is stored in them would be taken for what is new.
async fn check_whole(log: &Log, store: &Store) -> Result<(), RoleError> {
    let stored =
        store.watermarks().await?.into_iter().map(|(_, position)| position).max().unwrap_or_default();
    for slice in log.slices() {
        let ends = log.state(slice).await.map_err(|error| RoleError::LogUnread(error.to_string()))?.last;
        if ends < stored {
            return Err(RoleError::LogBehind { ends, stored });
        }
    }
    Ok(())
}

/// The embedded parts on the configured folder; what has ended is judged by `clock`. Clones lead to the same: all processes of a cluster
/// within one process hold clones.
///
/// # Errors
/// What cannot be opened, or no seal keys.
pub fn embedded_parts(config: &Config, clock: &LogClock) -> Result<Parts, RoleError> {
    let folder = &config.process.data_dir;
    let log = Log::Embedded(EmbeddedLog::open(&folder.join("log"), Epoch::FIRST)?);
    let store = Store::Embedded(EmbeddedStore::open(&folder.join("store"), clock.clone())?);
    let people = match config.accounts_of(true) {
        AccountsOf::Own => People::Own(OwnPeople::new(store.clone())),
        AccountsOf::Platform => People::Platform(platform(config)?),
    };
    let edge = EdgeParts {
        presence: PresenceStore::InMemory(InMemoryPresence::default()),
        rate_limit: RateLimit::InMemory(InMemoryRateLimit::default()),
        people,
        seal_keys: config.seal.keys.clone().ok_or(RoleError::SealKeys)?,
    };
    Ok(Parts {
        log,
        store,
        link: EdgeLink::InProcess(InProcessLink::default()),
        ownership: Ownership::InProcess(InProcessOwnership::default()),
        edge: Some(edge),
    })
}

/// The platform's people.
///
/// # Errors
/// Its address is not configured.
pub fn platform(config: &Config) -> Result<Platform, RoleError> {
    let url = config.people_url()?;
    Platform::new(url.url().clone()).map_err(|error| RoleError::People(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::EmbeddedLog;

    use reedi_protocol::{Position, Shard, Timestamp};

    #[tokio::test]
    async fn a_log_that_lost_what_the_store_has_is_refused() {
        let log = || Log::Embedded(EmbeddedLog::in_memory(Epoch::FIRST, "one", Timestamp::from_millis(1)));
        let store = Store::Embedded(EmbeddedStore::in_memory(LogClock::from_system()));
        check_whole(&log(), &store).await.expect("both are new");
        let stored = Position::new(Epoch::FIRST, 7).expect("a position");
        store.persist(Vec::new(), vec![(Shard(3), stored)]).await.expect("it is stored");
        let refused = check_whole(&log(), &store).await.expect_err("the log has nothing of it");
        assert!(matches!(refused, RoleError::LogBehind { stored: at, .. } if at == stored), "{refused}");
    }
}
