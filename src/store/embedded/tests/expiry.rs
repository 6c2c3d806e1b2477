//! Ends by a clock that is set, and what is left in the engine after them.

use super::{Hand, dump, holds};
use crate::domain::record::RequestDigest;
use crate::domain::retention::{EVENTS_TTL_S, SENDS_TTL_S};
use crate::domain::write::Write;
use crate::store::conformance::fresh::{self, DAY_MS, position};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::apply::TOMBSTONE_KEPT_MS;
use crate::store::embedded::purge::{PURGE_EVERY_MS, PURGE_LEAST};
use crate::store::{Messages, Range, StorePort, Writes};
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};

const START_MS: u64 = 1_700_000_000_000;
const ALL: Range = Range { after: Position::START, before: Range::END };

fn expiring(conversation: ConversationKey, at: u64, sender: AccountId, expires_ms: u64) -> Write {
    let log_time = Timestamp::from_millis(START_MS);
    let mut row = fresh::row(ConversationType::Direct, position(at), sender, log_time);
    row.expires_at = Some(Timestamp::from_millis(expires_ms));
    Write::Message { conversation, row, content: Some(fresh::sealed(b"secret")) }
}

fn react(conversation: ConversationKey, at: u64, account: AccountId, present: bool) -> Write {
    let reaction = fresh::reaction("👍");
    let (target, at) = (position(1), position(at));
    Write::Reaction { conversation, target, account, reaction, at, present, expires_at: None }
}

fn sent(conversation: ConversationKey, sender: AccountId) -> Write {
    Write::Sent {
        conversation,
        sender,
        client_message_id: fresh::send_id("key"),
        position: position(1),
        digest: RequestDigest([1; 16]),
    }
}

#[tokio::test]
async fn an_end_is_to_the_millisecond() {
    let hand = Hand::at(START_MS);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    store.apply(&[expiring(conversation, 1, account, START_MS + 5_000)]).await.unwrap();
    hand.set(START_MS + 4_999);
    assert!(store.message(conversation, position(1)).await.unwrap().is_some());
    hand.set(START_MS + 5_000);
    assert!(store.message(conversation, position(1)).await.unwrap().is_none());
}

/// Messages with their changes, events, sends and removed reactions: nothing is left of them, and what
/// stays stays.
#[tokio::test]
async fn what_has_ended_leaves_nothing() {
    let hand = Hand::at(START_MS);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    store.apply(&[fresh::message(conversation, position(2), account, "stays")]).await.unwrap();
    let stays = dump(&store);
    let writes = [
        expiring(conversation, 1, account, START_MS + 5_000),
        Write::DeleteContent {
            conversation,
            // No such message, and none comes any more.
            target: position(9),
            deleted_at: Timestamp::from_millis(START_MS),
            deleted_by: account,
        },
        fresh::event(conversation, position(3), account, Timestamp::from_millis(START_MS)),
        sent(conversation, account),
        react(conversation, 5, account, true),
        react(conversation, 6, account, false),
    ];
    store.apply(&writes).await.unwrap();
    assert!(holds(&store, b"secret"));
    hand.set(START_MS + 5_000);
    store.ping().await.unwrap();
    assert!(!holds(&store, b"secret"), "content goes with the next commit");
    hand.set(START_MS + (u64::from(EVENTS_TTL_S) * 1_000).max(TOMBSTONE_KEPT_MS));
    store.ping().await.unwrap();
    assert_eq!(dump(&store), stays);
}

#[tokio::test]
async fn a_commit_removes_a_bounded_number() {
    let hand = Hand::at(START_MS);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    let count = PURGE_LEAST as u64 * 5 / 2;
    let writes: Vec<Write> =
        (1..=count).map(|n| expiring(conversation, n, account, START_MS + 5_000 + n % 3)).collect();
    store.apply(&writes).await.unwrap();
    let mut now = START_MS + 10_000;
    let mut left = Vec::new();
    while left.last() != Some(&0) {
        hand.set(now);
        now += PURGE_EVERY_MS;
        store.ping().await.unwrap();
        left.push(dump(&store).len());
        assert!(left.len() <= 4, "it makes no headway: {left:?}");
    }
    // One note for each of the three moments, the last of which goes once all that it names is gone.
    let (count, least) = (count as usize, PURGE_LEAST);
    assert_eq!(left, [2 + count - least, 1 + count - 2 * least, 0]);
}

/// What ends at one moment is noted once, however often it is written and in however many commits.
#[tokio::test]
async fn a_list_of_ends_has_each_of_them_once() {
    let hand = Hand::at(START_MS);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    let end = START_MS + 5_000;
    let pair = |n| [expiring(conversation, n, account, end), expiring(conversation, n + 1, account, end)];
    let edit = |target, at| Write::EditContent {
        conversation,
        target: position(target),
        at: position(at),
        content: fresh::sealed(b"edited"),
        edited_at: Timestamp::from_millis(START_MS),
        expires_at: Some(Timestamp::from_millis(end)),
    };
    store.apply(&pair(1)).await.unwrap();
    store.apply(&[edit(1, 10), edit(2, 11)]).await.unwrap();
    let bytes = |store: &EmbeddedStore| dump(store).iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    let once = bytes(&store);
    store.apply(&[edit(1, 12), edit(2, 13), edit(1, 14)]).await.unwrap();
    assert_eq!(bytes(&store), once);
    store.apply(&pair(3)).await.unwrap();
    assert_eq!(dump(&store).len(), 5, "four messages and one list");
    hand.set(end);
    store.ping().await.unwrap();
    assert_eq!(dump(&store), vec![]);
}

#[tokio::test]
async fn a_clock_that_goes_back_is_caught_up_with() {
    let hand = Hand::at(START_MS + 20_000);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    store.ping().await.unwrap();
    hand.set(START_MS);
    store.apply(&[expiring(conversation, 1, account, START_MS + 5_000)]).await.unwrap();
    hand.set(START_MS + 20_000 + PURGE_EVERY_MS);
    store.ping().await.unwrap();
    assert_eq!(dump(&store), vec![]);
}

#[tokio::test]
async fn a_send_is_known_for_its_time_and_a_repeat_does_not_lengthen_it() {
    let hand = Hand::at(START_MS);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    store.apply(&[sent(conversation, account)]).await.unwrap();
    let life_ms = u64::from(SENDS_TTL_S) * 1_000;
    let known = async || store.sent(conversation, account, &fresh::send_id("key")).await.unwrap().is_some();
    hand.set(START_MS + life_ms - 1);
    store.apply(&[sent(conversation, account)]).await.unwrap();
    assert!(known().await);
    hand.set(START_MS + life_ms);
    assert!(!known().await);
}

#[tokio::test]
async fn a_late_repeat_undoes_no_removal() {
    let hand = Hand::at(START_MS);
    let store = EmbeddedStore::in_memory(hand.clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    let (add, remove) = (react(conversation, 5, account, true), react(conversation, 6, account, false));
    store.apply(&[add.clone(), remove]).await.unwrap();
    hand.set(START_MS + TOMBSTONE_KEPT_MS - DAY_MS);
    store.apply(&[add]).await.unwrap();
    assert_eq!(store.reactions(conversation, ALL).await, Ok(vec![]));
}

/// Neither the deletion nor an edit, nor the message's repeat, leaves replaced content in the engine.
#[tokio::test]
async fn replaced_content_is_gone() {
    let store = EmbeddedStore::in_memory(Hand::at(START_MS).clock());
    let (conversation, account) = (fresh::conversation(), fresh::account());
    let message = fresh::message(conversation, position(1), account, "the first");
    let now = Timestamp::from_millis(START_MS);
    let edit = Write::EditContent {
        conversation,
        target: position(1),
        at: position(2),
        content: fresh::sealed(b"the second"),
        edited_at: now,
        expires_at: None,
    };
    let target = position(1);
    let delete = Write::DeleteContent { conversation, target, deleted_at: now, deleted_by: account };
    store.apply(&[message.clone(), edit.clone()]).await.unwrap();
    store.apply(std::slice::from_ref(&message)).await.unwrap();
    assert!(holds(&store, b"the second") && !holds(&store, b"the first"));
    store.apply(&[delete]).await.unwrap();
    store.apply(&[message, edit]).await.unwrap();
    assert!(!holds(&store, b"the second") && !holds(&store, b"the first"));
}
