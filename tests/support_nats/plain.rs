//! The cluster without TLS.

use crate::support_nats::log_config_at;
use reedi::log::nats::{NatsConfig, NatsLogConfig};

pub fn nats() -> NatsConfig {
    let urls = std::env::var("REEDI_TEST_NATS_URL")
        .expect("REEDI_TEST_NATS_URL must name the NATS servers to test against, separated by commas");
    NatsConfig { urls: urls.split(',').map(str::to_owned).collect(), ..NatsConfig::default() }
}

pub fn log_config() -> NatsLogConfig {
    log_config_at(nats())
}
