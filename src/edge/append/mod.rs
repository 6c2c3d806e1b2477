//! Append: stamp, publish, and know what became of it (rules P4 and P7). The one way from an edge
//! into the log.

pub mod seal;

use super::refused::{Outcome, Refused};
use super::watermarks::Watermarks;
use crate::domain::record::{Body, Entry, NotAnEvent, Record, RequestDigest};
use crate::domain::send_key::{DuplicateKey, Freshness, freshness};
use crate::log::tick::Ticks;
use crate::log::{Append, AppendError, Appended, Lane, Log, LogPort};
use crate::runtime::clock::LogClock;
use crate::runtime::metrics::Metrics;
use crate::runtime::trace_context::TraceContext;
use crate::store::{Messages as _, Store};
use reedi_protocol::text::ClientMessageId;
use reedi_protocol::{AccountId, ConversationKey, ErrorCode, Position, Shard, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// An answer of the log counts only within this time of the stamp: later, the record may be void for
/// its readers (rule P4.4).
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait while the first append with the same key is not decided (rule P4.5).
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(50);
/// Tries for one send: each further one follows a void record or an undecided first.
const TRIES: usize = 40;

/// What makes a send the same send.
#[derive(Clone, Debug)]
pub struct Send<'a> {
    pub sender: AccountId,
    pub conversation: ConversationKey,
    pub client_message_id: &'a ClientMessageId,
    /// Whether the client gave it; only then an earlier send is looked for.
    pub keyed_by_client: bool,
    /// Whether its time, if it has one, says when it was made: of an `Idempotency-Key` nothing says so.
    pub is_timed: bool,
    pub digest: RequestDigest,
}

/// The log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub position: Position,
    pub stamp: Timestamp,
    /// When the message disappears, as it was sent.
    pub expires_at: Option<Timestamp>,
    /// It had it before this send.
    pub duplicate: bool,
}

/// Publishes for one edge.
pub struct Appender {
    pub log: Log,
    pub store: Store,
    pub clock: LogClock,
    pub watermarks: Watermarks,
    pub metrics: Metrics,
    ticks: Ticks,
}

impl Appender {
    #[must_use]
    pub fn new(log: Log, store: Store, clock: LogClock, watermarks: Watermarks, metrics: Metrics) -> Self {
        Self { log, store, clock, watermarks, metrics, ticks: Ticks::default() }
    }

    /// Publishes a message exactly once, whatever happened to earlier tries with the same key.
    /// `record` makes it for a stamp.
    ///
    /// # Errors
    /// Refused for good, surely not sent, or outcome unknown: the code says which.
    pub async fn send(&self, send: Send<'_>, record: impl Fn(Timestamp) -> Record) -> Outcome<Accepted> {
        self.knows_the_time()?;
        if send.keyed_by_client {
            match freshness(send.client_message_id, self.clock.now().as_millis()) {
                Freshness::Fresh => {}
                Freshness::OutOfRange if send.is_timed => return Err(self.out_of_range()),
                Freshness::LookUp | Freshness::OutOfRange => {
                    if let Some(first) = self.earlier(&send).await? {
                        return Ok(first);
                    }
                }
            }
        }
        let mut key = DuplicateKey::of_send(send.sender, send.conversation, send.client_message_id);
        for _ in 0..TRIES {
            let stamp = self.clock.now();
            let record = record(stamp);
            let expires_at = record.expires_at();
            let append = Append {
                conversation: send.conversation,
                lane: Lane::Event,
                duplicate_key: Some(key),
                payload: record.encode(),
                traceparent: None,
            };
            match self.publish(append, stamp).await {
                Ok(Appended::New(position)) => {
                    return Ok(Accepted { position, stamp, expires_at, duplicate: false });
                }
                Ok(Appended::Duplicate(position)) => match self.first(&send, position).await? {
                    Some(first) => return Ok(first),
                    None => key = key.after_void(position),
                },
                Err(AppendError::InFlight) => tokio::time::sleep(IN_FLIGHT_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused::outcome_unknown())
    }

    fn out_of_range(&self) -> Refused {
        let detail = "The time within clientMessageId must be at most 5 s ahead of serverTime and at most 48 h \
                      behind it. Set the clock and make a new one.";
        let server_time = Some(self.clock.now());
        let refused = Refused::new(ErrorCode::ClientMessageIdTime, detail).at("/clientMessageId");
        Refused { server_time, ..refused }
    }

    /// What stands at the position that the log named for a known key; `None` if that is void.
    async fn first(&self, send: &Send<'_>, position: Position) -> Outcome<Option<Accepted>> {
        let Some(raw) = self.log.get(send.conversation.shard(), position).await? else {
            // Erased after it was stored, or trimmed: the store knows.
            return match self.earlier(send).await? {
                Some(first) => Ok(Some(first)),
                None => Err(Refused::outcome_unknown()),
            };
        };
        match Entry::decode(raw.position, raw.log_time, &raw.payload) {
            Ok(Entry { record, .. }) => {
                let times = (record.stamp, record.expires_at());
                same_request(send, record.digest, position, times).map(Some)
            }
            Err(NotAnEvent::Late { .. }) => Ok(None),
            Err(_) => Err(Refused::outcome_unknown()),
        }
    }

    /// The message that an earlier send with the same key became, once everything that the log has
    /// by now is stored.
    ///
    /// # Errors
    /// The log or the store is away, or the earlier send was another request.
    pub async fn earlier(&self, send: &Send<'_>) -> Outcome<Option<Accepted>> {
        let shard = send.conversation.shard();
        self.stored_up_to_now(shard).await?;
        let sent = self.store.sent(send.conversation, send.sender, send.client_message_id).await?;
        let Some(sent) = sent else { return Ok(None) };
        let stored = self.store.message(send.conversation, sent.position).await?;
        // One that is not there any more has disappeared, by now at the latest.
        let now = self.clock.now();
        let times =
            stored.map_or((now, Some(now)), |message| (message.row.timestamp, message.row.expires_at));
        same_request(send, sent.digest, sent.position, times).map(Some)
    }

    /// Waits until everything that the log has by now of a shard is stored.
    ///
    /// # Errors
    /// The log did not take a tick, or the store has not caught up.
    pub async fn stored_up_to_now(&self, shard: Shard) -> Outcome<()> {
        let after_now = self.end(shard).await?;
        Ok(self.watermarks.passed(shard, after_now).await?)
    }

    /// A position of the slice of `shard` after everything that it has by now.
    ///
    /// # Errors
    /// The log did not take a tick.
    pub async fn end(&self, shard: Shard) -> Result<Position, AppendError> {
        self.ticks.after_now(shard, &self.log, &self.clock).await
    }

    /// Whether the log has come as far as `position` in the slice of `shard`.
    ///
    /// # Errors
    /// The log is away.
    pub async fn has_reached(&self, shard: Shard, position: Position) -> Outcome<bool> {
        let slice = self.log.slices().into_iter().find(|slice| slice.holds(shard));
        match slice {
            Some(slice) => Ok(self.log.state(slice).await?.last >= position),
            None => Ok(false),
        }
    }

    /// Publishes an event that needs no key: doing it twice comes to the same.
    ///
    /// # Errors
    /// Surely not taken, or outcome unknown.
    pub async fn event(
        &self,
        conversation: ConversationKey,
        body: impl Fn(Timestamp) -> Record,
    ) -> Outcome<(Position, Timestamp)> {
        let stamp = self.clock.now();
        let payload = body(stamp).encode();
        let append =
            Append { conversation, lane: Lane::Event, duplicate_key: None, payload, traceparent: None };
        match self.publish(append, stamp).await? {
            Appended::New(position) | Appended::Duplicate(position) => Ok((position, stamp)),
        }
    }

    /// Publishes a control event that was judged by the one at `expected`.
    ///
    /// # Errors
    /// [`AppendError::ControlMoved`] if another came first: judge again.
    pub async fn control(&self, expected: Position, record: Record) -> Result<Position, AppendError> {
        debug_assert!(matches!(record.body, Body::Control { .. }), "only control events are conditional");
        let append = Append {
            conversation: record.conversation,
            lane: Lane::Control { expected },
            duplicate_key: None,
            payload: record.encode(),
            traceparent: None,
        };
        match self.publish(append, record.stamp).await? {
            Appended::New(position) | Appended::Duplicate(position) => Ok(position),
        }
    }

    fn knows_the_time(&self) -> Result<(), AppendError> {
        let unknown = || AppendError::Unavailable("the log's time is not known yet".into());
        self.clock.is_known().then_some(()).ok_or_else(unknown)
    }

    /// Appends what was stamped at `stamp`, under the trace of what is being done.
    async fn publish(&self, mut append: Append, stamp: Timestamp) -> Result<Appended, AppendError> {
        // A stamp by a clock that was not set by the log may be too early for every reader.
        self.knows_the_time()?;
        let stamped = Instant::now();
        let (trace, conversation) = (TraceContext::current(), append.conversation);
        append.traceparent = Some(trace);
        let late = || AppendError::OutcomeUnknown("the log did not answer within 5 s".into());
        let appended = match tokio::time::timeout(ANSWER_WITHIN, self.log.append(append)).await {
            Ok(appended) => appended?,
            Err(_) => return Err(late()),
        };
        // A process that was paused in between finds its timer late: judge by the clock. One whose machine was paused
        // finds that clock late as well; and the log's time may have been learnt only after the stamp.
        let off_ms = self.clock.now().as_millis().abs_diff(stamp.as_millis());
        let is_off = u128::from(off_ms) > ANSWER_WITHIN.as_millis();
        if stamped.elapsed() > ANSWER_WITHIN || is_off || !self.clock.is_known() {
            return Err(late());
        }
        let (Appended::New(position) | Appended::Duplicate(position)) = appended;
        let (trace_id, shard) = (trace.trace_id(), conversation.shard().0);
        tracing::debug!(%trace_id, shard, position = position.as_u64(), "the log has an event");
        Ok(appended)
    }
}

fn same_request(
    send: &Send<'_>,
    digest: RequestDigest,
    position: Position,
    (stamp, expires_at): (Timestamp, Option<Timestamp>),
) -> Outcome<Accepted> {
    if digest == send.digest {
        return Ok(Accepted { position, stamp, expires_at, duplicate: true });
    }
    let detail = "This clientMessageId belongs to another message. Make a new one for each message.";
    Err(Refused::new(ErrorCode::IdempotencyKeyReused, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::EmbeddedLog;
    use crate::log::measure::measure;
    use crate::store::embedded::EmbeddedStore;
    use reedi_protocol::Epoch;
    use reedi_protocol::resource::ConversationType;
    use uuid::Uuid;

    const CONVERSATION: ConversationKey = ConversationKey::from_u64(7);

    fn record(stamp: Timestamp) -> Record {
        Record {
            conversation: CONVERSATION,
            kind: ConversationType::Direct,
            actor: AccountId::new(Uuid::nil()),
            stamp,
            digest: RequestDigest([0; 16]),
            audience: None,
            body: Body::Tick,
        }
    }

    /// A machine whose clock is 40 s behind the log's: what it stamps by that is void for every reader.
    fn behind_the_log() -> Appender {
        let clock = LogClock::from_system();
        let log = EmbeddedLog::in_memory(Epoch::FIRST, "a", clock.now().plus_millis(40_000));
        let store = Store::Embedded(EmbeddedStore::in_memory(LogClock::from_system()));
        let watermarks = Watermarks::new(store.clone());
        Appender::new(Log::Embedded(log), store, clock, watermarks, Metrics::new())
    }

    #[tokio::test]
    async fn nothing_is_accepted_before_the_logs_time_is_known() {
        let appender = behind_the_log();
        let key = ClientMessageId::parse(&Uuid::now_v7().to_string()).unwrap();
        let send = Send {
            sender: AccountId::new(Uuid::nil()),
            conversation: CONVERSATION,
            client_message_id: &key,
            keyed_by_client: true,
            is_timed: true,
            digest: RequestDigest([0; 16]),
        };
        let refused = appender.send(send, record).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::LogUnavailable);
        let refused = appender.event(CONVERSATION, record).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::LogUnavailable);
        let slice = appender.log.slices()[0];
        assert_eq!(appender.log.state(slice).await.unwrap().last, Position::START, "the log has nothing");

        assert!(measure(&appender.log, &appender.clock, &appender.metrics).await);
        let (position, _) = appender.event(CONVERSATION, record).await.unwrap();
        let raw = appender.log.get(CONVERSATION.shard(), position).await.unwrap().unwrap();
        let read = Entry::decode(raw.position, raw.log_time, &raw.payload);
        assert!(!matches!(read, Err(NotAnEvent::Late { .. })), "what is accepted is not void: {read:?}");
    }

    /// The log's time was learnt between stamp and publishing.
    #[tokio::test]
    async fn what_was_stamped_long_before_the_answer_is_not_acknowledged() {
        let appender = behind_the_log();
        let stamp = appender.clock.now();
        assert!(measure(&appender.log, &appender.clock, &appender.metrics).await);
        let append = Append {
            conversation: CONVERSATION,
            lane: Lane::Event,
            duplicate_key: None,
            payload: record(stamp).encode(),
            traceparent: None,
        };
        let outcome = appender.publish(append, stamp).await;
        assert!(matches!(outcome, Err(AppendError::OutcomeUnknown(_))), "{outcome:?}");
    }
}
