//! Traces: what a request says of where it comes from stands on the record in the log, in the form of the
//! W3C Recommendation and no other.

use crate::http::Request;
use crate::service::{self, LOGGED, Service, messages};
use crate::websocket::Socket;
use reedi::log::LogPort;
use reedi::runtime::trace_context::TraceContext;
use reedi_protocol::MessageId;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn recorded(service: &Service, message: &str) -> TraceContext {
    let id: MessageId = message.parse().expect("a message's id");
    let record = service.shared.log.get(id.key().shard(), id.position()).await.expect("the log answers");
    record.expect("a record").traceparent.expect("a traceparent")
}

#[tokio::test]
async fn a_request_s_trace_goes_on_in_the_log() {
    let service = service::shared().await;
    let (one, _, conversation) = service.pair().await;
    let path = messages(&conversation);
    let parent: TraceContext = PARENT.parse().expect("the Recommendation's example");
    let bad = [
        "x",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ];
    for header in [PARENT].into_iter().chain(bad) {
        let headers = vec![("content-type", "application/json"), ("traceparent", header)];
        let body = br#"{"content":"a","messageType":"text"}"#.to_vec();
        let sent = one.client.send(Request { method: "POST", path: &path, headers, body }).await.json();
        let recorded = recorded(service, sent["messageId"].as_str().expect("an id")).await;
        assert_eq!(recorded.trace_id() == parent.trace_id(), header == PARENT, "{header}: {recorded}");
        assert_ne!(recorded, parent, "a step of its own");
    }
    let without = one.says(&conversation, "a").await;
    assert_ne!(recorded(service, &without).await.trace_id(), parent.trace_id());
}

#[tokio::test]
async fn a_command_s_trace_begins_on_the_socket() {
    let service = service::shared().await;
    let (one, _, conversation) = service.pair().await;
    let mut socket = Socket::connect(service, Some(&one.token)).await;
    let data = json!({ "conversationId": conversation, "content": "a", "messageType": "text" });
    let first = socket.command("send_message", data.clone()).await;
    let second = socket.command("send_message", data).await;
    let id = |answer: &serde_json::Value| answer["messageId"].as_str().expect("an id").to_owned();
    let (first, second) = (recorded(service, &id(&first)).await, recorded(service, &id(&second)).await);
    assert_ne!(first.trace_id(), second.trace_id());
}

/// One id leads through edge, log, delivery, writer and back, and what was written is on no line.
#[tokio::test]
async fn a_trace_is_logged_on_its_whole_way_and_content_nowhere() {
    let service = service::shared().await;
    let (one, other, conversation) = service.pair().await;
    let mut receiving = Socket::connect(service, Some(&other.token)).await;
    assert!(receiving.is_well().await);
    let mark = format!("mark-{:032x}", rand::random::<u128>());
    let trace_id = format!("{:032x}", rand::random::<u128>() | 1);
    let header = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let headers = vec![("content-type", "application/json"), ("traceparent", header.as_str())];
    let body = json!({ "content": mark, "messageType": "text" }).to_string().into_bytes();
    let path = messages(&conversation);
    let sent = one.client.send(Request { method: "POST", path: &path, headers, body }).await;
    assert_eq!(sent.status, 201);
    assert_eq!(receiving.event("new_message").await["content"], json!(mark));
    let wrong = json!({ "content": [mark], "messageType": mark });
    assert_eq!(one.client.post(&path, &wrong).await.status, 400);
    receiving.text(&format!("{{\"event\":\"{mark}\",\"data\":\"{mark}")).await;
    receiving.event("error").await;
    receiving.command(&mark, json!({ "content": mark })).await;
    // History waits until the store has it.
    assert_eq!(one.reads(&conversation).await, [mark.as_str()]);
    let until = Instant::now() + Duration::from_secs(10);
    let seen = || {
        let lines = LOGGED.with(&trace_id);
        ["reedi::edge::append", "reedi::delivery", "reedi::writer", "reedi::edge::deliver"]
            .map(|part| lines.iter().any(|line| line.contains(part)))
    };
    while seen() != [true; 4] {
        assert!(Instant::now() < until, "{:?}: {:#?}", seen(), LOGGED.with(&trace_id));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(LOGGED.with(&mark), Vec::<String>::new());
    assert_eq!(LOGGED.with(&one.token), Vec::<String>::new());
}
