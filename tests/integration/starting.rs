//! What a process says of itself while the parts that it needs are not there yet, and once they go.

use crate::support::backend::Backend;
use crate::support::cluster::WITHIN;
use crate::support::person::{Caller, token};
use crate::support::proxy::Proxy;
use crate::support::session::Session;
use reedi::role::cluster::{self, cql_config};
use reedi::role::process::Roles;
use reedi::runtime::shutdown::Shutdown;
use reedi::store::cql::migrate;
use reedi_protocol::AccountId;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Asks for `/readyz` until `is_right`, given its status and what is missing.
async fn until(admin: &str, is_right: impl Fn(u16, &Value) -> bool) {
    let (http, began) = (reqwest::Client::new(), Instant::now());
    let mut last = String::from("nothing");
    while began.elapsed() < WITHIN {
        if let Ok(answer) = http.get(format!("{admin}/readyz")).send().await {
            let status = answer.status().as_u16();
            let body: Value = answer.json().await.expect("JSON");
            if is_right(status, &body["missing"]) {
                return;
            }
            last = format!("{status} {body}");
        }
        // sleeps: between two looks
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the last answer was {last}");
}

fn says(missing: &Value, part: &str, text: &str) -> bool {
    missing[part].as_str().is_some_and(|why| why.contains(text))
}

/// Whoever is connected is told what does not work, and whoever sends all the same, when to come back.
async fn told_that_nothing_can_be_sent(session: &Session, caller: &Caller, talk: &str) {
    let told = session.event("degraded", |told| told["degraded"] == true).await;
    assert_eq!(told, json!({ "degraded": true, "lacks": ["sends"] }));
    let path = format!("/conversations/{talk}/messages");
    let message = json!({ "content": "a", "messageType": "text" });
    caller.post(&path, &message).await.refused(503, "log_unavailable");
    let command = json!({ "conversationId": talk, "content": "a", "messageType": "text" });
    let answer = session.command("send_message", command).await;
    assert_eq!(answer["error"]["code"], "log_unavailable", "{answer}");
    assert!(answer["error"]["retryAfter"].as_u64().is_some_and(|s| s >= 1), "{answer}");
}

mod real {
    use super::*;

    /// Each part by its name and with what to do about it, from the first moment on, without an end in between.
    #[tokio::test]
    async fn a_process_says_which_part_it_waits_for() {
        let backend = Backend::real("starting").await;
        let Backend::Real { nats, cql, name, .. } = &backend else { unreachable!("it is real") };
        let first = |urls: &str| urls.split(',').next().expect("one at least").to_owned();
        let store = Proxy::to(first(cql)).await;
        let log = Proxy::to(first(nats).trim_start_matches("nats://").to_owned()).await;
        store.open.send_replace(false);
        log.open.send_replace(false);
        // Below those that connections go out from, so that none of them takes it in between.
        let port = (20_000..30_000).rev().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let port = port.expect("a free port");
        let config = backend.config(&[
            ("cql_contact_points", &store.address),
            ("cql_keyspace", &format!("{name}_late")),
            ("nats_url", &format!("nats://{}", log.address)),
            ("nats_name", &format!("{name}_late")),
            ("admin_listen", &format!("127.0.0.1:{port}")),
        ]);
        let (schema, admin, shutdown) =
            (cql_config(&config), format!("http://127.0.0.1:{port}"), Shutdown::new());
        let starting = tokio::spawn(cluster::start(config, Roles::ALL, shutdown.clone()));

        until(&admin, |status, missing| {
            status == 503
                && says(missing, "store", "the CQL cluster does not answer")
                && says(missing, "nats", "the store is first")
        })
        .await;
        store.open.send_replace(true);
        until(&admin, |_, missing| says(missing, "store", "has `reedi migrate` been run?")).await;
        migrate(&schema, |_| ()).await.expect("it migrates");
        until(&admin, |_, missing| {
            missing["store"].is_null() && says(missing, "nats", "waiting for NATS at REEDI_NATS_URL")
        })
        .await;
        log.open.send_replace(true);
        let member = starting.await.expect("no panic").expect("it starts");
        until(&admin, |status, missing| {
            status == 200 && missing.as_object().is_some_and(|all| all.is_empty())
        })
        .await;

        let url = format!("http://{}", member.address.expect("an edge"));
        let [alice, bob] = [(); 2].map(|()| AccountId::new(uuid::Uuid::new_v4()));
        let alice_token = token(alice, None, 3_600);
        let session = Session::open(&url, &alice_token).await;
        let caller = Caller::new(&url, &alice_token);
        let body = json!({ "participantId": bob });
        let talk = caller.post("/conversations/direct", &body).await.expect(201).text("conversationId");
        log.open.send_replace(false);
        until(&admin, |status, missing| {
            status == 503
                && says(missing, "nats", "NATS is not connected")
                && says(missing, "edge", "the log does not answer")
        })
        .await;
        told_that_nothing_can_be_sent(&session, &caller, &talk).await;
        log.open.send_replace(true);
        until(&admin, |status, _| status == 200).await;
        session.event("degraded", |told| told["degraded"] == false).await;
        session.send(&talk, "b").await;
        session.close().await;
        shutdown.drain();
        tokio::time::timeout(WITHIN, member.ended()).await.expect("it leaves in time");
        shutdown.stop();
    }
}
