//! The schema as one session changes it: what is there before the lock, the lock, and what each change is made by.
//! Several processes may be at it at once, each on a node of its own.

use super::{MigrateError, SCOPE, server};
use crate::store::cql::config::{Backoff, CqlConfig};
use crate::store::cql::operation::ABOVE_EVERY_POSITION;
use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::SerialConsistency;
use scylla::statement::unprepared::Statement;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Seconds after which the lock of a migration that died is free; it is renewed before each statement,
/// and a statement may take [`CqlConfig::schema_timeout`].
const LOCK_TTL_S: i32 = 180;
/// How long to wait for another that migrates.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(300);
/// Times that a change of the schema is tried: half a minute, with the pauses of [`Backoff`].
const SCHEMA_TRIES: usize = 8;
/// Whether trying again brings the same.
fn is_final(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_) => true,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(refused, _)) => matches!(
            refused,
            DbError::SyntaxError
                | DbError::Unauthorized
                | DbError::AuthenticationError
                | DbError::ConfigError
        ),
        _ => false,
    }
}

/// What it means that the claim of the lock was refused, after `before` other refusals: `Ok` where it is tried again. A
/// keyspace that takes no conditional statements refuses it for ever.
fn judge_refused_claim(error: &ExecutionError, before: usize) -> Result<(), MigrateError> {
    if before >= SCHEMA_TRIES || is_final(error) {
        return Err(MigrateError::NoLightweightTransactions(error.to_string()));
    }
    Ok(())
}

/// Who migrates.
pub(super) struct Lock(Uuid);

/// A session whose statements all go to one node.
pub(super) struct Schema {
    pub(super) session: Session,
    pub(super) keyspace: String,
    profile: ExecutionProfileHandle,
}

impl Schema {
    pub(super) async fn open(
        config: &CqlConfig,
        tell: &(impl Fn(&str) + Sync),
    ) -> Result<Self, MigrateError> {
        tell(&format!("connecting to {}", config.contact_points.join(", ")));
        let session = config.await_session(|_| ()).await?;
        let state = session.get_cluster_state();
        let nodes = state.get_nodes_info();
        let node = nodes.iter().filter(|node| node.is_connected()).min_by_key(|node| node.host_id);
        let mut profile = session.get_default_execution_profile_handle().pointee_to_builder();
        profile = profile.request_timeout(Some(CqlConfig::schema_timeout()));
        if let Some(node) = node {
            let node = NodeIdentifier::HostId(node.host_id);
            profile = profile.load_balancing_policy(SingleTargetLoadBalancingPolicy::new(node, None));
        }
        let scylla = node.is_some_and(|node| node.sharder().is_some());
        let profile = profile.build().into_handle();
        let schema = Self { session, keyspace: config.keyspace.clone(), profile };
        schema.create_keyspace(config, scylla, tell).await?;
        schema.create_own_tables().await?;
        Ok(schema)
    }

    pub(super) async fn run(
        &self,
        text: &str,
        values: impl SerializeRow,
    ) -> Result<QueryResult, MigrateError> {
        self.attempt(text, values).await.map_err(server)
    }

    async fn attempt(&self, text: &str, values: impl SerializeRow) -> Result<QueryResult, ExecutionError> {
        let mut statement = Statement::new(text);
        statement.set_execution_profile_handle(Some(self.profile.clone()));
        statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        self.session.query_unpaged(statement, values).await
    }

    /// A change of the schema that comes to the same however often it is made. Before there is a lock several processes
    /// make it at once: what one has made another's node may not know yet, or refuse, for a moment.
    pub(super) async fn change(&self, text: &str) -> Result<(), MigrateError> {
        let mut wait = Backoff::new();
        for _ in 1..SCHEMA_TRIES {
            match self.attempt(text, ()).await {
                Ok(_)
                | Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                    DbError::AlreadyExists { .. },
                    _,
                ))) => return Ok(()),
                Err(error) if is_final(&error) => return Err(server(error)),
                Err(error) => wait.after(&format!("a change of the schema was refused: {error}")).await,
            }
        }
        self.run(text, ()).await.map(|_| ())
    }

    /// A conditional statement: whether it was applied.
    pub(super) async fn claim(&self, text: &str, values: impl SerializeRow) -> Result<bool, MigrateError> {
        crate::store::cql::applied(self.run(text, values).await?).map_err(server)
    }

    async fn create_keyspace(
        &self,
        config: &CqlConfig,
        scylla: bool,
        tell: &(impl Fn(&str) + Sync),
    ) -> Result<(), MigrateError> {
        let stands = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let found = self.run(stands, (&self.keyspace,)).await?.into_rows_result().map_err(server)?;
        if found.rows_num() == 0 {
            tell(&format!(
                "creating keyspace {} with replication {}",
                self.keyspace,
                config.replication.to_cql()
            ));
            let create = create_keyspace(config);
            let with_tablets_off = format!("{create} AND tablets = {{'enabled': false}}");
            let text = if scylla { &with_tablets_off } else { &create };
            match self.change(text).await {
                // A ScyllaDB from before tablets does not know the word.
                Err(_) if scylla => self.change(&create).await?,
                other => other?,
            }
        }
        self.use_keyspace().await
    }

    /// Where another makes it at the same time, a node may not know it yet.
    async fn use_keyspace(&self) -> Result<(), MigrateError> {
        let mut wait = Backoff::new();
        for _ in 1..SCHEMA_TRIES {
            match self.session.use_keyspace(&self.keyspace, false).await {
                Ok(()) => return Ok(()),
                Err(error) => wait.after(&format!("the keyspace cannot be used: {error}")).await,
            }
        }
        self.session.use_keyspace(&self.keyspace, false).await.map_err(server)
    }

    async fn create_own_tables(&self) -> Result<(), MigrateError> {
        for table in [
            // kind: lwt
            "schema_versions (scope int, version int, name text, checksum text, applied_at text, \
             PRIMARY KEY ((scope), version))",
            // kind: lwt
            "schema_lock (scope int PRIMARY KEY, owner uuid)",
            // kind: position, and empty again after each probe
            "schema_probe (scope int PRIMARY KEY, value int)",
        ] {
            self.change(&format!("CREATE TABLE IF NOT EXISTS {table}")).await?;
        }
        Ok(())
    }

    /// Waits until no other migration runs. The lock itself is the probe of lightweight transactions.
    pub(super) async fn lock(&self, tell: &(impl Fn(&str) + Sync)) -> Result<Lock, MigrateError> {
        let lock = Lock(Uuid::new_v4());
        let began = Instant::now();
        let mut wait = Backoff::new();
        let mut refusals = 0;
        loop {
            let claim = format!(
                "INSERT INTO schema_lock (scope, owner) VALUES (?, ?) IF NOT EXISTS USING TTL {LOCK_TTL_S}"
            );
            let applied = self.attempt(&claim, (SCOPE, lock.0)).await.map(crate::store::cql::applied);
            match applied {
                Ok(applied) if applied.clone().map_err(server)? || self.holds(&lock).await => {
                    return Ok(lock);
                }
                Ok(_) if began.elapsed() > LOCK_WAIT => return Err(MigrateError::Locked),
                Ok(_) => {
                    tell("another migration is running: waiting for it");
                    wait.after("another migration is running").await;
                }
                // Many at once keep each other from it, and a table that another has just made may not be there yet.
                Err(error) => {
                    judge_refused_claim(&error, refusals)?;
                    refusals += 1;
                    wait.after(&format!("the lock was not answered for: {error}")).await;
                }
            }
        }
    }

    /// Whether a claim that was not answered, and looks as if another had been first, was this one's.
    async fn holds(&self, lock: &Lock) -> bool {
        self.renew(lock).await.is_ok()
    }

    pub(super) async fn renew(&self, lock: &Lock) -> Result<(), MigrateError> {
        let renew =
            format!("UPDATE schema_lock USING TTL {LOCK_TTL_S} SET owner = ? WHERE scope = ? IF owner = ?");
        if self.claim(&renew, (lock.0, SCOPE, lock.0)).await? { Ok(()) } else { Err(MigrateError::LockLost) }
    }

    /// Where this fails the lock ends by itself.
    pub(super) async fn unlock(&self, lock: &Lock) {
        let free = "DELETE FROM schema_lock WHERE scope = ? IF owner = ?";
        if let Err(error) = self.claim(free, (SCOPE, lock.0)).await {
            tracing::warn!(%error, "the migration's lock stays for {LOCK_TTL_S} s");
        }
    }

    /// Deletions are written above every position (rule P8): the server has to take that and answer with it.
    pub(super) async fn probe_timestamp(&self) -> Result<(), MigrateError> {
        let refused = |error: MigrateError| MigrateError::Timestamp(error.to_string());
        let put = format!(
            "INSERT INTO schema_probe (scope, value) VALUES (?, 1) USING TIMESTAMP {ABOVE_EVERY_POSITION}"
        );
        self.run(&put, (SCOPE,)).await.map_err(refused)?;
        let answer = self.run("SELECT WRITETIME(value) FROM schema_probe WHERE scope = ?", (SCOPE,)).await?;
        let rows = answer.into_rows_result().map_err(server)?;
        let row = rows.maybe_first_row::<(Option<i64>,)>().map_err(server)?;
        // Nothing is there when the tombstone of an earlier probe covers it: then it was taken before.
        match row {
            Some((Some(at),)) if at != ABOVE_EVERY_POSITION => {
                Err(MigrateError::Timestamp(format!("it answered with {at}")))
            }
            _ => {
                let clear = format!(
                    "DELETE FROM schema_probe USING TIMESTAMP {ABOVE_EVERY_POSITION} WHERE scope = ?"
                );
                self.run(&clear, (SCOPE,)).await.map_err(refused).map(|_| ())
            }
        }
    }
}

/// Both names have been checked to be plain.
fn create_keyspace(config: &CqlConfig) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {}",
        config.keyspace,
        config.replication.to_cql()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config::Replication;

    #[test]
    fn a_keyspace_without_lightweight_transactions_is_refused() {
        let answer = |error| {
            let why = "LWT is not yet supported with tablets".to_owned();
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, why))
        };
        // So says a node for a moment that does not know the table yet, and a keyspace of tablets for ever.
        let invalid = answer(DbError::Invalid);
        assert!((0..SCHEMA_TRIES).all(|before| judge_refused_claim(&invalid, before).is_ok()));
        let refused = judge_refused_claim(&invalid, SCHEMA_TRIES).unwrap_err();
        assert!(matches!(refused, MigrateError::NoLightweightTransactions(_)));
        let says = refused.to_string();
        for part in ["LWT is not yet supported", "WITH tablets = {'enabled': false}"] {
            assert!(says.contains(part), "{says}");
        }
        let at_once = judge_refused_claim(&answer(DbError::SyntaxError), 0);
        assert!(matches!(at_once, Err(MigrateError::NoLightweightTransactions(_))));
    }

    #[test]
    fn the_keyspace_is_replicated_in_its_data_center() {
        let mut config = CqlConfig {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "reedi".into(),
            user: None,
            password: None,
            tls_ca_file: None,
            replication: Replication::Everywhere(3),
            local_datacenter: None,
        };
        assert!(create_keyspace(&config).ends_with("'NetworkTopologyStrategy', 'replication_factor': 3}"));
        config.replication = Replication::In(vec![("eu-1".into(), 3)]);
        assert!(create_keyspace(&config).ends_with("'NetworkTopologyStrategy', 'eu-1': 3}"));
    }
}
