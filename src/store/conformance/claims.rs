//! What exactly one caller gets, however many ask at once: pairs, keys, epochs.

use super::fresh;
use crate::store::{Claimed, EpochRow, StorePort};
use futures_util::future::join_all;
use reedi_protocol::Epoch;

/// Callers at once.
const CALLERS: usize = 20;

pub async fn all<S: StorePort>(store: &S) {
    a_pair_has_one_conversation(store).await;
    a_group_key_is_claimed_once(store).await;
    an_epoch_is_claimed_once_and_sealed(store).await;
}

/// Both ask at once, from many places, each with a key of their own: all come to the same.
pub async fn a_pair_has_one_conversation<S: StorePort>(store: &S) {
    let (a, b, c) = (fresh::account(), fresh::account(), fresh::account());
    let tasks = (0..CALLERS).map(|n| {
        let store = store.clone();
        let (one, other) = if n % 2 == 0 { (a, b) } else { (b, a) };
        tokio::spawn(async move {
            let key = fresh::conversation();
            match store.claim_direct(one, other, key).await.expect("it claims") {
                Claimed::New => (true, key),
                Claimed::Stood(key) => (false, key),
            }
        })
    });
    let got: Vec<(bool, _)> = join_all(tasks).await.into_iter().map(|t| t.expect("it ran")).collect();
    let key = got[0].1;
    assert!(got.iter().all(|(_, k)| *k == key), "all come to one key");
    assert_eq!(got.iter().filter(|(new, _)| *new).count(), 1, "it is new to one of them");
    for (one, other) in [(a, b), (b, a)] {
        let again = store.claim_direct(one, other, fresh::conversation()).await;
        assert_eq!(again, Ok(Claimed::Stood(key)));
    }
    let (with_a, with_b) = (fresh::conversation(), fresh::conversation());
    assert_eq!(store.claim_direct(a, c, with_a).await, Ok(Claimed::New), "another pair is apart");
    assert_eq!(store.claim_direct(c, b, with_b).await, Ok(Claimed::New));
    assert_eq!(store.claim_direct(c, a, with_b).await, Ok(Claimed::Stood(with_a)));
}

pub async fn a_group_key_is_claimed_once<S: StorePort>(store: &S) {
    let key = fresh::conversation();
    let tasks = (0..CALLERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.claim_group(key).await.expect("it claims") })
    });
    let got = join_all(tasks).await;
    let new = got.into_iter().filter(|t| matches!(t, Ok(Claimed::New))).count();
    assert_eq!(new, 1);
    assert_eq!(store.claim_group(key).await, Ok(Claimed::Stood(())));
    assert_eq!(store.claim_group(fresh::conversation()).await, Ok(Claimed::New));
}

/// Takes the lowest free epoch of the store: a store serves this check a hundred times.
pub async fn an_epoch_is_claimed_once_and_sealed<S: StorePort>(store: &S) {
    let taken: Vec<Epoch> = store.epochs().await.expect("it reads").iter().map(|r| r.epoch).collect();
    let epoch = (1..=Epoch::LAST.number())
        .filter_map(Epoch::new)
        .find(|epoch| !taken.contains(epoch))
        .expect("a store with an epoch left");
    let row = |n: usize| EpochRow {
        epoch,
        incarnations: (0..1 << (n % 4)).map(|slice| format!("{}-{slice}", fresh::account())).collect(),
        sealed: false,
    };
    let tasks = (0..CALLERS).map(|n| {
        let (store, mine) = (store.clone(), row(n));
        tokio::spawn(async move {
            match store.claim_epoch(&mine).await.expect("it claims") {
                Claimed::New => (true, mine),
                Claimed::Stood(row) => (false, row),
            }
        })
    });
    let got: Vec<(bool, EpochRow)> = join_all(tasks).await.into_iter().map(|t| t.expect("it ran")).collect();
    let stands = got[0].1.clone();
    assert!(got.iter().all(|(_, row)| *row == stands), "all come to one row");
    assert_eq!(got.iter().filter(|(new, _)| *new).count(), 1, "it is new to one of them");

    let read = async || {
        let mut rows = store.epochs().await.expect("it reads");
        rows.retain(|row| row.epoch == epoch);
        rows
    };
    assert_eq!(read().await, vec![stands.clone()]);
    let sealed = EpochRow { sealed: true, ..stands };
    for _ in 0..2 {
        store.seal_epoch(epoch).await.expect("it seals");
        assert_eq!(read().await, vec![sealed.clone()]);
    }
    assert_eq!(store.claim_epoch(&row(0)).await, Ok(Claimed::Stood(sealed)));
}
