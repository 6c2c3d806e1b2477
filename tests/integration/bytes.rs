//! Content that is as long in JSON as content can be comes back byte for byte through the client crate:
//! as its own, live, replayed and read.

use crate::support::cluster::WITHIN;
use crate::support::listening::listening;
use crate::support::person::Scene;
use reedi_client::{Client, Page, Update, Updates};
use reedi_protocol::event::ServerEvent;
use reedi_protocol::{ConversationId, limits};
use serde_json::json;
use tokio::time::timeout;

on_both!(the_longest_contents_come_through_the_client);

/// A command's other fields, at most.
const FIELDS: usize = 400;

/// The content of the next message.
async fn next(updates: &mut Updates) -> String {
    let waiting = async {
        loop {
            if let Some(Update::Event(event)) = updates.recv().await
                && let ServerEvent::NewMessage(message) = *event
            {
                return message.content.expect("content");
            }
        }
    };
    timeout(WITHIN, waiting).await.expect("it comes")
}

async fn the_longest_contents_come_through_the_client(scene: Scene) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let id: ConversationId = conversation.parse().unwrap();
    // Six bytes each in JSON, which only a frame bounds; and what JSON leaves as it is, or doubles.
    let escaped = (limits::FRAME_BYTES - FIELDS) / 6;
    let contents = [
        "\u{1}".repeat(escaped),
        "\0".repeat(escaped),
        "\u{7f}".repeat(limits::CONTENT_BYTES),
        "\"".repeat(limits::CONTENT_BYTES),
        "\\".repeat(limits::CONTENT_BYTES),
    ];
    let client = |person: &crate::support::person::Person, edge: usize| {
        Client::builder(&scene.urls[edge]).token(person.token())
    };
    let (sending, _own) = client(&alice, 0).connect().await.expect("it begins");
    let (listener, mut live) = listening(client(&bob, 1)).await;
    // A client that came before is told what follows as missed.
    let checkpoint = bob.socket(2).await.resume(None, json!({})).await;
    for content in &contents {
        let ticket = sending.send(id, content.as_str()).expect("room");
        timeout(WITHIN, ticket).await.expect("in time").expect("it is sent");
        assert!(next(&mut live).await == *content, "{:?} changed on its way", &content[..2]);
    }
    scene.cluster.stored(&conversation).await;
    let page = listener.rest().history(id, Page::Newest, limits::PAGE_MOST).await.expect("a page");
    let read: Vec<String> = page.messages.into_iter().rev().filter_map(|message| message.content).collect();
    assert!(read == contents, "history changed them");
    let back = bob.socket(2).await;
    back.resume(Some(&checkpoint), json!({})).await;
    let replayed: Vec<String> =
        back.all("new_message").iter().map(|m| m["content"].as_str().unwrap().to_owned()).collect();
    assert!(replayed == contents, "a replay changed them");
    sending.close().await;
    listener.close().await;
}
