//! Edits, deletions, reactions, hiding and the events that tell of them: the end is the same in
//! whatever order and however often they are applied.

use super::fresh::{self, DAY_MS, Manner, position};
use crate::domain::record::{Body, Record};
use crate::domain::write::Write;
use crate::store::{Order, Range, StorePort, StoredEvent, StoredMessage, StoredReaction};
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};

const ALL: Range = Range { after: Position::START, before: Range::END };

pub async fn all<S: StorePort>(store: &S) {
    the_latest_edit_wins(store).await;
    deletion_wins_against_any_edit(store).await;
    an_old_message_can_be_changed(store).await;
    a_change_alone_is_no_message(store).await;
    reactions_go_by_position(store).await;
    reactions_of_a_range(store).await;
    hidden_is_of_one_account(store).await;
    events_come_back_oldest_first(store).await;
}

fn edit(conversation: ConversationKey, target: Position, at: Position, text: &str, when: Timestamp) -> Write {
    let content = fresh::sealed(text.as_bytes());
    Write::EditContent { conversation, target, at, content, edited_at: when, expires_at: None }
}

async fn one<S: StorePort>(store: &S, conversation: ConversationKey, at: Position) -> StoredMessage {
    let message = store.message(conversation, at).await.expect("it reads").expect("it stands");
    let page = store.messages(conversation, ALL, Order::OldestFirst, 100).await.expect("it reads");
    assert!(page.contains(&message), "the page shows what the message alone shows");
    message
}

/// The message is applied before its edits, or in one batch with them in any order: nobody can edit
/// what the store has not been given.
pub async fn the_latest_edit_wins<S: StorePort>(store: &S) {
    let times = [fresh::ago(30_000), fresh::ago(20_000), fresh::ago(10_000)];
    for manner in Manner::ALL {
        for together in [false, true] {
            let conversation = fresh::conversation();
            let message = fresh::message(conversation, position(1), fresh::account(), "first");
            let mut writes = vec![
                edit(conversation, position(1), position(5), "second", times[0]),
                edit(conversation, position(1), position(6), "third", times[1]),
                edit(conversation, position(1), position(9), "", times[2]),
            ];
            if together && manner == Manner::BatchTwice {
                writes.push(message);
                writes.reverse();
            } else {
                store.apply(std::slice::from_ref(&message)).await.expect("it applies");
                if together {
                    writes.push(message);
                }
            }
            manner.apply(store, &writes).await;
            let got = one(store, conversation, position(1)).await;
            assert_eq!(got.content, Some(fresh::sealed(b"")), "{manner:?}");
            assert_eq!(got.edited_at, Some(times[2]), "{manner:?}");
            assert_eq!(got.deleted, None);
        }
    }
}

/// The row stays; neither content nor the time of an edit is left.
pub async fn deletion_wins_against_any_edit<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let conversation = fresh::conversation();
        let (sender, when) = (fresh::account(), fresh::ago(1_000));
        let message = fresh::message(conversation, position(1), sender, "first");
        let other = fresh::message(conversation, position(2), sender, "stays");
        store.apply(&[message.clone(), other]).await.expect("it applies");
        let delete =
            Write::DeleteContent { conversation, target: position(1), deleted_at: when, deleted_by: sender };
        let writes = [
            message.clone(),
            edit(conversation, position(1), position(5), "before", fresh::ago(2_000)),
            delete.clone(),
            // The last place there is: an edit that no position can outdo.
            edit(conversation, position(1), Range::END, "after", fresh::now()),
        ];
        manner.apply(store, &writes).await;
        let got = one(store, conversation, position(1)).await;
        assert_eq!(got.content, None, "{manner:?}");
        assert_eq!(got.edited_at, None, "{manner:?}");
        assert_eq!(got.deleted, Some((when, sender)), "{manner:?}");
        let Write::Message { row, .. } = message else { unreachable!("built above") };
        assert_eq!(got.row, row);
        let other = one(store, conversation, position(2)).await;
        assert_eq!((other.content, other.deleted), (Some(fresh::sealed(b"stays")), None));
    }
}

/// Years of messages lie between it and the newest: it is found wherever it lies.
pub async fn an_old_message_can_be_changed<S: StorePort>(store: &S) {
    for kind in [ConversationType::Direct, ConversationType::Group] {
        let conversation = fresh::conversation();
        let sender = fresh::account();
        let writes: Vec<Write> = (1..=30)
            .map(|n| Write::Message {
                conversation,
                row: fresh::row(kind, position(n), sender, fresh::ago((31 - n) * 60 * DAY_MS)),
                content: Some(fresh::sealed(b"first")),
            })
            .collect();
        Manner::ShuffledBatches.apply(store, &writes).await;
        let when = fresh::ago(1_000);
        for n in [1, 2, 15, 29, 30] {
            let delete = Write::DeleteContent {
                conversation,
                target: position(n),
                deleted_at: when,
                deleted_by: sender,
            };
            let change = edit(conversation, position(n), position(40 + n), "second", when);
            store.apply(&[change]).await.expect("it applies");
            let got = one(store, conversation, position(n)).await;
            assert_eq!((got.content, got.edited_at), (Some(fresh::sealed(b"second")), Some(when)));
            store.apply(&[delete]).await.expect("it applies");
            let got = one(store, conversation, position(n)).await;
            assert_eq!((got.content, got.deleted), (None, Some((when, sender))));
        }
        let page = store.messages(conversation, ALL, Order::NewestFirst, 100).await.expect("it reads");
        assert_eq!(page.len(), 30, "changes add no messages");
    }
}

/// A change to what is not there, for it has expired, shows nowhere.
pub async fn a_change_alone_is_no_message<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let account = fresh::account();
    let delete = Write::DeleteContent {
        conversation,
        target: position(2),
        deleted_at: fresh::now(),
        deleted_by: account,
    };
    let writes = [edit(conversation, position(1), position(5), "edited", fresh::now()), delete];
    store.apply(&writes).await.expect("it applies");
    assert_eq!(store.message(conversation, position(1)).await, Ok(None));
    assert_eq!(store.message(conversation, position(2)).await, Ok(None));
    assert_eq!(store.messages(conversation, ALL, Order::NewestFirst, 10).await, Ok(vec![]));
}

fn react(
    conversation: ConversationKey,
    (target, at): (u64, u64),
    account: AccountId,
    text: &str,
    present: bool,
) -> Write {
    Write::Reaction {
        conversation,
        target: position(target),
        account,
        reaction: fresh::reaction(text),
        at: position(at),
        present,
        expires_at: None,
    }
}

/// Each of an account's reactions to a message stands as its latest add or removal left it.
pub async fn reactions_go_by_position<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let conversation = fresh::conversation();
        let (a, b) = (fresh::account(), fresh::account());
        let writes = [
            react(conversation, (1, 10), a, "👍", true),
            react(conversation, (1, 11), a, "👍", false),
            react(conversation, (1, 12), a, "👍", true),
            react(conversation, (1, 13), a, "❤️", true),
            react(conversation, (1, 14), a, "❤️", false),
            react(conversation, (1, 15), b, "❤️", true),
            react(conversation, (1, 9), b, "👍🏽", true),
            react(conversation, (1, 16), b, "👍", false),
        ];
        manner.apply(store, &writes).await;
        let got = store.reactions(conversation, ALL).await.expect("it reads");
        let stored = |account, text: &str, at| StoredReaction {
            target: position(1),
            account,
            reaction: text.to_owned(),
            at: position(at),
        };
        let wanted = vec![stored(b, "👍🏽", 9), stored(a, "👍", 12), stored(b, "❤️", 15)];
        assert_eq!(got, wanted, "{manner:?}");
    }
}

/// Only those to messages strictly within the range, each message's oldest first.
pub async fn reactions_of_a_range<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let account = fresh::account();
    let writes: Vec<Write> = (1..=20)
        .flat_map(|target| {
            [
                react(conversation, (target, 100 - target), account, "👍", true),
                react(conversation, (target, 200 - target), account, "🎉", true),
            ]
        })
        .collect();
    Manner::ShuffledBatches.apply(store, &writes).await;
    let range = Range { after: position(5), before: position(9) };
    let mut got = store.reactions(conversation, range).await.expect("it reads");
    got.sort_by_key(|r| r.target);
    let got: Vec<(u64, u64)> = got.iter().map(|r| (r.target.sequence(), r.at.sequence())).collect();
    assert_eq!(got, [(6, 94), (6, 194), (7, 93), (7, 193), (8, 92), (8, 192)]);
}

pub async fn hidden_is_of_one_account<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let conversation = fresh::conversation();
        let (a, b) = (fresh::account(), fresh::account());
        let hide = |account, target, at| Write::Hidden {
            conversation,
            account,
            target: position(target),
            at: position(at),
        };
        let writes = [hide(a, 1, 20), hide(a, 3, 21), hide(a, 3, 25), hide(a, 9, 22), hide(b, 2, 23)];
        manner.apply(store, &writes).await;
        let hidden = async |account, range| {
            let mut got = store.hidden(conversation, account, range).await.expect("it reads");
            got.sort();
            got
        };
        assert_eq!(hidden(a, ALL).await, [1, 3, 9].map(position), "{manner:?}");
        assert_eq!(hidden(b, ALL).await, [position(2)], "{manner:?}");
        assert_eq!(hidden(a, Range { after: position(1), before: position(9) }).await, [position(3)]);
        assert_eq!(hidden(fresh::account(), ALL).await, []);
    }
}

/// Pages of events as catching up reads them, over more than one bucket of any size within their life.
pub async fn events_come_back_oldest_first<S: StorePort>(store: &S) {
    let conversation = fresh::conversation();
    let actor = fresh::account();
    let mut events: Vec<StoredEvent> = Vec::new();
    let mut writes = Vec::new();
    for n in 0..28 {
        let (at, log_time) = (position(n * 5 + 5), fresh::ago((28 - n) * DAY_MS));
        let kind = ConversationType::Group;
        let mut write = fresh::event(conversation, at, actor, log_time);
        if let Write::Event { kind: of, record, .. } = &mut write {
            (*of, record.kind) = (kind, kind);
            record.body = bodies(n, conversation, actor);
            events.push(StoredEvent { position: at, log_time, record: record.clone() });
        }
        writes.push(write);
    }
    Manner::ShuffledBatches.apply(store, &writes).await;
    let ranges = [
        ALL,
        Range::after(position(50)),
        Range::after(position(51)),
        Range::before(position(50)),
        Range { after: position(5), before: position(140) },
        Range::after(position(140)),
    ];
    for range in ranges {
        for limit in [0, 1, 9, 100] {
            let wanted: Vec<StoredEvent> =
                events.iter().filter(|e| range.contains(e.position)).take(limit).cloned().collect();
            let got = store.events(conversation, range, limit).await;
            assert_eq!(got, Ok(wanted), "{range:?}, {limit}");
        }
    }
    assert_eq!(store.messages(conversation, ALL, Order::NewestFirst, 10).await, Ok(vec![]));
}

fn bodies(n: u64, conversation: ConversationKey, actor: AccountId) -> Body {
    let Write::Event { record: Record { body, .. }, .. } =
        fresh::event(conversation, position(n + 1), actor, fresh::now())
    else {
        unreachable!("an event was asked for")
    };
    match n % 4 {
        0 => Body::Edit { target: position(n + 1), content: None, expires_at: None },
        1 => Body::Delete { target: position(n + 1) },
        2 => Body::React {
            target: position(n + 1),
            reaction: fresh::reaction("👨‍👩‍👧‍👦"),
            expires_at: Some(fresh::now().plus_millis(DAY_MS)),
        },
        _ => body,
    }
}
