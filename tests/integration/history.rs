//! Pages of messages, and of everything that changed.

use crate::support::person::{Answer, Scene, now_ms};
use reedi::domain::write::{MessageRow, Write};
use reedi::store::Writes as _;
use reedi_protocol::resource::{ConversationType, MessageType};
use reedi_protocol::{ConversationId, MessageId, Position, Timestamp};
use serde_json::{Value, json};

on_both!(
    history_is_read_from_anywhere,
    events_tell_all_that_changed,
    a_new_member_sees_what_came_after,
    what_is_being_written_is_not_shown,
    what_is_gone_is_not_unread,
);

fn texts(answer: &Answer) -> Vec<String> {
    answer.list("messages").iter().map(|m| m["content"].as_str().unwrap_or("-").to_owned()).collect()
}

fn range(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

async fn history_is_read_from_anywhere(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let mut ids = vec![String::new()];
    let sockets = [alice.socket(0).await, bob.socket(1).await];
    for n in 1..=60 {
        let sent = sockets[n % 2].send(&conversation, &n.to_string()).await;
        ids.push(sent["messageId"].as_str().unwrap().to_owned());
    }
    sockets[1].message("60").await;
    let path = format!("/conversations/{conversation}/messages");
    let page = async |query: String| bob.at(1).get(&format!("{path}{query}")).await.expect(200);

    let newest = page(String::new()).await;
    assert_eq!(texts(&newest), range((11..=60).rev()), "50 unless told");
    assert_eq!(newest.body["nextCursor"], ids[11]);
    let rest = page(format!("?before={}", newest.text("nextCursor"))).await;
    assert_eq!(texts(&rest), range((1..=10).rev()));
    assert_eq!(rest.body["nextCursor"], Value::Null);

    assert_eq!(texts(&page(format!("?limit=3&before={}", ids[10])).await), range((7..=9).rev()));
    assert_eq!(texts(&page(format!("?limit=3&after={}", ids[10])).await), range((11..=13).rev()));
    assert_eq!(texts(&page(format!("?limit=5&around={}", ids[10])).await), range((8..=12).rev()));
    assert_eq!(texts(&page(format!("?limit=100&after={}", ids[60])).await), range(0..0));
    assert_eq!(texts(&page("?limit=60".into()).await).len(), 60);
    assert_eq!(page("?limit=60".into()).await.body["nextCursor"], Value::Null);

    for (query, pointer) in [
        ("?limit=0".to_owned(), "?limit"),
        ("?limit=101".to_owned(), "?limit"),
        ("?before=x".to_owned(), "?before"),
        (format!("?before={}", uuid::Uuid::new_v4()), "?before"),
        (format!("?before={}&after={}", ids[1], ids[2]), "?before"),
    ] {
        bob.at(0).get(&format!("{path}{query}")).await.invalid(pointer);
    }
    assert_eq!(page("?before=&limit=60".into()).await.list("messages").len(), 60, "empty is absent");
    let other = bob.direct(&scene.person()).await;
    let elsewhere = bob.send(0, &other, "x").await;
    let query = format!("?after={}", elsewhere["messageId"].as_str().unwrap());
    bob.at(0).get(&format!("{path}{query}")).await.invalid("?after");
}

async fn events_tell_all_that_changed(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob]).await;
    let live = bob.socket(1).await;
    let first = alice.send(0, &group, "first").await;
    let id = first["messageId"].as_str().unwrap();
    alice.at(0).put(&format!("/messages/{id}"), &json!({ "content": "second" })).await.expect(200);
    bob.at(0).post(&format!("/messages/{id}/reactions"), &json!({ "reaction": "👍" })).await.expect(201);
    bob.at(0).delete(&format!("/messages/{id}/reactions/👍")).await.expect(204);
    let body = json!({ "participantIds": [carol.id()] });
    alice.at(0).post(&format!("/conversations/{group}/participants"), &body).await.expect(200);
    alice.at(0).delete(&format!("/messages/{id}")).await.expect(204);
    alice.send(0, &group, "last").await;
    live.message("last").await;

    let path = format!("/conversations/{group}/events");
    let mut after = 0;
    let mut told: Vec<(String, Value)> = Vec::new();
    loop {
        let page = bob.at(1).get(&format!("{path}?after={after}&limit=2")).await.expect(200);
        for event in page.list("events") {
            assert!(event["position"].as_u64().unwrap() > after);
            assert_eq!(event["position"], event["data"]["position"]);
            told.push((event["event"].as_str().unwrap().to_owned(), event["data"].clone()));
        }
        assert!(page.body["completeTo"].as_u64().unwrap() >= after);
        after = page.body["completeTo"].as_u64().unwrap();
        if page.body["hasMore"] == false {
            break;
        }
    }
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "conversation_created",
        "new_message",
        "message_edited",
        "reaction_added",
        "reaction_removed",
        "participant_added",
        "new_message",
        "message_deleted",
        "new_message",
    ];
    assert_eq!(names, expected);
    // The same as the socket told, but that what was deleted since has no content any more.
    let same = |(name, data): (String, Value)| {
        let mut data = data;
        let fields = data.as_object_mut().unwrap();
        ["previousPosition", "content", "editedAt", "deletedAt", "lastMessage"]
            .iter()
            .for_each(|field| drop(fields.remove(*field)));
        (name, data)
    };
    // What is told of the connection itself may come in between: a checkpoint comes by the edge's clock.
    let lived: Vec<_> =
        live.events().into_iter().filter(|(_, data)| data["conversationId"] == group).map(same).collect();
    let read: Vec<_> = told.iter().cloned().map(same).collect();
    assert_eq!(read[1..], lived[lived.len() - 8..]);
    assert_eq!(told[1].1["content"], Value::Null, "{}", told[1].1);
    assert_eq!(told[2].1["content"], Value::Null, "{}", told[2].1);
    let end = bob.at(2).get(&format!("{path}?after={after}")).await.expect(200);
    // This edge may know that more of the shard is stored: ticks, and what others say.
    assert!(end.body["completeTo"].as_u64().unwrap() >= after, "{:?}", end.body);
    assert_eq!((&end.body["events"], &end.body["hasMore"]), (&json!([]), &json!(false)));
    bob.at(0).get(&format!("{path}?after=x")).await.refused(422, "invalid_value");
    bob.at(0).get(&format!("{path}?after=7")).await.invalid("?after");
}

async fn a_new_member_sees_what_came_after(scene: Scene) {
    let [alice, bob, carol] = scene.people();
    let group = alice.group(&[&bob]).await;
    let early = alice.send(0, &group, "before").await;
    let early = early["messageId"].as_str().unwrap();
    let body = json!({ "participantIds": [carol.id()] });
    alice.at(0).post(&format!("/conversations/{group}/participants"), &body).await.expect(200);
    alice.send(0, &group, "after").await;
    let live = carol.socket(2).await;
    alice.send(0, &group, "live").await;
    live.message("live").await;
    let page = carol.at(2).get(&format!("/conversations/{group}/messages")).await.expect(200);
    assert_eq!(texts(&page), ["live", "after", "-"], "from the note of joining on");
    assert_eq!(page.body["nextCursor"], Value::Null);
    let events = carol.at(2).get(&format!("/conversations/{group}/events?after=0")).await.expect(200);
    let first = &events.list("events")[0];
    assert_eq!(first["event"], "conversation_created");
    assert!(!events.body.to_string().contains("before"));
    carol.at(2).get(&format!("/messages/{early}/receipts")).await.refused(404, "not_found");
    let reply = json!({ "content": "x", "messageType": "text", "replyToId": early });
    carol.at(2).post(&format!("/conversations/{group}/messages"), &reply).await.invalid("/replyToId");
    // Whoever leaves sees nothing any more, and what they wrote stays.
    carol.send(2, &group, "carol was here").await;
    carol.at(0).delete(&format!("/conversations/{group}/participants/me")).await.expect(204);
    carol.at(0).get(&format!("/conversations/{group}/messages")).await.refused(404, "not_found");
    bob.at(1).get(&format!("/conversations/{group}/messages")).await.expect(200);
    assert!(alice.at(0).texts(&group).await.contains(&"carol was here".into()));
}

/// A batch is stored in any order, and the watermark moves when all of it is. What is there before may lack what comes
/// before it, and who was removed in between may still look like a member.
async fn what_is_being_written_is_not_shown(scene: Scene) {
    let [alice, bob] = scene.people();
    let (direct, group) = (alice.direct(&bob).await, alice.group(&[&bob]).await);
    let store = scene.cluster.edges[0].member().edge.clone().expect("an edge").store.clone();
    let log_time = Timestamp::from_millis(now_ms());
    for (id, kind) in [(&direct, ConversationType::Direct), (&group, ConversationType::Group)] {
        let sent = bob.send(0, id, "stored").await;
        scene.cluster.stored(id).await;
        let stored = sent["position"].as_u64().unwrap();
        let position = Position::from_u64(stored + (1 << 40)).unwrap();
        let conversation = id.parse::<ConversationId>().unwrap().key();
        let row = MessageRow {
            position,
            kind,
            sender: bob.account,
            message_type: MessageType::Text,
            timestamp: log_time,
            log_time,
            reply_to: None,
            client_message_id: None,
            keyed_by_client: false,
            expires_at: None,
            system: None,
            system_name: None,
        };
        let (head, head_time) = (position, log_time);
        let writes = [
            Write::Message { conversation, row, content: None },
            Write::InboxHead { account: alice.account, conversation, head, head_time },
            Write::Head { conversation, head, head_time },
        ];
        store.apply(&writes).await.expect("it applies");
        let first = sent["messageId"].as_str().unwrap();
        for (query, shown) in [
            (String::new(), &["stored"][..]),
            (format!("?after={first}"), &[]),
            (format!("?around={first}"), &["stored"]),
        ] {
            let path = format!("/conversations/{id}/messages{query}");
            let page = alice.at(1).get(&path).await.expect(200);
            assert_eq!(texts(&page), shown, "{query}");
        }
        let list = alice.at(2).get("/conversations").await.expect(200).list("conversations");
        let listed = list.iter().find(|c| c["conversationId"] == **id).expect("it is there");
        assert_eq!(listed["lastMessage"]["content"], "stored");
        assert_eq!(listed["unreadCount"], 1);
        // Others' events of its shard may have moved it on, and no further.
        assert!(listed["position"].as_u64().unwrap() < position.as_u64(), "{listed:#?}");
    }
}

/// However many there are before what counts.
async fn what_is_gone_is_not_unread(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let sending = alice.socket(0).await;
    let mut deletions = Vec::new();
    for n in 1..=210 {
        let sent = sending.send(&conversation, &n.to_string()).await;
        let id: MessageId = sent["messageId"].as_str().unwrap().parse().unwrap();
        deletions.push(Write::DeleteContent {
            conversation: id.key(),
            target: id.position(),
            deleted_at: Timestamp::from_millis(now_ms()),
            deleted_by: alice.account,
        });
    }
    scene.cluster.stored(&conversation).await;
    let store = scene.cluster.edges[0].member().edge.clone().expect("an edge").store.clone();
    store.apply(&deletions).await.expect("it applies");
    for n in 1..=3 {
        sending.send(&conversation, &n.to_string()).await;
    }
    scene.cluster.stored(&conversation).await;
    let list = bob.at(1).get("/conversations").await.expect(200).list("conversations");
    assert_eq!(list[0]["unreadCount"], 3);
}
