//! What each write does to the values. Every one of them is a join: commutative, associative and
//! idempotent, so that replays converge (rule P8).

use super::transaction::{Standing, Transaction};
use super::value::{
    ABOVE_EVERY_POSITION, ContentCell, EventValue, HeadValue, Held, HiddenValue, InboxValue, Joined, Mark,
    MessageValue, ReactionValue, ReceiptValue, SentValue, StateValue,
};
use super::{claims, keys};
use crate::domain::record::{Record, Sealed};
use crate::domain::retention::SENDS_TTL_S;
use crate::domain::write::{MessageRow, Write, event_ends};
use crate::store::StoreResult;
use reedi_protocol::{AccountId, ConversationKey, Position, Shard, Timestamp};
use std::collections::HashMap;

/// For how long the mark of a removed reaction, or a change without its message, is kept so that a
/// late repeat of an earlier write cannot undo it, in milliseconds. Ten days: CQL's default
/// `gc_grace_seconds`, and ten times what the log keeps of what has been stored.
pub const TOMBSTONE_KEPT_MS: u64 = 10 * 24 * 3_600 * 1_000;

/// What a batch of the log came to, and how far the log is stored with it.
pub fn persist(
    tx: &mut Transaction<'_>,
    writes: Vec<Write>,
    watermarks: Vec<(Shard, Position)>,
) -> StoreResult<()> {
    let mut stored = HashMap::with_capacity(watermarks.len());
    for (shard, _) in &watermarks {
        stored.insert(*shard, claims::watermark(tx, *shard)?);
    }
    for write in writes {
        match write {
            // Of what lies beyond a watermark nothing stands, changes included: it would have come with its watermark.
            Write::Message { conversation, row, content }
                if stored.get(&conversation.shard()).is_some_and(|stored| row.position > *stored) =>
            {
                message(tx, conversation, row, content, Standing::NothingYet)?;
            }
            write => apply(tx, write)?,
        }
    }
    watermarks.into_iter().try_for_each(|(shard, to)| claims::advance(tx, shard, to))
}

pub fn apply(tx: &mut Transaction<'_>, write: Write) -> StoreResult<()> {
    match write {
        Write::Message { conversation, row, content } => {
            message(tx, conversation, row, content, Standing::Unknown)
        }
        Write::EditContent { conversation, target, at, content, edited_at, expires_at } => {
            let alive = expires_at.is_none_or(|end| end > tx.now());
            let (content, edited_at) = (alive.then_some(content), alive.then_some(edited_at));
            let cell = ContentCell { timestamp: at.as_u64(), content, edited_at };
            change_message(tx, conversation, target, Standing::Unknown, |message| {
                message.content.take_later(cell);
            })
        }
        Write::DeleteContent { conversation, target, deleted_at, deleted_by } => {
            change_message(tx, conversation, target, Standing::Unknown, |message| {
                delete(message, (deleted_at, deleted_by));
            })
        }
        Write::Event { conversation, kind: _, position, log_time, record } => {
            event(tx, conversation, position, log_time, &record)
        }
        Write::Reaction { .. } => reaction(tx, write),
        Write::Delivered { conversation, account, up_to, at, private } => {
            receipt(tx, conversation, account, |r| {
                r.delivered = Some(Mark::further(r.delivered, Mark { up_to, at, private }));
            })
        }
        Write::Read { conversation, account, up_to, at, private } => {
            receipt(tx, conversation, account, |r| {
                r.read = Some(Mark::further(r.read, Mark { up_to, at, private }));
            })
        }
        Write::Sent { .. } => sent(tx, write),
        Write::State { conversation, at, state } => {
            tx.update(keys::state(conversation), |old: Option<&Held<StateValue>>| match old {
                Some(old) if old.value.at >= at => old.clone(),
                _ => Held::for_ever(StateValue { at, state }),
            })
        }
        Write::InboxJoined { account, conversation, kind, at } => inbox(tx, account, conversation, |row| {
            if row.joined.is_none_or(|joined| joined.at < at) {
                row.joined = Some(Joined { at, kind });
            }
        }),
        Write::InboxLeft { account, conversation, at } => {
            inbox(tx, account, conversation, |row| row.left = row.left.max(Some(at)))
        }
        Write::InboxHead { account, conversation, head, head_time } => {
            inbox(tx, account, conversation, |row| {
                row.head = Some(HeadValue::further(row.head, HeadValue { head, head_time }));
            })
        }
        Write::InboxTouched { account, conversation, at } => {
            inbox(tx, account, conversation, |row| row.touched = row.touched.max(Some(at)))
        }
        Write::InboxRead { account, conversation, up_to } => {
            inbox(tx, account, conversation, |row| row.read = row.read.max(up_to))
        }
        Write::Head { conversation, head, head_time } => tx.update(keys::head(conversation), |old| {
            let this = HeadValue { head, head_time };
            Held::for_ever(HeadValue::further(old.map(|old| old.value), this))
        }),
        Write::FirstOfDay { shard, position, log_time } => {
            claims::first_of_day(tx, shard, position, log_time)
        }
        Write::Hidden { conversation, account, target, at: _ } => {
            tx.update(keys::hidden(conversation, account, target), |_| Held::for_ever(HiddenValue))
        }
    }
}

fn message(
    tx: &mut Transaction<'_>,
    conversation: ConversationKey,
    row: MessageRow,
    content: Option<Sealed>,
    standing: Standing,
) -> StoreResult<()> {
    let position = row.position;
    if row.expires_at.is_some_and(|end| end <= tx.now()) {
        tx.delete(keys::message(conversation, position));
        return Ok(());
    }
    let cell = ContentCell { timestamp: position.as_u64(), content, edited_at: None };
    change_message(tx, conversation, position, standing, |message| {
        message.row.get_or_insert(row);
        message.content.take_later(cell);
    })
}

/// The content is gone whatever edit comes; of two deletions the first stands.
fn delete(message: &mut MessageValue, this: (Timestamp, AccountId)) {
    message.content.take_later(ContentCell { timestamp: ABOVE_EVERY_POSITION, ..ContentCell::default() });
    message.deleted = Some(message.deleted.map_or(this, |other| other.min(this)));
}

/// A message ends when its row says so, and changes that are alone when no message can come any more.
fn change_message(
    tx: &mut Transaction<'_>,
    conversation: ConversationKey,
    position: Position,
    standing: Standing,
    change: impl FnOnce(&mut MessageValue),
) -> StoreResult<()> {
    let alone_until = tx.now().plus_millis(TOMBSTONE_KEPT_MS);
    tx.update_from(standing, keys::message(conversation, position), |old| {
        let mut value = old.map(|old: &Held<MessageValue>| old.value.clone()).unwrap_or_default();
        change(&mut value);
        let expires_at = match (&value.row, old) {
            (Some(row), _) => row.expires_at,
            (None, Some(old)) => old.expires_at,
            (None, None) => Some(alone_until),
        };
        Held { value, expires_at }
    })
}

fn event(
    tx: &mut Transaction<'_>,
    conversation: ConversationKey,
    position: Position,
    log_time: Timestamp,
    record: &Record,
) -> StoreResult<()> {
    let expires_at = event_ends(log_time, record);
    if expires_at <= tx.now() {
        return Ok(());
    }
    let value = EventValue { log_time, record: record.encode() };
    tx.update(keys::event(conversation, position), |_| Held::until(expires_at, value))
}

/// The latest adding or removing stands. One that came too late to live is a removal.
fn reaction(tx: &mut Transaction<'_>, write: Write) -> StoreResult<()> {
    let Write::Reaction { conversation, target, account, reaction, at, present, expires_at } = write else {
        return Ok(());
    };
    let now = tx.now();
    let present = present && expires_at.is_none_or(|end| end > now);
    tx.update(
        keys::reaction(conversation, target, account, &reaction),
        |old: Option<&Held<ReactionValue>>| match old {
            Some(old) if old.value.at >= at => old.clone(),
            _ if present => Held { value: ReactionValue { at, present }, expires_at },
            _ => Held::until(now.plus_millis(TOMBSTONE_KEPT_MS), ReactionValue { at, present }),
        },
    )
}

/// The latest by position stands, for its time from when it was written (ADR 0031).
fn sent(tx: &mut Transaction<'_>, write: Write) -> StoreResult<()> {
    let Write::Sent { conversation, sender, client_message_id, position, digest } = write else {
        return Ok(());
    };
    let until = tx.now().plus_millis(u64::from(SENDS_TTL_S) * 1_000);
    tx.update(keys::sent(conversation, sender, &client_message_id), |old: Option<&Held<SentValue>>| match old
    {
        Some(old) if old.value.position >= position => old.clone(),
        _ => Held::until(until, SentValue { position, digest }),
    })
}

fn receipt(
    tx: &mut Transaction<'_>,
    conversation: ConversationKey,
    account: AccountId,
    change: impl FnOnce(&mut ReceiptValue),
) -> StoreResult<()> {
    tx.update(keys::receipt(conversation, account), |old| {
        let mut value = old.map(|old: &Held<ReceiptValue>| old.value.clone()).unwrap_or_default();
        change(&mut value);
        Held::for_ever(value)
    })
}

fn inbox(
    tx: &mut Transaction<'_>,
    account: AccountId,
    conversation: ConversationKey,
    change: impl FnOnce(&mut InboxValue),
) -> StoreResult<()> {
    tx.update(keys::inbox_row(account, conversation), |old| {
        let mut value = old.map(|old: &Held<InboxValue>| old.value.clone()).unwrap_or_default();
        change(&mut value);
        Held::for_ever(value)
    })
}
