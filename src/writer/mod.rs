//! The writer: from the log into the store, in batches; then the watermark, then trimming.

pub mod batch;
pub mod erase;
pub mod persist;
pub mod trim;

use crate::log::lag::{Lag, Role};
use crate::log::measure::{again_after, measure};
use crate::log::reading::{Reading, SliceReading};
use crate::log::tick::tick;
use crate::log::{Log, LogPort, LogReader, RawRecord, ReadError, Reader, ShardSet, Slice};
use crate::ownership::keep::Owned;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::LogClock;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::store::{Store, StoreError, Watermarks as _};
use persist::Persist;
use reedi_protocol::{Position, Shard};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Records persisted together at most.
const BATCH_MOST: usize = 2_000;
/// The least time from one batch to the next, so that batches under load are large: each costs a commit of
/// the store, whatever is in it. What comes alone is stored at once.
const BATCH_EVERY: Duration = Duration::from_millis(10);
/// A shard that moved nothing for this long gets a tick, so that its watermark does not hold back
/// trimming (rule P2).
const TICK_IDLE: Duration = Duration::from_secs(600);

/// What a writer is made of.
#[derive(Clone)]
pub struct Writer {
    pub log: Log,
    pub store: Store,
    pub clock: LogClock,
    pub metrics: Metrics,
    /// What the keeper of its leases goes by.
    pub reading: Reading,
    /// How long after a deletion was stored its content leaves the log: [`erase::AFTER`].
    pub erase_after: Duration,
}

/// Why a writer begins anew from the watermark.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Writer {
    /// Persists the owned shards of every slice until the process leaves.
    pub async fn run(self, owned: watch::Receiver<Owned>, shutdown: Shutdown) {
        let slices = self.log.slices();
        let tasks: Vec<_> = slices
            .into_iter()
            .map(|slice| tokio::spawn(self.clone().run_slice(slice, owned.clone(), shutdown.clone())))
            .map(|task| shutdown.supervise("a slice of the writer", task))
            .collect();
        let trimming = tokio::spawn(trim::run(self.clone(), owned, shutdown.clone()));
        let stop_trimming = trimming.abort_handle();
        shutdown.supervise("trimming", trimming);
        for task in tasks {
            let _ = task.await;
        }
        stop_trimming.abort();
    }

    async fn run_slice(self, slice: Slice, owned: watch::Receiver<Owned>, shutdown: Shutdown) {
        let lag = Lag::default();
        let role = Role::Writer(self.clock.clone());
        let telling = lag.clone().tell(self.log.clone(), slice, self.metrics.clone(), role);
        let reading = self.reading.of(slice);
        tokio::select! {
            () = self.follow_owned(slice, owned, (&lag, &reading), shutdown) => {}
            () = reading.keep_looking(&self.log) => {}
            () = telling => {}
        }
    }

    async fn follow_owned(
        &self,
        slice: Slice,
        mut owned: watch::Receiver<Owned>,
        (lag, reading): (&Lag, &SliceReading),
        shutdown: Shutdown,
    ) {
        let mut backoff = Backoff::for_parts();
        let mut erasures = erase::Erasures::new(self.erase_after);
        // Without its keeper a worker owns nothing any more, and is never told so.
        while owned.has_changed().is_ok() {
            let mine = owned.borrow_and_update().clone();
            let shards: ShardSet = mine.shards().iter().filter(|shard| slice.holds(*shard)).collect();
            lag.stops(shards);
            reading.wants(!shards.is_empty());
            if shards.is_empty() {
                if shutdown.is_draining() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = shutdown.draining() => return,
                    _ = owned.changed() => {}
                }
                continue;
            }
            match self.follow(&shards, &mut owned, (lag, reading), &mut erasures, &mut backoff).await {
                Ok(()) => {}
                Err(error) => {
                    let part = match &error {
                        Interrupted::Log(why) => {
                            reading.failed(why);
                            "log"
                        }
                        Interrupted::Store(_) => "store",
                    };
                    self.metrics.retried(part);
                    tracing::warn!(%error, "the writer begins anew from the watermark");
                    let pause = backoff.next().unwrap_or(Duration::from_secs(1));
                    tokio::select! {
                        biased;
                        () = shutdown.stopping() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Persists `shards` from their watermarks on, until ownership changes.
    async fn follow(
        &self,
        shards: &ShardSet,
        owned: &mut watch::Receiver<Owned>,
        (lag, reading): (&Lag, &SliceReading),
        erasures: &mut erase::Erasures,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        let slice = reading.slice();
        let stored: HashMap<Shard, Position> = self.store.watermarks().await?.into_iter().collect();
        let watermark = |shard| stored.get(&shard).copied().unwrap_or_default();
        let from = shards.iter().map(watermark).min().unwrap_or_default();
        let from = self.not_before_first(slice, from).await?;
        let mut reader = self.log.read(slice, *shards, from).await?;
        lag.begins(*shards, from, reader.is_drained());
        reading.works();
        let mut persist = Persist::new(self.store.clone(), self.metrics.clone(), stored);
        let mut moved: BTreeMap<Shard, Instant> =
            shards.iter().map(|shard| (shard, Instant::now())).collect();
        backoff.reset();
        let mut next = Instant::now();
        let mut idle = tokio::time::interval(TICK_IDLE / 10);
        idle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let records = tokio::select! {
                biased;
                _ = owned.changed() => return Ok(()),
                _ = idle.tick() => {
                    lag.pauses();
                    self.tick_idle(&mut moved).await;
                    lag.waits(reader.is_drained());
                    continue;
                }
                records = next_batch(&mut reader, next) => records?,
                () = erasures.are_due() => {
                    lag.pauses();
                    erasures.run_due(&self.log, &self.store).await;
                    lag.waits(reader.is_drained());
                    continue;
                }
            };
            reading.works();
            lag.has_in_hand(&records);
            let last = records.last().map(|record| (record.position, record.log_time));
            let now = Instant::now();
            next = now + BATCH_EVERY;
            for record in &records {
                moved.insert(record.conversation.shard(), now);
            }
            // A batch that was begun is finished, whoever owns the shards now: writes converge.
            let batch = batch::decode(records, &self.metrics);
            tokio::select! {
                biased;
                () = self.time_is_known() => {}
                _ = owned.changed() => return Ok(()),
            }
            persist.run(&batch, self.clock.now()).await?;
            batch.trace_stored();
            if let Some((position, time)) = last {
                lag.is_done(position, time, false);
            }
            erasures.note(&batch);
            // Here too, for a log that is always busy; some at a time, for records that wait.
            erasures.run_due(&self.log, &self.store).await;
            lag.waits(reader.is_drained());
        }
    }

    /// A log that was trimmed further than a watermark that never moved: there was nothing of that
    /// shard in between, since only what is stored is trimmed.
    async fn not_before_first(&self, slice: Slice, from: Position) -> Result<Position, ReadError> {
        let first = self.log.state(slice).await?.first.as_u64();
        Ok(from.max(Position::from_u64(first.saturating_sub(1)).unwrap_or_default()))
    }

    /// Waits until the log's time is known: by a clock that is ahead of it a message would be stored as one that has
    /// ended already.
    async fn time_is_known(&self) {
        while !self.clock.is_known() && !measure(&self.log, &self.clock, &self.metrics).await {
            tokio::time::sleep(again_after(false)).await;
        }
    }

    async fn tick_idle(&self, moved: &mut BTreeMap<Shard, Instant>) {
        let idle: Vec<Shard> =
            moved.iter().filter(|(_, at)| at.elapsed() >= TICK_IDLE).map(|(shard, _)| *shard).collect();
        for shard in idle {
            // One that fails is tried again in a minute.
            let _ = self.log.append(tick(shard, &self.clock)).await;
        }
    }
}

/// What has gathered until `due`, or comes after it.
async fn next_batch(reader: &mut Reader, due: Instant) -> Result<Vec<RawRecord>, ReadError> {
    tokio::time::sleep_until(due).await;
    reader.next(BATCH_MOST).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{Body, NewMessage, Record, RequestDigest, Sealed};
    use crate::log::embedded::EmbeddedLog;
    use crate::log::{Append, Appended, Lane};
    use crate::store::embedded::EmbeddedStore;
    use crate::store::{Messages as _, Order, Range};
    use bytes::Bytes;
    use reedi_protocol::resource::{ConversationType, MessageType};
    use reedi_protocol::text::ClientMessageId;
    use reedi_protocol::{AccountId, ConversationKey, Epoch, Timestamp};

    const HOUR_S: u64 = 3_600;

    /// A writer on a machine whose clock shows `clock` while the log's shows `log_time`.
    fn writer(log_time: Timestamp, clock: LogClock) -> Writer {
        Writer {
            log: Log::Embedded(EmbeddedLog::in_memory(Epoch::FIRST, "a", log_time)),
            store: Store::Embedded(EmbeddedStore::in_memory(clock.clone())),
            clock,
            metrics: Metrics::new(),
            reading: Reading::default(),
            erase_after: erase::AFTER,
        }
    }

    #[tokio::test]
    async fn a_writer_that_ends_by_itself_fails_its_process() {
        let clock = LogClock::from_system();
        let shutdown = Shutdown::new();
        let (keeper, owned) = watch::channel(Owned::default());
        drop(keeper);
        writer(clock.now(), clock).run(owned, shutdown.clone()).await;
        assert_eq!(shutdown.failure(), Some("a slice of the writer has ended"));
        assert!(shutdown.is_draining(), "its leases go to another");
    }

    #[tokio::test]
    async fn no_message_ends_by_a_clock_that_is_not_the_logs() {
        let log_time = LogClock::from_system().now();
        let ahead = LogClock::starting_at(log_time.plus_millis(2 * HOUR_S * 1_000));
        let (writer, conversation) = (writer(log_time, ahead), ConversationKey::from_u64(7));
        let record = Record {
            conversation,
            kind: ConversationType::Direct,
            actor: AccountId::new(uuid::Uuid::nil()),
            stamp: log_time,
            digest: RequestDigest([0; 16]),
            audience: None,
            body: Body::Message(NewMessage {
                client_message_id: ClientMessageId::parse("key").unwrap(),
                keyed_by_client: true,
                message_type: MessageType::Text,
                content: Some(Sealed(Bytes::from_static(b"for an hour"))),
                reply_to: None,
                expires_after_s: Some(HOUR_S),
            }),
        };
        let (lane, payload) = (Lane::Event, record.encode());
        let append = Append { conversation, lane, duplicate_key: None, payload, traceparent: None };
        let Ok(Appended::New(position)) = writer.log.append(append).await else { panic!("it is new") };

        let (slice, shards) = (writer.log.slices()[0], [conversation.shard()].into_iter().collect());
        let (_keeper, mut owned) = watch::channel(Owned::default());
        let (lag, reading) = (Lag::default(), writer.reading.of(slice));
        let (mut erasures, mut backoff) = (erase::Erasures::new(erase::AFTER), Backoff::for_parts());
        let stored = async {
            while writer.store.watermarks().await.unwrap().iter().all(|(_, stored)| *stored < position) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = writer.follow(&shards, &mut owned, (&lag, &reading), &mut erasures, &mut backoff) => {
                panic!("{ended:?}");
            }
            () = stored => {}
        }
        let all = Range::after(Position::START);
        let messages = writer.store.messages(conversation, all, Order::OldestFirst, 9).await.unwrap();
        assert_eq!(messages.len(), 1, "it stands");
    }
}
