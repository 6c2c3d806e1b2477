//! Events: everything that changed in a conversation since a position, in order.

use super::{before, behind, floor};
use crate::domain::record::Body;
use crate::edge::answer_room::{ReadUnderWay, page_bytes};
use crate::edge::refused::{Outcome, Refused};
use crate::edge::wire::{self, Audience};
use crate::edge::{Edge, watermarks::NotStored};
use crate::store::{
    InboxRow, Inboxes as _, Messages as _, Order, Range, StoreResult, StoredEvent, StoredMessage,
};
use reedi_protocol::event::{Place, ServerEvent};
use reedi_protocol::resource::{Events, LoggedEvent, Message};
use reedi_protocol::{AccountId, ConversationKey, Position};

/// Which events to read.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub after: Position,
    /// Nothing after this, which must be stored.
    pub up_to: Position,
    pub limit: usize,
}

/// Events for one account, in order; those of one position are never torn apart.
pub struct Caught {
    pub told: Vec<(Position, ServerEvent)>,
    pub complete_to: Position,
    pub has_more: bool,
}

/// What stands at one position: a message, or something that happened, or both (a control event and
/// the `system` message that it is).
struct Stand {
    position: Position,
    message: Option<StoredMessage>,
    event: Option<StoredEvent>,
}

/// Reads a page of the events of the conversation of `row`, as its account may see them (invariant
/// `members_only`: from where it joined to where it left).
///
/// # Errors
/// The store is away, or gives up on these rows.
pub async fn page(edge: &Edge, account: AccountId, row: &InboxRow, page: Page) -> StoreResult<Caught> {
    let conversation = row.conversation;
    let after = page.after.max(floor(row));
    let end = row.left.map_or(page.up_to, |left| left.min(page.up_to));
    let range = Range { after, before: behind(end) };
    let ask = page.limit + 1;
    let (messages, events) = tokio::try_join!(
        edge.store.messages(conversation, range, Order::OldestFirst, ask),
        edge.store.events(conversation, range, ask),
    )?;
    let mut stands = merge(messages, events);
    let has_more = stands.len() > page.limit;
    stands.truncate(page.limit);
    let complete_to =
        if has_more { stands.last().map_or(after, |s| s.position) } else { page.up_to.max(page.after) };
    let hidden = edge.store.hidden(conversation, account, range).await?;
    let mut told = Vec::with_capacity(stands.len());
    let mut previous = None;
    for stand in stands {
        let place = Place { position: stand.position, previous_position: previous };
        let chained = stand.message.is_some() || stand.event.as_ref().is_some_and(is_public);
        for (audience, event) in tell(edge, conversation, account, row, stand, place, &hidden) {
            if audience.includes(account) {
                told.push((place.position, event));
            }
        }
        if chained {
            previous = Some(place.position);
        }
    }
    fill_edits(edge, conversation, &mut told).await?;
    Ok(Caught { told, complete_to, has_more })
}

/// Whether the account may have left and joined since `after`: only the last time that it took part is known
/// event by event, and what was missed before it left is not part of that.
pub fn was_elsewhere(row: &InboxRow, after: Position) -> bool {
    let left_since = row.left.is_some() || row.left_before.is_some_and(|left| left > after);
    row.joined > after && left_since
}

/// Where the events that are there begin, if some between `after` and there may have ended (ADR 0034).
///
/// # Errors
/// The store is away.
pub async fn missing_before(
    edge: &Edge,
    row: &InboxRow,
    after: Position,
    up_to: Position,
) -> StoreResult<Option<Position>> {
    let after = after.max(floor(row));
    if after >= up_to {
        return Ok(None);
    }
    let kept = edge.kept_from(row.conversation.shard(), after).await?;
    Ok(Some(kept.min(behind(up_to))).filter(|kept| *kept > behind(after)))
}

fn is_public(event: &StoredEvent) -> bool {
    !matches!(event.record.body, Body::Receipt(_) | Body::Hide { .. } | Body::Tick)
}

fn merge(messages: Vec<StoredMessage>, events: Vec<StoredEvent>) -> Vec<Stand> {
    let mut stands: Vec<Stand> = messages
        .into_iter()
        .map(|m| Stand { position: m.row.position, message: Some(m), event: None })
        .chain(events.into_iter().map(|e| Stand { position: e.position, message: None, event: Some(e) }))
        .collect();
    stands.sort_by_key(|stand| stand.position);
    stands.dedup_by(|later, earlier| {
        let same = later.position == earlier.position;
        if same {
            earlier.message = earlier.message.take().or(later.message.take());
            earlier.event = earlier.event.take().or(later.event.take());
        }
        same
    });
    stands
}

fn tell(
    edge: &Edge,
    conversation: ConversationKey,
    account: AccountId,
    row: &InboxRow,
    stand: Stand,
    place: Place,
    hidden: &[Position],
) -> Vec<(Audience, ServerEvent)> {
    // Where the account left, it is told only that.
    let left_here = row.left == Some(stand.position);
    match stand {
        Stand { event: Some(event), .. } => match &event.record.body {
            Body::Control { change, after } => {
                let after = after.clone().placed_at(event.position);
                let entry = crate::domain::record::Entry {
                    position: event.position,
                    log_time: event.log_time,
                    record: event.record.clone(),
                };
                let mut told = wire::control_events(&entry, change, &after, place);
                if left_here {
                    told.retain(|(_, event)| matches!(event, ServerEvent::ParticipantRemoved { .. }));
                }
                told
            }
            _ => wire::small_events_and_edits(&event.record, place),
        },
        Stand { message: Some(stored), .. } if !hidden.contains(&stored.row.position) && !left_here => {
            let mut message: Message = wire::stored_message(&edge.key_ring, conversation, &stored, account);
            message.previous_position = place.previous_position;
            vec![(Audience::All, ServerEvent::NewMessage(Box::new(message)))]
        }
        Stand { .. } => Vec::new(),
    }
}

/// An edit's content is where the message is: the newest stands for all.
async fn fill_edits(
    edge: &Edge,
    conversation: ConversationKey,
    told: &mut [(Position, ServerEvent)],
) -> StoreResult<()> {
    for (_, event) in told {
        if let ServerEvent::MessageEdited { message_id, content, .. } = event {
            let stored = edge.store.message(conversation, message_id.position()).await?;
            *content = stored
                .and_then(|s| wire::stored_message(&edge.key_ring, conversation, &s, s.row.sender).content);
        }
    }
    Ok(())
}

/// `GET /conversations/:id/events`.
///
/// # Errors
/// Not this account's conversation, a place that cannot be, or the store has not caught up.
pub async fn get(
    edge: &Edge,
    account: AccountId,
    conversation: ConversationKey,
    after: Position,
    limit: usize,
) -> Outcome<(ReadUnderWay, Events)> {
    let shard = conversation.shard();
    edge.check_place(account, shard, after, "?after").await?;
    let newest = edge.newest.of_conversation(conversation).max(after);
    edge.watermarks.passed(shard, newest).await.map_err(|e: NotStored| Refused::from(e))?;
    // What was known stored before the row is read is in what is read, and who had left by then is known to have
    // (invariant `members_only`).
    let stored = edge.watermarks.known(shard).max(newest);
    let row = edge.store.inbox_row(account, conversation).await?.filter(|row| row.left.is_none());
    let row = row.ok_or_else(Refused::not_found)?;
    // The row may be ahead of the watermark, in a batch that is being written.
    edge.watermarks.passed(shard, row.joined).await.map_err(|e: NotStored| Refused::from(e))?;
    let up_to = stored.max(row.joined);
    let reading = edge.answer_room.take(account, page_bytes(limit)).await?;
    let kept = missing_before(edge, &row, after, up_to).await?;
    let from = kept.map_or(after, |kept| after.max(before(kept)));
    let mut caught = page(edge, account, &row, Page { after: from, up_to, limit }).await?;
    if kept.is_some() || was_elsewhere(&row, after) {
        let conversation_id = conversation.conversation_id();
        let place = kept.unwrap_or_default().min(up_to).max(row.joined);
        caught.told.insert(0, (place, ServerEvent::ConversationReset { conversation_id }));
    }
    let mut events = Vec::with_capacity(caught.told.len());
    for (position, event) in caught.told {
        if let Ok(serde_json::Value::Object(mut frame)) = serde_json::to_value(&event) {
            let name = frame.remove("event").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            events.push(LoggedEvent {
                position,
                event: name,
                data: frame.remove("data").unwrap_or_default(),
            });
        }
    }
    Ok((reading, Events { events, complete_to: caught.complete_to, has_more: caught.has_more }))
}
