//! What edges missed, on the embedded log and store.

use super::*;
use crate::domain::record::{Audience, Body, Record, RequestDigest};
use crate::edge_link::in_process::InProcessLink;
use crate::edge_link::{Coverage, EdgeLink, Generation, Inbound, WorkerId};
use crate::log::embedded::EmbeddedLog;
use crate::log::reading::Reading;
use crate::log::{Append, Lane, Log};
use crate::runtime::clock::LogClock;
use crate::runtime::metrics::Metrics;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{ConversationKey, Epoch};
use std::collections::HashMap;

const EDGE: EdgeId = EdgeId(7);
const SHARDS: std::ops::Range<u8> = 0..128;

struct Bench {
    consumer: Consumer,
    frames: Inbound<ToEdge>,
    folder: std::path::PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn reader() -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(1))
}

/// An event that only its actor gets, and that says who takes part, so that nobody has to be asked.
fn event(conversation: ConversationKey, log_time: reedi_protocol::Timestamp) -> Append {
    let record = Record {
        conversation,
        kind: ConversationType::Direct,
        actor: reader(),
        stamp: log_time,
        digest: RequestDigest([0; 16]),
        audience: Some(Audience {
            control: Position::START,
            known_through: Position::START,
            accounts: vec![reader()],
        }),
        body: Body::Hide { target: Position::START },
    };
    let payload = record.encode();
    Append { conversation, lane: Lane::Event, duplicate_key: None, payload, traceparent: None }
}

/// A worker that has pushed `each` events of every shard, to an edge that got none of them.
async fn bench(each: usize) -> Bench {
    let folder = std::env::temp_dir().join(format!("reedi-consume-{:016x}", rand::random::<u64>()));
    let log = Log::Embedded(EmbeddedLog::open(&folder.join("log"), Epoch::FIRST).unwrap());
    let store = Store::Embedded(EmbeddedStore::open(&folder.join("store"), LogClock::from_system()).unwrap());
    let link = EdgeLink::InProcess(InProcessLink::default());
    let (frames, _presence) = link.listen_as_edge(EDGE).await.unwrap();
    let (slice, id) = (log.slices()[0], WorkerId(1));
    let delivery =
        Delivery { id, log: log.clone(), store, link, metrics: Metrics::new(), reading: Reading::default() };
    let reading = delivery.reading.of(slice);
    let mut consumer = Consumer::new(delivery, slice, Lag::default(), reading);
    for _ in 0..each {
        let now = log.now().await.unwrap();
        let appending = SHARDS.map(|shard| {
            let conversation = ConversationKey::from_u64(u64::from(shard) << 56 | 1);
            log.append(event(conversation, now))
        });
        assert!(futures_util::future::join_all(appending).await.iter().all(Result::is_ok));
    }
    let pushed = log.state(slice).await.unwrap().last;
    for shard in SHARDS.map(Shard) {
        consumer.shards.insert(shard, Standing { generation: Generation(1), pushed, read: pushed });
    }
    consumer.routes.snapshot(EDGE, 1, vec![reader()], HashMap::new());
    Bench { consumer, frames, folder }
}

impl Bench {
    async fn asks(&mut self, after: Position) {
        for shard in SHARDS.map(Shard) {
            self.consumer.hear(ToWorkers::Repeat { edge: EDGE, shard, after }).await;
        }
        self.consumer.repeat_asked().await;
    }

    /// What came: coverage and positions of events of each batch that has events.
    fn batches(&mut self) -> Vec<(Vec<Coverage>, Vec<Position>)> {
        let mut batches = Vec::new();
        while let Ok(frame) = self.frames.try_recv() {
            if let ToEdge::Batch { coverage, events, .. } = frame
                && !events.is_empty()
            {
                batches.push((coverage, events.iter().map(|event| event.position).collect()));
            }
        }
        batches
    }
}

/// Each by itself would be a reading of the log, and so long no edge would hear anything.
#[tokio::test]
async fn what_an_edge_lacks_of_many_shards_comes_together() {
    let mut bench = bench(3).await;
    bench.asks(Position::START).await;
    let batches = bench.batches();
    assert_eq!(batches.len(), 1);
    let (coverage, events) = &batches[0];
    assert_eq!(coverage.len(), SHARDS.len());
    assert_eq!(events.len(), 3 * SHARDS.len());
    assert!(events.is_sorted_by(|a, b| a < b), "in order, each once");
    assert!(coverage.iter().all(|range| range.after == Position::START && range.through == events[383]));
}

/// More than goes out at once comes in parts: each says how far it goes, and the next joins on.
#[tokio::test]
async fn what_is_too_much_for_once_comes_in_parts_that_join() {
    let each = 60;
    let mut bench = bench(each).await;
    let (mut after, mut told) = (Position::START, Vec::new());
    for _ in 0..2 {
        bench.asks(after).await;
        for (coverage, events) in bench.batches() {
            assert!(events.iter().all(|event| *event > after && *event <= coverage[0].through));
            assert!(
                coverage.iter().all(|range| range.after == after && range.through == coverage[0].through)
            );
            after = coverage[0].through;
            told.extend(events);
        }
    }
    assert_eq!(told.len(), each * SHARDS.len());
    assert!(told.is_sorted_by(|a, b| a < b));
    // What is sent next begins where the worker stands, so that an edge with a part of it notices.
    let pushed = *told.last().unwrap();
    assert!(bench.consumer.routes.edge(EDGE).unwrap().sent.values().all(|sent| *sent == pushed));
}

/// An edge that lacks nothing any more is told so, and nothing is read for it.
#[tokio::test]
async fn a_repeat_that_comes_too_late_proves_and_repeats_nothing() {
    let mut bench = bench(1).await;
    let pushed = bench.consumer.shards[&Shard(0)].pushed;
    bench.asks(pushed).await;
    assert!(bench.batches().is_empty());
}
