//! What was acknowledged, and where it is afterwards.

use crate::observation::{Acked, Durable, HistoryRow, Trimmed};
use crate::violation::{Invariant, Loss, Violation};
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
        return Err(Violation::new(Invariant::AckedIsDurable, Loss::Lost, what, named(ack)));
    }
    Ok(())
}

/// An acknowledged message stands in history exactly once; a retry gets the same id.
///
/// # Errors
/// Two ids for one message, a message that is missing, or one that stands there twice.
pub fn acked_exactly_once(acked: &[Acked], history: &[HistoryRow]) -> Result<(), Violation> {
    Violation::first_of(acked_not_exactly_once(acked, history))
}

/// All that breaks [`acked_exactly_once`].
#[must_use]
pub fn acked_not_exactly_once(acked: &[Acked], history: &[HistoryRow]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken =
        |loss, what: String, ids| found.push(Violation::new(Invariant::AckedExactlyOnce, loss, what, ids));
    let mut answered = BTreeMap::new();
    for ack in acked {
        let key = (ack.sender, ack.message.key(), ack.client_message_id.as_str());
        let first = *answered.entry(key).or_insert(ack.message);
        if first != ack.message {
            let ids = named(ack).into_iter().chain([first.to_string()]).collect();
            broken(Loss::Doubled, "a retry was answered with another id".to_owned(), ids);
        }
    }
    let mut stands: BTreeMap<EventId, usize> = BTreeMap::new();
    let mut by_key: BTreeMap<_, EventId> = BTreeMap::new();
    for row in history {
        *stands.entry(row.message).or_default() += 1;
        let Some(id) = &row.client_message_id else { continue };
        let first = *by_key.entry((row.sender, row.message.key(), id.as_str())).or_insert(row.message);
        if first != row.message {
            let ids = vec![row.message.to_string(), first.to_string(), format!("clientMessageId {id}")];
            broken(Loss::Doubled, "one message stands under two ids".to_owned(), ids);
        }
    }
    let mut looked_at = BTreeSet::new();
    for ack in acked.iter().filter(|ack| looked_at.insert(ack.message)) {
        if !stands.contains_key(&ack.message) {
            broken(Loss::Lost, "acknowledged, and not in history".to_owned(), named(ack));
        }
    }
    for (message, times) in stands.into_iter().filter(|(_, times)| *times > 1) {
        broken(Loss::Doubled, format!("stands {times} times in history"), vec![message.to_string()]);
    }
    found
}

/// Whatever process was killed: nothing that was acknowledged is lost. `survived` is what can be read
/// of log and store afterwards.
///
/// # Errors
/// An acknowledged event that is nowhere.
pub fn nothing_lives_on_an_edge(acked: &[EventId], survived: &BTreeSet<EventId>) -> Result<(), Violation> {
    Violation::first_of(lost_with_an_edge(acked, survived))
}

/// All that breaks [`nothing_lives_on_an_edge`].
#[must_use]
pub fn lost_with_an_edge(acked: &[EventId], survived: &BTreeSet<EventId>) -> Vec<Violation> {
    let lost = acked.iter().filter(|event| !survived.contains(event));
    lost.map(|lost| {
        let what = "acknowledged, and lost with the process that knew it";
        Violation::new(Invariant::NothingLivesOnAnEdge, Loss::Lost, what, vec![lost.to_string()])
    })
    .collect()
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
            Loss::Lost,
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
