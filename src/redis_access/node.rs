//! One server: its connection, and whether it is taken to be away.

use super::key::Key;
use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

pub use redis::RedisError;

/// Failures in a row after which a server is taken to be away: one may be a connection that was cut.
const FAILURES: u32 = 3;
/// How long a probe's key lives, in milliseconds.
const PROBE_LIVES_MS: u64 = 10_000;

pub(super) struct Node {
    /// `host:port`
    address: String,
    client: Client,
    command_timeout: Duration,
    /// Carries any number of commands at once.
    connection: ArcSwapOption<MultiplexedConnection>,
    /// In a row. Counted without a lock: one more or less does not matter.
    failures: AtomicU32,
    well: AtomicBool,
}

impl Node {
    /// Away until it is revived.
    pub fn new(address: String, client: Client, command_timeout: Duration) -> Self {
        Self {
            address,
            client,
            command_timeout,
            connection: ArcSwapOption::empty(),
            failures: AtomicU32::new(0),
            well: AtomicBool::new(false),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn is_well(&self) -> bool {
        self.well.load(Relaxed)
    }

    /// `None` while it is away.
    pub fn connection(&self) -> Option<MultiplexedConnection> {
        self.is_well().then(|| self.connection.load().as_deref().cloned()).flatten()
    }

    pub fn succeeded(&self) {
        self.failures.store(0, Relaxed);
    }

    /// Whether it is taken to be away from now on.
    pub fn failed(&self) -> bool {
        self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES && self.well.swap(false, Relaxed)
    }

    /// Probes it, over a new connection where the old one is of no use; it is well if it answers.
    pub async fn revive(&self, probe: &Key) -> RedisResult<()> {
        let old = self.connection.load().as_deref().cloned();
        let answers = match old {
            Some(mut connection) => write(&mut connection, probe).await.is_ok(),
            None => false,
        };
        if !answers {
            let mut connection = self.connect().await?;
            write(&mut connection, probe).await?;
            self.connection.store(Some(Arc::new(connection)));
        }
        self.failures.store(0, Relaxed);
        self.well.store(true, Relaxed);
        Ok(())
    }

    pub async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.command_timeout))
            .set_response_timeout(Some(self.command_timeout));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// A write: a server that is full, or a replica that was a master, still reads.
async fn write(connection: &mut MultiplexedConnection, probe: &Key) -> RedisResult<()> {
    redis::cmd("SET").arg(probe).arg(1).arg("PX").arg(PROBE_LIVES_MS).query_async(connection).await
}

pub(super) async fn send<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    cmd: Cmd,
    asking: bool,
) -> RedisResult<T> {
    if !asking {
        return cmd.query_async(connection).await;
    }
    let mut pipeline = redis::pipe();
    pipeline.cmd("ASKING").ignore().add_command(cmd);
    let (answer,) = pipeline.query_async(connection).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_away_after_failures_in_a_row() {
        let client = Client::open("redis://127.0.0.1").unwrap();
        let node = Node::new("127.0.0.1:6379".into(), client, Duration::from_secs(1));
        node.well.store(true, Relaxed);
        for _ in 0..10 {
            assert!(!node.failed() && !node.failed());
            node.succeeded();
        }
        assert_eq!([node.failed(), node.failed(), node.failed()], [false, false, true]);
        assert!(!node.is_well());
        assert!(!node.failed(), "what is away already is not told again");
    }
}
