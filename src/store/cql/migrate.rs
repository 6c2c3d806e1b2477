//! The schema: numbered migrations, applied in order by one at a time.
//!
//! Each is a file under `cql/` with a part `-- up` and a part `-- down`, embedded into the binary. What
//! has been applied stands in `schema_versions` with the file's checksum, so that a file that was changed
//! afterwards is noticed. Schema changes all go to one node, because Cassandra lets two nodes create the
//! same table as two tables; a lock in the store lets two callers wait for each other.

mod schema;

use super::config::{ConfigError, CqlConfig};
use super::operation::ABOVE_EVERY_POSITION;
use crate::runtime::clock::LogClock;
use crate::store::StoreError;
use futures_util::TryStreamExt;
use schema::{LOCK_WAIT, Lock, Schema};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use std::collections::BTreeMap;

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
    5 "0005_days";
}

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

impl Schema {
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
                self.change(&statement).await?;
            }
            let now = LogClock::from_system().now().to_string();
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
            self.change(&statement).await?;
        }
        tell(&format!("keyspace {} is at version {}", self.keyspace, last.version - 1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_and_have_both_parts() {
        for (n, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), n + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", n + 1)));
            let (up, down) = (migration.statements("up").unwrap(), migration.statements("down").unwrap());
            assert_eq!(up.len(), down.len(), "{}: what is made is taken back", migration.name);
            let is_repeatable =
                |s: &String| s.starts_with("CREATE TABLE IF NOT EXISTS ") || s.starts_with("ALTER TABLE ");
            assert!(up.iter().all(is_repeatable), "{}", migration.name);
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
}
