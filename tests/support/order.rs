//! What holds of every session's events (invariants `one_order` and `acked_exactly_once`).

use super::session::Session;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    let mut chained: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (name, data) in events {
        let is_link = CHAINED.contains(&name.as_str());
        if !is_link && !BESIDE.contains(&name.as_str()) {
            continue;
        }
        let conversation = data["conversationId"].as_str().expect("a conversation").to_owned();
        let position = data["position"].as_u64().unwrap_or_else(|| panic!("{name} without position: {data}"));
        let subject = (conversation.clone(), position, name.clone(), data["userId"].to_string());
        assert!(seen.insert(subject), "{name} at {position} came twice: {events:#?}");
        let before = newest.insert(conversation.clone(), position).unwrap_or(0);
        assert!(before <= position, "{name} at {position} came after {before}");
        if !is_link {
            continue;
        }
        let link = chained.get(&conversation).copied();
        if let (Some(previous), Some(link)) = (data["previousPosition"].as_u64(), link)
            // A conversation that was added to begins with two events of one position.
            && link != position
        {
            assert_eq!(previous, link, "{name} at {position} does not join on");
        }
        chained.insert(conversation, position);
    }
}
