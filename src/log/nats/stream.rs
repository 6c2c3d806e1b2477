//! One slice's stream: making it and asking it.

use super::api::{ApiError, StreamInfo, Which, code, server_time};
use super::append::TRACEPARENT;
use super::connection::{Live, NatsConnection};
use super::identity::STALE_MOST;
use super::subject::{Namespace, api};
use super::{NatsLogConfig, NatsLogError, Shared};
use crate::log::{DUPLICATE_WINDOW_MS, RawRecord, ReadError, Slice, SliceState};
use reedi_protocol::{Epoch, Position, Shard, Timestamp};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Between tries where JetStream does not answer yet.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Where a stream's metadata keep its incarnation and its epoch.
const INCARNATION: &str = "reedi-incarnation";
const EPOCH: &str = "reedi-epoch";

pub(super) struct SliceStream {
    pub(super) slice: Slice,
    pub(super) name: String,
    incarnation: String,
    subjects: Vec<String>,
    epoch: Epoch,
    /// The highest sequence known to have been acknowledged or stored.
    seen: AtomicU64,
    /// The highest last sequence that a leader has told. It has them, and so must readers.
    told: AtomicU64,
}

impl SliceStream {
    pub(super) fn new(namespace: &Namespace, epoch: Epoch, slice: Slice, incarnation: String) -> Self {
        Self {
            name: namespace.stream(epoch, slice),
            subjects: namespace.records_of_slice(slice),
            slice,
            incarnation,
            epoch,
            seen: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    pub(super) fn saw(&self, sequence: u64) {
        self.seen.fetch_max(sequence, Ordering::AcqRel);
    }

    /// A sequence up to which the log has records, surely.
    pub(super) fn known_end(&self) -> u64 {
        self.seen().max(self.told.load(Ordering::Acquire))
    }

    /// What the stream's leader says of it.
    pub(super) async fn info(&self, live: &Live) -> Result<StreamInfo, ApiError> {
        let info = live.stream_info(&self.name).await?;
        self.told.fetch_max(info.state.last_seq, Ordering::AcqRel);
        Ok(info)
    }

    /// Waits until the stream is there and configured, making it where it is missing.
    pub(super) async fn open(
        &self,
        connection: &NatsConnection,
        config: &NatsLogConfig,
    ) -> Result<(), NatsLogError> {
        let mut another = None;
        loop {
            let live = connection.connected().await;
            let error = match live.stream_info(&self.name).await {
                Ok(info) => {
                    if let Err(why) = self.check_incarnation(&info) {
                        let since = *another.get_or_insert_with(Instant::now);
                        if since.elapsed() >= STALE_MOST {
                            return Err(NatsLogError::Fenced(why));
                        }
                        tracing::warn!(why, "looking again before the log is fenced");
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                    match self.update(connection, config, &info).await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error) if error.is_refusal(&[code::NO_STREAM]) => {
                    let create = api::stream_create(&self.name);
                    match live.ask::<StreamInfo>(create, &self.config(config)).await {
                        // Asked again: another process may have made it at the same time.
                        Ok(_) => continue,
                        Err(error) if error.is_refusal(&[code::NAME_IN_USE]) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            another = None;
            // Some of these are told as the request's fault, and pass all the same: a server that is not up yet, or room.
            let waits = [code::ACCOUNT_FULL, code::NO_PEERS, code::NO_ROOM, code::STORAGE_FULL];
            if error.is_refusal(&waits) {
                tracing::warn!(
                    stream = self.name,
                    max_bytes = config.max_bytes,
                    replicas = config.replicas,
                    why = %error,
                    "waiting for room in JetStream: each replica's server keeps max_bytes free for the stream; \
                     lower nats_max_bytes (REEDI_NATS_MAX_BYTES), or give the servers a larger max_file_store"
                );
            } else if let ApiError::Refused(refusal) = &error
                && (400..500).contains(&refusal.code)
            {
                return Err(NatsLogError::Stream { stream: self.name.clone(), why: error.to_string() });
            } else {
                tracing::warn!(stream = self.name, why = %error, "waiting for JetStream");
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    fn config(&self, config: &NatsLogConfig) -> serde_json::Value {
        json!({
            "name": self.name,
            "subjects": self.subjects,
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": config.replicas,
            "max_bytes": config.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "max_age": 0,
            "allow_direct": false,
            "duplicate_window": DUPLICATE_WINDOW_MS * 1_000_000,
            "metadata": { INCARNATION: self.incarnation, EPOCH: self.epoch.number().to_string() },
        })
    }

    /// Changes what an operator may change of a stream that stands.
    async fn update(
        &self,
        connection: &NatsConnection,
        config: &NatsLogConfig,
        info: &StreamInfo,
    ) -> Result<(), ApiError> {
        let max_bytes = i64::try_from(config.max_bytes).unwrap_or(i64::MAX);
        if info.config.max_bytes == max_bytes && info.config.num_replicas == config.replicas {
            return Ok(());
        }
        tracing::info!(
            stream = self.name,
            max_bytes,
            replicas = config.replicas,
            "changing the stream's limits"
        );
        let mut changed = info.config.rest.clone();
        changed.insert("metadata".to_owned(), json!(info.config.metadata));
        changed.insert("max_bytes".to_owned(), json!(max_bytes));
        changed.insert("num_replicas".to_owned(), json!(config.replicas));
        let live = connection.connected().await;
        live.ask::<StreamInfo>(api::stream_update(&self.name), &changed.into()).await.map(drop)
    }

    /// Why the stream is another one, if it is.
    pub(super) fn check_incarnation(&self, info: &StreamInfo) -> Result<(), String> {
        let incarnation = info.config.metadata.get(INCARNATION).map(String::as_str).unwrap_or_default();
        if incarnation == self.incarnation {
            return Ok(());
        }
        Err(format!("{} is another stream: {incarnation}, not {}", self.name, self.incarnation))
    }
}

impl Shared {
    async fn info(&self, stream: &SliceStream) -> Result<StreamInfo, ReadError> {
        let info = stream.info(&*self.reading()?).await?;
        Ok(info)
    }

    pub(super) async fn state(&self, slice: Slice) -> Result<SliceState, ReadError> {
        let stream = self.named(slice)?;
        let info = self.info(stream).await?;
        let state = info.state;
        let first = if state.messages == 0 { state.last_seq + 1 } else { state.first_seq };
        let last = if state.last_seq == 0 { Position::START } else { self.position(state.last_seq)? };
        let max_bytes = u64::try_from(info.config.max_bytes).unwrap_or(0);
        let fill = (state.bytes.saturating_mul(100)).checked_div(max_bytes).unwrap_or(0);
        Ok(SliceState {
            epoch: self.epoch,
            incarnation: stream.incarnation.clone(),
            first: self.position(first)?,
            last,
            fill_percent: u8::try_from(fill.min(100)).unwrap_or(100),
        })
    }

    pub(super) async fn now(&self) -> Result<Timestamp, ReadError> {
        let stream = self.slices.first().ok_or_else(|| ReadError::Unavailable("no slice".to_owned()))?;
        let asked = Instant::now();
        let info = self.info(stream).await?;
        // The leader looked at its clock somewhere on the way there and back.
        let since_ms = u64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(0);
        Ok(server_time(&info.told_at)?.plus_millis(since_ms))
    }

    pub(super) async fn get(&self, shard: Shard, position: Position) -> Result<Option<RawRecord>, ReadError> {
        if position.epoch() != Some(self.epoch) {
            return Ok(None);
        }
        let stream = self.slice_of(shard);
        let stored = self.reading()?.stored(&stream.name, Which::Sequence(position.sequence())).await?;
        let Some(stored) = stored else { return Ok(None) };
        let Some((conversation, is_control)) = self.namespace.conversation(&stored.subject) else {
            return Ok(None);
        };
        Ok(Some(RawRecord {
            position,
            log_time: stored.time,
            conversation,
            is_control,
            traceparent: stored.headers.get(TRACEPARENT).and_then(|text| text.parse().ok()),
            payload: stored.payload,
        }))
    }

    pub(super) async fn trim(&self, slice: Slice, up_to: Position) -> Result<(), ReadError> {
        let stream = self.named(slice)?;
        if up_to.epoch() != Some(self.epoch) {
            return Ok(());
        }
        let live = self.reading()?;
        // Purging beyond the end would move the end.
        let last = live.stream_info(&stream.name).await?.state.last_seq;
        let sequence = up_to.sequence().min(last) + 1;
        live.ask::<serde_json::Value>(api::stream_purge(&stream.name), &json!({ "seq": sequence })).await?;
        Ok(())
    }

    pub(super) async fn erase(&self, shard: Shard, position: Position) -> Result<(), ReadError> {
        let Some(record) = self.get(shard, position).await? else { return Ok(()) };
        if record.is_control {
            // The stream would take the control event before it for the newest one, and refuse every
            // later one that expects this one.
            return Err(ReadError::Unavailable("a control event cannot be erased".to_owned()));
        }
        let stream = self.slice_of(shard);
        // `no_erase: false`: overwritten on every replica, not only forgotten.
        let question = json!({ "seq": position.sequence(), "no_erase": false });
        let answer =
            self.reading()?.ask::<serde_json::Value>(api::message_delete(&stream.name), &question).await;
        match answer {
            Err(error) if !error.is_refusal(&[code::NO_MESSAGE, code::NO_SEQUENCE]) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
