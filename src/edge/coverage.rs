//! Coverage: what workers have proven to have served (rule P5). For every shard the edge knows up to
//! where it has been told everything; what does not join on is asked for again.

use crate::edge_link::{Coverage, EdgeId, Generation, LinkEvent, ToWorkers, WorkerId};
use reedi_protocol::{Checkpoint, Position, Shard};
use std::time::Duration;
use tokio::time::Instant;

/// A shard that was not heard of for this long makes the edge deaf: longer than a lease of a worker that
/// died, so that its successor is heard in time. A deaf edge is not ready and sends its
/// clients elsewhere.
pub const DEAF_AFTER: Duration = Duration::from_secs(15);
/// A repeat that was not answered for this long is asked for again.
const REPEAT_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
struct Covered {
    worker: WorkerId,
    generation: Generation,
    through: Position,
    /// The version of our routes that this coverage was made with.
    routes: u64,
    heard: Instant,
    repeat_asked: Option<Instant>,
}

/// All shards of one edge.
pub struct CoverageBook {
    edge: EdgeId,
    shards: Vec<Option<Covered>>,
    /// The highest version of our routes that all workers had applied. Sessions were let in by it: coverage made with
    /// an older one is not about all of them.
    let_in_by: u64,
}

/// What a batch came to.
#[derive(Default)]
pub struct Taken {
    /// To tell, in order.
    pub events: Vec<LinkEvent>,
    /// To ask the workers for.
    pub repeats: Vec<ToWorkers>,
    /// Ranges dropped because a newer owner spoke before.
    pub stale: u64,
}

impl CoverageBook {
    #[must_use]
    pub fn new(edge: EdgeId) -> Self {
        Self { edge, shards: vec![None; Shard::COUNT], let_in_by: 0 }
    }

    /// Takes a batch in: gives the events that are new and join on, and moves on past them.
    pub fn take(
        &mut self,
        worker: WorkerId,
        routes: u64,
        coverage: &[Coverage],
        events: Vec<LinkEvent>,
    ) -> Taken {
        let now = Instant::now();
        let mut taken = Taken::default();
        // Where each shard's new events begin; absent shards are not accepted.
        let mut accept: Vec<(Shard, Position, Position)> = Vec::with_capacity(coverage.len());
        for range in coverage {
            let slot = &mut self.shards[range.shard.index()];
            let known = slot.get_or_insert(Covered {
                worker,
                generation: range.generation,
                // A new edge has nobody who could have missed what was before.
                through: range.after,
                routes: 0,
                heard: now,
                repeat_asked: None,
            });
            if range.generation < known.generation {
                taken.stale += 1;
                continue;
            }
            if range.generation > known.generation {
                known.generation = range.generation;
                known.routes = 0;
            }
            known.worker = worker;
            known.heard = now;
            // Joins on, and is about everybody who is here.
            if range.after > known.through || routes < self.let_in_by && range.through > known.through {
                if known.repeat_asked.is_none_or(|asked| asked.elapsed() >= REPEAT_AGAIN) {
                    known.repeat_asked = Some(now);
                    let (edge, shard, after) = (self.edge, range.shard, known.through);
                    taken.repeats.push(ToWorkers::Repeat { edge, shard, after });
                }
                continue;
            }
            known.repeat_asked = None;
            known.routes = known.routes.max(routes);
            if range.through > known.through {
                accept.push((range.shard, known.through, range.through));
                known.through = range.through;
            }
        }
        accept.sort_unstable_by_key(|(shard, ..)| *shard);
        taken.events = events;
        taken.events.retain(|event| {
            let shard = event.conversation.shard();
            accept.binary_search_by_key(&shard, |(s, ..)| *s).is_ok_and(|i| {
                let (_, after, through) = accept[i];
                after < event.position && event.position <= through
            })
        });
        taken
    }

    /// The worker gave up on a gap: what lies in it is lost to this edge's connections, which must
    /// come back and resume. Gives whether that is news.
    pub fn skip(&mut self, shard: Shard, generation: Generation, through: Position) -> bool {
        match &mut self.shards[shard.index()] {
            Some(known) if generation >= known.generation && through > known.through => {
                known.generation = generation;
                known.through = through;
                known.repeat_asked = None;
                true
            }
            _ => false,
        }
    }

    /// Up to where every shard has been told.
    #[must_use]
    pub fn through(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        for (shard, covered) in Shard::all().zip(&self.shards) {
            checkpoint.set(shard, covered.map_or(Position::START, |c| c.through));
        }
        checkpoint
    }

    /// The same for one shard.
    #[must_use]
    pub fn through_of(&self, shard: Shard) -> Position {
        self.shards[shard.index()].map_or(Position::START, |covered| covered.through)
    }

    /// The same as a list of the shards that were heard of, for a worker that is new.
    #[must_use]
    pub fn through_list(&self) -> Vec<(Shard, Position)> {
        Shard::all().zip(&self.shards).filter_map(|(shard, c)| c.map(|c| (shard, c.through))).collect()
    }

    /// The version of the routes that all shards' workers have applied; `None` while a shard has none. Sessions are let
    /// in by it.
    pub fn routes_applied(&mut self) -> Option<u64> {
        let applied = self.shards.iter().map(|c| c.map(|c| c.routes)).min().flatten();
        self.let_in_by = self.let_in_by.max(applied.unwrap_or_default());
        applied
    }

    /// Shards that nobody has spoken for within [`DEAF_AFTER`].
    #[must_use]
    pub fn deaf_shards(&self) -> usize {
        let silent = |c: &&Option<Covered>| c.is_none_or(|c| c.heard.elapsed() > DEAF_AFTER);
        self.shards.iter().filter(silent).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use reedi_protocol::{ConversationKey, Epoch, Timestamp};

    const EDGE: EdgeId = EdgeId(1);
    const SHARD: Shard = Shard(9);

    fn at(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    fn event(sequence: u64) -> LinkEvent {
        LinkEvent {
            position: at(sequence),
            log_time: Timestamp::default(),
            conversation: ConversationKey::from_u64(9 << 56 | 1),
            previous: None,
            recipients: Vec::new(),
            payload: Bytes::new(),
            traceparent: None,
        }
    }

    fn batch(book: &mut CoverageBook, generation: u64, after: u64, through: u64, events: &[u64]) -> Taken {
        let range = Coverage {
            shard: SHARD,
            generation: Generation(generation),
            after: at(after),
            through: at(through),
        };
        book.take(WorkerId(generation), 1, &[range], events.iter().map(|n| event(*n)).collect())
    }

    fn told(taken: &Taken) -> Vec<u64> {
        taken.events.iter().map(|e| e.position.sequence()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_batch_is_noticed_and_asked_for() {
        let mut book = CoverageBook::new(EDGE);
        assert_eq!(told(&batch(&mut book, 1, 1, 3, &[2, 3])), [2, 3]);
        // (3, 5] is lost on the way.
        let taken = batch(&mut book, 1, 5, 7, &[6, 7]);
        assert!(told(&taken).is_empty());
        assert_eq!(taken.repeats, [ToWorkers::Repeat { edge: EDGE, shard: SHARD, after: at(3) }]);
        assert!(batch(&mut book, 1, 7, 8, &[8]).repeats.is_empty(), "asked once for a while");
        tokio::time::advance(REPEAT_AGAIN).await;
        assert_eq!(batch(&mut book, 1, 8, 8, &[]).repeats.len(), 1, "and again when unanswered");
        assert_eq!(told(&batch(&mut book, 1, 3, 8, &[4, 6, 7, 8])), [4, 6, 7, 8]);
        assert_eq!(
            told(&batch(&mut book, 1, 3, 9, &[8, 9])),
            [9],
            "a repeat that overlaps tells nothing twice"
        );
    }

    #[test]
    fn an_old_owner_that_wakes_is_not_believed() {
        let mut book = CoverageBook::new(EDGE);
        batch(&mut book, 2, 1, 3, &[2, 3]);
        let taken = batch(&mut book, 1, 3, 9, &[4]);
        assert!(told(&taken).is_empty());
        assert_eq!(taken.stale, 1);
        assert_eq!(told(&batch(&mut book, 2, 3, 4, &[4])), [4]);
    }

    #[test]
    fn a_new_owner_must_apply_the_routes_anew() {
        let mut book = CoverageBook::new(EDGE);
        for shard in Shard::all() {
            let range = Coverage { shard, generation: Generation(1), after: at(1), through: at(1) };
            book.take(WorkerId(1), 5, &[range], Vec::new());
        }
        assert_eq!(book.routes_applied(), Some(5));
        let range = Coverage { shard: SHARD, generation: Generation(2), after: at(1), through: at(1) };
        book.take(WorkerId(2), 3, &[range], Vec::new());
        assert_eq!(book.routes_applied(), Some(3));
    }

    /// The schedule: a session was let in, the shard moves to a worker that has not heard of it, and a message for
    /// that session comes.
    #[test]
    fn a_new_owner_that_does_not_know_who_is_here_covers_nothing() {
        let mut book = CoverageBook::new(EDGE);
        let range = |shard, generation, after, through| Coverage {
            shard,
            generation: Generation(generation),
            after: at(after),
            through: at(through),
        };
        for shard in Shard::all() {
            book.take(WorkerId(1), 5, &[range(shard, 1, 1, 1)], Vec::new());
        }
        assert_eq!(book.routes_applied(), Some(5), "somebody who came with version 5 is let in");
        let taken = book.take(WorkerId(2), 4, &[range(SHARD, 2, 1, 2)], Vec::new());
        assert_eq!(book.through_of(SHARD), at(1), "not all who are here were told");
        assert!(
            matches!(taken.repeats[..], [ToWorkers::Repeat { shard: SHARD, after, .. }] if after == at(1))
        );
        let taken = book.take(WorkerId(2), 5, &[range(SHARD, 2, 1, 2)], vec![event(2)]);
        assert_eq!((told(&taken), book.through_of(SHARD)), (vec![2], at(2)));
    }
}
