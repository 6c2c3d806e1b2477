//! The schema: numbered migrations, applied in order by one at a time.
//!
//! Each is a file under `cql/` with a part `-- up` and a part `-- down`, embedded into the binary. What
//! has been applied stands in `schema_versions` with the file's checksum, so that a file that was changed
//! afterwards is noticed. Schema changes all go to one node, because Cassandra lets two nodes create the
//! same table as two tables; a lock in the store lets two callers wait for each other.

use super::config::{Backoff, ConfigError, CqlConfig};
use super::operation::ABOVE_EVERY_POSITION;
use crate::store::StoreError;
use futures_util::TryStreamExt;
use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A numbered change of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    pub version: i32,
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal;)*) => {
        /// All of them, in order. A released file is never changed: a new one is added.
        pub const MIGRATIONS: &[Migration] = &[$(Migration {
            version: $version,
            name: $name,
            text: include_str!(concat!("../../../cql/", $name, ".cql")),
        }),*];
    };
}

migrations! {
    1 "0001_history";
    2 "0002_claims";
    3 "0003_preferences";
    4 "0004_accounts";
}

/// Seconds after which the lock of a migration that died is free; it is renewed before each statement,
/// and a statement may take [`CqlConfig::schema_timeout`].
const LOCK_TTL_S: i32 = 180;
/// How long to wait for another that migrates.
const LOCK_WAIT: Duration = Duration::from_secs(300);
/// The one partition of `schema_versions`, `schema_lock` and `schema_probe`.
const SCOPE: i32 = 0;

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the CQL cluster: {0}")]
    Server(String),
    #[error(
        "migration {0} was applied from another file than this binary's: a released migration was changed"
    )]
    Changed(String),
    #[error("the keyspace is at version {found}, this binary knows {known}: use the newer binary")]
    Newer { found: i32, known: i32 },
    #[error("version {0} is applied and an earlier one is not: the schema was not made by this program")]
    Gap(i32),
    #[error("another migration holds the lock since more than {} s", LOCK_WAIT.as_secs())]
    Locked,
    #[error("the lock of this migration was lost: another may be running; run it again")]
    LockLost,
    #[error(
        "the keyspace does not take lightweight transactions ({0}); on ScyllaDB before 2025.4 it must be \
         created WITH tablets = {{'enabled': false}}"
    )]
    NoLightweightTransactions(String),
    #[error("the cluster does not take a write timestamp of {ABOVE_EVERY_POSITION}: {0}")]
    Timestamp(String),
    #[error("there is no migration to take back")]
    NothingApplied,
    #[error("migration {0} has no part '{1}'")]
    Malformed(String, &'static str),
}

fn server(error: impl std::fmt::Display) -> MigrateError {
    MigrateError::Server(error.to_string())
}

impl Migration {
    /// What tells whether the file is the one that was applied.
    #[must_use]
    pub fn checksum(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().to_string()
    }

    /// The statements of a part, without comments.
    fn statements(&self, part: &'static str) -> Result<Vec<String>, MigrateError> {
        let mut inside = false;
        let mut found = false;
        let mut text = String::new();
        for line in self.text.lines() {
            match line.trim() {
                "-- up" | "-- down" => {
                    inside = line.trim().ends_with(part);
                    found |= inside;
                }
                line if inside && !line.starts_with("--") => {
                    text.push_str(line);
                    text.push('\n');
                }
                _ => {}
            }
        }
        if !found {
            return Err(MigrateError::Malformed(self.name.to_owned(), part));
        }
        Ok(text.split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
    }
}

/// Brings the keyspace to what this binary needs, creating it where it is absent. Waits for the cluster.
/// `tell` gets each line of progress.
///
/// # Errors
/// The cluster cannot serve, or the schema is not one that this binary may change.
pub async fn migrate(config: &CqlConfig, tell: impl Fn(&str) + Sync) -> Result<(), MigrateError> {
    migrate_with(config, MIGRATIONS, tell).await
}

/// [`migrate`] with other migrations than this binary's own, as tests need it.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_with(
    config: &CqlConfig,
    migrations: &[Migration],
    tell: impl Fn(&str) + Sync,
) -> Result<(), MigrateError> {
    let schema = Schema::open(config, &tell).await?;
    let lock = schema.lock(&tell).await?;
    let done = schema.up(&lock, migrations, &tell).await;
    schema.unlock(&lock).await;
    done
}

/// Takes back the last migration that was applied, and all that its tables hold.
///
/// # Errors
/// As [`migrate`]; also when nothing is applied.
pub async fn migrate_back(config: &CqlConfig, tell: impl Fn(&str) + Sync) -> Result<(), MigrateError> {
    let schema = Schema::open(config, &tell).await?;
    let lock = schema.lock(&tell).await?;
    let done = schema.down(&lock, MIGRATIONS, &tell).await;
    schema.unlock(&lock).await;
    done
}

/// How many migrations the keyspace lacks. Newer ones than are known do no harm: they come before the
/// binaries that need them.
pub(super) async fn pending(session: &Session, keyspace: &str) -> Result<usize, StoreError> {
    let applied =
        read_versions(session, keyspace).await.map_err(|e| StoreError::Unavailable(e.to_string()))?;
    Ok(MIGRATIONS.iter().filter(|migration| !applied.contains_key(&migration.version)).count())
}

async fn read_versions(session: &Session, keyspace: &str) -> Result<BTreeMap<i32, String>, MigrateError> {
    let mut statement = Statement::new(format!(
        "SELECT version, checksum FROM {keyspace}.schema_versions WHERE scope = {SCOPE}"
    ));
    statement.set_consistency(Consistency::LocalSerial);
    statement.set_is_idempotent(true);
    let pager = session.query_iter(statement, ()).await.map_err(server)?;
    let rows = pager.rows_stream::<(i32, Option<String>)>().map_err(server)?;
    let rows: Vec<_> = rows.try_collect().await.map_err(server)?;
    Ok(rows.into_iter().map(|(version, sum)| (version, sum.unwrap_or_default())).collect())
}

/// Refuses what this binary must not touch.
fn judge(applied: &BTreeMap<i32, String>, migrations: &[Migration]) -> Result<(), MigrateError> {
    let known = migrations.last().map_or(0, |migration| migration.version);
    if let Some(found) = applied.keys().copied().find(|version| *version > known) {
        return Err(MigrateError::Newer { found, known });
    }
    let mut complete = true;
    for migration in migrations {
        match applied.get(&migration.version) {
            Some(_) if !complete => return Err(MigrateError::Gap(migration.version)),
            Some(sum) if *sum != migration.checksum() => {
                return Err(MigrateError::Changed(migration.name.to_owned()));
            }
            Some(_) => {}
            None => complete = false,
        }
    }
    Ok(())
}

/// Who migrates.
struct Lock(Uuid);

/// A session whose statements all go to one node.
struct Schema {
    session: Session,
    keyspace: String,
    profile: ExecutionProfileHandle,
}

impl Schema {
    async fn open(config: &CqlConfig, tell: &(impl Fn(&str) + Sync)) -> Result<Self, MigrateError> {
        tell(&format!("connecting to {}", config.contact_points.join(", ")));
        let session = config.await_session().await?;
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

    async fn run(&self, text: &str, values: impl SerializeRow) -> Result<QueryResult, MigrateError> {
        let mut statement = Statement::new(text);
        statement.set_execution_profile_handle(Some(self.profile.clone()));
        statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        self.session.query_unpaged(statement, values).await.map_err(server)
    }

    /// A conditional statement: whether it was applied.
    async fn claim(&self, text: &str, values: impl SerializeRow) -> Result<bool, MigrateError> {
        super::applied(self.run(text, values).await?).map_err(server)
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
            match self.run(text, ()).await {
                // A ScyllaDB from before tablets does not know the word.
                Err(_) if scylla => self.run(&create, ()).await?,
                other => other?,
            };
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
            self.run(&format!("CREATE TABLE IF NOT EXISTS {table}"), ()).await?;
        }
        Ok(())
    }

    /// Waits until no other migration runs. The lock itself is the probe of lightweight transactions.
    async fn lock(&self, tell: &(impl Fn(&str) + Sync)) -> Result<Lock, MigrateError> {
        let lock = Lock(Uuid::new_v4());
        let began = Instant::now();
        let mut wait = Backoff::new();
        loop {
            let claim = format!(
                "INSERT INTO schema_lock (scope, owner) VALUES (?, ?) IF NOT EXISTS USING TTL {LOCK_TTL_S}"
            );
            match self.claim(&claim, (SCOPE, lock.0)).await {
                Ok(true) => return Ok(lock),
                Ok(false) if began.elapsed() > LOCK_WAIT => return Err(MigrateError::Locked),
                Ok(false) => {
                    tell("another migration is running: waiting for it");
                    wait.after("another migration is running").await;
                }
                Err(error) => return Err(MigrateError::NoLightweightTransactions(error.to_string())),
            }
        }
    }

    async fn renew(&self, lock: &Lock) -> Result<(), MigrateError> {
        let renew =
            format!("UPDATE schema_lock USING TTL {LOCK_TTL_S} SET owner = ? WHERE scope = ? IF owner = ?");
        if self.claim(&renew, (lock.0, SCOPE, lock.0)).await? { Ok(()) } else { Err(MigrateError::LockLost) }
    }

    /// Where this fails the lock ends by itself.
    async fn unlock(&self, lock: &Lock) {
        let free = "DELETE FROM schema_lock WHERE scope = ? IF owner = ?";
        if let Err(error) = self.claim(free, (SCOPE, lock.0)).await {
            tracing::warn!(%error, "the migration's lock stays for {LOCK_TTL_S} s");
        }
    }

    /// Deletions are written above every position (rule P8): the server has to take that and answer with it.
    async fn probe_timestamp(&self) -> Result<(), MigrateError> {
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

    async fn up(
        &self,
        lock: &Lock,
        migrations: &[Migration],
        tell: &(impl Fn(&str) + Sync),
    ) -> Result<(), MigrateError> {
        self.probe_timestamp().await?;
        let applied = read_versions(&self.session, &self.keyspace).await?;
        judge(&applied, migrations)?;
        for migration in migrations.iter().filter(|m| !applied.contains_key(&m.version)) {
            tell(&format!("applying {}", migration.name));
            for statement in migration.statements("up")? {
                self.renew(lock).await?;
                self.run(&statement, ()).await?;
            }
            let now = reedi_protocol::Timestamp::from_millis(super::bucket::now_ms()).to_string();
            let row = (SCOPE, migration.version, migration.name, migration.checksum(), now);
            let record = "INSERT INTO schema_versions (scope, version, name, checksum, applied_at) \
                          VALUES (?, ?, ?, ?, ?) IF NOT EXISTS";
            self.claim(record, row).await?;
        }
        let version = migrations.last().map_or(0, |migration| migration.version);
        tell(&format!("keyspace {} is at version {version}", self.keyspace));
        Ok(())
    }

    async fn down(
        &self,
        lock: &Lock,
        migrations: &[Migration],
        tell: &(impl Fn(&str) + Sync),
    ) -> Result<(), MigrateError> {
        let applied = read_versions(&self.session, &self.keyspace).await?;
        judge(&applied, migrations)?;
        let last = applied.keys().max().copied();
        let last = migrations.iter().find(|m| Some(m.version) == last).ok_or(MigrateError::NothingApplied)?;
        tell(&format!("taking back {}", last.name));
        // First the record: were it last, a crash between would leave a version without its tables.
        let forget = "DELETE FROM schema_versions WHERE scope = ? AND version = ? IF EXISTS";
        self.claim(forget, (SCOPE, last.version)).await?;
        for statement in last.statements("down")? {
            self.renew(lock).await?;
            self.run(&statement, ()).await?;
        }
        tell(&format!("keyspace {} is at version {}", self.keyspace, last.version - 1));
        Ok(())
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
    fn migrations_are_numbered_and_have_both_parts() {
        for (n, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), n + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", n + 1)));
            let (up, down) = (migration.statements("up").unwrap(), migration.statements("down").unwrap());
            assert_eq!(up.len(), down.len(), "{}: what is made is taken back", migration.name);
            assert!(up.iter().all(|s| s.starts_with("CREATE TABLE IF NOT EXISTS ")), "{}", migration.name);
        }
    }

    #[test]
    fn every_table_names_its_kind() {
        for migration in MIGRATIONS {
            let mut kind = None;
            for line in migration.text.lines() {
                if let Some(named) = line.strip_prefix("-- kind: ") {
                    kind = named.split(' ').next();
                } else if line.starts_with("CREATE TABLE") {
                    assert!(matches!(kind.take(), Some("position" | "lwt" | "clock")), "{line}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_used_that_only_one_server_has() {
        for migration in MIGRATIONS {
            for statement in migration.statements("up").unwrap() {
                let text = statement.to_lowercase();
                for word in ["materialized", "index", "counter", "function", "tablets", "cdc", "timewindow"] {
                    assert!(!text.contains(word), "{}: {word}", migration.name);
                }
            }
        }
    }

    #[test]
    fn a_schema_of_another_make_is_refused() {
        let sums = |n: usize| {
            MIGRATIONS.iter().take(n).map(|m| (m.version, m.checksum())).collect::<BTreeMap<_, _>>()
        };
        assert!(judge(&sums(0), MIGRATIONS).is_ok());
        assert!(judge(&sums(MIGRATIONS.len()), MIGRATIONS).is_ok());
        let mut changed = sums(2);
        changed.insert(1, "other".into());
        assert!(matches!(judge(&changed, MIGRATIONS), Err(MigrateError::Changed(_))));
        let mut newer = sums(MIGRATIONS.len());
        newer.insert(99, String::new());
        assert!(matches!(judge(&newer, MIGRATIONS), Err(MigrateError::Newer { found: 99, .. })));
        let mut gap = sums(3);
        gap.remove(&2);
        assert!(matches!(judge(&gap, MIGRATIONS), Err(MigrateError::Gap(3))));
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
