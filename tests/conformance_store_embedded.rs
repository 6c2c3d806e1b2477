//! The embedded store against the store's conformance suite, in memory and on disk.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reedi::domain::record::{Audience, Body, Entry, NewMessage, Record, RequestDigest};
use reedi::domain::write::{Write, writes_of};
use reedi::runtime::clock::LogClock;
use reedi::store::conformance::replay::{self, Orders, Step};
use reedi::store::conformance::{self, fresh};
use reedi::store::embedded::EmbeddedStore;
use reedi::store::{
    Conversations, Inboxes, Messages, Order, Preferences, Range, StoreError, StorePort, Writes,
};
use reedi_protocol::resource::{ConversationType, MessageType};
use reedi_protocol::{AccountId, ConversationKey, Position};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A new directory, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("reedi-store-{}", fresh::account()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_it_conforms() {
    conformance::all(&EmbeddedStore::in_memory(LogClock::from_system())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_it_conforms() {
    let dir = Dir::new();
    conformance::all(&EmbeddedStore::open(dir.path(), LogClock::from_system()).unwrap()).await;
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>());
    prop::collection::vec(step.prop_map(|(what, target, who, flag)| Step { what, target, who, flag }), 0..60)
}

fn converges(store: &EmbeddedStore, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() });
    runner
        .run(&(steps(), any::<u64>()), |(steps, seed)| {
            runtime.block_on(replay::replay_converges(store, &steps, seed, Orders::Any));
            Ok(())
        })
        .unwrap();
}

#[test]
fn in_memory_replay_converges_in_any_order() {
    converges(&EmbeddedStore::in_memory(LogClock::from_system()), 256);
}

#[test]
fn on_disk_replay_converges_in_any_order() {
    let dir = Dir::new();
    converges(&EmbeddedStore::open(dir.path(), LogClock::from_system()).unwrap(), 16);
}

#[tokio::test]
async fn what_was_answered_for_is_there_after_reopening() {
    let dir = Dir::new();
    let (conversation, account) = (fresh::conversation(), fresh::account());
    let store = EmbeddedStore::open(dir.path(), LogClock::from_system()).unwrap();
    let written: Vec<_> = (1..=500)
        .map(|n| fresh::message(conversation, fresh::position(n), account, &format!("message {n}")))
        .collect();
    for batch in written.chunks(100) {
        store.apply(batch).await.unwrap();
    }
    store.claim_direct(account, fresh::account(), conversation).await.unwrap();
    store.set_block(account, fresh::account(), true).await.unwrap();
    let read = async |store: &EmbeddedStore| {
        let range = Range::after(Position::START);
        let messages = store.messages(conversation, range, Order::OldestFirst, 1_000).await.unwrap();
        let blocks = store.blocks(account, 10).await.unwrap();
        (messages, blocks, store.inbox(account, None, 10).await.unwrap())
    };
    let before = read(&store).await;
    assert_eq!((before.0.len(), before.1.len()), (500, 1));
    drop(store);
    for _ in 0..2 {
        let store = EmbeddedStore::open(dir.path(), LogClock::from_system()).unwrap();
        assert_eq!(read(&store).await, before);
    }
}

#[tokio::test]
async fn a_store_has_one_process() {
    let dir = Dir::new();
    let store = EmbeddedStore::open(dir.path(), LogClock::from_system()).unwrap();
    assert!(matches!(
        EmbeddedStore::open(dir.path(), LogClock::from_system()),
        Err(StoreError::Unavailable(_))
    ));
    store.ping().await.unwrap();
}

/// A message between two with everything that it comes to, as the writer applies it.
fn sent(conversation: ConversationKey, at: Position, [sender, other]: [AccountId; 2]) -> Vec<Write> {
    let now = fresh::now();
    let message = NewMessage {
        client_message_id: fresh::send_id(&fresh::account().to_string()),
        keyed_by_client: true,
        message_type: MessageType::Text,
        content: Some(fresh::sealed(&[7; 200])),
        reply_to: None,
        expires_after_s: None,
    };
    let (control, known_through) = (fresh::position(1), fresh::position(1));
    let record = Record {
        conversation,
        kind: ConversationType::Direct,
        actor: sender,
        stamp: now,
        digest: RequestDigest([7; 16]),
        audience: Some(Audience { control, known_through, accounts: vec![sender, other] }),
        body: Body::Message(message),
    };
    writes_of(&Entry { position: at, log_time: now, record })
}

/// How many messages a second it takes in batches of 100 messages: their rows alone, and with all that
/// they come to; from one caller, and from eight. Run with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn messages_a_second() {
    const BATCHES: u64 = 400;
    const BATCH: u64 = 100;
    let dir = Dir::new();
    let store = EmbeddedStore::open(dir.path(), LogClock::from_system()).unwrap();
    for (callers, all) in [(1, false), (8, false), (1, true), (8, true)] {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (conversation, pair) = (fresh::conversation(), [fresh::account(), fresh::account()]);
                let batches: Vec<Vec<Write>> = (0..BATCHES / callers)
                    .map(|batch| (1..=BATCH).map(move |n| fresh::position(batch * BATCH + n)))
                    .map(|places| {
                        let of = |at| {
                            if all {
                                sent(conversation, at, pair)
                            } else {
                                sent(conversation, at, pair)[..1].to_vec()
                            }
                        };
                        places.flat_map(of).collect()
                    })
                    .collect();
                (store.clone(), batches)
            })
            .collect();
        let began = Instant::now();
        let tasks = tasks.into_iter().map(|(store, batches)| {
            tokio::spawn(async move {
                for batch in batches {
                    store.apply(&batch).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let rate = (BATCHES * BATCH) as f64 / began.elapsed().as_secs_f64();
        let what = if all { "whole messages" } else { "rows" };
        println!("{callers} callers: {rate:.0} {what}/s in batches of {BATCH}");
    }
}
