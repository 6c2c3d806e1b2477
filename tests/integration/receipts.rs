//! Who has received and read what, and who is told.

use crate::support::order;
use crate::support::person::{Person, Scene};
use serde_json::{Value, json};

on_both!(
    the_sender_is_told,
    each_participant_has_a_receipt,
    whoever_keeps_it_private_is_not_told_of,
    receipts_are_told_once_however_many_marks,
    a_receipt_that_concerns_nobody_else_hides_nothing,
    more_delivered_than_read_is_told_as_both,
);

async fn receipts(of: &Person, edge: usize, id: &Value) -> Vec<Value> {
    let path = format!("/messages/{}/receipts", id.as_str().unwrap());
    of.at(edge).get(&path).await.expect(200).list("receipts")
}

async fn the_sender_is_told(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let (phone, laptop) = (alice.socket(0).await, alice.socket(1).await);
    let (reading, beside) = (bob.socket(2).await, bob.socket(0).await);
    let one = phone.send(&conversation, "one").await["messageId"].clone();
    let two = phone.send(&conversation, "two").await["messageId"].clone();
    reading.message("two").await;
    assert_eq!(
        receipts(&alice, 0, &one).await,
        [json!({ "userId": bob.id(), "deliveredAt": null, "readAt": null })]
    );
    reading.ok("mark_delivered", json!({ "messageId": two })).await;
    for session in [&phone, &laptop] {
        let told = session.event("message_delivered", |d| d["userId"] == bob.id()).await;
        assert_eq!((&told["messageId"], &told["conversationId"]), (&two, &json!(conversation)));
        let read = receipts(&alice, 0, &one).await;
        assert_eq!(read[0]["deliveredAt"], told["deliveredAt"], "it stands for all earlier ones");
        assert_eq!(read[0]["readAt"], Value::Null);
    }
    reading.ok("mark_read", json!({ "messageId": one })).await;
    for session in [&phone, &laptop, &beside, &reading] {
        let told = session.event("message_read", |d| d["messageId"] == one).await;
        assert_eq!(told["userId"], bob.id());
    }
    assert_eq!(receipts(&alice, 1, &two).await[0]["readAt"], Value::Null);
    let by_bob = receipts(&bob, 2, &one).await;
    assert_eq!(by_bob.len(), 1, "all but the sender: {by_bob:?}");
    alice.send(1, &conversation, "a bell").await;
    beside.message("a bell").await;
    assert!(beside.all("message_delivered").is_empty(), "that is for the sender");
    for session in [phone, laptop, reading, beside] {
        order::check(&session);
    }
}

async fn each_participant_has_a_receipt(scene: Scene) {
    let [alice, bob, carol, dave] = scene.people();
    let group = alice.group(&[&bob, &carol, &dave]).await;
    let (a, b, c, d) =
        (alice.socket(0).await, bob.socket(1).await, carol.socket(2).await, dave.socket(0).await);
    let of_alice = a.send(&group, "from alice").await["messageId"].clone();
    let of_dave = d.send(&group, "from dave").await["messageId"].clone();
    b.message("from dave").await;
    c.message("from dave").await;
    b.ok("mark_read", json!({ "messageId": of_dave })).await;
    c.ok("mark_delivered", json!({ "messageId": of_alice })).await;
    // What bob read covers a message of each of them.
    for session in [&a, &d] {
        session.event("message_read", |r| r["userId"] == bob.id() && r["messageId"] == of_dave).await;
    }
    a.event("message_delivered", |r| r["userId"] == carol.id()).await;
    let standing = receipts(&alice, 0, &of_alice).await;
    assert_eq!(standing.len(), 3);
    let of = |person: &Person| standing.iter().find(|r| r["userId"] == person.id()).unwrap();
    assert!(of(&bob)["readAt"].is_string() && of(&bob)["deliveredAt"].is_string());
    assert!(of(&carol)["deliveredAt"].is_string() && of(&carol)["readAt"].is_null());
    // Whoever writes has read what was before.
    let dave_wrote = of(&dave).clone();
    assert!(dave_wrote["readAt"].is_null(), "that is for one's own unread count: {dave_wrote}");
    assert_eq!(receipts(&carol, 2, &of_dave).await.len(), 3);
    a.send(&group, "a bell").await;
    d.message("a bell").await;
    assert!(d.all("message_delivered").is_empty(), "carol received only what alice wrote");
    for session in [&a, &b, &c, &d] {
        order::check(session);
    }
}

async fn whoever_keeps_it_private_is_not_told_of(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let settings = json!({ "messagesFrom": "everyone", "readReceipts": false, "presence": "everyone" });
    bob.at(2).put("/settings", &settings).await.expect(200);
    let (sending, reading, beside) = (alice.socket(0).await, bob.socket(2).await, bob.socket(1).await);
    let id = sending.send(&conversation, "secret reader").await["messageId"].clone();
    reading.message("secret reader").await;
    reading.ok("mark_read", json!({ "messageId": id })).await;
    beside.event("message_read", |r| r["messageId"] == id).await;
    reading.send(&conversation, "a bell").await;
    sending.message("a bell").await;
    assert!(sending.all("message_read").is_empty() && sending.all("message_delivered").is_empty());
    let told = receipts(&alice, 0, &id).await;
    assert_eq!(told, [json!({ "userId": bob.id(), "deliveredAt": null, "readAt": null })]);
    scene.cluster.stored(&conversation).await;
    assert!(receipts(&bob, 1, &id).await[0]["readAt"].is_string(), "one's own is shown");
}

/// The schedule: what bob newly reads was written by nobody who could be told.
async fn a_receipt_that_concerns_nobody_else_hides_nothing(scene: Scene) {
    let [alice, bob] = scene.people();
    let group = alice.group(&[&bob]).await;
    let (a, b) = (alice.socket(0).await, bob.socket(1).await);
    let of_alice = a.send(&group, "from alice").await["messageId"].clone();
    b.message("from alice").await;
    b.ok("mark_read", json!({ "messageId": of_alice })).await;
    let own = b.send(&group, "from bob").await["messageId"].clone();
    b.ok("mark_delivered", json!({ "messageId": own })).await;
    b.ok("mark_read", json!({ "messageId": own })).await;
    scene.cluster.stored(&group).await;
    let of_bob = &receipts(&alice, 2, &of_alice).await[0];
    assert!(of_bob["deliveredAt"].is_string() && of_bob["readAt"].is_string(), "{of_bob}");
    assert!(b.all("message_delivered").is_empty(), "that is for senders");
    order::check(&b);
}

async fn more_delivered_than_read_is_told_as_both(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let (a, b) = (alice.socket(0).await, bob.socket(1).await);
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(a.send(&conversation, &n.to_string()).await["messageId"].clone());
    }
    b.message("2").await;
    b.ok("mark_read", json!({ "messageId": ids[0] })).await;
    // Within the two seconds after the first these go together.
    let (delivered, read) = (json!({ "messageId": ids[2] }), json!({ "messageId": ids[1] }));
    tokio::join!(b.ok("mark_delivered", delivered), b.ok("mark_read", read));
    a.event("message_delivered", |d| d["messageId"] == ids[2]).await;
    a.event("message_read", |r| r["messageId"] == ids[1]).await;
    order::check(&a);
}

async fn receipts_are_told_once_however_many_marks(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let (sending, reading) = (alice.socket(0).await, bob.socket(1).await);
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(sending.send(&conversation, &n.to_string()).await["messageId"].clone());
    }
    reading.message("9").await;
    let marking = ids.iter().map(|id| reading.ok("mark_read", json!({ "messageId": id })));
    futures_util::future::join_all(marking).await;
    reading.ok("mark_read", json!({ "messageId": ids[3] })).await;
    reading.send(&conversation, "a bell").await;
    sending.message("a bell").await;
    let told = sending.all("message_read");
    assert!(told.len() <= 2, "at most one in two seconds: {told:?}");
    assert_eq!(told.last().unwrap()["messageId"], ids[9]);
    order::check(&sending);
}
