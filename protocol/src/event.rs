//! What the server tells on the socket.

use crate::command::DeleteScope;
use crate::frame::Refusal;
use crate::resource::{Conversation, Message, Role};
use crate::{AccountId, Checkpoint, ConversationId, MessageId, Position, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PresenceStatus {
    Online,
    Offline,
}

/// What does not work while a part of the service is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Lack {
    /// The log is away: sends and changes are refused for now, and nothing new is told.
    Sends,
    /// The store is away: messages come and go, but what was before cannot be read for now.
    History,
}

/// Place of a durable event in its conversation, and of the one before where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub position: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_position: Option<Position>,
}

/// Every event that a server sends; `event` and `data` are the fields of its frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ServerEvent {
    NewMessage(Box<Message>),
    MessageEdited {
        message_id: MessageId,
        conversation_id: ConversationId,
        content: Option<String>,
        edited_at: Timestamp,
        #[serde(flatten)]
        place: Place,
    },
    MessageDeleted {
        message_id: MessageId,
        conversation_id: ConversationId,
        /// For whom: what is deleted for oneself leaves the history, what is deleted for everyone stays as a tombstone.
        #[serde(default)]
        scope: DeleteScope,
        deleted_by: AccountId,
        deleted_at: Timestamp,
        #[serde(flatten)]
        place: Place,
    },
    ReactionAdded {
        message_id: MessageId,
        conversation_id: ConversationId,
        user_id: AccountId,
        reaction: String,
        #[serde(flatten)]
        place: Place,
    },
    ReactionRemoved {
        message_id: MessageId,
        conversation_id: ConversationId,
        user_id: AccountId,
        reaction: String,
        #[serde(flatten)]
        place: Place,
    },
    MessageDelivered {
        message_id: MessageId,
        conversation_id: ConversationId,
        user_id: AccountId,
        delivered_at: Timestamp,
        #[serde(flatten)]
        place: Place,
    },
    MessageRead {
        message_id: MessageId,
        conversation_id: ConversationId,
        user_id: AccountId,
        read_at: Timestamp,
        #[serde(flatten)]
        place: Place,
    },
    ConversationCreated {
        #[serde(flatten)]
        conversation: Box<Conversation>,
        #[serde(flatten)]
        place: Place,
    },
    /// `conversation_updated`, `participant_added` and `participant_removed` go before the `system`
    /// message of the same position and say the same for programs. They are idempotent and do not
    /// move what a client has complete; the message does.
    ConversationUpdated {
        conversation_id: ConversationId,
        by: AccountId,
        name: Option<String>,
        avatar_url: Option<String>,
        expires_after: Option<u64>,
        position: Position,
    },
    /// Also when a role changed: it names the participant as they stand now.
    ParticipantAdded {
        conversation_id: ConversationId,
        user_id: AccountId,
        role: Role,
        by: AccountId,
        position: Position,
    },
    ParticipantRemoved {
        conversation_id: ConversationId,
        user_id: AccountId,
        by: AccountId,
        position: Position,
    },
    UserTyping {
        conversation_id: ConversationId,
        user_id: AccountId,
        typing: bool,
    },
    UserStatusChange {
        user_id: AccountId,
        status: PresenceStatus,
        last_seen: Option<Timestamp>,
    },
    ResumeComplete {
        checkpoint: Checkpoint,
    },
    ResumePending {
        reason: String,
        /// When to ask again, in seconds.
        #[serde(default)]
        retry_after: u64,
    },
    ConversationReset {
        conversation_id: ConversationId,
    },
    Checkpoint {
        checkpoint: Checkpoint,
    },
    /// Something does not work for now, or works again: `lacks` is all that does not. It holds until the
    /// next of these, and as long as the connection.
    Degraded {
        degraded: bool,
        #[serde(default)]
        lacks: Vec<Lack>,
    },
    /// What an answer would have said, where none is waited for.
    Error {
        #[serde(flatten)]
        refusal: Refusal,
        /// What was refused, where the frame was a command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
}

impl ServerEvent {
    /// Where a durable event stands; `None` for one that is told and forgotten, and for one that only
    /// goes before the `system` message of the same position.
    ///
    /// A receipt and a message hidden for oneself have a position but are no link of the chain that
    /// `previous_position` makes: not everybody gets them.
    #[must_use]
    pub fn place(&self) -> Option<(ConversationId, Place)> {
        match self {
            Self::NewMessage(m) => Some((
                m.conversation_id,
                Place { position: m.position, previous_position: m.previous_position },
            )),
            Self::ConversationCreated { conversation, place } => Some((conversation.conversation_id, *place)),
            Self::MessageEdited { conversation_id, place, .. }
            | Self::MessageDeleted { conversation_id, place, .. }
            | Self::ReactionAdded { conversation_id, place, .. }
            | Self::ReactionRemoved { conversation_id, place, .. }
            | Self::MessageDelivered { conversation_id, place, .. }
            | Self::MessageRead { conversation_id, place, .. } => Some((*conversation_id, *place)),
            _ => None,
        }
    }

    /// Where in which conversation the durable event stands that this tells of, wholly or, as what goes
    /// along with a `system` message does, in part.
    #[must_use]
    pub fn stands_at(&self) -> Option<(ConversationId, Position)> {
        match self {
            Self::ConversationUpdated { conversation_id, position, .. }
            | Self::ParticipantAdded { conversation_id, position, .. }
            | Self::ParticipantRemoved { conversation_id, position, .. } => {
                Some((*conversation_id, *position))
            }
            event => event.place().map(|(conversation, place)| (conversation, place.position)),
        }
    }
}
