//! Lists: an account's conversations, by latest activity.

use super::history::{page_size, resources};
use crate::edge::refused::{Outcome, Refused};
use crate::edge::view::View;
use crate::edge::{Edge, wire};
use crate::store::{Conversations as _, InboxRow, Inboxes as _, Messages as _, Order, Range};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{StreamExt, TryStreamExt, stream};
use reedi_protocol::resource::{Activity, Conversation, ConversationList};
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp, limits};

/// Conversations of one account that are looked at.
pub const INBOX_MOST: usize = 10_000;
/// Conversations read at once for one list.
const AT_ONCE: usize = 8;

/// `GET /conversations/:id`.
///
/// # Errors
/// Not this account's conversation.
pub async fn one(edge: &Edge, account: AccountId, conversation: ConversationKey) -> Outcome<Conversation> {
    let view = edge.reader_view(account, conversation).await?;
    resource(&view, account)
}

/// The conversation of a view, as `account` sees it.
///
/// # Errors
/// Not a member.
pub fn resource(view: &View, account: AccountId) -> Outcome<Conversation> {
    let member = view.member(account)?;
    Ok(wire::conversation(view.conversation, &view.state, member.role))
}

/// `GET /conversations`.
///
/// # Errors
/// A bad cursor, or the store has not caught up.
pub async fn get(
    edge: &Edge,
    account: AccountId,
    cursor: Option<&str>,
    limit: Option<usize>,
) -> Outcome<ConversationList> {
    let limit = page_size(limit)?;
    let from = cursor.map(parse_cursor).transpose()?;
    edge.watermarks.passed_all(&edge.newest.of_account(account)).await?;
    let mut rows = edge.store.inbox(account, INBOX_MOST).await?;
    rows.retain(|row| row.left.is_none());
    let large: Vec<ConversationKey> =
        rows.iter().filter(|r| has_shared_head(r)).map(|r| r.conversation).collect();
    let heads = edge.store.heads(&large).await?;
    for row in &mut rows {
        if let Some(i) = large.iter().position(|key| *key == row.conversation) {
            row.head = heads[i].max(row.head);
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(activity(row)));
    rows.retain(|row| from.is_none_or(|from| activity(row) < from));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| write_cursor(activity(row)));
    let conversations = stream::iter(rows.into_iter().map(|row| entry(edge, account, row)))
        .buffered(AT_ONCE)
        .try_filter_map(|entry| async move { Ok(entry) })
        .try_collect()
        .await?;
    Ok(ConversationList { conversations, next_cursor })
}

/// A group may have been large for some of its time, when its members' inboxes were not told of each
/// event: its own head is the newest.
#[must_use]
pub fn has_shared_head(row: &InboxRow) -> bool {
    row.kind == reedi_protocol::resource::ConversationType::Group
}

type Place = (Timestamp, ConversationKey);

fn activity(row: &InboxRow) -> Place {
    (row.head.map_or(Timestamp::default(), |(_, time)| time), row.conversation)
}

fn write_cursor((time, conversation): Place) -> String {
    let mut bytes = time.as_millis().to_be_bytes().to_vec();
    bytes.extend_from_slice(&conversation.as_u64().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_cursor(text: &str) -> Outcome<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let bytes =
        bytes.ok_or_else(|| Refused::invalid("?cursor", "give the nextCursor of an earlier answer"))?;
    let number = u128::from_be_bytes(bytes);
    Ok((Timestamp::from_millis((number >> 64) as u64), ConversationKey::from_u64(number as u64)))
}

async fn entry(edge: &Edge, account: AccountId, row: InboxRow) -> Outcome<Option<Conversation>> {
    let known = row.head.map_or(row.joined, |(head, _)| head.max(row.joined));
    let view = edge.views.as_of(row.conversation, known).await?;
    let Ok(mut conversation) = resource(&view, account) else { return Ok(None) };
    let joined = row.joined.as_u64();
    let floor = Position::from_u64(joined - u64::from(joined > 0)).unwrap_or_default();
    // A few, since the newest may be hidden from this account.
    let newest = edge.store.messages(row.conversation, Range::after(floor), Order::NewestFirst, 4).await?;
    let last_message = resources(edge, account, row.conversation, &newest).await?.into_iter().next();
    conversation.activity = Some(Activity {
        last_message,
        unread_count: unread(edge, account, &row, floor).await?,
        muted_until: row.muted_until.filter(|until| *until > edge.clock.now()),
        position: row.head.map_or(row.joined, |(position, _)| position),
    });
    Ok(Some(conversation))
}

/// Messages of others after what the account has read: exact to 99 by a bounded read, 100 for more.
async fn unread(edge: &Edge, account: AccountId, row: &InboxRow, floor: Position) -> Outcome<u32> {
    let head = row.head.map_or(Position::START, |(position, _)| position);
    if head <= row.read {
        return Ok(0);
    }
    let most = limits::UNREAD_EXACT as usize + 1;
    let range = Range::after(row.read.max(floor));
    // Twice as many are read, since one's own do not count.
    let after = edge.store.messages(row.conversation, range, Order::OldestFirst, 2 * most).await?;
    let counts = |m: &&crate::store::StoredMessage| {
        m.row.sender != account
            && m.deleted.is_none()
            && m.row.message_type != reedi_protocol::resource::MessageType::System
    };
    Ok(after.iter().filter(counts).count().min(most) as u32)
}
