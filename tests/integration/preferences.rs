//! Settings and blocks; own accounts and people.

use crate::support::person::{Answer, Person, Scene};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

on_both!(
    settings_are_kept,
    a_block_and_a_refusal_look_the_same,
    blocks_are_listed,
    accounts_sign_up_and_log_in,
    people_are_found,
);

async fn settings_are_kept(scene: Scene) {
    let alice = scene.person();
    let usual = alice.at(0).get("/settings").await.expect(200);
    assert_eq!(
        usual.body,
        json!({ "messagesFrom": "everyone", "readReceipts": true, "presence": "everyone" })
    );
    let mine = json!({ "messagesFrom": "followers", "readReceipts": false, "presence": "nobody" });
    assert_eq!(alice.at(1).put("/settings", &mine).await.expect(200).body, mine);
    assert_eq!(alice.at(1).get("/settings").await.expect(200).body, mine);
    let wrong = json!({ "messagesFrom": "friends", "readReceipts": false, "presence": "nobody" });
    alice.at(1).put("/settings", &wrong).await.invalid("/messagesFrom");
}

/// Another edge goes by what was set once it is told, long before it would ask by itself.
async fn settled(answer: impl AsyncFn() -> Answer, status: u16) -> Answer {
    let waiting = async {
        loop {
            let answer = answer().await;
            if answer.status == status {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("edges learn of it")
}

async fn a_block_and_a_refusal_look_the_same(scene: Scene) {
    let [alice, bob, carol, dave, eve] = scene.people();
    let conversations = [alice.direct(&bob).await, alice.direct(&carol).await];
    let message = alice.send(0, &conversations[0], "before").await;
    let id = uuid::Uuid::now_v7().to_string();
    let keyed = json!({ "content": "unanswered", "messageType": "text", "clientMessageId": id });
    let path = format!("/conversations/{}/messages", conversations[0]);
    let unanswered = alice.at(0).post(&path, &keyed).await.expect(201);
    bob.at(1).put(&format!("/blocks/{}", alice.id()), &Value::Null).await.expect(201);
    for person in [&carol, &dave] {
        let closed = json!({ "messagesFrom": "nobody", "readReceipts": true, "presence": "everyone" });
        person.at(1).put("/settings", &closed).await.expect(200);
    }
    eve.at(1).put(&format!("/blocks/{}", alice.id()), &Value::Null).await.expect(201);
    let text = json!({ "content": "x", "messageType": "text" });
    let mut refusals = Vec::new();
    for conversation in &conversations {
        let path = format!("/conversations/{conversation}/messages");
        refusals.push(settled(async || alice.at(0).post(&path, &text).await, 403).await);
    }
    let again = alice.at(0).post(&path, &keyed).await.expect(200);
    assert_eq!(again.body["messageId"], unanswered.body["messageId"], "it was sent before the block");
    for person in [&dave, &eve] {
        let body = json!({ "participantId": person.id() });
        refusals.push(settled(async || alice.at(0).post("/conversations/direct", &body).await, 403).await);
        let body = json!({ "name": "x", "participantIds": [person.id()] });
        refusals.push(alice.at(0).post("/conversations/group", &body).await);
    }
    scene.cluster.stored(&conversations[0]).await;
    let stood = bob.at(2).texts(&conversations[0]).await;
    let group = alice.group(&[]).await;
    let body = json!({ "participantIds": [eve.id()] });
    refusals.push(alice.at(0).post(&format!("/conversations/{group}/participants"), &body).await);
    let id = message["messageId"].as_str().unwrap();
    refusals.push(alice.at(0).put(&format!("/messages/{id}"), &json!({ "content": "y" })).await);
    refusals.push(alice.at(0).post(&format!("/messages/{id}/reactions"), &json!({ "reaction": "👍" })).await);
    for refusal in &refusals {
        assert_eq!(refusal.body["code"], "recipient_unavailable", "{refusal:?}");
        assert_eq!(refusal.body, refusals[0].body, "nobody is told why");
    }
    let socket = alice.socket(0).await;
    let data = json!({ "conversationId": conversations[0], "content": "x", "messageType": "text" });
    assert_eq!(socket.refused("send_message", data).await, "recipient_unavailable");
    for conversation in &conversations {
        scene.cluster.stored(conversation).await;
    }
    assert_eq!(bob.at(2).texts(&conversations[0]).await, stood, "nothing more came through");
    // What stands can still be read and opened, and taken back.
    alice.at(0).get(&format!("/conversations/{}/messages", conversations[0])).await.expect(200);
    alice.at(0).delete(&format!("/messages/{id}")).await.expect(204);
    bob.at(1).delete(&format!("/blocks/{}", alice.id())).await.expect(204);
    let path = format!("/conversations/{}/messages", conversations[0]);
    settled(async || alice.at(0).post(&path, &text).await, 201).await;
}

async fn blocks_are_listed(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let path = |person: &Person| format!("/blocks/{}", person.id());
    alice.at(0).get(&path(&bob)).await.refused(404, "not_found");
    alice.at(0).delete(&path(&bob)).await.refused(404, "not_found");
    for person in [&bob, &carol] {
        let made = alice.at(0).put(&path(person), &Value::Null).await.expect(201);
        assert_eq!(made.text("userId"), person.id());
        alice.at(1).put(&path(person), &Value::Null).await.expect(200);
        alice.at(2).get(&path(person)).await.expect(200);
    }
    let list = alice.at(1).get("/blocks").await.expect(200);
    assert_eq!((list.list("blocks").len(), &list.body["nextCursor"]), (2, &Value::Null));
    assert_eq!(bob.at(1).get("/blocks").await.expect(200).list("blocks").len(), 0);
    alice.at(2).delete(&path(&bob)).await.expect(204);
    alice.at(0).get(&path(&bob)).await.refused(404, "not_found");
    alice.at(0).put(&path(&alice), &Value::Null).await.refused(422, "invalid_value");
    alice.at(0).put("/blocks/bob", &Value::Null).await.refused(422, "invalid_value");
}

fn fresh_name(stem: &str) -> String {
    format!("{stem}{}", &uuid::Uuid::new_v4().simple().to_string()[..10])
}

async fn accounts_sign_up_and_log_in(scene: Scene) {
    let nobody = |edge: usize| scene.nobody(&scene.urls[edge]);
    let (username, password) = (fresh_name("alice-"), "correct horse battery");
    let body = json!({ "username": username, "password": password, "displayName": "Alice A." });
    let made = nobody(0).post("/api/auth/signup", &body).await.expect(201);
    nobody(1).post("/api/auth/signup", &body).await.refused(409, "username_taken");
    let again = nobody(2).post("/api/auth/login", &body).await.expect(200);
    assert_eq!(again.text("userId"), made.text("userId"));
    assert!(again.text("expiresAt").parse::<reedi_protocol::Timestamp>().is_ok());
    let mine = nobody(1).request(Method::GET, "/settings").bearer_auth(again.text("token"));
    Answer::of(mine).await.expect(200);
    for (username, password) in [(&*username, "wrong horse battery"), ("nobody-of-this-name", password)] {
        let body = json!({ "username": username, "password": password });
        nobody(0).post("/api/auth/login", &body).await.refused(401, "wrong_credentials");
    }
    for (username, password, pointer) in [
        ("al", password, "/username"),
        ("-alice", password, "/username"),
        ("Al ice", password, "/username"),
        ("alice.ok", "short", "/password"),
    ] {
        let body = json!({ "username": username, "password": password });
        nobody(0).post("/api/auth/signup", &body).await.invalid(pointer);
    }
    // Two at once: one of them has it.
    let body = json!({ "username": fresh_name("both-"), "password": password });
    let (one, two) = (nobody(0), nobody(1));
    let (a, b) = tokio::join!(one.post("/api/auth/signup", &body), two.post("/api/auth/signup", &body));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

async fn people_are_found(scene: Scene) {
    let stem = fresh_name("p");
    let mut ids = Vec::new();
    for n in 0..3 {
        let body =
            json!({ "username": format!("{stem}.{n}"), "password": "correct horse", "displayName": "Pat" });
        ids.push(
            scene.nobody(&scene.urls[n]).post("/api/auth/signup", &body).await.expect(201).text("userId"),
        );
    }
    let asking = scene.person();
    let found = asking.at(1).get(&format!("/api/users?query={}", stem.to_uppercase())).await.expect(200);
    let found: Vec<Value> = found.list("users");
    assert_eq!(found.iter().map(|u| u["userId"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    let shown = asking.at(2).get(&format!("/api/users/{}", ids[1])).await.expect(200);
    assert_eq!(
        shown.body,
        json!({ "userId": ids[1], "username": format!("{stem}.1"), "displayName": "Pat" })
    );
    asking.at(0).get(&format!("/api/users/{}", asking.id())).await.refused(404, "not_found");
    asking.at(0).get("/api/users/x").await.refused(422, "invalid_value");
    scene.nobody(&scene.urls[0]).get("/api/users?query=p").await.refused(401, "unauthenticated");
}
