//! What is answered where rows of the store have gone or cannot be read. The tests change them past the service, on
//! real parts.

use crate::support::backend::{Backend, cql_session};
use crate::support::cluster::{self, WITHIN};
use crate::support::person::Scene;
use crate::support::session::Session;
use reedi_protocol::{ConversationId, MessageId};
use scylla::client::session::Session as Cql;
use scylla::statement::batch::{Batch, BatchType};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

mod real {
    use super::{Backend, Scene, cluster};

    #[tokio::test]
    async fn what_cannot_be_read_hides_no_other_conversation() {
        super::what_cannot_be_read_hides_no_other_conversation(Scene::on(cluster::real().await)).await;
    }

    #[tokio::test]
    async fn who_was_away_for_longer_than_events_live_is_told() {
        let backend = Backend::real("who_was_away").await;
        super::who_was_away_for_longer_than_events_live_is_told(Scene::on(cluster::own(backend).await)).await;
    }
}

/// A server refuses to pass over 100,000 (`tombstone_failure_threshold`).
const EXPIRED: u128 = 100_100;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// The keyspace of the cluster, and who speaks to it past the service.
struct Rows {
    cql: Cql,
    keyspace: String,
    conversation: i64,
    bucket: i32,
}

impl Rows {
    async fn of(scene: &Scene, conversation: &str) -> Self {
        let Backend::Real { cql, name, .. } = &scene.cluster.backend else { panic!("on real parts") };
        let contact_points: Vec<String> = cql.split(',').map(str::to_owned).collect();
        let cql = cql_session(&contact_points).await;
        let id: ConversationId = conversation.parse().unwrap();
        let conversation = id.key().as_u64().cast_signed();
        let text = format!("SELECT bucket FROM {name}.buckets WHERE conversation = ?");
        let answer = cql.query_unpaged(text, (conversation,)).await.expect("it reads");
        let (bucket,) = answer.into_rows_result().expect("rows").first_row::<(i32,)>().expect("one");
        Self { cql, keyspace: name.clone(), conversation, bucket }
    }

    /// Writes more reactions to one message than a read passes over, and waits until they have ended.
    async fn expired_reactions(&self, target: i64) {
        let put = format!(
            "INSERT INTO {}.reactions (conversation, bucket, target, account, reaction, at) VALUES (?, ?, ?, ?, 'x', 1) \
             USING TIMESTAMP 1 AND TTL 1",
            self.keyspace
        );
        let put = self.cql.prepare(put).await.expect("it prepares");
        let accounts: Vec<uuid::Uuid> = (1..=EXPIRED).map(uuid::Uuid::from_u128).collect();
        for accounts in accounts.chunks(500) {
            let mut batch = Batch::new(BatchType::Unlogged);
            accounts.iter().for_each(|_| batch.append_statement(put.clone()));
            let values: Vec<_> =
                accounts.iter().map(|account| (self.conversation, self.bucket, target, *account)).collect();
            self.cql.batch(&batch, values).await.expect("it writes");
        }
        let read = format!(
            "SELECT at FROM {}.reactions WHERE conversation = ? AND bucket = ? AND target = ? AND account = ?",
            self.keyspace
        );
        let last = (self.conversation, self.bucket, target, accounts[accounts.len() - 1]);
        let since = Instant::now();
        loop {
            let answer = self.cql.query_unpaged(read.clone(), last).await.expect("it reads");
            if answer.into_rows_result().expect("rows").rows_num() == 0 {
                break;
            }
            assert!(since.elapsed() < WITHIN, "they live on");
            // sleeps: the store says nothing when a row ends
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes it look as if the log had come to `old` 31 days ago, and today begun with `first`.
    async fn kept_from(&self, shard: u8, old: i64, first: i64) {
        let Self { cql, keyspace, .. } = self;
        let shard = i32::from(shard);
        let forget = format!("DELETE FROM {keyspace}.days WHERE shard = ?");
        cql.query_unpaged(forget, (shard,)).await.expect("it writes");
        let now = crate::support::person::now_ms().cast_signed();
        for (days, place) in [(31, old), (0, first)] {
            let time = now - days * DAY_MS;
            let put =
                format!("INSERT INTO {keyspace}.days (shard, day, first, log_time) VALUES (?, ?, ?, ?)");
            let day = i32::try_from(time / DAY_MS).unwrap();
            cql.query_unpaged(put, (shard, day, place, time)).await.expect("it writes");
        }
    }

    /// Damages the event at `position`.
    async fn damaged_event(&self, position: i64) {
        let put = format!(
            "INSERT INTO {}.events (conversation, bucket, position, log_time, record) VALUES (?, ?, ?, ?, 0xff)",
            self.keyspace
        );
        let now = crate::support::person::now_ms().cast_signed();
        let values = (self.conversation, self.bucket, position, now);
        self.cql.query_unpaged(put, values).await.expect("it writes");
    }
}

fn place(message: &Value) -> i64 {
    let id: MessageId = message["messageId"].as_str().unwrap().parse().unwrap();
    id.position().as_u64().cast_signed()
}

fn contents(session: &Session, conversation: &str) -> Vec<Value> {
    let all = session.all("new_message");
    all.iter().filter(|m| m["conversationId"] == conversation).map(|m| m["content"].clone()).collect()
}

async fn what_cannot_be_read_hides_no_other_conversation(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let (whole, broken) = (alice.direct(&carol).await, alice.direct(&bob).await);
    let session = alice.socket(0).await;
    let checkpoint = session.resume(None, json!({})).await;
    session.close().await;
    let message = bob.send(0, &broken, "from bob").await;
    carol.send(1, &whole, "from carol").await;
    scene.cluster.stored(&broken).await;
    scene.cluster.stored(&whole).await;
    let rows = Rows::of(&scene, &broken).await;
    rows.expired_reactions(place(&message)).await;

    // The list has all that is known without.
    let list = alice.at(2).get("/conversations").await.expect(200).list("conversations");
    assert_eq!(list.len(), 2, "{list:#?}");
    assert_eq!(
        (&list[0]["lastMessage"]["content"], &list[0]["unreadCount"]),
        (&json!("from carol"), &json!(1))
    );
    assert!(list[0].get("partial").is_none(), "{:#?}", list[0]);
    assert_eq!(list[1]["conversationId"], broken);
    assert_eq!((&list[1]["lastMessage"], &list[1]["partial"]), (&Value::Null, &json!(true)));
    assert_eq!(list[1]["unreadCount"], 1, "that can be counted");
    assert_eq!(list[1]["position"], message["position"]);
    let page = alice.at(1).get(&format!("/conversations/{broken}/messages")).await;
    page.refused(503, "store_unavailable");
    assert_eq!(alice.at(1).texts(&whole).await, ["from carol"]);

    // A resume loads that one conversation anew.
    rows.damaged_event(place(&message)).await;
    let back = alice.socket(2).await;
    back.resume(Some(&checkpoint), json!({})).await;
    assert_eq!(contents(&back, &whole), ["from carol"]);
    assert_eq!(contents(&back, &broken), Vec::<Value>::new());
    let resets = back.all("conversation_reset");
    assert_eq!(resets.len(), 1, "{resets:?}");
    assert_eq!(resets[0]["conversationId"], broken);
    let counted: u64 = scene
        .cluster
        .edges
        .iter()
        .map(|edge| edge.member().shared.metrics.conversations_unreadable.get())
        .sum();
    assert_eq!(counted, 2);
}

/// Positions say no time: what lies between a checkpoint and what is known to be there may have ended (ADR 0034).
async fn who_was_away_for_longer_than_events_live_is_told(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let one = bob.send(0, &conversation, "one").await;
    scene.cluster.stored(&conversation).await;
    let visit = async || {
        let session = alice.socket(1).await;
        let checkpoint = session.resume(None, json!({})).await;
        session.close().await;
        checkpoint
    };
    let before = visit().await;
    // An edge may have been served up to right before it.
    bob.send(0, &conversation, "two").await;
    let three = bob.send(0, &conversation, "three").await;
    scene.cluster.stored(&conversation).await;
    let after = visit().await;
    let id: ConversationId = conversation.parse().unwrap();
    let rows = Rows::of(&scene, &conversation).await;
    rows.kept_from(id.key().shard().0, place(&one), place(&three)).await;

    let back = alice.socket(2).await;
    back.resume(Some(&before), json!({})).await;
    let resets = back.all("conversation_reset");
    assert_eq!(resets.iter().map(|r| &r["conversationId"]).collect::<Vec<_>>(), [&json!(conversation)]);
    assert_eq!(contents(&back, &conversation), Vec::<Value>::new());
    let events = async |after: &Value| {
        let path = format!("/conversations/{conversation}/events?after={after}");
        let page = alice.at(0).get(&path).await.expect(200);
        assert_eq!(page.body["hasMore"], false);
        let names: Vec<String> =
            page.list("events").iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect();
        (names, page.body["completeTo"].clone())
    };
    let (names, complete) = events(&one["position"]).await;
    assert_eq!(names, ["conversation_reset", "new_message"]);
    assert_eq!(events(&complete).await.0, Vec::<String>::new(), "it does not go round");

    // From where all is there on nothing is missing.
    bob.send(0, &conversation, "four").await;
    scene.cluster.stored(&conversation).await;
    let again = alice.socket(2).await;
    again.resume(Some(&after), json!({})).await;
    assert_eq!(contents(&again, &conversation), ["four"]);
    assert_eq!(again.all("conversation_reset").len(), 0);
    assert_eq!(events(&three["position"]).await.0, ["new_message"]);
}
