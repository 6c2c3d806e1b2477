//! Asking JetStream, and what it may answer. Only what the adapters use is read of an answer.

use super::connection::{Live, RequestError};
use async_nats::HeaderMap;
use base64::Engine;
use bytes::Bytes;
use reedi_protocol::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Time for an answer, of an append too (rule P4: an edge acknowledges only within 5 s of its stamp).
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Error codes of JetStream, as nats-server's `errors.json` has them.
pub(crate) mod code {
    pub(crate) const ACCOUNT_FULL: u64 = 10_002;
    /// Fewer servers are up than the replicas that are wanted, or they have no room.
    pub(crate) const NO_PEERS: u64 = 10_005;
    /// JetStream has no leader, as far as the server that answers can see.
    pub(crate) const NOT_AVAILABLE: u64 = 10_008;
    pub(crate) const NO_ROOM: u64 = 10_023;
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    pub(crate) const NO_SEQUENCE: u64 = 10_043;
    pub(crate) const STORAGE_FULL: u64 = 10_047;
    pub(crate) const NAME_IN_USE: u64 = 10_058;
    pub(crate) const NO_STREAM: u64 = 10_059;
    pub(crate) const OTHER_STREAM: u64 = 10_060;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10_071;
    pub(crate) const STORE_FAILED: u64 = 10_077;
    pub(crate) const STREAM_SEALED: u64 = 10_109;
    pub(crate) const DUPLICATE_IN_FLIGHT: u64 = 10_158;
    /// Another record of the subject is under way, so that the last sequence is not known yet.
    pub(crate) const LAST_SEQUENCE_NOT_READY: u64 = 10_163;
    /// As [`WRONG_LAST_SEQUENCE`], but without saying which is right.
    pub(crate) const WRONG_LAST_SEQUENCE_UNTOLD: u64 = 10_164;
    pub(crate) const TOO_MANY_REQUESTS: u64 = 10_167;
}

/// JetStream's own refusal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("JetStream says {description} ({err_code})")]
pub(crate) struct Refusal {
    /// As HTTP: 4xx the request's fault, 5xx the server's.
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("JetStream answered what cannot be read: {0}")]
    Unreadable(String),
}

impl ApiError {
    pub(crate) fn is_refusal(&self, codes: &[u64]) -> bool {
        matches!(self, Self::Refused(refusal) if codes.contains(&refusal.err_code))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { error: Refusal },
    Given(T),
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(payload) {
        Ok(Answer::Given(given)) => Ok(given),
        Ok(Answer::Refused { error }) => Err(error.into()),
        Err(error) => Err(ApiError::Unreadable(error.to_string())),
    }
}

/// Where a publish was stored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct PublishAck {
    #[serde(rename = "seq")]
    pub(crate) sequence: u64,
    #[serde(default)]
    pub(crate) duplicate: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: StreamConfig,
    pub(crate) state: StreamState,
    /// The leader's clock when it answered.
    #[serde(rename = "ts")]
    pub(crate) told_at: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamConfig {
    #[serde(default)]
    pub(crate) max_bytes: i64,
    #[serde(default)]
    pub(crate) num_replicas: u8,
    #[serde(default)]
    pub(crate) metadata: HashMap<String, String>,
    /// All of it, for an update that changes only some.
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct StreamState {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

/// One stored message, as the stream's leader has it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    pub(crate) time: Timestamp,
}

#[derive(Deserialize)]
struct MessageAnswer {
    message: StoredMessage,
}

#[derive(Deserialize)]
struct StoredMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: Option<String>,
    #[serde(default)]
    data: Option<String>,
    time: String,
}

/// A header block as it stands in the log: names and values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    fn parse(block: &[u8]) -> Self {
        let text = String::from_utf8_lossy(block);
        let lines = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        Self(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Which message of a stream to get.
pub(crate) enum Which<'a> {
    Sequence(u64),
    LastOf(&'a str),
}

impl Live {
    /// One question to the JetStream API.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        question: &serde_json::Value,
    ) -> Result<T, ApiError> {
        let payload = Bytes::from(question.to_string());
        self.converse(subject, None, payload, Instant::now() + ANSWER_WITHIN).await
    }

    /// Publishes to a stream and waits until it has it.
    pub(crate) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<PublishAck, ApiError> {
        self.converse(subject, Some(headers), payload, deadline).await
    }

    /// One question to JetStream, noting whether it answers here at all.
    async fn converse<T: DeserializeOwned>(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        let asked = self.asks();
        let answer = read(&self.request(subject, headers, payload, deadline).await?.payload);
        if !matches!(&answer, Err(error) if error.is_refusal(&[code::NOT_AVAILABLE])) {
            asked.answered();
        }
        answer
    }

    pub(crate) async fn stream_info(&self, stream: &str) -> Result<StreamInfo, ApiError> {
        self.ask(super::subject::api::stream_info(stream), &serde_json::Value::Null).await
    }

    /// Reads one message at the stream's leader.
    pub(crate) async fn stored(&self, stream: &str, which: Which<'_>) -> Result<Option<Stored>, ApiError> {
        let question = match which {
            Which::Sequence(sequence) => serde_json::json!({ "seq": sequence }),
            Which::LastOf(subject) => serde_json::json!({ "last_by_subj": subject }),
        };
        let answer = self.ask::<MessageAnswer>(super::subject::api::message_get(stream), &question).await;
        let message = match answer {
            Ok(answer) => answer.message,
            Err(error) if error.is_refusal(&[code::NO_MESSAGE, code::NO_SEQUENCE]) => return Ok(None),
            Err(error) => return Err(error),
        };
        let decode = |text: Option<String>| {
            base64::engine::general_purpose::STANDARD
                .decode(text.unwrap_or_default())
                .map_err(|error| ApiError::Unreadable(error.to_string()))
        };
        Ok(Some(Stored {
            headers: Headers::parse(&decode(message.hdrs)?),
            payload: decode(message.data)?.into(),
            subject: message.subject,
            sequence: message.seq,
            time: server_time(&message.time)?,
        }))
    }
}

/// A time as nats-server writes it.
pub(crate) fn server_time(text: &str) -> Result<Timestamp, ApiError> {
    text.parse().map_err(|why: &str| ApiError::Unreadable(format!("{text}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_is_told_from_an_answer() {
        let ack = read::<PublishAck>(br#"{"stream":"s","seq":3,"duplicate":true}"#).unwrap();
        assert_eq!(ack, PublishAck { sequence: 3, duplicate: true });
        let refused = read::<PublishAck>(
            br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"s","seq":0}"#,
        );
        assert!(refused.unwrap_err().is_refusal(&[code::WRONG_LAST_SEQUENCE]));
        assert!(matches!(read::<PublishAck>(b"x"), Err(ApiError::Unreadable(_))));
    }

    #[test]
    fn headers_are_read_as_they_stand() {
        let headers = Headers::parse(b"NATS/1.0\r\nTraceparent: 00-a:b\r\nKV-Operation:DEL\r\n\r\n");
        assert_eq!(headers.get("traceparent"), Some("00-a:b"));
        assert_eq!(headers.get("KV-Operation"), Some("DEL"));
        assert_eq!(headers.get("none"), None);
    }

    proptest! {
        /// The first of each name, however that is written.
        #[test]
        fn a_header_block_is_read_as_it_was_written(
            fields in prop::collection::vec(("[A-Za-z0-9-]{1,3}", "([!-~é]([ -~é]{0,20}[!-~é])?)?"), 0..8)
        ) {
            let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let headers = Headers::parse(format!("NATS/1.0\r\n{lines}\r\n").as_bytes());
            prop_assert_eq!(headers.0.len(), fields.len());
            for (name, _) in &fields {
                let first = fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
                let upper = name.to_ascii_uppercase();
                prop_assert_eq!(headers.get(&upper), first.map(|(_, value)| value.as_str()));
            }
        }

        #[test]
        fn whatever_is_answered_is_read_or_refused(bytes: Vec<u8>, text: String) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let block = [&b"NATS/1.0\r\n"[..], bytes].concat();
                let _ = (Headers::parse(bytes), Headers::parse(&block));
                let _ = (read::<PublishAck>(bytes), read::<StreamInfo>(bytes), read::<MessageAnswer>(bytes));
            }
            let _ = server_time(&text);
        }
    }
}
