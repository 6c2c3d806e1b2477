//! Every series of `/metrics` is moved by what it is about, in a cluster that works and in one that is
//! disturbed; labels are of closed sets.

use crate::support::backend::Backend;
use crate::support::cluster::{self, Cluster, Node, WITHIN};
use crate::support::person::{Scene, http, now_ms, token};
use crate::support::session::Session;
use bytes::Bytes;
use reedi::edge_link::{Coverage, EdgeLinkPort, Generation, ToEdge, WorkerId};
use reedi::log::embedded::EmbeddedLog;
use reedi::log::tick::tick;
use reedi::log::{Append, Log, LogPort};
use reedi::runtime::clock::LogClock;
use reedi::runtime::metrics::NAMES;
use reedi_protocol::{CloseCode, Epoch, ErrorCode, Position, Shard, Timestamp};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How far the log's clock is ahead of this machine's in this test.
const LOG_AHEAD_MS: u64 = 5_000;

/// How a series shows that it lives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lives {
    /// A counter, or the count of a histogram, is over zero at the end.
    Counts,
    /// A gauge is over zero while things are as they are set up.
    Shows,
    /// A gauge that was seen over zero on the way.
    Seen,
    /// It is there from the beginning and zero in a cluster that is well.
    Stands,
    /// There only once something has gone wrong that embedded parts cannot be made to do; what is named
    /// moves it.
    AfterFaults(&'static str),
}

use Lives::{AfterFaults, Counts, Seen, Shows, Stands};

const SERIES: [(&str, Lives); 34] = [
    ("messages_accepted", Counts),
    ("messages_acknowledged", Counts),
    ("messages_duplicate", Counts),
    ("messages_delivered", Counts),
    ("messages_failed", Counts),
    ("commands_refused", Counts),
    ("frames_dropped", AfterFaults("delivery::fan_out::tests")),
    ("limits_hit", Counts),
    ("sockets_closed", Counts),
    ("link_repeats", Counts),
    ("link_stale", Counts),
    ("records_read", Counts),
    ("records_stored", Counts),
    ("records_void", Counts),
    ("records_unreadable", Counts),
    ("conversations_unreadable", AfterFaults("tests/integration/stored_rows.rs")),
    ("retries", AfterFaults("tests/simulation/degraded.rs")),
    ("log_unreadable", Stands),
    ("leases_lost", AfterFaults("tests/simulation/degraded.rs")),
    ("send_to_ack", Counts),
    ("send_to_delivered", Counts),
    ("append_to_stored", Counts),
    ("resume", Counts),
    ("connections", Shows),
    ("sockets_unauthenticated", Shows),
    ("answer_bytes", Stands),
    ("outbox_frames", Seen),
    ("active_accounts", Shows),
    ("lag", Stands),
    ("watermark_age", Stands),
    ("leases", Shows),
    ("log_fill_percent", Stands),
    ("clock_offset_ms", Shows),
    ("degraded", Stands),
];

/// One sample: its labels as text, and its value.
type Samples = BTreeMap<String, Vec<(String, f64)>>;

/// The pages of all processes together, by name without prefix, unit and suffix.
async fn pages(nodes: &[&str]) -> Samples {
    let (http, mut samples) = (http(), Samples::new());
    for admin in nodes {
        let page = http.get(format!("{admin}/metrics")).send().await.expect("a page");
        for line in page.text().await.expect("text").lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let name = name.strip_prefix("reedi_").expect("a prefix");
            let labels = labels.trim_end_matches('}').to_owned();
            samples.entry(name.to_owned()).or_default().push((labels, value.parse().expect("a number")));
        }
    }
    samples
}

fn of<'a>(samples: &'a Samples, name: &str) -> Option<&'a Vec<(String, f64)>> {
    ["", "_total", "_seconds", "_seconds_count"].iter().find_map(|end| samples.get(&format!("{name}{end}")))
}

fn lives(samples: &Samples, name: &str, how: Lives) -> bool {
    let most = of(samples, name).map(|samples| samples.iter().map(|(_, value)| *value).fold(0.0, f64::max));
    match how {
        Counts | Shows => most.is_some_and(|most| most > 0.0),
        Stands => most == Some(0.0),
        Seen => most.is_some(),
        AfterFaults(_) => true,
    }
}

async fn until(what: &str, nodes: &[&str], fits: impl Fn(&Samples) -> bool) -> Samples {
    let waiting = async {
        loop {
            let samples = pages(nodes).await;
            if fits(&samples) {
                return samples;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(WITHIN, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A cluster on a log whose clock is not this machine's.
async fn skewed(name: &str) -> &'static Cluster {
    let mut backend = Backend::embedded(name).await;
    if let Backend::Embedded { parts, .. } = &mut backend {
        let begin = Timestamp::from_millis(now_ms() + LOG_AHEAD_MS);
        parts.log = Log::Embedded(EmbeddedLog::in_memory(Epoch::FIRST, "of the metrics", begin));
    }
    cluster::own(backend).await
}

#[tokio::test]
async fn every_series_is_moved() {
    let named: Vec<&str> = SERIES.iter().map(|(name, _)| *name).chain(["ready"]).collect();
    assert_eq!(named, NAMES, "one row for each series, in order");
    let cluster = skewed("metrics").await;
    let scene = Scene::on(cluster);
    let narrow = cluster
        .edge(&[
            ("account_rate", "1"),
            ("account_burst", "2"),
            ("outbox_bytes", "64MiB"),
            ("outbox_frames", "100000"),
        ])
        .await;
    let held = talk(&scene, &narrow).await;
    disturb(cluster).await;
    let edges = cluster.edges.iter().chain([&narrow]);
    let mut nodes: Vec<String> = edges.map(|node| node.admin.clone()).collect();
    for workers in [&cluster.deliveries, &cluster.writers] {
        nodes.extend(workers.lock().iter().map(|node| node.admin.clone()));
    }
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    for (name, how) in SERIES {
        until(&format!("{name} {how:?}"), &nodes, |samples| lives(samples, name, how)).await;
    }
    let samples = until("every shard is told of once", &nodes, every_shard_once).await;
    assert!(of(&samples, "ready").expect("ready").iter().all(|(_, value)| *value == 1.0));
    let offset = |value: f64| (value - LOG_AHEAD_MS as f64).abs() < 2_000.0;
    let offsets = of(&samples, "clock_offset_ms").expect("offsets");
    assert!(
        offsets.iter().filter(|(_, value)| offset(*value)).count() >= 6,
        "edges and writers: {offsets:?}"
    );
    labels_are_closed(&samples);
    drop(held);
}

/// What people do, and what they are refused. Gives what has to stay as it is for gauges to show it.
async fn talk(scene: &Scene, narrow: &Node) -> Vec<Box<dyn std::any::Any>> {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let listening = bob.socket(1).await;
    listening.resume(None, json!({})).await;
    let path = format!("/conversations/{conversation}/messages");
    let id = uuid::Uuid::now_v7().to_string();
    let body = json!({ "content": "once", "messageType": "text", "clientMessageId": id });
    alice.at(0).post(&path, &body).await.expect(201);
    alice.at(1).post(&path, &body).await.expect(200);
    listening.message("once").await;
    let empty = json!({ "content": "", "messageType": "text" });
    alice.at(0).post(&path, &empty).await.refused(422, "invalid_value");
    // The same device twice: the first is sent away.
    let first = alice.socket_with(0, &token(alice.account, Some(7), 3_600)).await;
    let second = alice.socket_with(0, &token(alice.account, Some(7), 3_600)).await;
    assert_eq!(first.closed().await.code, Some(CloseCode::Replaced.code()));
    // More than this edge lets one account do.
    let url = narrow.url();
    let mut refused = false;
    for _ in 0..20 {
        let body = json!({ "content": "quick", "messageType": "text" });
        // Rates are counted over all edges: whoever else sends is not to be limited.
        refused |= bob.at_url(&url).post(&path, &body).await.status == 429;
    }
    assert!(refused, "nothing limits");
    // One who does not read, until more waits than the system's buffers take.
    let deaf = upgrade(&url, Some(&bob.token)).await;
    // Some 256 KiB each as JSON.
    let large = json!({ "content": "\u{1}".repeat(43_000), "messageType": "text" });
    let sending = async {
        loop {
            let at = alice.at(0);
            let some = (0..8).map(|_| at.post(&path, &large));
            futures_util::future::join_all(some).await.into_iter().for_each(|sent| drop(sent.expect(201)));
        }
    };
    // Looked at meanwhile: after ten seconds of reading nothing it is sent away.
    let waits = |samples: &Samples| lives(samples, "outbox_frames", Shows);
    let nodes = [narrow.admin.as_str()];
    tokio::select! {
        () = sending => {}
        _ = until("frames wait for who does not read", &nodes, waits) => {}
    }
    // One who has not said who it is.
    let silent = upgrade(&scene.urls[0], None).await;
    let sessions: [Session; 2] = [listening, second];
    vec![Box::new(sessions), Box::new(deaf), Box::new(silent)]
}

/// A WebSocket that nobody reads, with as little room as the system allows.
async fn upgrade(url: &str, token: Option<&str>) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let address = url.trim_start_matches("http://").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("a connection");
    let bearer = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "GET /api/messages/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{bearer}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    stream
}

/// What nobody does who is well: records that count for nothing, and batches that do not join on.
async fn disturb(cluster: &Cluster) {
    let shared = &cluster.edges[2].member().shared;
    let edge = cluster.edges[2].member().edge.clone().expect("an edge");
    let shard = Shard(9);
    let long_ago = LogClock::starting_at(Timestamp::from_millis(now_ms() - 3_600_000));
    shared.log.append(tick(shard, &long_ago)).await.expect("the log takes it");
    let garbage = Append { payload: Bytes::from_static(b"no record"), ..tick(shard, &shared.clock) };
    shared.log.append(garbage).await.expect("the log takes it");
    let beyond = Position::new(Epoch::FIRST, 1_000_000_000).expect("a position");
    // From a generation before all up to the owner's own: the first are stale, the last leaves a gap.
    for generation in 0.. {
        let seen = || edge.metrics.link_stale.get() + edge.metrics.link_repeats.get();
        let before = seen();
        let range = Coverage { shard, generation: Generation(generation), after: beyond, through: beyond };
        let batch =
            ToEdge::Batch { worker: WorkerId(1), routes: 0, coverage: vec![range], events: Vec::new() };
        shared.link.to_edge(edge.id, batch).await.expect("it goes out");
        let taken = async {
            while seen() == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(WITHIN, taken).await.expect("the edge takes it");
        if edge.metrics.link_repeats.get() > 0 {
            break;
        }
    }
}

fn every_shard_once(samples: &Samples) -> bool {
    let shards = |name: &str, role: &str| {
        let mut all: Vec<u16> = of(samples, name)
            .into_iter()
            .flatten()
            .filter(|(labels, _)| labels.contains(role))
            .map(|(labels, _)| {
                let (_, shard) = labels.split_once("shard=\"").expect("a shard");
                shard.split('"').next().and_then(|n| n.parse().ok()).expect("a number")
            })
            .collect();
        all.sort_unstable();
        all
    };
    let all: Vec<u16> = (0..Shard::COUNT as u16).collect();
    shards("lag", "delivery") == all && shards("lag", "writer") == all && shards("watermark_age", "") == all
}

fn labels_are_closed(samples: &Samples) {
    let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.code().to_owned()).collect();
    let closes: BTreeSet<String> = CloseCode::ALL.iter().map(|code| code.code().to_string()).collect();
    let shards: BTreeSet<String> = (0..Shard::COUNT).map(|n| n.to_string()).collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let sets = BTreeMap::from([
        ("reason", codes),
        ("code", closes),
        ("shard", shards),
        ("slice", words(&["0"])),
        ("queue", words(&["edge_link"])),
        (
            "limit",
            words(&[
                "account_answer_bytes",
                "account_rate",
                "answer_bytes",
                "conversation_rate",
                "http_connections",
                "large_bodies",
                "read_rate",
                "sign_in_rate",
                "sessions",
                "sessions_per_account",
                "unauthenticated_sockets",
            ]),
        ),
        ("role", words(&["delivery", "writer"])),
        ("part", words(&["redis", "log", "store", "people"])),
    ]);
    for (name, all) in samples {
        let labels = all.iter().flat_map(|(labels, _)| labels.split(',')).filter(|label| !label.is_empty());
        for label in labels {
            let (key, value) = label.split_once('=').expect("a label");
            if !matches!(key, "le" | "version") {
                let set = sets.get(key).unwrap_or_else(|| panic!("{name}: no such label {key}"));
                assert!(set.contains(value.trim_matches('"')), "{name}: {label}");
            }
        }
    }
}
