//! The NATS adapters while nodes of the cluster fail. Needs a cluster of three that may be killed:
//! `REEDI_TEST_NATS_URL` names its servers and `REEDI_TEST_STATE` the folder that
//! `tests/components/start.sh` keeps it in. The tests run one after the other.

#[path = "support_nats/plain.rs"]
mod plain;
mod support_nats;

use futures_util::StreamExt;
use plain::{log_config, nats};
use reedi::domain::send_key::DuplicateKey;
use reedi::edge_link::nats::NatsLink;
use reedi::edge_link::{EdgeId, EdgeLinkPort, ToEdge, WorkerId, conformance as link_conformance};
use reedi::log::nats::{NatsLog, NatsLogConfig};
use reedi::log::{Append, AppendError, Appended, LogPort, LogReader, RawRecord, conformance};
use reedi_protocol::{Epoch, Position};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support_nats::incarnations;
use tokio::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// Nothing that is waited for may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Senders at once, each of one message after the other, as edges have them.
const SENDERS: usize = 64;

fn node(action: &str, name: &str) {
    let state = std::env::var("REEDI_TEST_STATE")
        .expect("REEDI_TEST_STATE must name the folder of the test components, so that nodes can be killed");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/components/node.sh");
    let status = Command::new(script).args(["--state", &state, action, name]).status().unwrap();
    assert!(status.success(), "node.sh {action} {name}");
}

async fn blocking_node(action: &'static str, name: String) {
    tokio::task::spawn_blocking(move || node(action, &name)).await.unwrap();
}

/// The client of the test itself, and the name of the one stream that `log` has.
async fn stream_of(log: &NatsLog) -> (async_nats::Client, String) {
    let client = async_nats::connect(nats().urls).await.unwrap();
    let incarnation = log.state(log.slices()[0]).await.unwrap().incarnation;
    let mut streams = async_nats::jetstream::new(client.clone()).streams();
    loop {
        let config = streams.next().await.unwrap().unwrap().config;
        if config.metadata.get("reedi-incarnation") == Some(&incarnation) {
            return (client, config.name);
        }
    }
}

async fn leader(client: &async_nats::Client, stream: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let jetstream = async_nats::jetstream::new(client.clone());
        if let Ok(stream) = jetstream.get_stream(stream).await
            && let Some(leader) =
                stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone())
        {
            return leader;
        }
        assert!(Instant::now() < until, "{stream} has no leader");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends one message after the other until told to stop, each as often as it takes, as a client does.
async fn send(
    log: &NatsLog,
    stop: &AtomicBool,
    acked: &AtomicUsize,
    sender: u32,
) -> Vec<(Vec<u8>, Position)> {
    let conversation = conformance::fresh();
    let mut taken = Vec::new();
    for number in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let payload = [sender.to_be_bytes(), number.to_be_bytes()].concat();
        let append = Append {
            duplicate_key: Some(DuplicateKey(rand::random())),
            ..conformance::event(conversation, payload.clone())
        };
        let until = Instant::now() + PATIENCE;
        let position = loop {
            match log.append(append.clone()).await {
                Ok(Appended::New(position) | Appended::Duplicate(position)) => break position,
                Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_) | AppendError::InFlight) => {
                    assert!(Instant::now() < until, "the log did not come back");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("an append came to {error}"),
            }
        };
        acked.fetch_add(1, Ordering::Relaxed);
        taken.push((payload, position));
    }
    taken
}

/// Reads everything up to the end, once `end` knows it, beginning anew after what was read whenever a
/// reader fails.
async fn read_all(log: &NatsLog, end: impl Fn() -> Option<Position>) -> Vec<RawRecord> {
    let slice = log.slices()[0];
    let (mut records, mut after): (Vec<RawRecord>, Position) = (Vec::new(), Position::START);
    let done = |after| end().is_some_and(|end| after >= end);
    let until = Instant::now() + 2 * PATIENCE;
    while !done(after) {
        assert!(Instant::now() < until, "the log could not be read to its end");
        let Ok(mut reader) = log.read(slice, slice.shards(), after).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !done(after) {
            // The end may become known while nothing comes.
            match tokio::time::timeout(Duration::from_millis(200), reader.next(1_000)).await {
                Ok(Ok(next)) => {
                    after = next.last().unwrap().position;
                    records.extend(next);
                }
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
    }
    records
}

async fn until_acked(acked: &AtomicUsize, more: usize) {
    let (from, until) = (acked.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while acked.load(Ordering::Relaxed) < from + more {
        assert!(Instant::now() < until, "appends do not go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Appends while `fault` happens; afterwards every acknowledged record stands exactly once, where it
/// was acknowledged, and nothing stands twice. A reader that follows meanwhile sees the same.
async fn survives<F: Future<Output = ()>>(fault: impl FnOnce(async_nats::Client, String) -> F) {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let (client, stream) = stream_of(&log).await;
    let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let senders = futures_util::future::join_all((0..SENDERS as u32).map(|n| send(&log, &stop, &acked, n)));
    let faulty = async {
        until_acked(&acked, 500).await;
        let began = Instant::now();
        let before = acked.load(Ordering::Relaxed);
        fault(client, stream).await;
        println!(
            "the fault took {:?}, {} acknowledged",
            began.elapsed(),
            acked.load(Ordering::Relaxed) - before
        );
        until_acked(&acked, 500).await;
        stop.store(true, Ordering::Relaxed);
    };
    let end = OnceLock::new();
    let writing = async {
        let (taken, ()) = tokio::join!(senders, faulty);
        let last = conformance::event(conformance::fresh(), "end");
        end.set(conformance::append_new(&log, last).await).unwrap();
        taken
    };
    let (taken, followed) = tokio::join!(writing, read_all(&log, || end.get().copied()));
    let records = read_all(&log, || end.get().copied()).await;
    let mut found: BTreeMap<Vec<u8>, Position> = BTreeMap::new();
    for record in &records {
        let twice = found.insert(record.payload.to_vec(), record.position);
        assert_eq!(twice, None, "{:?} stands twice", record.payload);
    }
    for (payload, position) in taken.into_iter().flatten() {
        assert_eq!(found.get(&payload), Some(&position), "an acknowledged record is lost or moved");
    }
    assert_eq!(followed, records, "two readers saw two logs");
    assert_eq!(log.fenced(), None, "a fault is no reason to fence");
    println!("{} records", records.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_steps_down_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    survives(|client, stream| async move {
        for _ in 0..3 {
            let before = leader(&client, &stream).await;
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
            client.request(subject, "".into()).await.unwrap();
            let until = Instant::now() + PATIENCE;
            while leader(&client, &stream).await == before && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    survives(|client, stream| async move {
        let victim = leader(&client, &stream).await;
        blocking_node("kill", victim.clone()).await;
        // sleeps: the others go on without it for a while before it comes back.
        tokio::time::sleep(Duration::from_secs(2)).await;
        blocking_node("restart", victim).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_killed_in_turn_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    survives(|client, stream| async move {
        for name in ["nats-1", "nats-2", "nats-3"] {
            blocking_node("kill", name.to_owned()).await;
            blocking_node("restart", name.to_owned()).await;
            leader(&client, &stream).await;
        }
    })
    .await;
}

/// Who listened before every node was restarted hears again after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_outlive_every_node() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let NatsLogConfig { nats, namespace, .. } = log_config();
    let link = NatsLink::connect(&nats, namespace.clone()).await.unwrap();
    let far = NatsLink::connect(&nats, namespace).await.unwrap();
    let edge = EdgeId(rand::random());
    let (mut frames, mut presence) = link.listen_as_edge(edge).await.unwrap();
    let collect = |n| ToEdge::Collect { worker: WorkerId(n) };
    link_conformance::send_until_heard(&mut frames, || far.to_edge(edge, collect(1)), |f| *f == collect(1))
        .await;
    for name in ["nats-1", "nats-2", "nats-3"] {
        blocking_node("restart", name.to_owned()).await;
    }
    link_conformance::send_until_heard(&mut frames, || far.to_edge(edge, collect(2)), |f| *f == collect(2))
        .await;
    link_conformance::send_until_heard(&mut frames, || far.to_all_edges(collect(3)), |f| *f == collect(3))
        .await;
    link_conformance::send_until_heard(&mut presence, || far.presence(Vec::new()), Vec::is_empty).await;
}
