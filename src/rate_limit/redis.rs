//! Rate limits in Redis or Valkey: one number a subject, which goes when its bucket is full.

use super::{CLOCKS_DIFFER_MS, Decision, Rate, RateLimitError, RateLimitPort, Subject};
use crate::redis_access::RedisAccess;
use crate::redis_access::key::Key;
use crate::redis_access::script::Script;
use reedi_protocol::Timestamp;
use std::sync::Arc;

/// [`super::gcra`] in Lua. Arguments, in microseconds: now, the rate's interval and tolerance; and in
/// milliseconds how long to keep a number that is over, and how far clocks may differ. Gives 0, or how many
/// milliseconds to wait.
/// Exact as long as microseconds since 1970 are below 2^53, to the year 2255.
const TAKE: &str = r"
local now, interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local written = math.max(tonumber(redis.call('GET', KEYS[1]) or '') or 0, now)
local tat = math.min(written, now + tolerance + interval + tonumber(ARGV[5]) * 1000)
local function remember(tat)
  local keep_ms = math.ceil((tat - now) / 1000) + tonumber(ARGV[4])
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', string.format('%.0f', keep_ms))
end
local early = tat - now
if early > tolerance then
  if tat < written then
    remember(tat)
  end
  return math.max(math.ceil((early - tolerance) / 1000), 1)
end
remember(tat + interval)
return 0
";

/// How long a number outlives its bucket, in milliseconds: longer than [`CLOCKS_DIFFER_MS`], so that both of two edges
/// judge by it.
const KEPT_AFTER_MS: u64 = 60_000;

/// Cheap to clone.
#[derive(Clone)]
pub struct RedisRateLimit {
    redis: RedisAccess,
    take: Arc<Script>,
}

impl RedisRateLimit {
    #[must_use]
    pub fn new(redis: RedisAccess) -> Self {
        Self { redis, take: Arc::new(Script::new(TAKE)) }
    }

    /// Whether a part of Redis at least is away.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.redis.degraded()
    }
}

fn key(subject: Subject) -> Key {
    match subject {
        Subject::Account(account) => Key::rate_of_account(account),
        Subject::Conversation(conversation) => Key::rate_of_conversation(conversation),
        Subject::SignIn(address) => Key::rate_of_sign_in(address),
    }
}

impl RateLimitPort for RedisRateLimit {
    async fn take(&self, subject: Subject, rate: Rate, now: Timestamp) -> Result<Decision, RateLimitError> {
        let now_us = now.as_millis().saturating_mul(1_000);
        let args = [now_us, rate.interval_us(), rate.tolerance_us(), KEPT_AFTER_MS, CLOCKS_DIFFER_MS];
        match self.redis.run::<u64>(&self.take, &key(subject), &args).await {
            Ok(0) => Ok(Decision::Allowed),
            Ok(retry_after_ms) => Ok(Decision::Refused { retry_after_ms }),
            Err(error) => Err(RateLimitError(error.to_string())),
        }
    }
}
