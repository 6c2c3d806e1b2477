//! Admission: how much anybody may ask for.

use super::refused::{Outcome, Refused};
use super::session::OutboxLimits;
use crate::rate_limit::{Decision, Rate, RateLimit, RateLimitPort, Subject};
use crate::runtime::metrics::{Held, Metrics};
use reedi_protocol::{AccountId, ConversationKey, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The configured limits of an edge.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub group_members: usize,
    /// Members of a conversation up to which typing and presence are told.
    pub typing_members: usize,
    pub presence_members: usize,
    pub account: Rate,
    pub conversation: Rate,
    /// Tries to sign up or log in from one address.
    pub sign_in: Rate,
    pub sessions_per_account: usize,
    pub sessions: usize,
    pub unauthenticated: usize,
    pub outbox: OutboxLimits,
    /// How long leaving may take.
    pub drain: Duration,
}

pub struct Admission {
    rate_limit: RateLimit,
    limits: Limits,
    metrics: Metrics,
    waiting: Arc<Semaphore>,
}

/// A socket that has not authenticated yet.
pub struct WaitingSocket {
    _permit: OwnedSemaphorePermit,
    _counted: Held,
}

impl Admission {
    #[must_use]
    pub fn new(rate_limit: RateLimit, limits: Limits, metrics: Metrics) -> Self {
        let waiting = Arc::new(Semaphore::new(limits.unauthenticated));
        Self { rate_limit, limits, metrics, waiting }
    }

    /// Counts an event that `account` sends to `conversation`.
    ///
    /// # Errors
    /// One of the two has had too many.
    pub async fn event(
        &self,
        account: AccountId,
        conversation: ConversationKey,
        now: Timestamp,
    ) -> Outcome<()> {
        self.command(account, now).await?;
        self.take(Subject::Conversation(conversation), self.limits.conversation, "conversation_rate", now)
            .await
    }

    /// Counts a command that makes no event in a conversation.
    ///
    /// # Errors
    /// The account has had too many.
    pub async fn command(&self, account: AccountId, now: Timestamp) -> Outcome<()> {
        self.take(Subject::Account(account), self.limits.account, "account_rate", now).await
    }

    /// Counts a try to sign up or log in.
    ///
    /// # Errors
    /// Too many from this address.
    pub async fn sign_in(&self, address: std::net::IpAddr, now: Timestamp) -> Outcome<()> {
        let address = match address {
            std::net::IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            // A household has a /64: its addresses are one client.
            std::net::IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
        };
        self.take(Subject::SignIn(address), self.limits.sign_in, "sign_in_rate", now).await
    }

    async fn take(&self, subject: Subject, rate: Rate, limit: &'static str, now: Timestamp) -> Outcome<()> {
        match self.rate_limit.take(subject, rate, now).await {
            Ok(Decision::Allowed) => Ok(()),
            Ok(Decision::Refused { retry_after_ms }) => {
                self.metrics.limit_hit(limit);
                Err(Refused::rate_limited(retry_after_ms))
            }
            // Limits protect the service; one that cannot be told must not stop it.
            Err(error) => {
                tracing::debug!(%error, "a rate limit could not be told");
                Ok(())
            }
        }
    }

    /// A place among the sockets that wait to authenticate; `None` when all are taken.
    #[must_use]
    pub fn wait_unauthenticated(&self) -> Option<WaitingSocket> {
        if let Ok(permit) = self.waiting.clone().try_acquire_owned() {
            let counted = Metrics::hold(&self.metrics.sockets_unauthenticated);
            return Some(WaitingSocket { _permit: permit, _counted: counted });
        }
        self.metrics.limit_hit("unauthenticated_sockets");
        None
    }
}
