//! How the adapters of `presence` and `rate_limit` speak with Redis or Valkey, a cluster or a single
//! server. Nothing that may not be lost is behind it, so it would rather answer "away" at once than
//! late: time-outs are short, and a server that fails is not asked again until a probe in the
//! background finds it well.
//!
//! A cluster's slots are routed here, over one connection a server, and not by the client library's
//! own cluster connection: that one stops for all servers while it looks for one that died (measured:
//! with one of three killed, nearly every command on the other two was late).

mod heal;
pub mod key;
mod node;
pub mod script;
mod topology;

use futures_util::{StreamExt, stream};
use heal::Outage;
use key::Key;
use node::{Node, RedisError};
use redis::{ErrorKind, FromRedisValue, Pipeline, RedisResult, ServerErrorKind};
use script::Script;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use topology::{Seeds, Topology};

/// How long a command may take, in milliseconds: what a send waits at most before it goes on
/// without Redis. A command takes well under 1 ms, a failover of Redis seconds, so whatever is
/// between tells the two apart.
pub const COMMAND_MS: u64 = 250;
/// How long the first connections may take together, in milliseconds.
pub const CONNECT_MS: u64 = 2_000;
/// How often a command is sent on to another server: from where its slot was to where it is, and from there
/// to where it is going.
const REDIRECTIONS: usize = 2;
/// Commands in one pipeline: few enough that others do not wait long behind them (some 10 us each,
/// measured), enough that packets are full.
const PIPELINE_COMMANDS: usize = 128;
/// Pipelines of one call on their way at once: times [`PIPELINE_COMMANDS`] well within [`COMMAND_MS`].
const PIPELINES_AT_ONCE: usize = 16;

/// Where Redis is.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://` or `rediss://` (TLS) addresses, all of the same kind: one server, or some of a cluster's.
    /// Which of the two it is, they say themselves. Of several that are no cluster the one that is no
    /// replica is used.
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
        let command_timeout = Duration::from_millis(COMMAND_MS);
        Self { urls, username: None, password: None, ca_file: None, command_timeout }
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
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RedisAccessError {
    /// Known without asking.
    #[error("Redis is away")]
    Away,
    #[error("Redis failed: {0}")]
    Failed(RedisError),
}

/// Cheap to clone; clones share connections. What runs in the background ends with the last.
#[derive(Clone)]
pub struct RedisAccess {
    shared: Arc<Shared>,
    _healer: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    seeds: Seeds,
    topology: arc_swap::ArcSwap<Topology>,
    /// A server fails, or slots are elsewhere.
    unwell: Notify,
    outage: Outage,
}

impl RedisAccess {
    /// Tries once to connect. With Redis away it is made nevertheless, degraded, and goes on trying.
    ///
    /// # Errors
    /// The configuration cannot be used, whatever Redis does.
    pub async fn connect(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let shared = Arc::new(Shared {
            seeds: Seeds::new(config)?,
            topology: arc_swap::ArcSwap::default(),
            unwell: Notify::new(),
            outage: Outage::default(),
        });
        let first = tokio::time::timeout(Duration::from_millis(CONNECT_MS), shared.heal_once()).await;
        if first.is_err() || !shared.is_well() {
            shared.outage.is(first.as_deref().unwrap_or("it does not answer in time"));
            shared.unwell.notify_one();
        }
        let healer = AbortOnDropHandle::new(tokio::spawn(heal::heal(shared.clone())));
        Ok(Self { shared, _healer: Arc::new(healer) })
    }

    /// Whether a part of Redis at least is taken to be away.
    #[must_use]
    pub fn degraded(&self) -> bool {
        !self.shared.is_well()
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
        let topology = self.shared.topology.load_full();
        let mut node = topology.node_of(key.slot()).ok_or(RedisAccessError::Away)?;
        let (call, mut asking) = (Call { script, key, args }, false);
        for _ in 0..REDIRECTIONS {
            let answer = self.shared.run_on(node, call, asking).await;
            let Err(RedisAccessError::Failed(error)) = &answer else { return answer };
            let to = error.redirect_node().and_then(|(address, _)| topology.node_at(address));
            let Some(to) = to else { return answer };
            asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            node = to;
        }
        self.shared.run_on(node, call, asking).await
    }

    /// Runs `script` on each of `keys`, in pipelines by server; the answers are in the order of the keys.
    pub async fn run_each<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Key],
        args: &[u64],
    ) -> Vec<Result<T, RedisAccessError>> {
        let topology = self.shared.topology.load_full();
        let mut by_node = HashMap::<&str, (&Arc<Node>, Vec<usize>)>::new();
        for (index, key) in keys.iter().enumerate() {
            if let Some(node) = topology.node_of(key.slot()) {
                by_node.entry(node.address()).or_insert_with(|| (node, Vec::new())).1.push(index);
            }
        }
        let pipelines: Vec<(Arc<Node>, Vec<usize>)> = by_node
            .into_values()
            .flat_map(|(node, of_node)| {
                let chunks: Vec<Vec<usize>> =
                    of_node.chunks(PIPELINE_COMMANDS).map(<[usize]>::to_vec).collect();
                chunks.into_iter().map(|chunk| (node.clone(), chunk))
            })
            .collect();
        let mut running = stream::iter(pipelines)
            .map(|(node, indices)| async move {
                let of_pipeline: Vec<&Key> = indices.iter().filter_map(|&index| keys.get(index)).collect();
                let answers = self.run_pipeline(&node, script, &of_pipeline, args).await;
                (indices, answers)
            })
            .buffer_unordered(PIPELINES_AT_ONCE);
        let mut all: Vec<_> = keys.iter().map(|_| Err(RedisAccessError::Away)).collect();
        while let Some((indices, answers)) = running.next().await {
            for (index, answer) in indices.into_iter().zip(answers) {
                if let Some(place) = all.get_mut(index) {
                    *place = answer;
                }
            }
        }
        all
    }

    async fn run_pipeline<T: FromRedisValue>(
        &self,
        node: &Node,
        script: &Script,
        keys: &[&Key],
        args: &[u64],
    ) -> Vec<Result<T, RedisAccessError>> {
        let Some(mut connection) = node.connection() else {
            return keys.iter().map(|_| Err(RedisAccessError::Away)).collect();
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
        let sent: RedisResult<Vec<RedisResult<T>>> = pipeline.query_async(&mut connection).await;
        let answers = match sent {
            Ok(answers) => answers,
            Err(error) => {
                self.shared.judge::<()>(node, &Err(error.clone()));
                return keys.iter().map(|_| Err(RedisAccessError::Failed(error.clone()))).collect();
            }
        };
        let mut all = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            all.push(match answer {
                // A slot is on its way between servers, and so are its keys, one by one.
                Err(error) if is_elsewhere(&error) || is_unknown_script(&error) => {
                    self.run(script, key, args).await
                }
                answer => {
                    self.shared.judge(node, &answer);
                    answer.map_err(RedisAccessError::Failed)
                }
            });
        }
        all
    }
}

/// One script on one key.
#[derive(Clone, Copy)]
struct Call<'a> {
    script: &'a Script,
    key: &'a Key,
    args: &'a [u64],
}

fn is_elsewhere(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask))
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

impl Shared {
    /// `asking`: the slot is still on its way to `node`, and only what is asked for so is answered.
    async fn run_on<T: FromRedisValue>(
        &self,
        node: &Node,
        call: Call<'_>,
        asking: bool,
    ) -> Result<T, RedisAccessError> {
        let mut connection = node.connection().ok_or(RedisAccessError::Away)?;
        let Call { script, key, args } = call;
        let mut answer = node::send(&mut connection, script.by_hash(key, args), asking).await;
        if answer.as_ref().is_err_and(is_unknown_script) {
            answer = node::send(&mut connection, script.by_body(key, args), asking).await;
        }
        self.judge(node, &answer);
        answer.map_err(RedisAccessError::Failed)
    }

    fn judge<T>(&self, node: &Node, answer: &RedisResult<T>) {
        match answer {
            Ok(_) => node.succeeded(),
            Err(error) if is_elsewhere(error) => self.unwell.notify_one(),
            Err(error) => {
                if node.failed() {
                    tracing::warn!(%error, node = node.address(), "a server of Redis is away");
                    self.outage.is_told();
                    self.unwell.notify_one();
                }
            }
        }
    }
}
