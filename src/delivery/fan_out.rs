//! Fan out: each record once to every edge that holds a recipient, with what proves that nothing is
//! missing.

use super::own_shards::Standing;
use super::routes::{EdgeRoutes, Routes};
use crate::domain::record::Entry;
use crate::edge_link::{Coverage, EdgeId, EdgeLink, EdgeLinkPort, LinkError, LinkEvent, ToEdge, WorkerId};
use crate::log::RawRecord;
use crate::runtime::metrics::Metrics;
use crate::runtime::trace_context::trace_id_of;
use reedi_protocol::{AccountId, ConversationKey, Position, Shard};
use std::collections::{BTreeMap, HashMap};

/// Conversations whose last public position is remembered, for `previousPosition`.
const PREVIOUS_MOST: usize = 100_000;

/// What is to go out to each edge.
#[derive(Default)]
pub struct FanOut {
    events: BTreeMap<EdgeId, Vec<LinkEvent>>,
    previous: HashMap<ConversationKey, Position>,
}

/// The parts of the recipients that each edge holds.
#[must_use]
pub fn by_edge(routes: &Routes, recipients: &[AccountId]) -> BTreeMap<EdgeId, Vec<AccountId>> {
    let mut held: BTreeMap<EdgeId, Vec<AccountId>> = BTreeMap::new();
    for account in recipients {
        for edge in routes.of(*account) {
            held.entry(*edge).or_default().push(*account);
        }
    }
    held
}

/// The event as it goes over the link.
#[must_use]
pub fn link_event(raw: &RawRecord, previous: Option<Position>, recipients: Vec<AccountId>) -> LinkEvent {
    LinkEvent {
        position: raw.position,
        log_time: raw.log_time,
        conversation: raw.conversation,
        previous,
        recipients,
        payload: raw.payload.clone(),
        traceparent: raw.traceparent,
    }
}

impl FanOut {
    /// Adds a record for those edges that hold a recipient.
    pub fn add(&mut self, routes: &Routes, raw: &RawRecord, entry: &Entry, recipients: &[AccountId]) {
        let previous = self.previous_of(entry);
        tracing::debug!(
            trace_id = trace_id_of(raw.traceparent),
            position = raw.position.as_u64(),
            recipients = recipients.len(),
            "an event goes out to edges"
        );
        for (edge, accounts) in by_edge(routes, recipients) {
            self.events.entry(edge).or_default().push(link_event(raw, previous, accounts));
        }
    }

    /// The public event before this one, where it is known; a receipt is no link of the chain.
    pub fn previous_of(&mut self, entry: &Entry) -> Option<Position> {
        if !entry.is_public() {
            return None;
        }
        if self.previous.len() >= PREVIOUS_MOST {
            self.previous.clear();
        }
        self.previous.insert(entry.record.conversation, entry.position)
    }

    /// Others serve these shards now: what was last here will not be what is last when they come back.
    pub fn forget(&mut self, shards: &[Shard]) {
        self.previous.retain(|conversation, _| !shards.contains(&conversation.shard()));
    }

    /// Sends what is there, with coverage of what moved; to edges that wait for their routes, of all
    /// shards.
    pub async fn flush(
        &mut self,
        worker: WorkerId,
        link: &EdgeLink,
        routes: &mut Routes,
        shards: &BTreeMap<Shard, Standing>,
        metrics: &Metrics,
        moved_only: bool,
    ) {
        let mut batches = Vec::new();
        for (edge, known) in routes.edges() {
            let events = self.events.remove(&edge).unwrap_or_default();
            if moved_only && events.is_empty() && !known.prompt {
                continue;
            }
            let touched: Option<Vec<Shard>> = (moved_only && !known.prompt).then(|| {
                let mut touched: Vec<Shard> = events.iter().map(|e| e.conversation.shard()).collect();
                touched.sort_unstable();
                touched.dedup();
                touched
            });
            let coverage = coverage(known, shards, touched.as_deref());
            if coverage.is_empty() && events.is_empty() {
                continue;
            }
            known.prompt = false;
            if touched.is_none() {
                known.told_all = tokio::time::Instant::now();
            }
            batches.push((edge, ToEdge::Batch { worker, routes: known.version, coverage, events }));
        }
        // Of edges that are gone.
        self.events.clear();
        for (edge, batch) in batches {
            match link.to_edge(edge, batch).await {
                Ok(()) => {}
                // The edge notices by the coverage of the next and asks for a repeat.
                Err(LinkError::Full) => metrics.dropped("edge_link", 1),
                Err(error) => tracing::debug!(%error, "a batch was not passed on"),
            }
        }
    }
}

/// What is claimed to an edge with what is sent now; from here on it counts as sent.
fn coverage(
    known: &mut EdgeRoutes,
    shards: &BTreeMap<Shard, Standing>,
    only: Option<&[Shard]>,
) -> Vec<Coverage> {
    let mut coverage = Vec::new();
    let mut cover = |shard: Shard, standing: &Standing| {
        let through = standing.pushed;
        let after = *known.sent.entry(shard).or_insert(through);
        known.sent.insert(shard, through);
        coverage.push(Coverage {
            shard,
            generation: standing.generation,
            after: after.min(through),
            through,
        });
    };
    match only {
        Some(only) => {
            for shard in only {
                if let Some(standing) = shards.get(shard) {
                    cover(*shard, standing);
                }
            }
        }
        None => shards.iter().for_each(|(shard, standing)| cover(*shard, standing)),
    }
    coverage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{Body, Record, RequestDigest};
    use crate::edge_link::Generation;
    use crate::edge_link::in_process::InProcessLink;
    use reedi_protocol::resource::ConversationType;
    use reedi_protocol::{Epoch, Timestamp};
    use std::time::Duration;

    const EDGE: EdgeId = EdgeId(7);
    const WORKER: WorkerId = WorkerId(1);

    /// Else a client would take an event for the one after what it has, over all that another worker told
    /// meanwhile.
    #[test]
    fn a_shard_that_comes_back_names_no_predecessor_of_before() {
        let conversation = ConversationKey::from_u64(7 << 56 | 1);
        let at = |sequence| Position::new(Epoch::FIRST, sequence).unwrap();
        let record = Record {
            conversation,
            kind: ConversationType::Group,
            actor: AccountId::new(uuid::Uuid::from_u128(1)),
            stamp: Timestamp::from_millis(1),
            digest: RequestDigest([0; 16]),
            audience: None,
            body: Body::Delete { target: at(1) },
        };
        let event = |sequence| Entry {
            position: at(sequence),
            log_time: Timestamp::default(),
            record: record.clone(),
        };
        let mut fan_out = FanOut::default();
        assert_eq!(fan_out.previous_of(&event(2)), None);
        assert_eq!(fan_out.previous_of(&event(3)), Some(at(2)));
        fan_out.forget(&[Shard(8)]);
        assert_eq!(fan_out.previous_of(&event(4)), Some(at(3)));
        fan_out.forget(&[conversation.shard()]);
        assert_eq!(fan_out.previous_of(&event(9)), None);
    }

    /// Else shards in which nothing happens are not heard of while one is busy, and the edge takes itself for
    /// deaf and sends its clients elsewhere.
    #[tokio::test(start_paused = true)]
    async fn news_of_one_shard_do_not_put_off_the_heartbeat_of_all() {
        let link = EdgeLink::InProcess(InProcessLink::default());
        let (mut frames, _presence) = link.listen_as_edge(EDGE).await.unwrap();
        let account = AccountId::new(uuid::Uuid::from_u128(1));
        let mut routes = Routes::default();
        routes.snapshot(EDGE, 1, vec![account], HashMap::new());
        let at = |sequence| Position::new(Epoch::FIRST, sequence).unwrap();
        let standing = Standing { generation: Generation(1), pushed: at(1), read: at(1) };
        let conversation = ConversationKey::from_u64(0);
        let shards: BTreeMap<Shard, Standing> =
            [(conversation.shard(), standing), (Shard(200), standing)].into();
        let (mut fan_out, metrics) = (FanOut::default(), Metrics::new());
        fan_out.flush(WORKER, &link, &mut routes, &shards, &metrics, false).await;
        let told_all = routes.edge(EDGE).unwrap().told_all;
        tokio::time::advance(Duration::from_secs(1)).await;
        let event = LinkEvent {
            position: at(2),
            log_time: Timestamp::from_millis(1),
            conversation,
            previous: None,
            recipients: vec![account],
            payload: bytes::Bytes::new(),
            traceparent: None,
        };
        fan_out.events.insert(EDGE, vec![event]);
        fan_out.flush(WORKER, &link, &mut routes, &shards, &metrics, true).await;
        assert_eq!(routes.edge(EDGE).unwrap().told_all, told_all);
        fan_out.flush(WORKER, &link, &mut routes, &shards, &metrics, false).await;
        assert_eq!(routes.edge(EDGE).unwrap().told_all, tokio::time::Instant::now());
        let covered = |frame| match frame {
            Some(ToEdge::Batch { coverage, .. }) => coverage.len(),
            _ => 0,
        };
        assert_eq!(covered(frames.recv().await), 2);
        assert_eq!(covered(frames.recv().await), 1);
        assert_eq!(covered(frames.recv().await), 2);
    }

    #[tokio::test]
    async fn a_batch_that_an_edge_has_no_room_for_is_counted() {
        let link = EdgeLink::InProcess(InProcessLink::default());
        let _unread = link.listen_as_edge(EDGE).await.unwrap();
        for _ in 0..crate::edge_link::QUEUE_FRAMES {
            link.to_edge(EDGE, ToEdge::Collect { worker: WORKER }).await.unwrap();
        }
        let mut routes = Routes::default();
        routes.snapshot(EDGE, 1, vec![AccountId::new(uuid::Uuid::from_u128(1))], HashMap::new());
        let at = Position::new(Epoch::FIRST, 1).unwrap();
        let shards = [(Shard(9), Standing { generation: Generation(1), pushed: at, read: at })].into();
        let (mut fan_out, metrics) = (FanOut::default(), Metrics::new());
        fan_out.flush(WORKER, &link, &mut routes, &shards, &metrics, false).await;
        let counted = "reedi_frames_dropped_total{queue=\"edge_link\"} 1";
        assert!(metrics.encode().lines().any(|line| line == counted), "{}", metrics.encode());
    }
}
