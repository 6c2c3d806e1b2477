//! The book, translated into what the shared invariants look at.

use crate::book::{Outcome, Pages, SentMessage, Session};
use crate::invariants::History;
use reedi_invariants::{Acked, Gap, HistoryRow, LoggedEvent, Membership, Seen, ToldEvent};
use reedi_protocol::{AccountId, ConversationId, EventId, MessageId, Position};
use std::collections::BTreeSet;

/// As the server names it.
const NEW_MESSAGE: &str = "new_message";

/// Everything that was acknowledged, with its number.
pub fn acknowledged(pages: &Pages) -> impl Iterator<Item = (usize, &SentMessage, MessageId)> {
    pages.sent.iter().enumerate().filter_map(|(number, sent)| match sent.outcome {
        Outcome::Acknowledged { id, .. } => Some((number, sent, id)),
        _ => None,
    })
}

fn sender(pages: &Pages, sent: &SentMessage) -> AccountId {
    pages.sessions[sent.session].account
}

pub fn acked(pages: &Pages) -> Vec<Acked> {
    acknowledged(pages)
        .map(|(_, sent, message)| Acked {
            sender: sender(pages, sent),
            client_message_id: sent.client_message_id.clone(),
            message,
            at_ms: 0,
        })
        .collect()
}

/// What stands in history. Which message of whom a row is, its text says.
pub fn rows(pages: &Pages, history: &History) -> Vec<HistoryRow> {
    let rows = history.values().flatten();
    rows.map(|row| {
        let sent = row.number.and_then(|number| pages.sent.get(number));
        HistoryRow {
            message: row.id,
            sender: sent.map_or_else(|| AccountId::new(uuid::Uuid::nil()), |sent| sender(pages, sent)),
            client_message_id: sent.map(|sent| sent.client_message_id.clone()),
        }
    })
    .collect()
}

/// All that was to be told: what was acknowledged, and what stands in history though it was not.
pub fn log(pages: &Pages, history: &History) -> Vec<LoggedEvent> {
    let stands = history.values().flatten().map(|message| message.id);
    let events: BTreeSet<EventId> = acknowledged(pages).map(|(_, _, id)| id).chain(stands).collect();
    events.into_iter().map(|event| LoggedEvent { event, only_for: None }).collect()
}

/// Conversations are made before the first message, and nobody joins or leaves later.
pub fn memberships(pages: &Pages) -> Vec<Membership> {
    let of = |session: &Session| {
        let account = session.account;
        let conversations = session.conversations.iter();
        let member = move |id: &ConversationId| Membership {
            conversation: id.key(),
            account,
            joined: Position::START,
            left: None,
        };
        conversations.map(member).collect::<Vec<_>>()
    };
    pages.sessions.iter().flat_map(of).collect()
}

/// Each session, which must have everything of its conversations in the end. What it was sent to read as a
/// page instead it knows to have missed.
pub fn seen(pages: &Pages, history: &History) -> Vec<Seen> {
    let acked = acknowledged(pages).map(|(_, _, id)| id.position());
    let end = acked.chain(history.values().flatten().map(|row| row.position)).max().unwrap_or_default();
    let of = |session: &Session| {
        let told = session.told.values().flatten();
        let complete = session.conversations.iter();
        let noticed = session.loaded.values().flatten();
        Seen {
            client: session.name.clone(),
            account: Some(session.account),
            told: told.map(|told| told_event(told.id)).collect(),
            complete: complete
                .map(|id| Gap { conversation: id.key(), after: Position::START, up_to: end })
                .collect(),
            noticed: noticed.map(|id| only(*id)).collect(),
        }
    };
    pages.sessions.iter().map(of).collect()
}

/// History as somebody who was told it, oldest first.
pub fn read(history: &History) -> Vec<Seen> {
    let of = |(conversation, messages): (&ConversationId, &Vec<crate::book::ToldMessage>)| Seen {
        client: format!("history of {conversation}"),
        told: messages.iter().map(|message| told_event(message.id)).collect(),
        ..Seen::default()
    };
    history.iter().map(of).collect()
}

fn told_event(event: EventId) -> ToldEvent {
    ToldEvent { event, name: NEW_MESSAGE.to_owned() }
}

/// The span in which nothing else lies.
fn only(event: EventId) -> Gap {
    let position = event.position();
    let before = Position::from_u64(position.as_u64().saturating_sub(1)).unwrap_or_default();
    Gap { conversation: event.key(), after: before, up_to: position }
}
