//! Reading a slice: a consumer without memory, asked for a bounded number of records ahead. What it
//! delivers is counted; at the first thing out of the ordinary the reader is spent (rule P3).

use super::Shared;
use super::append::TRACEPARENT;
use super::connection::Live;
use super::subject::api;
use crate::log::{LogReader, RawRecord, ReadError, ShardSet, Slice};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use reedi_protocol::{Position, Timestamp};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Records and bytes that one question asks for; two may be under way. Their size bounds what a
/// reader holds that nobody has taken yet, and covers some 10 ms of the log at 25,000 records/s.
const ASK_RECORDS: u64 = 256;
const ASK_BYTES: u64 = 4 * 1024 * 1024;
/// A question is asked anew after this, should nothing come.
const ASK_FOR: Duration = Duration::from_secs(30);
/// The server says this often that it has nothing.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence for this long means that the consumer is gone, with its server or without.
const SILENCE_MOST: Duration = Duration::from_secs(3);
/// A consumer just made may not be known yet to the server that we ask; it is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// A consumer that nobody asks for this long is forgotten by the server.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// What is read of the answer to a consumer's creation.
#[derive(serde::Deserialize)]
struct Created {
    #[serde(default)]
    num_pending: u64,
}

/// Reads one slice of a [`super::NatsLog`].
pub struct NatsReader {
    shared: Arc<Shared>,
    live: Arc<Live>,
    records: Subscriber,
    inbox: String,
    next_subject: String,
    /// Records asked for that did not come yet.
    asked: u64,
    delivered: u64,
    /// Records that the log had for this reader beyond the last one taken.
    pending: u64,
    last: Position,
    slice: Slice,
    replica: Replica,
    heard: Instant,
    begun: Instant,
    /// Whether the consumer ever said anything.
    is_known: bool,
    ask_from: Instant,
    spent: Option<ReadError>,
}

impl NatsReader {
    pub(super) async fn begin(
        shared: Arc<Shared>,
        slice: Slice,
        shards: ShardSet,
        after: Position,
    ) -> Result<Self, ReadError> {
        let live = shared.reading()?;
        let stream = shared.named(slice)?;
        let from = match after.epoch() {
            Some(of) if of > shared.epoch => {
                return Err(ReadError::Unavailable(format!("{after} is of an epoch to come")));
            }
            Some(of) if of == shared.epoch => after.sequence() + 1,
            _ => 1,
        };
        let state = stream.info(&live).await?.state;
        if state.first_seq > from {
            return Err(ReadError::Trimmed { asked: after, first: shared.position(state.first_seq)? });
        }
        let inbox = live.client.new_inbox();
        let records = live.client.subscribe(inbox.clone()).await;
        let records = records.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let consumer = format!("{:032x}", rand::random::<u128>());
        let question = json!({
            "stream_name": stream.name,
            "action": "create",
            "config": {
                "name": consumer,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from,
                "filter_subjects": shared.namespace.filters(slice, shards),
                "ack_policy": "none",
                "replay_policy": "instant",
                "max_deliver": -1,
                "num_replicas": 1,
                "mem_storage": true,
                "inactive_threshold": u64::try_from(FORGOTTEN_AFTER.as_nanos()).unwrap_or(u64::MAX),
            },
        });
        let created: Created = live.ask(api::consumer_create(&stream.name, &consumer), &question).await?;
        Ok(Self {
            next_subject: api::consumer_next(&stream.name, &consumer),
            shared,
            live,
            records,
            inbox,
            asked: 0,
            delivered: 0,
            pending: created.num_pending,
            last: after,
            slice,
            replica: Replica::default(),
            heard: Instant::now(),
            begun: Instant::now(),
            is_known: false,
            ask_from: Instant::now(),
            spent: None,
        })
    }

    /// Keeps the server supplied with questions.
    async fn ask(&mut self) -> Result<(), ReadError> {
        while self.asked <= ASK_RECORDS {
            tokio::time::sleep_until(self.ask_from).await;
            let question = json!({
                "batch": ASK_RECORDS,
                "max_bytes": ASK_BYTES,
                "expires": u64::try_from(ASK_FOR.as_nanos()).unwrap_or(u64::MAX),
                "idle_heartbeat": u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(u64::MAX),
            });
            let question = Bytes::from(question.to_string());
            let sent =
                self.live.client.publish_with_reply(self.next_subject.clone(), self.inbox.clone(), question);
            sent.await.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            self.asked += ASK_RECORDS;
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// What a message from the server brings: a record, or news of the questions.
    fn take(&mut self, message: Message) -> Result<Option<RawRecord>, ReadError> {
        self.heard = Instant::now();
        if let Some(status) = message.status {
            self.take_status(status, &message)?;
            return Ok(None);
        }
        self.is_known = true;
        let reply = message.reply.as_deref().unwrap_or_default();
        let unreadable = || ReadError::Unavailable("a record came without its place".to_owned());
        let delivered = api::delivered(reply).ok_or_else(unreadable)?;
        let (conversation, is_control) =
            self.shared.namespace.conversation(&message.subject).ok_or_else(unreadable)?;
        if delivered.consumer_sequence != self.delivered + 1 {
            return Err(ReadError::Unavailable(format!(
                "delivery {} came after {}: some were lost",
                delivered.consumer_sequence, self.delivered
            )));
        }
        self.delivered += 1;
        self.replica = Replica::default();
        self.pending = delivered.pending;
        self.asked = self.asked.saturating_sub(1);
        let position = self.shared.position(delivered.stream_sequence)?;
        if position <= self.last {
            // A consumer on a replica that lagged may begin before where it was told to.
            return Ok(None);
        }
        self.last = position;
        let traceparent = message.headers.as_ref().and_then(|headers| headers.get(TRACEPARENT));
        Ok(Some(RawRecord {
            position,
            log_time: Timestamp::from_millis(delivered.log_time_ns / 1_000_000),
            conversation,
            is_control,
            traceparent: traceparent.and_then(|value| value.as_str().parse().ok()),
            payload: message.payload,
        }))
    }

    fn take_status(&mut self, status: StatusCode, message: &Message) -> Result<(), ReadError> {
        let said = message.description.as_deref().unwrap_or_default();
        let is_over = status == StatusCode::TIMEOUT
            || said.eq_ignore_ascii_case("Batch Completed")
            || said.eq_ignore_ascii_case("Message Size Exceeds MaxBytes");
        let is_new = !self.is_known && self.begun.elapsed() < SILENCE_MOST;
        if status == StatusCode::NO_RESPONDERS && is_new {
            self.asked = self.asked.saturating_sub(ASK_RECORDS);
            self.ask_from = Instant::now() + ASK_AGAIN_AFTER;
            return Ok(());
        }
        self.is_known = true;
        if status == StatusCode::IDLE_HEARTBEAT {
            return self.take_heartbeat(message.headers.as_ref());
        }
        let pending = message.headers.as_ref().and_then(pending_records);
        match pending {
            Some(pending) if is_over => {
                self.asked = self.asked.saturating_sub(pending);
                Ok(())
            }
            _ => Err(ReadError::Unavailable(format!("the consumer ended: {status} {said}"))),
        }
    }

    fn take_heartbeat(&mut self, headers: Option<&HeaderMap>) -> Result<(), ReadError> {
        let number = |name| headers.and_then(|headers| number(headers, name));
        if let Some(count) = number(DELIVERED).and_then(|made| missing(made, self.delivered)) {
            return Err(ReadError::Unavailable(format!("{count} deliveries did not arrive")));
        }
        let known = self.shared.named(self.slice)?.known_end();
        if let Some(through) = number(THROUGH)
            && self.replica.is_stale(through, known)
        {
            return Err(ReadError::Unavailable(format!(
                "a replica that is read has gone through {through} of {known}"
            )));
        }
        Ok(())
    }

    async fn next_or_error(&mut self, most: usize) -> Result<Vec<RawRecord>, ReadError> {
        loop {
            if let Some(why) = self.shared.fenced.get() {
                return Err(ReadError::Fenced(why.clone()));
            }
            self.ask().await?;
            let message = match timeout_at(self.heard + SILENCE_MOST, self.records.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(ReadError::Unavailable("the connection was lost".to_owned())),
                Err(_) => return Err(ReadError::Unavailable("the consumer is silent".to_owned())),
            };
            // No await from here on: what was taken from the server reaches the caller.
            let mut taken: Vec<RawRecord> = self.take(message)?.into_iter().collect();
            while taken.len() < most.max(1) {
                let Some(Some(message)) = self.records.next().now_or_never() else { break };
                match self.take(message) {
                    Ok(record) => taken.extend(record),
                    // What came before is whole; the error is told at the next call.
                    Err(error) => {
                        self.spent = Some(error);
                        break;
                    }
                }
            }
            if !taken.is_empty() {
                return Ok(taken);
            }
            if let Some(error) = &self.spent {
                return Err(error.clone());
            }
        }
    }
}

impl LogReader for NatsReader {
    async fn next(&mut self, most: usize) -> Result<Vec<RawRecord>, ReadError> {
        if let Some(error) = &self.spent {
            return Err(error.clone());
        }
        let next = self.next_or_error(most).await;
        if let Err(error) = &next {
            self.spent = Some(error.clone());
        }
        next
    }

    fn is_drained(&self) -> bool {
        self.pending == 0
    }
}

/// What a heartbeat says: how many deliveries were made, and the sequence up to which the consumer has gone
/// through the stream of its replica, as of the heartbeat before.
const DELIVERED: &str = "Nats-Last-Consumer";
const THROUGH: &str = "Nats-Last-Stream";

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().trim().parse().ok()
}

fn pending_records(headers: &HeaderMap) -> Option<u64> {
    number(headers, "Nats-Pending-Messages")
}

/// How many of the deliveries `made` never came. Without this the loss of the last one would show only
/// when there is another.
fn missing(made: u64, delivered: u64) -> Option<u64> {
    made.checked_sub(delivered).filter(|count| *count > 0)
}

/// Whether the replica that a consumer reads keeps up with the log. One that does not has nothing more to
/// give either, and sends heartbeats: to its reader it looks like a log in which nothing happens.
#[derive(Default)]
struct Replica {
    /// What it must come to, and since when it has not.
    goal: Option<(u64, Instant)>,
}

impl Replica {
    /// Takes in how far it has gone, and what the log is known to have. As old as heartbeats are, it may be
    /// behind for a moment.
    fn is_stale(&mut self, through: u64, known: u64) -> bool {
        match self.goal {
            Some((goal, since)) if through < goal => since.elapsed() >= SILENCE_MOST,
            _ => {
                self.goal = Some((known, Instant::now()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_tells_what_did_not_arrive() {
        let mut headers = HeaderMap::new();
        headers.insert(DELIVERED, "9");
        let told = |delivered| missing(number(&headers, DELIVERED).unwrap(), delivered);
        assert_eq!(told(7), Some(2));
        assert_eq!(told(9), None);
        assert_eq!(told(10), None, "the last came while it was on its way");
        assert_eq!(number(&headers, THROUGH), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_keeps_up_is_as_far_as_the_log_was_and_no_further() {
        let mut replica = Replica::default();
        for second in 1..60 {
            assert!(!replica.is_stale((second - 1) * 100, second * 100), "after {second} s");
            tokio::time::advance(HEARTBEAT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_stands_still_is_found_out() {
        let mut replica = Replica::default();
        assert!(!replica.is_stale(5, 5));
        assert!(!replica.is_stale(5, 6));
        for second in 0..3 {
            assert!(!replica.is_stale(5, 7), "after {second} s");
            tokio::time::advance(HEARTBEAT).await;
        }
        assert!(replica.is_stale(5, 7));
    }
}
