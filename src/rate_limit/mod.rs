//! Rate limits: GCRA, one number a key. With Redis away each edge limits by itself; nothing stops.

pub mod in_memory;

use reedi_protocol::{AccountId, ConversationKey, Timestamp};
use std::future::Future;

/// So many a second for ever, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
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
    Refused { retry_after_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit cannot be told: {0}")]
pub struct RateLimitError(pub String);

/// The port. Both adapters pass the conformance suite.
pub trait RateLimitPort: Clone + Send + Sync + 'static {
    fn take(&self, subject: Subject, rate: Rate, now: Timestamp) -> impl Future<Output = Result<Decision, RateLimitError>> + Send;
}

/// The generic cell rate algorithm (ITU-T I.371, as "virtual scheduling"): `tat_us` is when the
/// bucket will be full again, in microseconds. Gives the new value where it is allowed.
///
/// # Errors
/// Refused; how many milliseconds to wait.
pub fn gcra(tat_us: Option<u64>, now_us: u64, rate: Rate) -> Result<u64, u64> {
    let interval_us = 1_000_000 / u64::from(rate.per_second.max(1));
    let tolerance_us = interval_us * u64::from(rate.burst.max(1) - 1);
    let tat_us = tat_us.unwrap_or(0).max(now_us);
    let early_us = tat_us - now_us;
    if early_us > tolerance_us {
        return Err((early_us - tolerance_us).div_ceil(1_000).max(1));
    }
    Ok(tat_us + interval_us)
}

/// The rate limits of this process.
#[derive(Clone)]
pub enum RateLimit {
    InMemory(in_memory::InMemoryRateLimit),
}

impl RateLimitPort for RateLimit {
    async fn take(&self, subject: Subject, rate: Rate, now: Timestamp) -> Result<Decision, RateLimitError> {
        match self {
            RateLimit::InMemory(limit) => limit.take(subject, rate, now).await,
        }
    }
}
