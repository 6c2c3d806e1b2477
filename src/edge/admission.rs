//! Admission: how much anybody may ask for.

use super::client_address::ClientAddress;
use super::fair_share::{FairShare, TakenPlace};
use super::refused::{Outcome, Refused};
use super::session::OutboxLimits;
use crate::rate_limit::in_memory::InMemoryRateLimit;
use crate::rate_limit::{Decision, Rate, RateLimit, RateLimitError, RateLimitPort, Subject};
use crate::runtime::metrics::{Held, Metrics};
use reedi_protocol::{AccountId, ConversationKey, ErrorCode, Timestamp};
use std::time::Duration;

/// Seconds after which a client may try again when too many wait to authenticate: half of what each may take.
const RETRY_WAITING_S: u64 = 5;

/// The configured limits of an edge.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub group_members: usize,
    /// Members of a conversation up to which typing and presence are told.
    pub typing_members: usize,
    pub presence_members: usize,
    pub account: Rate,
    pub conversation: Rate,
    /// Reads of an account on this edge.
    pub read: Rate,
    /// Bytes of answers to reads that an edge makes or has not written yet.
    pub answer_bytes: usize,
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
    /// What reads cost, they cost this edge: it counts them by itself, and none waits for Redis.
    reads: InMemoryRateLimit,
    limits: Limits,
    metrics: Metrics,
    waiting: FairShare,
}

/// A socket that has not authenticated yet.
pub struct WaitingSocket {
    // Dropped first: no more are counted than there are places.
    _counted: Held,
    _place: TakenPlace,
}

impl Admission {
    #[must_use]
    pub fn new(rate_limit: RateLimit, limits: Limits, metrics: Metrics) -> Self {
        let waiting = FairShare::new(limits.unauthenticated);
        Self { rate_limit, reads: InMemoryRateLimit::default(), limits, metrics, waiting }
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

    /// Counts a read.
    ///
    /// # Errors
    /// The account has read too often.
    pub async fn read(&self, account: AccountId, now: Timestamp) -> Outcome<()> {
        self.decided("read_rate", self.reads.take(Subject::Account(account), self.limits.read, now).await)
    }

    /// Counts a try to sign up or log in.
    ///
    /// # Errors
    /// Too many from this address.
    pub async fn sign_in(&self, from: ClientAddress, now: Timestamp) -> Outcome<()> {
        self.take(Subject::SignIn(from.client()), self.limits.sign_in, "sign_in_rate", now).await
    }

    async fn take(&self, subject: Subject, rate: Rate, limit: &'static str, now: Timestamp) -> Outcome<()> {
        self.decided(limit, self.rate_limit.take(subject, rate, now).await)
    }

    fn decided(&self, limit: &'static str, decision: Result<Decision, RateLimitError>) -> Outcome<()> {
        match decision {
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

    /// A place among the sockets that wait to authenticate.
    ///
    /// # Errors
    /// All are taken, or too many from this address while they run short.
    pub fn wait_unauthenticated(&self, from: ClientAddress) -> Outcome<WaitingSocket> {
        if let Some(place) = self.waiting.take(Some(from.site())) {
            let counted = Metrics::hold(&self.metrics.sockets_unauthenticated);
            return Ok(WaitingSocket { _place: place, _counted: counted });
        }
        self.metrics.limit_hit("unauthenticated_sockets");
        let refused = Refused::new(ErrorCode::RateLimited, "Too many connections wait to authenticate.");
        Err(refused.again_after(RETRY_WAITING_S))
    }
}
