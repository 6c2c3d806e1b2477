//! Sending: shapes, bounds, and exactly once.

use crate::support::person::{Answer, Person, Scene, now_ms};
use reqwest::Method;
use serde_json::{Value, json};

on_both!(
    a_message_has_its_shape,
    content_comes_back_byte_for_byte,
    values_out_of_bounds_are_pointed_at,
    replies_stay_within_the_conversation,
    a_repeat_is_the_same_message,
    a_repeat_shows_when_the_message_was_to_end,
    a_repeat_shows_what_became_of_the_message,
    who_has_left_hears_of_what_was_sent_before,
    any_key_works,
    a_key_out_of_its_time_is_refused,
    a_socket_sends_the_same,
);

fn path(conversation: &str) -> String {
    format!("/conversations/{conversation}/messages")
}

fn text(content: &str) -> Value {
    json!({ "content": content, "messageType": "text" })
}

async fn pair(scene: &Scene) -> (Person, Person, String) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    (alice, bob, conversation)
}

async fn a_message_has_its_shape(scene: Scene) {
    let (alice, bob, conversation) = pair(&scene).await;
    let sent = alice.at(0).post(&path(&conversation), &text("hello")).await.expect(201);
    assert_eq!(sent.text("conversationId"), conversation);
    assert_eq!(sent.text("senderId"), alice.id());
    assert_eq!(sent.text("content"), "hello");
    assert_eq!(sent.text("messageType"), "text");
    assert!(sent.body["position"].is_u64());
    assert_eq!(sent.body["reactions"], json!([]));
    assert_eq!(sent.text("timestamp").len(), "2026-01-01T00:00:00.000Z".len());
    assert!(uuid::Uuid::parse_str(&sent.text("clientMessageId")).is_ok(), "made by the server, told back");
    for absent in ["editedAt", "deletedAt", "expiresAt", "replyToId", "mediaId", "system"] {
        assert!(sent.body.get(absent).is_none(), "{absent}");
    }
    scene.cluster.stored(&conversation).await;
    let page = bob.at(1).get(&path(&conversation)).await.expect(200);
    let read = &page.list("messages")[0];
    for field in
        ["messageId", "conversationId", "senderId", "content", "messageType", "timestamp", "position"]
    {
        assert_eq!(read[field], sent.body[field], "{field}");
    }
    assert!(read.get("clientMessageId").is_none(), "that is its sender's: {read}");
    for kind in ["image", "video", "audio", "file"] {
        let body = json!({ "content": "x", "messageType": kind });
        assert_eq!(alice.at(2).post(&path(&conversation), &body).await.expect(201).text("messageType"), kind);
    }
}

async fn content_comes_back_byte_for_byte(scene: Scene) {
    let (alice, bob, conversation) = pair(&scene).await;
    let largest = "é".repeat(32_768);
    for content in
        ["\u{0}a\u{0}", "\r\n\t ", "e\u{301} 👩‍👩‍👧‍👦 \u{202e}\u{feff}\u{10ffff}", r#""\u0041\"#, &largest]
    {
        let sent = alice.at(0).post(&path(&conversation), &text(content)).await.expect(201);
        assert_eq!(sent.text("content"), *content);
        scene.cluster.stored(&conversation).await;
        let page = bob.at(2).get(&format!("{}?limit=1", path(&conversation))).await.expect(200);
        assert_eq!(page.list("messages")[0]["content"], *content);
    }
}

async fn values_out_of_bounds_are_pointed_at(scene: Scene) {
    let (alice, _, conversation) = pair(&scene).await;
    let (path, caller) = (path(&conversation), alice.at(0));
    caller.post(&path, &text("")).await.invalid("/content");
    caller.post(&path, &text(&"x".repeat(65_537))).await.invalid("/content");
    caller.post(&path, &json!({ "content": "x", "messageType": "system" })).await.invalid("/messageType");
    caller.post(&path, &json!({ "content": "x", "messageType": "poem" })).await.invalid("/messageType");
    let body = json!({ "content": "x", "messageType": "text", "clientMessageId": "" });
    caller.post(&path, &body).await.invalid("/clientMessageId");
    let body = json!({ "content": "x", "messageType": "text", "clientMessageId": "k".repeat(256) });
    caller.post(&path, &body).await.invalid("/clientMessageId");
    assert!(caller.texts(&conversation).await.is_empty());
}

async fn replies_stay_within_the_conversation(scene: Scene) {
    let (alice, bob, conversation) = pair(&scene).await;
    let first = alice.send(0, &conversation, "a question").await;
    let reply = |id: &str| json!({ "content": "an answer", "messageType": "text", "replyToId": id });
    let id = first["messageId"].as_str().unwrap();
    let sent = bob.at(1).post(&path(&conversation), &reply(id)).await.expect(201);
    assert_eq!(sent.text("replyToId"), id);
    scene.cluster.stored(&conversation).await;
    let read = alice.at(2).get(&path(&conversation)).await.expect(200);
    assert_eq!(read.list("messages")[0]["replyToId"], id);
    let [carol] = scene.people();
    let elsewhere = alice.direct(&carol).await;
    let other = alice.send(0, &elsewhere, "x").await;
    for outside in [other["messageId"].as_str().unwrap(), &uuid::Uuid::new_v4().to_string(), "x"] {
        bob.at(0).post(&path(&conversation), &reply(outside)).await.invalid("/replyToId");
    }
}

async fn a_repeat_is_the_same_message(scene: Scene) {
    let (alice, bob, conversation) = pair(&scene).await;
    let key = uuid::Uuid::now_v7().to_string();
    let body = json!({ "content": "once", "messageType": "text", "clientMessageId": key });
    let first = alice.at(0).post(&path(&conversation), &body).await.expect(201);
    assert_eq!(first.text("clientMessageId"), key);
    for edge in 0..3 {
        let again = alice.at(edge).post(&path(&conversation), &body).await.expect(200);
        assert_eq!(again.body, first.body);
    }
    let other = json!({ "content": "other", "messageType": "text", "clientMessageId": key });
    alice.at(1).post(&path(&conversation), &other).await.refused(409, "idempotency_key_reused");
    // A key is its sender's and its conversation's.
    bob.at(1).post(&path(&conversation), &other).await.expect(201);
    let [carol] = scene.people();
    let elsewhere = alice.direct(&carol).await;
    alice.at(2).post(&path(&elsewhere), &other).await.expect(201);
    scene.cluster.stored(&conversation).await;
    assert_eq!(alice.at(2).texts(&conversation).await, ["once", "other"]);
    // What was deleted or edited meanwhile is still the same request.
    let id = first.text("messageId");
    alice.at(0).put(&format!("/messages/{id}"), &json!({ "content": "edited" })).await.expect(200);
    let again = alice.at(1).post(&path(&conversation), &body).await.expect(200);
    assert_eq!(again.text("messageId"), id);
}

async fn a_repeat_shows_when_the_message_was_to_end(scene: Scene) {
    let (alice, _, conversation) = pair(&scene).await;
    let settings = format!("/conversations/{conversation}");
    alice.at(0).put(&settings, &json!({ "expiresAfter": 3_600 })).await.expect(200);
    let key = uuid::Uuid::now_v7().to_string();
    let body = json!({ "content": "an hour", "messageType": "text", "clientMessageId": key });
    let first = alice.at(0).post(&path(&conversation), &body).await.expect(201);
    assert!(first.body["expiresAt"].is_string());
    alice.at(0).put(&settings, &json!({ "expiresAfter": null })).await.expect(200);
    let again = alice.at(0).post(&path(&conversation), &body).await.expect(200);
    assert_eq!(again.body, first.body);
}

async fn a_repeat_shows_what_became_of_the_message(scene: Scene) {
    let [alice, bob] = scene.people();
    let group = alice.group(&[&bob]).await;
    let key = uuid::Uuid::now_v7().to_string();
    let body = json!({ "content": "frist", "messageType": "text", "clientMessageId": key });
    let first = bob.at(0).post(&path(&group), &body).await.expect(201);
    let message = format!("/messages/{}", first.text("messageId"));
    let edited = bob.at(1).put(&message, &json!({ "content": "first" })).await.expect(200);
    let reaction = json!({ "reaction": "👍" });
    alice.at(2).post(&format!("{message}/reactions"), &reaction).await.expect(201);
    // Hidden from oneself it is still what was sent.
    bob.at(1).delete(&format!("{message}?scope=me")).await.expect(204);
    scene.cluster.stored(&group).await;
    let again = bob.at(0).post(&path(&group), &body).await.expect(200);
    let mut expected = edited.body;
    expected["reactions"] = json!([{ "userId": alice.id(), "reaction": "👍" }]);
    assert_eq!(again.body, expected);
    assert_eq!((again.text("content"), again.text("clientMessageId")), ("first".to_owned(), key));
    // Deleted for everyone; another edge says the same.
    alice.at(1).delete(&message).await.expect(204);
    scene.cluster.stored(&group).await;
    let again = bob.at(2).post(&path(&group), &body).await.expect(200);
    assert_eq!(again.body["content"], Value::Null);
    assert!(again.body["deletedAt"].is_string(), "{:?}", again.body);
    // Who has left is told nothing of what came after.
    bob.at(1).delete(&format!("/conversations/{group}/participants/me")).await.expect(204);
    let again = bob.at(1).post(&path(&group), &body).await.expect(200);
    assert_eq!(again.body, first.body);
}

/// Nothing else is told: a new message is refused as everywhere that one cannot see.
async fn who_has_left_hears_of_what_was_sent_before(scene: Scene) {
    let [alice, bob, eve] = scene.people();
    let group = alice.group(&[&bob]).await;
    let key = uuid::Uuid::now_v7().to_string();
    let body = json!({ "content": "last words", "messageType": "text", "clientMessageId": key });
    let first = bob.at(1).post(&path(&group), &body).await.expect(201);
    bob.at(1).delete(&format!("/conversations/{group}/participants/me")).await.expect(204);
    let again = bob.at(1).post(&path(&group), &body).await.expect(200);
    assert_eq!(again.body, first.body);
    bob.at(1).post(&path(&group), &text("more")).await.refused(404, "not_found");
    let other = json!({ "content": "more", "messageType": "text", "clientMessageId": uuid::Uuid::now_v7() });
    bob.at(1).post(&path(&group), &other).await.refused(404, "not_found");
    eve.at(2).post(&path(&group), &body).await.refused(404, "not_found");
}

async fn any_key_works(scene: Scene) {
    let (alice, _, conversation) = pair(&scene).await;
    for key in ["order 66", "é", &uuid::Uuid::new_v4().to_string()] {
        let body = json!({ "content": key, "messageType": "text", "clientMessageId": key });
        let first = alice.at(0).post(&path(&conversation), &body).await.expect(201);
        let again = alice.at(1).post(&path(&conversation), &body).await.expect(200);
        assert_eq!(again.text("messageId"), first.text("messageId"));
    }
    let with_header = |key: &str, content: &str| {
        let request = alice.at(0).request(Method::POST, &path(&conversation));
        Answer::of(request.header("idempotency-key", key).json(&text(content)))
    };
    let first = with_header("a header", "by header").await.expect(201);
    assert_eq!(with_header("a header", "by header").await.expect(200).body, first.body);
    with_header("a header", "another").await.refused(409, "idempotency_key_reused");
    with_header("é", "x").await.invalid("Idempotency-Key");
    // Of a key that came beside the message nothing says that its time is the message's.
    let old = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    let first = with_header(old, "by an old header").await.expect(201);
    assert_eq!(with_header(old, "by an old header").await.expect(200).body, first.body);
    scene.cluster.stored(&conversation).await;
    assert_eq!(alice.at(2).texts(&conversation).await.len(), 5);
}

async fn a_key_out_of_its_time_is_refused(scene: Scene) {
    let (alice, _, conversation) = pair(&scene).await;
    let minted = |ms: u64| {
        let at = uuid::Timestamp::from_unix(uuid::NoContext, ms / 1_000, (ms % 1_000 * 1_000_000) as u32);
        uuid::Uuid::new_v7(at).to_string()
    };
    let hours_48 = 48 * 3_600 * 1_000;
    for out in [now_ms() + 60_000, now_ms() - hours_48 - 60_000] {
        let body = json!({ "content": "x", "messageType": "text", "clientMessageId": minted(out) });
        let refused =
            alice.at(0).post(&path(&conversation), &body).await.refused(422, "client_message_id_time");
        let told: reedi_protocol::Timestamp = refused.text("serverTime").parse().unwrap();
        assert!(told.as_millis().abs_diff(now_ms()) < 10_000);
        assert_eq!(refused.body["errors"][0]["pointer"], "/clientMessageId");
        let socket = alice.socket(1).await;
        let mut data = body.clone();
        data["conversationId"] = conversation.clone().into();
        let answer = socket.command("send_message", data.clone()).await;
        assert_eq!(answer["error"]["code"], "client_message_id_time");
        assert!(answer["error"]["serverTime"].is_string(), "{answer}");
        assert_eq!(answer["error"]["pointer"], "/clientMessageId");
        // The same where no answer is waited for, which also says what it is about.
        socket.raw(&json!({ "event": "send_message", "data": data }).to_string()).await;
        let told = socket.event("error", |told| told["code"] == "client_message_id_time").await;
        assert_eq!(told["command"], "send_message");
        assert!(told["serverTime"].is_string(), "{told}");
    }
    for within in [now_ms() - 40_000, now_ms() - hours_48 + 60_000] {
        let body = json!({ "content": "late", "messageType": "text", "clientMessageId": minted(within) });
        let first = alice.at(0).post(&path(&conversation), &body).await.expect(201);
        let again = alice.at(2).post(&path(&conversation), &body).await.expect(200);
        assert_eq!(again.text("messageId"), first.text("messageId"));
    }
    scene.cluster.stored(&conversation).await;
    assert_eq!(alice.at(1).texts(&conversation).await, ["late", "late"]);
}

async fn a_socket_sends_the_same(scene: Scene) {
    let (alice, bob, conversation) = pair(&scene).await;
    let socket = alice.socket(0).await;
    let key = uuid::Uuid::now_v7().to_string();
    let data = json!({ "conversationId": conversation, "content": "by socket", "messageType": "text", "clientMessageId": key });
    let first = socket.ok("send_message", data.clone()).await;
    for field in ["messageId", "timestamp", "position", "clientMessageId"] {
        assert!(!first[field].is_null(), "{field}");
    }
    assert!(first.get("duplicate").is_none());
    let again = socket.ok("send_message", data.clone()).await;
    assert_eq!((&again["messageId"], &again["duplicate"]), (&first["messageId"], &json!(true)));
    let by_rest = json!({ "content": "by socket", "messageType": "text", "clientMessageId": key });
    let again = alice.at(2).post(&path(&conversation), &by_rest).await.expect(200);
    assert_eq!(again.body["messageId"], first["messageId"]);
    let mut other = data;
    other["content"] = "other".into();
    assert_eq!(socket.refused("send_message", other).await, "idempotency_key_reused");
    let empty = json!({ "conversationId": conversation, "content": "", "messageType": "text" });
    let answer = socket.command("send_message", empty.clone()).await;
    socket.raw(&json!({ "event": "send_message", "data": empty }).to_string()).await;
    let told = socket.event("error", |_| true).await;
    for error in [&answer["error"], &told] {
        assert_eq!((&error["code"], &error["pointer"]), (&json!("invalid_value"), &json!("/content")));
    }
    scene.cluster.stored(&conversation).await;
    assert_eq!(bob.at(1).texts(&conversation).await, ["by socket"]);
}
