//! The inbox of a session: what its client sent and is not done yet, in the order sent. socketioxide
//! gives each event to a task of its own, in which one could overtake another.

use crate::edge::refused::Refused;
use parking_lot::Mutex;
use reedi_protocol::{ErrorCode, frame, limits};
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Notify;

/// Commands that wait for one client: more than an account may send at once (`account_burst`), so that
/// who keeps to its rate is answered and not cut off.
const COMMANDS_MOST: usize = 1_024;

/// An event as the client sent it.
pub enum Asked {
    Command {
        event: String,
        data: Box<RawValue>,
    },
    /// It cannot be told what it wants.
    Refused(Refused),
    /// More than a frame may have.
    TooLarge,
}

pub struct Asking {
    pub asked: Asked,
    /// The number under which the client waits for an acknowledgement.
    pub ack: Option<i64>,
}

impl Asking {
    fn bytes(&self) -> usize {
        match &self.asked {
            Asked::Command { event, data } => event.len() + data.get().len(),
            Asked::Refused(_) | Asked::TooLarge => 0,
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Asking>,
    bytes: usize,
    closed: bool,
}

pub struct Inbox {
    queue: Mutex<Queue>,
    wake: Notify,
    bytes_most: usize,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Waits,
    /// The client sends faster than is done what it asks for.
    Full,
    Closed,
}

impl Inbox {
    #[must_use]
    pub fn new(bytes_most: usize) -> Self {
        // One whole frame has room whatever is configured.
        Self { queue: Mutex::default(), wake: Notify::new(), bytes_most: bytes_most.max(limits::FRAME_BYTES) }
    }

    pub fn put(&self, asking: Asking) -> Put {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Put::Closed;
        }
        let bytes = asking.bytes();
        if queue.waiting.len() >= COMMANDS_MOST || queue.bytes + bytes > self.bytes_most {
            queue.closed = true;
            return Put::Full;
        }
        queue.bytes += bytes;
        queue.waiting.push_back(asking);
        drop(queue);
        self.wake.notify_one();
        Put::Waits
    }

    /// The next one; `None` once the client is gone and all it sent is taken.
    pub async fn take(&self) -> Option<Asking> {
        loop {
            {
                let mut queue = self.queue.lock();
                if let Some(asking) = queue.waiting.pop_front() {
                    queue.bytes -= asking.bytes();
                    if queue.waiting.is_empty() {
                        // The queue's memory goes with the last: an idle session holds none.
                        queue.waiting = VecDeque::new();
                    }
                    return Some(asking);
                }
                if queue.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Takes nothing more in.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }
}

/// Takes an event while it is still in order: extractors run where packets are read, before the
/// handler's task begins.
pub struct Taken;

impl FromMessageParts<LocalAdapter> for Taken {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        value: &mut Value,
        ack: &Option<i64>,
    ) -> Result<Self, Infallible> {
        if let Some(entered) = socket.extensions.get::<super::enter::Entered>() {
            let asked = read(value).unwrap_or_else(Asked::Refused);
            entered.ask(Asking { asked, ack: *ack });
        }
        Ok(Self)
    }
}

/// Reads an event: `["name", data]`. What follows is ignored, as unknown fields are.
fn read(value: &Value) -> Result<Asked, Refused> {
    let malformed = |detail: &str| Refused::new(ErrorCode::Malformed, detail);
    let Value::Str(text, attachments) = value else {
        return Err(malformed("An event is JSON."));
    };
    if text.len() > limits::FRAME_BYTES {
        return Ok(Asked::TooLarge);
    }
    if attachments.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(malformed("No command takes binary attachments."));
    }
    if !frame::depth_is_bounded(text.as_bytes()) {
        return Err(malformed(&frame::FrameError::TooDeep.to_string()));
    }
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))?;
    let [event, data @ ..] = parts.as_slice() else {
        return Err(malformed("An event begins with its name."));
    };
    let event = serde_json::from_str(event.get()).map_err(|error| malformed(&error.to_string()))?;
    let data = data.first().map_or_else(|| RawValue::NULL.to_owned(), |data| (*data).to_owned());
    Ok(Asked::Command { event, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::Str(text.to_owned().into(), None)
    }

    fn command(value: &Value) -> Option<(String, String)> {
        match read(value) {
            Ok(Asked::Command { event, data }) => Some((event, data.get().to_owned())),
            _ => None,
        }
    }

    fn asking(bytes: usize) -> Asking {
        let data = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).unwrap();
        Asking { asked: Asked::Command { event: String::new(), data }, ack: None }
    }

    #[test]
    fn events_are_read_as_they_stand() {
        let read = command(&text(r#"["send_message", {"n": 1.50},"more"]"#));
        assert_eq!(read, Some(("send_message".into(), r#"{"n": 1.50}"#.into())));
        assert_eq!(command(&text(r#"["typing_start"]"#)), Some(("typing_start".into(), "null".into())));
        for bad in ["", "{}", "[]", "[1]", r#"["a",{]"#, r#"["\ud800"]"#] {
            assert_eq!(command(&text(bad)), None, "{bad}");
        }
        assert_eq!(command(&text(&format!(r#"["a",{}{}]"#, "[".repeat(32), "]".repeat(32)))), None);
        let attached =
            Value::Str(r#"["a"]"#.to_owned().into(), Some([bytes::Bytes::from_static(b"b")].into()));
        assert_eq!(command(&attached), None);
    }

    proptest! {
        #[test]
        fn events_are_read_as_they_were_written(name: String, content: String, number: i64) {
            let data = serde_json::json!({ "content": content, "number": number });
            let event = serde_json::json!([name, data, "more"]).to_string();
            prop_assert_eq!(command(&text(&event)), Some((name, data.to_string())));
        }

        #[test]
        fn whatever_is_sent_is_read_or_refused(sent: String, bytes: Vec<u8>) {
            let (list, data) = (format!("[{sent}]"), format!("[\"a\",{sent}]"));
            for value in [text(&sent), text(&list), text(&data), Value::Bytes(bytes.into())] {
                match super::read(&value) {
                    Ok(asked) => prop_assert!(!matches!(asked, Asked::TooLarge)),
                    Err(refused) => prop_assert_eq!(refused.code, ErrorCode::Malformed),
                }
            }
        }
    }

    #[test]
    fn an_event_is_as_large_as_a_frame_at_most() {
        let event = |bytes: usize| text(&format!("[\"{}\"]", "x".repeat(bytes - 4)));
        assert!(command(&event(limits::FRAME_BYTES)).is_some());
        assert!(matches!(super::read(&event(limits::FRAME_BYTES + 1)), Ok(Asked::TooLarge)));
    }

    #[tokio::test]
    async fn a_full_inbox_says_so_and_gives_out_what_it_has() {
        let inbox = Inbox::new(0);
        assert_eq!(inbox.put(asking(limits::FRAME_BYTES / 2)), Put::Waits);
        assert_eq!(inbox.put(asking(limits::FRAME_BYTES / 2)), Put::Full);
        assert_eq!(inbox.put(asking(1)), Put::Closed);
        assert!(inbox.take().await.is_some());
        assert!(inbox.take().await.is_none());
        let inbox = Inbox::new(usize::MAX);
        for _ in 0..COMMANDS_MOST {
            assert_eq!(inbox.put(asking(0)), Put::Waits);
        }
        assert_eq!(inbox.put(asking(0)), Put::Full);
    }

    #[tokio::test]
    async fn what_a_client_sent_before_it_left_is_given_out() {
        let inbox = Arc::new(Inbox::new(0));
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { (inbox.take().await.is_some(), inbox.take().await.is_some()) }
        });
        inbox.put(asking(1));
        inbox.close();
        assert_eq!(waiting.await.unwrap(), (true, false));
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::fuzz::{Edit, JSON, edited};

    const EVENT: &str = r#"["send_message",{"conversationId":"0192f0c1-2345-8abc-8def-0123456789ab","content":"hello \u00e9","messageType":"text"},"more"]"#;

    /// Whatever a client sends: what is taken for a command is in its own words, is the same when it is written and read
    /// again, and has room in an empty inbox.
    #[test]
    fn events_of_socket_io() {
        bolero::check!().with_type::<(Vec<Edit>, bool)>().for_each(|(edits, attached)| {
            let sent = edited(EVENT.as_bytes(), edits, JSON);
            let sent = String::from_utf8_lossy(&sent).into_owned();
            let attachments: Option<VecDeque<bytes::Bytes>> =
                attached.then(|| [bytes::Bytes::from_static(b"b")].into());
            let asked = match read(&Value::Str(sent.clone().into(), attachments)) {
                Ok(asked) => asked,
                Err(refused) => return assert_eq!(refused.code, ErrorCode::Malformed),
            };
            let Asked::Command { event, data } = &asked else {
                return assert!(
                    sent.len() > limits::FRAME_BYTES,
                    "no event is too large that a frame has room for"
                );
            };
            assert!(!*attached, "no command takes binary attachments");
            assert!(frame::depth_is_bounded(sent.as_bytes()), "nested without end");
            assert!(sent.contains(data.get()) || data.get() == "null", "not the client's own words");
            let again = format!("[{},{}]", serde_json::to_string(event).unwrap(), data.get());
            let Ok(Asked::Command { event: name, data: same }) =
                read(&Value::Str(again.clone().into(), None))
            else {
                panic!("what was written is not read: {again}");
            };
            assert_eq!((name.as_str(), same.get()), (event.as_str(), data.get()));
            assert_eq!(Inbox::new(0).put(Asking { asked, ack: None }), Put::Waits);
        });
    }
}
