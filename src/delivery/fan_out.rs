//! Fan out: each record once to every edge that holds a recipient, with what proves that nothing is
//! missing.

use super::own_shards::Standing;
use super::routes::{EdgeRoutes, Routes};
use crate::domain::record::Entry;
use crate::edge_link::{Coverage, EdgeId, EdgeLink, EdgeLinkPort, LinkError, LinkEvent, ToEdge, WorkerId};
use crate::log::RawRecord;
use crate::runtime::metrics::Metrics;
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
        traceparent: raw.traceparent.clone(),
    }
}

impl FanOut {
    /// Adds a record for those edges that hold a recipient.
    pub fn add(&mut self, routes: &Routes, raw: &RawRecord, entry: &Entry, recipients: &[AccountId]) {
        let previous = self.previous_of(entry);
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
                known.all_told = tokio::time::Instant::now();
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
