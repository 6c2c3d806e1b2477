//! Presence and rate limits of a simulation: those in memory, able to be away and to be emptied.

use super::in_memory::InMemoryPresence;
use super::{Answers, Presence, PresenceError, PresencePort};
use crate::edge_link::EdgeId;
use crate::rate_limit::in_memory::InMemoryRateLimit;
use crate::rate_limit::{Decision, Rate, RateLimitError, RateLimitPort, Subject};
use crate::runtime::fault::Process;
use parking_lot::Mutex;
use reedi_protocol::{AccountId, Timestamp};
use std::sync::Arc;

/// What all processes share.
#[derive(Clone, Default)]
pub struct Redis(Arc<Mutex<(InMemoryPresence, InMemoryRateLimit)>>);

impl Redis {
    /// Forgets everything, as a restart without persistence does.
    pub fn empty(&self) {
        *self.0.lock() = Default::default();
    }
}

/// Redis as one process reaches it.
#[derive(Clone)]
pub struct SimulatedRedis {
    redis: Redis,
    process: Process,
}

impl SimulatedRedis {
    #[must_use]
    pub fn new(redis: Redis, process: Process) -> Self {
        Self { redis, process }
    }

    async fn reach(&self) -> Result<(InMemoryPresence, InMemoryRateLimit), String> {
        self.process.runs().await;
        if self.process.faults().redis_away {
            Err("away".to_owned())
        } else {
            Ok(self.redis.0.lock().clone())
        }
    }
}

fn none<T>(accounts: &[AccountId], away: &str) -> Answers<T> {
    accounts.iter().map(|_| Err(PresenceError(away.to_owned()))).collect()
}

impl PresencePort for SimulatedRedis {
    async fn hold(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        match self.reach().await {
            Ok((presence, _)) => presence.hold(edge, accounts, now).await,
            Err(away) => none(accounts, &away),
        }
    }

    async fn leave(&self, edge: EdgeId, accounts: &[AccountId], now: Timestamp) -> Answers<bool> {
        match self.reach().await {
            Ok((presence, _)) => presence.leave(edge, accounts, now).await,
            Err(away) => none(accounts, &away),
        }
    }

    async fn look(&self, accounts: &[AccountId], now: Timestamp) -> Answers<Presence> {
        match self.reach().await {
            Ok((presence, _)) => presence.look(accounts, now).await,
            Err(away) => none(accounts, &away),
        }
    }
}

impl RateLimitPort for SimulatedRedis {
    async fn take(&self, subject: Subject, rate: Rate, now: Timestamp) -> Result<Decision, RateLimitError> {
        self.reach().await.map_err(RateLimitError)?.1.take(subject, rate, now).await
    }
}
