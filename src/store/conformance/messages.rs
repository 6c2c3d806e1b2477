//! Messages come back as they were written, in the order and within the range that was asked.

use super::fresh::{self, DAY_MS, HOUR_MS, Manner, position};
use crate::domain::record::{Change, Sealed};
use crate::domain::write::{MessageRow, Write};
use crate::store::{Order, Outline, Range, StorePort, StoredMessage};
use rand::seq::SliceRandom;
use reedi_protocol::resource::{ConversationType, MessageType, Role};
use reedi_protocol::{ConversationKey, Position, Timestamp};

pub async fn all<S: StorePort>(store: &S) {
    come_back_as_written(store).await;
    content_is_bytes(store).await;
    absent_ones_are_absent(store).await;
    ranges_cross_buckets(store).await;
    a_range_with_nothing(store).await;
    conversations_are_apart(store).await;
    outlines_know_what_is_deleted(store).await;
}

/// Every field and every kind of message, by each way of reading.
pub async fn come_back_as_written<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let (a, b) = (fresh::account(), fresh::account());
    let mut rows = Vec::new();
    let types =
        [MessageType::Text, MessageType::Image, MessageType::Video, MessageType::Audio, MessageType::File];
    let log_time = fresh::now();
    let next = |rows: &Vec<MessageRow>| {
        fresh::row(ConversationType::Group, position(rows.len() as u64 * 3 + 1), a, log_time)
    };
    for message_type in types {
        let mut row = next(&rows);
        row.message_type = message_type;
        row.timestamp = fresh::ago(3_000);
        row.reply_to = Some(position(77));
        row.keyed_by_client = message_type == MessageType::Text;
        row.client_message_id = Some(fresh::send_id("käy\0 key"));
        row.expires_at = (message_type == MessageType::File).then(|| fresh::now().plus_millis(DAY_MS));
        rows.push(row);
    }
    let changes = [
        Change::Created,
        Change::Added { accounts: vec![a, b] },
        Change::Removed { account: b },
        Change::Left { promoted: Some(b) },
        Change::Left { promoted: None },
        Change::RoleSet { account: b, role: Role::Admin },
        Change::Settings { name_changed: true, avatar_changed: false, expiry_changed: true },
    ];
    for change in changes {
        let mut row = next(&rows);
        row.message_type = MessageType::System;
        row.client_message_id = None;
        row.keyed_by_client = false;
        row.system_name = matches!(change, Change::Settings { .. }).then(|| "Größe".to_owned());
        row.system = Some(change);
        rows.push(row);
    }
    let stored: Vec<StoredMessage> = rows.into_iter().map(|row| as_stored(row, b"content")).collect();
    let writes: Vec<Write> = stored.iter().map(|m| as_write(conversation, m)).collect();
    for write in &writes {
        store.apply(std::slice::from_ref(write)).await.expect("it applies");
    }
    for message in &stored {
        let got = store.message(conversation, message.row.position).await.expect("it reads");
        assert_eq!(got.as_ref(), Some(message));
    }
    expect_range(store, conversation, &stored, Range::after(Position::START), 100).await;
}

/// NUL, invalid UTF-8, nothing at all and the most there can be.
pub async fn content_is_bytes<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let every_byte: Vec<u8> = (0..=255).collect();
    // The most content, sealed: a version, a key's number, a nonce and a tag are well below 256 bytes.
    let most = vec![0u8; reedi_protocol::limits::CONTENT_BYTES + 256];
    let contents: [&[u8]; 5] = [b"\0", b"a\0b", &every_byte, &most, b""];
    for (n, content) in contents.into_iter().enumerate() {
        let at = position(n as u64 + 1);
        let row = fresh::row(ConversationType::Direct, at, fresh::account(), fresh::now());
        let message = StoredMessage { content: Some(fresh::sealed(content)), ..as_stored(row, b"") };
        store.apply(&[as_write(conversation, &message)]).await.expect("it applies");
        let got = store.message(conversation, at).await.expect("it reads");
        assert!(got == Some(message), "content number {n} came back otherwise");
    }
}

pub async fn absent_ones_are_absent<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let all = Range::after(Position::START);
    assert_eq!(store.message(conversation, position(1)).await, Ok(None));
    assert_eq!(store.messages(conversation, all, Order::NewestFirst, 10).await, Ok(vec![]));
    assert_eq!(store.events(conversation, all, 10).await, Ok(vec![]));
    assert_eq!(store.reactions(conversation, all).await, Ok(vec![]));
    assert_eq!(store.hidden(conversation, fresh::account(), all).await, Ok(vec![]));
    assert_eq!(store.receipts(conversation).await, Ok(vec![]));
    assert_eq!(store.state(conversation).await, Ok(None));
    store.apply(&[]).await.expect("nothing is easily done");
    store
        .apply(&[fresh::message(conversation, position(5), fresh::account(), "x")])
        .await
        .expect("it applies");
    for missing in [1, 4, 6, 1_000_000] {
        assert_eq!(store.message(conversation, position(missing)).await, Ok(None));
    }
}

/// Pages across the borders of whatever the adapter divides time by: years apart, hours apart over the
/// end of a quarter and a year, and on the very milliseconds of such borders.
pub async fn ranges_cross_buckets<S: StorePort>(store: &S) {
    let years = (0..40).map(|n| fresh::ago((40 - n) * 50 * DAY_MS)).collect();
    // 2023-12-20 on: the end of a quarter and of a year, and three ends of a week.
    let hours = (0..60).map(|n| Timestamp::from_millis(1_703_030_400_000 + n * 8 * HOUR_MS)).collect();
    // 2024-04-01T00:00Z is a quarter's and a week's first moment; 1970 began on a Thursday.
    let borders = [1_711_929_600_000, 1_712_188_800_000, 1_719_792_000_000, 1_720_051_200_000]
        .into_iter()
        .flat_map(|ms| [ms - 1, ms, ms, ms + 1].map(Timestamp::from_millis))
        .collect();
    let series: [Vec<Timestamp>; 3] = [years, hours, borders];
    for kind in [ConversationType::Direct, ConversationType::Group] {
        for times in &series {
            one_series(store, kind, times).await;
        }
    }
}

async fn one_series<S: StorePort>(store: &S, kind: ConversationType, times: &[Timestamp]) {
    let conversation = fresh::conversation();
    let sender = fresh::account();
    let stored: Vec<StoredMessage> = times
        .iter()
        .enumerate()
        .map(|(n, time)| {
            let at = position(n as u64 * 10 + 10);
            as_stored(fresh::row(kind, at, sender, *time), format!("message {n}").as_bytes())
        })
        .collect();
    let mut writes: Vec<Write> = stored.iter().map(|m| as_write(conversation, m)).collect();
    writes.shuffle(&mut rand::rng());
    Manner::ShuffledBatches.apply(store, &writes).await;

    let last = times.len() as u64 * 10;
    let middle = last / 20 * 10;
    let ranges = [
        Range::after(Position::START),
        Range::before(Range::END),
        Range::after(position(middle)),
        Range::before(position(middle)),
        Range::after(position(middle + 1)),
        Range { after: position(10), before: position(last) },
        Range { after: position(9), before: position(last + 1) },
        Range { after: position(middle - 1), before: position(middle + 1) },
        Range { after: position(last), before: Range::END },
    ];
    for range in ranges {
        for limit in [1, 7, 100] {
            expect_range(store, conversation, &stored, range, limit).await;
        }
    }
    for message in [&stored[0], &stored[times.len() / 2], &stored[times.len() - 1]] {
        let got = store.message(conversation, message.row.position).await;
        assert_eq!(got.expect("it reads").as_ref(), Some(message));
    }
}

/// What `messages` answers, in both orders, against all there is.
async fn expect_range<S: StorePort>(
    store: &S,
    conversation: ConversationKey,
    stored: &[StoredMessage],
    range: Range,
    limit: usize,
) {
    let within = || stored.iter().filter(|m| range.contains(m.row.position));
    let oldest: Vec<StoredMessage> = within().take(limit).cloned().collect();
    let newest: Vec<StoredMessage> = within().rev().take(limit).cloned().collect();
    let got = store.messages(conversation, range, Order::OldestFirst, limit).await.expect("it reads");
    assert_eq!(got, oldest, "{range:?}, {limit} oldest first");
    let got = store.messages(conversation, range, Order::NewestFirst, limit).await.expect("it reads");
    assert_eq!(got, newest, "{range:?}, {limit} newest first");
    let got = store.outlines(conversation, range, limit).await.expect("it reads");
    assert_eq!(got, oldest.iter().map(outline).collect::<Vec<_>>(), "{range:?}, {limit} outlines");
}

/// A limit of none, and ranges that are empty or the wrong way round.
pub async fn a_range_with_nothing<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let sender = fresh::account();
    let writes: Vec<Write> =
        (1..=3).map(|n| fresh::message(conversation, position(n), sender, "x")).collect();
    store.apply(&writes).await.expect("it applies");
    let backwards = Range { after: position(3), before: position(1) };
    let between = Range { after: position(1), before: position(2) };
    let none = Range { after: Position::START, before: Position::START };
    for order in [Order::NewestFirst, Order::OldestFirst] {
        for range in [backwards, between, none] {
            assert_eq!(store.messages(conversation, range, order, 10).await, Ok(vec![]), "{range:?}");
        }
        let all = Range::after(Position::START);
        assert_eq!(store.messages(conversation, all, order, 0).await, Ok(vec![]));
    }
    assert_eq!(store.events(conversation, backwards, 10).await, Ok(vec![]));
    assert_eq!(store.reactions(conversation, backwards).await, Ok(vec![]));
    assert_eq!(store.hidden(conversation, sender, backwards).await, Ok(vec![]));
}

/// Neighbours in whatever order the keys have do not show in each other.
pub async fn conversations_are_apart<S: StorePort>(store: &S) {
    let first = ConversationKey::from_u64(rand::random::<u64>() & !0xff);
    let keys = [0, 1, 0xff].map(|n| ConversationKey::from_u64(first.as_u64() | n));
    let sender = fresh::account();
    for (n, key) in keys.into_iter().enumerate() {
        let text = format!("of {n}");
        store.apply(&[fresh::message(key, position(9), sender, &text)]).await.expect("it applies");
    }
    for (n, key) in keys.into_iter().enumerate() {
        let range = Range::after(Position::START);
        let got = store.messages(key, range, Order::OldestFirst, 10).await.expect("it reads");
        let texts: Vec<Option<Sealed>> = got.into_iter().map(|m| m.content).collect();
        assert_eq!(texts, vec![Some(fresh::sealed(format!("of {n}").as_bytes()))]);
    }
}

fn as_stored(row: MessageRow, content: &[u8]) -> StoredMessage {
    let content = row.system.is_none().then(|| fresh::sealed(content));
    StoredMessage { row, content, edited_at: None, deleted: None }
}

fn outline(message: &StoredMessage) -> Outline {
    let MessageRow { position, sender, message_type, .. } = message.row;
    Outline { position, sender, message_type, is_deleted: message.deleted.is_some() }
}

/// An outline says what counts and is not deleted, whatever content there is and whatever came first.
pub async fn outlines_know_what_is_deleted<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let (conversation, sender) = (fresh::conversation(), fresh::account());
        let most = "x".repeat(reedi_protocol::limits::CONTENT_BYTES);
        let mut writes: Vec<Write> =
            (1..=3).map(|n| fresh::message(conversation, position(n), sender, &most)).collect();
        let (target, deleted_at, deleted_by) = (position(2), fresh::now(), sender);
        writes.push(Write::DeleteContent { conversation, target, deleted_at, deleted_by });
        let alone = Write::DeleteContent { conversation, target: position(4), deleted_at, deleted_by };
        writes.push(alone);
        manner.apply(store, &writes).await;
        let got = store.outlines(conversation, Range::after(Position::START), 10).await.expect("it reads");
        let deleted: Vec<(u64, bool)> = got.iter().map(|o| (o.position.sequence(), o.is_deleted)).collect();
        assert_eq!(deleted, [(1, false), (2, true), (3, false)], "{manner:?}");
    }
}

fn as_write(conversation: ConversationKey, message: &StoredMessage) -> Write {
    Write::Message { conversation, row: message.row.clone(), content: message.content.clone() }
}
