//! Presence within one process.

use super::{Answers, HOLD_MS, LAST_SEEN_KEPT_MS, Presence, PresenceError, PresencePort};
use crate::edge_link::EdgeId;
use parking_lot::Mutex;
use reedi_protocol::{AccountId, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// Accounts remembered at most, online or seen lately: some 40 MB, and more people than one process serves.
pub const ACCOUNTS: usize = 262_144;
/// What is over is swept out when there are twice as many accounts as after the last sweep, and so many
/// at least, so that sweeping costs each hold a constant.
const SWEEP_ACCOUNTS: usize = 1_024;
/// Between two sweeps that do not free half of the places, in milliseconds: so that newcomers to a full
/// table do not each pay for one.
const SWEEP_PAUSE_MS: u64 = 1_000;

/// Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub struct InMemoryPresence {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    accounts: HashMap<AccountId, Account>,
    left_by_sweep: usize,
    sweep_again_ms: u64,
}

#[derive(Default)]
struct Account {
    /// Until when, in milliseconds; one or two edges, seldom more.
    holds: Vec<(EdgeId, u64)>,
    seen_ms: Option<u64>,
}

impl Account {
    /// Drops the holds that are over, and remembers when those accounts were last seen.
    fn expire(&mut self, now_ms: u64) {
        let seen_ms = &mut self.seen_ms;
        self.holds.retain(|&(_, until_ms)| {
            let holds = until_ms > now_ms;
            if !holds {
                *seen_ms = (*seen_ms).max(Some(until_ms.saturating_sub(HOLD_MS)));
            }
            holds
        });
    }

    fn is_over(&self, now_ms: u64) -> bool {
        let forgotten = |seen_ms: u64| seen_ms.saturating_add(LAST_SEEN_KEPT_MS) <= now_ms;
        self.holds.is_empty() && self.seen_ms.is_none_or(forgotten)
    }
}

impl Known {
    /// Makes place for one account more.
    fn admit(&mut self, now_ms: u64) -> Result<(), PresenceError> {
        let due = (self.left_by_sweep * 2).clamp(SWEEP_ACCOUNTS, ACCOUNTS);
        if self.accounts.len() >= due && now_ms >= self.sweep_again_ms {
            self.accounts.retain(|_, account| {
                account.expire(now_ms);
                !account.is_over(now_ms)
            });
            if self.accounts.len() >= ACCOUNTS {
                // When somebody was last seen is worth less than who is online.
                self.accounts.retain(|_, account| !account.holds.is_empty());
            }
            self.left_by_sweep = self.accounts.len();
            let crowded = self.left_by_sweep > ACCOUNTS / 2;
            self.sweep_again_ms = if crowded { now_ms.saturating_add(SWEEP_PAUSE_MS) } else { 0 };
        }
        if self.accounts.len() >= ACCOUNTS {
            return Err(PresenceError(format!("more than {ACCOUNTS} accounts are online")));
        }
        Ok(())
    }

    fn account(&mut self, id: AccountId, now_ms: u64) -> Result<&mut Account, PresenceError> {
        if !self.accounts.contains_key(&id) {
            self.admit(now_ms)?;
        }
        let account = self.accounts.entry(id).or_default();
        account.expire(now_ms);
        Ok(account)
    }
}

impl PresencePort for InMemoryPresence {
    async fn hold(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        let now_ms = now.as_millis();
        let until_ms = now_ms.saturating_add(HOLD_MS);
        let mut known = self.known.lock();
        let mut hold = |id| {
            let account = known.account(id, now_ms)?;
            let came = account.holds.is_empty();
            match account.holds.iter_mut().find(|(holder, _)| *holder == edge) {
                Some((_, until)) => *until = until_ms.max(*until),
                None => account.holds.push((edge, until_ms)),
            }
            Ok(came)
        };
        accounts.iter().map(|id| hold(*id)).collect()
    }

    async fn leave(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        let now_ms = now.as_millis();
        let mut known = self.known.lock();
        let mut leave = |id| {
            let account = known.account(id, now_ms)?;
            account.holds.retain(|(holder, _)| *holder != edge);
            account.seen_ms = account.seen_ms.max(Some(now_ms));
            Ok(account.holds.is_empty())
        };
        accounts.iter().map(|id| leave(*id)).collect()
    }

    async fn look(&self, accounts: &[AccountId], now: Timestamp) -> Answers<Presence> {
        let now_ms = now.as_millis();
        let mut known = self.known.lock();
        let look = |id| {
            let Some(account) = known.accounts.get_mut(id) else {
                return Ok(Presence { online: false, last_seen: None });
            };
            account.expire(now_ms);
            let online = !account.holds.is_empty();
            let told = !online && !account.is_over(now_ms);
            let last_seen = account.seen_ms.filter(|_| told).map(Timestamp::from_millis);
            Ok(Presence { online, last_seen })
        };
        accounts.iter().map(look).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::conformance;
    use uuid::Uuid;

    #[tokio::test]
    async fn conforms() {
        conformance::all(&InMemoryPresence::default()).await;
    }

    #[tokio::test]
    async fn forgets_who_was_not_seen_for_long() {
        let presence = InMemoryPresence::default();
        let accounts = |from: usize| -> Vec<AccountId> {
            (from..from + SWEEP_ACCOUNTS).map(|n| AccountId::new(Uuid::from_u128(n as u128))).collect()
        };
        let first = Timestamp::from_millis(1_000_000);
        presence.hold(EdgeId(1), &accounts(0), first).await;
        let last = first.plus_millis(LAST_SEEN_KEPT_MS - 1);
        let told = presence.look(&accounts(0), last).await;
        assert_eq!(told[0], Ok(Presence { online: false, last_seen: Some(first) }));
        let over = first.plus_millis(LAST_SEEN_KEPT_MS);
        let told = presence.look(&accounts(0), over).await;
        assert_eq!(told[0], Ok(Presence { online: false, last_seen: None }));
        presence.hold(EdgeId(1), &accounts(SWEEP_ACCOUNTS), over).await;
        assert_eq!(presence.known.lock().accounts.len(), SWEEP_ACCOUNTS);
    }

    #[test]
    fn is_bounded() {
        let mut known = Known::default();
        for n in 0..ACCOUNTS {
            let account = Account { holds: Vec::new(), seen_ms: Some(5) };
            known.accounts.insert(AccountId::new(Uuid::from_u128(n as u128)), account);
        }
        let new = |n: u128| AccountId::new(Uuid::from_u128(u128::MAX - n));
        assert!(known.account(new(0), 10).is_ok(), "who is offline makes place");
        assert_eq!(known.accounts.len(), 1);
        for n in 1..=ACCOUNTS as u128 + 1 {
            match known.account(new(n), 10) {
                Ok(account) => account.holds.push((EdgeId(1), 100)),
                Err(error) => {
                    assert!(known.accounts.len() == ACCOUNTS, "{error}");
                    return;
                }
            }
        }
        panic!("more than {ACCOUNTS} accounts were taken");
    }
}
