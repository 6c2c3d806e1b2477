//! Another's conversation: for every call the very answer that nothing gives (invariant `members_only`).

use crate::routes::ROUTES;
use crate::service;
use crate::websocket::Socket;
use reedi_protocol::{ConversationKey, Epoch, ErrorCode, Position};
use serde_json::json;

/// Ids of a conversation and a message that nobody has made.
fn nothing() -> (String, String) {
    let key = ConversationKey::from_u64(rand::random::<u64>() | 1);
    let position = Position::new(Epoch::FIRST, 3).expect("a position");
    (key.conversation_id().to_string(), key.event_id(position).to_string())
}

#[tokio::test]
async fn another_s_conversation_looks_like_none_to_every_call() {
    let service = service::shared().await;
    let (one, _, conversation) = service.pair().await;
    let message = one.says(&conversation, "not for others").await;
    let outsider = service.person();
    let (no_conversation, no_message) = nothing();
    for route in ROUTES.iter().filter(|r| r.path.contains("{c}") || r.path.contains("{m}")) {
        let theirs = outsider.calls(route, &conversation, &message).await;
        let none = outsider.calls(route, &no_conversation, &no_message).await;
        theirs.refuses(route.path, &[ErrorCode::NotFound]);
        assert_eq!(theirs.body, none.body, "{} {}", route.method, route.path);
        let (mut theirs, mut none) = (theirs.headers, none.headers);
        theirs.remove("date");
        none.remove("date");
        assert_eq!(theirs, none, "{} {}", route.method, route.path);
    }
    assert_eq!(one.reads(&conversation).await, ["not for others"]);
}

#[tokio::test]
async fn another_s_conversation_looks_like_none_on_the_socket() {
    let service = service::shared().await;
    let (one, _, conversation) = service.pair().await;
    let message = one.says(&conversation, "not for others").await;
    let outsider = service.person();
    let mut socket = Socket::connect(service, Some(&outsider.token)).await;
    let (no_conversation, no_message) = nothing();
    for (event, mut data) in [
        ("send_message", json!({ "content": "a", "messageType": "text" })),
        ("join_conversation", json!({})),
        ("typing_start", json!({})),
        ("typing_stop", json!({})),
        ("mark_read", json!({})),
        ("mark_delivered", json!({})),
        ("edit_message", json!({ "content": "a" })),
        ("delete_message", json!({})),
        ("add_reaction", json!({ "reaction": "👍" })),
        ("remove_reaction", json!({ "reaction": "👍" })),
    ] {
        let mut ask = async |conversation: &str, message: &str| {
            data["conversationId"] = json!(conversation);
            data["messageId"] = json!(message);
            socket.command(event, data.clone()).await
        };
        let theirs = ask(&conversation, &message).await;
        let none = ask(&no_conversation, &no_message).await;
        assert_eq!(theirs["error"]["code"], "not_found", "{event}: {theirs}");
        assert_eq!(theirs, none, "{event}");
    }
}

#[tokio::test]
async fn an_outsider_uses_up_nobody_s_allowance() {
    let settings = [("conversation_burst", "5"), ("conversation_rate", "1")];
    let service = service::start("outsider", &settings).await;
    let (one, _, conversation) = service.pair().await;
    let outsider = service.person();
    for route in ROUTES.iter().filter(|r| r.path.contains("{c}") && r.method != "GET").cycle().take(60) {
        let reply = outsider.calls(route, &conversation, &conversation).await;
        reply.refuses(route.path, &[ErrorCode::NotFound]);
    }
    one.says(&conversation, "still mine").await;
}
