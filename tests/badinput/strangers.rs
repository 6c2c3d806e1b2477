//! Those who have not said who they are: how much they may send, and from where they are counted.

use crate::raw::Raw;
use crate::service::{self, Service};
use reedi_protocol::{ErrorCode, limits};
use serde_json::json;

#[tokio::test]
async fn guesses_are_counted_by_whom_proxies_speak_for() {
    let settings = [("sign_in_burst", "2"), ("sign_in_rate", "1"), ("trusted_proxies", "127.0.0.0/8")];
    let service = service::start("forwarded", &settings).await;
    let body = json!({ "username": "somebody", "password": "wrong, surely" }).to_string();
    let mut raw = Raw::connect(&service).await;
    let mut guess = async |forwarded: &str| {
        let head = format!(
            "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{forwarded}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw.write(head.as_bytes()).await;
        raw.reply().await.expect("an answer").status.as_u16()
    };
    let mut of_one = Vec::new();
    for _ in 0..8 {
        of_one.push(guess("X-Forwarded-For: 203.0.113.1, 192.0.2.1\r\n").await);
    }
    assert_eq!(of_one[..2], [401, 401]);
    assert!(of_one.contains(&429), "{of_one:?}");
    assert_eq!(guess("X-Forwarded-For: 203.0.113.1, 192.0.2.2\r\n").await, 401, "another is not held up");
}

/// Over REST too, a body is not waited for where the try was one too many.
#[tokio::test]
async fn a_guess_too_many_is_refused_before_its_body() {
    let service = service::start("bodiless", &[("sign_in_burst", "1"), ("sign_in_rate", "1")]).await;
    let head = "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    let mut tries = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::connect(&service).await;
        raw.write(head.as_bytes()).await;
        tries.push(Box::pin(async move { raw.reply().await.expect("an answer") }));
    }
    // Whoever is let in waits for its body, and whoever is not is answered without one.
    let (refused, ..) = futures_util::future::select_all(tries).await;
    refused.refuses("one too many", &[ErrorCode::RateLimited]);
}

async fn post(raw: &mut Raw, sid: &str, body: &str) -> u16 {
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    raw.write(format!("{head}{body}").as_bytes()).await;
    raw.reply().await.expect("an answer").status.as_u16()
}

async fn get(raw: &mut Raw, sid: &str) -> String {
    let path = format!("/socket.io/?EIO=4&transport=polling{sid}");
    raw.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    let reply = raw.reply().await.expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    String::from_utf8(reply.body).expect("text")
}

/// A polled session that has shaken hands.
async fn polled(service: &Service) -> (Raw, String) {
    let mut raw = Raw::connect(service).await;
    let opened = get(&mut raw, "").await;
    let opened: serde_json::Value = serde_json::from_str(&opened[1..]).expect("a handshake");
    (raw, opened["sid"].as_str().expect("a session").to_owned())
}

#[tokio::test]
async fn a_stranger_posts_no_more_than_a_first_frame() {
    let service = service::shared().await;
    let person = service.person();
    let (mut raw, sid) = polled(service).await;
    let much = format!("42[\"typing_start\",\"{}\"]", "x".repeat(limits::FIRST_FRAME_BYTES));
    assert_eq!(post(&mut raw, &sid, &much).await, 413);
    let (mut raw, sid) = polled(service).await;
    assert_eq!(post(&mut raw, &sid, &format!("40{}", json!({ "token": person.token }))).await, 200);
    // A ping may come first.
    while !get(&mut raw, &format!("&sid={sid}")).await.contains("40{") {}
    assert_eq!(post(&mut raw, &sid, &much).await, 200, "who was let in may");
}

#[tokio::test]
async fn a_session_posts_one_body_at_a_time() {
    let service = service::shared().await;
    let (mut raw, sid) = polled(service).await;
    let mut begun = Raw::connect(service).await;
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    begun
        .write(
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
                .as_bytes(),
        )
        .await;
    // The server has begun with it once it asks for the body.
    assert_eq!(begun.status().await, 100);
    assert_eq!(post(&mut raw, &sid, "3").await, 400);
    begun.write(b"33").await;
    begun.reply().await.expect("an answer");
    let (mut raw, sid) = polled(service).await;
    assert_eq!(post(&mut raw, &sid, "3").await, 200);
    assert_eq!(post(&mut raw, &sid, "3").await, 200, "one after the other");
}

/// socketioxide reads a query in another way than we do: nothing gets past us by how it is written.
#[tokio::test]
async fn what_does_not_plainly_speak_engine_io_gets_nowhere() {
    let service = service::shared().await;
    let (_, sid) = polled(service).await;
    let upgrade: String =
        crate::websocket::UPGRADE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for query in [
        "EIO=4=x&transport=websocket".to_owned(),
        "EIO=4=x&transport=polling".to_owned(),
        "EIO=3&transport=polling".to_owned(),
        "EIO=4&transport=polling=x".to_owned(),
        format!("EIO=4&transport=websocket=x&sid={sid}"),
    ] {
        let mut raw = Raw::connect(service).await;
        raw.write(format!("GET /socket.io/?{query} HTTP/1.1\r\n{upgrade}\r\n").as_bytes()).await;
        raw.reply().await.expect("an answer").refuses(&query, &[ErrorCode::Malformed]);
    }
}
