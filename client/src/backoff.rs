//! How long to wait before the next try.

use rand::Rng;
use std::time::Duration;

/// Jittered exponential back-off: each wait is drawn from the upper half of a span that doubles, so
/// that clients which lost the same server do not come back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = wait_after(self.first, self.most, self.tries);
        self.tries = self.tries.saturating_add(1);
        wait
    }

    pub(crate) const fn succeeded(&mut self) {
        self.tries = 0;
    }
}

/// The wait after so many failures in vain.
pub(crate) fn wait_after(first: Duration, most: Duration, tries: u32) -> Duration {
    let factor = 1u32.checked_shl(tries).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(most).mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        for expected_ms in [200u64, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let wait = backoff.next_wait();
            let span = Duration::from_millis(expected_ms);
            assert!(wait >= span / 2 && wait <= span, "{wait:?} for {span:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next_wait() <= Duration::from_secs(5), "the doubling must not overflow");
        }
        backoff.succeeded();
        assert!(backoff.next_wait() <= Duration::from_millis(200));
    }
}
