//! Upgrades to a WebSocket that are not quite one.

use crate::service;
use crate::websocket::{Socket, UPGRADE};
use reedi_protocol::ErrorCode;

fn with<'a>(name: &'a str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let mut headers: Vec<_> =
        UPGRADE.iter().copied().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).collect();
    headers.extend(value.map(|value| (name, value)));
    headers
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_told_why() {
    let service = service::shared().await;
    for (name, value) in [
        ("Upgrade", None),
        ("Upgrade", Some("h2c")),
        ("Connection", None),
        ("Connection", Some("keep-alive")),
        ("Sec-WebSocket-Version", None),
        ("Sec-WebSocket-Version", Some("8")),
        ("Sec-WebSocket-Version", Some("13.0")),
        ("Sec-WebSocket-Key", None),
        ("Sec-WebSocket-Key", Some("")),
        ("Sec-WebSocket-Key", Some("short")),
        ("Sec-WebSocket-Key", Some("not base64, but long enough")),
        ("Sec-WebSocket-Protocol", Some("graphql-ws")),
        ("Sec-WebSocket-Protocol", Some("reedi.v2, mqtt")),
    ] {
        let refused = Socket::upgrade(service, &with(name, value)).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{name}: {value:?} is let in"));
        refused.refuses(&format!("{name}: {value:?}"), &[ErrorCode::Malformed]);
        if name == "Sec-WebSocket-Version" {
            // RFC 6455, section 4.4: the server says which it speaks.
            assert_eq!(refused.headers.get(name).and_then(|v| v.to_str().ok()), Some("13"), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn a_subprotocol_is_agreed_on_or_done_without() {
    let service = service::shared().await;
    let person = service.person();
    let bearer = format!("Bearer {}", person.token);
    for (offered, agreed) in
        [(None, None), (Some("reedi.v1"), Some("reedi.v1")), (Some("mqtt, reedi.v1"), Some("reedi.v1"))]
    {
        let mut headers = with("Sec-WebSocket-Protocol", offered);
        headers.push(("Authorization", &bearer));
        let (mut socket, reply) = Socket::upgrade(service, &headers).await.expect("a socket");
        let told = reply.headers.get("sec-websocket-protocol").and_then(|v| v.to_str().ok());
        assert_eq!(told, agreed, "{offered:?}");
        assert!(socket.is_well().await);
    }
}

#[tokio::test]
async fn an_upgrade_elsewhere_is_nothing() {
    let service = service::shared().await;
    let person = service.person();
    for path in ["/api/messages/conversations", "/nowhere"] {
        let headers = UPGRADE.iter().copied().filter(|(name, _)| *name != "Host").collect();
        let request = crate::http::Request { method: "GET", path, headers, body: Vec::new() };
        let reply = person.client.send(request).await;
        assert!(reply.status == 200 || reply.status == 404, "{path}: {reply:?}");
    }
    let posted = person.client.json("POST", "/api/messages/ws", "{}").await;
    posted.refuses("POST to the socket", &[ErrorCode::MethodNotAllowed]);
}
