//! Connections: to a single server, or to all of a cluster's.

use super::{CONNECT_MS, RedisConfig, RedisConfigError};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisError, RedisFuture, RedisResult, TlsCertificates, Value,
};
use std::time::Duration;

/// Redirections and reconnections of one command within its time-out: a key that moves, and once more.
const RETRIES: u32 = 3;
/// Between them, in milliseconds; the client's own defaults are longer than a command may take.
const RETRY_WAIT_MS: std::ops::RangeInclusive<u64> = 5..=40;

/// Clones share their sockets, one a server.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Whether it connects anew by itself.
    pub fn finds_new_servers(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// The configured servers: each by itself, and as a cluster.
pub(super) struct Servers {
    each: Vec<Client>,
    cluster: ClusterClient,
    command_timeout: Duration,
}

impl Servers {
    pub fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let (first, _) = config.urls.split_first().ok_or(RedisConfigError::NoAddress)?;
        let certificates = certificates(config)?;
        if first.starts_with("rediss:") {
            // More than one provider is compiled in, and the Redis client asks for the process's
            // default. Where there is one already it stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let infos = config.urls.iter().map(|url| connection_info(url, config));
        let infos = infos.collect::<RedisResult<Vec<_>>>().map_err(RedisConfigError::Address)?;
        let clients = infos.iter().map(|info| match &certificates {
            Some(certificates) => Client::build_with_tls(info.clone(), certificates.clone()),
            None => Client::open(info.clone()),
        });
        let each = clients.collect::<RedisResult<Vec<_>>>().map_err(RedisConfigError::Address)?;
        let mut builder = ClusterClientBuilder::new(infos)
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(config.command_timeout)
            .response_timeout(config.command_timeout)
            .retries(RETRIES)
            .min_retry_wait(*RETRY_WAIT_MS.start())
            .max_retry_wait(*RETRY_WAIT_MS.end());
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        let cluster = builder.build().map_err(RedisConfigError::Address)?;
        Ok(Self { each, cluster, command_timeout: config.command_timeout })
    }

    /// Connects to the first server that answers, and to its cluster if it is of one.
    pub async fn connect(&self) -> RedisResult<Connection> {
        let late = |_| RedisError::from((ErrorKind::Io, "no connection in time"));
        tokio::time::timeout(Duration::from_millis(CONNECT_MS), self.connect_to_any()).await.map_err(late)?
    }

    async fn connect_to_any(&self) -> RedisResult<Connection> {
        let mut last = RedisError::from((ErrorKind::Io, "no server"));
        for server in &self.each {
            match self.connect_by(server).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_by(&self, server: &Client) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.command_timeout))
            .set_response_timeout(Some(self.command_timeout));
        let mut connection = server.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").arg("cluster").query_async(&mut connection).await?;
        if info.lines().any(|line| line.trim_end() == "cluster_enabled:1") {
            Ok(Connection::Cluster(self.cluster.get_async_connection().await?))
        } else {
            Ok(Connection::Single(connection))
        }
    }
}

fn connection_info(url: &str, config: &RedisConfig) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = &config.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password);
    }
    Ok(info.set_redis_settings(settings))
}

fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, RedisConfigError> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    match std::fs::read(path) {
        Ok(pem) => Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) })),
        Err(cause) => Err(RedisConfigError::CaFile { path: path.clone(), cause }),
    }
}
