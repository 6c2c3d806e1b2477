//! The NATS adapters against a real NATS: `REEDI_TEST_NATS_URL` names its servers, separated by commas.

use bytes::Bytes;
use reedi::edge_link;
use reedi::edge_link::nats::NatsLink;
use reedi::log::nats::{Namespace, NatsConfig, NatsLog, NatsLogConfig, NatsLogError};
use reedi::log::{AppendError, LogPort, conformance};
use reedi::ownership;
use reedi::ownership::nats::{NatsOwnership, NatsOwnershipConfig};
use reedi_protocol::{Epoch, Position};

/// For one stream of a test; servers reserve it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

fn nats() -> NatsConfig {
    let urls = std::env::var("REEDI_TEST_NATS_URL")
        .expect("REEDI_TEST_NATS_URL must name the NATS servers to test against, separated by commas");
    NatsConfig { urls: urls.split(',').map(str::to_owned).collect(), ..NatsConfig::default() }
}

fn fresh_namespace() -> Namespace {
    Namespace::new(&format!("t{:012x}", rand::random::<u64>() >> 16)).unwrap()
}

fn log_config() -> NatsLogConfig {
    let nats = nats();
    let replicas = if nats.urls.len() >= 3 { 3 } else { 1 };
    NatsLogConfig { nats, namespace: fresh_namespace(), replicas, max_bytes: MAX_BYTES, append_connections: 1 }
}

fn incarnations(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("{:032x}", rand::random::<u128>())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_conforms() {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    conformance::all(&log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_four_slices_conforms() {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(4), &[]).await.unwrap();
    assert_eq!(log.slices().len(), 4);
    conformance::all(&log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_incarnation_is_fenced() {
    let config = log_config();
    let first = incarnations(1);
    let log = NatsLog::connect(config.clone(), Epoch::FIRST, &first, &[]).await.unwrap();
    conformance::append_new(&log, conformance::event(conformance::fresh(), "x")).await;
    let other = NatsLog::connect(config.clone(), Epoch::FIRST, &incarnations(1), &[]).await;
    assert!(matches!(other.err(), Some(NatsLogError::Fenced(_))));
    assert!(NatsLog::connect(config, Epoch::FIRST, &first, &[]).await.is_ok(), "the same one is let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_the_watermark_is_fenced() {
    let stored = (conformance::fresh().shard(), Position::new(Epoch::FIRST, 5).unwrap());
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[stored]).await;
    assert!(matches!(log.err(), Some(NatsLogError::Fenced(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_says_so() {
    let config = NatsLogConfig { max_bytes: 1024 * 1024, ..log_config() };
    let log = NatsLog::connect(config, Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let large = Bytes::from(vec![7; 100 * 1024]);
    let mut answer = Ok(());
    for _ in 0..20 {
        let append = conformance::event(conformance::fresh(), large.clone());
        if let Err(error) = log.append(append).await {
            answer = Err(error);
            break;
        }
    }
    assert_eq!(answer, Err(AppendError::Full));
    assert!(log.state(log.slices()[0]).await.unwrap().fill_percent >= 80);
}

/// Prints what the log takes; 5,000 appends at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_appends_at_once() {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let took = conformance::append_many(&log, 20_000, 5_000, Bytes::from(vec![7; 300])).await;
    println!("20,000 appends, 5,000 at once: {:.0}/s", 20_000.0 / took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_link_conforms() {
    let link = NatsLink::connect(&nats(), fresh_namespace()).await.unwrap();
    edge_link::conformance::all(&link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ownership_conforms() {
    let NatsLogConfig { nats, namespace, replicas, .. } = log_config();
    let config = NatsOwnershipConfig { nats, namespace, replicas, epoch: Epoch::FIRST };
    let ownership = NatsOwnership::connect(&config).await.unwrap();
    ownership::conformance::all(&ownership).await;
}
