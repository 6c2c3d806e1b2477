//! `/conversations`: making, reading, listing and changing them.

use crate::support::person::{Answer, Scene};
use reqwest::Method;
use serde_json::{Value, json};

on_both!(
    a_pair_has_one_direct_conversation,
    groups_are_made_and_read,
    what_is_not_mine_is_not_there,
    bad_requests_say_what_is_wrong,
    settings_change_for_all,
    the_list_is_by_latest_activity,
    unread_is_exact_to_99,
    what_one_has_hidden_is_neither_last_nor_unread,
    mute_is_for_oneself,
    wrong_methods_and_paths,
);

async fn a_pair_has_one_direct_conversation(scene: Scene) {
    let [alice, bob] = scene.people();
    let made =
        alice.at(0).post("/conversations/direct", &json!({ "participantId": bob.id() })).await.expect(201);
    assert_eq!(made.body["type"], "direct");
    assert_eq!(made.body["myRole"], "member");
    for field in ["name", "avatarUrl", "expiresAfter"] {
        assert_eq!(made.body[field], Value::Null, "{field}");
    }
    let id = made.text("conversationId");
    let members: Vec<&str> =
        made.body["participants"].as_array().unwrap().iter().map(|p| p["userId"].as_str().unwrap()).collect();
    assert_eq!(members.len(), 2);
    assert!(members.contains(&&*alice.id()) && members.contains(&&*bob.id()));
    for (person, peer, edge) in [(&alice, &bob, 1), (&bob, &alice, 2), (&bob, &alice, 0)] {
        let again =
            person.at(edge).post("/conversations/direct", &json!({ "participantId": peer.id() })).await;
        assert_eq!(again.expect(200).text("conversationId"), id);
    }
    // At once, on different edges: one is made.
    let [carol, dave] = scene.people();
    let (to_carol, to_dave) = (json!({ "participantId": carol.id() }), json!({ "participantId": dave.id() }));
    let (one, two) = (carol.at(0), dave.at(1));
    let (a, b) = tokio::join!(
        one.post("/conversations/direct", &to_dave),
        two.post("/conversations/direct", &to_carol)
    );
    assert_eq!(a.text("conversationId"), b.text("conversationId"));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    alice
        .at(0)
        .post("/conversations/direct", &json!({ "participantId": alice.id() }))
        .await
        .invalid("/participantId");
    alice
        .at(0)
        .post("/conversations/direct", &json!({ "participantId": "bob" }))
        .await
        .invalid("/participantId");
}

async fn groups_are_made_and_read(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let body = json!({
        "name": "  Friends ",
        "participantIds": [bob.id(), carol.id(), bob.id(), alice.id()],
        "avatarUrl": "https://example.org/a.png",
        "unknown": 1,
    });
    let made = alice.at(0).post("/conversations/group", &body).await.expect(201);
    assert_eq!(made.body["type"], "group");
    assert_eq!(made.body["name"], "Friends");
    assert_eq!(made.body["avatarUrl"], "https://example.org/a.png");
    assert_eq!(made.body["myRole"], "admin");
    assert_eq!(made.list("participants").len(), 3);
    let role = |answer: &Answer, of: &str| {
        answer.list("participants").iter().find(|p| p["userId"] == of).map(|p| p["role"].clone())
    };
    let path = format!("/conversations/{}", made.text("conversationId"));
    for (person, edge, mine) in [(&alice, 1, "admin"), (&bob, 2, "member")] {
        let read = person.at(edge).get(&path).await.expect(200);
        assert_eq!(read.body["myRole"], mine);
        assert_eq!(role(&read, &alice.id()), Some("admin".into()));
        assert_eq!(role(&read, &carol.id()), Some("member".into()));
        assert_eq!(read.body["createdAt"], made.body["createdAt"]);
        assert!(read.body.get("lastMessage").is_none(), "that is for lists: {:?}", read.body);
    }
    let long = "x".repeat(256);
    let group = |name: &str| json!({ "name": name, "participantIds": [bob.id()] });
    for name in ["", "   ", "a\u{0}b", &long] {
        alice.at(0).post("/conversations/group", &group(name)).await.invalid("/name");
    }
    alice.at(0).post("/conversations/group", &group(&long[1..])).await.expect(201);
    let body = json!({ "name": "x", "participantIds": [], "avatarUrl": "javascript:alert(1)" });
    alice.at(0).post("/conversations/group", &body).await.invalid("/avatarUrl");
    let body = json!({ "name": "x", "participantIds": [bob.id(), "nobody"] });
    alice.at(0).post("/conversations/group", &body).await.invalid("/participantIds/1");
}

async fn what_is_not_mine_is_not_there(scene: Scene) {
    let [alice, bob, eve] = scene.people();
    let mine = alice.direct(&bob).await;
    let message = alice.send(0, &mine, "hello").await;
    let message = message["messageId"].as_str().unwrap();
    // Made up in the same way: a UUIDv8 of ours, and any other UUID.
    let [carol, dave] = scene.people();
    let other = carol.direct(&dave).await;
    let nothing = format!("{}{}", &mine[..4], &other[4..]);
    let any = uuid::Uuid::new_v4().to_string();
    let mut bodies = Vec::new();
    for conversation in [&mine, &nothing, &any] {
        for (method, path, body) in [
            (Method::GET, String::new(), Value::Null),
            (Method::PUT, String::new(), json!({ "name": "x" })),
            (Method::GET, "/messages".into(), Value::Null),
            (Method::GET, "/events?after=0".into(), Value::Null),
            (Method::POST, "/messages".into(), json!({ "content": "x", "messageType": "text" })),
            (Method::POST, "/participants".into(), json!({ "participantIds": [eve.id()] })),
            (Method::DELETE, format!("/participants/{}", alice.id()), Value::Null),
            (Method::PUT, format!("/participants/{}", alice.id()), json!({ "role": "admin" })),
            (Method::DELETE, "/participants/me".into(), Value::Null),
        ] {
            let request = eve.at(1).request(method, &format!("/conversations/{conversation}{path}"));
            let request = if body.is_null() { request } else { request.json(&body) };
            bodies.push(Answer::of(request).await.refused(404, "not_found").body);
        }
    }
    let mut unknown = message.to_owned();
    unknown.replace_range(34.., if message.ends_with("01") { "02" } else { "01" });
    for id in [message, &*unknown, &*any] {
        bodies.push(eve.at(2).put(&format!("/messages/{id}"), &json!({ "content": "x" })).await.body);
        for scope in ["everyone", "me"] {
            bodies.push(eve.at(2).delete(&format!("/messages/{id}?scope={scope}")).await.body);
        }
        bodies.push(eve.at(2).get(&format!("/messages/{id}/receipts")).await.body);
        let reaction = json!({ "reaction": "👍" });
        bodies.push(eve.at(2).post(&format!("/messages/{id}/reactions"), &reaction).await.body);
        bodies.push(eve.at(2).delete(&format!("/messages/{id}/reactions/👍")).await.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "no answer tells more than another: {bodies:#?}");
    let socket = eve.socket(0).await;
    for event in ["join_conversation", "typing_start", "typing_stop"] {
        assert_eq!(socket.refused(event, json!({ "conversationId": mine })).await, "not_found", "{event}");
    }
    assert_eq!(socket.refused("mark_read", json!({ "messageId": message })).await, "not_found");
    assert_eq!(socket.refused("mark_delivered", json!({ "messageId": message })).await, "not_found");
    assert_eq!(alice.at(0).texts(&mine).await, ["hello"]);
}

async fn bad_requests_say_what_is_wrong(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let path = format!("/conversations/{conversation}/messages");
    let post = |body: &'static str, kind: &'static str| {
        let request = alice.at(0).request(Method::POST, &path).header("content-type", kind).body(body);
        Answer::of(request)
    };
    let json_type = "application/json";
    post("{", json_type).await.refused(400, "malformed");
    post("[]", json_type).await.refused(400, "malformed");
    let wrong = post(r#"{"content":7,"messageType":"text"}"#, json_type).await.refused(400, "malformed");
    assert_eq!(wrong.body["errors"][0]["pointer"], "/content");
    post(r#"{"content":"\ud800","messageType":"text"}"#, json_type).await.refused(400, "not_unicode");
    post(r#"{"content":"x","messageType":"text"} x"#, json_type).await.refused(400, "malformed");
    post("content=x", "application/x-www-form-urlencoded").await.refused(415, "unsupported_media_type");
    let deep = alice.at(0).request(Method::POST, &path).header("content-type", json_type);
    Answer::of(deep.body("[".repeat(100_000))).await.refused(400, "malformed");
    let large = alice.at(0).request(Method::POST, &path).header("content-type", json_type);
    Answer::of(large.body(" ".repeat(256 * 1_024 + 1))).await.refused(413, "too_large");
    let nobody = scene.nobody(&scene.urls[0]);
    let refused = nobody.get("/conversations").await.refused(401, "unauthenticated");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    alice.at(0).get("/conversations?limit=0").await.invalid("?limit");
    alice.at(0).get("/conversations?limit=101").await.invalid("?limit");
    alice.at(0).get("/conversations?cursor=x").await.invalid("?cursor");
    alice.at(0).get("/conversations/7").await.refused(422, "invalid_value");
}

async fn settings_change_for_all(scene: Scene) {
    let [alice, bob] = scene.people();
    let group = alice.group(&[&bob]).await;
    let path = format!("/conversations/{group}");
    let listening = bob.socket(1).await;
    let change =
        json!({ "name": "New name", "avatarUrl": "https://example.org/b.png", "expiresAfter": 3_600 });
    let changed = alice.at(2).put(&path, &change).await.expect(200);
    for (field, value) in change.as_object().unwrap() {
        assert_eq!(changed.body[field], *value);
    }
    let told = listening.event("conversation_updated", |_| true).await;
    assert_eq!((&told["name"], &told["by"]), (&json!("New name"), &json!(alice.id())));
    let note = listening.event("new_message", |m| m["messageType"] == "system").await;
    assert_eq!(note["system"]["kind"], "name_changed");
    assert_eq!(note["system"]["name"], "New name");
    assert_eq!(note["content"], Value::Null);
    assert_eq!(bob.at(0).get(&path).await.expect(200).body["name"], "New name");
    let back = alice.at(0).put(&path, &json!({ "avatarUrl": null, "expiresAfter": null })).await.expect(200);
    assert_eq!(back.body["avatarUrl"], Value::Null);
    assert_eq!(back.body["expiresAfter"], Value::Null);
    assert_eq!(back.body["name"], "New name");
    bob.at(0).put(&path, &json!({ "name": "Mine" })).await.refused(403, "forbidden");
    for seconds in [0, 3_599, 31_536_001_u64] {
        alice.at(0).put(&path, &json!({ "expiresAfter": seconds })).await.invalid("/expiresAfter");
    }
    alice.at(0).put(&path, &json!({ "mutedUntil": "soon" })).await.invalid("/mutedUntil");
    // In UTC this is beyond the years that times are written with.
    let beyond = json!({ "mutedUntil": "9999-12-31T23:59:59-01:00" });
    alice.at(0).put(&path, &beyond).await.expect(200);
    alice.at(0).put(&path, &json!({ "mutedUntil": null })).await.expect(200);
    let direct = alice.direct(&bob).await;
    let path = format!("/conversations/{direct}");
    alice.at(0).put(&path, &json!({ "name": "x" })).await.refused(409, "not_a_group");
    bob.at(1).put(&path, &json!({ "expiresAfter": 86_400 })).await.expect(200);
    let sent = alice.send(1, &direct, "gone tomorrow").await;
    let at =
        |field: &str| sent[field].as_str().unwrap().parse::<reedi_protocol::Timestamp>().unwrap().as_millis();
    assert_eq!(at("expiresAt") - at("timestamp"), 86_400_000);
    let told = listening.message("gone tomorrow").await;
    assert_eq!(told["expiresAt"], sent["expiresAt"]);
    let page = bob.at(2).get(&format!("{path}/messages")).await.expect(200).list("messages");
    assert_eq!(page[0]["expiresAt"], sent["expiresAt"]);
}

async fn the_list_is_by_latest_activity(scene: Scene) {
    let [alice, bob, carol, dave] = scene.people();
    let (one, two) = (alice.direct(&bob).await, alice.direct(&carol).await);
    let three = alice.group(&[&bob, &dave]).await;
    for conversation in [&three, &two, &one] {
        alice.send(0, conversation, "in turn").await;
    }
    let ids = |answer: &Answer| -> Vec<String> {
        let list = answer.list("conversations");
        list.iter().map(|c| c["conversationId"].as_str().unwrap().to_owned()).collect()
    };
    let all = alice.at(0).get("/conversations").await.expect(200);
    assert_eq!(ids(&all), [one.clone(), two.clone(), three.clone()]);
    assert_eq!(all.body["nextCursor"], Value::Null);
    let newest = &all.list("conversations")[0];
    assert_eq!(newest["lastMessage"]["content"], "in turn");
    assert_eq!(newest["unreadCount"], 0);
    assert_eq!(newest["mutedUntil"], Value::Null);
    assert_eq!(newest["position"], newest["lastMessage"]["position"]);
    // The peer's answer brings it to the top; the edge that is asked may be another.
    let sent = carol.send(1, &two, "an answer").await;
    let bell = alice.socket(2).await;
    bell.resume(None, json!({})).await;
    carol.send(2, &two, "another").await;
    bell.message("another").await;
    assert!(sent["position"].is_u64());
    let mut cursor = String::new();
    let mut seen = Vec::new();
    loop {
        let page = alice.at(2).get(&format!("/conversations?limit=1{cursor}")).await.expect(200);
        assert_eq!(page.list("conversations").len(), 1);
        seen.extend(ids(&page));
        match page.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [two.clone(), one, three.clone()]);
    let list = alice.at(2).get("/conversations").await.expect(200).list("conversations");
    assert_eq!((&list[0]["unreadCount"], &list[0]["lastMessage"]["content"]), (&json!(2), &json!("another")));
    dave.at(1).delete(&format!("/conversations/{three}/participants/me")).await.expect(204);
    let gone = dave.at(1).get("/conversations").await.expect(200);
    assert_eq!(ids(&gone), Vec::<String>::new());
}

async fn unread_is_exact_to_99(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let (sending, reading) = (alice.socket(0).await, bob.socket(0).await);
    let unread = async || {
        let list = bob.at(0).get("/conversations").await.expect(200).list("conversations");
        list[0]["unreadCount"].as_u64().unwrap()
    };
    for n in 1..=99 {
        sending.send(&conversation, &n.to_string()).await;
    }
    let last = reading.message("99").await;
    assert_eq!(unread().await, 99);
    sending.send(&conversation, "100").await;
    reading.message("100").await;
    assert_eq!(unread().await, 100);
    sending.send(&conversation, "101").await;
    let newest = reading.message("101").await;
    assert_eq!(unread().await, 100);
    reading.ok("mark_read", json!({ "messageId": last["messageId"] })).await;
    assert_eq!(unread().await, 2);
    reading.ok("mark_read", json!({ "messageId": newest["messageId"] })).await;
    assert_eq!(unread().await, 0);
    // One's own message reads what was before it.
    sending.send(&conversation, "and").await;
    reading.message("and").await;
    assert_eq!(unread().await, 1);
    reading.send(&conversation, "answer").await;
    assert_eq!(unread().await, 0);
}

async fn what_one_has_hidden_is_neither_last_nor_unread(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let mut sent = Vec::new();
    for n in 1..=8 {
        sent.push(alice.send(0, &conversation, &n.to_string()).await);
    }
    let hide = async |messages: &[Value]| {
        for message in messages {
            let path = format!("/messages/{}?scope=me", message["messageId"].as_str().unwrap());
            bob.at(1).delete(&path).await.expect(204);
        }
    };
    let shown = async |who: &crate::support::person::Person| {
        let list = who.at(1).get("/conversations").await.expect(200).list("conversations");
        (list[0]["unreadCount"].as_u64().unwrap(), list[0]["lastMessage"]["content"].clone())
    };
    assert_eq!(shown(&bob).await, (8, json!("8")));
    // More than a list looks at when nothing is hidden.
    hide(&sent[2..]).await;
    assert_eq!(shown(&bob).await, (2, json!("2")));
    hide(&sent[..2]).await;
    assert_eq!(shown(&bob).await, (0, Value::Null));
    assert_eq!(shown(&alice).await, (0, json!("8")), "nobody else's are hidden");
}

async fn mute_is_for_oneself(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    alice.send(0, &conversation, "x").await;
    let path = format!("/conversations/{conversation}");
    let muted = async |who: &crate::support::person::Person, edge| {
        who.at(edge).get("/conversations").await.expect(200).list("conversations")[0]["mutedUntil"].clone()
    };
    bob.at(1).get(&path).await.expect(200);
    bob.at(0).put(&path, &json!({ "mutedUntil": "2100-01-01T00:00:00Z" })).await.expect(200);
    assert_eq!(muted(&bob, 1).await, "2100-01-01T00:00:00.000Z");
    assert_eq!(muted(&alice, 1).await, Value::Null);
    bob.at(2).put(&path, &json!({ "mutedUntil": "2001-01-01T00:00:00Z" })).await.expect(200);
    assert_eq!(muted(&bob, 0).await, Value::Null);
    bob.at(2).put(&path, &json!({ "mutedUntil": "2100-01-01T00:00:00.000Z" })).await.expect(200);
    bob.at(2).put(&path, &json!({ "mutedUntil": null })).await.expect(200);
    assert_eq!(muted(&bob, 0).await, Value::Null);
}

async fn wrong_methods_and_paths(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let allowed = [
        (Method::DELETE, "/conversations".to_owned(), "GET,HEAD"),
        (Method::POST, format!("/conversations/{conversation}"), "GET,HEAD,PUT"),
        (Method::PUT, format!("/conversations/{conversation}/messages"), "GET,HEAD,POST"),
        (Method::PATCH, "/settings".to_owned(), "GET,HEAD,PUT"),
        (Method::GET, "/conversations/direct".to_owned(), "POST"),
    ];
    for (method, path, methods) in allowed {
        let answer = Answer::of(alice.at(0).request(method.clone(), &path)).await;
        let answer = answer.refused(405, "method_not_allowed");
        let mut told: Vec<&str> =
            answer.headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
        told.sort_unstable();
        assert_eq!(told.join(","), methods, "{method} {path}");
    }
    for later in
        ["/keys", "/devices", "/media", "/search?q=x", "/calls/ice-servers", "/push-subscriptions", "/x"]
    {
        alice.at(0).get(later).await.refused(404, "not_found");
    }
}
