//! Why a client is not let in: `message` and `data` of its `connect_error`, as Socket.IO's clients expect.
//!
//! socketioxide gives a refusal nothing but its message: `44{"message":"…"}`. So the message is a refusal
//! in disguise, and on its way to the client it is put in its place. Both are of the same length, so that
//! neither a frame's header nor a `content-length` changes. No content can look like it: within JSON its
//! quotation marks would be escaped, and `44` is never followed by `{`.

use crate::edge::refused::Refused;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt;

const BEGIN: &[u8] = b"44{\"message\":\"reedi-refusal:";
const END: &[u8] = b"\"}";

/// A `connect_error`, as it goes through socketioxide.
pub struct NotLetIn(String);

#[derive(Serialize)]
struct Told<'a> {
    message: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl NotLetIn {
    #[must_use]
    pub fn new(refused: &Refused) -> Self {
        let (message, retry_after) = (refused.detail.as_str(), refused.retry_after);
        let told = Told { message, data: Data { code: refused.code.code(), message, retry_after } };
        Self(serde_json::to_string(&told).unwrap_or_default())
    }
}

impl fmt::Display for NotLetIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reedi-refusal:{}", URL_SAFE_NO_PAD.encode(&self.0))
    }
}

/// What a client is to be sent in place of `sent`, of the same length; `None` where it has no refusal.
#[must_use]
pub fn undisguised(sent: &[u8]) -> Option<Vec<u8>> {
    let begin = find(sent, BEGIN)?;
    let code = begin + BEGIN.len();
    let end = code + find(&sent[code..], END)?;
    let told = URL_SAFE_NO_PAD.decode(&sent[code..end]).ok()?;
    serde_json::from_slice::<&RawValue>(&told).ok()?;
    // The packet's type stays, and what is too long is filled with spaces, which JSON allows.
    let place = begin + 2..end + END.len();
    let mut told_instead = sent.to_vec();
    told_instead[place.clone()].fill(b' ');
    told_instead[place.start..place.start + told.len()].copy_from_slice(&told);
    Some(told_instead)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reedi_protocol::ErrorCode;

    fn packet(refused: &Refused) -> Vec<u8> {
        let message = NotLetIn::new(refused).to_string();
        format!("44{}", serde_json::json!({ "message": message })).into_bytes()
    }

    #[test]
    fn a_refusal_is_told_whole() {
        let mut refused = Refused::new(ErrorCode::RateLimited, "Slow \"down\".");
        refused.retry_after = Some(5);
        let sent = packet(&refused);
        let told = undisguised(&sent).unwrap();
        assert_eq!((told.len(), &told[..2]), (sent.len(), &b"44"[..]));
        let json: serde_json::Value = serde_json::from_slice(&told[2..]).unwrap();
        let data =
            serde_json::json!({ "code": "rate_limited", "message": "Slow \"down\".", "retryAfter": 5 });
        assert_eq!(json, serde_json::json!({ "message": "Slow \"down\".", "data": data }));
    }

    proptest! {
        /// In the middle of other packets, of any refusal; and nothing else is touched.
        #[test]
        fn what_stands_around_it_stays(before: Vec<u8>, detail: String, after: Vec<u8>) {
            prop_assert_eq!(undisguised(&before), None);
            let sent = [&before[..], &packet(&Refused::new(ErrorCode::InvalidToken, detail)), &after].concat();
            let told = undisguised(&sent).unwrap();
            prop_assert_eq!(told.len(), sent.len());
            prop_assert!(told.starts_with(&before) && told.ends_with(&after));
        }

        #[test]
        fn no_content_looks_like_it(content: String) {
            let content = format!("{}{content}\"}}", std::str::from_utf8(BEGIN).unwrap());
            let event = serde_json::json!(["new_message", { "content": content }]);
            prop_assert_eq!(undisguised(format!("42{event}").as_bytes()), None);
        }
    }
}
