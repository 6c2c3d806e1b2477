//! What holds of every session's events: the shared invariant `one_order`, and that each link of the
//! chain that `previousPosition` makes joins the one before it, which no predicate knows.

use super::session::Session;
use reedi_invariants::{Seen, ToldEvent, one_order};
use reedi_protocol::{ConversationId, ConversationKey, EventId, Position};
use serde_json::Value;
use std::collections::BTreeMap;

/// Events that are links of the chain that `previousPosition` makes.
const CHAINED: [&str; 6] = [
    "new_message",
    "message_edited",
    "message_deleted",
    "reaction_added",
    "reaction_removed",
    "conversation_created",
];
const BESIDE: [&str; 5] =
    ["message_delivered", "message_read", "conversation_updated", "participant_added", "participant_removed"];

/// Checks all durable events that a session saw: each once, in order, and each link joined to the one before it.
#[track_caller]
pub fn check(session: &Session) {
    check_events(&session.events());
}

#[track_caller]
pub fn check_events(events: &[(String, Value)]) {
    let is_durable = |name: &str| CHAINED.contains(&name) || BESIDE.contains(&name);
    let durable = events.iter().filter(|(name, _)| is_durable(name));
    let told = durable.map(|(name, data)| ToldEvent { event: place(name, data), name: subject(name, data) });
    let seen = Seen { client: "a session".to_owned(), told: told.collect(), ..Seen::default() };
    // Over one connection receipts come in their places too: none of them is named as one that may be late.
    if let Err(violation) = one_order(&[seen], &[], &[]) {
        panic!("{violation}: {events:#?}");
    }
    let mut chained: BTreeMap<ConversationKey, Position> = BTreeMap::new();
    for (name, data) in events.iter().filter(|(name, _)| CHAINED.contains(&name.as_str())) {
        let event = place(name, data);
        if let (Some(previous), Some(link)) =
            (data["previousPosition"].as_u64(), chained.insert(event.key(), event.position()))
            // A conversation that was added to begins with two events of one position.
            && link != event.position()
        {
            assert_eq!(previous, link.as_u64(), "{name} at {event} does not join on");
        }
    }
}

/// The event that is told of.
#[track_caller]
fn place(name: &str, data: &Value) -> EventId {
    let conversation = data["conversationId"].as_str().and_then(|id| id.parse::<ConversationId>().ok());
    let position = data["position"].as_u64().and_then(Position::from_u64);
    match (conversation, position) {
        (Some(conversation), Some(position)) => conversation.key().event_id(position),
        _ => panic!("{name} without conversation or position: {data}"),
    }
}

/// What is told of the event. One control event tells of several participants, and of each of them once.
fn subject(name: &str, data: &Value) -> String {
    match (name, data["userId"].as_str()) {
        ("participant_added" | "participant_removed", Some(participant)) => format!("{name} {participant}"),
        _ => name.to_owned(),
    }
}
