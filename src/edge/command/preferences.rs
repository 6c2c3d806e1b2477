//! Settings and blocks: who may message whom, and what others learn.

use crate::edge::Edge;
use crate::edge::refused::{Outcome, Refused};
use crate::edge_link::{EdgeLinkPort as _, ToEdge};
use crate::people::PeoplePort;
use crate::store::Preferences as _;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use quick_cache::unsync;
use reedi_protocol::AccountId;
use reedi_protocol::resource::{MessagesFrom, Settings};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// How long an edge goes by what it read. Changes are told to all edges and count at once; this is for an edge
/// that could not be told. Who may message whom is judged by settings that may be this old already, and twice
/// this is as old as what an edge knows of members may be (rule P7).
const FRESH_FOR: Duration = Duration::from_secs(15);
/// Entries of each cache. Beyond, one makes room that is not in use: whoever names accounts that nobody knows pushes out
/// no others.
const MOST: usize = 65_536;
/// Accounts that are asked about at once, where a client names many.
const ASKED_AT_ONCE: usize = 32;

/// What an edge remembers of what accounts allow.
#[derive(Default)]
pub struct Cache {
    settings: Mutex<Held<AccountId, Settings>>,
    may: Mutex<Held<(AccountId, AccountId), bool>>,
}

impl Cache {
    /// What `account` allows has changed.
    pub fn forget(&self, account: AccountId) {
        self.settings.lock().forget(|of| *of == account);
        self.may.lock().forget(|(_, to)| *to == account);
    }
}

struct Held<K, V> {
    entries: unsync::Cache<K, (Instant, V)>,
    /// Counts what was forgotten: what was read before that is not remembered after it.
    forgotten: u64,
}

impl<K: Hash + Eq, V> Default for Held<K, V> {
    fn default() -> Self {
        Self { entries: unsync::Cache::new(MOST), forgotten: 0 }
    }
}

impl<K: Hash + Eq, V: Copy> Held<K, V> {
    /// What is remembered, whether it is fresh, and the time to say to [`Held::remember`] what is read now.
    fn get(&self, key: &K) -> (Option<V>, bool, u64) {
        let held = self.entries.get(key);
        let is_fresh = held.is_some_and(|(read, _)| read.elapsed() < FRESH_FOR);
        (held.map(|(_, value)| *value), is_fresh, self.forgotten)
    }

    fn remember(&mut self, key: K, value: V, forgotten: u64) {
        if forgotten == self.forgotten {
            self.entries.insert(key, (Instant::now(), value));
        }
    }

    fn forget(&mut self, which: impl Fn(&K) -> bool) {
        self.forgotten += 1;
        self.entries.retain(|key, _| !which(key));
    }
}

impl Edge {
    /// # Errors
    /// The store is away and they were not read before.
    pub async fn settings(&self, account: AccountId) -> Outcome<Settings> {
        let (held, is_fresh, forgotten) = self.preferences.settings.lock().get(&account);
        if let (Some(settings), true) = (held, is_fresh) {
            return Ok(settings);
        }
        match (self.store.settings(account).await, held) {
            (Ok(settings), _) => {
                self.preferences.settings.lock().remember(account, settings, forgotten);
                Ok(settings)
            }
            (Err(_), Some(settings)) => Ok(settings),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// # Errors
    /// The store is away.
    pub async fn put_settings(&self, account: AccountId, settings: Settings) -> Outcome<()> {
        let before = self.settings(account).await?.presence;
        self.store.put_settings(account, settings).await?;
        self.preferences_changed(account).await;
        if settings.presence != before {
            crate::edge::fleeting::visibility_changed(self, account, settings.presence).await;
        }
        Ok(())
    }

    /// # Errors
    /// The store is away.
    pub async fn set_block(&self, by: AccountId, account: AccountId, blocked: bool) -> Outcome<()> {
        self.store.set_block(by, account, blocked).await?;
        self.preferences_changed(by).await;
        Ok(())
    }

    async fn preferences_changed(&self, account: AccountId) {
        self.preferences.forget(account);
        if let Err(error) = self.link.to_all_edges(ToEdge::Preferences { account }).await {
            tracing::debug!(%error, "other edges go by older preferences for some seconds");
        }
    }

    /// Whether `from` may message `to`: neither blocked nor refused by settings.
    ///
    /// # Errors
    /// The store is away and it was not read before.
    pub async fn may_message(&self, from: AccountId, to: AccountId) -> Outcome<bool> {
        let (held, is_fresh, forgotten) = self.preferences.may.lock().get(&(from, to));
        if let (Some(may), true) = (held, is_fresh) {
            return Ok(may);
        }
        match (self.judge_may_message(from, to).await, held) {
            (Ok(may), _) => {
                self.preferences.may.lock().remember((from, to), may, forgotten);
                Ok(may)
            }
            // With the store away, what was known goes on.
            (Err(_), Some(may)) => Ok(may),
            (Err(refused), None) => Err(refused),
        }
    }

    /// Whether `from` may message every one of `to`, for a command that is counted: more than are asked about at once count
    /// as more commands.
    ///
    /// # Errors
    /// Not one of them, too many commands, or as for [`Self::may_message`].
    pub async fn may_message_all(&self, from: AccountId, to: &[AccountId]) -> Outcome<()> {
        for (n, some) in to.chunks(ASKED_AT_ONCE).enumerate() {
            if n > 0 {
                self.admission.command(from, self.clock.now()).await?;
            }
            all_may(some.iter().copied().map(move |account| self.may_message(from, account))).await?;
        }
        Ok(())
    }

    async fn judge_may_message(&self, from: AccountId, to: AccountId) -> Outcome<bool> {
        if self.store.is_blocked(to, from).await? {
            return Ok(false);
        }
        Ok(match self.settings(to).await?.messages_from {
            MessagesFrom::Everyone => true,
            MessagesFrom::Nobody => false,
            MessagesFrom::Followers => self.people.follows(from, to).await.unwrap_or(false),
        })
    }
}

/// Waits for a bounded number of answers at once. The first refusal in the order asked is told, whichever comes first.
async fn all_may(asked: impl Iterator<Item = impl Future<Output = Outcome<bool>>>) -> Outcome<()> {
    let mut answers = stream::iter(asked).buffered(ASKED_AT_ONCE);
    while let Some(may) = answers.next().await {
        if !may? {
            return Err(Refused::recipient_unavailable());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::ErrorCode;

    #[test]
    fn what_is_in_use_outlives_a_flood() {
        let mut held = Held::default();
        held.remember(0, true, 0);
        for key in 1..=2 * MOST {
            held.remember(key, true, 0);
            assert_eq!(held.get(&0).0, Some(true), "pushed out by {key} others");
        }
        assert!(held.entries.len() <= MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_asked_about_at_once_and_the_first_refusal_is_told() {
        let asked = Instant::now();
        let answer = |n: u64, answer: Outcome<bool>| async move {
            // sleeps: paused time, in which later ones answer earlier
            tokio::time::sleep(Duration::from_millis(1_000 - n)).await;
            answer
        };
        assert_eq!(all_may((0..100).map(|n| answer(n, Ok(true)))).await, Ok(()));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        let refused = |n| match n {
            7 => Ok(false),
            9 => Err(Refused::not_found()),
            _ => Ok(true),
        };
        let told = all_may((0..100).map(|n| answer(n, refused(n)))).await.unwrap_err();
        assert_eq!(told.code, ErrorCode::RecipientUnavailable);
    }

    #[tokio::test]
    async fn what_was_read_before_it_changed_is_not_remembered() {
        let mut held = Held::default();
        let (none, _, forgotten) = held.get(&1);
        assert_eq!(none, None);
        held.remember(1, "before", forgotten);
        assert_eq!(held.get(&1), (Some("before"), true, forgotten));
        held.forget(|key| *key == 1);
        held.remember(1, "before", forgotten);
        assert_eq!(held.get(&1).0, None, "it was read before the change");
        let (_, _, forgotten) = held.get(&1);
        held.remember(1, "after", forgotten);
        assert_eq!(held.get(&1).0, Some("after"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_read_again_and_stands_where_it_cannot_be() {
        let mut held = Held::default();
        held.remember(1, true, 0);
        tokio::time::advance(FRESH_FOR).await;
        assert_eq!(held.get(&1), (Some(true), false, 0));
    }
}
