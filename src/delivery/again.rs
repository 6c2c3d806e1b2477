//! Again: what one edge missed, read from the log once for all shards that it lacks (rule P5).

use super::own_shards::Standing;
use crate::edge_link::{Coverage, LinkEvent};
use crate::log::{RawRecord, ShardSet};
use reedi_protocol::{Position, Shard};
use std::collections::BTreeMap;

/// What is repeated at once, in events and bytes. An edge that missed more gets it in several parts,
/// since it asks again for what lies behind the part that it got.
const EVENTS_MOST: usize = 5_000;
const BYTES_MOST: usize = 8 * 1024 * 1024;

/// From where to where a shard is served again.
#[derive(Clone, Copy)]
struct Span {
    after: Position,
    standing: Standing,
}

/// One reading for one edge.
pub struct Again {
    spans: BTreeMap<Shard, Span>,
    /// Everything that is wanted up to here has been read.
    reached: Position,
    events: Vec<LinkEvent>,
    bytes: usize,
}

impl Again {
    /// Shards with where the edge stands, and where the worker does.
    pub fn new(wanted: impl Iterator<Item = (Shard, Position, Standing)>) -> Self {
        let spans = wanted.map(|(shard, after, standing)| (shard, Span { after, standing })).collect();
        Self { spans, reached: Position::START, events: Vec::new(), bytes: 0 }
    }

    fn open(&self) -> impl Iterator<Item = (&Shard, &Span)> {
        self.spans.iter().filter(|(_, span)| span.standing.pushed > span.after.max(self.reached))
    }

    /// Where to read from; `None` where nothing is missing.
    pub fn from(&self) -> Option<Position> {
        self.open().map(|(_, span)| span.after).min()
    }

    /// What to read of.
    pub fn shards(&self) -> ShardSet {
        self.open().map(|(shard, _)| *shard).collect()
    }

    /// Whether a record lies in what is missing.
    pub fn wants(&self, raw: &RawRecord) -> bool {
        let span = self.spans.get(&raw.conversation.shard());
        span.is_some_and(|span| span.after < raw.position && raw.position <= span.standing.pushed)
    }

    /// Everything up to `position` was read; the record there came to `event` for this edge. Records of
    /// all shards come in the order of their positions, so each of them has got so far.
    pub fn take(&mut self, position: Position, event: Option<LinkEvent>) {
        self.reached = self.reached.max(position);
        self.bytes += event.as_ref().map_or(0, |event| event.payload.len());
        self.events.extend(event);
    }

    /// Whether all is there, or as much as goes out at once.
    pub fn is_enough(&self) -> bool {
        self.events.len() >= EVENTS_MOST || self.bytes >= BYTES_MOST || self.open().next().is_none()
    }

    fn through(&self, span: &Span) -> Position {
        span.standing.pushed.min(span.after.max(self.reached))
    }

    /// What the events prove, of the shards for which that is anything.
    pub fn coverage(&self) -> Vec<Coverage> {
        let served = self.served().into_iter();
        served
            .filter_map(|(shard, standing)| {
                let span = self.spans.get(&shard)?;
                let through = self.through(span);
                let after = span.after.min(through);
                Some(Coverage { shard, generation: standing.generation, after, through })
            })
            .collect()
    }

    /// Shards that were served, wholly or up to somewhere; one that lacked nothing is served.
    pub fn served(&self) -> Vec<(Shard, Standing)> {
        self.parted(|span| span.standing.pushed <= span.after || self.reached > span.after)
    }

    /// Shards of which nothing could be read.
    pub fn unserved(&self) -> Vec<(Shard, Standing)> {
        self.parted(|span| span.standing.pushed > span.after && self.reached <= span.after)
    }

    fn parted(&self, is_so: impl Fn(&Span) -> bool) -> Vec<(Shard, Standing)> {
        let spans = self.spans.iter().filter(|(_, span)| is_so(span));
        spans.map(|(shard, span)| (*shard, span.standing)).collect()
    }

    pub fn into_events(self) -> Vec<LinkEvent> {
        self.events
    }
}
