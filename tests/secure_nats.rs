//! NATS with TLS and a credentials file: `REEDI_TEST_NATS_TLS_URL`, `REEDI_TEST_NATS_TLS_CA` and
//! `REEDI_TEST_NATS_CREDS`, as `tests/components/start.sh --secure` writes them.

mod support_nats;

use reedi::log::conformance;
use reedi::log::nats::{NatsConfig, NatsLog, NatsLogConfig};
use reedi_protocol::Epoch;
use std::time::Duration;
use support_nats::{incarnations, log_config_at};

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} must be set; see tests/components/start.sh --secure"))
}

fn secure() -> NatsConfig {
    NatsConfig {
        urls: vec![variable("REEDI_TEST_NATS_TLS_URL")],
        credentials_file: Some(variable("REEDI_TEST_NATS_CREDS").into()),
        ca_file: Some(variable("REEDI_TEST_NATS_TLS_CA").into()),
        tls: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_credentials_let_us_in() {
    let log = NatsLog::connect(log_config_at(secure()), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    conformance::orders(&log).await;
    assert!(log.is_connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_we_wait() {
    let nats = NatsConfig { credentials_file: None, ..secure() };
    let config: NatsLogConfig = log_config_at(nats);
    let incarnations = incarnations(1);
    let connecting = NatsLog::connect(config, Epoch::FIRST, &incarnations, &[]);
    assert!(
        tokio::time::timeout(Duration::from_secs(2), connecting).await.is_err(),
        "let in without credentials"
    );
}
