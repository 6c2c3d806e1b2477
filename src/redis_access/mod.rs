//! How the adapters of `presence` and `rate_limit` speak with Redis or Valkey, a cluster or a single
//! server. Nothing that may not be lost is behind it, so it would rather answer "away" at once than
//! late: time-outs are short, and a breaker answers for a part of Redis that has failed until a
//! probe in the background finds it well.

mod breaker;
mod connection;
mod heal;
pub mod key;
pub mod script;

use breaker::Breakers;
use connection::{Connection, Servers};
use futures_util::{StreamExt, stream};
use key::Key;
use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind};
use script::Script;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// How long a command may take, in milliseconds: what a send waits at most before it goes on
/// without Redis. A command takes well under 1 ms, a failover of Redis seconds, so whatever is
/// between tells the two apart.
pub const COMMAND_MS: u64 = 250;
/// How long making a connection to all servers may take, in milliseconds.
pub const CONNECT_MS: u64 = 2_000;
/// Commands in one pipeline: few enough that other commands do not wait long behind them (some 10 us
/// each, measured), enough that packets are full.
const PIPELINE_COMMANDS: usize = 128;
/// Pipelines of one call on their way at once: times [`PIPELINE_COMMANDS`] well within [`COMMAND_MS`].
const PIPELINES_AT_ONCE: usize = 16;

/// Where Redis is.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://` or `rediss://` (TLS) addresses: one server, or some of a cluster's. Which of the two it
    /// is, they say themselves.
    pub urls: Vec<String>,
    /// Instead of what the addresses say.
    pub username: Option<String>,
    /// Instead of what the addresses say, so that a secret need not be written as part of a URL.
    pub password: Option<String>,
    /// PEM; instead of the usual authorities.
    pub ca_file: Option<PathBuf>,
    pub command_timeout: Duration,
}

impl RedisConfig {
    /// With [`COMMAND_MS`], and everything else as the addresses say.
    #[must_use]
    pub fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            username: None,
            password: None,
            ca_file: None,
            command_timeout: Duration::from_millis(COMMAND_MS),
        }
    }
}

/// What no waiting cures.
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    #[error("no address of Redis is given")]
    NoAddress,
    #[error("the authorities for Redis in {path} cannot be read: {cause}")]
    CaFile { path: PathBuf, cause: std::io::Error },
    #[error("the addresses of Redis cannot be used: {0}")]
    Address(RedisError),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisAccessError {
    /// Known without asking.
    #[error("Redis is away")]
    Away,
    #[error("Redis failed: {0}")]
    Failed(String),
}

/// Cheap to clone; clones share connections and breakers. What runs in the background ends with the last.
#[derive(Clone)]
pub struct RedisAccess {
    shared: Arc<Shared>,
    _healer: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    servers: Servers,
    connection: arc_swap::ArcSwapOption<Connection>,
    breakers: Breakers,
    /// A breaker opened.
    opened: Notify,
}

impl RedisAccess {
    /// Tries once to connect. With Redis away it is made nevertheless, degraded, and goes on trying.
    ///
    /// # Errors
    /// The configuration cannot be used, whatever Redis does.
    pub async fn connect(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let shared = Arc::new(Shared {
            servers: Servers::new(config)?,
            connection: arc_swap::ArcSwapOption::empty(),
            breakers: Breakers::default(),
            opened: Notify::new(),
        });
        if let Err(error) = shared.reconnect().await {
            tracing::warn!(%error, "Redis is away");
            shared.breakers.open_all();
            shared.opened.notify_one();
        }
        let healer = AbortOnDropHandle::new(tokio::spawn(heal::heal(shared.clone())));
        Ok(Self { shared, _healer: Arc::new(healer) })
    }

    /// Whether a part of Redis at least is taken to be away.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.shared.breakers.any_open()
    }

    /// Runs `script` on `key`.
    ///
    /// # Errors
    /// Redis is away, or failed.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &Key,
        args: &[u64],
    ) -> Result<T, RedisAccessError> {
        let connection = self.shared.admit(key)?;
        let answer = run_on(connection.as_ref().clone(), script, key, args).await;
        self.shared.judge(key, answer)
    }

    /// Runs `script` on each of `keys`, in pipelines by slot; the answers are in the order of the keys.
    pub async fn run_each<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Key],
        args: &[u64],
    ) -> Vec<Result<T, RedisAccessError>> {
        let mut by_tag = BTreeMap::<u8, Vec<usize>>::new();
        for (index, key) in keys.iter().enumerate() {
            by_tag.entry(key.tag()).or_default().push(index);
        }
        let pipelines: Vec<Vec<usize>> = by_tag
            .values()
            .flat_map(|of_tag| of_tag.chunks(PIPELINE_COMMANDS))
            .map(<[usize]>::to_vec)
            .collect();
        let mut running = stream::iter(pipelines)
            .map(|indices| async move {
                let of_pipeline: Vec<&Key> = indices.iter().filter_map(|&index| keys.get(index)).collect();
                let answers = self.run_pipeline(script, &of_pipeline, args).await;
                (indices, answers)
            })
            .buffer_unordered(PIPELINES_AT_ONCE);
        let mut all: Vec<Result<T, RedisAccessError>> =
            keys.iter().map(|_| Err(RedisAccessError::Away)).collect();
        while let Some((indices, answers)) = running.next().await {
            for (index, answer) in indices.into_iter().zip(answers) {
                if let Some(place) = all.get_mut(index) {
                    *place = answer;
                }
            }
        }
        all
    }

    /// All `keys` have the same tag, hence the same slot.
    async fn run_pipeline<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&Key],
        args: &[u64],
    ) -> Vec<Result<T, RedisAccessError>> {
        let Some(first) = keys.first() else { return Vec::new() };
        let connection = match self.shared.admit(first) {
            Ok(connection) => connection,
            Err(away) => return keys.iter().map(|_| Err(away.clone())).collect(),
        };
        let mut pipeline = Pipeline::with_capacity(keys.len());
        pipeline.ignore_errors();
        for (place, key) in keys.iter().enumerate() {
            // The first brings the script with it, so that the server has it for the others.
            let with_body = place == 0;
            pipeline.add_command(if with_body {
                script.by_body(key, args)
            } else {
                script.by_hash(key, args)
            });
        }
        let sent: RedisResult<Vec<RedisResult<T>>> =
            pipeline.query_async(&mut connection.as_ref().clone()).await;
        match sent {
            Ok(answers) => {
                keys.iter().zip(answers).map(|(key, answer)| self.shared.judge(key, answer)).collect()
            }
            // The slot is on its way from one server to another, and so are its keys, one by one.
            Err(error) if is_moving(&error) => {
                stream::iter(keys).then(|key| self.run(script, key, args)).collect().await
            }
            Err(error) => {
                let failed =
                    self.shared.judge::<T>(first, Err(error)).err().unwrap_or(RedisAccessError::Away);
                keys.iter().map(|_| Err(failed.clone())).collect()
            }
        }
    }
}

fn is_moving(error: &RedisError) -> bool {
    error.redirect_node().is_some() || error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain)
}

async fn run_on<T: FromRedisValue>(
    mut connection: Connection,
    script: &Script,
    key: &Key,
    args: &[u64],
) -> RedisResult<T> {
    match script.by_hash(key, args).query_async(&mut connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.by_body(key, args).query_async(&mut connection).await
        }
        answer => answer,
    }
}

impl Shared {
    async fn reconnect(&self) -> RedisResult<()> {
        let connection = self.servers.connect().await?;
        self.connection.store(Some(Arc::new(connection)));
        Ok(())
    }

    fn admit(&self, key: &Key) -> Result<Arc<Connection>, RedisAccessError> {
        if !self.breakers.is_closed(key.tag()) {
            return Err(RedisAccessError::Away);
        }
        self.connection.load_full().ok_or(RedisAccessError::Away)
    }

    fn judge<T>(&self, key: &Key, answer: RedisResult<T>) -> Result<T, RedisAccessError> {
        match answer {
            Ok(answer) => {
                self.breakers.succeeded(key.tag());
                Ok(answer)
            }
            Err(error) => {
                if self.breakers.failed(key.tag()) {
                    tracing::warn!(%error, tag = key.tag(), "a part of Redis is away");
                    self.opened.notify_one();
                }
                Err(RedisAccessError::Failed(error.to_string()))
            }
        }
    }
}
