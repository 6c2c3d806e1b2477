//! What the tests against a real NATS share.

use reedi::log::nats::{Namespace, NatsConfig, NatsLogConfig};

/// For one stream of a test; servers reserve it.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

pub fn nats() -> NatsConfig {
    let urls = std::env::var("REEDI_TEST_NATS_URL")
        .expect("REEDI_TEST_NATS_URL must name the NATS servers to test against, separated by commas");
    NatsConfig { urls: urls.split(',').map(str::to_owned).collect(), ..NatsConfig::default() }
}

pub fn log_config() -> NatsLogConfig {
    let nats = nats();
    let replicas = if nats.urls.len() >= 3 { 3 } else { 1 };
    let namespace = Namespace::new(&format!("t{:012x}", rand::random::<u64>() >> 16)).unwrap();
    NatsLogConfig { nats, namespace, replicas, max_bytes: MAX_BYTES, append_connections: 1 }
}

pub fn incarnations(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("{:032x}", rand::random::<u128>())).collect()
}
