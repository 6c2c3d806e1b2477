//! Coming back: what was missed, once and in order, then live.

use crate::support::order;
use crate::support::person::{Person, Scene};
use crate::support::session::Session;
use reedi::domain::write::Write;
use reedi::store::Writes as _;
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{Checkpoint, ConversationId, ConversationKey, Epoch, Position};
use serde_json::{Value, json};
use tokio::sync::watch;

on_both!(
    what_was_missed_comes_in_order,
    a_receipt_alone_is_missed_too,
    nothing_falls_between_missed_and_live,
    cursors_say_what_is_known,
    cursors_alone_are_gone_on_from,
    too_much_is_a_reset,
    a_checkpoint_comes_by_itself,
    without_resume_only_what_is_new,
    no_conversation_is_cut_off,
);

/// Comes, hears that it is complete, and goes. Gives the checkpoint.
async fn visit(person: &Person, edge: usize) -> String {
    let session = person.socket(edge).await;
    let checkpoint = session.resume(None, json!({})).await;
    session.close().await;
    checkpoint
}

fn names(session: &Session) -> Vec<String> {
    let of_the_connection = ["checkpoint", "degraded"];
    session
        .events()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|n| !of_the_connection.contains(&&**n))
        .collect()
}

async fn what_was_missed_comes_in_order(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let direct = alice.direct(&bob).await;
    let group = alice.group(&[&bob]).await;
    let mine = bob.send(1, &direct, "from bob").await["messageId"].clone();
    let checkpoint = visit(&bob, 0).await;

    let (away, other) = (alice.socket(1).await, carol.socket(2).await);
    let one = away.send(&direct, "one").await["messageId"].clone();
    away.ok("mark_read", json!({ "messageId": mine })).await;
    away.ok("edit_message", json!({ "messageId": one, "content": "one!" })).await;
    away.ok("add_reaction", json!({ "messageId": one, "reaction": "👍" })).await;
    let two = away.send(&direct, "two").await["messageId"].clone();
    away.ok("delete_message", json!({ "messageId": two, "scope": "everyone" })).await;
    alice.at(1).put(&format!("/conversations/{group}"), &json!({ "name": "Renamed" })).await.expect(200);
    let fresh = carol.group(&[&bob]).await;
    other.send(&fresh, "welcome").await;
    alice.at(2).delete(&format!("/conversations/{group}/participants/{}", bob.id())).await.expect(204);
    alice.send(0, &group, "without bob").await;

    let back = bob.socket(2).await;
    let checkpoint_now = back.resume(Some(&checkpoint), json!({})).await;
    let of = |conversation: &str| -> Vec<String> {
        let events = back.events().into_iter().filter(|(_, data)| data["conversationId"] == conversation);
        events.map(|(name, _)| name).collect()
    };
    assert_eq!(
        of(&direct),
        ["new_message", "message_read", "message_edited", "reaction_added", "new_message", "message_deleted"]
    );
    assert_eq!(of(&fresh), ["conversation_created", "new_message"]);
    assert_eq!(of(&group), ["conversation_updated", "new_message", "participant_removed"]);
    let told = back.events();
    assert!(
        told.iter().all(|(_, data)| data["content"] != "two" && data["content"] != "without bob"),
        "{told:?}"
    );
    let edited = back.event("message_edited", |d| d["messageId"] == one).await;
    assert_eq!(edited["content"], "one!");
    assert_eq!(names(&back).last().unwrap(), "resume_complete");
    order::check(&back);
    away.send(&direct, "live").await;
    back.message("live").await;
    back.close().await;
    // From there on, and again from there: only what is new.
    let again = bob.socket(0).await;
    again.resume(Some(&checkpoint_now), json!({})).await;
    assert_eq!(again.all("new_message").len(), 1);
    order::check(&again);
    assert_eq!(again.refused("resume", json!({ "checkpoint": "x" })).await, "invalid_value");
    assert_eq!(again.refused("resume", json!({ "cursors": { "x": 7 } })).await, "invalid_value");
}

/// It is no activity and moves no conversation's head; those whom it concerns are told of it all the same.
async fn a_receipt_alone_is_missed_too(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let message = alice.send(0, &group, "have you read this?").await["messageId"].clone();
    let (writers, readers) = (visit(&alice, 1).await, visit(&bob, 1).await);
    bob.socket(2).await.ok("mark_read", json!({ "messageId": message })).await;
    for (who, checkpoint) in [(&alice, writers), (&bob, readers)] {
        let back = who.socket(0).await;
        back.resume(Some(&checkpoint), json!({})).await;
        assert_eq!(names(&back), ["message_read", "resume_complete"]);
        assert_eq!(back.all("message_read")[0]["userId"], bob.id());
    }
    let other = carol.socket(0).await;
    other.resume(Some(&Checkpoint::default().to_string()), json!({})).await;
    assert!(other.all("message_read").is_empty(), "it concerns the one who wrote the message");
}

/// What a resume replayed. On a machine that is too busy to ask for it within the time that live frames
/// wait, some of them come before it, and again in it, which begins further back.
fn replayed(session: &Session) -> Vec<(String, Value)> {
    let events = session.events();
    let end = events.iter().position(|(name, _)| name == "resume_complete").expect("it is complete");
    let durable: Vec<_> =
        events[..end].iter().filter(|(_, data)| data["position"].is_u64()).cloned().collect();
    let position = |n: usize| durable[n].1["position"].as_u64().unwrap();
    // Where a single one came live before, the replay begins with the same.
    let goes_back = |n: &usize| {
        position(*n) < position(*n - 1)
            || (position(*n) == position(*n - 1) && durable[*n].0 == durable[*n - 1].0)
    };
    let begins: Vec<usize> = (1..durable.len()).filter(goes_back).collect();
    match begins.as_slice() {
        [] => durable,
        [begin] => {
            let same = |(name, data): &(String, Value)| {
                // Only a replay names what came before in every case.
                let mut data = data.clone();
                data.as_object_mut().unwrap().remove("previousPosition");
                (name.clone(), data)
            };
            let in_replay: Vec<_> = durable[*begin..].iter().map(same).collect();
            assert!(durable[..*begin].iter().all(|live| in_replay.contains(&same(live))));
            durable[*begin..].to_vec()
        }
        more => panic!("out of order {} times: {durable:#?}", more.len()),
    }
}

async fn nothing_falls_between_missed_and_live(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let mut checkpoint = visit(&bob, 0).await;
    let sending = alice.socket(1).await;
    let (is_over, over) = watch::channel(false);
    let talking = async {
        for n in 0..300 {
            sending.send(&conversation, &n.to_string()).await;
        }
        is_over.send_replace(true);
    };
    // Meanwhile bob comes back again and again, to another edge each time, and breaks off without a word.
    let coming = async {
        let mut told = Vec::new();
        for edge in 0.. {
            if *over.borrow() {
                break;
            }
            let session = bob.socket(edge).await;
            if let Some(complete) = session.try_resume(Some(&checkpoint), json!({})).await {
                checkpoint = complete;
                told.extend(replayed(&session));
            }
            session.kill();
        }
        told
    };
    let ((), mut told) = tokio::join!(talking, coming);
    // Each time on a connection of its own: what a server that could not tell yet let through meanwhile would
    // come again.
    let last = loop {
        let session = bob.socket(0).await;
        if session.try_resume(Some(&checkpoint), json!({})).await.is_some() {
            break session;
        }
    };
    last.send(&conversation, "a bell").await;
    last.message("a bell").await;
    told.extend(replayed(&last));
    let events = last.events();
    let complete = events.iter().position(|(name, _)| name == "resume_complete").unwrap();
    told.extend(events[complete..].to_vec());
    order::check_events(&told);
    let contents: Vec<Value> = told
        .iter()
        .filter(|(name, data)| name == "new_message" && data["content"] != "a bell")
        .map(|(_, data)| data["content"].clone())
        .collect();
    let all: Vec<Value> = (0..300).map(|n| n.to_string().into()).collect();
    assert_eq!(contents, all);
}

async fn cursors_say_what_is_known(scene: Scene) {
    let [alice, bob] = scene.people();
    let (one, two) = (alice.direct(&bob).await, alice.group(&[&bob]).await);
    let checkpoint = visit(&bob, 0).await;
    alice.send(0, &one, "known").await;
    let known = alice.send(1, &one, "known too").await;
    alice.send(2, &one, "missed").await;
    alice.send(0, &two, "elsewhere").await;
    let back = bob.socket(1).await;
    let nobodys = uuid::Uuid::new_v4().to_string();
    back.resume(Some(&checkpoint), json!({ &one: known["position"], nobodys: 7_u64 << 44 })).await;
    let mut contents: Vec<Value> = back.all("new_message").iter().map(|m| m["content"].clone()).collect();
    contents.sort_by_key(ToString::to_string);
    assert_eq!(contents, ["elsewhere", "missed"]);
}

async fn cursors_alone_are_gone_on_from(scene: Scene) {
    let [alice, bob] = scene.people();
    let (one, two) = (alice.direct(&bob).await, alice.group(&[&bob]).await);
    let known = alice.send(0, &one, "known").await;
    alice.send(1, &one, "missed").await;
    alice.send(2, &two, "not asked for").await;
    let back = bob.socket(1).await;
    back.resume(None, json!({ &one: known["position"] })).await;
    let contents: Vec<Value> = back.all("new_message").iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, ["missed"]);
}

async fn too_much_is_a_reset(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let (busy, quiet) = (alice.direct(&bob).await, carol.direct(&bob).await);
    let checkpoint = visit(&bob, 0).await;
    let mouths: Vec<Session> = futures_util::future::join_all((0..9).map(|edge| alice.socket(edge))).await;
    let sending = mouths.iter().map(|mouth| {
        let busy = busy.clone();
        async move {
            for n in 0..112 {
                mouth.send(&busy, &n.to_string()).await;
            }
        }
    });
    futures_util::future::join_all(sending).await;
    carol.send(1, &quiet, "quiet").await;
    scene.cluster.stored(&busy).await;
    let back = bob.socket(1).await;
    back.resume(Some(&checkpoint), json!({})).await;
    back.event("conversation_reset", |d| d["conversationId"] == busy).await;
    assert_eq!(back.all("conversation_reset").len(), 1);
    let told = back.all("new_message");
    assert_eq!(told.len(), 1, "of the other as always");
    assert_eq!(told[0]["content"], "quiet");
    mouths[0].send(&busy, "live").await;
    back.message("live").await;
    let path = format!("/conversations/{busy}/events?after=0&limit=100");
    let page = bob.at(2).get(&path).await.expect(200);
    assert_eq!((page.list("events").len(), &page.body["hasMore"]), (100, &json!(true)));
}

async fn a_checkpoint_comes_by_itself(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let listening = bob.socket(0).await;
    listening.resume(Some(&Checkpoint::default().to_string()), json!({})).await;
    alice.send(1, &conversation, "before").await;
    listening.message("before").await;
    let told = listening.event("checkpoint", |_| true).await["checkpoint"].clone();
    listening.kill();
    alice.send(1, &conversation, "after").await;
    let back = bob.socket(2).await;
    back.resume(told.as_str(), json!({})).await;
    let contents: Vec<Value> = back.all("new_message").iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, ["after"]);
}

async fn without_resume_only_what_is_new(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    alice.send(0, &conversation, "before").await;
    let session = bob.socket(1).await;
    alice.send(2, &conversation, "after").await;
    session.message("after").await;
    assert_eq!(session.all("new_message").len(), 1);
    // With the empty checkpoint there is all of it.
    let all = bob.socket(1).await;
    all.resume(Some(&Checkpoint::default().to_string()), json!({})).await;
    assert_eq!(names(&all), ["conversation_created", "new_message", "new_message", "resume_complete"]);
}

/// However many there are, and whatever their keys.
async fn no_conversation_is_cut_off(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    scene.cluster.stored(&conversation).await;
    let checkpoint = visit(&bob, 0).await;
    let store = scene.cluster.edges[0].member().edge.clone().expect("an edge").store.clone();
    let key = conversation.parse::<ConversationId>().unwrap().key().as_u64();
    let at = Position::new(Epoch::FIRST, 1).unwrap();
    // Quiet ones whose keys come right before it in every order.
    let quiet = (1..=10_050).map(|n| Write::InboxJoined {
        account: bob.account,
        conversation: ConversationKey::from_u64(key - n),
        kind: ConversationType::Direct,
        at,
    });
    store.apply(&quiet.collect::<Vec<_>>()).await.expect("it applies");
    alice.send(0, &conversation, "hello").await;
    scene.cluster.stored(&conversation).await;
    let back = bob.socket(2).await;
    back.resume(Some(&checkpoint), json!({})).await;
    assert_eq!(back.all("new_message").len(), 1, "{:?}", back.events());
    let list = bob.at(1).get("/conversations?limit=1").await.expect(200);
    assert_eq!(list.list("conversations")[0]["lastMessage"]["content"], "hello");
    assert!(list.body["nextCursor"].is_string());
}
