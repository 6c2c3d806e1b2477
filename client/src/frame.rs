//! Encodes commands as text frames. Public for whoever encodes once and sends often.

use reedi_protocol::command::{self, SendMessage};
use reedi_protocol::{ConversationId, MessageId};
use serde::Serialize;

#[derive(Serialize)]
struct Shape<'a, T> {
    event: &'a str,
    data: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<u64>,
}

/// A payload next to the conversation it is about.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct In<T> {
    pub conversation_id: ConversationId,
    #[serde(flatten)]
    pub body: T,
}

/// A payload next to the message it is about.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Of<T> {
    pub message_id: MessageId,
    #[serde(flatten)]
    pub body: T,
}

/// Nothing more than what [`In`] or [`Of`] name.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Nothing {}

/// Any command.
///
/// # Errors
/// `data` has no form in JSON: a map with keys that are no text, for example.
pub fn command<T: Serialize>(event: &str, data: &T, ack: Option<u64>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Shape { event, data, ack })
}

/// A command about a conversation, without more.
#[must_use]
pub fn in_conversation(event: &str, conversation_id: ConversationId, ack: Option<u64>) -> String {
    infallible(event, &In { conversation_id, body: Nothing {} }, ack)
}

/// A command about a message, without more.
#[must_use]
pub fn of_message(event: &str, message_id: MessageId, ack: Option<u64>) -> String {
    infallible(event, &Of { message_id, body: Nothing {} }, ack)
}

/// `send_message`.
#[must_use]
pub fn send_message(conversation_id: ConversationId, message: &SendMessage, ack: u64) -> String {
    infallible(command::name::SEND_MESSAGE, &In { conversation_id, body: message }, Some(ack))
}

/// For payloads of texts and ids alone, every one of which has a form in JSON.
pub(crate) fn infallible<T: Serialize>(event: &str, data: &T, ack: Option<u64>) -> String {
    command(event, data, ack).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::{ConversationKey, frame::CommandFrame, resource::MessageType};

    #[test]
    fn a_message_is_framed_as_the_contract_says() {
        let conversation = ConversationKey::from_u64(7).conversation_id();
        let message = SendMessage {
            content: "hi \"bob\"\0".into(),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: Some("k".into()),
        };
        let text = send_message(conversation, &message, 9);
        let frame = CommandFrame::decode(&text).unwrap();
        assert_eq!((frame.event.as_ref(), frame.ack), ("send_message", Some(9)));
        let data = frame.data.unwrap().get();
        let body: SendMessage = serde_json::from_str(data).unwrap();
        assert_eq!(body.content, "hi \"bob\"\0");
        let named: command::InConversation = serde_json::from_str(data).unwrap();
        assert_eq!(named.conversation_id, conversation.to_string());
    }
}
