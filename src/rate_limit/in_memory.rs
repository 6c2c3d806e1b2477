//! Rate limits within one process.

use super::{Decision, Rate, RateLimitError, RateLimitPort, Subject, TooEarly, gcra};
use parking_lot::Mutex;
use reedi_protocol::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;

/// Buckets of one kind that are not full, at most: 16 MB or so a kind. Accounts and conversations are as
/// many as this process serves in the time their buckets take to fill; addresses are anybody's.
pub const BUCKETS: usize = 262_144;
/// Full buckets are swept out when there are twice as many as after the last sweep, and so many at
/// least, so that sweeping costs each try a constant.
const SWEEP_BUCKETS: usize = 1_024;
/// What a subject is told when there is no place for its bucket, in milliseconds; and the least between
/// two sweeps that do not free half of the places, so that strangers do not cause one each.
const NO_PLACE_RETRY_MS: u64 = 1_000;

/// Cheap to clone; clones share their buckets.
#[derive(Clone, Default)]
pub struct InMemoryRateLimit {
    kinds: Arc<Kinds>,
}

/// A kind's table by itself: when strangers fill that of addresses, those who are signed in go on.
#[derive(Default)]
struct Kinds {
    accounts: Mutex<Buckets>,
    conversations: Mutex<Buckets>,
    sign_ins: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    full_at_us: HashMap<Subject, u64>,
    left_by_sweep: usize,
    sweep_again_us: u64,
}

impl Buckets {
    fn take(&mut self, subject: Subject, rate: Rate, now_us: u64) -> Decision {
        let known = self.full_at_us.get(&subject).copied();
        let full_at_us = match gcra(known, now_us, rate) {
            Ok(full_at_us) => full_at_us,
            Err(TooEarly { retry_after_ms, tat_us }) => {
                self.full_at_us.insert(subject, tat_us);
                return Decision::Refused { retry_after_ms };
            }
        };
        if known.is_none() && !self.has_place(now_us) {
            return Decision::Refused { retry_after_ms: NO_PLACE_RETRY_MS };
        }
        self.full_at_us.insert(subject, full_at_us);
        Decision::Allowed
    }

    fn has_place(&mut self, now_us: u64) -> bool {
        let due = (self.left_by_sweep * 2).clamp(SWEEP_BUCKETS, BUCKETS);
        if self.full_at_us.len() >= due && now_us >= self.sweep_again_us {
            self.full_at_us.retain(|_, full_at_us| *full_at_us > now_us);
            self.left_by_sweep = self.full_at_us.len();
            let crowded = self.left_by_sweep > BUCKETS / 2;
            self.sweep_again_us = if crowded { now_us + NO_PLACE_RETRY_MS * 1_000 } else { 0 };
        }
        self.full_at_us.len() < BUCKETS
    }
}

impl RateLimitPort for InMemoryRateLimit {
    async fn take(&self, subject: Subject, rate: Rate, now: Timestamp) -> Result<Decision, RateLimitError> {
        let buckets = match subject {
            Subject::Account(_) => &self.kinds.accounts,
            Subject::Conversation(_) => &self.kinds.conversations,
            Subject::SignIn(_) => &self.kinds.sign_ins,
        };
        Ok(buckets.lock().take(subject, rate, now.as_millis().saturating_mul(1_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::conformance;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 10, burst: 1 };

    #[tokio::test]
    async fn conforms() {
        conformance::all(&InMemoryRateLimit::default()).await;
    }

    proptest! {
        #[test]
        fn follows_gcra(tries in proptest::collection::vec(any::<(i16, u16, u16)>(), 1..100)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(conformance::follows_gcra(&InMemoryRateLimit::default(), &tries));
        }
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut buckets = Buckets::default();
        for n in 0..10 * SWEEP_BUCKETS {
            let now_us = n as u64 * 1_000;
            assert_eq!(buckets.take(Subject::SignIn(n as u128), RATE, now_us), Decision::Allowed);
            assert!(buckets.full_at_us.len() <= SWEEP_BUCKETS);
        }
    }

    #[test]
    fn is_bounded() {
        let mut buckets = Buckets::default();
        for n in 0..BUCKETS as u128 {
            assert_eq!(buckets.take(Subject::SignIn(n), RATE, 5), Decision::Allowed);
        }
        let no_place = Decision::Refused { retry_after_ms: NO_PLACE_RETRY_MS };
        assert_eq!(buckets.take(Subject::SignIn(u128::MAX), RATE, 5), no_place);
        assert_eq!(buckets.take(Subject::SignIn(7), RATE, 100_005), Decision::Allowed, "it has its place");
        assert_eq!(buckets.take(Subject::SignIn(u128::MAX), RATE, 100_005), no_place, "swept just now");
        let later_us = 5 + NO_PLACE_RETRY_MS * 1_000;
        assert_eq!(buckets.take(Subject::SignIn(u128::MAX), RATE, later_us), Decision::Allowed);
        assert_eq!(buckets.full_at_us.len(), 1);
    }
}
