//! What the tests against a real NATS share.

use reedi::log::nats::{Namespace, NatsConfig, NatsLogConfig};

/// For one stream of a test; servers reserve it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A log of its own for a test.
pub fn log_config_at(nats: NatsConfig) -> NatsLogConfig {
    let replicas = if nats.urls.len() >= 3 { 3 } else { 1 };
    let namespace = Namespace::new(&format!("t{:012x}", rand::random::<u64>() >> 16)).unwrap();
    NatsLogConfig { nats, namespace, replicas, max_bytes: MAX_BYTES, append_connections: 1 }
}

pub fn incarnations(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("{:032x}", rand::random::<u128>())).collect()
}
