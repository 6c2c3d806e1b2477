//! What a cluster under test stands on: the embedded parts, or NATS, CQL and Redis.

use reedi::role::cluster::cql_config;
use reedi::role::process::Parts;
use reedi::role::single;
use reedi::runtime::clock::LogClock;
use reedi::runtime::config::{Config, Inputs};
use reedi::store::cql;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use std::path::PathBuf;

/// Signs the tokens of every test.
pub const SECRET: &str = "a secret of the integration tests, which guards nothing";
/// Seals what every test sends.
pub const SEAL_KEYS: &str = "one:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// What everything that a test run makes outside is named after, with the process id behind.
const PREFIX: &str = "reedi_it_";

/// Where a cluster keeps what it keeps.
#[derive(Clone)]
pub enum Backend {
    /// Clones of these are what its processes share.
    Embedded { parts: Parts, folder: PathBuf },
    /// A keyspace and a NATS name of its own on these servers.
    Real { nats: String, cql: String, redis: String, name: String },
}

impl Backend {
    /// Embedded parts in an empty folder.
    pub async fn embedded(name: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folders = std::fs::read_dir(&root).expect("cargo makes this folder");
        for folder in folders.flatten().filter(|folder| is_left_over(&folder.file_name().to_string_lossy())) {
            let _ = std::fs::remove_dir_all(folder.path());
        }
        let folder = root.join(own_name(name));
        std::fs::create_dir_all(&folder).expect("a folder of our own");
        let config = config(&[("data_dir", &folder.to_string_lossy())]);
        Self::Embedded {
            parts: single::embedded_parts(&config, &LogClock::from_system()).expect("they open"),
            folder,
        }
    }

    /// Real parts, at the addresses that the environment names.
    pub async fn real(name: &str) -> Self {
        let address = |variable: &str| {
            std::env::var(variable).unwrap_or_else(|_| {
                panic!("{variable} must name the servers to test against, separated by commas")
            })
        };
        let backend = Self::Real {
            nats: address("REEDI_TEST_NATS_URL"),
            cql: address("REEDI_TEST_CQL"),
            redis: address("REEDI_TEST_REDIS_URL"),
            name: own_name(name),
        };
        let config = cql_config(&backend.config(&[]));
        drop_left_over(&config.contact_points).await;
        cql::migrate(&config, |_| ()).await.expect("the schema is made");
        backend
    }

    /// The configuration of a process on this backend.
    pub fn config(&self, more: &[(&str, &str)]) -> Config {
        match self {
            Self::Embedded { folder, .. } => {
                config(&[&[("data_dir", &*folder.to_string_lossy())], more].concat())
            }
            Self::Real { nats, cql, redis, name } => {
                let replicas = nats.split(',').count().min(3).to_string();
                let copies = cql.split(',').count().min(3).to_string();
                let own = [
                    ("nats_url", nats.as_str()),
                    ("nats_name", name),
                    ("nats_replicas", &replicas),
                    ("nats_max_bytes", "256MiB"),
                    ("cql_contact_points", cql),
                    ("cql_keyspace", name),
                    ("cql_replication", &copies),
                    ("redis_url", redis),
                ];
                config(&[&own, more].concat())
            }
        }
    }
}

/// Limits are out of the way, unless a test is about them.
fn config(own: &[(&str, &str)]) -> Config {
    let usual = [
        ("listen", "127.0.0.1:0"),
        ("admin_listen", "127.0.0.1:0"),
        ("accounts", "own"),
        ("auth_hs256_secret", SECRET),
        ("seal_keys", SEAL_KEYS),
        ("shards", "16"),
        ("drain_seconds", "1"),
        ("account_rate", "100000"),
        ("account_burst", "100000"),
        ("conversation_rate", "100000"),
        ("conversation_burst", "100000"),
        ("sign_in_rate", "1000"),
        ("sign_in_burst", "1000"),
    ];
    let flags = usual.iter().chain(own).map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let inputs = Inputs { flags: flags.collect(), ..Inputs::default() };
    inputs.resolve().expect("a configuration that holds").config
}

fn own_name(name: &str) -> String {
    format!("{PREFIX}{}_{name}", std::process::id())
}

/// Whether a name is of a test run that has ended, however it ended.
fn is_left_over(name: &str) -> bool {
    let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
    process.is_some_and(|id| !PathBuf::from("/proc").join(id).exists())
}

async fn drop_left_over(contact_points: &[String]) {
    let session = cql_session(contact_points).await;
    let query = "SELECT keyspace_name FROM system_schema.keyspaces";
    let answer = session.query_unpaged(query, ()).await.expect("keyspaces are listed");
    let rows = answer.into_rows_result().expect("rows");
    for row in rows.rows::<(String,)>().expect("names") {
        let (name,) = row.expect("a name");
        if is_left_over(&name) {
            let drop = format!("DROP KEYSPACE IF EXISTS {name}");
            session.query_unpaged(drop, ()).await.expect("it drops");
        }
    }
}

pub async fn cql_session(contact_points: &[String]) -> Session {
    SessionBuilder::new().known_nodes(contact_points).build().await.expect("the CQL cluster answers")
}
