//! Presence as one edge keeps it: whom it holds, and what it has told those who look.
//!
//! A change of presence is told once, over a link that may lose it or pass it on late, and nobody tells that an edge was
//! killed. So each refresh compares what was told here with what is true, and tells the differences.

use crate::edge_link::EdgeId;
use crate::presence::{HOLD_MS, Presence, PresencePort};
use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use reedi_protocol::event::PresenceStatus;
use reedi_protocol::{AccountId, Timestamp};
use std::collections::{HashMap, HashSet};

/// Accounts told of or asked for in one call.
const AT_ONCE: usize = 1_000;
/// Accounts whose visibility is asked for at the same time.
const ASKED_AT_ONCE: usize = 32;

/// Who was said to be here: nobody else has left.
#[derive(Default)]
pub struct Held {
    accounts: HashSet<AccountId>,
    /// Have left, and it could not be said, since when. What is held of them runs out by itself after [`HOLD_MS`].
    unsaid: HashMap<AccountId, Timestamp>,
}

/// What a turn of [`Held`] has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Offline everywhere before.
    pub came: Vec<AccountId>,
    /// Offline everywhere now.
    pub left: Vec<AccountId>,
}

impl Held {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.accounts.len()
    }

    /// Says of those that were `touched` whether they are here. Who came and could not be said to be here is so at the next
    /// [`refresh`], and who left and could not be said to have left with the next [`Held::say_again`].
    pub async fn turn(
        &mut self,
        presence: &impl PresencePort,
        edge: EdgeId,
        touched: impl IntoIterator<Item = AccountId>,
        is_here: impl Fn(AccountId) -> bool,
        now: Timestamp,
    ) -> Turn {
        let (here, gone): (Vec<AccountId>, Vec<AccountId>) =
            touched.into_iter().partition(|account| is_here(*account));
        // Whether or not it could be said: an answer may be lost where the question was not.
        for account in &here {
            self.accounts.insert(*account);
            self.unsaid.remove(account);
        }
        let gone: Vec<_> = gone.into_iter().filter(|account| self.accounts.contains(account)).collect();
        let came = refresh(presence, edge, &here, now).await;
        Turn { came, left: self.say_gone(presence, edge, &gone, now).await }
    }

    /// Says again who has left, as long as somebody may think otherwise. Gives those that are offline everywhere now.
    pub async fn say_again(
        &mut self,
        presence: &impl PresencePort,
        edge: EdgeId,
        now: Timestamp,
    ) -> Vec<AccountId> {
        let has_run_out = |since: Timestamp| now.as_millis().saturating_sub(since.as_millis()) >= HOLD_MS;
        for (account, _) in self.unsaid.extract_if(|_, since| has_run_out(*since)) {
            self.accounts.remove(&account);
        }
        let gone: Vec<AccountId> = self.unsaid.keys().copied().collect();
        self.say_gone(presence, edge, &gone, now).await
    }

    async fn say_gone(
        &mut self,
        presence: &impl PresencePort,
        edge: EdgeId,
        gone: &[AccountId],
        now: Timestamp,
    ) -> Vec<AccountId> {
        let mut left = Vec::new();
        for gone in gone.chunks(AT_ONCE) {
            let answers = presence.leave(edge, gone, now).await;
            for (account, answer) in gone.iter().copied().zip(answers) {
                if let Ok(alone) = answer {
                    self.accounts.remove(&account);
                    self.unsaid.remove(&account);
                    left.extend(alone.then_some(account));
                } else {
                    self.unsaid.entry(account).or_insert(now);
                }
            }
        }
        left
    }
}

/// Says again that `accounts` are here. Gives those that were offline everywhere before: to say it before has failed, or
/// was forgotten.
pub async fn refresh(
    presence: &impl PresencePort,
    edge: EdgeId,
    accounts: &[AccountId],
    now: Timestamp,
) -> Vec<AccountId> {
    let mut came = Vec::new();
    for accounts in accounts.chunks(AT_ONCE) {
        // What is not refreshed runs out by itself; the next round tries again.
        let answers = presence.hold(edge, accounts, now).await;
        came.extend(
            accounts.iter().zip(answers).filter_map(|(account, came)| (came == Ok(true)).then_some(*account)),
        );
    }
    came
}

/// What those who look at an account here were told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    All(PresenceStatus),
    /// Not all of them the same, or some nothing.
    Differing,
}

/// An account that is not as it was told.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub account: AccountId,
    /// What those who look should know.
    pub status: PresenceStatus,
    pub last_seen: Option<Timestamp>,
    before: Option<Last>,
}

/// What was told here of the accounts somebody looks at. Who is not in it was not told of: that is, as offline.
#[derive(Default)]
pub struct Told(Mutex<HashMap<AccountId, Last>>);

impl Told {
    /// One who begins to look was told `status`; `None` where it could not be.
    pub fn answered(&self, account: AccountId, status: Option<PresenceStatus>) {
        let answer = status.map_or(Last::Differing, Last::All);
        let mut told = self.0.lock();
        let last = told.entry(account).or_insert(answer);
        if *last != answer {
            *last = Last::Differing;
        }
    }

    /// Tells all who look by `push`, which gives whether anybody does. What is told and what is remembered change together.
    pub fn tell(&self, account: AccountId, status: PresenceStatus, push: impl FnOnce() -> bool) {
        let mut told = self.0.lock();
        if push() {
            told.insert(account, Last::All(status));
        }
    }

    /// As [`Told::tell`], but not if something else was told since the difference was found, nor what they know.
    pub fn tell_difference(&self, difference: &Difference, push: impl FnOnce() -> bool) {
        let status = difference.status;
        let mut told = self.0.lock();
        let last = told.get(&difference.account).copied();
        if last == difference.before && !knows(last, status) && push() {
            told.insert(difference.account, Last::All(status));
        }
    }

    /// Forgets those nobody looks at.
    pub fn keep(&self, is_looked_at: impl Fn(AccountId) -> bool) {
        self.0.lock().retain(|account, _| is_looked_at(*account));
    }

    /// Those of `accounts` that are not as they were told, which is offline of whoever is not `visible`; none of those that
    /// cannot be asked for now.
    pub async fn differences<V: Future<Output = bool>>(
        &self,
        presence: &impl PresencePort,
        accounts: &[AccountId],
        visible: impl Fn(AccountId) -> V,
        now: Timestamp,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        for accounts in accounts.chunks(AT_ONCE) {
            // Before it is asked: what is told meanwhile is newer than the answer.
            let before: Vec<_> = {
                let told = self.0.lock();
                accounts.iter().map(|account| told.get(account).copied()).collect()
            };
            let found = presence.look(accounts, now).await;
            let seen =
                accounts.iter().copied().zip(found).zip(before).map(|((account, presence), before)| {
                    let visible = visible(account);
                    async move {
                        let Presence { online, last_seen } = presence.ok()?;
                        if !online && knows(before, PresenceStatus::Offline) {
                            return None;
                        }
                        let is_visible = visible.await;
                        let (status, last_seen) =
                            (status_of(online && is_visible), last_seen.filter(|_| is_visible));
                        let difference = Difference { account, status, last_seen, before };
                        (!knows(before, status)).then_some(difference)
                    }
                });
            let seen: Vec<_> = stream::iter(seen).buffered(ASKED_AT_ONCE).collect().await;
            differences.extend(seen.into_iter().flatten());
        }
        differences
    }
}

fn knows(last: Option<Last>, status: PresenceStatus) -> bool {
    last.unwrap_or(Last::All(PresenceStatus::Offline)) == Last::All(status)
}

/// The status of who may be seen.
#[must_use]
pub fn status_of(online: bool) -> PresenceStatus {
    if online { PresenceStatus::Online } else { PresenceStatus::Offline }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::in_memory::InMemoryPresence;
    use crate::presence::{Answers, PresenceError};
    use PresenceStatus::{Offline, Online};
    use futures_util::future::join_all;
    use std::sync::Arc;

    const EDGE: EdgeId = EdgeId(1);
    const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

    fn ann() -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(1))
    }

    fn ben() -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(2))
    }

    /// The presence of this process, parts of which are away at times.
    #[derive(Clone, Default)]
    struct CutOff(InMemoryPresence, Arc<Mutex<HashSet<AccountId>>>);

    impl CutOff {
        fn away(&self, away: &[AccountId]) {
            *self.1.lock() = away.iter().copied().collect();
        }

        fn reach(&self, account: AccountId) -> Result<&InMemoryPresence, PresenceError> {
            let is_away = self.1.lock().contains(&account);
            if is_away { Err(PresenceError("away".to_owned())) } else { Ok(&self.0) }
        }
    }

    impl PresencePort for CutOff {
        async fn hold(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
            join_all(
                accounts
                    .iter()
                    .map(async |account| self.reach(*account)?.hold(edge, &[*account], now).await.remove(0)),
            )
            .await
        }

        async fn leave(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
            join_all(
                accounts
                    .iter()
                    .map(async |account| self.reach(*account)?.leave(edge, &[*account], now).await.remove(0)),
            )
            .await
        }

        async fn look(&self, accounts: &[AccountId], now: Timestamp) -> Answers<Presence> {
            join_all(
                accounts
                    .iter()
                    .map(async |account| self.reach(*account)?.look(&[*account], now).await.remove(0)),
            )
            .await
        }
    }

    async fn told_now(told: &Told, presence: &CutOff, now: Timestamp) -> Vec<PresenceStatus> {
        let mut heard = Vec::new();
        for difference in told.differences(presence, &[ann()], visible, now).await {
            told.tell_difference(&difference, || {
                heard.push(difference.status);
                true
            });
        }
        heard
    }

    async fn visible(_: AccountId) -> bool {
        true
    }

    async fn hidden(_: AccountId) -> bool {
        false
    }

    #[tokio::test]
    async fn who_came_while_presence_was_away_comes_with_the_refresh() {
        let (presence, mut held) = (CutOff::default(), Held::default());
        presence.away(&[ann()]);
        assert_eq!(held.turn(&presence, EDGE, [ann()], |_| true, NOW).await, Turn::default());
        assert!(refresh(&presence, EDGE, &[ann()], NOW).await.is_empty());
        presence.away(&[]);
        assert_eq!(refresh(&presence, EDGE, &[ann()], NOW).await, [ann()]);
        assert!(refresh(&presence, EDGE, &[ann()], NOW).await.is_empty(), "once");
    }

    #[tokio::test]
    async fn who_left_while_presence_was_away_leaves_later() {
        let (presence, mut held) = (CutOff::default(), Held::default());
        held.turn(&presence, EDGE, [ann()], |_| true, NOW).await;
        presence.away(&[ann()]);
        let turn = held.turn(&presence, EDGE, [ann()], |_| false, NOW).await;
        assert_eq!((turn, held.count()), (Turn::default(), 1));
        assert!(held.say_again(&presence, EDGE, NOW).await.is_empty());
        presence.away(&[]);
        assert_eq!(held.say_again(&presence, EDGE, NOW).await, [ann()]);
        assert_eq!(held.say_again(&presence, EDGE, NOW).await, [], "once");
        assert_eq!(
            (held.turn(&presence, EDGE, [ann()], |_| false, NOW).await, held.count()),
            (Turn::default(), 0)
        );
    }

    /// Who is kept in another part of it neither waits for the one that is away nor is asked about again.
    #[tokio::test]
    async fn what_is_there_of_presence_answers_for_those_it_keeps() {
        let (presence, mut held, told) = (CutOff::default(), Held::default(), Told::default());
        let both = [ann(), ben()];
        held.turn(&presence, EDGE, both, |_| true, NOW).await;
        told.answered(ann(), Some(Online));
        told.answered(ben(), Some(Online));
        presence.away(&[ann()]);
        let turn = held.turn(&presence, EDGE, both, |_| false, NOW).await;
        assert_eq!((turn.left, held.count()), (vec![ben()], 1));
        let differences = told.differences(&presence, &both, visible, NOW).await;
        assert_eq!(differences.iter().map(|found| found.account).collect::<Vec<_>>(), [ben()]);
        assert_eq!(held.say_again(&presence, EDGE, NOW).await, []);
        presence.away(&[]);
        assert_eq!((held.say_again(&presence, EDGE, NOW).await, held.count()), (vec![ann()], 0));
    }

    #[tokio::test]
    async fn who_left_long_ago_or_is_back_is_not_said_to_leave() {
        let (presence, mut held) = (CutOff::default(), Held::default());
        held.turn(&presence, EDGE, [ann()], |_| true, NOW).await;
        presence.away(&[ann()]);
        held.turn(&presence, EDGE, [ann()], |_| false, NOW).await;
        held.turn(&presence, EDGE, [ann()], |_| true, NOW).await;
        presence.away(&[]);
        assert_eq!((held.say_again(&presence, EDGE, NOW).await, held.count()), (vec![], 1));
        presence.away(&[ann()]);
        held.turn(&presence, EDGE, [ann()], |_| false, NOW).await;
        let later = NOW.plus_millis(HOLD_MS);
        assert_eq!(
            (held.say_again(&presence, EDGE, later).await, held.count()),
            (vec![], 0),
            "it has run out"
        );
    }

    /// It has chosen so while nobody could be told.
    #[tokio::test]
    async fn who_hides_is_told_to_be_gone() {
        let (presence, told) = (CutOff::default(), Told::default());
        presence.hold(EDGE, &[ann()], NOW).await;
        told.answered(ann(), Some(Online));
        let differences = told.differences(&presence, &[ann()], hidden, NOW).await;
        assert_eq!(differences.iter().map(|found| found.status).collect::<Vec<_>>(), [Offline]);
        told.tell_difference(&differences[0], || true);
        assert!(told.differences(&presence, &[ann()], hidden, NOW).await.is_empty(), "once");
    }

    #[tokio::test]
    async fn who_was_held_by_an_edge_that_was_killed_is_told_to_be_gone() {
        let (presence, told) = (CutOff::default(), Told::default());
        presence.hold(EdgeId(2), &[ann()], NOW).await;
        told.answered(ann(), Some(Online));
        assert!(told_now(&told, &presence, NOW).await.is_empty());
        let over = NOW.plus_millis(HOLD_MS);
        presence.away(&[ann()]);
        assert!(told_now(&told, &presence, over).await.is_empty(), "nobody knows");
        presence.away(&[]);
        assert_eq!(told_now(&told, &presence, over).await, [Offline]);
        assert!(told_now(&told, &presence, over).await.is_empty(), "once");
    }

    #[tokio::test]
    async fn what_was_told_in_the_wrong_order_is_put_right() {
        let (presence, told) = (CutOff::default(), Told::default());
        told.answered(ann(), None);
        let stale = told.differences(&presence, &[ann()], visible, NOW).await;
        presence.hold(EdgeId(2), &[ann()], NOW).await;
        told.tell(ann(), Online, || true);
        told.tell_difference(&stale[0], || panic!("something newer was told"));
        told.tell(ann(), Offline, || true);
        assert_eq!(told_now(&told, &presence, NOW).await, [Online]);
    }

    #[tokio::test]
    async fn who_was_told_otherwise_or_nothing_is_told() {
        let (presence, told) = (CutOff::default(), Told::default());
        assert!(told_now(&told, &presence, NOW).await.is_empty(), "nobody was told, and nobody is here");
        told.answered(ann(), Some(Offline));
        told.answered(ann(), Some(Online));
        assert_eq!(told_now(&told, &presence, NOW).await, [Offline]);
        told.answered(ann(), None);
        assert_eq!(told_now(&told, &presence, NOW).await, [Offline]);
        presence.hold(EDGE, &[ann()], NOW).await;
        told.tell(ann(), Online, || false);
        assert_eq!(told_now(&told, &presence, NOW).await, [Online], "nobody had heard it");
        told.keep(|_| false);
        assert!(told.0.lock().is_empty());
    }
}
