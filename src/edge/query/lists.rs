//! Lists: an account's conversations, by latest activity.

use super::history::{page_size, resources};
use super::{before, behind, floor};
use crate::edge::answer_room::{ReadUnderWay, page_bytes, participants_bytes};
use crate::edge::refused::{Outcome, Refused};
use crate::edge::view::View;
use crate::edge::{Edge, wire};
use crate::store::{
    Conversations as _, InboxRow, Inboxes as _, Messages as _, Order, Outline, Range, StoreResult,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{StreamExt, TryStreamExt, stream};
use reedi_protocol::resource::{Activity, Conversation, ConversationList, Message, MessageType};
use reedi_protocol::{AccountId, Checkpoint, ConversationKey, Position, Timestamp, limits};

/// Rows of an inbox that are read at once; of all of them as many are kept as a page shows.
pub const INBOX_PAGE: usize = 1_000;
/// Conversations read at once for one list.
const AT_ONCE: usize = 8;
/// Messages looked at together to find the last that an account sees: a few, since the newest may be hidden from it.
const LAST_STEP: usize = 4;
/// Steps after which none is shown: who has hidden the newest 32 messages sees no last one. Each is read with its content.
const LAST_STEPS: usize = 8;
/// What is told instead of a count beyond [`limits::UNREAD_EXACT`].
const UNREAD_MANY: u32 = limits::UNREAD_EXACT + 1;
/// Messages looked at in one step of counting: twice as many as are counted, since one's own do not count.
const UNREAD_STEP: usize = 2 * UNREAD_MANY as usize;
/// Steps after which there are taken to be many: most of 2,000 messages then are deleted, or notes.
const UNREAD_STEPS: usize = 10;

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
) -> Outcome<(ReadUnderWay, ConversationList)> {
    let limit = page_size(limit)?;
    let from = cursor.map(parse_cursor).transpose()?;
    edge.watermarks.passed_all(&edge.newest.of_account(account)).await?;
    edge.watermarks.fresh().await?;
    // Known before the inbox is read, so that this tells of every leaving up to there: nothing from beyond is shown, which
    // is of a batch that is being written (invariant `members_only`).
    let stored = edge.watermarks.all();
    let mut rows = latest(edge, account, &stored, from, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| write_cursor(activity(row)));
    let members = |row: &InboxRow| if has_shared_head(row) { edge.limits.group_members } else { 2 };
    let members = rows.iter().map(members).sum();
    let bytes = page_bytes(rows.len()) + participants_bytes(members);
    let reading = edge.answer_room.take(account, bytes).await?;
    let entries = rows.into_iter().map(|row| {
        let up_to = stored.get(row.conversation.shard());
        entry(edge, account, row, up_to)
    });
    let conversations = stream::iter(entries)
        .buffered(AT_ONCE)
        .try_filter_map(|entry| async move { Ok(entry) })
        .try_collect()
        .await?;
    Ok((reading, ConversationList { conversations, next_cursor }))
}

/// The conversations of an account that were active last, at most `most`, of those before `from`.
async fn latest(
    edge: &Edge,
    account: AccountId,
    stored: &Checkpoint,
    from: Option<Place>,
    most: usize,
) -> StoreResult<Vec<InboxRow>> {
    let (mut latest, mut after) = (Vec::new(), None);
    loop {
        let page = edge.store.inbox(account, after, INBOX_PAGE).await?;
        after = page.last().filter(|_| page.len() >= INBOX_PAGE).map(|row| row.conversation);
        let is_there =
            |row: &InboxRow| row.left.is_none() && row.joined <= stored.get(row.conversation.shard());
        let rows = with_heads(edge, page.into_iter().filter(is_there).collect()).await?;
        latest.extend(rows.into_iter().filter(|row| from.is_none_or(|from| activity(row) < from)));
        latest.sort_by_key(|row| std::cmp::Reverse(activity(row)));
        latest.truncate(most);
        if after.is_none() {
            return Ok(latest);
        }
    }
}

/// The rows with the newest event of each, wherever it is kept.
///
/// # Errors
/// The store is away.
pub async fn with_heads(edge: &Edge, mut rows: Vec<InboxRow>) -> StoreResult<Vec<InboxRow>> {
    let shared: Vec<ConversationKey> =
        rows.iter().filter(|row| has_shared_head(row)).map(|row| row.conversation).collect();
    let heads = edge.store.heads(&shared).await?;
    let of_groups = rows.iter_mut().filter(|row| has_shared_head(row));
    of_groups.zip(heads).for_each(|(row, head)| row.head = head.max(row.head));
    Ok(rows)
}

/// A group may have been large for some of its time, when its members' inboxes were not told of each
/// event: its own head is the newest.
fn has_shared_head(row: &InboxRow) -> bool {
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

/// One conversation as of `up_to`, which is stored and at which the account of `row` is a member.
async fn entry(
    edge: &Edge,
    account: AccountId,
    row: InboxRow,
    up_to: Position,
) -> Outcome<Option<Conversation>> {
    let newest = row.head.map_or(row.joined, |(head, _)| head.min(up_to).max(row.joined));
    let view = edge.views.as_of(row.conversation, newest).await?;
    let Ok(mut conversation) = resource(&view, account) else { return Ok(None) };
    let range = Range { after: floor(&row), before: behind(up_to) };
    let (last, unread) = tokio::join!(last(edge, account, &row, range), unread(edge, account, &row, range));
    let last = edge.if_readable(row.conversation, last)?;
    let unread = edge.if_readable(row.conversation, unread)?;
    let partial = last.is_none() || unread.is_none();
    if partial {
        edge.metrics.conversations_unreadable.inc();
    }
    conversation.activity = Some(Activity {
        last_message: last.flatten(),
        unread_count: unread.unwrap_or(UNREAD_MANY),
        partial,
        muted_until: row.muted_until.filter(|until| *until > edge.clock.now()),
        position: newest,
    });
    Ok(Some(conversation))
}

/// The newest message that the account sees.
async fn last(
    edge: &Edge,
    account: AccountId,
    row: &InboxRow,
    mut range: Range,
) -> StoreResult<Option<Message>> {
    for _ in 0..LAST_STEPS {
        let step = edge.store.messages(row.conversation, range, Order::NewestFirst, LAST_STEP).await?;
        let seen = resources(edge, account, row.conversation, &step).await?.into_iter().next();
        match step.last() {
            Some(oldest) if seen.is_none() && step.len() >= LAST_STEP => range.before = oldest.row.position,
            _ => return Ok(seen),
        }
    }
    Ok(None)
}

/// Messages of others after what the account has read and not hidden: exact to 99, [`UNREAD_MANY`] for more.
async fn unread(edge: &Edge, account: AccountId, row: &InboxRow, range: Range) -> StoreResult<u32> {
    let head = row.head.map_or(Position::START, |(position, _)| position);
    if head <= row.read {
        return Ok(0);
    }
    let counts = |message: &&Outline| {
        message.sender != account && !message.is_deleted && message.message_type != MessageType::System
    };
    let mut range = Range { after: range.after.max(row.read), ..range };
    let mut count = 0;
    for _ in 0..UNREAD_STEPS {
        let step = edge.store.outlines(row.conversation, range, UNREAD_STEP).await?;
        let (Some(first), Some(last)) = (step.first(), step.last()) else { return Ok(count) };
        let looked_at = Range { after: before(first.position), before: behind(last.position) };
        if step.iter().any(|message| counts(&message)) {
            let hidden = edge.store.hidden(row.conversation, account, looked_at).await?;
            count += step.iter().filter(counts).filter(|m| !hidden.contains(&m.position)).count() as u32;
        }
        if step.len() < UNREAD_STEP || count >= UNREAD_MANY {
            return Ok(count.min(UNREAD_MANY));
        }
        range.after = last.position;
    }
    Ok(UNREAD_MANY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reedi_protocol::ErrorCode;

    proptest! {
        #[test]
        fn a_cursor_names_the_place_that_it_was_written_of(ms: u64, conversation: u64) {
            let place = (Timestamp::from_millis(ms), ConversationKey::from_u64(conversation));
            prop_assert_eq!(parse_cursor(&write_cursor(place)), Ok(place));
        }

        #[test]
        fn any_text_is_a_cursor_or_is_refused(
            text: String, bytes in proptest::collection::vec(any::<u8>(), 14..19)
        ) {
            let encoded = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert_eq!(parse_cursor(&encoded).is_ok(), bytes.len() == 16);
            for text in [text, encoded] {
                match parse_cursor(&text) {
                    Ok(place) => prop_assert_eq!(parse_cursor(&write_cursor(place)), Ok(place)),
                    Err(refused) => prop_assert_eq!(refused.code, ErrorCode::InvalidValue),
                }
            }
        }
    }
}
