//! The table of socket commands: the event's name decides, the command's own file does.

use super::mark::Mark;
use super::{conversation_id, delete_message, edit_message, mark, message_id, react, send_message};
use crate::edge::answer::Answer;
use crate::edge::authenticate::Identity;
use crate::edge::refused::{Outcome, Refused};
use crate::edge::session::Session;
use crate::edge::{Edge, fleeting, resume};
use crate::runtime::trace_context::TraceContext;
use reedi_protocol::command::{self, InConversation, OfMessage, name};
use reedi_protocol::frame;
use reedi_protocol::{ErrorCode, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_path_to_error::Segment;
use std::sync::Arc;
use tracing::Instrument;

/// Parses the payload of a command. Unknown fields are ignored.
///
/// # Errors
/// Not of the shape that the command wants; the pointer says where.
pub fn parse<T: DeserializeOwned>(data: &str) -> Outcome<T> {
    from_json(data.as_bytes())
}

/// Parses a JSON object, in a body as on a socket. Unknown fields are ignored.
///
/// # Errors
/// No object, or not of the shape that is wanted; the pointer says where.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Outcome<T> {
    if !frame::is_object(json) {
        return Err(Refused::new(ErrorCode::Malformed, "Send a JSON object."));
    }
    // What is well-formed, and that is nearly everything, does not pay for knowing where it is not.
    if let Ok(value) = serde_json::from_slice(json) {
        return Ok(value);
    }
    let deserializer = &mut serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut *deserializer).map_err(|error| wrong(&error, json))?;
    deserializer.end().map_err(|error| Refused::new(ErrorCode::Malformed, error.to_string()))?;
    Ok(value)
}

/// A path into a JSON text as RFC 6901 writes it.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let name = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            // An object without a needed field ends in one that has no name.
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&name);
    }
    pointer
}

/// What is wrong with a JSON text, and where.
fn wrong(error: &serde_path_to_error::Error<serde_json::Error>, json: &[u8]) -> Refused {
    let pointer = pointer(error.path());
    let text = error.inner().to_string();
    let code = if is_of_its_type(&text, json, &pointer) {
        ErrorCode::InvalidValue
    } else if text.contains("surrogate") || text.contains("hex escape") {
        // serde_json says "lone leading surrogate" and the like for escapes that are no Unicode.
        ErrorCode::NotUnicode
    } else {
        ErrorCode::Malformed
    };
    let refused = Refused::new(code, text);
    if pointer.is_empty() { refused } else { refused.at(&pointer) }
}

/// Whether what stands at `pointer` has the type that is wanted there and only its value is none: a word that an
/// enumeration does not know, or a number out of its range (one beyond 64 bits is none of ours, and malformed). serde tells
/// that from other types by the first words of `text` alone, and takes an object for an enumeration too.
fn is_of_its_type(text: &str, json: &[u8], pointer: &str) -> bool {
    let is_plain = |json: serde_json::Value| {
        json.pointer(pointer).is_some_and(|value| value.is_string() || value.is_number())
    };
    (text.starts_with("unknown variant") || text.starts_with("invalid value"))
        && serde_json::from_slice(json).is_ok_and(is_plain)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SentAnswer {
    message_id: reedi_protocol::MessageId,
    conversation_id: reedi_protocol::ConversationId,
    timestamp: Timestamp,
    position: reedi_protocol::Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// A command has come: what it means for live frames holds from now on, in the order of arrival, even
/// where the command itself waits for others and is overtaken. Every front door says so before it calls
/// [`handle`].
pub fn arrives(edge: &Edge, session: &Session, event: &str) {
    if event == name::RESUME {
        session.expect_resume(&edge.coverage.lock());
    } else {
        session.spoke();
    }
}

/// Does a command of an authenticated session, which [`arrives`] was told of. One that brings no `traceparent` begins a trace.
pub async fn handle(
    edge: &Arc<Edge>,
    session: &Arc<Session>,
    event: &str,
    data: &str,
    traceparent: Option<String>,
) -> Answer {
    let trace = TraceContext::from_header(traceparent.as_deref());
    let span = tracing::debug_span!("command", trace_id = %trace.trace_id());
    // Boxed where it is made: each of the wrappings would move what the largest command needs.
    let work = Box::pin(dispatch(edge, session, event, data));
    match trace.scope(work).instrument(span).await {
        Ok(answer) => answer,
        Err(refused) => {
            if event == name::RESUME {
                session.resume_refused();
            }
            let refused = match refused.code {
                // Refused for what it says, mostly before it counted against anybody.
                ErrorCode::Malformed
                | ErrorCode::NotUnicode
                | ErrorCode::InvalidValue
                | ErrorCode::TooLarge => session.small_talk(edge.uptime_ms()).err().unwrap_or(refused),
                _ => refused,
            };
            edge.metrics.refused(refused.code);
            if refused.code == ErrorCode::RateLimited {
                session.unheeded(edge.uptime_ms(), &refused);
            }
            Answer::from(&refused)
        }
    }
}

/// Whether a command waits for others on purpose, so that the connection goes on meanwhile.
#[must_use]
pub fn is_patient(event: &str) -> bool {
    matches!(event, name::MARK_READ | name::MARK_DELIVERED | name::RESUME)
}

async fn dispatch(edge: &Arc<Edge>, session: &Arc<Session>, event: &str, data: &str) -> Outcome<Answer> {
    let account = session.account;
    match event {
        name::SEND_MESSAGE => {
            let conversation = in_conversation(data)?;
            let sent = send_message::acknowledge(edge, account, conversation, parse(data)?, None).await?;
            let message = sent.message;
            Ok(Answer::with(SentAnswer {
                message_id: message.message_id,
                conversation_id: message.conversation_id,
                timestamp: message.timestamp,
                position: message.position,
                client_message_id: message.client_message_id,
                duplicate: sent.duplicate,
            }))
        }
        name::EDIT_MESSAGE => {
            Ok(Answer::with(edit_message::run(edge, account, of_message(data)?, parse(data)?).await?))
        }
        name::DELETE_MESSAGE => {
            let command: command::DeleteMessage = parse(data)?;
            delete_message::run(edge, account, of_message(data)?, command.scope).await?;
            Ok(Answer::done())
        }
        name::ADD_REACTION => {
            let command: command::React = parse(data)?;
            Ok(Answer::with(react::add(edge, account, of_message(data)?, &command.reaction).await?.reaction))
        }
        name::REMOVE_REACTION => {
            let command: command::React = parse(data)?;
            react::remove(edge, account, of_message(data)?, &command.reaction).await?;
            Ok(Answer::done())
        }
        name::MARK_READ => marked(edge, session, data, Mark::Read).await,
        name::MARK_DELIVERED => marked(edge, session, data, Mark::Delivered).await,
        name::AUTHENTICATE => authenticate_again(edge, session, data).await,
        name::RESUME => {
            edge.admission.command(account, edge.clock.now()).await?;
            // Each of its fields may be absent, and so may all of it.
            let asked = if data == RawValue::NULL.get() { command::Resume::default() } else { parse(data)? };
            resume::run(edge, session, &asked).await
        }
        _ => fleeting_command(edge, session, event, data).await,
    }
}

async fn fleeting_command(edge: &Edge, session: &Session, event: &str, data: &str) -> Outcome<Answer> {
    let typing = match event {
        name::TYPING_START => true,
        name::TYPING_STOP => false,
        name::JOIN_CONVERSATION => {
            edge.admission.command(session.account, edge.clock.now()).await?;
            let participants = fleeting::join(edge, session, in_conversation(data)?).await?;
            return Ok(Answer::with(serde_json::json!({ "participants": participants })));
        }
        name::LEAVE_CONVERSATION => {
            session.small_talk(edge.uptime_ms())?;
            fleeting::leave(edge, session, in_conversation(data)?);
            return Ok(Answer::done());
        }
        _ => {
            session.small_talk(edge.uptime_ms())?;
            return Err(Refused::new(ErrorCode::UnknownEvent, "There is no such command."));
        }
    };
    edge.admission.command(session.account, edge.clock.now()).await?;
    fleeting::typing(edge, session, in_conversation(data)?, typing).await?;
    Ok(Answer::done())
}

async fn marked(edge: &Edge, session: &Session, data: &str, mark: Mark) -> Outcome<Answer> {
    mark::run(edge, session.account, of_message(data)?, mark).await?;
    Ok(Answer::done())
}

fn in_conversation(data: &str) -> Outcome<reedi_protocol::ConversationKey> {
    conversation_id(&parse::<InConversation>(data)?.conversation_id, "/conversationId")
}

fn of_message(data: &str) -> Outcome<reedi_protocol::MessageId> {
    message_id(&parse::<OfMessage>(data)?.message_id, "/messageId")
}

async fn authenticate_again(edge: &Edge, session: &Session, data: &str) -> Outcome<Answer> {
    session.small_talk(edge.uptime_ms())?;
    let command: command::Authenticate = parse(data)?;
    let identity: Identity = edge.verifier.verify(&command.token).await?;
    if identity.account != session.account || identity.device != session.device {
        return Err(Refused::new(ErrorCode::InvalidToken, "The new token is of another account or device."));
    }
    session.renew(identity.expires_at);
    Ok(Answer::with(serde_json::json!({ "userId": identity.account, "expiresAt": identity.expires_at })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::command::{SendMessage, SetRole, UpdateConversation};
    use reedi_protocol::resource::Settings;

    /// How a text is refused as a `T`, and where.
    fn refusal<T: DeserializeOwned>(json: &str) -> (ErrorCode, Option<String>) {
        let refused = from_json::<T>(json.as_bytes()).err().expect("refused");
        (refused.code, refused.refusal().pointer)
    }

    #[test]
    fn a_value_that_is_none_of_its_type_is_no_mistake_of_form() {
        let at = |pointer: &str| (ErrorCode::InvalidValue, Some(pointer.to_owned()));
        assert_eq!(refusal::<SendMessage>(r#"{"content":"a","messageType":"sticker"}"#), at("/messageType"));
        assert_eq!(
            refusal::<SendMessage>(r#"{"content":"a","messageType":"surrogate"}"#),
            at("/messageType")
        );
        assert_eq!(refusal::<SetRole>(r#"{"role":"owner"}"#), at("/role"));
        assert_eq!(refusal::<UpdateConversation>(r#"{"expiresAfter":-1}"#), at("/expiresAfter"));
        assert_eq!(refusal::<command::Resume>(r#"{"cursors":{"a/b":-1}}"#), at("/cursors/a~1b"));
        let settings = r#"{"messagesFrom":"friends","readReceipts":true,"presence":"nobody"}"#;
        assert_eq!(refusal::<Settings>(settings), at("/messagesFrom"));
    }

    #[test]
    fn another_type_a_missing_field_and_no_json_are_malformed() {
        let at = |pointer: &str| (ErrorCode::Malformed, Some(pointer.to_owned()));
        assert_eq!(refusal::<SetRole>(r#"{"role":{"owner":1}}"#), at("/role"));
        assert_eq!(refusal::<SetRole>(r#"{"role":7}"#), at("/role"));
        assert_eq!(refusal::<SetRole>(r#"{"role":null}"#), at("/role"));
        assert_eq!(refusal::<UpdateConversation>(r#"{"expiresAfter":"soon"}"#), at("/expiresAfter"));
        assert_eq!(refusal::<UpdateConversation>(r#"{"expiresAfter":3600.5}"#), at("/expiresAfter"));
        assert_eq!(refusal::<SetRole>("{}"), (ErrorCode::Malformed, None));
        assert_eq!(refusal::<SetRole>(r#"{"role":"owner""#), at("/role"), "it does not end");
        let (code, _) = refusal::<SetRole>(r#"{"role":"\ud800"}"#);
        assert_eq!(code, ErrorCode::NotUnicode);
    }
}
