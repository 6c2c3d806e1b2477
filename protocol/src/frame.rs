//! Frames of the plain WebSocket (subprotocol `reedi.v1`): text, one JSON object each.

use crate::{ErrorCode, Timestamp, event::ServerEvent, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The subprotocol that client and server agree on.
pub const SUBPROTOCOL: &str = "reedi.v1";

/// What an `error` event names is at most so long, in bytes; the longest command has 18.
const COMMAND_NAME_BYTES: usize = 32;

/// A command as it stands on the wire; `data` is parsed by the command it names.
#[derive(Debug, Deserialize)]
pub struct CommandFrame<'a> {
    #[serde(borrow)]
    pub event: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    #[serde(default)]
    pub ack: Option<u64>,
}

/// Why a frame is refused.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the frame nests deeper than {} levels", limits::JSON_DEPTH)]
    TooDeep,
    #[error("the frame is no JSON object")]
    NotAnObject,
    #[error("the frame is no JSON object with an `event`: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Whether a JSON text nests within [`limits::JSON_DEPTH`]. Brackets within strings do not count.
#[must_use]
pub fn depth_is_bounded(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > limits::JSON_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Whether a JSON text can be an object. Deserializing into a struct would also take a list, field by
/// field, which no client means.
#[must_use]
pub fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

impl<'a> CommandFrame<'a> {
    /// # Errors
    /// No JSON, not this shape, or nested too deep.
    pub fn decode(text: &'a str) -> Result<Self, FrameError> {
        if !is_object(text.as_bytes()) {
            return Err(FrameError::NotAnObject);
        }
        if !depth_is_bounded(text.as_bytes()) {
            return Err(FrameError::TooDeep);
        }
        Ok(serde_json::from_str(text)?)
    }
}

/// The refusal of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

/// Answer to a command: `{ok: true, ...}` or `{ok: false, error: {...}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub ok: bool,
    #[serde(flatten, default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerFrame {
    Answer { ack: u64, answer: Answer },
    Event(ServerEvent),
}

impl ServerFrame {
    /// # Errors
    /// Not a frame of this contract. An event that a newer server added is an error here and for
    /// the client to skip.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Shape<'a> {
            ack: Option<u64>,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
        }
        let shape: Shape = serde_json::from_str(text)?;
        match (shape.ack, shape.data) {
            (Some(ack), Some(data)) => Ok(Self::Answer { ack, answer: serde_json::from_str(data.get())? }),
            _ => Ok(Self::Event(serde_json::from_str(text)?)),
        }
    }
}

/// Encodes an event as a text frame.
#[must_use]
pub fn encode_event(event: &ServerEvent) -> String {
    encode(event)
}

impl Refusal {
    /// What is told where no answer is waited for; `command` is what was refused, as the client named it.
    #[must_use]
    pub fn into_event(self, command: Option<&str>) -> ServerEvent {
        let command = command.filter(|name| name.len() <= COMMAND_NAME_BYTES).map(str::to_owned);
        ServerEvent::Error { refusal: self, command }
    }
}

/// Encodes an answer as a text frame: an [`Answer`], or what serializes as one does.
#[must_use]
pub fn encode_answer<A: Serialize + ?Sized>(ack: u64, answer: &A) -> String {
    #[derive(Serialize)]
    struct Shape<'a, A: ?Sized> {
        ack: u64,
        data: &'a A,
    }
    encode(&Shape { ack, data: answer })
}

/// Every type in a frame serializes to JSON: maps have text keys and numbers are finite.
fn encode(frame: &impl Serialize) -> String {
    // What most frames fit in: a message of some hundred letters. A text that grows is copied each time.
    let mut text = Vec::with_capacity(1_024);
    if serde_json::to_writer(&mut text, frame).is_err() {
        return String::new();
    }
    // serde_json writes nothing but UTF-8.
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_decoded_or_refused(text: String) {
            let _ = CommandFrame::decode(&text);
            let _ = ServerFrame::decode(&text);
        }

        #[test]
        fn a_number_is_the_same_number_when_passed_on(number in proptest::num::f64::NORMAL) {
            let text = format!(r#"{{"ack":1,"data":{{"ok":true,"number":{number:?}}}}}"#);
            let Ok(ServerFrame::Answer { answer, .. }) = ServerFrame::decode(&text) else {
                panic!("not an answer");
            };
            prop_assert_eq!(answer.fields["number"].as_f64(), Some(number));
        }
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(depth_is_bounded(br#"{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"["}"#));
        let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
        assert!(!depth_is_bounded(deep.as_bytes()));
        let deep = format!(r#"{{"event":"a","data":{deep}}}"#);
        assert!(matches!(CommandFrame::decode(&deep), Err(FrameError::TooDeep)));
    }

    #[test]
    fn a_list_is_no_frame() {
        let frame = CommandFrame::decode(r#" ["send_message",{},1]"#);
        assert!(matches!(frame, Err(FrameError::NotAnObject)));
    }

    #[test]
    fn a_lone_surrogate_is_refused() {
        let frame = CommandFrame::decode(r#"{"event":"send_message","data":{"content":"\ud800"}}"#);
        let data = frame.unwrap().data.unwrap();
        assert!(serde_json::from_str::<crate::command::EditMessage>(data.get()).is_err());
    }

    #[test]
    fn an_error_event_says_what_an_answer_would_and_to_which_command() {
        let refusal = Refusal {
            code: ErrorCode::ClientMessageIdTime,
            message: "too old".into(),
            retry_after: Some(2),
            server_time: Some(Timestamp::from_millis(1_767_323_045_000)),
            pointer: Some("/clientMessageId".into()),
        };
        let event = refusal.clone().into_event(Some("send_message"));
        let text = encode_event(&event);
        let data: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut expected = serde_json::to_value(&refusal).unwrap();
        expected["command"] = "send_message".into();
        assert_eq!(data, serde_json::json!({ "event": "error", "data": expected }));
        assert_eq!(ServerFrame::decode(&text).unwrap(), ServerFrame::Event(event));
        let long = "x".repeat(COMMAND_NAME_BYTES + 1);
        assert!(matches!(refusal.into_event(Some(&long)), ServerEvent::Error { command: None, .. }));
    }

    #[test]
    fn events_come_back() {
        let text = r#"{"event":"resume_pending","data":{"reason":"store","retryAfter":1}}"#;
        let ServerFrame::Event(event) = ServerFrame::decode(text).unwrap() else { panic!() };
        assert_eq!(encode_event(&event), text);
    }
}
