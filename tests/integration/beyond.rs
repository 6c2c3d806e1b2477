//! Places that the log has not come to: a client that names one is told so at once, instead of to try again.

use crate::support::person::Scene;
use reedi_protocol::{Checkpoint, ConversationId, Epoch, Position};
use serde_json::{Value, json};

on_both!(a_place_beyond_the_log_is_refused, a_place_that_was_taken_just_now_is_not_refused);

fn position(sent: &Value) -> Position {
    Position::from_u64(sent["position"].as_u64().expect("a position")).expect("one of ours")
}

async fn a_place_beyond_the_log_is_refused(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let id: ConversationId = conversation.parse().unwrap();
    let last = position(&alice.send(0, &conversation, "the last").await);
    let epoch = last.epoch().expect("of an epoch");
    // Other tests append meanwhile, and not as much.
    let beyond = Position::new(epoch, last.sequence() + 10_000_000).unwrap();
    let to_come = Position::new(Epoch::new(epoch.number() + 1).expect("an epoch"), 1).unwrap();
    let session = bob.socket(1).await;
    for place in [beyond, to_come] {
        let events = format!("/conversations/{conversation}/events?after={}", place.as_u64());
        bob.at(1).get(&events).await.invalid("?after");
        let message = id.key().event_id(place);
        for mode in ["before", "after", "around"] {
            let history = format!("/conversations/{conversation}/messages?{mode}={message}");
            bob.at(2).get(&history).await.invalid(&format!("?{mode}"));
        }
        let mut checkpoint = Checkpoint::default();
        checkpoint.set(id.key().shard(), place);
        let refused = session.command("resume", json!({ "checkpoint": checkpoint.to_string() })).await;
        assert_eq!(refused["error"]["code"], "invalid_value", "{refused}");
        assert_eq!(refused["error"]["pointer"], "/checkpoint", "{refused}");
        let cursors = json!({ &conversation: place.as_u64() });
        let checkpoint = Checkpoint::default().to_string();
        let refused =
            session.command("resume", json!({ "checkpoint": checkpoint, "cursors": cursors })).await;
        assert_eq!(refused["error"]["code"], "invalid_value", "{refused}");
        assert_eq!(refused["error"]["pointer"], format!("/cursors/{conversation}"), "{refused}");
        // A message that is not there is not there.
        bob.at(0).get(&format!("/messages/{message}/receipts")).await.refused(404, "not_found");
    }
    // The connection is none the worse for it.
    session.resume(Some(&Checkpoint::default().to_string()), json!({})).await;
    session.message("the last").await;
}

/// Another edge may know nothing yet of what one has just acknowledged.
async fn a_place_that_was_taken_just_now_is_not_refused(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let id: ConversationId = conversation.parse().unwrap();
    let sending = alice.socket(0).await;
    for n in 0..20 {
        let sent = sending.send(&conversation, &format!("number {n}")).await;
        let place = position(&sent);
        let (edge, other) = (1 + n % 2, 2 - n % 2);
        let events = format!("/conversations/{conversation}/events?after={}", place.as_u64());
        let after = bob.at(edge).get(&events).await.expect(200);
        assert!(after.body["completeTo"].as_u64().unwrap() >= place.as_u64(), "{:?}", after.body);
        let around = format!("/conversations/{conversation}/messages?around={}", id.key().event_id(place));
        let page = bob.at(other).get(&around).await.expect(200);
        assert_eq!(page.list("messages")[0]["content"], format!("number {n}"));
        let mut checkpoint = Checkpoint::default();
        checkpoint.set(id.key().shard(), place);
        let session = bob.socket(edge).await;
        session.ok("resume", json!({ "checkpoint": checkpoint.to_string() })).await;
        session.close().await;
    }
}
