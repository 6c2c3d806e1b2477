//! What stands once per conversation or account: sends, receipts, state, heads, watermarks, settings,
//! blocks. None of it ever goes back.

use super::fresh::{self, DAY_MS, Manner, position};
use crate::domain::conversation::{ConversationState, Member};
use crate::domain::record::RequestDigest;
use crate::domain::retention::DAYS_TTL_S;
use crate::domain::write::Write;
use crate::store::{StorePort, StoredReceipt, StoredSend};
use futures_util::future::join_all;
use reedi_protocol::resource::{ConversationType, MessagesFrom, PresenceVisibility, Role, Settings};
use reedi_protocol::text::{AvatarUrl, Name};
use reedi_protocol::{Position, Shard, Timestamp};

pub async fn all<S: StorePort>(store: &S) {
    the_latest_send_stands(store).await;
    send_keys_are_exact(store).await;
    receipts_never_go_back(store).await;
    an_equal_receipt_keeps_its_first_time(store).await;
    the_newest_state_stands(store).await;
    heads_never_go_back(store).await;
    watermarks_never_go_back(store).await;
    the_first_of_a_day_stands(store).await;
    settings_stand(store).await;
    blocks_stand(store).await;
}

pub async fn the_latest_send_stands<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let (conversation, sender) = (fresh::conversation(), fresh::account());
        let id = fresh::send_id("once");
        let sent = |at: u64| Write::Sent {
            conversation,
            sender,
            client_message_id: id.clone(),
            position: position(at),
            digest: RequestDigest([at as u8; 16]),
        };
        manner.apply(store, &[sent(5), sent(3), sent(4)]).await;
        let wanted = StoredSend { position: position(5), digest: RequestDigest([5; 16]) };
        assert_eq!(store.sent(conversation, sender, &id).await, Ok(Some(wanted)), "{manner:?}");
    }
}

/// A key is of one sender in one conversation, byte for byte.
pub async fn send_keys_are_exact<S: StorePort>(store: &S) {
    let (conversation, sender) = (fresh::conversation(), fresh::account());
    let longest = "ä".repeat(127);
    let texts = ["a", "a\0", "a\0b", "A", "ä", "ab", longest.as_str(), "' OR 1=1 --"];
    for (n, text) in texts.into_iter().enumerate() {
        let write = Write::Sent {
            conversation,
            sender,
            client_message_id: fresh::send_id(text),
            position: position(n as u64 + 1),
            digest: RequestDigest([0; 16]),
        };
        store.apply(&[write]).await.expect("it applies");
    }
    for (n, text) in texts.into_iter().enumerate() {
        let got = store.sent(conversation, sender, &fresh::send_id(text)).await.expect("it reads");
        assert_eq!(got.map(|s| s.position), Some(position(n as u64 + 1)), "{text:?}");
    }
    let id = fresh::send_id("a");
    assert_eq!(store.sent(conversation, fresh::account(), &id).await, Ok(None));
    assert_eq!(store.sent(fresh::conversation(), sender, &id).await, Ok(None));
    assert_eq!(store.sent(conversation, sender, &fresh::send_id("b")).await, Ok(None));
}

pub async fn receipts_never_go_back<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let conversation = fresh::conversation();
        let (a, b) = (fresh::account(), fresh::account());
        let times = [fresh::ago(30_000), fresh::ago(20_000), fresh::ago(10_000)];
        let delivered = |account, up_to, when: usize, private| Write::Delivered {
            conversation,
            account,
            up_to: position(up_to),
            at: times[when],
            private,
        };
        let read = |account, up_to, when: usize, private| Write::Read {
            conversation,
            account,
            up_to: position(up_to),
            at: times[when],
            private,
        };
        let writes = [
            delivered(a, 5, 0, false),
            // What came later by the clock is not further: the position decides.
            delivered(a, 4, 2, true),
            delivered(a, 9, 1, true),
            read(a, 7, 1, false),
            read(a, 6, 2, false),
            delivered(b, 2, 0, false),
        ];
        manner.apply(store, &writes).await;
        let mut got = store.receipts(conversation).await.expect("it reads");
        got.sort_by_key(|r| r.account);
        let mut wanted = vec![
            StoredReceipt {
                account: a,
                delivered: Some((position(9), times[1], true)),
                read: Some((position(7), times[1], false)),
            },
            StoredReceipt { account: b, delivered: Some((position(2), times[0], false)), read: None },
        ];
        wanted.sort_by_key(|r| r.account);
        assert_eq!(got, wanted, "{manner:?}");
    }
}

/// Reading what was delivered says "delivered up to" again, later: it was delivered when it first was.
pub async fn an_equal_receipt_keeps_its_first_time<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let (conversation, account) = (fresh::conversation(), fresh::account());
        let (first, second) = (fresh::ago(30_000), fresh::ago(10_000));
        let writes = [first, second].map(|at| Write::Delivered {
            conversation,
            account,
            up_to: position(5),
            at,
            private: false,
        });
        manner.apply(store, &writes).await;
        let got = store.receipts(conversation).await.expect("it reads");
        let delivered = Some((position(5), first, false));
        assert_eq!(got, vec![StoredReceipt { account, delivered, read: None }], "{manner:?}");
    }
}

pub async fn the_newest_state_stands<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let conversation = fresh::conversation();
        let state = |at: u64| ConversationState {
            kind: ConversationType::Group,
            name: (at > 1).then(|| Name::parse(&format!("after {at} ✓")).expect("a name")),
            avatar_url: (at > 2).then(|| AvatarUrl::parse("https://a.example/b.png").expect("a URL")),
            expires_after_s: (at == 1).then_some(3_600),
            created_at: fresh::ago(0),
            members: (0..at * 20)
                .map(|n| Member {
                    account: fresh::account(),
                    role: if n == 0 { Role::Admin } else { Role::Member },
                    joined: position(n + 1),
                    joined_at: fresh::now(),
                })
                .collect(),
        };
        let states: Vec<ConversationState> = (1..=3).map(state).collect();
        let writes: Vec<Write> = states
            .iter()
            .zip([10, 20, 30])
            .map(|(state, at)| Write::State { conversation, at: position(at), state: state.clone() })
            .collect();
        manner.apply(store, &writes).await;
        let got = store.state(conversation).await.expect("it reads");
        assert_eq!(got, Some((position(30), states[2].clone())), "{manner:?}");
    }
}

/// Heads come back in the order asked, unknown ones as none, and one asked twice comes twice.
pub async fn heads_never_go_back<S: StorePort>(store: &S) {
    for manner in Manner::ALL {
        let (a, b, unknown) = (fresh::conversation(), fresh::conversation(), fresh::conversation());
        let times = [fresh::ago(30_000), fresh::ago(20_000)];
        let head = |conversation, at, when: usize| Write::Head {
            conversation,
            head: position(at),
            head_time: times[when],
        };
        manner.apply(store, &[head(a, 5, 1), head(a, 9, 0), head(a, 7, 1), head(b, 1, 0)]).await;
        let (of_a, of_b) = (Some((position(9), times[0])), Some((position(1), times[0])));
        let got = store.heads(&[b, unknown, a, b]).await;
        assert_eq!(got, Ok(vec![of_b, None, of_a, of_b]), "{manner:?}");
    }
    assert_eq!(store.heads(&[]).await, Ok(vec![]));
}

/// The shard is of the whole store, and others may move it too: so forward is all that is asked.
pub async fn watermarks_never_go_back<S: StorePort>(store: &S) {
    let shard = Shard(rand::random());
    let other = Shard(shard.0.wrapping_add(1));
    let stands = async |shard| {
        let all = store.watermarks().await.expect("it reads");
        let of_shard: Vec<Position> = all.iter().filter(|(s, _)| *s == shard).map(|(_, p)| *p).collect();
        assert!(of_shard.len() <= 1, "a shard has one watermark");
        of_shard.first().copied().unwrap_or_default()
    };
    let (base, other_before) = (stands(shard).await.max(position(1)), stands(other).await);
    let at = |n: u64| Position::from_u64(base.as_u64() + n).expect("within the epoch");
    // 7 and 20 have no common factor: the farthest is neither the first nor the last.
    join_all((0..20u64).map(|n| {
        let store = store.clone();
        let to = at((n * 7 + 3) % 20 + 1);
        async move {
            store.advance(&[(shard, to)]).await.expect("it advances");
            let all = store.watermarks().await.expect("it reads");
            let now = all.iter().find(|(s, _)| *s == shard).map(|(_, p)| *p);
            assert!(now >= Some(to), "{now:?} is behind {to}");
        }
    }))
    .await;
    assert!(stands(shard).await >= at(20));
    store.advance(&[(shard, at(3)), (other, other_before.max(position(2)))]).await.expect("it advances");
    assert!(stands(shard).await >= at(20));
    assert!(stands(other).await >= position(2));
    store.advance(&[]).await.expect("nothing is easily done");
}

/// Of what was noted of a day the lowest position stands, for longer than events do.
pub async fn the_first_of_a_day_stands<S: StorePort>(store: &S) {
    // Nothing else writes them, and every run of this later lies lower.
    let base = (1 << 43) - fresh::now().as_millis();
    let shard = Shard(rand::random());
    let mut wanted = Vec::new();
    for (n, manner) in (1..).zip(Manner::ALL) {
        let log_time = fresh::ago(n * 6 * DAY_MS);
        let day = |at, later| {
            let log_time = Timestamp::from_millis(log_time.as_millis() / DAY_MS * DAY_MS + later);
            Write::FirstOfDay { shard, position: position(base + at), log_time }
        };
        manner.apply(store, &[day(7, 7_000), day(5, 6_000), day(9, 5_000)]).await;
        let begins = log_time.as_millis() / DAY_MS * DAY_MS;
        wanted.insert(0, (position(base + 5), Timestamp::from_millis(begins + 6_000)));
    }
    let gone = fresh::ago(u64::from(DAYS_TTL_S) * 1_000 + DAY_MS);
    let other = Shard(shard.0.wrapping_add(1));
    let writes = [
        Write::FirstOfDay { shard, position: position(base), log_time: gone },
        Write::FirstOfDay { shard: other, position: position(base), log_time: fresh::now() },
    ];
    store.apply(&writes).await.expect("it applies");
    let mut got = store.first_of_days(shard).await.expect("it reads");
    // Those that another run noted of other days.
    got.retain(|day| wanted.contains(day) || day.1 == gone);
    assert_eq!(got, wanted, "oldest first");
}

pub async fn settings_stand<S: StorePort>(store: &S) {
    let account = fresh::account();
    assert_eq!(store.settings(account).await, Ok(Settings::default()));
    for messages_from in [MessagesFrom::Nobody, MessagesFrom::Followers, MessagesFrom::Everyone] {
        for read_receipts in [false, true] {
            for presence in [PresenceVisibility::Nobody, PresenceVisibility::Everyone] {
                let settings = Settings { messages_from, read_receipts, presence };
                store.put_settings(account, settings).await.expect("it writes");
                assert_eq!(store.settings(account).await, Ok(settings));
            }
        }
    }
}

pub async fn blocks_stand<S: StorePort>(store: &S) {
    let by = fresh::account();
    let mut others: Vec<_> = (0..5).map(|_| fresh::account()).collect();
    others.sort();
    let blocks = async |limit| {
        let mut got = store.blocks(by, limit).await.expect("it reads");
        got.sort();
        got
    };
    assert_eq!(blocks(10).await, []);
    store.set_block(by, others[0], false).await.expect("unblocking nobody is easily done");
    for other in &others {
        store.set_block(by, *other, true).await.expect("it writes");
        store.set_block(by, *other, true).await.expect("again changes nothing");
    }
    assert_eq!(blocks(10).await, others);
    assert_eq!(blocks(3).await.len(), 3);
    store.set_block(by, others[2], false).await.expect("it writes");
    assert_eq!(store.is_blocked(by, others[2]).await, Ok(false));
    assert_eq!(store.is_blocked(by, others[1]).await, Ok(true));
    assert_eq!(store.is_blocked(others[1], by).await, Ok(false), "a block has a direction");
    store.set_block(by, others[2], true).await.expect("it writes");
    assert_eq!(store.is_blocked(by, others[2]).await, Ok(true));
    assert_eq!(blocks(10).await, others);
}
