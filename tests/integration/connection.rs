//! Coming in, staying and being sent away: tokens, devices, limits, draining.

use crate::support::backend::SECRET;
use crate::support::cluster::WITHIN;
use crate::support::person::{Answer, Scene, now_ms, token};
use crate::support::session::{Session, try_open};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reedi::presence::PresencePort as _;
use reedi_client::OpenError;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async};

on_both!(
    bad_tokens_are_refused,
    a_first_frame_may_bring_the_token,
    a_token_that_runs_out_ends_the_connection,
    the_same_device_is_there_once,
    an_edge_that_leaves_sends_its_clients_on,
    an_edge_that_has_left_holds_nobody,
    a_client_that_does_not_read_is_let_go,
    floods_are_slowed_down,
    probes_tell_the_truth,
);

async fn bad_tokens_are_refused(scene: Scene) {
    let alice = scene.person();
    let claims = json!({ "sub": alice.id(), "exp": now_ms() / 1_000 + 60 });
    let signed = |secret: &str, algorithm| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap()
    };
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(&claims));
    for (bad, code) in [
        (token(alice.account, None, -60), "token_expired"),
        (signed("another secret of enough bytes, truly", Algorithm::HS256), "invalid_token"),
        (signed(SECRET, Algorithm::HS512), "invalid_token"),
        (unsigned, "invalid_token"),
        ("x".into(), "invalid_token"),
        (token(alice.account, Some(128), 60), "invalid_token"),
    ] {
        let request = scene.nobody(&scene.urls[0]).request(Method::GET, "/settings").bearer_auth(&bad);
        Answer::of(request).await.refused(401, code);
        let refused = try_open(&scene.urls[1], Some(&bad)).await.expect_err("it is refused");
        assert!(matches!(refused, OpenError::Refused { status: 401, .. }), "{refused}");
        let socket = Session::of(try_open(&scene.urls[2], None).await.unwrap());
        socket.raw(&json!({ "event": "authenticate", "data": { "token": bad } }).to_string()).await;
        assert_eq!(socket.closed().await.code, Some(4401));
    }
}

async fn a_first_frame_may_bring_the_token(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let socket = Session::of(try_open(&scene.urls[0], None).await.unwrap());
    let answer = socket.ok("authenticate", json!({ "token": alice.token })).await;
    assert_eq!(answer["userId"], alice.id());
    socket.send(&conversation, "let in").await;
    socket.message("let in").await;
    for (first, code) in [
        (r#"{"event":"send_message","data":{}}"#, 4401),
        (r#"{"event":"authenticate","data":{}}"#, 4400),
        ("x", 4400),
    ] {
        let socket = Session::of(try_open(&scene.urls[1], None).await.unwrap());
        socket.raw(first).await;
        assert_eq!(socket.closed().await.code, Some(code), "{first}");
    }
    let silent = Session::of(try_open(&scene.urls[2], None).await.unwrap());
    assert_eq!(silent.closed().await.code, Some(4401), "after 10 s");
}

async fn a_token_that_runs_out_ends_the_connection(scene: Scene) {
    let [alice, bob] = scene.people();
    // The leeway is 30 s: ten seconds are left.
    let short = token(alice.account, None, -20);
    let (ending, renewed) = (alice.socket_with(0, &short).await, alice.socket_with(0, &short).await);
    let wrong = json!({ "token": bob.token });
    assert_eq!(renewed.refused("authenticate", wrong).await, "invalid_token");
    let device = json!({ "token": token(alice.account, Some(7), 60) });
    assert_eq!(renewed.refused("authenticate", device).await, "invalid_token");
    let answer = renewed.ok("authenticate", json!({ "token": alice.token })).await;
    assert!(answer["expiresAt"].is_string());
    assert_eq!(ending.closed().await.code, Some(4401));
    let conversation = alice.direct(&bob).await;
    renewed.send(&conversation, "still here").await;
    renewed.message("still here").await;
}

async fn the_same_device_is_there_once(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let phone = token(alice.account, Some(1), 600);
    let plain = alice.socket(0).await;
    let laptop = alice.socket_with(0, &token(alice.account, Some(2), 600)).await;
    let other = bob.socket_with(0, &token(bob.account, Some(1), 600)).await;
    let mut now = alice.socket_with(0, &phone).await;
    for edge in [0, 1, 2, 0] {
        let later = alice.socket_with(edge, &phone).await;
        let closed = now.closed().await;
        assert_eq!(closed.code, Some(4409), "{closed} when it came to edge {edge}");
        now = later;
    }
    other.send(&conversation, "to all").await;
    for session in [&plain, &laptop, &now, &other] {
        session.message("to all").await;
    }
}

async fn an_edge_that_leaves_sends_its_clients_on(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let edge = scene.cluster.edge(&[("drain_seconds", "1")]).await;
    let url = edge.url();
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(Session::open(&url, &bob.token).await);
    }
    let checkpoint = sessions[0].resume(None, json!({})).await;
    alice.send(0, &conversation, "before").await;
    for session in &sessions {
        session.message("before").await;
    }
    let admin = edge.admin.clone();
    edge.drain();
    let http = crate::support::person::http();
    assert_eq!(http.get(format!("{admin}/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(http.get(format!("{admin}/healthz")).send().await.unwrap().status(), 200);
    for session in sessions {
        let closed = session.closed().await;
        assert_eq!(closed.code, Some(1012), "{closed}");
        assert!(closed.reconnect_after().is_some(), "{closed}");
    }
    edge.leave().await;
    assert!(try_open(&url, Some(&bob.token)).await.is_err());
    alice.send(1, &conversation, "meanwhile").await;
    let back = bob.socket(2).await;
    back.resume(Some(&checkpoint), json!({})).await;
    assert_eq!(back.all("new_message").len(), 2);
    crate::support::order::check(&back);
}

async fn an_edge_that_has_left_holds_nobody(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let looking = alice.socket(0).await;
    looking.ok("join_conversation", json!({ "conversationId": conversation })).await;
    let leaving = scene.cluster.edge(&[("drain_seconds", "0")]).await;
    let session = Session::open(&leaving.url(), &bob.token).await;
    let of_bob = |status: &'static str| {
        let bob = bob.id();
        move |change: &Value| change["userId"] == bob && change["status"] == status
    };
    looking.event("user_status_change", of_bob("online")).await;
    // Nothing of it runs once it has left.
    leaving.leave().await;
    let edge = scene.cluster.edges[0].member().edge.clone().expect("an edge");
    let presence = async {
        loop {
            // Of a busy machine Redis may answer too late, and the next time it does.
            if let [Ok(presence)] = edge.presence.look(&[bob.account], edge.clock.now()).await[..] {
                return presence;
            }
            // sleeps: between two looks
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let presence = timeout(WITHIN, presence).await.expect("Redis answers");
    assert!(!presence.online, "{presence:?}");
    looking.event("user_status_change", of_bob("offline")).await;
    assert_eq!(session.closed().await.code, Some(1012));
}

/// A socket with next to no room for what is not read.
async fn unread_socket(url: &str, token: &str) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address = url.trim_start_matches("http://");
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let mut request = format!("ws://{address}/api/messages/ws").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    client_async(request, stream).await.unwrap().0
}

async fn a_client_that_does_not_read_is_let_go(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let edge = scene.cluster.edge(&[("outbox_frames", "16"), ("outbox_bytes", "100KiB")]).await;
    let mut deaf = unread_socket(&edge.url(), &bob.token).await;
    let large = "x".repeat(60_000);
    // More than all buffers between the two hold, and soon: what reads nothing for 10 s hears no goodbye.
    let sending = (0..6).map(|n| {
        let (alice, conversation, large) = (&alice, &conversation, &large);
        async move {
            let session = alice.socket(n).await;
            for _ in 0..12 {
                session.send(conversation, large).await;
            }
        }
    });
    futures_util::future::join_all(sending).await;
    let reading = async {
        loop {
            if let Message::Close(frame) =
                deaf.next().await.expect("a close frame before the end").expect("a frame")
            {
                return frame.expect("a reason");
            }
        }
    };
    let closed = tokio::time::timeout(crate::support::cluster::WITHIN, reading).await.expect("it ends");
    assert_eq!(u16::from(closed.code), 4408, "{closed}");
    let page = bob.at(1).get(&format!("/conversations/{conversation}/messages?limit=1")).await.expect(200);
    assert_eq!(page.list("messages").len(), 1, "nothing is lost by it");
}

async fn floods_are_slowed_down(scene: Scene) {
    let [alice, bob] = scene.people();
    let settings = [
        ("account_rate", "1"),
        ("account_burst", "5"),
        ("connections_per_account", "2"),
        ("sockets_unauthenticated", "1"),
    ];
    let edge = scene.cluster.edge(&settings).await;
    let url = edge.url();
    let conversation = alice.direct(&bob).await;
    let one = Session::open(&url, &alice.token).await;
    let _two = Session::open(&url, &alice.token).await;
    let third = try_open(&url, Some(&alice.token)).await.expect_err("two are enough");
    assert!(matches!(third, OpenError::Refused { status: 429, retry_after: Some(_), .. }), "{third}");
    let first_frame = Session::of(try_open(&url, None).await.unwrap());
    let waiting = try_open(&url, None).await.expect_err("one may wait");
    assert!(matches!(waiting, OpenError::Refused { status: 429, retry_after: Some(_), .. }), "{waiting}");
    first_frame.raw(&json!({ "event": "authenticate", "data": { "token": alice.token } }).to_string()).await;
    assert_eq!(first_frame.closed().await.code, Some(4429));

    let path = format!("/conversations/{conversation}/messages");
    let body = json!({ "content": "x", "messageType": "text" });
    let mut refused = None;
    for _ in 0..10 {
        let answer = alice.at_url(&url).post(&path, &body).await;
        if answer.status != 201 {
            refused = Some(answer.refused(429, "rate_limited"));
        }
    }
    let refused = refused.expect("five at once are enough");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    let data = json!({ "conversationId": conversation, "content": "x", "messageType": "text" });
    let answer = one.command("send_message", data).await;
    assert_eq!(answer["error"]["code"], "rate_limited");
    assert!(answer["error"]["retryAfter"].as_u64().is_some_and(|s| s >= 1), "{answer}");
    bob.at_url(&url).post(&path, &body).await.expect(201);
}

async fn probes_tell_the_truth(scene: Scene) {
    let http = crate::support::person::http();
    for edge in &scene.cluster.edges {
        let get = async |path: &str| {
            let answer = http.get(format!("{}{path}", edge.admin)).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(get("/healthz").await.0, 200);
        assert_eq!(get("/readyz").await, (200, r#"{"ready":true,"missing":{}}"#.into()));
        let (status, page) = get("/metrics").await;
        assert_eq!(status, 200);
        for name in [
            "reedi_messages_accepted_total",
            "reedi_messages_acknowledged_total",
            "reedi_messages_delivered_total",
            "reedi_send_to_ack_seconds_count",
            "reedi_send_to_delivered_seconds_count",
            "reedi_connections",
            "reedi_active_accounts",
            "reedi_outbox_frames",
            "reedi_ready",
        ] {
            assert!(page.lines().any(|line| line.starts_with(name)), "{name} is not in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }
    // What is counted is what happened: one session more is one connection more, for as long.
    let [alice, bob] = scene.people();
    let edge = scene.cluster.edge(&[]).await;
    let connections = || edge.member().shared.metrics.connections.get();
    let session = Session::open(&edge.url(), &alice.token).await;
    assert_eq!(connections(), 1);
    let conversation = alice.direct(&bob).await;
    session.send(&conversation, "counted").await;
    session.message("counted").await;
    let metrics = &edge.member().shared.metrics;
    assert_eq!((metrics.messages_acknowledged.get(), metrics.messages_delivered.get()), (1, 1));
    session.close().await;
    let gone = async {
        while connections() != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::support::cluster::WITHIN, gone).await.expect("it is noticed");
}
