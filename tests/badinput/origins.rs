//! Pages of other origins: what a browser lets them send, and read.

use crate::http::{Reply, Request};
use crate::service;
use reedi_protocol::ErrorCode;

const PAGE: &str = "https://app.example.org";

fn names(reply: &Reply, header: &str) -> Vec<String> {
    let value = reply.headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(',').map(|name| name.trim().to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn a_page_sends_and_reads_every_header_of_the_contract() {
    let service = service::start("origins", &[("cors_origins", PAGE)]).await;
    let stranger = service.stranger();
    let path = "/api/messages/conversations";
    let headers = vec![("origin", PAGE)];
    let reply = stranger.send(Request { method: "GET", path, headers, body: Vec::new() }).await;
    reply.refuses("no token", &[ErrorCode::Unauthenticated]);
    let read = names(&reply, "access-control-expose-headers");
    for header in ["retry-after", "allow", "www-authenticate"] {
        assert!(read.iter().any(|name| name == header), "{header} is not among {read:?}");
    }
    let headers = vec![
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let reply = stranger.send(Request { method: "OPTIONS", path, headers, body: Vec::new() }).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let sent = names(&reply, "access-control-allow-headers");
    for header in ["authorization", "content-type", "idempotency-key", "traceparent"] {
        assert!(sent.iter().any(|name| name == header), "{header} is not among {sent:?}");
    }
}
