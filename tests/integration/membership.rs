//! Who is in a group, and who may say so.

use crate::support::order;
use crate::support::person::{Person, Scene};
use serde_json::{Value, json};
use std::collections::BTreeMap;

on_both!(
    admins_add_and_remove,
    roles_are_given_and_taken,
    the_last_admin_hands_over,
    two_admins_remove_each_other,
    many_changes_at_once_all_stand,
    a_newcomer_hears_of_the_conversation_first,
    direct_conversations_have_no_members_to_change,
    who_may_add_is_judged_before_whom,
    who_was_removed_reads_no_receipts,
);

async fn roles(of: &Person, group: &str) -> BTreeMap<String, String> {
    let read = of.at(2).get(&format!("/conversations/{group}")).await.expect(200);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    read.list("participants").iter().map(|p| (text(&p["userId"]), text(&p["role"]))).collect()
}

fn path(group: &str, rest: &str) -> String {
    format!("/conversations/{group}/participants{rest}")
}

async fn admins_add_and_remove(scene: Scene) {
    let [alice, bob, carol, dave] = scene.people();
    let group = alice.group(&[&bob]).await;
    let live = bob.socket(1).await;
    let body = json!({ "participantIds": [carol.id(), dave.id(), bob.id()] });
    let added = alice.at(0).post(&path(&group, ""), &body).await.expect(200);
    assert_eq!(added.list("participants").len(), 4);
    let note = live.event("new_message", |m| m["system"]["kind"] == "participants_added").await;
    assert_eq!(note["system"]["by"], alice.id());
    assert_eq!(note["system"]["userIds"], json!([carol.id(), dave.id()]));
    for newcomer in [&carol, &dave] {
        let told = live.event("participant_added", |p| p["userId"] == newcomer.id()).await;
        assert_eq!((&told["role"], &told["by"]), (&json!("member"), &json!(alice.id())));
    }
    assert_eq!(alice.at(2).post(&path(&group, ""), &body).await.expect(200).list("participants").len(), 4);
    alice.at(0).post(&path(&group, ""), &json!({ "participantIds": [] })).await.invalid("/participantIds");
    carol.at(1).post(&path(&group, ""), &body).await.refused(403, "forbidden");
    carol.at(1).delete(&path(&group, &format!("/{}", bob.id()))).await.refused(403, "forbidden");
    alice.at(2).delete(&path(&group, &format!("/{}", scene.person().id()))).await.refused(404, "not_found");
    let gone = carol.socket(0).await;
    gone.ok("join_conversation", json!({ "conversationId": group })).await;
    alice.at(2).delete(&path(&group, &format!("/{}", carol.id()))).await.expect(204);
    for session in [&gone, &live] {
        session.event("participant_removed", |p| p["userId"] == carol.id() && p["by"] == alice.id()).await;
    }
    // At once and on every edge: neither read nor write, and nothing more is told.
    alice.send(1, &group, "without carol").await;
    live.message("without carol").await;
    for edge in 0..3 {
        carol.at(edge).get(&format!("/conversations/{group}/messages")).await.refused(404, "not_found");
        carol.at(edge).get(&format!("/conversations/{group}")).await.refused(404, "not_found");
        carol.at(edge).get(&format!("/conversations/{group}/events")).await.refused(404, "not_found");
    }
    let other = alice.direct(&carol).await;
    alice.send(0, &other, "a bell").await;
    gone.message("a bell").await;
    assert!(gone.all("new_message").iter().all(|m| m["content"] != "without carol"));
    // Coming back is joining anew.
    alice.at(0).post(&path(&group, ""), &json!({ "participantIds": [carol.id()] })).await.expect(200);
    assert!(!carol.at(1).texts(&group).await.contains(&"without carol".into()));
    alice.send(1, &group, "welcome").await;
    gone.message("welcome").await;
    // Who asks from before that is told that something is missing, and all that came since.
    let since = async |after: &Value| {
        let events = format!("/conversations/{group}/events?after={after}");
        let page = carol.at(0).get(&events).await.expect(200);
        let name = |event: &Value| event["event"].as_str().unwrap().to_owned();
        (page.list("events").iter().map(name).collect::<Vec<_>>(), page.list("events")[0]["position"].clone())
    };
    let (names, joined) = since(&note["position"]).await;
    let anew = ["conversation_created", "participant_added", "new_message", "new_message"];
    assert_eq!((names[0].as_str(), &names[1..]), ("conversation_reset", &anew.map(str::to_owned)[..]));
    assert_eq!(since(&joined).await.0, ["new_message"], "from there on nothing is missing");
    for session in [&live, &gone] {
        order::check(session);
    }
}

async fn roles_are_given_and_taken(scene: Scene) {
    let [alice, bob] = scene.people();
    let group = alice.group(&[&bob]).await;
    let set = async |who: &Person, edge, whom: &Person, role: &str| {
        who.at(edge).put(&path(&group, &format!("/{}", whom.id())), &json!({ "role": role })).await
    };
    let live = bob.socket(2).await;
    set(&bob, 1, &bob, "admin").await.refused(403, "forbidden");
    set(&alice, 1, &alice, "member").await.refused(409, "last_admin");
    let made = set(&alice, 0, &bob, "admin").await.expect(200);
    assert_eq!((made.text("userId"), made.text("role")), (bob.id(), "admin".into()));
    assert!(made.body["joinedAt"].is_string());
    live.event("participant_added", |p| p["userId"] == bob.id() && p["role"] == "admin").await;
    live.event("new_message", |m| m["system"]["kind"] == "role_changed").await;
    set(&alice, 2, &bob, "admin").await.expect(200);
    set(&bob, 1, &alice, "member").await.expect(200);
    set(&bob, 1, &bob, "member").await.refused(409, "last_admin");
    set(&bob, 1, &alice, "owner").await.invalid("/role");
    set(&bob, 1, &scene.person(), "admin").await.refused(404, "not_found");
    assert_eq!(roles(&bob, &group).await, [(alice.id(), "member".into()), (bob.id(), "admin".into())].into());
}

async fn the_last_admin_hands_over(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob]).await;
    alice.at(0).post(&path(&group, ""), &json!({ "participantIds": [carol.id()] })).await.expect(200);
    let live = carol.socket(1).await;
    alice.at(1).delete(&path(&group, "/me")).await.expect(204);
    live.event("participant_removed", |p| p["userId"] == alice.id()).await;
    live.event("participant_added", |p| p["userId"] == bob.id() && p["role"] == "admin").await;
    let note = live.event("new_message", |m| m["system"]["kind"] == "participant_left").await;
    assert_eq!((&note["system"]["by"], &note["senderId"]), (&json!(alice.id()), &json!(alice.id())));
    assert_eq!(
        roles(&carol, &group).await,
        [(bob.id(), "admin".into()), (carol.id(), "member".into())].into()
    );
    alice.at(2).delete(&path(&group, "/me")).await.refused(404, "not_found");
    // By their own id it is leaving too.
    bob.at(2).delete(&path(&group, &format!("/{}", bob.id()))).await.expect(204);
    assert_eq!(roles(&carol, &group).await, [(carol.id(), "admin".into())].into());
    carol.at(0).delete(&path(&group, "/me")).await.expect(204);
    carol.at(0).get(&format!("/conversations/{group}")).await.refused(404, "not_found");
    order::check(&live);
}

async fn two_admins_remove_each_other(scene: Scene) {
    for _ in 0..5 {
        let [alice, bob, carol] = scene.people();
        let group = alice.group(&[&bob, &carol]).await;
        let of = |person: &Person| path(&group, &format!("/{}", person.id()));
        alice.at(0).put(&of(&bob), &json!({ "role": "admin" })).await.expect(200);
        let (one, other) = (alice.at(0), bob.at(1));
        let (first, second) = (of(&bob), of(&alice));
        let (a, b) = tokio::join!(one.delete(&first), other.delete(&second));
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        // Whoever comes second is no member any more, and is told as nobody would be.
        assert_eq!(statuses, [204, 404], "{a:?} {b:?}");
        let left = roles(&carol, &group).await;
        assert_eq!(left.len(), 2);
        assert_eq!(left.values().filter(|role| *role == "admin").count(), 1, "{left:?}");
        // Demoting each other, the same: one of them stays.
        let (stays, leaves) = if a.status == 204 { (&alice, &bob) } else { (&bob, &alice) };
        stays.at(2).post(&path(&group, ""), &json!({ "participantIds": [leaves.id()] })).await.expect(200);
        stays.at(0).put(&of(leaves), &json!({ "role": "admin" })).await.expect(200);
        let (one, other, role) = (alice.at(2), bob.at(0), json!({ "role": "member" }));
        let (first, second) = (of(&bob), of(&alice));
        let (a, b) = tokio::join!(one.put(&first, &role), other.put(&second, &role));
        assert_eq!([a.status, b.status].iter().filter(|status| **status == 200).count(), 1, "{a:?} {b:?}");
        assert_eq!(roles(&carol, &group).await.values().filter(|role| *role == "admin").count(), 1);
    }
}

async fn many_changes_at_once_all_stand(scene: Scene) {
    let alice = scene.person();
    let group = alice.group(&[]).await;
    let newcomers: [Person; 12] = scene.people();
    let adding = newcomers.iter().enumerate().map(|(n, newcomer)| {
        let (caller, body) = (alice.at(n), json!({ "participantIds": [newcomer.id()] }));
        let path = path(&group, "");
        async move {
            loop {
                let answer = caller.post(&path, &body).await;
                match answer.status {
                    // Too many others at the same time: it says so, and stands or stands not.
                    409 => drop(answer.refused(409, "conflict")),
                    _ => return answer.expect(200),
                }
            }
        }
    });
    futures_util::future::join_all(adding).await;
    let stand = roles(&alice, &group).await;
    assert_eq!(stand.len(), 13);
    let notes =
        alice.at(0).get(&format!("/conversations/{group}/messages")).await.expect(200).list("messages");
    assert_eq!(notes.len(), 12, "each was added once");
}

async fn a_newcomer_hears_of_the_conversation_first(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob]).await;
    let sessions = [carol.socket(1).await, carol.socket(2).await];
    for n in 0..20 {
        alice.send(0, &group, &format!("before {n}")).await;
    }
    let adding = async {
        let body = json!({ "participantIds": [carol.id()] });
        alice.at(2).post(&path(&group, ""), &body).await.expect(200);
    };
    let talking = async {
        let mouth = bob.socket(0).await;
        for n in 0..60 {
            mouth.send(&group, &format!("meanwhile {n}")).await;
        }
    };
    tokio::join!(adding, talking);
    alice.send(1, &group, "after").await;
    for session in &sessions {
        session.message("after").await;
        let events = session.events();
        let of_group = |(_, data): &&(String, Value)| data["conversationId"] == group;
        let first = events.iter().find(of_group).unwrap();
        assert_eq!(first.0, "conversation_created");
        assert_eq!((&first.1["myRole"], &first.1["name"]), (&json!("member"), &json!("A group")));
        assert_eq!(first.1["participants"].as_array().unwrap().len(), 3);
        assert!(
            !events.iter().any(|(_, data)| data["content"].as_str().is_some_and(|c| c.starts_with("before")))
        );
        order::check(session);
    }
    // Its creator and everybody in it hears of a new one.
    let one = alice.socket(0).await;
    let made = alice.group(&[&carol]).await;
    let told = one.event("conversation_created", |c| c["conversationId"] == made).await;
    assert_eq!(told["myRole"], "admin");
    let told = sessions[0].event("conversation_created", |c| c["conversationId"] == made).await;
    assert_eq!(told["myRole"], "member");
}

async fn direct_conversations_have_no_members_to_change(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let direct = alice.direct(&bob).await;
    let body = json!({ "participantIds": [carol.id()] });
    alice.at(0).post(&path(&direct, ""), &body).await.refused(409, "not_a_group");
    alice.at(1).delete(&path(&direct, "/me")).await.refused(409, "not_a_group");
    alice.at(2).delete(&path(&direct, &format!("/{}", bob.id()))).await.refused(409, "not_a_group");
    let role = json!({ "role": "admin" });
    alice.at(0).put(&path(&direct, &format!("/{}", bob.id())), &role).await.refused(409, "not_a_group");
}

/// Nothing is told of those whom somebody names who may not add anybody; and who is in the group already is not asked.
async fn who_may_add_is_judged_before_whom(scene: Scene) {
    let [alice, bob, carol, dave, eve] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let direct = alice.direct(&bob).await;
    for (by, of) in [(&carol, &alice), (&dave, &alice), (&dave, &bob)] {
        by.at(0).put(&format!("/blocks/{}", of.id()), &Value::Null).await.expect(201);
    }
    let add = async |who: &Person, to: &str, whom: &[&Person]| {
        let ids: Vec<String> = whom.iter().map(|person| person.id()).collect();
        who.at(0).post(&path(to, ""), &json!({ "participantIds": ids })).await
    };
    add(&bob, &group, &[&dave]).await.refused(403, "forbidden");
    add(&alice, &direct, &[&dave]).await.refused(409, "not_a_group");
    add(&alice, &group, &[&eve, &dave]).await.refused(403, "recipient_unavailable");
    add(&alice, &group, &[&carol]).await.expect(200);
    let added = add(&alice, &group, &[&carol, &eve]).await.expect(200);
    assert_eq!(added.list("participants").len(), 4);
}

/// Also where an edge still has a view of before, and hears of nothing since it holds nobody's socket.
async fn who_was_removed_reads_no_receipts(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob, &carol]).await;
    let message = alice.send(0, &group, "hello").await;
    scene.cluster.stored(&group).await;
    let receipts = format!("/messages/{}/receipts", message["messageId"].as_str().unwrap());
    assert_eq!(carol.at(1).get(&receipts).await.expect(200).list("receipts").len(), 2);
    alice.at(0).delete(&path(&group, &format!("/{}", carol.id()))).await.expect(204);
    carol.at(1).get(&receipts).await.refused(404, "not_found");
    // Whoever comes back sees what came after.
    alice.at(0).post(&path(&group, ""), &json!({ "participantIds": [carol.id()] })).await.expect(200);
    carol.at(1).get(&receipts).await.refused(404, "not_found");
    assert_eq!(bob.at(1).get(&receipts).await.expect(200).list("receipts").len(), 1);
}
