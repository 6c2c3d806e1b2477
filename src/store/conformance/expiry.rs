//! What has expired is gone, and what comes too late to live is a deletion.

use super::fresh::{self, DAY_MS, HOUR_MS, Manner, position};
use crate::domain::record::{Body, Record};
use crate::domain::retention::EVENTS_TTL_S;
use crate::domain::write::Write;
use crate::store::{Order, Range, StorePort};
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};
use std::time::{Duration, Instant};

const ALL: Range = Range { after: Position::START, before: Range::END };

/// Long enough for a loaded machine to write and read before it is over.
const LIFE_MS: u64 = 5_000;

/// How long after its end something may still show: stores count in whole seconds.
const GONE_WITHIN: Duration = Duration::from_secs(LIFE_MS / 1_000 + 30);

pub async fn all<S: StorePort>(store: &S) {
    an_expired_message_is_gone(store).await;
    what_expired_before_it_came_is_a_deletion(store).await;
    events_live_for_their_time(store).await;
    an_event_ends_with_its_message(store).await;
    a_page_is_full_in_spite_of_expired_ones(store).await;
}

fn message(conversation: ConversationKey, at: u64, sender: AccountId, expires_at: Timestamp) -> Write {
    let mut row = fresh::row(ConversationType::Direct, position(at), sender, fresh::now());
    row.expires_at = Some(expires_at);
    Write::Message { conversation, row, content: Some(fresh::sealed(b"soon gone")) }
}

fn react(conversation: ConversationKey, target: u64, at: u64, expires_at: Option<Timestamp>) -> Write {
    Write::Reaction {
        conversation,
        target: position(target),
        account: AccountId::new(uuid::Uuid::from_u128(7)),
        reaction: fresh::reaction("👍"),
        at: position(at),
        present: true,
        expires_at,
    }
}

/// With its edit, its deletion mark and its reactions, while others stay.
pub async fn an_expired_message_is_gone<S: StorePort>(store: &S) {
    let (conversation, sender) = (fresh::conversation(), fresh::account());
    let expires_at = fresh::now().plus_millis(LIFE_MS);
    let writes = [
        message(conversation, 1, sender, expires_at),
        message(conversation, 2, sender, expires_at),
        message(conversation, 3, sender, fresh::now().plus_millis(HOUR_MS)),
        Write::EditContent {
            conversation,
            target: position(1),
            at: position(4),
            content: fresh::sealed(b"edited"),
            edited_at: fresh::now(),
            expires_at: Some(expires_at),
        },
        Write::DeleteContent {
            conversation,
            target: position(2),
            deleted_at: fresh::now(),
            deleted_by: sender,
        },
        react(conversation, 1, 5, Some(expires_at)),
        react(conversation, 3, 6, None),
    ];
    store.apply(&writes).await.expect("it applies");
    let shown = async || {
        let messages = store.messages(conversation, ALL, Order::OldestFirst, 10).await.expect("it reads");
        let reactions = store.reactions(conversation, ALL).await.expect("it reads");
        let messages: Vec<u64> = messages.iter().map(|m| m.row.position.sequence()).collect();
        let reactions: Vec<u64> = reactions.iter().map(|r| r.target.sequence()).collect();
        (messages, reactions)
    };
    let before = shown().await;
    if fresh::now().plus_millis(1_000) < expires_at {
        assert_eq!(before, (vec![1, 2, 3], vec![1, 3]), "it shows while it lives");
    }
    let asked = Instant::now();
    loop {
        let alone = store.message(conversation, position(1)).await.expect("it reads").is_some();
        let now = shown().await;
        if !alone && now == (vec![3], vec![3]) {
            break;
        }
        assert!(asked.elapsed() < GONE_WITHIN, "still there: {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A late repeat brings nothing back.
    Manner::ShuffledBatches.apply(store, &writes).await;
    assert_eq!(shown().await, (vec![3], vec![3]));
    assert_eq!(store.message(conversation, position(2)).await, Ok(None));
}

pub async fn what_expired_before_it_came_is_a_deletion<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let (conversation, sender) = (fresh::conversation(), fresh::account());
        let past = fresh::ago(HOUR_MS);
        let writes = [
            message(conversation, 1, sender, past),
            message(conversation, 2, sender, fresh::now().plus_millis(HOUR_MS)),
            react(conversation, 2, 5, None),
            react(conversation, 2, 6, Some(past)),
            react(conversation, 3, 8, None),
            react(conversation, 3, 7, Some(past)),
        ];
        manner.apply(store, &writes).await;
        assert_eq!(store.message(conversation, position(1)).await, Ok(None), "{manner:?}");
        let page = store.messages(conversation, ALL, Order::NewestFirst, 10).await.expect("it reads");
        assert_eq!(page.len(), 1, "{manner:?}");
        let reactions = store.reactions(conversation, ALL).await.expect("it reads");
        let at: Vec<u64> = reactions.iter().map(|r| r.at.sequence()).collect();
        assert_eq!(at, [8], "{manner:?}");
    }
}

pub async fn events_live_for_their_time<S: StorePort>(store: &S) {
    let (conversation, actor) = (fresh::conversation(), fresh::account());
    let life_ms = u64::from(EVENTS_TTL_S) * 1_000;
    let writes = [
        fresh::event(conversation, position(1), actor, fresh::ago(400 * DAY_MS)),
        fresh::event(conversation, position(2), actor, fresh::ago(life_ms + 1_000)),
        fresh::event(conversation, position(3), actor, fresh::ago(life_ms - HOUR_MS)),
        fresh::event(conversation, position(4), actor, fresh::now()),
    ];
    store.apply(&writes).await.expect("it applies");
    let events = store.events(conversation, ALL, 10).await.expect("it reads");
    let at: Vec<u64> = events.iter().map(|e| e.position.sequence()).collect();
    assert_eq!(at, [3, 4]);
}

/// What is about a message that ends tells no longer of it than the message itself.
pub async fn an_event_ends_with_its_message<S: StorePort>(store: &S) {
    let (conversation, actor) = (fresh::conversation(), fresh::account());
    let (past, future) = (fresh::ago(HOUR_MS), fresh::now().plus_millis(HOUR_MS));
    let event = |at: u64, body: Body| {
        let Write::Event { kind, log_time, record, .. } =
            fresh::event(conversation, position(at), actor, fresh::now())
        else {
            panic!("an event")
        };
        Write::Event {
            conversation,
            kind,
            position: position(at),
            log_time,
            record: Record { body, ..record },
        }
    };
    let edit = |expires_at| Body::Edit { target: position(1), content: None, expires_at };
    let react =
        |expires_at| Body::React { target: position(1), reaction: fresh::reaction("👍"), expires_at };
    let bodies = [None, Some(past), Some(future)].into_iter().flat_map(|end| [edit(end), react(end)]);
    let writes: Vec<Write> = (2..).zip(bodies).map(|(at, body)| event(at, body)).collect();
    store.apply(&writes).await.expect("it applies");
    let events = store.events(conversation, ALL, 10).await.expect("it reads");
    let at: Vec<u64> = events.iter().map(|e| e.position.sequence()).collect();
    assert_eq!(at, [2, 3, 6, 7]);
}

/// The limit counts what is returned.
pub async fn a_page_is_full_in_spite_of_expired_ones<S: StorePort>(store: &S) {
    let (conversation, sender) = (fresh::conversation(), fresh::account());
    let (past, future) = (fresh::ago(HOUR_MS), fresh::now().plus_millis(HOUR_MS));
    let writes: Vec<Write> =
        (1..=60).map(|n| message(conversation, n, sender, if n % 3 == 0 { future } else { past })).collect();
    store.apply(&writes).await.expect("it applies");
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let page = store.messages(conversation, ALL, order, 15).await.expect("it reads");
        assert_eq!(page.len(), 15, "{order:?}");
    }
}
