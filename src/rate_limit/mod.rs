//! Rate limits: GCRA, one number a key. With Redis away each edge limits by itself; nothing stops.

pub mod conformance;
pub mod in_memory;
pub mod redis;

use reedi_protocol::{AccountId, ConversationKey, Timestamp};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far the clocks of two edges may differ, in milliseconds: as the log's servers (rule P4).
pub const CLOCKS_DIFFER_MS: u64 = 25_000;

/// So many a second for ever, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl Rate {
    /// Between two tries that are always allowed, in microseconds; 0 above a million a second.
    #[must_use]
    pub fn interval_us(self) -> u64 {
        1_000_000 / u64::from(self.per_second.max(1))
    }

    /// How much before its time a try may come, in microseconds.
    #[must_use]
    pub fn tolerance_us(self) -> u64 {
        self.interval_us() * u64::from(self.burst.max(1) - 1)
    }
}

/// What is limited; the one place that makes keys of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everything an account sends.
    Account(AccountId),
    /// Everything that enters a conversation.
    Conversation(ConversationKey),
    /// Tries to sign up or log in, by the client's address as a number.
    SignIn(u128),
}

/// The answer to one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// Try again after so many milliseconds.
    Refused {
        retry_after_ms: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit cannot be told: {0}")]
pub struct RateLimitError(pub String);

/// The port. Both adapters pass the conformance suite.
pub trait RateLimitPort: Clone + Send + Sync + 'static {
    fn take(
        &self,
        subject: Subject,
        rate: Rate,
        now: Timestamp,
    ) -> impl Future<Output = Result<Decision, RateLimitError>> + Send;
}

/// The generic cell rate algorithm (ITU-T I.371, as "virtual scheduling"): `tat_us` is when the
/// bucket will be full again, in microseconds. Gives the new value where it is allowed.
///
/// A value later than any clock within [`CLOCKS_DIFFER_MS`] writes is of a clock that is wrong. It is brought back as far
/// as that, and remembered so: judged alone it would be too late again at each try, until the time it was written for.
///
/// # Errors
/// Refused.
pub fn gcra(tat_us: Option<u64>, now_us: u64, rate: Rate) -> Result<u64, TooEarly> {
    let (interval_us, tolerance_us) = (rate.interval_us(), rate.tolerance_us());
    let bucket_us = tolerance_us + interval_us;
    let latest_us = now_us.saturating_add(bucket_us + CLOCKS_DIFFER_MS * 1_000);
    let tat_us = tat_us.unwrap_or(0).max(now_us).min(latest_us);
    let early_us = tat_us - now_us;
    if early_us > tolerance_us {
        let retry_after_ms = (early_us - tolerance_us).div_ceil(1_000).max(1);
        return Err(TooEarly { retry_after_ms, tat_us });
    }
    Ok(tat_us + interval_us)
}

/// A try that [`gcra`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooEarly {
    pub retry_after_ms: u64,
    /// What to remember: what was, unless a wrong clock wrote it.
    pub tat_us: u64,
}

/// The rate limits of this process.
#[derive(Clone)]
pub enum RateLimit {
    InMemory(in_memory::InMemoryRateLimit),
    Redis(SharedRateLimit),
    #[cfg(feature = "simulation")]
    Simulated(crate::presence::simulated::SimulatedRedis),
}

/// Limits over all edges as long as Redis answers. While it does not, each edge limits by itself, with
/// full buckets at first: over N edges up to N times the rate gets through, and nothing stops.
#[derive(Clone)]
pub struct SharedRateLimit {
    shared: redis::RedisRateLimit,
    local: in_memory::InMemoryRateLimit,
    fallbacks: Arc<AtomicU64>,
}

impl RateLimit {
    #[must_use]
    pub fn redis(shared: redis::RedisRateLimit) -> Self {
        Self::Redis(SharedRateLimit { shared, local: Default::default(), fallbacks: Arc::default() })
    }

    /// Whether edges limit by themselves, for a part of the subjects at least.
    #[must_use]
    pub fn degraded(&self) -> bool {
        match self {
            RateLimit::InMemory(_) => false,
            RateLimit::Redis(limit) => limit.shared.degraded(),
            #[cfg(feature = "simulation")]
            RateLimit::Simulated(_) => false,
        }
    }

    /// How many decisions this edge has made by itself because Redis did not answer.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        match self {
            RateLimit::InMemory(_) => 0,
            RateLimit::Redis(limit) => limit.fallbacks.load(Relaxed),
            #[cfg(feature = "simulation")]
            RateLimit::Simulated(_) => 0,
        }
    }
}

impl RateLimitPort for RateLimit {
    async fn take(&self, subject: Subject, rate: Rate, now: Timestamp) -> Result<Decision, RateLimitError> {
        match self {
            RateLimit::InMemory(limit) => limit.take(subject, rate, now).await,
            #[cfg(feature = "simulation")]
            RateLimit::Simulated(limit) => limit.take(subject, rate, now).await,
            RateLimit::Redis(limit) => match Box::pin(limit.shared.take(subject, rate, now)).await {
                Ok(decision) => Ok(decision),
                Err(_) => {
                    limit.fallbacks.fetch_add(1, Relaxed);
                    limit.local.take(subject, rate, now).await
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_access::{RedisAccess, RedisConfig};
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn with_redis_away_an_edge_limits_by_itself_at_once() {
        // A port that was free a moment ago, and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = RedisConfig::new(vec![format!("redis://127.0.0.1:{port}")]);
        let limit =
            RateLimit::redis(redis::RedisRateLimit::new(RedisAccess::connect(&config).await.unwrap()));
        assert!(limit.degraded());
        let started = Instant::now();
        conformance::all(&limit).await;
        assert!(limit.fallbacks() > 1_000, "{}", limit.fallbacks());
        let each = started.elapsed() / limit.fallbacks() as u32;
        assert!(each < Duration::from_millis(5), "{each:?} a decision");
    }
}
