//! Scenarios: what a server is put through, one file each.

pub mod direct;
pub mod group;
pub mod history;
pub mod idle;
pub mod storm;
pub mod strangers;

use crate::checker::{Verdict, told_event};
use crate::client::{AT_ONCE, Failure, Person};
use crate::server::Server;
use futures_util::{StreamExt, TryStreamExt, stream};
use reedi_client::{Page, Rest};
use reedi_invariants::{Acked, HistoryRow, Seen, acked_not_exactly_once, not_one_order};
use reedi_protocol::ConversationId;
use reedi_protocol::resource::{History, MessageType};
use std::time::Duration;
use tokio::time::Instant;

/// How long a history may stay behind what was sent.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// One direct conversation for each two people that follow each other in the list.
///
/// # Errors
/// One of them cannot be made.
pub async fn pair_up(server: &Server, people: &[Person]) -> Result<Vec<ConversationId>, Failure> {
    let rests = server.edges.iter().map(crate::client::rest).collect::<Result<Vec<_>, _>>()?;
    let calls = people.chunks_exact(2).enumerate().map(|(i, pair)| {
        let rest = rests[i % rests.len()].for_token(pair[0].token.clone());
        async move { rest.create_direct(pair[1].account).await.map(|(made, _)| made.conversation_id) }
    });
    Ok(stream::iter(calls).buffered(AT_ONCE).try_collect().await?)
}

/// Reads the whole history of a conversation and compares it with what was acknowledged in it:
/// every message once, at its place (invariant `acked_exactly_once`), and in order (`one_order`).
///
/// # Errors
/// A page cannot be read.
pub async fn check_history(
    server: &Server,
    reader: &Person,
    conversation: ConversationId,
    acknowledged: &[Acked],
) -> Result<Verdict, Failure> {
    let rest = crate::client::rest(&server.edges[0])?.for_token(reader.token.clone());
    let (mut page, mut found) = (Page::Newest, Vec::new());
    loop {
        let history = read_page(&rest, conversation, page).await?;
        let rows = history.messages.iter().filter(|m| m.message_type != MessageType::System);
        found.extend(rows.map(|m| HistoryRow {
            message: m.message_id,
            sender: m.sender_id,
            client_message_id: m.client_message_id.clone(),
        }));
        match history.messages.last() {
            Some(oldest) if history.next_cursor.is_some() => page = Page::Before(oldest.message_id),
            _ => break,
        }
    }
    Ok(compare_history(conversation, &found, acknowledged))
}

/// A page, once the store has caught up: after a rate that was too high a writer has some way to go.
async fn read_page(rest: &Rest, conversation: ConversationId, page: Page) -> Result<History, Failure> {
    let until = Instant::now() + CAUGHT_UP_WITHIN;
    loop {
        match rest.history(conversation, page, 100).await {
            Err(error) if error.is_retryable() && Instant::now() < until => {
                tokio::time::sleep(error.retry_after().unwrap_or_default().max(ASK_AGAIN_AFTER)).await;
            }
            read => return Ok(read?),
        }
    }
}

/// `found` is newest first.
fn compare_history(conversation: ConversationId, found: &[HistoryRow], acknowledged: &[Acked]) -> Verdict {
    let mut verdict =
        Verdict { acknowledged: acknowledged.len() as u64, told: found.len() as u64, ..Verdict::default() };
    verdict.take(acked_not_exactly_once(acknowledged, found));
    let oldest_first = found.iter().rev().map(|row| told_event(row.message));
    let reading = Seen {
        client: format!("history of {conversation}"),
        told: oldest_first.collect(),
        ..Seen::default()
    };
    verdict.take(not_one_order(&[reading], &[], &[]));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::{AccountId, ConversationKey, Epoch, Position};

    #[test]
    fn a_history_is_compared_with_what_was_acknowledged() {
        let key = ConversationKey::from_u64(7);
        let sender = AccountId::new(uuid::Uuid::nil());
        let message = |n: u64| key.event_id(Position::new(Epoch::FIRST, n).unwrap());
        let row = |n: &u64| HistoryRow { message: message(*n), sender, client_message_id: None };
        let ack =
            |n: &u64| Acked { sender, client_message_id: n.to_string(), message: message(*n), at_ms: 0 };
        // Missing, doubled, out of order, misplaced.
        let compare = |found: &[u64], acknowledged: &[u64]| {
            let found: Vec<HistoryRow> = found.iter().map(row).collect();
            let acknowledged: Vec<Acked> = acknowledged.iter().map(ack).collect();
            let verdict = compare_history(key.conversation_id(), &found, &acknowledged);
            [verdict.missing, verdict.doubled, verdict.out_of_order, verdict.misplaced]
        };
        assert_eq!(compare(&[5, 3, 2], &[2, 3, 5]), [0, 0, 0, 0]);
        assert_eq!(compare(&[5], &[2, 3, 5]), [2, 0, 0, 0], "two are missing");
        assert_eq!(compare(&[5, 3, 3, 2], &[2, 3, 5]), [0, 2, 0, 0], "it stands twice, and is read twice");
        assert_eq!(compare(&[3, 5, 2], &[2, 3, 5]), [0, 0, 1, 0], "not newest first");
    }
}
