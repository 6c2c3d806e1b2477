//! Exactly once, whatever edge a retry goes through; and no mark of content anywhere.

use crate::support::backend::{Backend, SEAL_KEYS, SECRET};
use crate::support::person::{Scene, token};
use crate::support::{content, lines};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Each through four callers: enough to meet one another at every edge, and few enough that a busy machine keeps up.
const SENDS_AT_ONCE: usize = 50;

on_both!(retries_through_every_edge_stand_once, content_leaves_no_mark);

async fn retries_through_every_edge_stand_once(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let listening = bob.socket(1).await;
    let path = format!("/conversations/{conversation}/messages");
    let sends = (0..200).map(|n| {
        let key = uuid::Uuid::now_v7().to_string();
        let body = json!({ "content": n.to_string(), "messageType": "text", "clientMessageId": key });
        let path = path.clone();
        let callers = [alice.at(0), alice.at(1), alice.at(2), alice.at(n)];
        async move {
            let again = AtomicBool::new(false);
            let tries = callers.iter().map(|caller| async {
                loop {
                    // An unknown outcome, or too fast: the same again. A connection that fails is one of the first: of
                    // so many some are made in vain, and closed after 10 s without a request, just when one comes.
                    match caller.try_post(&path, &body).await {
                        Ok(answer) if answer.status != 503 && answer.status != 429 => return answer,
                        Err(error) if error.is_connect() => panic!("the edge is gone: {error}"),
                        Ok(_) | Err(_) => again.store(true, Relaxed),
                    }
                    // sleeps: as a client does before it tries again
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            let answers = futures_util::future::join_all(tries).await;
            let id = answers[0].text("messageId");
            let made = answers.iter().filter(|answer| answer.status == 201).count();
            // Who had to ask again may have been the one that made it.
            assert!(made == 1 || made == 0 && again.load(Relaxed), "{answers:?}");
            assert!(answers.iter().all(
                    |answer| answer.text("messageId") == id && answer.body["content"] == body["content"]
                ));
            (id, n)
        }
    });
    let acknowledged: BTreeMap<String, usize> =
        stream::iter(sends).buffer_unordered(SENDS_AT_ONCE).collect().await;
    assert_eq!(acknowledged.len(), 200);
    alice.send(0, &conversation, "a bell").await;
    listening.message("a bell").await;
    crate::support::order::check(&listening);
    assert_eq!(listening.all("new_message").len(), 201);
    let mut stands = BTreeMap::new();
    let mut before = String::new();
    loop {
        let page = bob.at(2).get(&format!("{path}?limit=100{before}")).await.expect(200);
        for message in page.list("messages") {
            let id = message["messageId"].as_str().unwrap().to_owned();
            assert!(stands.insert(id, message["content"].clone()).is_none(), "twice: {message}");
        }
        match page.body["nextCursor"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(stands.len(), 201);
    for (id, n) in acknowledged {
        assert_eq!(stands[&id], n.to_string());
    }
}

/// Looks into the log, the store and the files: `shown` is there, the secrets are not.
async fn look_for(scene: &Scene, mark: &str, password: &str, shown: &str) {
    let shared = &scene.cluster.edges[0].member().shared;
    let (found, records) = content::records_with(&shared.log, mark).await;
    assert_eq!(found, 0, "of {records} records");
    assert!(content::records_with(&shared.log, shown).await.0 > 0, "looking finds");
    match &scene.cluster.backend {
        Backend::Embedded { folder, .. } => {
            assert_eq!(content::files_with(folder, mark), Vec::<String>::new());
            assert_eq!(content::files_with(folder, password), Vec::<String>::new());
            assert!(content::files_with(folder, shown).len() >= 2, "in the log's and the store's");
        }
        backend @ Backend::Real { .. } => {
            for secret in [mark, password] {
                let (tables, rows) = content::tables_with(backend, secret).await;
                assert_eq!(tables, Vec::<String>::new(), "of {rows} rows");
            }
            assert!(!content::tables_with(backend, shown).await.0.is_empty(), "looking finds");
            // And the servers' own files.
            let state = std::env::var("REEDI_TEST_STATE");
            let state = state.expect("the folder that the servers keep their data in");
            assert_eq!(content::files_with(Path::new(&state), mark), Vec::<String>::new());
            assert!(!content::files_with(Path::new(&state), shown).is_empty(), "looking finds");
        }
    }
}

async fn content_leaves_no_mark(scene: Scene) {
    let fresh = |what: &str| format!("{what}{}", uuid::Uuid::new_v4().simple());
    let (mark, shown, password) = (fresh("mark"), fresh("name"), fresh("pass"));
    let account = json!({ "username": &fresh("u")[..20], "password": password });
    let session = scene.nobody(&scene.urls[0]).post("/api/auth/signup", &account).await.expect(201);
    scene.nobody(&scene.urls[1]).post("/api/auth/login", &account).await.expect(200);
    let [alice, bob] = scene.people();
    let direct = alice.direct(&bob).await;
    // What is not content may be found: it shows that looking finds.
    let body = json!({ "name": shown, "participantIds": [bob.id()] });
    let group = alice.at(0).post("/conversations/group", &body).await.expect(201).text("conversationId");
    let device = token(bob.account, Some(3), 600);
    let (by_socket, listening) = (alice.socket(1).await, bob.socket_with(2, &device).await);
    for conversation in [&direct, &group] {
        let kept = alice.send(0, conversation, &format!("kept {mark}")).await;
        let path = format!("/messages/{}", kept["messageId"].as_str().unwrap());
        alice.at(1).put(&path, &json!({ "content": format!("{mark} edited") })).await.expect(200);
        let sent = by_socket.send(conversation, &format!("{mark} by socket")).await;
        by_socket
            .ok("edit_message", json!({ "messageId": sent["messageId"], "content": format!("again {mark}") }))
            .await;
        listening.event("message_edited", |d| d["messageId"] == sent["messageId"]).await;
        by_socket.ok("delete_message", json!({ "messageId": sent["messageId"] })).await;
        let path = format!("/conversations/{conversation}/messages");
        // Refused as well.
        let long = format!("{mark}{}", "x".repeat(65_536));
        alice.at(2).post(&path, &json!({ "content": long, "messageType": "text" })).await.invalid("/content");
        alice
            .at(2)
            .post(&path, &json!({ "content": mark, "messageType": mark }))
            .await
            .invalid("/messageType");
        by_socket.raw(&format!("{{\"event\":\"{mark}\",\"data\":\"{mark}\"")).await;
        by_socket
            .refused(
                "send_message",
                json!({ "conversationId": mark, "content": mark, "messageType": "text" }),
            )
            .await;
        let texts = bob.at(1).texts(conversation).await;
        assert!(
            texts.contains(&Value::Null) && texts.contains(&format!("{mark} edited").into()),
            "{texts:?}"
        );
    }
    listening.kill();
    scene.cluster.stored(&direct).await;
    scene.cluster.stored(&group).await;

    look_for(&scene, &mark, &password, &shown).await;
    let written = lines::so_far();
    assert!(content::holds(&written, "reedi"), "lines are captured");
    let sealed_with = SEAL_KEYS.split_once(':').expect("a name and a key").1;
    for secret in [&mark, &password, &alice.token, &device, &session.text("token"), SECRET, sealed_with] {
        if content::holds(&written, secret) {
            let text = String::from_utf8_lossy(&written);
            panic!("a secret is in: {:?}", text.lines().find(|line| line.contains(secret)));
        }
    }
}
