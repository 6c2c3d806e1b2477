//! Too many, too fast, too slow.

use crate::service::{self, messages};
use crate::websocket::{self, Socket};
use reedi_protocol::ErrorCode;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_flood_over_http_is_told_when_to_come_back() {
    let service = service::start("flood", &[("account_burst", "5"), ("account_rate", "1")]).await;
    let (one, other, conversation) = service.pair().await;
    let body = json!({ "content": "a", "messageType": "text" });
    let mut refused = 0;
    for _ in 0..20 {
        let reply = one.client.post(&messages(&conversation), &body).await;
        if reply.status != 201 {
            reply.refuses("a flood", &[ErrorCode::RateLimited]);
            refused += 1;
        }
    }
    assert!(refused >= 10, "{refused} of 20 were refused");
    other.says(&conversation, "others are not held up").await;
    let mut socket = Socket::connect(&service, Some(&one.token)).await;
    let mut answer = json!({ "ok": true });
    for _ in 0..20 {
        let data = json!({ "conversationId": conversation, "content": "a", "messageType": "text" });
        answer = socket.command("send_message", data).await;
        if answer["ok"] == false {
            break;
        }
    }
    assert_eq!(answer["error"]["code"], "rate_limited", "{answer}");
    assert!(answer["error"]["retryAfter"].as_u64().is_some_and(|s| s >= 1), "{answer}");
}

/// Whoever of its participants floods it, a conversation has one allowance, and others have theirs.
#[tokio::test]
async fn a_flood_of_many_in_one_conversation_is_told_when_to_come_back() {
    let service = service::start("crowd", &[("conversation_burst", "5"), ("conversation_rate", "1")]).await;
    let (one, other, conversation) = service.pair().await;
    let body = json!({ "content": "a", "messageType": "text" });
    let mut refused = [0, 0];
    for n in 0..20 {
        let reply = [&one, &other][n % 2].client.post(&messages(&conversation), &body).await;
        if reply.status != 201 {
            reply.refuses("a flood of two", &[ErrorCode::RateLimited]);
            refused[n % 2] += 1;
        }
    }
    assert!(refused.iter().all(|count| *count >= 4), "{refused:?} of 10 each were refused");
    let groups = "/api/messages/conversations/group";
    let names = json!({ "name": "us", "participantIds": [other.account] });
    let group = one.client.post(groups, &names).await.json();
    let group = group["conversationId"].as_str().expect("an id").to_owned();
    one.says(&group, "elsewhere all goes on").await;
}

/// Also what makes no event, and what is refused only after the store was asked about everybody that it names.
#[tokio::test]
async fn whatever_asks_the_store_is_counted() {
    let service = service::start("counted", &[("account_burst", "5"), ("account_rate", "1")]).await;
    let (one, other, conversation) = service.pair().await;
    let groups = "/api/messages/conversations/group";
    let group = one.client.post(groups, &json!({ "name": "us", "participantIds": [] })).await.json();
    let group = group["conversationId"].as_str().expect("an id").to_owned();
    let block = format!("/api/messages/blocks/{}", one.account);
    assert_eq!(other.client.json("PUT", &block, "").await.status, 201);
    let names = json!({ "name": "us", "participantIds": [other.account] });
    for (method, path, body) in [
        ("POST", groups.to_owned(), &names),
        ("POST", format!("/api/messages/conversations/{group}/participants"), &names),
        (
            "PUT",
            format!("/api/messages/conversations/{conversation}"),
            &json!({ "mutedUntil": "2100-01-01T00:00:00Z" }),
        ),
        ("DELETE", format!("/api/messages/blocks/{}", other.account), &json!({})),
    ] {
        // At the same time, since one more is let in each second.
        let asked = (0..20).map(|_| one.client.json(method, &path, body.to_string()));
        let replies = futures_util::future::join_all(asked).await;
        for reply in replies.iter().filter(|reply| reply.status != 200) {
            let told = [ErrorCode::RecipientUnavailable, ErrorCode::NotFound, ErrorCode::RateLimited];
            reply.refuses(&path, &told);
        }
        assert!(replies.iter().any(|reply| reply.status == 429), "{method} {path} is not counted");
    }
}

#[tokio::test]
async fn a_full_group_is_told_to_who_may_add_with_a_pointer() {
    let service = service::start("full", &[("group_members", "3")]).await;
    let (one, other, _) = service.pair().await;
    let ids = |others: usize| {
        let ids: Vec<_> = (0..others).map(|_| uuid::Uuid::new_v4()).collect();
        json!({ "name": "us", "participantIds": ids })
    };
    let groups = "/api/messages/conversations/group";
    let reply = one.client.post(groups, &ids(3)).await;
    reply.refuses("four in a group of three", &[ErrorCode::GroupFull]);
    assert_eq!(reply.pointers(), ["/participantIds"]);
    let mut body = json!({ "name": "us", "participantIds": vec![other.account; 9] });
    let group = one.client.post(groups, &body).await;
    assert_eq!(group.status, 201, "one named nine times is one: {group:?}");
    let group = group.json()["conversationId"].as_str().expect("an id").to_owned();
    let adding = format!("/api/messages/conversations/{group}/participants");
    body = ids(9);
    let reply = one.client.post(&adding, &body).await;
    reply.refuses("nine more", &[ErrorCode::GroupFull]);
    assert_eq!(reply.pointers(), ["/participantIds"]);
    other.client.post(&adding, &body).await.refuses("a member", &[ErrorCode::Forbidden]);
    assert_eq!(one.client.post(&adding, &ids(1)).await.status, 200);
}

#[tokio::test]
async fn who_does_not_heed_refusals_is_sent_away() {
    let service = service::start("heedless", &[("account_burst", "5"), ("account_rate", "1")]).await;
    let (one, _, conversation) = service.pair().await;
    let mut socket = Socket::connect(&service, Some(&one.token)).await;
    for _ in 0..2_000 {
        let data = json!({ "conversationId": conversation });
        socket.send(json!({ "event": "typing_start", "data": data })).await;
    }
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4429, "{reason}");
    let reason: serde_json::Value = serde_json::from_str(&reason).expect("a JSON reason");
    assert!(reason["reconnectAfterMs"].as_u64().is_some_and(|ms| ms >= 1_000), "{reason}");
}

#[tokio::test]
async fn a_flood_of_patient_commands_is_bounded() {
    let service = service::start("patient", &[]).await;
    let (one, other, conversation) = service.pair().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(one.says(&conversation, "hello").await);
    }
    let mut socket = Socket::connect(&service, Some(&other.token)).await;
    for number in 0..500 {
        let data = json!({ "messageId": ids[number % 3] });
        socket.send(json!({ "event": "mark_read", "data": data, "ack": number })).await;
    }
    // Only so many wait beside each other, and the others in their turn: whoever marks much is not sent away.
    let mut answered = BTreeSet::new();
    while answered.len() < 500 {
        let frame = socket.next().await;
        if let Some(ack) = frame["ack"].as_u64() {
            assert_eq!(frame["data"]["ok"], true, "{frame}");
            answered.insert(ack);
        }
    }
    assert_eq!(one.reads(&conversation).await.len(), 3);
}

#[tokio::test]
async fn guesses_at_a_password_are_limited() {
    let service = service::start("guesses", &[("sign_in_burst", "3"), ("sign_in_rate", "1")]).await;
    let stranger = service.stranger();
    let body = json!({ "username": "somebody", "password": "wrong, surely" });
    let mut refused = 0;
    for _ in 0..12 {
        let reply = stranger.post("/api/auth/login", &body).await;
        reply.refuses("a guess", &[ErrorCode::WrongCredentials, ErrorCode::RateLimited]);
        refused += usize::from(reply.status == 429);
    }
    assert!(refused > 0, "guesses are not limited");
}

#[tokio::test]
async fn an_account_has_so_many_connections() {
    let service = service::start("connections", &[("connections_per_account", "3")]).await;
    let person = service.person();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Socket::connect(&service, Some(&person.token)).await);
    }
    let refused = Socket::try_connect(&service, Some(&person.token)).await.err().expect("refused");
    refused.refuses("one too many", &[ErrorCode::RateLimited]);
    let mut late = Socket::connect(&service, None).await;
    late.send(json!({ "event": "authenticate", "data": { "token": person.token } })).await;
    let (code, reason) = late.closed().await;
    assert_eq!(code, 4429, "{reason}");
    assert!(reason.contains("reconnectAfterMs"), "{reason}");
    assert!(open[0].is_well().await);
    drop(open.pop());
    let until = Instant::now() + Duration::from_secs(10);
    while Socket::try_connect(&service, Some(&person.token)).await.is_err() {
        assert!(Instant::now() < until, "its place is not free again");
    }
}

/// Half as many as the setting says may wait from one address, for ten seconds each; then there is room again. Others
/// find room all the while.
#[tokio::test]
async fn sockets_that_do_not_say_who_they_are() {
    const MOST: usize = 200;
    let most = (2 * MOST).to_string();
    let settings = [("sockets_unauthenticated", most.as_str()), ("trusted_proxies", "127.0.0.1")];
    let service = service::start("waiting", &settings).await;
    let mut waiting = Vec::with_capacity(MOST);
    let began = Instant::now();
    for _ in 0..MOST {
        waiting.push(Socket::connect(&service, None).await);
    }
    for _ in 0..20 {
        let refused = Socket::try_connect(&service, None).await.err().expect("one too many is let in");
        refused.refuses("one too many", &[ErrorCode::RateLimited]);
    }
    let mut elsewhere = websocket::UPGRADE.to_vec();
    elsewhere.push(("X-Forwarded-For", "192.0.2.7"));
    let mut others = Vec::new();
    while let Ok((other, _)) = Socket::upgrade(&service, &elsewhere).await {
        others.push(other);
    }
    assert_eq!(others.len(), MOST / 32, "a share of what is left");
    drop(others);
    let person = service.person();
    let mut known = Socket::connect(&service, Some(&person.token)).await;
    assert!(known.is_well().await, "who has a token is not held up");
    for socket in &mut waiting {
        // Pings are no answer to who it is.
        socket.message(Message::Ping(vec![1].into())).await;
    }
    for socket in &mut waiting {
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 4401, "{reason}");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(20), "closed after {took:?}");
    assert_eq!(service.shared.metrics.sockets_unauthenticated.get(), 0);
    let mut again = Socket::connect(&service, None).await;
    let token = json!({ "token": person.token });
    assert_eq!(again.command("authenticate", token).await["ok"], true);
}

/// Who does not read gets 4408 once it does, and misses nothing that history has.
#[tokio::test]
async fn a_slow_consumer_is_let_go() {
    // Several times what the buffers of both ends hold, of which the client's is small.
    const MESSAGES: usize = 120;
    let settings = [("outbox_frames", "16"), ("account_burst", "100000"), ("conversation_burst", "100000")];
    let service = service::start("slow", &settings).await;
    let (one, other, conversation) = service.pair().await;
    let mut slow = Socket::connect_with_buffer(&service, &other.token, 16_384).await;
    let began = Instant::now();
    let mut quick = Socket::connect(&service, Some(&other.token)).await;
    let before = service.shared.metrics.connections.get();
    let content = "x".repeat(60_000);
    let sending = async {
        for _ in 0..MESSAGES {
            one.says(&conversation, &content).await;
        }
    };
    let receiving = async {
        for _ in 0..MESSAGES {
            quick.event("new_message").await;
        }
    };
    tokio::join!(sending, receiving);
    let (code, reason) = slow.closed().await;
    // On a machine so slow that nothing was read for ten seconds there was nobody to tell.
    assert!(code == 4408 || code == 1006 && began.elapsed() > Duration::from_secs(10), "{code} {reason}");
    assert_eq!(before, 2);
    let page = other.client.get(&format!("{}?limit=100", messages(&conversation))).await.json();
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(100));
    assert!(quick.is_well().await, "the account's other connection goes on");
}

/// One that never reads and never says anything is let go too.
#[tokio::test]
async fn a_client_that_never_reads_is_dropped() {
    let settings = [("outbox_frames", "16"), ("account_burst", "100000"), ("conversation_burst", "100000")];
    let service = service::start("never", &settings).await;
    let (one, other, conversation) = service.pair().await;
    let _never_read = Socket::connect_with_buffer(&service, &other.token, 4_096).await;
    let until = Instant::now() + Duration::from_secs(40);
    let connections = || service.shared.metrics.connections.get();
    while connections() == 0 {
        assert!(Instant::now() < until, "it did not connect");
        tokio::task::yield_now().await;
    }
    let content = "x".repeat(60_000);
    while connections() > 0 {
        assert!(Instant::now() < until, "it is still held");
        let body = json!({ "content": content, "messageType": "text" });
        let sent = one.client.post(&messages(&conversation), &body).await;
        assert!(sent.status == 201 || sent.status == 429, "{sent:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
