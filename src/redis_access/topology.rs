//! Which server has which slots: in a cluster as its servers tell; a single server has all.

use super::key::{Key, SLOTS};
use super::node::Node;
use super::{RedisConfig, RedisConfigError};
use redis::aio::MultiplexedConnection;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Topology {
    /// By last slot.
    by_last_slot: BTreeMap<u16, (RangeInclusive<u16>, Arc<Node>)>,
    nodes: BTreeMap<String, Arc<Node>>,
}

/// What a server told: slots, and the address of who has them.
type Told = Vec<(RangeInclusive<u16>, String)>;

impl Topology {
    pub fn node_of(&self, slot: u16) -> Option<&Arc<Node>> {
        let (_, (slots, node)) = self.by_last_slot.range(slot..).next()?;
        slots.contains(&slot).then_some(node)
    }

    pub fn node_at(&self, address: &str) -> Option<&Arc<Node>> {
        self.nodes.get(address)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Whether each slot has a server, and each server is well.
    pub fn is_well(&self) -> bool {
        let covered: usize = self.by_last_slot.values().map(|(slots, _)| slots.len()).sum();
        covered == usize::from(SLOTS) && self.nodes().all(|node| node.is_well())
    }

    /// A key that `node` has.
    pub fn probe_of(&self, node: &Node) -> Option<Key> {
        let (slots, _) = self.by_last_slot.values().find(|(_, owner)| owner.address() == node.address())?;
        Some(Key::probe(slots))
    }

    /// As `told`, with the servers that are known already as they are.
    fn told(told: Told, known: &Topology, seeds: &Seeds) -> RedisResult<Self> {
        let mut new = Self::default();
        for (slots, address) in told {
            let node = match new.node_at(&address).or_else(|| known.node_at(&address)) {
                Some(node) => node.clone(),
                None => Arc::new(seeds.node(&address)?),
            };
            new.nodes.insert(address, node.clone());
            new.by_last_slot.insert(*slots.end(), (slots, node));
        }
        Ok(new)
    }
}

/// The configured servers, and how to speak with those they tell of.
pub(super) struct Seeds {
    seeds: Vec<Node>,
    scheme: &'static str,
    settings: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
    command_timeout: Duration,
}

impl Seeds {
    pub fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let infos = config.urls.iter().map(|url| connection_info(url, config));
        let infos = infos.collect::<RedisResult<Vec<_>>>().map_err(RedisConfigError::Address)?;
        let first = infos.first().ok_or(RedisConfigError::NoAddress)?;
        let with_tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
        if with_tls {
            // More than one provider is compiled in, and the Redis client asks for the process's
            // default. Where there is one already it stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut this = Self {
            seeds: Vec::new(),
            scheme: if with_tls { "rediss" } else { "redis" },
            settings: first.redis_settings().clone(),
            certificates: certificates(config)?,
            command_timeout: config.command_timeout,
        };
        for info in infos {
            let address = info.addr().to_string();
            let client = this.client(info).map_err(RedisConfigError::Address)?;
            this.seeds.push(Node::new(address, client, config.command_timeout));
        }
        Ok(this)
    }

    /// # Errors
    /// Authorities were given, and the address is without TLS.
    fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    fn node(&self, address: &str) -> RedisResult<Node> {
        let info = format!("{}://{address}", self.scheme).into_connection_info()?;
        let client = self.client(info.set_redis_settings(self.settings.clone()))?;
        Ok(Node::new(address.to_owned(), client, self.command_timeout))
    }

    /// Asks a server that is known to be well, else the configured ones.
    pub async fn discover(&self, known: &Topology) -> RedisResult<Topology> {
        for node in known.nodes() {
            if let Some(mut connection) = node.connection()
                && let Ok(told) = ask(&mut connection, node.address()).await
            {
                return Topology::told(told, known, self);
            }
        }
        let mut last = RedisError::from((ErrorKind::Io, "no server"));
        for seed in &self.seeds {
            let told = match seed.connect().await {
                Ok(mut connection) => ask(&mut connection, seed.address()).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(told) => return Topology::told(told, known, self),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn ask(connection: &mut MultiplexedConnection, address: &str) -> RedisResult<Told> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let says = |wanted: &str| info.lines().any(|line| line.trim_end() == wanted);
    if says("cluster_enabled:1") {
        let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(connection).await?;
        return told_by_cluster(slots, address);
    }
    if says("role:slave") {
        return Err((ErrorKind::Client, "the server is a replica").into());
    }
    Ok(vec![(0..=SLOTS - 1, address.to_owned())])
}

/// The answer to `CLUSTER SLOTS`: rows of first slot, last slot, master, replicas; a server is at least its
/// host and port. A host that is empty or null is the one that was asked; one that is `?` is not known, nor who has those
/// slots.
fn told_by_cluster(slots: Value, asked: &str) -> RedisResult<Told> {
    let malformed = || RedisError::from((ErrorKind::UnexpectedReturnType, "malformed CLUSTER SLOTS"));
    let mut told = Told::new();
    for row in Vec::<Vec<Value>>::from_redis_value(slots)? {
        let [first, last, master, ..] = row.as_slice() else { return Err(malformed()) };
        let (first, last) = (u16::from_redis_value_ref(first)?, u16::from_redis_value_ref(last)?);
        let master = Vec::<Value>::from_redis_value_ref(master)?;
        let [host, port, ..] = master.as_slice() else { return Err(malformed()) };
        let host = Option::<String>::from_redis_value_ref(host)?.filter(|host| !host.is_empty());
        // The server asked does not know this one's address yet; others are to be used meanwhile.
        if host.as_deref() == Some("?") {
            continue;
        }
        let port = u16::from_redis_value_ref(port)?;
        let same_host = || asked.rsplit_once(':').map_or(asked, |(host, _)| host);
        let address = match host {
            Some(host) if host.contains(':') => format!("[{host}]:{port}"),
            Some(host) => format!("{host}:{port}"),
            None => format!("{}:{port}", same_host()),
        };
        if first > last || last >= SLOTS {
            return Err(malformed());
        }
        told.push((first..=last, address));
    }
    Ok(told)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), Value::SimpleString("id".into())]);
        let replica = Value::Array(vec![Value::Nil, Value::Int(1)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    fn host(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_cluster_is_understood() {
        let rows = vec![
            row(5, 9, host("10.0.0.1"), 7001),
            row(0, 4, host("redis-1.example.com"), 7002),
            row(20, 20, Value::Nil, 7003),
            row(30, 31, host(""), 7004),
            row(32, 32, host("?"), 7006),
            row(40, 16_383, host("::1"), 7005),
        ];
        let told = told_by_cluster(Value::Array(rows), "asked:6379").unwrap();
        let seeds = Seeds::new(&RedisConfig::new(vec!["redis://asked:6379".into()])).unwrap();
        let topology = Topology::told(told, &Topology::default(), &seeds).unwrap();
        let address = |slot| topology.node_of(slot).map(|node| node.address());
        assert_eq!(address(0), Some("redis-1.example.com:7002"));
        assert_eq!(address(4), Some("redis-1.example.com:7002"));
        assert_eq!(address(5), Some("10.0.0.1:7001"));
        assert_eq!(address(10), None);
        assert_eq!(address(20), Some("asked:7003"));
        assert_eq!(address(31), Some("asked:7004"));
        assert_eq!(address(32), None);
        assert_eq!(address(16_383), Some("[::1]:7005"));
        assert!(!topology.is_well());
        for node in topology.nodes() {
            let probe = topology.probe_of(node).unwrap();
            assert_eq!(address(probe.slot()), Some(node.address()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let seeds =
            |urls: &[&str]| Seeds::new(&RedisConfig::new(urls.iter().map(|&url| url.into()).collect()));
        assert!(matches!(seeds(&[]), Err(RedisConfigError::NoAddress)));
        assert!(matches!(seeds(&["http://asked"]), Err(RedisConfigError::Address(_))));
        let mut config = RedisConfig::new(vec!["redis://asked".into()]);
        config.ca_file = Some("no/such/file".into());
        assert!(matches!(Seeds::new(&config), Err(RedisConfigError::CaFile { .. })));
        for bad in [row(5, 4, host("a"), 1), row(0, 16_384, host("a"), 1), Value::Array(vec![Value::Int(1)])]
        {
            assert!(told_by_cluster(Value::Array(vec![bad]), "asked:6379").is_err());
        }
    }
}
