//! Edits, deletions and reactions.

use crate::support::person::{Person, Scene};
use reedi::domain::write::{MessageRow, Write};
use reedi::log::tick::tick;
use reedi::log::{Appended, LogPort};
use reedi::store::{Messages, Writes};
use reedi_protocol::resource::{ConversationType, MessageType};
use reedi_protocol::text::{ClientMessageId, Reaction};
use reedi_protocol::{ConversationId, MessageId, Position, Timestamp};
use serde_json::{Value, json};

on_both!(
    only_the_sender_edits,
    deleted_for_everyone_is_gone,
    deleted_for_me_is_gone_for_me,
    the_window_closes_after_a_day,
    reactions_come_and_go,
    one_emoji_is_one_reaction,
    sockets_change_the_same,
);

fn id_of(message: &Value) -> String {
    message["messageId"].as_str().expect("a message").to_owned()
}

async fn stored_content(scene: &Scene, id: &str) -> Option<Vec<u8>> {
    let id: MessageId = id.parse().unwrap();
    let store = &scene.cluster.edges[0].member().shared.store;
    let stored = store.message(id.key(), id.position()).await.unwrap().expect("its row stays");
    stored.content.map(|sealed| sealed.0.to_vec())
}

async fn only_the_sender_edits(scene: Scene) {
    let [alice, bob, eve] = scene.people();
    let conversation = alice.direct(&bob).await;
    let sent = alice.send(0, &conversation, "frist").await;
    let path = format!("/messages/{}", id_of(&sent));
    let edited = alice.at(1).put(&path, &json!({ "content": "first" })).await.expect(200);
    assert_eq!(edited.text("content"), "first");
    assert_eq!(edited.body["messageId"], sent["messageId"]);
    assert_eq!(edited.body["position"], sent["position"]);
    assert_eq!(edited.body["timestamp"], sent["timestamp"]);
    assert!(edited.text("editedAt") >= edited.text("timestamp"));
    bob.at(2).put(&path, &json!({ "content": "mine" })).await.refused(403, "forbidden");
    eve.at(2).put(&path, &json!({ "content": "mine" })).await.refused(404, "not_found");
    alice.at(0).put(&path, &json!({ "content": "" })).await.invalid("/content");
    alice.at(0).put(&path, &json!({})).await.refused(400, "malformed");
    let again = alice.at(2).put(&path, &json!({ "content": "first!" })).await.expect(200);
    let read = alice.at(2).get(&format!("/conversations/{conversation}/messages")).await.expect(200);
    assert_eq!(read.list("messages")[0]["content"], "first!");
    assert_eq!(read.list("messages")[0]["editedAt"], again.body["editedAt"]);
    let group = alice.group(&[&bob]).await;
    alice.at(0).put(&format!("/conversations/{group}"), &json!({ "name": "n" })).await.expect(200);
    let page = alice.at(0).get(&format!("/conversations/{group}/messages")).await.expect(200);
    let note = id_of(&page.list("messages")[0]);
    alice.at(0).put(&format!("/messages/{note}"), &json!({ "content": "x" })).await.refused(403, "forbidden");
    alice.at(0).delete(&format!("/messages/{note}")).await.refused(403, "forbidden");
}

async fn deleted_for_everyone_is_gone(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let (one, two) = (bob.send(1, &group, "one").await, bob.send(1, &group, "two").await);
    let (one, two) = (id_of(&one), id_of(&two));
    carol.at(2).delete(&format!("/messages/{one}")).await.refused(403, "forbidden");
    carol.at(2).delete(&format!("/messages/{one}?scope=all")).await.refused(422, "invalid_value");
    let live = carol.socket(2).await;
    bob.at(1).put(&format!("/messages/{one}"), &json!({ "content": "one!" })).await.expect(200);
    bob.at(1).delete(&format!("/messages/{one}?scope=everyone")).await.expect(204);
    let told = live.event("message_deleted", |d| d["messageId"] == one).await;
    assert_eq!((&told["deletedBy"], &told["conversationId"]), (&json!(bob.id()), &json!(group)));
    assert_eq!(told["scope"], "everyone");
    alice.at(0).delete(&format!("/messages/{two}")).await.expect(204);
    live.event("message_deleted", |d| d["messageId"] == two && d["deletedBy"] == alice.id()).await;
    for (person, edge) in [(&alice, 0), (&bob, 1), (&carol, 2)] {
        let page = person.at(edge).get(&format!("/conversations/{group}/messages")).await.expect(200);
        for message in page.list("messages") {
            assert_eq!(message["content"], Value::Null);
            assert!(message["deletedAt"].is_string(), "{message}");
        }
    }
    for id in [&one, &two] {
        assert_eq!(stored_content(&scene, id).await, None);
    }
    bob.at(0).put(&format!("/messages/{one}"), &json!({ "content": "x" })).await.refused(410, "gone");
    let reaction = json!({ "reaction": "👍" });
    bob.at(0).post(&format!("/messages/{one}/reactions"), &reaction).await.refused(410, "gone");
    bob.at(2).delete(&format!("/messages/{one}")).await.expect(204);
    let direct = alice.direct(&bob).await;
    let mine = id_of(&alice.send(0, &direct, "x").await);
    bob.at(0).delete(&format!("/messages/{mine}")).await.refused(403, "forbidden");
}

async fn deleted_for_me_is_gone_for_me(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let kept = alice.send(0, &conversation, "kept").await;
    let hidden = id_of(&alice.send(0, &conversation, "hidden").await);
    let mine = [bob.socket(0).await, bob.socket(1).await];
    let theirs = alice.socket(2).await;
    bob.at(1).delete(&format!("/messages/{hidden}?scope=me")).await.expect(204);
    for session in &mine {
        let told = session.event("message_deleted", |d| d["messageId"] == hidden).await;
        assert_eq!(told["scope"], "me");
    }
    alice.send(0, &conversation, "a bell").await;
    theirs.message("a bell").await;
    assert!(theirs.all("message_deleted").is_empty(), "nobody else is told");
    assert_eq!(bob.at(1).texts(&conversation).await, ["kept", "a bell"]);
    assert_eq!(alice.at(2).texts(&conversation).await, ["kept", "hidden", "a bell"]);
    let after = kept["position"].as_u64().unwrap();
    let events =
        bob.at(1).get(&format!("/conversations/{conversation}/events?after={after}")).await.expect(200);
    assert!(!events.body.to_string().contains("\"hidden\""), "{}", events.body);
    let list = bob.at(1).get("/conversations").await.expect(200).list("conversations");
    assert_eq!(list[0]["lastMessage"]["content"], "a bell");
}

/// A place in the log that is no other event's.
async fn own_place(scene: &Scene, conversation: &str) -> Position {
    let shared = &scene.cluster.edges[0].member().shared;
    let id: ConversationId = conversation.parse().unwrap();
    let (Appended::New(position) | Appended::Duplicate(position)) =
        shared.log.append(tick(id.key().shard(), &shared.clock)).await.unwrap();
    position
}

/// A message in the store that was sent `hours` ago.
async fn old_message(scene: &Scene, sender: &Person, conversation: &str, hours: u64) -> String {
    let shared = &scene.cluster.edges[0].member().shared;
    let id: ConversationId = conversation.parse().unwrap();
    let position = own_place(scene, conversation).await;
    let now = shared.clock.now();
    let row = MessageRow {
        position,
        kind: ConversationType::Group,
        sender: sender.account,
        message_type: MessageType::Text,
        timestamp: Timestamp::from_millis(now.as_millis() - hours * 3_600_000),
        log_time: now,
        reply_to: None,
        client_message_id: Some(ClientMessageId::parse("old").unwrap()),
        keyed_by_client: true,
        expires_at: None,
        system: None,
        system_name: None,
    };
    let write = Write::Message { conversation: id.key(), row, content: None };
    shared.store.apply(&[write]).await.unwrap();
    scene.cluster.stored(conversation).await;
    id.key().event_id(position).to_string()
}

async fn the_window_closes_after_a_day(scene: Scene) {
    let [alice, bob] = scene.people();
    let group = alice.group(&[&bob]).await;
    let young = old_message(&scene, &bob, &group, 23).await;
    bob.at(1).put(&format!("/messages/{young}"), &json!({ "content": "in time" })).await.expect(200);
    bob.at(1).delete(&format!("/messages/{young}")).await.expect(204);
    let old = old_message(&scene, &bob, &group, 25).await;
    let path = format!("/messages/{old}");
    bob.at(1).put(&path, &json!({ "content": "late" })).await.refused(403, "edit_window_over");
    bob.at(1).delete(&path).await.refused(403, "edit_window_over");
    bob.at(1).delete(&format!("{path}?scope=me")).await.expect(204);
    alice.at(0).delete(&path).await.expect(204);
}

async fn reactions_come_and_go(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let id = id_of(&alice.send(0, &group, "x").await);
    let path = format!("/messages/{id}/reactions");
    let live = carol.socket(2).await;
    for reaction in ["👍", "👩‍👩‍👧‍👦", "🇩🇪", "❤️"] {
        let made = bob.at(1).post(&path, &json!({ "reaction": reaction })).await.expect(201);
        assert_eq!(made.body, json!({ "userId": bob.id(), "reaction": reaction }));
        let told = live.event("reaction_added", |d| d["reaction"] == reaction).await;
        assert_eq!((&told["messageId"], &told["userId"]), (&json!(id), &json!(bob.id())));
    }
    bob.at(1).post(&path, &json!({ "reaction": "👍" })).await.expect(200);
    alice.at(0).post(&path, &json!({ "reaction": "👍" })).await.expect(201);
    for bad in ["", "x", "👍👍", ":+1:", "1"] {
        bob.at(1).post(&path, &json!({ "reaction": bad })).await.invalid("/reaction");
    }
    bob.at(1).delete(&format!("{path}/🇩🇪")).await.expect(204);
    live.event("reaction_removed", |d| d["reaction"] == "🇩🇪" && d["userId"] == bob.id()).await;
    bob.at(1).delete(&format!("{path}/🇩🇪")).await.refused(404, "not_found");
    alice.at(1).delete(&format!("{path}/❤️")).await.refused(404, "not_found");
    let page = carol.at(2).get(&format!("/conversations/{group}/messages")).await.expect(200);
    let mut left: Vec<(String, String)> = page.list("messages")[0]["reactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["userId"].as_str().unwrap().to_owned(), r["reaction"].as_str().unwrap().to_owned()))
        .collect();
    left.sort();
    let mut expected = [
        (alice.id(), "👍".to_owned()),
        (bob.id(), "👍".to_owned()),
        (bob.id(), "👩‍👩‍👧‍👦".to_owned()),
        (bob.id(), "❤️".to_owned()),
    ];
    expected.sort();
    assert_eq!(left, expected);
    crate::support::order::check(&live);
}

async fn one_emoji_is_one_reaction(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let id = id_of(&alice.send(0, &conversation, "x").await);
    let path = format!("/messages/{id}/reactions");
    let reactions = async || {
        let page = bob.at(1).get(&format!("/conversations/{conversation}/messages")).await.expect(200);
        page.list("messages")[0]["reactions"].clone()
    };
    let (short, full) = ("\u{2764}", "\u{2764}\u{fe0f}");
    let stands = json!([{ "userId": bob.id(), "reaction": full }]);
    let made = bob.at(1).post(&path, &json!({ "reaction": short })).await.expect(201);
    assert_eq!(made.body, stands[0]);
    bob.at(1).post(&path, &json!({ "reaction": full })).await.expect(200);
    assert_eq!(reactions().await, stands);
    bob.at(1).delete(&format!("{path}/{short}")).await.expect(204);
    assert_eq!(reactions().await, json!([]));
    // Earlier ones stand as they came, and both are taken away at once.
    let target: MessageId = id.parse().unwrap();
    for spelling in [short, full] {
        let write = Write::Reaction {
            conversation: target.key(),
            target: target.position(),
            account: bob.account,
            reaction: Reaction::from_stored(spelling.to_owned()),
            at: own_place(&scene, &conversation).await,
            present: true,
            expires_at: None,
        };
        scene.cluster.edges[0].member().shared.store.apply(&[write]).await.unwrap();
    }
    assert_eq!(reactions().await.as_array().unwrap().len(), 2);
    bob.at(1).post(&path, &json!({ "reaction": full })).await.expect(200);
    bob.at(1).delete(&format!("{path}/{full}")).await.expect(204);
    assert_eq!(reactions().await, json!([]));
}

async fn sockets_change_the_same(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let (mine, theirs) = (alice.socket(0).await, bob.socket(1).await);
    let id = id_of(&mine.send(&conversation, "x").await);
    let edited = mine.ok("edit_message", json!({ "messageId": id, "content": "y" })).await;
    assert_eq!(edited["content"], "y");
    let told = theirs.event("message_edited", |d| d["content"] == "y").await;
    assert_eq!(told["messageId"], id);
    assert_eq!(told["editedAt"], edited["editedAt"]);
    theirs.ok("add_reaction", json!({ "messageId": id, "reaction": "👍" })).await;
    mine.event("reaction_added", |d| d["userId"] == bob.id()).await;
    theirs.ok("remove_reaction", json!({ "messageId": id, "reaction": "👍" })).await;
    mine.event("reaction_removed", |d| d["userId"] == bob.id()).await;
    assert_eq!(
        theirs.refused("remove_reaction", json!({ "messageId": id, "reaction": "👍" })).await,
        "not_found"
    );
    assert_eq!(theirs.refused("edit_message", json!({ "messageId": id, "content": "z" })).await, "forbidden");
    assert_eq!(theirs.refused("delete_message", json!({ "messageId": id })).await, "forbidden");
    mine.ok("delete_message", json!({ "messageId": id, "scope": "everyone" })).await;
    theirs.event("message_deleted", |d| d["messageId"] == id).await;
    assert_eq!(mine.refused("edit_message", json!({ "messageId": id, "content": "z" })).await, "gone");
    assert_eq!(mine.refused("no_such_command", json!({})).await, "unknown_event");
    for session in [&mine, &theirs] {
        crate::support::order::check(session);
    }
}
