//! Bodies: no JSON, other JSON, too much of it, and what Unicode allows.

use crate::http::Request;
use crate::routes::{OPEN_ROUTES, ROUTES, Route};
use crate::service::{self, Service, messages};
use reedi_protocol::{ErrorCode, limits};
use serde_json::{Value, json};

/// Every call with a body, on things that are there, by somebody who may.
async fn with_bodies(service: &Service) -> (crate::service::Person, Vec<(&'static Route, String, String)>) {
    let (person, other, conversation) = service.pair().await;
    let message = person.says(&conversation, "hello").await;
    let account = other.account.to_string();
    let calls = ROUTES.iter().chain(OPEN_ROUTES).filter_map(|route| {
        let (path, body) = route.filled(&conversation, &message, &account);
        body.map(|body| (route, path, body))
    });
    let calls = calls.collect();
    (person, calls)
}

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    let service = service::shared().await;
    let (person, calls) = with_bodies(service).await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_field = format!(r#"{{"unknown":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    for (route, path, good) in &calls {
        let cut = &good[..good.len() - 1];
        let twice = format!("{good}{good}");
        let bads: [&[u8]; 12] = [
            b"",
            b"{",
            b"nonsense",
            b"{'a':1}",
            b"[]",
            b"null",
            b"\"text\"",
            b"1e999",
            cut.as_bytes(),
            twice.as_bytes(),
            deep.as_bytes(),
            deep_field.as_bytes(),
        ];
        for bad in bads {
            let reply = person.client.json(route.method, path, bad).await;
            let shown = String::from_utf8_lossy(&bad[..bad.len().min(60)]).into_owned();
            reply.refuses(&format!("{} {path} {shown}", route.method), &[ErrorCode::Malformed]);
        }
    }
}

#[tokio::test]
async fn wrong_types_get_a_pointer_and_unknown_fields_are_ignored() {
    let service = service::shared().await;
    let (person, calls) = with_bodies(service).await;
    for (route, path, good) in &calls {
        let good: Value = serde_json::from_str(good).expect("a good body");
        for field in good.as_object().expect("an object").keys() {
            for bad in [json!({ "a": 1 }), json!([[]]), json!(-1.5)] {
                let mut body = good.clone();
                body[field] = bad;
                let reply = person.client.json(route.method, path, body.to_string()).await;
                reply.refuses(&format!("{} {path} {body}", route.method), &[ErrorCode::Malformed]);
                let pointers = reply.pointers();
                assert!(pointers[0].starts_with(&format!("/{field}")), "{path} {body}: {pointers:?}");
                assert!(!pointers[0].contains('['), "not RFC 6901: {pointers:?}");
            }
        }
    }
    let (one, _, conversation) = service.pair().await;
    let body = json!({ "content": "a", "messageType": "text", "unknown": { "deep": [1, null] }, "": 0, "senderId": "x" });
    assert_eq!(one.client.post(&messages(&conversation), &body).await.status, 201);
}

#[tokio::test]
async fn words_and_numbers_that_are_none_get_a_pointer() {
    let service = service::shared().await;
    let (one, other, conversation) = service.pair().await;
    let path = format!("/api/messages/conversations/{conversation}");
    let settings = |from: &str, presence: &str| {
        let mut settings = json!({ "messagesFrom": from, "readReceipts": true });
        settings["presence"] = presence.into();
        settings
    };
    for (method, path, body, pointer) in [
        (
            "POST",
            messages(&conversation),
            json!({ "content": "a", "messageType": "sticker" }),
            "/messageType",
        ),
        ("PUT", "/api/messages/settings".to_owned(), settings("friends", "everyone"), "/messagesFrom"),
        ("PUT", "/api/messages/settings".to_owned(), settings("everyone", "friends"), "/presence"),
        ("PUT", format!("{path}/participants/{}", other.account), json!({ "role": "owner" }), "/role"),
        ("PUT", path, json!({ "expiresAfter": -1 }), "/expiresAfter"),
    ] {
        let reply = one.client.json(method, &path, body.to_string()).await;
        reply.refuses(&format!("{method} {path} {body}"), &[ErrorCode::InvalidValue]);
        assert_eq!(reply.pointers(), [pointer], "{method} {path} {body}");
    }
}

#[tokio::test]
async fn a_pointer_leads_into_lists() {
    let service = service::shared().await;
    let body = json!({ "name": "us", "participantIds": ["00000000-0000-4000-8000-000000000001", 7] });
    let reply = service.person().client.post("/api/messages/conversations/group", &body).await;
    reply.refuses("a number among ids", &[ErrorCode::Malformed]);
    assert_eq!(reply.pointers(), ["/participantIds/1"]);
}

#[tokio::test]
async fn what_is_no_unicode_is_refused() {
    let service = service::shared().await;
    let (person, calls) = with_bodies(service).await;
    for (route, path, good) in &calls {
        let Some(at) = good.find(":\"") else { continue };
        let (before, after) = good.split_at(at + 2);
        for bad in [
            &b"\xff"[..],
            b"\xc0\xaf",
            b"\xed\xa0\x80",
            b"\xf8\x88\x80\x80\x80",
            br"\ud800",
            br"\udc00\ud800",
        ] {
            let body = [before.as_bytes(), bad, after.as_bytes()].concat();
            let reply = person.client.json(route.method, path, body).await;
            reply.refuses(&format!("{} {path} {bad:x?}", route.method), &[ErrorCode::NotUnicode]);
        }
    }
}

#[tokio::test]
async fn names_have_no_controls_and_contents_may() {
    let service = service::shared().await;
    let (person, _, conversation) = service.pair().await;
    let group = "/api/messages/conversations/group";
    for (path, body, pointer) in [
        (group, json!({ "name": "a\0b", "participantIds": [] }), "/name"),
        (group, json!({ "name": "", "participantIds": [] }), "/name"),
        (group, json!({ "name": "a\u{1b}[2J", "participantIds": [] }), "/name"),
        (group, json!({ "name": "x".repeat(256), "participantIds": [] }), "/name"),
        (group, json!({ "name": "a", "participantIds": [], "avatarUrl": "https://a\0b" }), "/avatarUrl"),
        (
            group,
            json!({ "name": "a", "participantIds": [], "avatarUrl": "javascript:alert(1)" }),
            "/avatarUrl",
        ),
        ("/api/auth/signup", json!({ "username": "a\0bc", "password": "correct horse" }), "/username"),
        ("/api/auth/signup", json!({ "username": "аdmin", "password": "correct horse" }), "/username"),
        ("/api/auth/signup", json!({ "username": "somebody", "password": "short" }), "/password"),
        (
            "/api/auth/signup",
            json!({ "username": "somebody", "password": "correct horse", "displayName": "a\0b" }),
            "/displayName",
        ),
    ] {
        let reply = person.client.post(path, &body).await;
        reply.refuses(&format!("{path} {body}"), &[ErrorCode::InvalidValue]);
        assert_eq!(reply.pointers(), [pointer], "{path} {body}");
    }
    for content in ["\0", "a\0b", "\u{1b}[2J", "\u{202e}abc", "\u{feff}", "\u{ffff}\u{10ffff}", "\r\n"] {
        person.says(&conversation, content).await;
        assert_eq!(person.reads(&conversation).await[0], content);
    }
}

#[tokio::test]
async fn too_much_is_too_large() {
    let service = service::shared().await;
    let (person, calls) = with_bodies(service).await;
    let padding = " ".repeat(limits::FRAME_BYTES);
    let large = " ".repeat(8 << 20);
    for (route, path, good) in &calls {
        let what = format!("{} {path}", route.method);
        for much in [&padding, &large] {
            let reply = person.client.json(route.method, path, format!("{good}{much}")).await;
            reply.refuses(&what, &[ErrorCode::TooLarge]);
        }
    }
    let (_, _, conversation) = service.pair().await;
    let long = json!({ "content": "x".repeat(limits::CONTENT_BYTES + 1), "messageType": "text" });
    let reply = person.client.post(&messages(&conversation), &long).await;
    reply.refuses("content of 64 KiB and one byte", &[ErrorCode::InvalidValue]);
    let long = "a".repeat(256);
    let body = json!({ "content": "a", "messageType": "text", "clientMessageId": long });
    person
        .client
        .post(&messages(&conversation), &body)
        .await
        .refuses("a long key", &[ErrorCode::InvalidValue]);
}

#[tokio::test]
async fn what_is_not_said_to_be_json_is_not_read() {
    let service = service::shared().await;
    let (person, calls) = with_bodies(service).await;
    for (route, path, good) in &calls {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
            "json",
            "application/jsonx",
        ] {
            let headers = vec![("content-type", kind)];
            let request = Request { method: route.method, path, headers, body: good.clone().into_bytes() };
            let reply = person.client.send(request).await;
            reply.refuses(&format!("{path} {kind}"), &[ErrorCode::UnsupportedMediaType]);
        }
        let headers = Vec::new();
        let request = Request { method: route.method, path, headers, body: good.clone().into_bytes() };
        person.client.send(request).await.refuses(path, &[ErrorCode::UnsupportedMediaType]);
    }
    let (one, _, conversation) = service.pair().await;
    for kind in ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.reedi+json"] {
        let (headers, body) =
            (vec![("content-type", kind)], br#"{"content":"a","messageType":"text"}"#.to_vec());
        let path = messages(&conversation);
        let reply = one.client.send(Request { method: "POST", path: &path, headers, body }).await;
        assert_eq!(reply.status, 201, "{kind}: {reply:?}");
    }
}

#[tokio::test]
async fn headers_that_come_twice_are_refused() {
    let service = service::shared().await;
    let (one, other, conversation) = service.pair().await;
    let path = messages(&conversation);
    let body = br#"{"content":"a","messageType":"text"}"#.to_vec();
    let twice = |name, value: &'static str| {
        vec![("content-type", "application/json"), (name, value), (name, "other")]
    };
    let headers = twice("idempotency-key", "one");
    let request = Request { method: "POST", path: &path, headers, body: body.clone() };
    one.client.send(request).await.refuses("two keys", &[ErrorCode::Malformed]);
    let headers = vec![("content-type", "application/json"), ("content-type", "text/plain")];
    let request = Request { method: "POST", path: &path, headers, body: body.clone() };
    one.client.send(request).await.refuses("two content types", &[ErrorCode::Malformed]);
    let [first, second] = [&one, &other].map(|person| format!("Bearer {}", person.token));
    let headers = vec![
        ("content-type", "application/json"),
        ("authorization", first.as_str()),
        ("authorization", second.as_str()),
    ];
    let request = Request { method: "POST", path: &path, headers, body };
    service.stranger().send(request).await.refuses("two accounts", &[ErrorCode::Malformed]);
    assert!(one.reads(&conversation).await.is_empty());
}
