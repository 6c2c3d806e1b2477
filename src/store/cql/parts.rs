//! Reading past what has ended. Of what a TTL ended the servers keep a tombstone until long after, and Cassandra refuses
//! a read that meets 100,000 of them (`tombstone_failure_threshold`). What is refused is read in parts: positions are
//! given once, so that a part of few positions holds few rows (ADR 0042).

use super::CqlStore;
use super::bucket::Bucket;
use crate::store::{Order, Range, StoreError, StoreResult, Watermarks};
use reedi_protocol::position::SEQUENCE_BITS;
use reedi_protocol::{ConversationKey, Position};

/// Positions of a part that is not cut any more: even with four cells each they are a tenth of what is refused.
const NARROWEST: u64 = 2_048;
/// Refusals that one read of a bucket goes on after. Each costs the servers a look at 100,000 tombstones, about a tenth of
/// a second: with evenly spread rows this many stand for millions.
const REFUSALS_MOST: usize = 48;

/// Right before the first event that there can be.
const BEFORE_ALL: u64 = 1 << SEQUENCE_BITS;

/// Where there is most likely more on one side than on the other, so that it is cut there first: what a bucket begins
/// with, and how far its shard is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edges([Position; 2]);

/// Parts of `range` that are read one after the other, in `order`: within its edges, else in the middle. `None` where it is
/// too narrow.
fn cut(range: Range, edges: Edges) -> Option<(Range, Range)> {
    // What lies between the start and the first epoch are no places.
    let (after, before) = (range.after.as_u64().max(BEFORE_ALL), range.before.as_u64());
    let width = before.saturating_sub(after);
    if width <= NARROWEST {
        return None;
    }
    let inside = |place: &u64| after < *place && *place + 1 < before;
    let edge = edges.0.iter().map(|edge| edge.as_u64()).find(inside);
    let place = edge.unwrap_or(after + width / 2);
    let older = Range { after: range.after, before: Position::from_u64(place + 1)? };
    let newer = Range { after: Position::from_u64(place)?, before: range.before };
    Some((older, newer))
}

impl CqlStore {
    async fn edges(&self, conversation: ConversationKey, bucket: Bucket) -> StoreResult<Edges> {
        let shard = conversation.shard();
        let stored = self.watermarks().await?.into_iter().find(|(of, _)| *of == shard);
        let begins = Position::from_u64(bucket.first.as_u64().saturating_sub(1)).unwrap_or_default();
        Ok(Edges([stored.map_or(begins, |(_, position)| position), begins]))
    }

    /// At most `limit` of what `read` finds within `range` of a bucket, in `order`. `read` is given a range and how many
    /// more are wanted.
    pub(super) async fn in_parts<T, A>(
        &self,
        (conversation, bucket): (ConversationKey, Bucket),
        (range, order): (Range, Order),
        limit: usize,
        read: impl Fn(Range, usize) -> A,
    ) -> StoreResult<Vec<T>>
    where
        A: Future<Output = StoreResult<Vec<T>>>,
    {
        let (mut found, mut unread) = (Vec::new(), vec![range]);
        let (mut edges, mut refusals) = (None, 0);
        while found.len() < limit
            && let Some(part) = unread.pop()
        {
            let refused = match read(part, limit - found.len()).await {
                Ok(more) => {
                    found.extend(more);
                    continue;
                }
                Err(StoreError::GaveUp(why)) => why,
                Err(other) => return Err(other),
            };
            refusals += 1;
            let edges = match edges {
                Some(edges) => edges,
                None => *edges.insert(self.edges(conversation, bucket).await?),
            };
            let Some((older, newer)) = cut(part, edges).filter(|_| refusals <= REFUSALS_MOST) else {
                return Err(StoreError::GaveUp(refused));
            };
            unread.extend(match order {
                Order::NewestFirst => [older, newer],
                Order::OldestFirst => [newer, older],
            });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::Epoch;

    fn place(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    fn range(after: u64, before: u64) -> Range {
        Range { after: place(after), before: place(before) }
    }

    #[test]
    fn parts_are_all_of_a_range_and_do_not_overlap() {
        let edges = Edges([place(900_000), place(9)]);
        let (older, newer) = cut(range(1, 1_000_000), edges).unwrap();
        assert_eq!((older, newer), (range(1, 900_001), range(900_000, 1_000_000)));
        let (older, newer) = cut(older, edges).unwrap();
        assert_eq!((older, newer), (range(1, 10), range(9, 900_001)));
        let (older, newer) = cut(newer, edges).unwrap();
        assert_eq!((older, newer), (range(9, 450_006), range(450_005, 900_001)));
        assert_eq!(cut(range(9, 9 + NARROWEST), edges), None);
        assert_eq!(cut(range(9, 3), edges), None);
    }

    #[test]
    fn everything_there_is_comes_down_to_what_is_not_cut_any_more() {
        let mut part = Range::after(Position::START);
        let mut cuts = 0;
        while let Some((older, newer)) = cut(part, Edges([Position::START; 2])) {
            part = if newer.after.as_u64() > place(5_000_000).as_u64() { older } else { newer };
            cuts += 1;
        }
        assert!(part.before.as_u64() - part.after.as_u64() <= NARROWEST, "{part:?}");
        assert!(cuts <= REFUSALS_MOST, "{cuts}");
    }
}
