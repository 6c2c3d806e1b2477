//! What every log must do, as checks that each adapter's test calls. They use conversations of their
//! own, so that they can run against a log in use; only [`trims`] takes records away from others.
//!
//! A check panics with what it found; there is nothing to return.

use super::{Append, AppendError, Appended, Lane, LogPort, LogReader, RawRecord, ReadError, ShardSet, Slice};
use crate::domain::send_key::DuplicateKey;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use reedi_protocol::{ConversationKey, Position, Shard, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// Nothing that is waited for may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many appends are under way at once in [`loses_and_doubles_nothing`].
const CONCURRENT: usize = 2_000;

/// Every check, one after the other.
///
/// # Panics
/// As every check: where the log does not keep its contract.
pub async fn all<L: LogPort>(log: &L) {
    orders(log).await;
    reads_from_anywhere(log).await;
    reads_only_the_shards_asked_for(log).await;
    knows_when_there_is_no_more(log).await;
    loses_and_doubles_nothing(log).await;
    knows_duplicates(log).await;
    control_lane_has_one_winner(log).await;
    gives_back_what_it_took(log).await;
    erases(log).await;
    loses_nothing_to_a_cancelled_wait(log).await;
    tells_the_time(log).await;
    trims(log).await;
}

/// A conversation that nobody else uses.
#[must_use]
pub fn fresh() -> ConversationKey {
    ConversationKey::from_u64(rand::random())
}

fn fresh_in(shard: Shard) -> ConversationKey {
    ConversationKey::from_u64((u64::from(shard.0) << 56) | (rand::random::<u64>() >> 8))
}

/// An event without condition or key.
#[must_use]
pub fn event(conversation: ConversationKey, payload: impl Into<Bytes>) -> Append {
    let payload = payload.into();
    Append { conversation, lane: Lane::Event, duplicate_key: None, payload, traceparent: None }
}

fn control(conversation: ConversationKey, expected: Position) -> Append {
    Append { lane: Lane::Control { expected }, ..event(conversation, "control") }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}

fn slice_of<L: LogPort>(log: &L, shard: Shard) -> Slice {
    log.slices().into_iter().find(|slice| slice.holds(shard)).expect("every shard is in a slice")
}

/// Appends, and says where.
///
/// # Panics
/// If the log does not take it as new.
pub async fn append_new<L: LogPort>(log: &L, append: Append) -> Position {
    match soon("an append", log.append(append)).await {
        Ok(Appended::New(position)) => position,
        other => panic!("an append came to {other:?}"),
    }
}

async fn last<L: LogPort>(log: &L, slice: Slice) -> Position {
    soon("the state", log.state(slice)).await.expect("the state").last
}

/// Reads the records of `conversations` after `after`, up to and including the one at `until`.
///
/// # Panics
/// If the log fails, or gives positions that do not increase.
pub async fn read_until<L: LogPort>(
    log: &L,
    shards: ShardSet,
    after: Position,
    until: (ConversationKey, Position),
    conversations: &[ConversationKey],
) -> Vec<RawRecord> {
    let slice = slice_of(log, until.0.shard());
    let mut reader = soon("a reader", log.read(slice, shards, after)).await.expect("a reader");
    let (mut found, mut before) = (Vec::new(), after);
    loop {
        for record in soon("the next records", reader.next(100)).await.expect("records") {
            assert!(record.position > before, "{} came after {before}", record.position);
            assert!(shards.contains(record.conversation.shard()), "a shard nobody asked for");
            before = record.position;
            let is_last = record.position == until.1;
            if conversations.contains(&record.conversation) {
                found.push(record);
            }
            if is_last {
                return found;
            }
        }
        assert!(before < until.1, "{} was passed over", until.1);
    }
}

/// What is appended one after the other is read in that order, at growing positions.
pub async fn orders<L: LogPort>(log: &L) {
    let conversation = fresh();
    let slice = slice_of(log, conversation.shard());
    let after = last(log, slice).await;
    let mut positions = Vec::new();
    for number in 0..20_u8 {
        positions.push(append_new(log, event(conversation, vec![number])).await);
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "positions do not grow: {positions:?}");
    assert!(positions[0] > after, "a new record stands before the newest one");
    let until = (conversation, positions[19]);
    let records = read_until(log, slice.shards(), after, until, &[conversation]).await;
    let payloads: Vec<u8> = records.iter().map(|record| record.payload[0]).collect();
    assert_eq!(payloads, (0..20).collect::<Vec<u8>>());
    assert_eq!(records.iter().map(|record| record.position).collect::<Vec<_>>(), positions);
    assert!(records.is_sorted_by_key(|record| record.log_time), "the log's time ran backwards");
    assert!(last(log, slice).await >= positions[19], "the state forgot the newest record");
}

/// A reader begins right after any position, as often as one likes.
pub async fn reads_from_anywhere<L: LogPort>(log: &L) {
    let conversation = fresh();
    let shards = slice_of(log, conversation.shard()).shards();
    let mut positions = Vec::new();
    for number in 0..10_u8 {
        positions.push(append_new(log, event(conversation, vec![number])).await);
    }
    let until = (conversation, positions[9]);
    for begin in 0..9 {
        let records = read_until(log, shards, positions[begin], until, &[conversation]).await;
        let found: Vec<Position> = records.iter().map(|record| record.position).collect();
        assert_eq!(found, positions[begin + 1..], "read from {begin}");
    }
    // At the end there is nothing, until there is something.
    let slice = slice_of(log, conversation.shard());
    let reader =
        soon("a reader", log.read(slice, [conversation.shard()].into_iter().collect(), positions[9])).await;
    let mut reader = reader.expect("a reader at the end");
    let next = append_new(log, event(conversation, "later")).await;
    let records = soon("a later record", reader.next(10)).await.expect("a later record");
    let own = records.iter().find(|record| record.conversation == conversation);
    assert_eq!(own.map(|record| record.position), Some(next));
}

/// A reader gets the shards that it asked for, and no others.
pub async fn reads_only_the_shards_asked_for<L: LogPort>(log: &L) {
    let slice = log.slices().into_iter().next().expect("a slice");
    let shards: Vec<Shard> = slice.shards().iter().collect();
    let after = last(log, slice).await;
    let conversations: Vec<ConversationKey> = shards.iter().map(|shard| fresh_in(*shard)).collect();
    for conversation in &conversations {
        append_new(log, event(*conversation, "x")).await;
    }
    let wanted: ShardSet = shards.iter().copied().filter(|shard| shard.0 % 2 == 1).collect();
    let end = conversations.iter().rev().find(|one| wanted.contains(one.shard())).expect("a wanted one");
    let end = (*end, append_new(log, event(*end, "end")).await);
    let records = read_until(log, wanted, after, end, &conversations).await;
    assert_eq!(records.len(), wanted.len() + 1, "each wanted shard's record, and the end");
}

/// A reader is drained once it has all of its own shards, whatever there is of others behind that; and is
/// not while one of its own is left.
pub async fn knows_when_there_is_no_more<L: LogPort>(log: &L) {
    /// More than any reader looks at in one step.
    const OTHERS: usize = 3_000;
    let own = fresh();
    let slice = slice_of(log, own.shard());
    let other = slice.shards().iter().find(|shard| *shard != own.shard()).expect("another shard");
    let others = || stream::iter(0..OTHERS).map(|_| append_new(log, event(fresh_in(other), "x")));
    let before = last(log, slice).await;
    let first = append_new(log, event(own, "first")).await;
    let second = append_new(log, event(own, "second")).await;
    others().buffer_unordered(CONCURRENT).for_each(|_| std::future::ready(())).await;

    let shards: ShardSet = [own.shard()].into_iter().collect();
    let mut reader = soon("a reader", log.read(slice, shards, before)).await.expect("a reader");
    let mut read = before;
    while !reader.is_drained() {
        read = soon("one record", reader.next(1)).await.expect("one record")[0].position;
    }
    assert!(first < second && second <= read, "drained at {read}, with {second} left");
    let mut reader = soon("a reader", log.read(slice, shards, second)).await.expect("a reader");
    while !reader.is_drained() {
        soon("what others wrote to that shard", reader.next(100)).await.expect("records");
    }
}

/// Many appends at once: each gets a place of its own, and all are read, none twice.
pub async fn loses_and_doubles_nothing<L: LogPort>(log: &L) {
    let slice = log.slices().into_iter().next().expect("a slice");
    let shards: Vec<Shard> = slice.shards().iter().collect();
    let after = last(log, slice).await;
    let conversations: Vec<ConversationKey> = (0..50).map(|n| fresh_in(shards[n % shards.len()])).collect();
    let appends = (0..CONCURRENT).map(|number| {
        let conversation = conversations[number % conversations.len()];
        append_new(log, event(conversation, number.to_be_bytes().to_vec()))
    });
    let positions: Vec<Position> = join_all(appends).await;
    let distinct: BTreeSet<Position> = positions.iter().copied().collect();
    assert_eq!(distinct.len(), CONCURRENT, "two records share a place");
    let end = (conversations[0], append_new(log, event(conversations[0], "end")).await);
    let mut records = read_until(log, slice.shards(), after, end, &conversations).await;
    records.pop();
    assert_eq!(records.len(), CONCURRENT, "some were lost or doubled");
    for record in records {
        let number: [u8; 8] = record.payload[..].try_into().expect("a number");
        assert_eq!(positions[usize::from_be_bytes(number)], record.position, "a record changed its place");
    }
}

/// The same key gets the place of its first append, whatever else differs.
pub async fn knows_duplicates<L: LogPort>(log: &L) {
    let conversation = fresh();
    let key = || Some(DuplicateKey(rand::random()));
    let first = Append { duplicate_key: key(), ..event(conversation, "first") };
    let again = Append { payload: "second".into(), ..first.clone() };
    let position = append_new(log, first).await;
    assert_eq!(soon("a repeat", log.append(again)).await, Ok(Appended::Duplicate(position)));
    let stored = soon("get", log.get(conversation.shard(), position)).await.expect("get").expect("a record");
    assert_eq!(stored.payload, "first", "the repeat changed what stands");

    // At once: one is new, the others are told its place or to ask again.
    let same = Append { duplicate_key: key(), ..event(conversation, "at once") };
    let answers = join_all((0..8).map(|_| log.append(same.clone()))).await;
    let new: Vec<Position> = answers
        .iter()
        .filter_map(|answer| if let Ok(Appended::New(p)) = answer { Some(*p) } else { None })
        .collect();
    assert_eq!(new.len(), 1, "one key, so one record: {answers:?}");
    for answer in answers {
        let is_right = match &answer {
            Ok(Appended::New(position) | Appended::Duplicate(position)) => *position == new[0],
            Err(error) => *error == AppendError::InFlight,
        };
        assert!(is_right, "a repeat at once came to {answer:?}");
    }
    let later = soon("a repeat", log.append(same)).await;
    assert_eq!(later, Ok(Appended::Duplicate(new[0])));
    let other = Append { duplicate_key: key(), ..event(conversation, "at once") };
    assert!(append_new(log, other).await > new[0], "another key is another record");
}

/// A control event is taken only after the control event that it was judged by.
pub async fn control_lane_has_one_winner<L: LogPort>(log: &L) {
    let conversation = fresh();
    let append = |expected| soon("a control append", log.append(control(conversation, expected)));
    let moved = |to| Err(AppendError::ControlMoved(Some(to)));
    let elsewhere = append_new(log, event(fresh(), "elsewhere")).await;
    assert_eq!(append(elsewhere).await, moved(Position::START), "expected one, and there is none");
    let first = append_new(log, control(conversation, Position::START)).await;
    assert_eq!(append(Position::START).await, moved(first));
    append_new(log, event(conversation, "an event does not move the lane")).await;
    let second = append_new(log, control(conversation, first)).await;
    assert_eq!(append(first).await, moved(second), "stale");
    assert_eq!(append(Position::START).await, moved(second));
    append_new(log, control(fresh_in(conversation.shard()), Position::START)).await;

    let mut expected = second;
    for round in 0..10 {
        let (a, b) = tokio::join!(append(expected), append(expected));
        let won = match (&a, &b) {
            (Ok(Appended::New(won)), Err(AppendError::ControlMoved(told)))
            | (Err(AppendError::ControlMoved(told)), Ok(Appended::New(won))) => {
                assert!(told.is_none_or(|told| told == *won || told == expected), "told {told:?}, won {won}");
                *won
            }
            _ => panic!("round {round}: not one winner: {a:?}, {b:?}"),
        };
        expected = won;
    }
    let record = soon("get", log.get(conversation.shard(), expected)).await.expect("get").expect("a record");
    assert!(record.is_control, "a control event is told from others");
}

/// All of an append comes back, by reading and by `get`, however large.
pub async fn gives_back_what_it_took<L: LogPort>(log: &L) {
    let conversation = fresh();
    let slice = slice_of(log, conversation.shard());
    let after = last(log, slice).await;
    let large: Vec<u8> = (0..100 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let traceparent =
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().expect("a traceparent");
    let appends = [
        Append { traceparent: Some(traceparent), ..event(conversation, large) },
        event(conversation, "without a trace"),
        event(conversation, vec![0, 255, 13, 10]),
    ];
    let mut places = Vec::new();
    for append in &appends {
        places.push(append_new(log, append.clone()).await);
    }
    let records = read_until(log, slice.shards(), after, (conversation, places[2]), &[conversation]).await;
    assert_eq!(records.len(), appends.len());
    for ((record, append), position) in records.iter().zip(&appends).zip(&places) {
        assert_eq!(record.position, *position);
        assert_eq!(record.payload, append.payload);
        assert_eq!(record.traceparent, append.traceparent);
        assert!(!record.is_control);
        let got = soon("get", log.get(conversation.shard(), *position)).await.expect("get");
        assert_eq!(got.as_ref(), Some(record), "read and got differ");
    }
    let beyond = Position::from_u64(places[2].as_u64() + 1_000_000).expect("a position");
    assert_eq!(soon("get", log.get(conversation.shard(), beyond)).await, Ok(None));
}

/// An erased record is gone for `get` and for readers; all else stays where it was.
pub async fn erases<L: LogPort>(log: &L) {
    let conversation = fresh();
    let slice = slice_of(log, conversation.shard());
    let control_at = append_new(log, control(conversation, Position::START)).await;
    let before = append_new(log, event(conversation, "before")).await;
    let secret = append_new(log, event(conversation, "secret")).await;
    let after = append_new(log, event(conversation, "after")).await;
    soon("erase", log.erase(conversation.shard(), secret)).await.expect("erase");
    soon("erase again", log.erase(conversation.shard(), secret)).await.expect("erasing is repeatable");
    assert_eq!(soon("get", log.get(conversation.shard(), secret)).await, Ok(None));
    let records = read_until(log, slice.shards(), before, (conversation, after), &[conversation]).await;
    assert_eq!(records.iter().map(|record| record.position).collect::<Vec<_>>(), [after]);
    assert!(last(log, slice).await >= after, "erasing moved the end");
    let next = append_new(log, event(conversation, "next")).await;
    assert!(next > after, "a place was given twice");
    append_new(log, control(conversation, control_at)).await;
}

/// `next` may be dropped while it waits, and nothing is lost.
pub async fn loses_nothing_to_a_cancelled_wait<L: LogPort>(log: &L) {
    const RECORDS: u16 = 200;
    let conversation = fresh();
    let slice = slice_of(log, conversation.shard());
    let after = last(log, slice).await;
    let mut reader = soon("a reader", log.read(slice, slice.shards(), after)).await.expect("a reader");
    let writing = async {
        for number in 0..RECORDS {
            append_new(log, event(conversation, number.to_be_bytes().to_vec())).await;
        }
    };
    let mut found = Vec::new();
    let reading = async {
        let mut round = 0_u32;
        while found.len() < usize::from(RECORDS) {
            round += 1;
            // Every other wait is dropped after it was polled once.
            let next = if round.is_multiple_of(2) {
                tokio::task::yield_now().await;
                match reader.next(3).now_or_never() {
                    Some(next) => next,
                    None => continue,
                }
            } else {
                match timeout(Duration::from_millis(5), reader.next(3)).await {
                    Ok(next) => next,
                    Err(_) => continue,
                }
            };
            let next = next.expect("records");
            assert!(!next.is_empty() && next.len() <= 3, "{} records, 1 to 3 were asked for", next.len());
            found.extend(next.into_iter().filter(|record| record.conversation == conversation));
        }
    };
    soon("reading with dropped waits", async { tokio::join!(writing, reading) }).await;
    let numbers =
        found.iter().map(|record| u16::from_be_bytes(record.payload[..].try_into().expect("a number")));
    assert_eq!(numbers.collect::<Vec<_>>(), (0..RECORDS).collect::<Vec<_>>());
}

/// The log's clock goes on, and agrees with the time of the records around it.
pub async fn tells_the_time<L: LogPort>(log: &L) {
    /// Two nodes of a log may differ by this much, in milliseconds, before it is worth a test.
    const SLACK_MS: u64 = 2_000;
    let conversation = fresh();
    let before = soon("now", log.now()).await.expect("now");
    let position = append_new(log, event(conversation, "when")).await;
    let after = soon("now", log.now()).await.expect("now");
    assert!(after.plus_millis(SLACK_MS) >= before, "time ran backwards: {before}, {after}");
    let stored = soon("get", log.get(conversation.shard(), position)).await.expect("get").expect("a record");
    assert!(stored.log_time.plus_millis(SLACK_MS) >= before, "{} is before {before}", stored.log_time);
    assert!(after.plus_millis(SLACK_MS) >= stored.log_time, "{} is after {after}", stored.log_time);
    assert!(
        stored.log_time > Timestamp::from_millis(1_700_000_000_000),
        "no clock shows {}",
        stored.log_time
    );
}

/// Trimming forgets up to the position and nothing above; what is forgotten cannot be read.
pub async fn trims<L: LogPort>(log: &L) {
    let conversation = fresh();
    let (shard, slice) = (conversation.shard(), slice_of(log, conversation.shard()));
    let control_at = append_new(log, control(conversation, Position::START)).await;
    let old = append_new(log, event(conversation, "old")).await;
    let edge = append_new(log, event(conversation, "edge")).await;
    let kept = append_new(log, event(conversation, "kept")).await;
    soon("trim", log.trim(slice, edge)).await.expect("trim");
    soon("trim again", log.trim(slice, old)).await.expect("trimming is repeatable");
    let state = soon("state", log.state(slice)).await.expect("state");
    assert!(state.first > edge && state.first <= kept, "first is {}, kept {kept}", state.first);
    assert!(state.last >= kept, "trimming moved the end");
    assert_eq!(soon("get", log.get(shard, edge)).await, Ok(None));
    assert!(soon("get", log.get(shard, kept)).await.expect("get").is_some(), "forgot what was above");
    match soon("a reader", log.read(slice, slice.shards(), control_at)).await {
        Err(ReadError::Trimmed { asked, first }) => {
            assert_eq!(asked, control_at);
            assert!(first > edge && first <= kept);
        }
        Err(other) => panic!("a reader below the trimmed came to {other:?}"),
        Ok(_) => panic!("a reader began where the log had forgotten"),
    }
    let records = read_until(log, slice.shards(), edge, (conversation, kept), &[conversation]).await;
    assert_eq!(records.len(), 1, "right after the trimmed one can read");
    // The lane has no control event any more, and says so.
    let stale = soon("a control append", log.append(control(conversation, control_at))).await;
    assert_eq!(stale, Err(AppendError::ControlMoved(Some(Position::START))));
    append_new(log, control(conversation, Position::START)).await;
    // Nothing above the end is forgotten in advance.
    let beyond = Position::from_u64(last(log, slice).await.as_u64() + 1_000).expect("a position");
    soon("trim beyond the end", log.trim(slice, beyond)).await.expect("trim beyond the end");
    let next = append_new(log, event(conversation, "next")).await;
    assert!(next <= beyond, "trimming beyond the end moved it");
    assert!(soon("get", log.get(shard, next)).await.expect("get").is_some(), "forgot what came later");
}

/// Appends `count` events as fast as `in_flight` at once allow and says how long it took.
///
/// # Panics
/// If one is not taken.
pub async fn append_many<L: LogPort>(log: &L, count: usize, in_flight: usize, payload: Bytes) -> Duration {
    let began = std::time::Instant::now();
    stream::iter(0..count)
        .map(|_| append_new(log, event(fresh(), payload.clone())))
        .buffer_unordered(in_flight)
        .for_each(|_| std::future::ready(()))
        .await;
    began.elapsed()
}
