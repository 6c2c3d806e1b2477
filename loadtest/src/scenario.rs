//! Scenarios: what a server is put through, one file each.

pub mod direct;
pub mod group;
pub mod history;
pub mod idle;
pub mod storm;
pub mod strangers;

use crate::checker::Verdict;
use crate::client::{AT_ONCE, Failure, Person};
use crate::server::Server;
use futures_util::{StreamExt, TryStreamExt, stream};
use reedi_client::{Page, Rest};
use reedi_invariants::{Acked, HistoryRow};
use reedi_protocol::resource::{History, MessageType};
use reedi_protocol::{AccountId, ConversationId, Position};
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
/// every message once, at its place (invariant `acked_exactly_once`), the newest first.
///
/// # Errors
/// A page cannot be read.
pub async fn check_history(
    server: &Server,
    reader: &Person,
    conversation: ConversationId,
    acknowledged: &[u64],
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

/// `found` is newest first, `acknowledged` are positions in any order.
fn compare_history(conversation: ConversationId, found: &[HistoryRow], acknowledged: &[u64]) -> Verdict {
    let place = |position: &u64| Position::from_u64(*position).map(|p| conversation.key().event_id(p));
    let acked: Vec<Acked> = acknowledged
        .iter()
        .filter_map(place)
        .map(|message| Acked {
            // Who sent it, and as what, was checked when it was told.
            sender: AccountId::new(uuid::Uuid::nil()),
            client_message_id: message.to_string(),
            message,
            at_ms: 0,
        })
        .collect();
    let mut verdict =
        Verdict { acknowledged: acked.len() as u64, told: found.len() as u64, ..Verdict::default() };
    if let Err(violation) = reedi_invariants::acked_exactly_once(&acked, found) {
        verdict.missing = 1;
        verdict.examples.push(violation.to_string());
    }
    if let Some(pair) = found.windows(2).find(|pair| pair[0].message <= pair[1].message) {
        verdict.out_of_order = 1;
        verdict.examples.push(format!("{} stands before {} in history", pair[0].message, pair[1].message));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::{ConversationKey, Epoch};

    #[test]
    fn a_history_is_compared_with_what_was_acknowledged() {
        let key = ConversationKey::from_u64(7);
        let at = |n: u64| Position::new(Epoch::FIRST, n).unwrap();
        let row = |n: &u64| HistoryRow {
            message: key.event_id(at(*n)),
            sender: AccountId::new(uuid::Uuid::nil()),
            client_message_id: None,
        };
        let compare = |found: &[u64], acknowledged: &[u64]| {
            let found: Vec<HistoryRow> = found.iter().map(row).collect();
            let acknowledged: Vec<u64> = acknowledged.iter().map(|n| at(*n).as_u64()).collect();
            compare_history(key.conversation_id(), &found, &acknowledged)
        };
        assert!(compare(&[5, 3, 2], &[2, 3, 5]).is_clean());
        assert!(!compare(&[5, 2], &[2, 3, 5]).is_clean(), "one is missing");
        assert!(!compare(&[5, 3, 3, 2], &[2, 3, 5]).is_clean(), "one stands there twice");
        assert!(!compare(&[3, 5, 2], &[2, 3, 5]).is_clean(), "not newest first");
    }
}
