//! Tokens that are none, or not ours, or not for now.

use crate::http::Request;
use crate::routes::ROUTES;
use crate::service::{self, SECRET, now_s, signed, token_until};
use crate::websocket::Socket;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reedi_protocol::ErrorCode;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

fn parts(header: &Value, claims: &Value, signature: &str) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", encoded(header), encoded(claims))
}

fn bad_tokens() -> Vec<(&'static str, String, ErrorCode)> {
    let account = Uuid::new_v4();
    let good = json!({ "sub": account, "exp": now_s() + 600 });
    let own = signed(&good, SECRET);
    let (head, signature) =
        (own.split('.').next().unwrap_or_default(), own.rsplit('.').next().unwrap_or_default());
    let other = json!({ "sub": Uuid::new_v4(), "exp": now_s() + 600 });
    let swapped = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(other.to_string()));
    let invalid = ErrorCode::InvalidToken;
    let claims = |value: Value| signed(&value, SECRET);
    vec![
        ("alg none", parts(&json!({ "alg": "none" }), &good, ""), invalid),
        ("alg None with a signature", parts(&json!({ "alg": "None" }), &good, signature), invalid),
        ("alg empty", parts(&json!({ "alg": "" }), &good, signature), invalid),
        ("alg of another key", parts(&json!({ "alg": "RS256" }), &good, signature), invalid),
        ("no alg", parts(&json!({}), &good, signature), invalid),
        (
            "an extension",
            parts(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &good, signature),
            invalid,
        ),
        ("a wrong signature", signed(&good, "another secret that is long enough"), invalid),
        ("claims of another", swapped, invalid),
        ("no signature", own[..own.len() - signature.len()].to_owned(), invalid),
        ("no dots", "gibberish".to_owned(), invalid),
        ("dots and little else", "a.b.c".to_owned(), invalid),
        ("no base64", "!!!.!!!.!!!".to_owned(), invalid),
        ("a very long one", "a".repeat(8_193), invalid),
        ("expired", token_until(account, now_s() - 31), ErrorCode::TokenExpired),
        ("expired in 1970", token_until(account, 0), ErrorCode::TokenExpired),
        ("not yet", claims(json!({ "sub": account, "exp": now_s() + 600, "nbf": now_s() + 60 })), invalid),
        ("no exp", claims(json!({ "sub": account })), invalid),
        ("exp as text", claims(json!({ "sub": account, "exp": "tomorrow" })), invalid),
        ("exp negative", claims(json!({ "sub": account, "exp": -1 })), ErrorCode::TokenExpired),
        ("no sub", claims(json!({ "exp": now_s() + 600 })), invalid),
        ("sub no UUID", claims(json!({ "sub": "root", "exp": now_s() + 600 })), invalid),
        ("device 0", claims(json!({ "sub": account, "exp": now_s() + 600, "device_id": 0 })), invalid),
        ("device 128", claims(json!({ "sub": account, "exp": now_s() + 600, "device_id": 128 })), invalid),
        ("claims are a list", claims(json!([1, 2])), invalid),
    ]
}

#[tokio::test]
async fn bad_tokens_are_refused_over_http() {
    let service = service::shared().await;
    let stranger = service.stranger();
    for (what, token, code) in bad_tokens() {
        let reply = stranger.with_token(&token).get("/api/messages/conversations").await;
        reply.refuses(what, &[code]);
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(!text.contains(&token), "{what}: the token is told back");
    }
    for scheme in ["Basic dXNlcjpwYXNz", "Bearer", "bearer ", "Token abc", "", "Bearer a b"] {
        let headers = vec![("authorization", scheme)];
        let request =
            Request { method: "GET", path: "/api/messages/conversations", headers, body: Vec::new() };
        let codes = [ErrorCode::Unauthenticated, ErrorCode::InvalidToken];
        stranger.send(request).await.refuses(scheme, &codes);
    }
}

#[tokio::test]
async fn every_call_needs_a_token() {
    let service = service::shared().await;
    let stranger = service.stranger();
    for route in ROUTES {
        let id = Uuid::new_v4().to_string();
        let (path, body) = route.filled(&id, &id, &id);
        // Not even what is wrong with the rest is told.
        for body in [body.unwrap_or_default(), "nonsense".to_owned()] {
            let reply = stranger.json(route.method, &path, body).await;
            reply.refuses(&format!("{} {path}", route.method), &[ErrorCode::Unauthenticated]);
        }
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_on_the_socket() {
    let service = service::shared().await;
    for (what, token, code) in bad_tokens() {
        let refused = Socket::try_connect(service, Some(&token)).await.err();
        refused.unwrap_or_else(|| panic!("{what} is let in")).refuses(what, &[code]);
        let mut socket = Socket::connect(service, None).await;
        socket.send(json!({ "event": "authenticate", "data": { "token": token } })).await;
        let (close, reason) = socket.closed().await;
        assert_eq!(close, 4401, "{what}: {reason}");
        assert!(!reason.is_empty() && !reason.contains(&token), "{what}: {reason}");
    }
}

/// A token is accepted until 30 s after its `exp`; one second of that is left.
#[tokio::test]
async fn a_token_that_runs_out_ends_the_connection() {
    let service = service::shared().await;
    let account = Uuid::new_v4();
    let nearly = token_until(account, now_s() - 28);
    let mut ends = Socket::connect(service, Some(&nearly)).await;
    let mut renews = Socket::connect(service, Some(&nearly)).await;
    let fresh = json!({ "token": token_until(account, now_s() + 600) });
    assert_eq!(renews.command("authenticate", fresh).await["ok"], true);
    let others = json!({ "token": token_until(Uuid::new_v4(), now_s() + 600) });
    assert_eq!(renews.command("authenticate", others).await["error"]["code"], "invalid_token");
    let expired = json!({ "token": token_until(account, now_s() - 60) });
    assert_eq!(renews.command("authenticate", expired).await["error"]["code"], "token_expired");
    let (code, reason) =
        tokio::time::timeout(Duration::from_secs(8), ends.closed()).await.expect("closed in time");
    assert_eq!((code, reason.as_str()), (4401, "the token has expired"));
    assert_eq!(renews.command("typing_stop", json!({})).await["error"]["code"], "malformed", "still there");
}
