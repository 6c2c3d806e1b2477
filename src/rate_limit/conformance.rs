//! What every rate limit adapter does. Each check takes subjects of its own, so that checks may run
//! at the same time on one Redis; a failed check panics.

use super::{CLOCKS_DIFFER_MS, Decision, Rate, RateLimitPort, Subject, TooEarly, gcra};
use futures_util::future::join_all;
use reedi_protocol::{AccountId, ConversationKey, Timestamp};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
const RATE: Rate = Rate { per_second: 10, burst: 5 };

fn subject() -> Subject {
    Subject::Account(AccountId::new(Uuid::new_v4()))
}

async fn take(port: &impl RateLimitPort, subject: Subject, rate: Rate, now: Timestamp) -> Decision {
    port.take(subject, rate, now).await.expect("a decision")
}

/// All checks but those that need more than the adapter.
pub async fn all(port: &impl RateLimitPort) {
    a_burst_then_the_rate(port).await;
    a_refusal_costs_nothing(port).await;
    a_number_from_a_clock_ahead_does_not_bind(port).await;
    subjects_are_apart(port).await;
    takers_at_once_get_the_burst_once(port).await;
    extremes_are_decided(port).await;
    follows_gcra(port, &random_tries(1_000)).await;
}

/// As many at once as the burst, then one each interval.
pub async fn a_burst_then_the_rate(port: &impl RateLimitPort) {
    let who = subject();
    for _ in 0..RATE.burst {
        assert_eq!(take(port, who, RATE, NOW).await, Decision::Allowed);
    }
    assert_eq!(take(port, who, RATE, NOW).await, Decision::Refused { retry_after_ms: 100 });
    let (early, due) = (NOW.plus_millis(99), NOW.plus_millis(100));
    assert_eq!(take(port, who, RATE, early).await, Decision::Refused { retry_after_ms: 1 });
    assert_eq!(take(port, who, RATE, due).await, Decision::Allowed);
    assert_eq!(take(port, who, RATE, due).await, Decision::Refused { retry_after_ms: 100 });
    let much_later = NOW.plus_millis(3_600_000);
    for _ in 0..RATE.burst {
        assert_eq!(take(port, who, RATE, much_later).await, Decision::Allowed, "the bucket is full again");
    }
    assert_eq!(take(port, who, RATE, much_later).await, Decision::Refused { retry_after_ms: 100 });
}

/// Otherwise a client that hammers would never be let in again.
pub async fn a_refusal_costs_nothing(port: &impl RateLimitPort) {
    let (who, rate) = (subject(), Rate { per_second: 1, burst: 1 });
    assert_eq!(take(port, who, rate, NOW).await, Decision::Allowed);
    for _ in 0..20 {
        assert_eq!(take(port, who, rate, NOW).await, Decision::Refused { retry_after_ms: 1_000 });
    }
    assert_eq!(take(port, who, rate, NOW.plus_millis(1_000)).await, Decision::Allowed);
}

/// An edge whose clock is an hour ahead takes a whole burst; then one with a good clock is asked.
pub async fn a_number_from_a_clock_ahead_does_not_bind(port: &impl RateLimitPort) {
    let (who, ahead) = (subject(), NOW.plus_millis(3_600_000));
    for _ in 0..RATE.burst {
        assert_eq!(take(port, who, RATE, ahead).await, Decision::Allowed);
    }
    let most_ms = CLOCKS_DIFFER_MS + 100;
    assert_eq!(take(port, who, RATE, NOW).await, Decision::Refused { retry_after_ms: most_ms });
    let (early, due) = (NOW.plus_millis(most_ms - 1), NOW.plus_millis(most_ms));
    assert_eq!(take(port, who, RATE, early).await, Decision::Refused { retry_after_ms: 1 });
    assert_eq!(take(port, who, RATE, due).await, Decision::Allowed);
    // As far as clocks may differ a number holds: else edges with different clocks would not limit together.
    let within = due.plus_millis(CLOCKS_DIFFER_MS);
    let who = subject();
    for _ in 0..RATE.burst {
        assert_eq!(take(port, who, RATE, within).await, Decision::Allowed);
    }
    for at in [due, due.plus_millis(1_000)] {
        assert!(matches!(take(port, who, RATE, at).await, Decision::Refused { .. }));
    }
    assert_eq!(take(port, who, RATE, within).await, Decision::Refused { retry_after_ms: 100 });
}

/// Subjects with the same number are not the same.
pub async fn subjects_are_apart(port: &impl RateLimitPort) {
    let (number, rate) = (rand::random::<u64>(), Rate { per_second: 1, burst: 1 });
    let same = [
        Subject::Account(AccountId::new(Uuid::from_u128(u128::from(number)))),
        Subject::Conversation(ConversationKey::from_u64(number)),
        Subject::SignIn(u128::from(number)),
        Subject::SignIn(u128::from(number) << 64),
    ];
    for subject in same {
        assert_eq!(take(port, subject, rate, NOW).await, Decision::Allowed, "{subject:?}");
    }
    for subject in same {
        assert_eq!(take(port, subject, rate, NOW).await, Decision::Refused { retry_after_ms: 1_000 });
    }
}

/// Looking and taking are one step.
pub async fn takers_at_once_get_the_burst_once(port: &impl RateLimitPort) {
    let who = subject();
    let decisions = join_all((0..100).map(|_| take(port, who, RATE, NOW))).await;
    assert_eq!(decisions.into_iter().filter(|decision| *decision == Decision::Allowed).count(), 5);
}

/// The largest and the smallest rates.
pub async fn extremes_are_decided(port: &impl RateLimitPort) {
    let (who, endless) = (subject(), Rate { per_second: u32::MAX, burst: 1 });
    for _ in 0..10 {
        assert_eq!(take(port, who, endless, NOW).await, Decision::Allowed);
    }
    let (who, broad) = (subject(), Rate { per_second: 1, burst: u32::MAX });
    for _ in 0..10 {
        assert_eq!(take(port, who, broad, NOW).await, Decision::Allowed);
    }
    let (who, least) = (subject(), Rate { per_second: 0, burst: 0 });
    assert_eq!(take(port, who, least, NOW).await, Decision::Allowed);
    assert_eq!(take(port, who, least, NOW).await, Decision::Refused { retry_after_ms: 1_000 });
}

/// One try: how many milliseconds after the one before (clocks of edges differ, so it may be before it), and
/// the rate's two numbers.
pub type Try = (i16, u16, u16);

fn random_tries(count: usize) -> Vec<Try> {
    (0..count)
        .map(|_| (rand::random::<i16>() % 100, rand::random::<u16>() % 50, rand::random::<u16>() % 20))
        .collect()
}

/// Every decision is that of [`gcra`], whatever the adapter computes it with.
pub async fn follows_gcra(port: &impl RateLimitPort, tries: &[Try]) {
    let (who, mut now_ms, mut full_at_us) = (subject(), NOW.as_millis(), None);
    for (place, &(after_ms, per_second, burst)) in tries.iter().enumerate() {
        now_ms = now_ms.saturating_add_signed(after_ms.into());
        let rate = Rate { per_second: per_second.into(), burst: burst.into() };
        let expected = match gcra(full_at_us, now_ms * 1_000, rate) {
            Ok(full_at) => {
                full_at_us = Some(full_at);
                Decision::Allowed
            }
            Err(TooEarly { retry_after_ms, tat_us }) => {
                full_at_us = Some(tat_us);
                Decision::Refused { retry_after_ms }
            }
        };
        let decided = take(port, who, rate, Timestamp::from_millis(now_ms)).await;
        assert_eq!(decided, expected, "try {place} of {tries:?}");
    }
}

/// `empty` makes the adapter forget everything, as a Redis without disk does when it starts again.
pub async fn allows_after_being_emptied(port: &impl RateLimitPort, empty: impl AsyncFnOnce()) {
    let (who, rate) = (subject(), Rate { per_second: 1, burst: 1 });
    assert_eq!(take(port, who, rate, NOW).await, Decision::Allowed);
    assert_eq!(take(port, who, rate, NOW).await, Decision::Refused { retry_after_ms: 1_000 });
    empty().await;
    assert_eq!(take(port, who, rate, NOW).await, Decision::Allowed);
    assert_eq!(take(port, who, rate, NOW).await, Decision::Refused { retry_after_ms: 1_000 });
}
