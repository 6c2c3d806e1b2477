//! The shapes that REST answers with, and that events carry.

use crate::{AccountId, ConversationId, MessageId, Position, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ConversationType {
    Direct,
    Group,
    /// An account's own, for events that only its devices see.
    Account,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Member,
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageType {
    Text,
    Image,
    Video,
    Audio,
    File,
    /// Made by the server alone.
    System,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    pub user_id: AccountId,
    pub role: Role,
    pub joined_at: Timestamp,
}

/// A thread, as the account that asks sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    pub conversation_id: ConversationId,
    #[serde(rename = "type")]
    pub kind: ConversationType,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    /// Seconds that a message lives after it was sent; null: for ever.
    pub expires_after: Option<u64>,
    pub created_at: Timestamp,
    pub my_role: Role,
    pub participants: Vec<Participant>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
}

/// What a list of conversations adds to each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    pub last_message: Option<Message>,
    /// Exact to 99; 100 means more, or more than are looked through to count them.
    pub unread_count: u32,
    /// Something of this conversation cannot be read now: `lastMessage` may be missing though there is one, and
    /// `unreadCount` is 100 where it is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    pub muted_until: Option<Timestamp>,
    /// Place of the newest event.
    #[schema(value_type = u64)]
    pub position: Position,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageReaction {
    pub user_id: AccountId,
    pub reaction: String,
}

/// What a `system` message tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemNote {
    /// For example `participants_added`, `participant_left`, `name_changed`.
    pub kind: String,
    pub by: AccountId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_ids: Vec<AccountId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub sender_id: AccountId,
    /// Null once deleted, and for `system` messages.
    pub content: Option<String>,
    pub message_type: MessageType,
    pub timestamp: Timestamp,
    #[schema(value_type = u64)]
    pub position: Position,
    /// Place of the event before it in this conversation, where the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub previous_position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<MessageId>,
    /// Only to its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemNote>,
    pub reactions: Vec<MessageReaction>,
}

impl std::fmt::Debug for Message {
    /// Without the content, which belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("message_id", &self.message_id)
            .field("sender_id", &self.sender_id)
            .field("message_type", &self.message_type)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationList {
    pub conversations: Vec<Conversation>,
    pub next_cursor: Option<String>,
}

/// Newest first in every mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    pub messages: Vec<Message>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub user_id: AccountId,
    pub delivered_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipts {
    pub receipts: Vec<Receipt>,
}

/// One entry of `GET /conversations/:id/events`; `data` is what the socket would have sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoggedEvent {
    #[schema(value_type = u64)]
    pub position: Position,
    pub event: String,
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    pub events: Vec<LoggedEvent>,
    /// Everything up to here has been told; it moves even when nothing came.
    #[schema(value_type = u64)]
    pub complete_to: Position,
    pub has_more: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessagesFrom {
    #[default]
    Everyone,
    Followers,
    Nobody,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PresenceVisibility {
    #[default]
    Everyone,
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Who may begin a conversation or send a direct message to this account.
    pub messages_from: MessagesFrom,
    /// Whether others learn what this account has received and read.
    pub read_receipts: bool,
    pub presence: PresenceVisibility,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            messages_from: MessagesFrom::Everyone,
            read_receipts: true,
            presence: PresenceVisibility::Everyone,
        }
    }
}

/// A person, as others find them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub user_id: AccountId,
    pub username: String,
    pub display_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profiles {
    pub users: Vec<Profile>,
    /// A search gives what fits best and no further page; as every list has it.
    pub next_cursor: Option<String>,
}

/// What sign-up and login answer with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub user_id: AccountId,
    pub token: String,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// RFC 6901 pointer into the body, or `?name` of a query parameter.
    pub pointer: String,
    pub detail: String,
}

/// An error of REST: RFC 9457 problem details with a stable `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Seconds, as the `Retry-After` header says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The server's clock, where the time of a `clientMessageId` was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<Timestamp>,
}
