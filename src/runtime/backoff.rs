//! How long to wait before trying again.

use rand::Rng;
use std::time::Duration;

/// Delays that double up to a cap, each drawn evenly from its upper half, so that many who lost the
/// same part at the same moment do not come back together. Never ends; whoever tries decides when
/// to give up.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// For outside parts of the cluster: back within a second of their return, and at most a
    /// try each 5 s while they are away.
    #[must_use]
    pub fn for_parts() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Begins at `first`, and never waits longer than `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let first = first.min(cap);
        Self { first, cap, next: first }
    }

    /// Begins again, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.cap);
        Some(super::random::rng().random_range(full / 2..=full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_double_to_the_cap_and_stay_in_their_upper_half(first_ms in 0u64..1_000, cap_ms in 0u64..100_000) {
            let (first, cap) = (Duration::from_millis(first_ms), Duration::from_millis(cap_ms));
            let mut full = first.min(cap);
            for delay in Backoff::new(first, cap).take(40) {
                prop_assert!(full / 2 <= delay && delay <= full, "{delay:?} of {full:?}");
                full = (full * 2).min(cap);
            }
        }
    }

    #[test]
    fn after_a_reset_it_begins_again() {
        let mut backoff = Backoff::for_parts();
        let tenth = backoff.nth(9).unwrap_or_default();
        assert!(tenth >= Duration::from_millis(2_500), "{tenth:?}");
        backoff.reset();
        assert!(backoff.next().unwrap_or_default() <= Duration::from_millis(100));
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let last = Backoff::new(Duration::MAX, Duration::MAX).nth(3);
        assert!(last.is_some_and(|d| d >= Duration::MAX / 2));
    }
}
