//! What clients ask for: the payloads of REST bodies and socket commands, as they stand on the wire.
//! Identifiers are texts here; the server parses them with the rest of its validation, so that a bad
//! one is answered with a pointer to its field. Unknown fields are ignored.

use crate::resource::{MessageType, Role};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Names of the commands on the socket, each once.
pub mod name {
    pub const AUTHENTICATE: &str = "authenticate";
    pub const JOIN_CONVERSATION: &str = "join_conversation";
    pub const LEAVE_CONVERSATION: &str = "leave_conversation";
    pub const SEND_MESSAGE: &str = "send_message";
    pub const TYPING_START: &str = "typing_start";
    pub const TYPING_STOP: &str = "typing_stop";
    pub const MARK_READ: &str = "mark_read";
    pub const MARK_DELIVERED: &str = "mark_delivered";
    pub const EDIT_MESSAGE: &str = "edit_message";
    pub const DELETE_MESSAGE: &str = "delete_message";
    pub const ADD_REACTION: &str = "add_reaction";
    pub const REMOVE_REACTION: &str = "remove_reaction";
    pub const RESUME: &str = "resume";
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Authenticate {
    pub token: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateDirect {
    pub participant_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateGroup {
    pub name: String,
    pub participant_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// A field that is absent stays as it is; null takes it away.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateConversation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, with = "double_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub avatar_url: Option<Option<String>>,
    /// Seconds, 3,600 to 31,536,000.
    #[serde(default, with = "double_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub expires_after: Option<Option<u64>>,
    /// Only for oneself, in any conversation; the past or null unmutes. RFC 3339.
    #[serde(default, with = "double_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub muted_until: Option<Option<String>>,
}

/// Tells an absent field from a null one.
mod double_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::option_option, clippy::ref_option)]
    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    #[allow(clippy::option_option)]
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddParticipants {
    pub participant_ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetRole {
    pub role: Role,
}

/// On the socket next to a `conversationId`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendMessage {
    pub content: String,
    pub message_type: MessageType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// A UUIDv7 made when the message is first sent, and sent again with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
}

/// On the socket next to a `messageId`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EditMessage {
    pub content: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum DeleteScope {
    #[default]
    Everyone,
    Me,
}

/// On the socket next to a `messageId`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DeleteMessage {
    #[serde(default)]
    pub scope: DeleteScope,
}

/// On the socket next to a `messageId`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct React {
    pub reaction: String,
}

/// The conversation that a socket command is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InConversation {
    pub conversation_id: String,
}

/// The message that a socket command is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfMessage {
    pub message_id: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resume {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Conversations that got events after the checkpoint, and up to where this client has them.
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "std::collections::HashMap::is_empty"
    )]
    pub cursors: std::collections::HashMap<String, u64>,
}

fn null_is_absent<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignUp {
    pub username: String,
    pub password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Login {
    pub username: String,
    pub password: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_says_as_much_as_it_likes() {
        for json in
            ["{}", r#"{"checkpoint":null}"#, r#"{"checkpoint":null,"cursors":null}"#, r#"{"cursors":{}}"#]
        {
            let resume: Resume = serde_json::from_str(json).unwrap();
            assert!(resume.checkpoint.is_none() && resume.cursors.is_empty(), "{json}");
        }
        let resume: Resume = serde_json::from_str(r#"{"cursors":{"a":7}}"#).unwrap();
        assert_eq!(resume.cursors["a"], 7);
    }
}
