//! A key-value bucket: a stream that keeps the newest message of each subject, laid out as every NATS
//! client does it, so that `nats kv` shows it.

use crate::log::nats::connection::{Live, NatsConnection};
use crate::log::nats::subject::{Bucket, api};
use crate::log::nats::{ANSWER_WITHIN, ApiError, Stored, Which, code};
use crate::ownership::OwnershipError;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, timeout_at};

/// Between tries where JetStream does not answer yet.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// What marks a value as a deletion, and the two words for it.
const OPERATION: &str = "KV-Operation";
const DELETED: [&str; 2] = ["DEL", "PURGE"];
/// The status after the last entry of a list.
const END_OF_LIST: u16 = 204;
/// Bytes of a bucket: 512 leases, as many workers and two plans need less than 1 MiB; deletion markers
/// and what is not yet aged out fit many times.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

pub(super) struct BucketStore {
    connection: NatsConnection,
    bucket: Bucket,
    replicas: u8,
    /// How long a value lives.
    life: Option<Duration>,
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// At this revision.
    Done(u64),
    /// Another revision stands than the expected one; 0: none.
    Stands(u64),
    /// Somebody else's put for the same key is under way.
    Contended,
}

/// What stands under a key.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) revision: u64,
    /// `None`: deleted.
    pub(super) value: Option<Bytes>,
}

fn unavailable(error: impl std::fmt::Display) -> OwnershipError {
    OwnershipError::Unavailable(error.to_string())
}

fn entry(stored: Stored) -> Entry {
    let deleted = stored.headers.get(OPERATION).is_some_and(|operation| DELETED.contains(&operation));
    Entry { key: stored.subject, revision: stored.sequence, value: (!deleted).then_some(stored.payload) }
}

impl BucketStore {
    pub(super) fn new(
        connection: NatsConnection,
        bucket: Bucket,
        replicas: u8,
        life: Option<Duration>,
    ) -> Self {
        Self { connection, bucket, replicas, life }
    }

    pub(super) fn key(&self, parts: &[&str]) -> String {
        self.bucket.key(parts)
    }

    /// Waits until the bucket is there, making it where it is missing.
    pub(super) async fn open(&self) {
        let stream = self.bucket.stream();
        loop {
            let live = self.connection.connected().await;
            let made = match live.stream_info(&stream).await {
                Err(error) if error.is_refusal(&[code::NO_STREAM]) => self.create(&live).await,
                known => known.map(drop),
            };
            match made {
                Ok(()) => return,
                Err(error) => tracing::warn!(stream, why = %error, "waiting for JetStream"),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn create(&self, live: &Live) -> Result<(), ApiError> {
        // Revisions begin at the time in milliseconds: a bucket that was lost and made anew goes on
        // above all that it ever gave, as long as it gives fewer than a thousand a second. It gives
        // 180 where 512 leases are renewed every 3 s.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = u64::try_from(now.as_millis()).unwrap_or(1).max(1);
        let nanos = |life: Duration| u64::try_from(life.as_nanos()).unwrap_or(u64::MAX);
        let config = json!({
            "name": self.bucket.stream(),
            "subjects": [self.bucket.all_keys()],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": self.replicas,
            "max_bytes": MAX_BYTES,
            "max_msgs": -1,
            "max_msgs_per_subject": 1,
            "max_consumers": -1,
            "max_age": self.life.map_or(0, nanos),
            "duplicate_window": self.life.map_or(0, nanos),
            "allow_direct": true,
            "allow_rollup_hdrs": true,
            "deny_delete": true,
            "first_seq": first,
        });
        match live.ask::<serde_json::Value>(api::stream_create(&self.bucket.stream()), &config).await {
            // Another process was quicker.
            Err(error) if error.is_refusal(&[code::NAME_IN_USE]) => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn live(&self) -> Result<Arc<Live>, OwnershipError> {
        self.connection.live().ok_or_else(|| unavailable("NATS is disconnected"))
    }

    /// Puts `value` (`None`: a deletion) under `key`, if its revision is `expected`.
    pub(super) async fn put(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        expected: Option<u64>,
    ) -> Result<Put, OwnershipError> {
        let mut headers = HeaderMap::new();
        if let Some(expected) = expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        if value.is_none() {
            headers.insert(OPERATION, DELETED[0]);
        }
        let payload = Bytes::from(value.unwrap_or_default());
        let deadline = Instant::now() + ANSWER_WITHIN;
        match self.live()?.publish(key.to_owned(), headers, payload, deadline).await {
            Ok(ack) => Ok(Put::Done(ack.sequence)),
            Err(ApiError::Refused(refusal)) if refusal.err_code == code::WRONG_LAST_SEQUENCE => {
                let told = refusal.description.rsplit(' ').next().and_then(|told| told.parse().ok());
                told.map(Put::Stands).ok_or_else(|| unavailable(refusal))
            }
            Err(error) if error.is_refusal(&[code::WRONG_LAST_SEQUENCE_UNTOLD]) => Ok(Put::Contended),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// What was put at `revision`, read at the leader.
    pub(super) async fn at(&self, revision: u64) -> Result<Option<Entry>, OwnershipError> {
        let stored = self.live()?.stored(&self.bucket.stream(), Which::Sequence(revision)).await;
        Ok(stored.map_err(unavailable)?.map(entry))
    }

    /// The newest value of `key`, read at the leader.
    pub(super) async fn newest(&self, key: &str) -> Result<Option<Entry>, OwnershipError> {
        let stored = self.live()?.stored(&self.bucket.stream(), Which::LastOf(key)).await;
        Ok(stored.map_err(unavailable)?.map(entry))
    }

    /// Everything that stands under keys of one more part than `parts`, from any replica.
    pub(super) async fn below(&self, parts: &[&str]) -> Result<Vec<Entry>, OwnershipError> {
        let live = self.live()?;
        let inbox = live.client.new_inbox();
        let mut answers = live.client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        let question = json!({ "multi_last": [self.bucket.keys_below(parts)] });
        let subject = api::direct_get(&self.bucket.stream());
        let asked = live.client.publish_with_reply(subject, inbox, Bytes::from(question.to_string()));
        asked.await.map_err(unavailable)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut entries = Vec::new();
        loop {
            let answer = timeout_at(deadline, answers.next()).await.map_err(unavailable)?;
            let answer = answer.ok_or_else(|| unavailable("the connection was lost"))?;
            let said = answer.description.as_deref().unwrap_or_default();
            match answer.status {
                Some(status) if status == StatusCode::NOT_FOUND || status.as_u16() == END_OF_LIST => {
                    return Ok(entries);
                }
                Some(status) => return Err(unavailable(format!("the list ended: {status} {said}"))),
                None => {}
            }
            let header = |name: &str| answer.headers.as_ref().and_then(|headers| headers.get(name));
            let deleted = header(OPERATION).is_some_and(|operation| DELETED.contains(&operation.as_str()));
            if let (Some(key), false) = (header("Nats-Subject"), deleted) {
                let revision =
                    header("Nats-Sequence").and_then(|text| text.as_str().parse().ok()).unwrap_or(0);
                entries.push(Entry { key: key.as_str().to_owned(), revision, value: Some(answer.payload) });
            }
        }
    }
}
