//! From events as the log and the store have them to what clients are told: the one place that makes
//! server events and message resources, for live frames, history and catching up alike.

use super::append::seal::{Belonging, KeyRing};
use super::session::OutFrame;
use crate::domain::conversation::ConversationState;
use crate::domain::record::{Body, Change, Entry, ReceiptMark, Record, Sealed};
use crate::domain::write::{MessageRow, message_row};
use crate::store::StoredMessage;
use bytes::Bytes;
use reedi_protocol::command::DeleteScope;
use reedi_protocol::event::{Place, ServerEvent};
use reedi_protocol::resource::{Conversation, Message, MessageReaction, Participant, Role, SystemNote};
use reedi_protocol::{AccountId, ConversationKey, Position, frame};

/// Whom an event is for, of those who get the record it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    All,
    Only(AccountId),
    Except(AccountId),
    /// Those of these who are in the list.
    OneOf(Vec<AccountId>),
}

impl Audience {
    #[must_use]
    pub fn includes(&self, account: AccountId) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => *only == account,
            Self::Except(except) => *except != account,
            Self::OneOf(list) => list.contains(&account),
        }
    }
}

/// An event and whom it is for.
pub type Told = (Audience, ServerEvent);

/// Encodes an event for all who get it.
#[must_use]
pub fn encode(event: &ServerEvent) -> OutFrame {
    let place = event.stands_at().map(|(id, position)| (id.shard(), position));
    OutFrame { text: Bytes::from(frame::encode_event(event)), place }
}

/// Opens sealed content. What cannot be opened is an operator's mistake (a key missing from the
/// ring): it is logged without content, and clients see none.
#[must_use]
pub fn open(ring: &KeyRing, sealed: Option<&Sealed>, belonging: Belonging) -> Option<String> {
    match ring.open(sealed?, belonging) {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::error!(%error, "sealed content cannot be opened: check REEDI_SEAL_KEYS");
            None
        }
    }
}

/// The resource of a message. `clientMessageId` is told to its sender alone.
#[must_use]
pub fn message(
    conversation: ConversationKey,
    row: &MessageRow,
    content: Option<String>,
    viewer: AccountId,
) -> Message {
    let own_key = row.keyed_by_client && row.sender == viewer;
    Message {
        message_id: conversation.event_id(row.position),
        conversation_id: conversation.conversation_id(),
        sender_id: row.sender,
        content,
        message_type: row.message_type,
        timestamp: row.timestamp,
        position: row.position,
        previous_position: None,
        reply_to_id: row.reply_to.map(|position| conversation.event_id(position)),
        client_message_id: row
            .client_message_id
            .as_ref()
            .filter(|_| own_key)
            .map(|id| id.as_str().to_owned()),
        edited_at: None,
        deleted_at: None,
        expires_at: row.expires_at,
        system: row.system.as_ref().map(|change| system_note(change, row)),
        reactions: Vec::new(),
    }
}

/// The resource of a message as the store has it.
#[must_use]
pub fn stored_message(
    ring: &KeyRing,
    conversation: ConversationKey,
    stored: &StoredMessage,
    viewer: AccountId,
) -> Message {
    let row = &stored.row;
    let content = if stored.edited_at.is_some() {
        open(ring, stored.content.as_ref(), Belonging::Edit(conversation.event_id(row.position)))
    } else {
        row.client_message_id.as_ref().and_then(|client_message_id| {
            let belonging = Belonging::Sent { conversation, sender: row.sender, client_message_id };
            open(ring, stored.content.as_ref(), belonging)
        })
    };
    let mut message = message(conversation, row, content, viewer);
    message.edited_at = stored.edited_at;
    if let Some((deleted_at, _)) = stored.deleted {
        message.deleted_at = Some(deleted_at);
        message.content = None;
    }
    message
}

/// Adds reactions, which the store keeps apart.
pub fn with_reactions(message: &mut Message, reactions: &[crate::store::StoredReaction]) {
    message.reactions = reactions
        .iter()
        .filter(|r| r.target == message.position)
        .map(|r| MessageReaction { user_id: r.account, reaction: r.reaction.clone() })
        .collect();
}

fn system_note(change: &Change, row: &MessageRow) -> SystemNote {
    let (kind, user_ids) = match change {
        Change::Created => ("conversation_created", Vec::new()),
        Change::Added { accounts } => ("participants_added", accounts.clone()),
        Change::Removed { account } => ("participant_removed", vec![*account]),
        Change::Left { .. } => ("participant_left", vec![row.sender]),
        Change::RoleSet { account, .. } => ("role_changed", vec![*account]),
        Change::Settings { name_changed: true, .. } => ("name_changed", Vec::new()),
        Change::Settings { avatar_changed: true, .. } => ("avatar_changed", Vec::new()),
        Change::Settings { .. } => ("expiry_changed", Vec::new()),
    };
    let renamed = matches!(change, Change::Settings { name_changed: true, .. });
    let name = row.system_name.clone().filter(|_| renamed);
    SystemNote { kind: kind.to_owned(), by: row.sender, user_ids, name }
}

/// The resource of a conversation, as a member of the given role sees it.
#[must_use]
pub fn conversation(key: ConversationKey, state: &ConversationState, my_role: Role) -> Conversation {
    Conversation {
        conversation_id: key.conversation_id(),
        kind: state.kind,
        name: state.name.as_ref().map(|n| n.as_str().to_owned()),
        avatar_url: state.avatar_url.as_ref().map(|u| u.as_str().to_owned()),
        expires_after: state.expires_after_s,
        created_at: state.created_at,
        my_role,
        participants: state
            .members
            .iter()
            .map(|m| Participant { user_id: m.account, role: m.role, joined_at: m.joined_at })
            .collect(),
        activity: None,
    }
}

/// What a live record tells its recipients, in order.
#[must_use]
pub fn events_of(ring: &KeyRing, entry: &Entry, previous: Option<Position>) -> Vec<Told> {
    let record = &entry.record;
    let conversation = record.conversation;
    let place = Place { position: entry.position, previous_position: previous };
    match &record.body {
        Body::Message(sent) => {
            let Some(row) = message_row(entry) else { return Vec::new() };
            let belonging = Belonging::Sent {
                conversation,
                sender: record.actor,
                client_message_id: &sent.client_message_id,
            };
            let content = open(ring, sent.content.as_ref(), belonging);
            new_message(conversation, &row, content, place)
        }
        Body::Edit { target, content, .. } => {
            let id = conversation.event_id(*target);
            vec![(
                Audience::All,
                ServerEvent::MessageEdited {
                    message_id: id,
                    conversation_id: conversation.conversation_id(),
                    content: open(ring, content.as_ref(), Belonging::Edit(id)),
                    edited_at: record.stamp,
                    place,
                },
            )]
        }
        Body::Control { change, after } => control_events(entry, change, after, place),
        _ => small_events(record, place),
    }
}

/// A message in two forms where only its sender is told its key.
fn new_message(
    conversation: ConversationKey,
    row: &MessageRow,
    content: Option<String>,
    place: Place,
) -> Vec<Told> {
    let mut mine = message(conversation, row, content, row.sender);
    mine.previous_position = place.previous_position;
    if mine.client_message_id.is_none() {
        return vec![(Audience::All, ServerEvent::NewMessage(Box::new(mine)))];
    }
    let theirs = Message { client_message_id: None, ..mine.clone() };
    vec![
        (Audience::Only(row.sender), ServerEvent::NewMessage(Box::new(mine))),
        (Audience::Except(row.sender), ServerEvent::NewMessage(Box::new(theirs))),
    ]
}

/// Events without content, live and from the store alike.
#[must_use]
pub fn small_events(record: &Record, place: Place) -> Vec<Told> {
    let conversation = record.conversation;
    let conversation_id = conversation.conversation_id();
    let (user_id, at) = (record.actor, record.stamp);
    let id = |target: &Position| conversation.event_id(*target);
    let deleted = |target, scope| ServerEvent::MessageDeleted {
        message_id: id(target),
        conversation_id,
        scope,
        deleted_by: user_id,
        deleted_at: at,
        place,
    };
    match &record.body {
        Body::Delete { target } => vec![(Audience::All, deleted(target, DeleteScope::Everyone))],
        Body::Hide { target } => vec![(Audience::Only(user_id), deleted(target, DeleteScope::Me))],
        Body::React { target, reaction, .. } => {
            let reaction = reaction.as_str().to_owned();
            vec![(
                Audience::All,
                ServerEvent::ReactionAdded {
                    message_id: id(target),
                    conversation_id,
                    user_id,
                    reaction,
                    place,
                },
            )]
        }
        Body::Unreact { target, reaction } => {
            let reaction = reaction.as_str().to_owned();
            vec![(
                Audience::All,
                ServerEvent::ReactionRemoved {
                    message_id: id(target),
                    conversation_id,
                    user_id,
                    reaction,
                    place,
                },
            )]
        }
        Body::Receipt(mark) => receipt_events(record, mark, place),
        _ => Vec::new(),
    }
}

/// The same with edits, whose content is filled in from where the message is.
#[must_use]
pub fn small_events_and_edits(record: &Record, place: Place) -> Vec<Told> {
    let Body::Edit { target, .. } = &record.body else { return small_events(record, place) };
    let edited = ServerEvent::MessageEdited {
        message_id: record.conversation.event_id(*target),
        conversation_id: record.conversation.conversation_id(),
        content: None,
        edited_at: record.stamp,
        place,
    };
    vec![(Audience::All, edited)]
}

fn receipt_events(record: &Record, mark: &ReceiptMark, place: Place) -> Vec<Told> {
    let conversation = record.conversation;
    let conversation_id = conversation.conversation_id();
    let (user_id, at) = (record.actor, record.stamp);
    let told = |event| vec![(Audience::OneOf(mark.told(user_id)), event)];
    if let Some(read) = mark.read {
        let message_id = conversation.event_id(read);
        return told(ServerEvent::MessageRead { message_id, conversation_id, user_id, read_at: at, place });
    }
    let Some(delivered) = mark.delivered else { return Vec::new() };
    let message_id = conversation.event_id(delivered);
    told(ServerEvent::MessageDelivered { message_id, conversation_id, user_id, delivered_at: at, place })
}

/// What a control event tells: to those who are new the conversation, to all what changed for
/// programs, and last the `system` message that people read.
#[must_use]
pub fn control_events(entry: &Entry, change: &Change, after: &ConversationState, place: Place) -> Vec<Told> {
    let record = &entry.record;
    let conversation_id = record.conversation.conversation_id();
    let (by, position) = (record.actor, place.position);
    let mut told = Vec::new();
    let mut created = |newcomers: &[AccountId]| {
        for role in [Role::Admin, Role::Member] {
            let who: Vec<AccountId> = after
                .members
                .iter()
                .filter(|m| m.role == role && newcomers.contains(&m.account))
                .map(|m| m.account)
                .collect();
            if !who.is_empty() {
                let conversation = Box::new(conversation(record.conversation, after, role));
                told.push((Audience::OneOf(who), ServerEvent::ConversationCreated { conversation, place }));
            }
        }
    };
    let stands = |user_id: AccountId| {
        let role = after.member(user_id).map_or(Role::Member, |m| m.role);
        (Audience::All, ServerEvent::ParticipantAdded { conversation_id, user_id, role, by, position })
    };
    let gone =
        |user_id| (Audience::All, ServerEvent::ParticipantRemoved { conversation_id, user_id, by, position });
    match change {
        Change::Created => {
            created(&after.accounts());
            return told;
        }
        Change::Added { accounts } => {
            created(accounts);
            told.extend(accounts.iter().map(|account| stands(*account)));
        }
        Change::Removed { account } => told.push(gone(*account)),
        Change::Left { promoted } => {
            told.push(gone(by));
            // Who left is told of that and nothing else.
            let stayed = || Audience::OneOf(after.accounts());
            told.extend(promoted.map(|account| (stayed(), stands(account).1)));
        }
        Change::RoleSet { account, .. } => told.push(stands(*account)),
        Change::Settings { .. } => told.push((
            Audience::All,
            ServerEvent::ConversationUpdated {
                conversation_id,
                by,
                name: after.name.as_ref().map(|n| n.as_str().to_owned()),
                avatar_url: after.avatar_url.as_ref().map(|u| u.as_str().to_owned()),
                expires_after: after.expires_after_s,
                position,
            },
        )),
    }
    if let Some(row) = message_row(entry) {
        let mut system = message(record.conversation, &row, None, by);
        system.previous_position = place.previous_position;
        told.push((Audience::OneOf(after.accounts()), ServerEvent::NewMessage(Box::new(system))));
    }
    told
}
