//! Rule P10: what disappears is there until its time is up, and then nowhere that anybody reads.

use crate::cluster::{Cluster, EdgeProcess, Shape};
use crate::groups;
use crate::seed::{account, simulate};
use crate::wire::Line;
use reedi::domain::permission::Wish;
use reedi::edge::command::{change_conversation, send_message};
use reedi::edge::query::{history, lists};
use reedi::runtime::fault::Lines;
use reedi_protocol::command::SendMessage;
use reedi_protocol::resource::MessageType;
use reedi_protocol::{AccountId, Checkpoint, ConversationKey, MessageId};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The shortest time that a server lets messages disappear after.
const LIFE: Duration = Duration::from_secs(3_600);
/// Until all that was sent is stored, and for clocks that differ.
const MOMENT: Duration = Duration::from_secs(10);

async fn says(edge: &EdgeProcess, sender: AccountId, talk: ConversationKey, text: &str) -> MessageId {
    let command = SendMessage {
        content: text.to_owned(),
        message_type: MessageType::Text,
        reply_to_id: None,
        client_message_id: None,
    };
    let sent = send_message::run(&edge.edge, sender, talk, command, None).await.expect("nothing is wrong");
    sent.message.message_id
}

/// The texts of `talk` as `reader` finds them in history, newest first.
async fn texts(edge: &EdgeProcess, reader: AccountId, talk: ConversationKey) -> Vec<String> {
    let read = history::get(&edge.edge, reader, talk, &history::Query::default()).await;
    let (_, history) = read.expect("nothing is wrong");
    history.messages.into_iter().filter_map(|message| message.content).collect()
}

/// The last message of the only conversation in the list of `reader`, by its text or else its type, and how many it has
/// not read.
async fn listed(edge: &EdgeProcess, reader: AccountId) -> (Option<String>, u32) {
    let (_, list) = lists::get(&edge.edge, reader, None, None).await.expect("nothing is wrong");
    let [talk] = list.conversations.as_slice() else { panic!("{list:?}") };
    let activity = talk.activity.as_ref().expect("a list tells it");
    let last = activity.last_message.as_ref();
    let named = last.map(|m| m.content.clone().unwrap_or_else(|| format!("{:?}", m.message_type)));
    (named, activity.unread_count)
}

/// The texts that somebody is told who comes back after having been away from the beginning.
async fn resumed(cluster: &Cluster, edge: &EdgeProcess, reader: AccountId) -> Vec<String> {
    let until = cluster.now().plus_millis(3_600_000);
    let mut line = Line::open(edge, reader, until).await.expect("it is let in");
    let resume = json!({ "event": "resume", "data": { "checkpoint": Checkpoint::default().to_string() } });
    assert!(line.send(resume.to_string()).await);
    let mut texts = Vec::new();
    let resuming = async {
        loop {
            let text = line.next().await.expect("the line holds");
            let frame: Value = serde_json::from_str(&text).expect("a frame");
            match frame["event"].as_str() {
                Some("resume_complete") => return,
                Some("new_message") => texts.extend(frame["data"]["content"].as_str().map(str::to_owned)),
                _ => {}
            }
        }
    };
    timeout(MOMENT, resuming).await.expect("it is told all");
    texts
}

async fn schedule() {
    let cluster = Cluster::start(Shape::default(), Lines::Kept).await;
    sleep(MOMENT).await;
    let (alice, bob) = (account(), account());
    let edges = cluster.edges();
    let talk = groups::direct(&edges[0], alice, bob).await.expect("nothing is wrong");
    says(&edges[0], alice, talk, "stays").await;
    let others = [
        (Some(3_600), "goes", &edges[0]),
        (None, "stays too", &edges[0]),
        (Some(3_600), "goes last", &edges[1]),
    ];
    for (expires_after_s, text, edge) in others {
        let wish = Wish::Settings { name: None, avatar_url: None, expires_after_s: Some(expires_after_s) };
        change_conversation::run(&edges[0].edge, alice, talk, &wish).await.expect("nothing is wrong");
        says(edge, alice, talk, text).await;
    }

    sleep(LIFE - 2 * MOMENT).await;
    for edge in &edges {
        assert_eq!(texts(edge, bob, talk).await, ["goes last", "stays too", "goes", "stays"]);
        assert_eq!(resumed(&cluster, edge, bob).await, ["stays", "goes", "stays too", "goes last"]);
        assert_eq!(listed(edge, bob).await, (Some("goes last".to_owned()), 4));
    }
    sleep(3 * MOMENT).await;
    for edge in &edges {
        assert_eq!(texts(edge, bob, talk).await, ["stays too", "stays"]);
        assert_eq!(resumed(&cluster, edge, bob).await, ["stays", "stays too"]);
        // The note that says that messages disappear from there on.
        assert_eq!(listed(edge, bob).await, (Some("System".to_owned()), 2));
    }
}

#[test]
fn what_disappears_is_gone_once_its_time_is_up_and_not_before() {
    for seed in 1..=3 {
        simulate(seed, schedule);
    }
}
