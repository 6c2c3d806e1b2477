//! History: a conversation's messages, newest first.

use super::{before, behind};
use crate::edge::answer_room::{ReadUnderWay, page_bytes};
use crate::edge::command::{place_in, target};
use crate::edge::refused::{Outcome, Refused};
use crate::edge::{Edge, wire};
use crate::store::{Messages as _, Order, Range, StoreResult, StoredMessage};
use reedi_protocol::resource::{History, Message, Receipt, Receipts};
use reedi_protocol::{AccountId, ConversationKey, MessageId, Position, limits};

/// Where a page of history lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    Newest,
    Before(Position),
    After(Position),
    Around(Position),
}

impl Around {
    /// The place that the client named, and where.
    fn place(self) -> Option<(Position, &'static str)> {
        match self {
            Self::Newest => None,
            Self::Before(position) => Some((position, "?before")),
            Self::After(position) => Some((position, "?after")),
            Self::Around(position) => Some((position, "?around")),
        }
    }
}

/// What a client may ask for; at most one of the three.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Query {
    pub limit: Option<usize>,
    pub before: Option<String>,
    pub after: Option<String>,
    pub around: Option<String>,
}

/// A page's size as a client asked for it.
///
/// # Errors
/// Not 1..=100.
pub fn page_size(limit: Option<usize>) -> Outcome<usize> {
    match limit.unwrap_or(limits::PAGE_DEFAULT) {
        limit @ 1..=limits::PAGE_MOST => Ok(limit),
        _ => Err(Refused::invalid("?limit", "1 to 100")),
    }
}

fn parse(conversation: ConversationKey, query: &Query) -> Outcome<Around> {
    let place = |text: &str, pointer| place_in(conversation, text, pointer, "a message of this conversation");
    match (&query.before, &query.after, &query.around) {
        (None, None, None) => Ok(Around::Newest),
        (Some(text), None, None) => Ok(Around::Before(place(text, "?before")?)),
        (None, Some(text), None) => Ok(Around::After(place(text, "?after")?)),
        (None, None, Some(text)) => Ok(Around::Around(place(text, "?around")?)),
        _ => Err(Refused::invalid("?before", "give one of before, after and around")),
    }
}

/// `GET /conversations/:id/messages`.
///
/// # Errors
/// Not this account's conversation, a bad query, or the store has not caught up.
pub async fn get(
    edge: &Edge,
    account: AccountId,
    conversation: ConversationKey,
    query: &Query,
) -> Outcome<(ReadUnderWay, History)> {
    let limit = page_size(query.limit)?;
    let view = edge.member_view(account, conversation).await?;
    let around = parse(conversation, query)?;
    if let Some((position, pointer)) = around.place() {
        edge.check_place(account, conversation.shard(), position, pointer).await?;
    }
    edge.caught_up(conversation).await?;
    if let Some((position, _)) = around.place() {
        edge.place_stored(conversation, position).await?;
    }
    let up_to = edge.stored_now(conversation.shard()).await?;
    let reading = edge.answer_room.take(account, page_bytes(limit)).await?;
    let joined = view.member(account)?.joined;
    let mut page = read(edge, conversation, Span { joined, up_to }, around, limit).await?;
    // Asked after reading: whoever has been removed reads nothing that came after, and whoever came back
    // nothing from before (invariant `members_only`).
    let exact = edge.reader_view(account, conversation).await?.member(account)?.joined;
    if exact != joined {
        page = read(edge, conversation, Span { joined: exact, up_to }, around, limit).await?;
    }
    let (mut stored, older) = page;
    stored.sort_by_key(|m| std::cmp::Reverse(m.row.position));
    let next_cursor = match (older, stored.last()) {
        (true, Some(last)) => Some(conversation.event_id(last.row.position).to_string()),
        _ => None,
    };
    let messages = resources(edge, account, conversation, &stored).await?;
    Ok((reading, History { messages, next_cursor }))
}

/// What is read of a conversation: from where its reader joined, as far as all is stored.
#[derive(Clone, Copy)]
struct Span {
    joined: Position,
    up_to: Position,
}

/// The messages, and whether there are older ones than the oldest of them.
async fn read(
    edge: &Edge,
    conversation: ConversationKey,
    span: Span,
    around: Around,
    limit: usize,
) -> Outcome<(Vec<StoredMessage>, bool)> {
    let (floor, end) = (before(span.joined), behind(span.up_to));
    let older = |before: Position, most: usize| {
        let range = Range { after: floor, before: before.min(end) };
        edge.store.messages(conversation, range, Order::NewestFirst, most)
    };
    let newer = |after: Position, most: usize| {
        let range = Range { after: after.max(floor), before: end };
        edge.store.messages(conversation, range, Order::OldestFirst, most)
    };
    match around {
        Around::Newest | Around::Before(_) => {
            let before = if let Around::Before(before) = around { before } else { Range::END };
            let mut found = older(before, limit + 1).await?;
            let more = found.len() > limit;
            found.truncate(limit);
            Ok((found, more))
        }
        Around::After(after) => {
            let found = newer(after, limit).await?;
            Ok((found, after > floor))
        }
        Around::Around(middle) => {
            let half = limit / 2;
            let after_middle = newer(middle, half).await?;
            let mut found = older(behind(middle), limit - half + 1).await?;
            let more = found.len() > limit - half;
            found.truncate(limit - half);
            found.extend(after_middle);
            Ok((found, more))
        }
    }
}

/// The resources of `stored` (newest first), as `account` sees them: without what it has hidden, with
/// reactions.
///
/// # Errors
/// The store is away, or gives up on these rows.
pub async fn resources(
    edge: &Edge,
    account: AccountId,
    conversation: ConversationKey,
    stored: &[StoredMessage],
) -> StoreResult<Vec<Message>> {
    let (Some(newest), Some(oldest)) = (stored.first(), stored.last()) else { return Ok(Vec::new()) };
    let range = Range { after: before(oldest.row.position), before: behind(newest.row.position) };
    let (reactions, hidden) = tokio::try_join!(
        edge.store.reactions(conversation, range),
        edge.store.hidden(conversation, account, range)
    )?;
    Ok(stored
        .iter()
        .filter(|m| !hidden.contains(&m.row.position))
        .map(|m| {
            let mut message = wire::stored_message(&edge.key_ring, conversation, m, account);
            wire::with_reactions(&mut message, &reactions);
            message
        })
        .collect())
}

/// `GET /messages/:id/receipts`: every participant but the sender.
///
/// # Errors
/// Not a message that this account may see.
pub async fn receipts(edge: &Edge, account: AccountId, id: MessageId) -> Outcome<Receipts> {
    let target = target(edge, account, id).await?;
    let stored = edge.store.receipts(id.key()).await?;
    let position = id.position();
    // Asked after reading, as for messages: the view that found the message may be of before its reader was removed.
    let exact = edge.reader_view(account, id.key()).await?;
    if exact.member(account)?.joined > position {
        return Err(Refused::not_found());
    }
    let reached = |mark: Option<(Position, reedi_protocol::Timestamp, bool)>, own: bool| {
        mark.filter(|(up_to, _, private)| *up_to >= position && (own || !private)).map(|(_, at, _)| at)
    };
    let receipts = exact
        .state
        .members
        .iter()
        .filter(|m| m.account != target.stored.row.sender && m.joined <= position)
        .map(|m| {
            let own = m.account == account;
            let standing = stored.iter().find(|r| r.account == m.account);
            Receipt {
                user_id: m.account,
                delivered_at: standing.and_then(|r| reached(r.delivered, own)),
                read_at: standing.and_then(|r| reached(r.read, own)),
            }
        })
        .collect();
    Ok(Receipts { receipts })
}
