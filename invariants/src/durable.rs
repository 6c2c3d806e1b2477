//! What was acknowledged, and where it is afterwards.

use crate::observation::{Acked, Durable, HistoryRow, Trimmed};
use crate::violation::{Invariant, Violation};
use reedi_protocol::EventId;
use std::collections::{BTreeMap, BTreeSet};

/// A client is acknowledged only after the log has the event.
///
/// # Errors
/// An acknowledged message that the log has not, or had only later.
pub fn acked_is_durable(acked: &[Acked], durable: &[Durable]) -> Result<(), Violation> {
    let since: BTreeMap<EventId, u64> = durable.iter().map(|d| (d.event, d.since_ms)).collect();
    for ack in acked {
        let what = match since.get(&ack.message) {
            Some(since_ms) if *since_ms <= ack.at_ms => continue,
            Some(since_ms) => {
                format!("acknowledged at {} ms, durable only at {since_ms} ms", ack.at_ms)
            }
            None => "acknowledged, and the log has it not".to_owned(),
        };
        return Err(Violation::new(Invariant::AckedIsDurable, what, named(ack)));
    }
    Ok(())
}

/// An acknowledged message stands in history exactly once; a retry gets the same id.
///
/// # Errors
/// Two ids for one message, a message that is missing, or one that stands there twice.
pub fn acked_exactly_once(acked: &[Acked], history: &[HistoryRow]) -> Result<(), Violation> {
    let broken = |what: String, ids| Err(Violation::new(Invariant::AckedExactlyOnce, what, ids));
    let mut answered = BTreeMap::new();
    for ack in acked {
        let key = (ack.sender, ack.message.key(), ack.client_message_id.as_str());
        if let Some(first) = answered.insert(key, ack.message).filter(|first| *first != ack.message) {
            let ids = named(ack).into_iter().chain([first.to_string()]).collect();
            return broken("a retry was answered with another id".to_owned(), ids);
        }
    }
    let mut stands: BTreeMap<EventId, usize> = BTreeMap::new();
    let mut by_key: BTreeMap<_, EventId> = BTreeMap::new();
    for row in history {
        *stands.entry(row.message).or_default() += 1;
        let Some(id) = &row.client_message_id else { continue };
        let key = (row.sender, row.message.key(), id.as_str());
        if let Some(first) = by_key.insert(key, row.message).filter(|first| *first != row.message) {
            let ids = vec![row.message.to_string(), first.to_string(), format!("clientMessageId {id}")];
            return broken("one message stands under two ids".to_owned(), ids);
        }
    }
    for ack in acked {
        match stands.get(&ack.message).copied().unwrap_or(0) {
            1 => {}
            0 => return broken("acknowledged, and not in history".to_owned(), named(ack)),
            times => return broken(format!("stands {times} times in history"), named(ack)),
        }
    }
    Ok(())
}

/// Whatever process was killed: nothing that was acknowledged is lost. `survived` is what can be read
/// of log and store afterwards.
///
/// # Errors
/// An acknowledged event that is nowhere.
pub fn nothing_lives_on_an_edge(acked: &[EventId], survived: &BTreeSet<EventId>) -> Result<(), Violation> {
    match acked.iter().find(|event| !survived.contains(event)) {
        None => Ok(()),
        Some(lost) => Err(Violation::new(
            Invariant::NothingLivesOnAnEdge,
            "acknowledged, and lost with the process that knew it",
            vec![lost.to_string()],
        )),
    }
}

/// The log forgets only what the store has.
///
/// # Errors
/// An event that the log forgot before the store had it.
pub fn stored_before_trimmed(trimmed: &[Trimmed]) -> Result<(), Violation> {
    match trimmed.iter().find(|trimmed| !trimmed.stored) {
        None => Ok(()),
        Some(lost) => Err(Violation::new(
            Invariant::StoredBeforeTrimmed,
            "forgotten by the log before the store had it",
            vec![lost.event.to_string()],
        )),
    }
}

fn named(ack: &Acked) -> Vec<String> {
    vec![
        ack.message.to_string(),
        format!("clientMessageId {}", ack.client_message_id),
        format!("sender {}", ack.sender),
    ]
}
