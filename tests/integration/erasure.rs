//! What was deleted for everyone leaves the log too, with its edits, and the message stands as deleted.

use crate::support::backend::Backend;
use crate::support::cluster::{self, Cluster, WITHIN};
use crate::support::content;
use crate::support::person::Scene;
use reedi::domain::record::{Body, Entry};
use reedi::log::reading::Reading;
use reedi::log::{Append, Lane, LogPort, LogReader, RawRecord, ShardSet};
use reedi::ownership::keep::{Keeper, Owned};
use reedi::ownership::{LeaseUnits, ShardedRole};
use reedi::role::Shared;
use reedi::store::{Messages as _, Range};
use reedi::writer::Writer;
use reedi_protocol::{ConversationId, ConversationKey, Position};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Of the service's own time only this much, since nobody waits minutes for a test.
const ERASE_AFTER: Duration = Duration::from_secs(5);

#[tokio::test]
async fn embedded() {
    let backend = Backend::embedded("erasure").await;
    let Backend::Embedded { folder, .. } = &backend else { unreachable!("it was asked for") };
    let files = vec![folder.join("log")];
    deleted_content_leaves_the_log(cluster::own(backend).await, &files).await;
}

#[tokio::test]
async fn real() {
    let state = std::env::var("REEDI_TEST_STATE").expect("the folder that the servers keep their data in");
    let nodes = std::fs::read_dir(&state).expect("it is there").flatten().map(|entry| entry.path());
    let nodes: Vec<PathBuf> = nodes.map(|node| node.join("js")).filter(|path| path.is_dir()).collect();
    let cluster = cluster::own(Backend::real("erasure").await).await;
    let Backend::Real { name, .. } = &cluster.backend else { unreachable!("it was asked for") };
    let streams: Vec<PathBuf> = nodes.iter().flat_map(|node| streams_of(node, name)).collect();
    assert!(!streams.is_empty(), "no server of NATS keeps a stream of {name} under {state}");
    deleted_content_leaves_the_log(cluster, &streams).await;
}

/// The folders below `folder` that hold a stream of the log of this name.
fn streams_of(folder: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders
        .flat_map(|path| match path.file_name().is_some_and(|own| own.to_string_lossy().starts_with(name)) {
            true => vec![path],
            false => streams_of(&path, name),
        })
        .collect()
}

/// The writer as it is, but for its patience, in place of those that the cluster began with.
async fn hasty_writer(cluster: &Cluster) {
    let writers: Vec<_> = cluster.writers.lock().drain(..).collect();
    for writer in writers {
        writer.leave().await;
    }
    let Shared { log, store, clock, metrics, ownership, config, shutdown, .. } =
        cluster.edges[0].member().shared.clone();
    let (owned, owns) = watch::channel(Owned::default());
    let reading = Reading::default();
    let keeper = Keeper {
        ownership,
        role: ShardedRole::Writer,
        units: LeaseUnits::of(config.division.shards),
        worker: "the-hasty-writer".to_owned(),
        metrics: metrics.clone(),
        health: reading.health(),
        division: watch::Sender::default(),
    };
    let writer = Writer { log, store, clock, metrics, reading, erase_after: ERASE_AFTER };
    tokio::spawn(keeper.run(owned, shutdown.clone()));
    tokio::spawn(writer.run(owns, shutdown));
}

/// The sealed contents that the log has of a conversation, each with its place.
async fn sealed(shared: &Shared, conversation: ConversationKey) -> Vec<(Position, Vec<u8>)> {
    let shards: ShardSet = [conversation.shard()].into_iter().collect();
    let slice = shared.log.slices().into_iter().find(|slice| slice.holds(conversation.shard()));
    let slice = slice.expect("every shard is in a slice");
    let end = shared.log.state(slice).await.expect("a state").last;
    // What nothing follows is never given: something does.
    shared
        .log
        .append(reedi::log::tick::tick(conversation.shard(), &shared.clock))
        .await
        .expect("it takes it");
    let mut reader = shared.log.read(slice, shards, Position::START).await.expect("it reads");
    let mut found = Vec::new();
    loop {
        for raw in reader.next(1_000).await.expect("it reads on") {
            if raw.position > end {
                return found;
            }
            let Ok(entry) = Entry::decode(raw.position, raw.log_time, &raw.payload) else { continue };
            let content = match entry.record.body {
                Body::Message(message) if entry.record.conversation == conversation => message.content,
                Body::Edit { content, .. } if entry.record.conversation == conversation => content,
                _ => None,
            };
            found.extend(content.map(|content| (raw.position, content.0.to_vec())));
        }
    }
}

/// As an edge does that judged an edit just before the message was deleted.
async fn edit_again(shared: &Shared, edit: &RawRecord) {
    let mut record = Entry::decode(edit.position, edit.log_time, &edit.payload).expect("an edit").record;
    record.stamp = shared.clock.now();
    let (conversation, payload) = (record.conversation, record.encode());
    let append = Append { conversation, lane: Lane::Event, duplicate_key: None, payload, traceparent: None };
    shared.log.append(append).await.expect("it takes it");
}

async fn deleted_content_leaves_the_log(cluster: &'static Cluster, files: &[PathBuf]) {
    hasty_writer(cluster).await;
    let scene = Scene::on(cluster);
    let shared = &cluster.edges[0].member().shared;
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let id: ConversationId = conversation.parse().expect("a conversation");
    let (key, shard) = (id.key(), id.key().shard());
    let path = format!("/conversations/{conversation}/messages");
    let client_message_id = uuid::Uuid::now_v7().to_string();
    let body = json!({ "content": "what will be deleted, a text of some length", "messageType": "text",
        "clientMessageId": client_message_id });
    let sent = alice.at(0).post(&path, &body).await.expect(201);
    let message = sent.text("messageId");
    cluster.stored(&conversation).await;
    let edit = json!({ "content": "what will be deleted, edited, of some length too" });
    alice.at(1).put(&format!("/messages/{message}"), &edit).await.expect(200);
    alice.send(2, &conversation, "what stays, which is a text of some length as well").await;
    let before = sealed(shared, key).await;
    let [sent_as, edited_as, stays] = before.as_slice() else { panic!("three contents, not {before:?}") };
    for (position, sealed) in &before {
        assert!(log_holds(files, sealed), "the log has what stands at {position}");
    }

    let edit = shared.log.get(shard, edited_as.0).await.expect("the log answers").expect("it has the edit");
    alice.at(2).delete(&format!("/messages/{message}?scope=everyone")).await.expect(204);
    edit_again(shared, &edit).await;
    let gone = async {
        while sealed(shared, key).await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WITHIN, gone).await.expect("the log forgets it");
    let no_file_has_it = async {
        while [sent_as, edited_as].iter().any(|(_, sealed)| log_holds(files, sealed)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WITHIN, no_file_has_it).await.expect("no file of the log has it, in any replica");
    assert!(log_holds(files, &stays.1), "and nothing else went");
    assert_eq!(sealed(shared, key).await, std::slice::from_ref(stays));
    for (position, bytes) in [sent_as, edited_as] {
        assert_eq!(shared.log.get(shard, *position).await.expect("the log answers"), None);
        let (tables, rows) = content::tables_with_bytes(&cluster.backend, bytes).await;
        assert!(tables.is_empty(), "{tables:?} have what is deleted, of {rows} rows");
    }
    let stored = shared.store.message(key, sent_as.0).await.expect("it reads").expect("its row stays");
    assert!(stored.deleted.is_some() && stored.content.is_none(), "{stored:?}");
    let range = Range { after: Position::START, before: Range::END };
    let events = shared.store.events(key, range, 100).await.expect("it reads");
    let keeps = |body: &Body| match body {
        Body::Message(message) => message.content.is_some(),
        Body::Edit { content, .. } => content.is_some(),
        _ => false,
    };
    assert!(events.iter().all(|event| !keeps(&event.record.body)), "{events:?}");

    // The message stands as deleted, and its repeat is answered with it.
    let page = bob.at(1).get(&path).await.expect(200).list("messages");
    let shown = page.iter().find(|m| m["messageId"] == message).expect("it stands");
    assert_eq!(shown["content"], Value::Null);
    assert!(shown["deletedAt"].is_string(), "{shown}");
    let again = alice.at(2).post(&path, &body).await.expect(200);
    assert_eq!(again.text("messageId"), message);
}

fn log_holds(folders: &[PathBuf], bytes: &[u8]) -> bool {
    folders.iter().any(|folder| files_hold(folder, bytes))
}

fn files_hold(folder: &Path, bytes: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().map(|entry| entry.path()).any(|path| match path.is_dir() {
        true => files_hold(&path, bytes),
        false => std::fs::read(&path).is_ok_and(|held| content::holds_bytes(&held, bytes)),
    })
}
