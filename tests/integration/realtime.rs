//! What sockets are told: everything once, in order, to everybody whom it is for; fleeting things to those
//! who joined.

use crate::support::order;
use crate::support::person::{Person, Scene, token};
use crate::support::session::Session;
use reedi::edge_link::EdgeId;
use reedi::presence::PresencePort as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;

on_both!(
    every_session_gets_each_event_once,
    typing_is_told_to_those_who_joined,
    in_large_groups_nobody_is_told_who_types_or_is_there,
    presence_is_told_to_those_who_joined,
    presence_goes_by_who_takes_part,
    what_nobody_told_of_presence_is_told_within_a_refresh,
    whoever_hides_is_not_seen,
    who_is_blocked_sees_and_is_heard_no_more,
    large_groups_are_told_too,
    frames_that_are_wrong,
);

async fn every_session_gets_each_event_once(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let (group, direct) = (alice.group(&[&bob, &carol]).await, alice.direct(&bob).await);
    let mut sessions: Vec<Session> = Vec::new();
    for person in [&alice, &bob, &carol] {
        for edge in 0..3 {
            sessions.push(person.socket(edge).await);
        }
    }
    // Everybody talks at once, through every edge.
    let talking = sessions.iter().enumerate().map(|(n, session)| {
        let group = group.clone();
        async move {
            let mut ids = Vec::new();
            for k in 0..10 {
                let sent = session.send(&group, &format!("{n} says {k}")).await;
                ids.push(sent["messageId"].as_str().unwrap().to_owned());
            }
            ids
        }
    });
    let sent: BTreeSet<String> =
        futures_util::future::join_all(talking).await.into_iter().flatten().collect();
    assert_eq!(sent.len(), 90);
    alice.send(0, &direct, "between us").await;
    let last = alice.send(1, &group, "the end").await;
    for (n, session) in sessions.iter().enumerate() {
        session.message("the end").await;
        if n < 6 {
            session.message("between us").await;
        }
        let told = session.all("new_message");
        let ids: BTreeSet<String> = told
            .iter()
            .filter(|m| m["conversationId"] == group && m["messageId"] != last["messageId"])
            .map(|m| m["messageId"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids, sent);
        assert_eq!(told.len(), if n < 6 { 92 } else { 91 }, "each once");
        let keyed = |m: &&Value| m.get("clientMessageId").is_some();
        assert!(told.iter().filter(keyed).all(|m| m["senderId"] == ([&alice, &bob, &carol][n / 3]).id()));
        order::check(session);
    }
    // The same order for all.
    let order = |session: &Session| -> Vec<Value> {
        let of_group = session.all("new_message").into_iter().filter(|m| m["conversationId"] == group);
        of_group.map(|m| m["messageId"].clone()).collect()
    };
    let first = order(&sessions[0]);
    assert!(sessions.iter().all(|session| order(session) == first));
}

async fn typing_is_told_to_those_who_joined(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let join = json!({ "conversationId": group });
    let (typing, joined) = (alice.socket(0).await, bob.socket(1).await);
    let (beside, left) = (bob.socket(1).await, carol.socket(1).await);
    joined.ok("join_conversation", join.clone()).await;
    typing.ok("join_conversation", join.clone()).await;
    left.ok("join_conversation", join.clone()).await;
    left.ok("leave_conversation", join.clone()).await;
    typing.ok("typing_start", join.clone()).await;
    let told = joined.event("user_typing", |t| t["typing"] == true).await;
    assert_eq!(told, json!({ "conversationId": group, "userId": alice.id(), "typing": true }));
    typing.ok("typing_stop", join).await;
    joined.event("user_typing", |t| t["typing"] == false).await;
    alice.send(2, &group, "a bell").await;
    for session in [&beside, &left, &typing] {
        session.message("a bell").await;
        assert!(session.all("user_typing").is_empty());
    }
    assert_eq!(joined.all("user_typing").len(), 2);
}

/// Rule P11: typing and presence only up to so many participants.
async fn in_large_groups_nobody_is_told_who_types_or_is_there(scene: Scene) {
    let edge = scene.cluster.edge(&[("typing_members", "2"), ("presence_members", "2")]).await;
    let [alice, bob, carol] = scene.people();
    let (large, small) = (alice.group(&[&bob, &carol]).await, alice.group(&[&bob]).await);
    let typing = Session::open(&edge.url(), &alice.token).await;
    let joined = Session::open(&edge.url(), &bob.token).await;
    let [large_one, small_one] = [&large, &small].map(|group| json!({ "conversationId": group }));
    for session in [&typing, &joined] {
        let told = session.ok("join_conversation", large_one.clone()).await;
        assert_eq!(told["participants"], json!([]), "who is there is not told");
        let told = session.ok("join_conversation", small_one.clone()).await;
        assert_eq!(told["participants"].as_array().map(Vec::len), Some(1));
    }
    typing.ok("typing_start", large_one).await;
    typing.ok("typing_start", small_one).await;
    joined.event("user_typing", |t| t["conversationId"] == small.as_str()).await;
    alice.send(1, &large, "a bell").await;
    joined.message("a bell").await;
    assert_eq!(joined.all("user_typing").len(), 1);
    edge.leave().await;
}

/// Joins until `person` is seen as `status`: presence is told together, a moment later.
async fn seen_as(session: &Session, conversation: &str, person: &Person, status: &str) -> Value {
    let looking = async {
        loop {
            let joined = session.ok("join_conversation", json!({ "conversationId": conversation })).await;
            let list = joined["participants"].as_array().unwrap().clone();
            if let Some(found) =
                list.into_iter().find(|p| p["userId"] == person.id() && p["status"] == status)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(crate::support::cluster::WITHIN, looking).await.expect("it is told in time")
}

async fn presence_is_told_to_those_who_joined(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let (looking, beside) = (alice.socket(0).await, carol.socket(0).await);
    let joined = looking.ok("join_conversation", json!({ "conversationId": group })).await;
    assert_eq!(joined["participants"].as_array().unwrap().len(), 2, "all but oneself");
    seen_as(&looking, &group, &bob, "offline").await;
    let here = bob.socket(1).await;
    let told = looking.event("user_status_change", |s| s["userId"] == bob.id()).await;
    assert_eq!((&told["status"], &told["lastSeen"]), (&json!("online"), &Value::Null));
    seen_as(&looking, &group, &bob, "online").await;
    // Another session of the same account changes nothing, on whatever edge.
    let also = bob.socket(2).await;
    here.close().await;
    seen_as(&looking, &group, &bob, "online").await;
    also.kill();
    let told = looking.event("user_status_change", |s| s["status"] == "offline").await;
    assert!(told["lastSeen"].is_string(), "{told}");
    let offline = seen_as(&looking, &group, &bob, "offline").await;
    assert!(offline["lastSeen"].is_string(), "{offline}");
    alice.send(2, &group, "a bell").await;
    beside.message("a bell").await;
    assert!(beside.all("user_status_change").is_empty());
    let told = looking.all("user_status_change");
    assert_eq!(told.iter().filter(|s| s["userId"] == bob.id()).count(), 2, "{told:?}");
}

/// The `number`th time that `session` is told of `person`, counted from 1: their status.
async fn told_of(session: &Session, person: &Person, number: usize) -> Value {
    let times = std::cell::Cell::new(0);
    let is_nth = |data: &Value| {
        times.set(times.get() + usize::from(data["userId"] == person.id()));
        data["userId"] == person.id() && times.get() == number
    };
    session.event("user_status_change", is_nth).await["status"].clone()
}

async fn presence_goes_by_who_takes_part(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob]).await;
    let path = format!("/conversations/{group}/participants");
    let (a, b) = (alice.socket(0).await, bob.socket(1).await);
    a.ok("join_conversation", json!({ "conversationId": group })).await;
    b.ok("join_conversation", json!({ "conversationId": group })).await;
    // Who came after others joined is of interest to them.
    alice.at(2).post(&path, &json!({ "participantIds": [carol.id()] })).await.expect(200);
    a.event("participant_added", |p| p["userId"] == carol.id()).await;
    let there = carol.socket(2).await;
    assert_eq!(told_of(&a, &carol, 1).await, "online");
    // Who hides is gone at once, and back when seen again.
    let shown =
        |presence: &str| json!({ "messagesFrom": "everyone", "readReceipts": true, "presence": presence });
    carol.at(0).put("/settings", &shown("nobody")).await.expect(200);
    assert_eq!(told_of(&a, &carol, 2).await, "offline");
    carol.at(0).put("/settings", &shown("everyone")).await.expect(200);
    assert_eq!(told_of(&a, &carol, 3).await, "online");
    // Who went hears of nobody there any more.
    alice.at(2).delete(&format!("{path}/{}", bob.id())).await.expect(204);
    b.event("participant_removed", |p| p["userId"] == bob.id()).await;
    let of_carol = || b.all("user_status_change").iter().filter(|s| s["userId"] == carol.id()).count();
    let heard = of_carol();
    there.close().await;
    assert_eq!(told_of(&a, &carol, 4).await, "offline");
    let other = alice.direct(&bob).await;
    alice.send(0, &other, "a bell").await;
    b.message("a bell").await;
    assert_eq!(of_carol(), heard, "bob is no member");
}

async fn what_nobody_told_of_presence_is_told_within_a_refresh(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let looking = alice.socket(0).await;
    looking.ok("join_conversation", json!({ "conversationId": conversation })).await;
    // An edge that is killed before it tells that bob has come.
    let edge = scene.cluster.edges[0].member().edge.clone().expect("an edge");
    let (killed, bobs) = (EdgeId(rand::random()), [bob.account]);
    assert_eq!(edge.presence.hold(killed, &bobs, edge.clock.now()).await, [Ok(true)]);
    assert_eq!(told_of(&looking, &bob, 1).await, "online");
    // What it held has run out, and nobody tells that either.
    assert_eq!(edge.presence.leave(killed, &bobs, edge.clock.now()).await, [Ok(true)]);
    assert_eq!(told_of(&looking, &bob, 2).await, "offline");
}

async fn whoever_hides_is_not_seen(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let hidden = json!({ "messagesFrom": "everyone", "readReceipts": true, "presence": "nobody" });
    bob.at(1).put("/settings", &hidden).await.expect(200);
    let here = bob.socket(1).await;
    let looking = alice.socket(1).await;
    let joined = looking.ok("join_conversation", json!({ "conversationId": conversation })).await;
    assert_eq!(joined["participants"], json!([]));
    here.send(&conversation, "a bell").await;
    looking.message("a bell").await;
    here.kill();
    // Somebody who does not hide, seen on the same way later.
    let carol = scene.person();
    let other = alice.direct(&carol).await;
    looking.ok("join_conversation", json!({ "conversationId": other })).await;
    let _there = carol.socket(1).await;
    looking.event("user_status_change", |s| s["userId"] == carol.id()).await;
    assert!(looking.all("user_status_change").iter().all(|s| s["userId"] != bob.id()));
}

async fn who_is_blocked_sees_and_is_heard_no_more(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let (conversation, beside) = (alice.direct(&bob).await, carol.direct(&bob).await);
    let here = json!({ "conversationId": conversation });
    let (looking, looked_at) = (alice.socket(0).await, bob.socket(1).await);
    looking.ok("join_conversation", here.clone()).await;
    looked_at.ok("join_conversation", here.clone()).await;
    looking.ok("typing_start", here.clone()).await;
    looked_at.event("user_typing", |t| t["userId"] == alice.id()).await;
    bob.at(2).put(&format!("/blocks/{}", alice.id()), &Value::Null).await.expect(201);
    looking.event("user_status_change", |s| s["userId"] == bob.id() && s["status"] == "offline").await;
    // As if it were told.
    looking.ok("typing_stop", here.clone()).await;
    // What is told later has come, and the typing before it has not.
    let there = json!({ "conversationId": beside });
    looked_at.ok("join_conversation", there.clone()).await;
    carol.socket(0).await.ok("typing_start", there).await;
    looked_at.event("user_typing", |t| t["userId"] == carol.id()).await;
    assert_eq!(looked_at.all("user_typing").iter().filter(|t| t["userId"] == alice.id()).count(), 1);
    let again = alice.socket(2).await.ok("join_conversation", here).await;
    assert_eq!(again["participants"], json!([]));
}

async fn large_groups_are_told_too(scene: Scene) {
    let alice = scene.person();
    let others: [Person; 40] = scene.people();
    let group = alice.group(&others.iter().collect::<Vec<_>>()).await;
    let (first, last) = (others[0].socket(1).await, others[39].socket(2).await);
    let sending = alice.socket(0).await;
    for n in 0..20 {
        sending.send(&group, &format!("to many {n}")).await;
    }
    for session in [&first, &last, &sending] {
        session.message("to many 19").await;
        assert_eq!(session.all("new_message").len(), 20);
        order::check(session);
    }
    // A receipt in a group of this size is kept and not told.
    let newest = first.message("to many 19").await;
    first.ok("mark_read", json!({ "messageId": newest["messageId"] })).await;
    let path = format!("/messages/{}/receipts", newest["messageId"].as_str().unwrap());
    let receipts = alice.at(0).get(&path).await.expect(200).list("receipts");
    assert_eq!(receipts.len(), 40);
    assert_eq!(receipts.iter().filter(|r| r["readAt"].is_string()).count(), 1);
    let list = others[39].at(2).get("/conversations").await.expect(200).list("conversations");
    assert_eq!(
        (&list[0]["unreadCount"], &list[0]["lastMessage"]["content"]),
        (&json!(20), &json!("to many 19"))
    );
    let body = json!({ "participantIds": [scene.person().id()] });
    alice.at(0).post(&format!("/conversations/{group}/participants"), &body).await.expect(200);
    alice.at(1).delete(&format!("/conversations/{group}/participants/{}", others[0].id())).await.expect(204);
    first.event("participant_removed", |p| p["userId"] == others[0].id()).await;
    alice.send(2, &group, "to fewer").await;
    last.message("to fewer").await;
    order::check(&last);
    assert!(first.all("new_message").iter().all(|m| m["content"] != "to fewer"));
    let returning = others[5].socket(0).await;
    let empty = reedi_protocol::Checkpoint::default().to_string();
    returning.resume(Some(&empty), json!({})).await;
    returning.message("to fewer").await;
    order::check(&returning);
}

async fn frames_that_are_wrong(scene: Scene) {
    let alice = scene.person();
    let socket = alice.socket(0).await;
    let mut count = 0;
    for (frame, code) in [
        ("{", "malformed"),
        ("[1]", "malformed"),
        (r#"{"event":"join_conversation","data":{"conversationId":7}}"#, "malformed"),
        (r#"{"event":"join_conversation","data":{"conversationId":"x"}}"#, "invalid_value"),
        (r#"{"event":"nothing","data":{}}"#, "unknown_event"),
    ] {
        socket.raw(frame).await;
        count += 1;
        assert_eq!(socket.nth("error", count).await["code"], code, "{frame}");
    }
    assert!(socket.is_open(), "one bad frame is a mistake to tell");
    socket.raw(&" ".repeat(256 * 1_024 + 1)).await;
    assert_eq!(socket.closed().await.code, Some(1009));
    let expired = alice.socket_with(1, &token(alice.account, None, -20)).await;
    assert!(expired.is_open(), "within the leeway");
}
