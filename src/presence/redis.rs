//! Presence in Redis or Valkey: one small hash an account, with a field for each edge that holds it
//! (until when) and one for when it was last seen. Fields do not expire by themselves (Redis has that
//! from 7.4 on only), so every script folds those that are over into `seen`.

use super::{Answers, HOLD_MS, LAST_SEEN_KEPT_MS, Presence, PresenceError, PresencePort};
use crate::edge_link::EdgeId;
use crate::redis_access::key::Key;
use crate::redis_access::script::Script;
use crate::redis_access::{RedisAccess, RedisAccessError};
use redis::FromRedisValue;
use reedi_protocol::{AccountId, Timestamp};
use std::sync::Arc;

/// Reads the hash. Arguments: now and [`HOLD_MS`], in milliseconds.
macro_rules! script {
    ($rest:literal) => {
        concat!(
            r"
local key, now, hold = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local held, seen, over = {}, -1, {}
local online = 0
local entries = redis.call('HGETALL', key)
for i = 1, #entries, 2 do
  local edge, till = entries[i], tonumber(entries[i + 1])
  if edge == 'seen' then
    seen = math.max(seen, till)
  elseif till > now then
    held[edge] = till
    online = online + 1
  else
    seen = math.max(seen, till - hold)
    over[#over + 1] = edge
  end
end
",
            $rest
        )
    };
}

/// Arguments after those: the edge, and for how long to keep the hash. Gives how many edges held it before.
const HOLD: &str = script!(
    r"
local edge = ARGV[3]
if #over > 0 then
  redis.call('HDEL', key, unpack(over))
  redis.call('HSET', key, 'seen', string.format('%.0f', seen))
end
redis.call('HSET', key, edge, string.format('%.0f', math.max(held[edge] or 0, now + hold)))
redis.call('PEXPIRE', key, ARGV[4])
return online
"
);

/// Arguments after those: the edge, and for how long to keep the hash. Gives how many edges hold it now.
const LEAVE: &str = script!(
    r"
local edge = ARGV[3]
over[#over + 1] = edge
redis.call('HDEL', key, unpack(over))
redis.call('HSET', key, 'seen', string.format('%.0f', math.max(seen, now)))
redis.call('PEXPIRE', key, ARGV[4])
return held[edge] and online - 1 or online
"
);

/// Gives how many edges hold it now, and when it was last seen or -1.
const LOOK: &str = script!("return {online, seen}");

struct Scripts {
    hold: Script,
    leave: Script,
    look: Script,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct RedisPresence {
    redis: RedisAccess,
    scripts: Arc<Scripts>,
}

impl RedisPresence {
    #[must_use]
    pub fn new(redis: RedisAccess) -> Self {
        let scripts = Scripts { hold: Script::new(HOLD), leave: Script::new(LEAVE), look: Script::new(LOOK) };
        Self { redis, scripts: Arc::new(scripts) }
    }

    /// Whether a part of Redis at least is away.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.redis.degraded()
    }

    /// Runs a script that gives how many other edges hold an account; gives of each whether none does.
    async fn change(
        &self,
        script: &Script,
        edge: EdgeId,
        accounts: &[AccountId],
        now: Timestamp,
    ) -> Answers<bool> {
        let args = [now.as_millis(), HOLD_MS, edge.0, LAST_SEEN_KEPT_MS];
        self.run(script, accounts, &args, |others: u64| others == 0).await
    }

    async fn run<A: FromRedisValue, T>(
        &self,
        script: &Script,
        accounts: &[AccountId],
        args: &[u64],
        read: impl Fn(A) -> T,
    ) -> Answers<T> {
        let keys: Vec<Key> = accounts.iter().map(|account| Key::presence(*account)).collect();
        let answers = self.redis.run_each::<A>(script, &keys, args).await;
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            let failed = answers.iter().filter(|answer| answer.is_err()).count();
            tracing::debug!(%error, failed, of = accounts.len(), "presence has not answered for all");
        }
        let told = |answer: Result<A, RedisAccessError>| {
            answer.map(&read).map_err(|error| PresenceError(error.to_string()))
        };
        answers.into_iter().map(told).collect()
    }
}

impl PresencePort for RedisPresence {
    async fn hold(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        self.change(&self.scripts.hold, edge, accounts, now).await
    }

    async fn leave(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        self.change(&self.scripts.leave, edge, accounts, now).await
    }

    async fn look(&self, accounts: &[AccountId], now: Timestamp) -> Answers<Presence> {
        let args = [now.as_millis(), HOLD_MS];
        let read = |(edges, seen): (u64, i64)| {
            let last_seen = u64::try_from(seen).ok().filter(|_| edges == 0).map(Timestamp::from_millis);
            Presence { online: edges > 0, last_seen }
        };
        self.run(&self.scripts.look, accounts, &args, read).await
    }
}
