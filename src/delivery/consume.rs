//! Consume: one slice of the log, in order, for the shards that this worker owns.

use super::Delivery;
use super::again::Again;
use super::fan_out::{FanOut, by_edge, link_event};
use super::membership::Membership;
use super::own_shards::{Collected, Standing, tick_all};
use super::routes::{Learnt, Routes};
use crate::domain::record::{Entry, NotAnEvent};
use crate::edge_link::{EdgeId, EdgeLinkPort, ToEdge, ToWorkers};
use crate::log::lag::Lag;
use crate::log::reading::SliceReading;
use crate::log::{LogPort, LogReader, RawRecord, ReadError, Reader, ShardSet, Slice};
use crate::ownership::keep::Owned;
use crate::runtime::backoff::Backoff;
use crate::runtime::shutdown::Shutdown;
use crate::store::Watermarks as _;
use reedi_protocol::{AccountId, Position, Shard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Records taken from the log at once.
const BATCH_MOST: usize = 512;
/// How long a new owner waits for what edges say (rule P5).
const COLLECT_FOR: Duration = Duration::from_millis(500);
/// How often edges hear of shards that moved, and of all shards.
const HEARTBEAT_BUSY: Duration = Duration::from_millis(100);
const HEARTBEAT_IDLE: Duration = Duration::from_secs(1);
/// How long a repeat may take to be read.
const REPEAT_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before the store is asked again for what only it knows.
const STORE_AGAIN: Duration = Duration::from_millis(200);

/// Why reading begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Everything that delivery knows of one slice. All of it can be asked for again.
pub struct Consumer {
    delivery: Delivery,
    slice: Slice,
    shards: BTreeMap<Shard, Standing>,
    routes: Routes,
    membership: Membership,
    fan_out: FanOut,
    fresh: Vec<Shard>,
    lag: Lag,
    reading: SliceReading,
    /// What edges asked to be served again, until the next heartbeat.
    repeats: BTreeMap<EdgeId, BTreeMap<Shard, Position>>,
}

/// Works, unless the process leaves or ownership changes meanwhile: who is to be told may wait for the store, for as
/// long as that is away. What was not sent by then was not claimed either, or shows at edges as a gap.
async fn interrupted(
    work: impl Future<Output = ()>,
    owned: &mut watch::Receiver<Owned>,
    shutdown: &Shutdown,
) -> bool {
    tokio::select! {
        biased;
        () = work => false,
        () = shutdown.draining() => true,
        _ = owned.changed() => true,
    }
}

impl Consumer {
    #[must_use]
    pub fn new(delivery: Delivery, slice: Slice, lag: Lag, reading: SliceReading) -> Self {
        Self {
            delivery,
            slice,
            shards: BTreeMap::new(),
            routes: Routes::default(),
            membership: Membership::default(),
            fan_out: FanOut::default(),
            fresh: Vec::new(),
            lag,
            reading,
            repeats: BTreeMap::new(),
        }
    }

    /// Delivers the shards of `mine` until ownership changes or the process leaves.
    ///
    /// # Errors
    /// The log could not be read on; call again.
    pub async fn run(
        &mut self,
        mine: &Owned,
        owned: &mut watch::Receiver<Owned>,
        inbound: &mut mpsc::Receiver<ToWorkers>,
        shutdown: &Shutdown,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        self.adopt(mine);
        self.reading.wants(!self.shards.is_empty());
        self.lag.stops(self.shards.keys().copied().collect());
        if !self.fresh.is_empty() {
            self.begin_fresh(inbound).await?;
        }
        let mut reader = self.reader().await?;
        if let (Some(reader), Some(from)) = (&reader, self.shards.values().map(|s| s.read).min()) {
            self.lag.begins(self.shards.keys().copied().collect(), from, reader.is_drained());
            self.reading.works();
        }
        backoff.reset();
        let mut heartbeat = tokio::time::interval(HEARTBEAT_BUSY);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What is rare first: records are always there while the log is busy.
                biased;
                () = shutdown.draining() => return Ok(()),
                _ = owned.changed() => return Ok(()),
                // Edges must not take themselves for served by somebody who hears nothing.
                _ = heartbeat.tick(), if self.reading.can_read() => {
                    let work = async {
                        self.heartbeat().await;
                        self.repeat_asked().await;
                    };
                    if interrupted(work, owned, shutdown).await {
                        return Ok(());
                    }
                }
                frame = inbound.recv() => {
                    let Some(frame) = frame else { return Ok(()) };
                    self.hear(frame).await;
                    while let Ok(frame) = inbound.try_recv() {
                        self.hear(frame).await;
                    }
                    self.flush(true).await;
                }
                records = next(&mut reader) => {
                    let records = records?;
                    self.reading.works();
                    self.lag.has_in_hand(&records);
                    let last = records.last().map(|record| (record.position, record.log_time));
                    if interrupted(self.push(records), owned, shutdown).await {
                        return Ok(());
                    }
                    if let (Some(reader), Some((position, time))) = (&reader, last) {
                        self.lag.is_done(position, time, reader.is_drained());
                    }
                }
            }
        }
    }

    /// Lets go of what is not owned any more and notes what is new.
    fn adopt(&mut self, mine: &Owned) {
        let slice = self.slice;
        let lost: Vec<Shard> = self
            .shards
            .iter()
            .filter(|(shard, s)| mine.generation(**shard) != Some(s.generation))
            .map(|(shard, _)| *shard)
            .collect();
        if !lost.is_empty() {
            self.fan_out.forget(&lost);
        }
        for shard in lost {
            self.shards.remove(&shard);
            self.membership.end(shard);
            self.routes.edges().for_each(|(_, edge)| edge.forget_shard(shard));
        }
        for (shard, generation) in mine.iter().filter(|(shard, _)| slice.holds(*shard)) {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.shards.entry(shard) {
                vacant.insert(Standing { generation, pushed: Position::START, read: Position::START });
                self.fresh.push(shard);
            }
        }
        let shards = &self.shards;
        self.fresh.retain(|shard| shards.contains_key(shard));
    }

    /// Learns from the edges where new shards begin.
    async fn begin_fresh(&mut self, inbound: &mut mpsc::Receiver<ToWorkers>) -> Result<(), Interrupted> {
        let log = self.delivery.log.clone();
        let end = log.state(self.slice).await?.last;
        let collect = ToEdge::Collect { worker: self.delivery.id };
        if let Err(error) = self.delivery.link.to_all_edges(collect).await {
            tracing::debug!(%error, "edges could not be asked for their routes");
        }
        let mut collected = Collected::default();
        let until = Instant::now() + COLLECT_FOR;
        while let Ok(Some(frame)) = tokio::time::timeout_at(until, inbound.recv()).await {
            collected.take(&frame);
            self.hear(frame).await;
        }
        // With the store away every control event that the log still has is looked at.
        let stored = self.delivery.store.watermarks().await.ok();
        if stored.is_none() {
            let ahead: Vec<Shard> =
                self.fresh.iter().copied().filter(|shard| !collected.is_needed(*shard)).collect();
            tick_all(&self.delivery.log, ahead).await?;
        }
        for shard in std::mem::take(&mut self.fresh) {
            let watermark = stored.as_ref().map(|stored| {
                stored.iter().find(|(s, _)| *s == shard).map_or(Position::START, |(_, position)| *position)
            });
            let pushed = collected.begin(shard, watermark, end);
            let read = pushed.min(watermark.unwrap_or_default());
            if let Some(standing) = self.shards.get_mut(&shard) {
                (standing.pushed, standing.read) = (pushed, read);
            }
            self.membership.begin(shard, read);
        }
        tracing::info!(shards = self.shards.len(), edges = collected.edges, "delivering");
        self.routes.edges().for_each(|(_, edge)| edge.prompt = true);
        self.flush(true).await;
        Ok(())
    }

    async fn reader(&mut self) -> Result<Option<Reader>, Interrupted> {
        let Some(from) = self.shards.values().map(|s| s.read).min() else { return Ok(None) };
        let shards: ShardSet = self.shards.keys().copied().collect();
        let log = &self.delivery.log;
        match log.read(self.slice, shards, from).await {
            Ok(reader) => Ok(Some(reader)),
            // What was trimmed is stored and more than a day old: no edge waits for it.
            Err(ReadError::Trimmed { first, .. }) => {
                let from = Position::from_u64(first.as_u64() - 1).unwrap_or(first);
                for (shard, standing) in &mut self.shards {
                    if standing.read < from {
                        standing.read = from;
                        self.membership.begin(*shard, from);
                    }
                }
                Ok(Some(log.read(self.slice, shards, from).await?))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn push(&mut self, records: Vec<RawRecord>) {
        self.delivery.metrics.read("delivery", records.len() as u64);
        for raw in records {
            let shard = raw.conversation.shard();
            let Some(standing) = self.shards.get(&shard).copied() else { continue };
            if raw.position <= standing.read {
                continue;
            }
            if let Some(entry) = self.decode(&raw) {
                self.membership.learn(&entry);
                if raw.position > standing.pushed {
                    let recipients = self.recipients(&entry).await;
                    self.fan_out.add(&self.routes, &raw, &entry, &recipients);
                }
            }
            if let Some(standing) = self.shards.get_mut(&shard) {
                standing.read = raw.position;
                standing.pushed = standing.pushed.max(raw.position);
            }
        }
        self.flush(true).await;
    }

    fn decode(&self, raw: &RawRecord) -> Option<Entry> {
        match Entry::decode(raw.position, raw.log_time, &raw.payload) {
            Ok(entry) => Some(entry),
            Err(NotAnEvent::Late { .. }) => None,
            Err(error) => {
                self.delivery.metrics.records_unreadable.inc();
                tracing::error!(%error, position = raw.position.as_u64(), "a record cannot be read and is skipped");
                None
            }
        }
    }

    /// Who gets an entry. Where only the store knows, the shard waits for it, since to guess would
    /// show a message to somebody who is no participant.
    async fn recipients(&mut self, entry: &Entry) -> Arc<[AccountId]> {
        loop {
            match self.membership.recipients(entry, &self.delivery.store).await {
                Ok(recipients) => return recipients,
                Err(error) => {
                    self.delivery.metrics.retried("store");
                    tracing::warn!(%error, "delivery waits for the store to know a conversation's members");
                    self.flush(false).await;
                    tokio::time::sleep(STORE_AGAIN).await;
                }
            }
        }
    }

    async fn flush(&mut self, moved_only: bool) {
        let Delivery { id, link, metrics, .. } = &self.delivery;
        self.fan_out.flush(*id, link, &mut self.routes, &self.shards, metrics, moved_only).await;
    }

    async fn heartbeat(&mut self) {
        self.routes.forget_silent();
        let shards = &self.shards;
        let due = self.routes.edges().any(|(_, edge)| {
            edge.told_all.elapsed() >= HEARTBEAT_IDLE
                || shards.iter().any(|(shard, s)| edge.sent.get(shard).is_none_or(|sent| *sent < s.pushed))
        });
        if due {
            self.flush(false).await;
        }
    }

    async fn hear(&mut self, frame: ToWorkers) {
        match frame {
            ToWorkers::Routes { edge, from, to, came, left } => {
                if self.routes.delta(edge, (from, to), &came, &left) == Learnt::Gap {
                    let collect = ToEdge::Collect { worker: self.delivery.id };
                    // An edge that does not hear it says something every second.
                    let _ = self.delivery.link.to_edge(edge, collect).await;
                }
            }
            ToWorkers::Snapshot { edge, version, accounts, through } => {
                // Of a shard in which more was pushed meanwhile this edge was not sent everything. Nothing is
                // claimed of that: it is told where we stand, sees the gap and asks for a repeat.
                let joins_on = |(shard, at): &(Shard, Position)| {
                    self.shards.get(shard).is_some_and(|standing| *at >= standing.pushed)
                };
                let sent = through.into_iter().filter(joins_on).collect();
                self.routes.snapshot(edge, version, accounts, sent);
            }
            // An edge asks for each shard by itself, and again while it waits: the newest counts.
            ToWorkers::Repeat { edge, shard, after } => {
                if self.shards.contains_key(&shard) {
                    self.repeats.entry(edge).or_default().insert(shard, after);
                }
            }
            ToWorkers::Bye { edge } => drop(self.routes.forget(edge)),
            ToWorkers::Fleeting { conversation, audience, what } => {
                if self.shards.contains_key(&conversation.shard()) {
                    for (edge, audience) in by_edge(&self.routes, &audience) {
                        let _ = self
                            .delivery
                            .link
                            .to_edge(edge, ToEdge::Fleeting { conversation, audience, what })
                            .await;
                    }
                }
            }
        }
    }

    /// Serves what was asked for: the log is read once for each edge, however many shards it lacks. An
    /// edge that missed a second of everything asks for every shard, and as many readings one after the
    /// other left all edges without a heartbeat until they took themselves for deaf.
    async fn repeat_asked(&mut self) {
        for (edge, asked) in std::mem::take(&mut self.repeats) {
            self.repeat(edge, &asked).await;
            // However long that took, the others hear of their shards.
            self.heartbeat().await;
        }
    }

    async fn repeat(&mut self, edge: EdgeId, asked: &BTreeMap<Shard, Position>) {
        let Some(version) = self.routes.edge(edge).map(|known| known.version) else { return };
        let wanted =
            asked.iter().filter_map(|(shard, after)| Some((*shard, *after, *self.shards.get(shard)?)));
        let mut again = Again::new(wanted);
        let read = tokio::time::timeout(REPEAT_WITHIN, self.read_again(edge, &mut again)).await;
        let is_stuck = read.is_err();
        let is_gone = matches!(read, Ok(Err(ReadError::Trimmed { .. })));
        if let Ok(Err(error)) = read
            && !is_gone
        {
            // The edge asks again.
            tracing::debug!(%error, %edge, "what an edge missed cannot be read now");
        }
        for (shard, standing) in again.served() {
            if let Some(known) = self.routes.edge(edge) {
                // What is sent next begins there. An edge that has got only a part of it asks again.
                known.sent.insert(shard, standing.pushed);
            }
        }
        let skipped = if is_gone || is_stuck { again.unserved() } else { Vec::new() };
        let coverage = again.coverage();
        let (worker, events) = (self.delivery.id, again.into_events());
        // If these are lost as well, the edge asks again.
        if !coverage.is_empty() {
            let batch = ToEdge::Batch { worker, routes: version, coverage, events };
            let _ = self.delivery.link.to_edge(edge, batch).await;
        }
        for (shard, Standing { generation, pushed, .. }) in skipped {
            if let Some(known) = self.routes.edge(edge) {
                known.sent.insert(shard, pushed);
            }
            let skip = ToEdge::Skip { shard, generation, through: pushed };
            let _ = self.delivery.link.to_edge(edge, skip).await;
        }
    }

    async fn read_again(&mut self, edge: EdgeId, again: &mut Again) -> Result<(), ReadError> {
        let Some(from) = again.from() else { return Ok(()) };
        let mut reader = self.delivery.log.read(self.slice, again.shards(), from).await?;
        loop {
            for raw in reader.next(BATCH_MOST).await? {
                let event = match self.decode(&raw) {
                    Some(entry) if again.wants(&raw) => {
                        let recipients = self.recipients(&entry).await;
                        let held: Vec<AccountId> =
                            recipients.iter().copied().filter(|a| self.routes.holds(edge, *a)).collect();
                        (!held.is_empty()).then(|| link_event(&raw, None, held))
                    }
                    _ => None,
                };
                again.take(raw.position, event);
                if again.is_enough() {
                    return Ok(());
                }
            }
        }
    }
}

/// The next records; with nothing owned there are none.
async fn next(reader: &mut Option<Reader>) -> Result<Vec<RawRecord>, ReadError> {
    match reader {
        Some(reader) => reader.next(BATCH_MOST).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
