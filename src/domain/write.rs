//! What a record comes to in the store. Pure, so that any worker that processes a record, however
//! often and however late, writes the same (invariant `replay_converges`, rule P8).

use super::conversation::ConversationState;
use super::record::{Body, Change, Entry, NewMessage, Record, RequestDigest, Sealed};
use super::retention::EVENTS_TTL_S;
use reedi_protocol::resource::{ConversationType, MessageType};
use reedi_protocol::text::{ClientMessageId, Reaction};
use reedi_protocol::{AccountId, ConversationKey, Position, Shard, Timestamp};
use serde::{Deserialize, Serialize};

/// One change to the store. Each cell that it touches is written with a position as its timestamp:
/// the highest wins, whatever the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A message's row and its content, at its position.
    Message { conversation: ConversationKey, row: MessageRow, content: Option<Sealed> },
    /// New content at the edit's position. Loses against a deletion, whenever that comes.
    EditContent {
        conversation: ConversationKey,
        target: Position,
        at: Position,
        content: Sealed,
        edited_at: Timestamp,
        expires_at: Option<Timestamp>,
    },
    /// The content is gone for good and the row stays. Wins against any edit, whenever that comes.
    DeleteContent {
        conversation: ConversationKey,
        target: Position,
        deleted_at: Timestamp,
        deleted_by: AccountId,
    },
    /// An event that is no message, for catching up; the record without content. Kept until [`event_ends`].
    Event {
        conversation: ConversationKey,
        kind: ConversationType,
        position: Position,
        log_time: Timestamp,
        record: Record,
    },
    Reaction {
        conversation: ConversationKey,
        target: Position,
        account: AccountId,
        reaction: Reaction,
        at: Position,
        present: bool,
        expires_at: Option<Timestamp>,
    },
    /// How far an account has received; the cells' timestamp is `up_to` itself.
    Delivered {
        conversation: ConversationKey,
        account: AccountId,
        up_to: Position,
        at: Timestamp,
        private: bool,
    },
    /// How far an account has read; the cells' timestamp is `up_to` itself.
    Read { conversation: ConversationKey, account: AccountId, up_to: Position, at: Timestamp, private: bool },
    /// Which message a `clientMessageId` became: the latest wins. Kept for
    /// [`super::retention::SENDS_TTL_S`].
    Sent {
        conversation: ConversationKey,
        sender: AccountId,
        client_message_id: ClientMessageId,
        position: Position,
        digest: RequestDigest,
    },
    /// The conversation as of its newest control event.
    State { conversation: ConversationKey, at: Position, state: ConversationState },
    /// An account is a member from `at` on.
    InboxJoined { account: AccountId, conversation: ConversationKey, kind: ConversationType, at: Position },
    /// An account is no member from `at` on.
    InboxLeft { account: AccountId, conversation: ConversationKey, at: Position },
    /// The newest public event of a conversation, in each small conversation's members' inboxes.
    InboxHead { account: AccountId, conversation: ConversationKey, head: Position, head_time: Timestamp },
    /// Something that is no public event concerns an account: a resume must look there.
    InboxTouched { account: AccountId, conversation: ConversationKey, at: Position },
    /// What an account has read itself, for its unread count.
    InboxRead { account: AccountId, conversation: ConversationKey, up_to: Position },
    /// The newest public event of a group.
    Head { conversation: ConversationKey, head: Position, head_time: Timestamp },
    /// Of all records of a shard on one day the lowest position wins: no record from there on was taken much earlier than
    /// `log_time` (ADR 0034). Kept for [`super::retention::DAYS_TTL_S`].
    FirstOfDay { shard: Shard, position: Position, log_time: Timestamp },
    /// An account does not want to see a message any more.
    Hidden { conversation: ConversationKey, account: AccountId, target: Position, at: Position },
}

/// A message as the store keeps it, but for its content, reactions and marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    pub position: Position,
    pub kind: ConversationType,
    pub sender: AccountId,
    pub message_type: MessageType,
    /// When it was sent, as clients see it.
    pub timestamp: Timestamp,
    /// When the log took it: decides the bucket.
    pub log_time: Timestamp,
    pub reply_to: Option<Position>,
    pub client_message_id: Option<ClientMessageId>,
    pub keyed_by_client: bool,
    pub expires_at: Option<Timestamp>,
    /// For `system` messages: what happened.
    pub system: Option<Change>,
    /// For `system` messages about a name: the name it became.
    pub system_name: Option<String>,
}

/// All that `entry` changes in the store.
#[must_use]
pub fn writes_of(entry: &Entry) -> Vec<Write> {
    let Entry { position, log_time, record } = entry;
    let (conversation, actor, position, log_time) = (record.conversation, record.actor, *position, *log_time);
    let mut writes = Vec::with_capacity(6);
    if let Some(row) = message_row(entry) {
        let content = match &record.body {
            Body::Message(message) => message.content.clone(),
            _ => None,
        };
        writes.push(Write::Message { conversation, row, content });
    }
    match &record.body {
        Body::Tick => return writes,
        Body::Message(message) => message_writes(entry, message, &mut writes),
        Body::Edit { target, content, expires_at } => {
            if let Some(content) = content {
                writes.push(Write::EditContent {
                    conversation,
                    target: *target,
                    at: position,
                    content: content.clone(),
                    edited_at: record.stamp,
                    expires_at: *expires_at,
                });
            }
        }
        Body::Delete { target } => writes.push(Write::DeleteContent {
            conversation,
            target: *target,
            deleted_at: record.stamp,
            deleted_by: actor,
        }),
        Body::Hide { target } => {
            writes.push(Write::Hidden { conversation, account: actor, target: *target, at: position });
            writes.push(Write::InboxTouched { account: actor, conversation, at: position });
        }
        Body::React { target, reaction, expires_at } => {
            writes.push(reaction_write(entry, *target, reaction, true, *expires_at));
        }
        Body::Unreact { target, reaction } => {
            writes.push(reaction_write(entry, *target, reaction, false, None));
        }
        Body::Receipt(mark) => {
            receipt_writes(
                conversation,
                actor,
                (mark.delivered, mark.read),
                mark.is_private(),
                record.stamp,
                &mut writes,
            );
            // A resume looks where something concerns an account: these are told of it.
            for account in mark.told(actor) {
                writes.push(Write::InboxTouched { account, conversation, at: position });
            }
        }
        Body::Control { change, after } => control_writes(entry, change, after, &mut writes),
    }
    if !matches!(record.body, Body::Message(_)) {
        let record = record.without_content();
        writes.push(Write::Event { conversation, kind: record.kind, position, log_time, record });
    }
    if entry.is_public() {
        head_writes(entry, &mut writes);
    }
    writes
}

/// When an event is no more to be caught up with: after its time, and where it is about a message that ends, with that.
#[must_use]
pub fn event_ends(log_time: Timestamp, record: &Record) -> Timestamp {
    let own = log_time.plus_millis(u64::from(EVENTS_TTL_S) * 1_000);
    match &record.body {
        Body::Edit { expires_at, .. } | Body::React { expires_at, .. } => {
            expires_at.map_or(own, |end| end.min(own))
        }
        _ => own,
    }
}

fn reaction_write(
    Entry { position, record, .. }: &Entry,
    target: Position,
    reaction: &Reaction,
    present: bool,
    expires_at: Option<Timestamp>,
) -> Write {
    Write::Reaction {
        conversation: record.conversation,
        target,
        account: record.actor,
        reaction: reaction.clone(),
        at: *position,
        present,
        expires_at,
    }
}

/// The writes of a receipt, also of one in a conversation too large to tell everybody: that one never
/// enters the log and the edge writes it.
pub fn receipt_writes(
    conversation: ConversationKey,
    account: AccountId,
    (delivered, read): (Option<Position>, Option<Position>),
    private: bool,
    at: Timestamp,
    writes: &mut Vec<Write>,
) {
    // What is read has been delivered.
    if let Some(up_to) = delivered.max(read) {
        writes.push(Write::Delivered { conversation, account, up_to, at, private });
    }
    if let Some(up_to) = read {
        writes.push(Write::Read { conversation, account, up_to, at, private });
        writes.push(Write::InboxRead { account, conversation, up_to });
    }
}

/// The row of the message that an entry is in history: what an author wrote, or what a control event
/// tells. `None` for other events, and for a creation, which speaks for itself.
#[must_use]
pub fn message_row(entry: &Entry) -> Option<MessageRow> {
    let record = &entry.record;
    let row = MessageRow {
        position: entry.position,
        kind: record.kind,
        sender: record.actor,
        message_type: MessageType::System,
        timestamp: record.stamp,
        log_time: entry.log_time,
        reply_to: None,
        client_message_id: None,
        keyed_by_client: false,
        expires_at: None,
        system: None,
        system_name: None,
    };
    match &record.body {
        Body::Message(message) => Some(MessageRow {
            message_type: message.message_type,
            reply_to: message.reply_to,
            client_message_id: Some(message.client_message_id.clone()),
            keyed_by_client: message.keyed_by_client,
            expires_at: message.expires_at(record.stamp),
            ..row
        }),
        Body::Control { change, after } if *change != Change::Created => Some(MessageRow {
            system: Some(change.clone()),
            system_name: after.name.as_ref().map(|n| n.as_str().to_owned()),
            ..row
        }),
        _ => None,
    }
}

fn message_writes(entry: &Entry, message: &NewMessage, writes: &mut Vec<Write>) {
    let record = &entry.record;
    let conversation = record.conversation;
    if message.keyed_by_client {
        writes.push(Write::Sent {
            conversation,
            sender: record.actor,
            client_message_id: message.client_message_id.clone(),
            position: entry.position,
            digest: record.digest,
        });
    }
    writes.push(Write::InboxRead { account: record.actor, conversation, up_to: entry.position });
}

fn control_writes(entry: &Entry, change: &Change, after: &ConversationState, writes: &mut Vec<Write>) {
    let (record, at) = (&entry.record, entry.position);
    let conversation = record.conversation;
    writes.push(Write::State { conversation, at, state: after.clone() });
    for account in change.came(after) {
        writes.push(Write::InboxJoined { account, conversation, kind: after.kind, at });
    }
    if let Some(account) = change.gone(record.actor) {
        writes.push(Write::InboxLeft { account, conversation, at });
    }
}

/// Heads move with public events. Small conversations have theirs in every member's inbox, groups one of their
/// own as well: they may have been large (ADR 0008).
fn head_writes(entry: &Entry, writes: &mut Vec<Write>) {
    let record = &entry.record;
    let conversation = record.conversation;
    let (head, head_time) = (entry.position, record.stamp);
    if record.kind == ConversationType::Group {
        writes.push(Write::Head { conversation, head, head_time });
    }
    let members: Vec<AccountId> = match (&record.body, &record.audience) {
        (Body::Control { after, .. }, _) if after.is_small() => after.accounts(),
        (Body::Control { .. }, _) | (_, None) => Vec::new(),
        (_, Some(audience)) => audience.accounts.clone(),
    };
    for account in members {
        writes.push(Write::InboxHead { account, conversation, head, head_time });
    }
}
