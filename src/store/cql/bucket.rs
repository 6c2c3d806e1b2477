//! Where in a conversation something is stored. Its messages, events and reactions lie in buckets of
//! time, so that no partition grows without end; `buckets` lists those that exist.
//!
//! A message's bucket follows from the time at which the log took it. What refers to a message by its
//! position only has to find it: in the bucket with the greatest first position up to it, or, because
//! the log's clock may step back a little when its leader changes, in the one before.

use super::cell::{Cell, position};
use super::query::Query;
use super::{CqlStore, StoreResult};
use crate::store::{Order, Range};
use quick_cache::sync::Cache;
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{ConversationKey, Position, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// A quarter of a year, in whole weeks.
const QUARTER_MS: u64 = 13 * WEEK_MS;
/// The bucket of changes that were stored before their message, which happens only when someone
/// applies writes out of the log's order.
pub(super) const UNPLACED: i32 = -1;

/// How far, in positions, the log's clock may be behind itself: 60 s (rule P4 allows servers 25 s
/// apart) at 17,000 events a second, the most that a stream was measured to take.
const INVERSION: u64 = 1 << 20;
/// Our clock may be this much behind the log's.
const CLOCK_SLACK_MS: u64 = 60_000;
/// A list of buckets is read again after this, in case a clock stepped back across a boundary where no
/// bucket was yet.
const LIST_LIVES: Duration = Duration::from_secs(600);

/// Conversations whose buckets are remembered; about 150 bytes each.
const LISTS_MOST: usize = 100_000;
/// Messages whose place is remembered, for what refers to them; about 70 bytes each.
const PLACES_MOST: usize = 200_000;

/// The bucket that the log time `at` falls into. The lowest bit tells the two lengths apart, so that a
/// bucket says by itself which time it stands for.
pub(super) fn bucket_at(kind: ConversationType, at: Timestamp) -> i32 {
    let (length_ms, bit) = match kind {
        ConversationType::Group => (WEEK_MS, 1),
        ConversationType::Direct | ConversationType::Account => (QUARTER_MS, 0),
    };
    // The year 9999 is week 419,000.
    i32::try_from((at.as_millis() / length_ms) * 2 + bit).unwrap_or(i32::MAX)
}

/// A bucket and the first position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) number: i32,
    pub(super) first: Position,
}

/// The buckets of a conversation, as read from the store.
#[derive(Clone, Debug)]
pub(super) struct BucketList {
    /// Oldest first.
    pub(super) buckets: Vec<Bucket>,
    pub(super) unplaced: bool,
    read_at: Instant,
}

impl BucketList {
    fn new(mut rows: Vec<(i32, Position)>) -> Self {
        let unplaced = rows.iter().any(|(number, _)| *number == UNPLACED);
        rows.retain(|(number, _)| *number != UNPLACED);
        rows.sort_unstable();
        let buckets = rows.into_iter().map(|(number, first)| Bucket { number, first }).collect();
        Self { buckets, unplaced, read_at: Instant::now() }
    }

    /// Whether the list still says everything about positions below `before`. The writer stores a
    /// conversation in its order, so that a bucket that is listed has all older ones listed with it: only
    /// buckets after the last may be missing, and none can be once the last is that of now.
    fn serves(&self, before: Position, now: Timestamp) -> bool {
        let Some(last) = self.buckets.last() else { return false };
        let kind = if last.number & 1 == 1 { ConversationType::Group } else { ConversationType::Direct };
        let current = bucket_at(kind, now.plus_millis(CLOCK_SLACK_MS));
        self.read_at.elapsed() < LIST_LIVES && (last.number >= current || before <= last.first)
    }

    /// The buckets that may hold positions within `range`, in the order to read them.
    pub(super) fn within(&self, range: Range, order: Order) -> Vec<Bucket> {
        let began = |bucket: &&Bucket| bucket.first <= range.after;
        // What comes before the last bucket that begins in time can only hold stragglers.
        let lowest = self.buckets.iter().filter(began).map(|bucket| bucket.first).max();
        let reach = lowest.map(|first| range.after.as_u64() - first.as_u64() < INVERSION);
        let before = self.buckets.iter().rposition(|bucket| Some(bucket.first) == lowest).unwrap_or(0);
        let from = if reach == Some(true) { before.saturating_sub(1) } else { before };
        let mut found: Vec<Bucket> =
            self.buckets.iter().skip(from).filter(|bucket| bucket.first < range.before).copied().collect();
        if order == Order::NewestFirst {
            found.reverse();
        }
        found
    }

    /// Where to look for the message at `target`: in that order.
    pub(super) fn candidates(&self, target: Position) -> Vec<i32> {
        let mut buckets: Vec<Bucket> = self.buckets.iter().filter(|b| b.first <= target).copied().collect();
        buckets.sort_unstable_by_key(|bucket| std::cmp::Reverse(bucket.first));
        buckets.into_iter().take(2).map(|bucket| bucket.number).collect()
    }
}

/// Whether a page is complete with its `furthest` entry while `unread` buckets are left, of which `last`
/// was read last.
pub(super) fn page_ends(order: Order, furthest: Position, last: Bucket, unread: &[Bucket]) -> bool {
    match order {
        Order::NewestFirst => furthest.as_u64() >= last.first.as_u64() + INVERSION,
        Order::OldestFirst => unread.iter().all(|bucket| furthest < bucket.first),
    }
}

/// Where a message stands, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessagePlace {
    pub(super) bucket: i32,
    pub(super) ends: Option<Timestamp>,
}

/// What is remembered about buckets; bounded, and only ever a shortcut.
pub(super) struct BucketCache {
    lists: Cache<ConversationKey, Arc<BucketList>>,
    /// The first position with which this process has stored a bucket.
    stored: Cache<(ConversationKey, i32), Position>,
    places: Cache<(ConversationKey, Position), MessagePlace>,
}

impl BucketCache {
    pub(super) fn new() -> Self {
        Self {
            lists: Cache::new(LISTS_MOST),
            stored: Cache::new(LISTS_MOST),
            places: Cache::new(PLACES_MOST),
        }
    }

    /// Whether the store has this bucket beginning at `first` or before.
    pub(super) fn is_stored(&self, conversation: ConversationKey, bucket: i32, first: Position) -> bool {
        self.stored.get(&(conversation, bucket)).is_some_and(|known| known <= first)
    }

    /// Only after the store has acknowledged it.
    pub(super) fn note_stored(&self, conversation: ConversationKey, bucket: i32, first: Position) {
        self.stored.insert((conversation, bucket), first);
        let stale = |list: &Arc<BucketList>| match bucket {
            UNPLACED => !list.unplaced,
            _ => !list.buckets.iter().any(|known| known.number == bucket && known.first <= first),
        };
        if self.lists.get(&conversation).is_some_and(|list| stale(&list)) {
            self.lists.remove(&conversation);
        }
    }

    pub(super) fn place(&self, conversation: ConversationKey, target: Position) -> Option<MessagePlace> {
        self.places.get(&(conversation, target))
    }

    pub(super) fn note_place(&self, conversation: ConversationKey, target: Position, place: MessagePlace) {
        self.places.insert((conversation, target), place);
    }
}

impl CqlStore {
    /// The buckets as they stand, complete for positions below `before`.
    pub(super) async fn bucket_list(
        &self,
        conversation: ConversationKey,
        before: Position,
    ) -> StoreResult<Arc<BucketList>> {
        match self.buckets().lists.get(&conversation) {
            Some(list) if list.serves(before, self.now()) => Ok(list),
            _ => self.read_bucket_list(conversation).await,
        }
    }

    /// The buckets as remembered, however old the memory is.
    pub(super) async fn remembered_bucket_list(
        &self,
        conversation: ConversationKey,
    ) -> StoreResult<(Arc<BucketList>, bool)> {
        match self.buckets().lists.get(&conversation) {
            Some(list) => Ok((list, true)),
            None => Ok((self.read_bucket_list(conversation).await?, false)),
        }
    }

    pub(super) async fn read_bucket_list(
        &self,
        conversation: ConversationKey,
    ) -> StoreResult<Arc<BucketList>> {
        let read_at = Instant::now();
        let mut rows = Vec::new();
        for (number, first) in self.rows::<(i32, i64)>(Query::Buckets, (Cell::from(conversation),)).await? {
            rows.push((number, position(first)?));
        }
        let list = Arc::new(BucketList { read_at, ..BucketList::new(rows) });
        self.buckets().lists.insert(conversation, Arc::clone(&list));
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::Epoch;

    fn place(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    fn list(rows: &[(i32, u64)]) -> BucketList {
        BucketList::new(rows.iter().map(|(number, first)| (*number, place(*first))).collect())
    }

    fn numbers(buckets: &[Bucket]) -> Vec<i32> {
        buckets.iter().map(|bucket| bucket.number).collect()
    }

    const FAR: u64 = 10 * INVERSION;

    #[test]
    fn a_bucket_says_which_length_it_has() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        assert_eq!(bucket_at(ConversationType::Group, at), 2976 * 2 + 1);
        assert_eq!(bucket_at(ConversationType::Direct, at), 228 * 2);
        assert_eq!(bucket_at(ConversationType::Group, at.plus_millis(WEEK_MS)), 2977 * 2 + 1);
    }

    #[test]
    fn only_buckets_that_may_hold_the_range_are_read() {
        let list = list(&[(2, 10), (4, FAR), (6, 2 * FAR)]);
        let all = Range::after(Position::START);
        assert_eq!(numbers(&list.within(all, Order::OldestFirst)), [2, 4, 6]);
        assert_eq!(numbers(&list.within(all, Order::NewestFirst)), [6, 4, 2]);
        let later = Range::after(place(FAR + INVERSION));
        assert_eq!(numbers(&list.within(later, Order::OldestFirst)), [4, 6]);
        let near = Range::after(place(FAR + 1));
        assert_eq!(
            numbers(&list.within(near, Order::OldestFirst)),
            [2, 4, 6],
            "stragglers of the one before"
        );
        let early = Range::before(place(FAR));
        assert_eq!(numbers(&list.within(early, Order::NewestFirst)), [2]);
    }

    #[test]
    fn a_page_ends_where_no_other_bucket_can_add_to_it() {
        let (low, high) = (Bucket { number: 2, first: place(10) }, Bucket { number: 4, first: place(FAR) });
        assert!(page_ends(Order::NewestFirst, place(FAR + INVERSION), high, &[low]));
        assert!(!page_ends(Order::NewestFirst, place(FAR + 1), high, &[low]));
        assert!(page_ends(Order::OldestFirst, place(FAR - 1), low, &[high]));
        assert!(!page_ends(Order::OldestFirst, place(FAR), low, &[high]));
    }

    #[test]
    fn a_message_is_looked_for_in_two_buckets() {
        let list = list(&[(UNPLACED, 1), (2, 10), (4, 20), (6, 30)]);
        assert!(list.unplaced);
        assert_eq!(list.candidates(place(25)), [4, 2]);
        assert_eq!(list.candidates(place(35)), [6, 4]);
        assert_eq!(list.candidates(place(9)), Vec::<i32>::new());
    }

    #[test]
    fn a_list_is_asked_for_again_when_later_buckets_may_be() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let last = bucket_at(ConversationType::Group, now.plus_millis(CLOCK_SLACK_MS));
        let current = list(&[(last - 2, 10), (last, 20)]);
        assert!(current.serves(Range::END, now));
        let idle = list(&[(last - 4, 10), (last - 2, 20)]);
        assert!(!idle.serves(Range::END, now));
        assert!(idle.serves(place(20), now), "older pages need no later bucket");
        assert!(!list(&[]).serves(place(20), now));
    }
}
