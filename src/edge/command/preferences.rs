//! Settings and blocks: who may message whom, and what others learn.

use crate::edge::Edge;
use crate::edge::refused::Outcome;
use crate::people::PeoplePort;
use crate::store::Preferences as _;
use parking_lot::Mutex;
use reedi_protocol::AccountId;
use reedi_protocol::resource::{MessagesFrom, Settings};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long an edge goes by what it read. What is changed through it counts at once; through another
/// edge, after this time.
const FRESH_FOR: Duration = Duration::from_secs(2);
/// Entries of each cache; beyond, it begins anew.
const MOST: usize = 65_536;

#[derive(Default)]
pub struct Cache {
    settings: Mutex<HashMap<AccountId, (Instant, Settings)>>,
    may: Mutex<HashMap<(AccountId, AccountId), (Instant, bool)>>,
}

impl Edge {
    /// # Errors
    /// The store is away and they were not read before.
    pub async fn settings(&self, account: AccountId) -> Outcome<Settings> {
        let held = self.preferences.settings.lock().get(&account).copied();
        if let Some((read, settings)) = held
            && read.elapsed() < FRESH_FOR
        {
            return Ok(settings);
        }
        match (self.store.settings(account).await, held) {
            (Ok(settings), _) => {
                remember(&self.preferences.settings, account, settings);
                Ok(settings)
            }
            (Err(_), Some((_, settings))) => Ok(settings),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// # Errors
    /// The store is away.
    pub async fn put_settings(&self, account: AccountId, settings: Settings) -> Outcome<()> {
        self.store.put_settings(account, settings).await?;
        remember(&self.preferences.settings, account, settings);
        self.preferences.may.lock().retain(|(_, to), _| *to != account);
        Ok(())
    }

    /// # Errors
    /// The store is away.
    pub async fn set_block(&self, by: AccountId, account: AccountId, blocked: bool) -> Outcome<()> {
        self.store.set_block(by, account, blocked).await?;
        self.preferences.may.lock().remove(&(account, by));
        Ok(())
    }

    /// Whether `from` may message `to`: neither blocked nor refused by settings.
    ///
    /// # Errors
    /// The store is away and it was not read before.
    pub async fn may_message(&self, from: AccountId, to: AccountId) -> Outcome<bool> {
        let held = self.preferences.may.lock().get(&(from, to)).copied();
        if let Some((read, may)) = held
            && read.elapsed() < FRESH_FOR
        {
            return Ok(may);
        }
        match (self.judge_may_message(from, to).await, held) {
            (Ok(may), _) => {
                remember(&self.preferences.may, (from, to), may);
                Ok(may)
            }
            // With the store away, what was known goes on.
            (Err(_), Some((_, may))) => Ok(may),
            (Err(refused), None) => Err(refused),
        }
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

fn remember<K: std::hash::Hash + Eq, V>(cache: &Mutex<HashMap<K, (Instant, V)>>, key: K, value: V) {
    let mut cache = cache.lock();
    if cache.len() >= MOST {
        cache.clear();
    }
    cache.insert(key, (Instant::now(), value));
}
