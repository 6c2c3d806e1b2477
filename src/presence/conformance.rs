//! What every presence adapter does. Each check takes accounts and edges of its own, so that checks
//! may run at the same time on one Redis; a failed check panics.

use super::{Answers, HOLD_MS, Presence, PresencePort};
use crate::edge_link::EdgeId;
use futures_util::future::join_all;
use reedi_protocol::{AccountId, Timestamp};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
const ONLINE: Presence = Presence { online: true, last_seen: None };

fn account() -> AccountId {
    AccountId::new(Uuid::new_v4())
}

fn edge() -> EdgeId {
    EdgeId(rand::random())
}

fn offline(last_seen: Timestamp) -> Presence {
    Presence { online: false, last_seen: Some(last_seen) }
}

fn one<T>(mut answers: Answers<T>) -> T {
    assert_eq!(answers.len(), 1);
    answers.remove(0).expect("an answer")
}

async fn look(port: &impl PresencePort, who: AccountId, now: Timestamp) -> Presence {
    one(port.look(&[who], now).await)
}

async fn hold(port: &impl PresencePort, edge: EdgeId, who: AccountId, now: Timestamp) -> bool {
    one(port.hold(edge, &[who], now).await)
}

async fn leave(port: &impl PresencePort, edge: EdgeId, who: AccountId, now: Timestamp) -> bool {
    one(port.leave(edge, &[who], now).await)
}

/// All checks.
pub async fn all(port: &impl PresencePort) {
    an_account_is_online_while_an_edge_holds_it(port).await;
    a_hold_ends_by_itself(port).await;
    a_hold_is_never_shortened(port).await;
    what_is_unknown_is_offline(port).await;
    many_are_answered_in_order(port).await;
    one_of_many_edges_is_the_first(port).await;
}

/// On one edge, on two, on none.
pub async fn an_account_is_online_while_an_edge_holds_it(port: &impl PresencePort) {
    let (who, one, two) = (account(), edge(), edge());
    assert!(hold(port, one, who, NOW).await, "it came");
    assert!(!hold(port, one, who, NOW).await, "it was there");
    assert!(!hold(port, two, who, NOW).await, "it was on another edge");
    assert_eq!(look(port, who, NOW).await, ONLINE);
    assert!(!leave(port, one, who, NOW.plus_millis(10)).await, "it is still on the other");
    assert_eq!(look(port, who, NOW.plus_millis(10)).await, ONLINE);
    assert!(leave(port, two, who, NOW.plus_millis(20)).await, "it is nowhere");
    assert_eq!(look(port, who, NOW.plus_millis(30)).await, offline(NOW.plus_millis(20)));
    assert!(hold(port, two, who, NOW.plus_millis(40)).await, "it came again");
    assert_eq!(look(port, who, NOW.plus_millis(50)).await, ONLINE);
}

/// An edge that died is not told by anybody.
pub async fn a_hold_ends_by_itself(port: &impl PresencePort) {
    let (who, one, two) = (account(), edge(), edge());
    assert!(hold(port, one, who, NOW).await);
    assert_eq!(look(port, who, NOW.plus_millis(HOLD_MS - 1)).await, ONLINE);
    assert_eq!(look(port, who, NOW.plus_millis(HOLD_MS)).await, offline(NOW), "seen when last held");
    let again = NOW.plus_millis(HOLD_MS + 5);
    assert!(hold(port, two, who, again).await, "nobody held it any more");
    assert!(!hold(port, two, who, again.plus_millis(HOLD_MS - 1)).await, "it was held all the time");
    let left = again.plus_millis(HOLD_MS + 1);
    assert!(leave(port, two, who, left).await, "the hold of the dead edge does not count");
    assert_eq!(look(port, who, left).await, offline(left));
    assert!(leave(port, one, who, NOW).await, "a late word changes nothing");
    assert_eq!(look(port, who, left).await, offline(left));
}

/// Refreshes may overtake each other.
pub async fn a_hold_is_never_shortened(port: &impl PresencePort) {
    let (who, one) = (account(), edge());
    assert!(hold(port, one, who, NOW.plus_millis(1_000)).await);
    assert!(!hold(port, one, who, NOW).await);
    assert_eq!(look(port, who, NOW.plus_millis(HOLD_MS + 999)).await, ONLINE);
    assert_eq!(look(port, who, NOW.plus_millis(HOLD_MS + 1_000)).await, offline(NOW.plus_millis(1_000)));
}

/// Never seen; or forgotten, while an edge held it.
pub async fn what_is_unknown_is_offline(port: &impl PresencePort) {
    let who = account();
    assert_eq!(look(port, who, NOW).await, Presence { online: false, last_seen: None });
    assert!(leave(port, edge(), who, NOW).await);
    assert_eq!(look(port, who, NOW.plus_millis(1)).await, offline(NOW));
    assert_eq!(port.look(&[], NOW).await, []);
    assert_eq!(port.hold(edge(), &[], NOW).await, []);
    assert_eq!(port.leave(edge(), &[], NOW).await, []);
}

/// As many as an edge refreshes at once, on all servers of a cluster.
pub async fn many_are_answered_in_order(port: &impl PresencePort) {
    let everybody: Vec<AccountId> = (0..3_000).map(|_| account()).collect();
    let (one, two) = (edge(), edge());
    let third: Vec<AccountId> = everybody.iter().step_by(3).copied().collect();
    assert_eq!(port.hold(one, &third, NOW).await, vec![Ok(true); third.len()]);
    let others: Answers<bool> = (0..everybody.len()).map(|place| Ok(place % 3 != 0)).collect();
    assert_eq!(port.hold(two, &everybody, NOW).await, others);
    assert_eq!(port.leave(two, &everybody, NOW).await, others);
    let told = port.look(&everybody, NOW).await;
    assert_eq!(told.len(), everybody.len());
    for (place, presence) in told.into_iter().enumerate() {
        assert_eq!(presence, Ok(if place % 3 == 0 { ONLINE } else { offline(NOW) }), "at {place}");
    }
}

/// So that one edge tells the others that it came.
pub async fn one_of_many_edges_is_the_first(port: &impl PresencePort) {
    let who = account();
    let edges: Vec<EdgeId> = (0..16).map(|_| edge()).collect();
    let came = join_all(edges.iter().map(|edge| hold(port, *edge, who, NOW))).await;
    assert_eq!(came.into_iter().filter(|first| *first).count(), 1);
    let left = join_all(edges.iter().map(|edge| leave(port, *edge, who, NOW))).await;
    assert_eq!(left.into_iter().filter(|last| *last).count(), 1);
}

/// `empty` makes the adapter forget everything, as a Redis without disk does when it starts again.
pub async fn heals_after_being_emptied(port: &impl PresencePort, empty: impl AsyncFnOnce()) {
    let (kept, left, one) = (account(), account(), edge());
    assert!(hold(port, one, kept, NOW).await && hold(port, one, left, NOW).await);
    empty().await;
    let later = NOW.plus_millis(1);
    assert_eq!(look(port, kept, later).await, Presence { online: false, last_seen: None });
    assert!(hold(port, one, kept, later).await, "the next hold tells that it is there");
    assert_eq!(look(port, kept, later).await, ONLINE);
    assert!(leave(port, one, left, later).await, "who left is told to have left");
    assert_eq!(look(port, left, later).await, offline(later));
}
