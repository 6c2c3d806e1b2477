//! The supervised client against a server that does what each test tells it.

mod support;

use reedi_client::{AuthenticateBy, Endpoint, RawConnection, Socket, SocketOptions};
use reedi_client::{Client, ClientBuilder, Ended, Link, Update, Updates};
use reedi_protocol::event::Lack;
use reedi_protocol::{Checkpoint, CloseCode, ConversationId, ConversationKey, Epoch, Position, Shard};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Peer, Server, next_event, until};

fn conversation() -> ConversationId {
    ConversationKey::from_u64(0x0900_0000_0000_0001).conversation_id()
}

fn position(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).unwrap()
}

fn message_id(sequence: u64) -> String {
    conversation().key().event_id(position(sequence)).to_string()
}

fn checkpoint(sequence: u64) -> String {
    let mut checkpoint = Checkpoint::default();
    Shard::all().for_each(|shard| checkpoint.set(shard, position(sequence)));
    checkpoint.to_string()
}

fn new_message(sequence: u64, previous: u64) -> Value {
    json!({"event": "new_message", "data": {
        "messageId": message_id(sequence), "conversationId": conversation(),
        "senderId": support::ACCOUNT, "content": "x", "messageType": "text",
        "timestamp": "2025-01-01T00:00:00.000Z", "position": position(sequence),
        "previousPosition": position(previous), "reactions": []
    }})
}

fn acknowledge(command: &Value, sequence: u64) -> Value {
    let fields =
        json!({"ok": true, "messageId": message_id(sequence), "timestamp": "2025-01-01T00:00:00.000Z"});
    json!({"ack": command["ack"], "data": fields})
}

fn client(server: &Server) -> ClientBuilder {
    Client::builder(&server.url())
        .token(support::token())
        .reconnect(Duration::from_millis(10), Duration::from_millis(50))
}

/// Takes the resume that each connection begins with, and answers it.
async fn resume(peer: &mut Peer, upto: u64) -> Value {
    let resume = peer.command("resume").await;
    peer.send(json!({"ack": resume["ack"], "data": {"ok": true}})).await;
    peer.send(json!({"event": "resume_complete", "data": {"checkpoint": checkpoint(upto)}})).await;
    resume["data"].clone()
}

#[tokio::test]
async fn a_message_whose_answer_is_lost_goes_again_with_its_id_and_is_not_overtaken() {
    let mut server = Server::start().await;
    let (client, _updates) = client(&server).connect().await.unwrap();
    let first = client.send(conversation(), "one").unwrap();
    let second = client.send(conversation(), "two").unwrap();

    let mut peer = server.accept().await;
    assert_eq!(peer.authorization, format!("Bearer {}", support::token().expose()));
    resume(&mut peer, 1).await;
    let lost = peer.command("send_message").await;
    assert_eq!(lost["data"]["content"], "one");
    drop(peer);

    let mut peer = server.accept().await;
    resume(&mut peer, 1).await;
    let again = peer.command("send_message").await;
    assert_eq!(again["data"], lost["data"], "the same id and the same request");
    let refusal = json!({"code": "outcome_unknown", "message": "", "retryAfter": 0});
    peer.send(json!({"ack": again["ack"], "data": {"ok": false, "error": refusal}})).await;
    let again = peer.command("send_message").await;
    assert_eq!(again["data"], lost["data"]);
    peer.send(acknowledge(&again, 2)).await;
    let next = peer.command("send_message").await;
    assert_eq!(next["data"]["content"], "two");
    peer.send(acknowledge(&next, 3)).await;

    assert_eq!(first.await.unwrap().message_id.to_string(), message_id(2));
    assert_eq!(second.await.unwrap().message_id.to_string(), message_id(3));
    client.flushed().await;
    client.close().await;
}

#[tokio::test]
async fn a_connection_resumes_from_where_the_last_one_was() {
    let mut server = Server::start().await;
    let (_client, mut updates) = client(&server).connect().await.unwrap();
    let mut peer = server.accept().await;
    assert_eq!(resume(&mut peer, 4).await, json!({}), "a new client has nothing to resume from");
    peer.send(new_message(5, 4)).await;
    assert_eq!(next_event(&mut updates).await.place().unwrap().1.position, position(5));
    peer.close(1012, r#"{"reconnectAfterMs":300}"#).await;
    let closed_at = Instant::now();

    let mut peer = server.accept().await;
    assert!(closed_at.elapsed() >= Duration::from_millis(300), "it waits as told");
    peer.send(new_message(7, 6)).await;
    let resumed = peer.command("resume").await;
    let expected = json!({"checkpoint": checkpoint(4), "cursors": {conversation().to_string(): position(5)}});
    assert_eq!(resumed["data"], expected);
    peer.send(new_message(5, 4)).await;
    peer.send(new_message(6, 5)).await;
    peer.send(json!({"event": "resume_complete", "data": {"checkpoint": checkpoint(7)}})).await;
    for sequence in [6, 7] {
        assert_eq!(next_event(&mut updates).await.place().unwrap().1.position, position(sequence));
    }
    until(&mut updates, |update| matches!(update, Update::Link(Link::CaughtUp))).await;
}

#[tokio::test]
async fn a_resume_that_has_to_wait_for_the_store_is_asked_for_again() {
    let mut server = Server::start().await;
    let (_client, mut updates) = client(&server).connect().await.unwrap();
    let mut peer = server.accept().await;
    let asked = peer.command("resume").await;
    peer.send(json!({"ack": asked["ack"], "data": {"ok": true}})).await;
    peer.send(json!({"event": "resume_pending", "data": {"reason": "the store is away"}})).await;
    // It may be the first after a gap: kept back until the server says that all is told.
    peer.send(new_message(6, 5)).await;
    assert_eq!(resume(&mut peer, 4).await, asked["data"], "on the same connection, from the same place");
    peer.send(new_message(5, 4)).await;
    peer.send(new_message(6, 5)).await;
    for sequence in [5, 6] {
        assert_eq!(next_event(&mut updates).await.place().unwrap().1.position, position(sequence));
    }
}

#[tokio::test]
async fn a_client_that_was_killed_leaves_its_outbox_and_progress_to_the_next() {
    let folder = support::folder("killed");
    let mut server = Server::start().await;
    let (first, mut updates) = client(&server).state_dir(Some(folder.clone())).connect().await.unwrap();
    let ticket = first.send(conversation(), "kept").unwrap();
    let id = ticket.client_message_id().to_owned();
    let mut peer = server.accept().await;
    resume(&mut peer, 4).await;
    peer.send(new_message(5, 4)).await;
    next_event(&mut updates).await;
    let in_use = client(&server).state_dir(Some(folder.clone())).connect().await;
    assert!(in_use.is_err(), "two clients of one folder would double messages");
    first.close().await;
    until(&mut updates, |update| matches!(update, Update::Ended(Ended::Closed))).await;
    assert!(updates.recv().await.is_none());
    assert!(ticket.await.is_err());

    let (second, mut updates) = client(&server).state_dir(Some(folder)).connect().await.unwrap();
    assert_eq!(second.unsent(), 1);
    let mut peer = server.accept().await;
    let resumed = resume(&mut peer, 9).await;
    assert_eq!(resumed["cursors"], json!({conversation().to_string(): position(5)}));
    let again = peer.command("send_message").await;
    assert_eq!(again["data"]["clientMessageId"], id);
    let refusal = json!({"code": "recipient_unavailable", "message": "no"});
    peer.send(json!({"ack": again["ack"], "data": {"ok": false, "error": refusal}})).await;
    until(&mut updates, |update| matches!(update, Update::NotSent { .. })).await;
    assert_eq!(second.unsent(), 0);
}

#[tokio::test]
async fn close_codes_that_forbid_to_come_back_end_the_client() {
    for (code, expected) in [
        (4409, Ended::Replaced),
        (4400, Ended::ProtocolViolation("why".into())),
        (4401, Ended::SignInAgain("closed by the server with 4401 why".into())),
        (4403, Ended::SignInAgain("closed by the server with 4403 why".into())),
    ] {
        let mut server = Server::start().await;
        let (client, mut updates) = client(&server).connect().await.unwrap();
        let mut peer = server.accept().await;
        peer.command("resume").await;
        peer.close(code, "why").await;
        let ended = until(&mut updates, |update| matches!(update, Update::Ended(_))).await;
        assert!(matches!(ended, Update::Ended(ended) if ended == expected), "{code}");
        assert!(client.send(conversation(), "x").is_err());
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let mut server = Server::start().await;
    let soon = Duration::from_millis(60);
    let (_client, _updates) = client(&server).liveness(soon, soon).connect().await.unwrap();
    let mut peer = server.accept().await;
    resume(&mut peer, 1).await;
    // The peer does not read, so that it answers no ping.
    let mut next = server.accept().await;
    resume(&mut next, 1).await;
    drop(peer);
}

#[tokio::test]
async fn a_receipt_is_given_until_the_server_has_it() {
    let mut server = Server::start().await;
    let (client, _updates) = client(&server).connect().await.unwrap();
    client.mark_read(message_id(3).parse().unwrap());
    let mut peer = server.accept().await;
    assert_eq!(peer.command("mark_read").await["data"]["messageId"], message_id(3));
    client.mark_read(message_id(5).parse().unwrap());
    drop(peer);
    let mut peer = server.accept().await;
    let mark = peer.command("mark_read").await;
    assert_eq!(mark["data"]["messageId"], message_id(5), "one stands for all earlier messages");
    peer.send(json!({"ack": mark["ack"], "data": {"ok": true}})).await;
    let typing = async {
        client.typing(conversation(), true);
        peer.command("typing_start").await
    };
    assert_eq!(typing.await["data"]["conversationId"], conversation().to_string());
}

#[tokio::test]
async fn an_application_that_is_slow_loses_nothing() {
    let mut server = Server::start().await;
    let (_client, mut updates) = client(&server)
        .liveness(Duration::from_millis(30), Duration::from_millis(30))
        .connect()
        .await
        .unwrap();
    let mut peer = server.accept().await;
    resume(&mut peer, 1).await;
    let pushing = tokio::spawn(async move {
        for sequence in 2..5_000 {
            peer.send(new_message(sequence, sequence - 1)).await;
        }
        peer
    });
    // sleeps: longer than the silence that it takes to give a server up.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for sequence in 2..5_000 {
        assert_eq!(next_event(&mut updates).await.place().unwrap().1.position, position(sequence));
    }
    pushing.await.unwrap();
}

#[tokio::test]
async fn a_raw_connection_carries_frames_both_ways_and_tells_its_end() {
    let mut server = Server::start().await;
    let endpoint = Endpoint::parse(&server.url()).unwrap();
    let options = SocketOptions { authenticate_by: AuthenticateBy::Frame, ..SocketOptions::default() };
    let token = support::token();
    let (socket, mut peer) = tokio::join!(Socket::open(&endpoint, Some(&token), &options), server.accept());
    assert_eq!(peer.authorization, "", "the token goes in a frame");
    let (seen, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let raw = RawConnection::spawn(socket.unwrap(), 8, move |text| {
        seen.send(text.to_owned()).unwrap();
    });
    raw.try_send(r#"{"event":"typing_start"}"#.into()).unwrap();
    assert_eq!(peer.command("authenticate").await["data"]["token"], token.expose());
    peer.command("typing_start").await;
    peer.send(json!({"ack": 1})).await;
    assert_eq!(frames.recv().await.unwrap(), r#"{"ack":1}"#);
    peer.close(4408, "slow").await;
    assert_eq!(raw.ended().await.close_code(), Some(CloseCode::SlowConsumer));
}

#[tokio::test]
async fn what_a_server_lacks_is_told_until_it_does_not_or_another_one_answers() {
    let mut server = Server::start().await;
    let (_client, mut updates) = client(&server).connect().await.unwrap();
    let mut peer = server.accept().await;
    let degraded = |lacks: &[&str]| json!({"event": "degraded", "data": {"degraded": !lacks.is_empty(), "lacks": lacks}});
    let lacking = async |updates: &mut Updates| match until(updates, |u| matches!(u, Update::Lacks(_))).await
    {
        Update::Lacks(lacks) => lacks,
        other => panic!("{other:?}"),
    };
    peer.send(degraded(&["sends"])).await;
    assert_eq!(lacking(&mut updates).await, [Lack::Sends]);
    peer.send(degraded(&["sends", "history"])).await;
    assert_eq!(lacking(&mut updates).await, [Lack::Sends, Lack::History]);
    peer.send(degraded(&[])).await;
    assert_eq!(lacking(&mut updates).await, []);
    peer.send(degraded(&["history"])).await;
    assert_eq!(lacking(&mut updates).await, [Lack::History]);
    // A server that lacks nothing says nothing.
    peer.close(1001, "").await;
    let _peer = server.accept().await;
    assert_eq!(lacking(&mut updates).await, []);
}
