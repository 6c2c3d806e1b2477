//! An account's inbox: joined, left and joined again, heads, what it has read, mute.

use super::fresh::{self, Manner, position};
use crate::domain::write::Write;
use crate::store::{InboxRow, StorePort};
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position};

pub async fn all<S: StorePort>(store: &S) {
    a_membership_is_its_latest_change(store).await;
    heads_and_reads_never_go_back(store).await;
    only_a_joined_conversation_shows(store).await;
    mute_stands_until_unmuted(store).await;
    an_inbox_lists_all_up_to_its_limit(store).await;
}

fn joined(account: AccountId, conversation: ConversationKey, at: u64) -> Write {
    Write::InboxJoined { account, conversation, kind: ConversationType::Group, at: position(at) }
}

fn left(account: AccountId, conversation: ConversationKey, at: u64) -> Write {
    Write::InboxLeft { account, conversation, at: position(at) }
}

fn row(conversation: ConversationKey, at: u64) -> InboxRow {
    InboxRow {
        conversation,
        kind: ConversationType::Group,
        joined: position(at),
        left: None,
        left_before: None,
        head: None,
        touched: None,
        read: Position::START,
        muted_until: None,
    }
}

async fn expect<S: StorePort>(store: &S, account: AccountId, wanted: &[InboxRow], what: &str) {
    let mut wanted = wanted.to_vec();
    wanted.sort_by_key(|r| r.conversation);
    let mut got = store.inbox(account, None, 1_000).await.expect("it reads");
    got.sort_by_key(|r| r.conversation);
    assert_eq!(got, wanted, "{what}");
    for row in wanted {
        let got = store.inbox_row(account, row.conversation).await;
        assert_eq!(got, Ok(Some(row)), "{what}");
    }
}

/// Whatever the order of arrival: the highest position says whether the account is in.
pub async fn a_membership_is_its_latest_change<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let account = fresh::account();
        let [once, gone, again, gone_again] = std::array::from_fn(|_| fresh::conversation());
        let writes = [
            joined(account, once, 1),
            joined(account, gone, 1),
            left(account, gone, 5),
            joined(account, again, 1),
            left(account, again, 5),
            joined(account, again, 9),
            joined(account, gone_again, 1),
            left(account, gone_again, 5),
            joined(account, gone_again, 9),
            left(account, gone_again, 12),
        ];
        manner.apply(store, &writes).await;
        let wanted = [
            row(once, 1),
            InboxRow { left: Some(position(5)), ..row(gone, 1) },
            InboxRow { left_before: Some(position(5)), ..row(again, 9) },
            InboxRow { left: Some(position(12)), ..row(gone_again, 9) },
        ];
        expect(store, account, &wanted, &format!("{manner:?}")).await;
    }
}

pub async fn heads_and_reads_never_go_back<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let (account, conversation) = (fresh::account(), fresh::conversation());
        let times = [fresh::ago(30_000), fresh::ago(10_000)];
        let head = |at, when: usize| Write::InboxHead {
            account,
            conversation,
            head: position(at),
            head_time: times[when],
        };
        let read = |at| Write::InboxRead { account, conversation, up_to: position(at) };
        let writes =
            [joined(account, conversation, 1), head(2, 1), head(9, 0), head(4, 1), read(3), read(7), read(5)];
        manner.apply(store, &writes).await;
        let head = Some((position(9), times[0]));
        let wanted = InboxRow { head, read: position(7), ..row(conversation, 1) };
        expect(store, account, &[wanted], &format!("{manner:?}")).await;
    }
}

/// Heads, reads, mute and leaving make no conversation show that the account never joined.
pub async fn only_a_joined_conversation_shows<S: StorePort>(store: &S) {
    let (account, conversation) = (fresh::account(), fresh::conversation());
    let head_time = fresh::now();
    let writes = [
        Write::InboxHead { account, conversation, head: position(9), head_time },
        Write::InboxRead { account, conversation, up_to: position(9) },
        left(account, conversation, 8),
    ];
    store.apply(&writes).await.expect("it applies");
    store.mute(account, conversation, Some(fresh::now())).await.expect("it writes");
    store.mute(account, conversation, None).await.expect("it writes");
    expect(store, account, &[], "before it joined").await;
    assert_eq!(store.inbox_row(account, conversation).await, Ok(None));
    store.apply(&[joined(account, conversation, 7)]).await.expect("it applies");
    let wanted = InboxRow {
        left: Some(position(8)),
        head: Some((position(9), head_time)),
        read: position(9),
        ..row(conversation, 7)
    };
    expect(store, account, &[wanted], "what came before stands").await;
}

pub async fn mute_stands_until_unmuted<S: StorePort>(store: &S) {
    let account = fresh::account();
    let (muted, other) = (fresh::conversation(), fresh::conversation());
    let writes = [joined(account, muted, 1), joined(account, other, 1)];
    store.apply(&writes).await.expect("it applies");
    for hours in [5, 1, 9] {
        let until = Some(fresh::now().plus_millis(hours * fresh::HOUR_MS));
        store.mute(account, muted, until).await.expect("it writes");
        store.apply(&writes).await.expect("it applies");
        let wanted = [InboxRow { muted_until: until, ..row(muted, 1) }, row(other, 1)];
        expect(store, account, &wanted, "muted").await;
    }
    store.mute(account, muted, None).await.expect("it writes");
    store.mute(account, other, None).await.expect("unmuting what is not muted is easily done");
    expect(store, account, &[row(muted, 1), row(other, 1)], "unmuted").await;
}

pub async fn an_inbox_lists_all_up_to_its_limit<S: StorePort>(store: &S) {
    let (account, neighbour) = (fresh::account(), fresh::account());
    let conversations: Vec<ConversationKey> = (0..120).map(|_| fresh::conversation()).collect();
    let mut writes: Vec<Write> = conversations.iter().map(|c| joined(account, *c, 1)).collect();
    writes.push(joined(neighbour, conversations[0], 1));
    store.apply(&writes).await.expect("it applies");
    let wanted: Vec<InboxRow> = conversations.iter().map(|c| row(*c, 1)).collect();
    expect(store, account, &wanted, "all").await;
    expect(store, neighbour, &wanted[..1], "the neighbour's").await;
    for limit in [0, 1, 50, 120] {
        assert_eq!(store.inbox(account, None, limit).await.expect("it reads").len(), limit);
    }
    // Page by page all, each once, past what is of no conversation that it joined.
    let unjoined: Vec<Write> = (0..120).map(|_| left(account, fresh::conversation(), 8)).collect();
    store.apply(&unjoined).await.expect("it applies");
    for size in [1, 7, 40, 120, 1_000] {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = store.inbox(account, after, size).await.expect("it reads");
            assert!(page.len() <= size);
            got.extend(page.iter().copied());
            after = page.last().map(|row| row.conversation);
            if page.len() < size {
                break;
            }
        }
        got.sort_by_key(|row| row.conversation);
        let mut wanted = wanted.clone();
        wanted.sort_by_key(|row| row.conversation);
        assert_eq!(got, wanted, "by {size}");
    }
}
