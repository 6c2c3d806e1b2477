//! Scenarios: what a server is put through, one file each.

pub mod direct;
pub mod group;
pub mod history;
pub mod idle;
pub mod storm;

use crate::checker::Verdict;
use crate::client::{AT_ONCE, Failure, Person};
use crate::server::Server;
use futures_util::{StreamExt, TryStreamExt, stream};
use reedi_protocol::ConversationId;

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
/// every message once, at its place, and no other (invariant `acked_exactly_once`).
///
/// # Errors
/// A page cannot be read.
pub async fn check_history(
    server: &Server,
    reader: &Person,
    conversation: ConversationId,
    acknowledged: &[u64],
) -> Result<Verdict, Failure> {
    use reedi_client::Page;
    let rest = crate::client::rest(&server.edges[0])?.for_token(reader.token.clone());
    let (mut page, mut found) = (Page::Newest, Vec::new());
    loop {
        let history = rest.history(conversation, page, 100).await?;
        found.extend(history.messages.iter().map(|m| m.position.as_u64()));
        match history.messages.last() {
            Some(oldest) if history.next_cursor.is_some() => page = Page::Before(oldest.message_id),
            _ => break,
        }
    }
    Ok(compare_history(&found, acknowledged))
}

/// `found` is newest first, `acknowledged` in any order.
fn compare_history(found: &[u64], acknowledged: &[u64]) -> Verdict {
    let falls = |pair: &&[u64]| pair[0] < pair[1];
    let same = |pair: &&[u64]| pair[0] == pair[1];
    let known: std::collections::HashSet<u64> = found.iter().copied().collect();
    let missing: Vec<u64> = acknowledged.iter().filter(|p| !known.contains(p)).copied().collect();
    Verdict {
        acknowledged: acknowledged.len() as u64,
        told: found.len() as u64,
        missing: missing.len() as u64,
        doubled: found.windows(2).filter(same).count() as u64,
        out_of_order: found.windows(2).filter(falls).count() as u64,
        misplaced: 0,
        examples: missing.iter().take(3).map(|p| format!("Missing: {p} is not in history")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_compared_with_what_was_acknowledged() {
        assert!(compare_history(&[5, 3, 2], &[2, 3, 5]).is_clean());
        assert_eq!(compare_history(&[5, 2], &[2, 3, 5]).missing, 1);
        assert_eq!(compare_history(&[5, 3, 3, 2], &[2, 3, 5]).doubled, 1);
        assert_eq!(compare_history(&[3, 5, 2], &[2, 3, 5]).out_of_order, 1);
    }
}
