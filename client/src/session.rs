//! Supervision: connects, and connects again as the table of close codes says.

use crate::acks::Reply;
use crate::backoff::Backoff;
use crate::connection::{Cease, Connection};
use crate::credentials::{Credentials, Token};
use crate::error::{CommandError, RestError};
use crate::queues::{Queues, now_ms};
use crate::rest::Rest;
use crate::socket::{Closed, OpenError, Socket, SocketOptions};
use crate::timeline::Timelines;
use crate::update::{Ended, Link, Outlet, Update};
use parking_lot::Mutex;
use reedi_protocol::ErrorCode;
use reedi_protocol::close_code::{CloseCode, Reconnect};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep_until;

/// The longest wait that a server may ask for: a reason with a typing error must not stop a client.
const TOLD_MOST: Duration = Duration::from_secs(300);

/// Time limits of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionOptions {
    pub(crate) socket: SocketOptions,
    /// For the answer to a command. Longer than the 5 s after which an edge calls an outcome unknown
    /// and the 2 s that it may wait for the store before (P4).
    pub(crate) answer_within: Duration,
    /// Of silence, before a ping asks for a sign of life.
    pub(crate) ping_after: Duration,
    /// After that ping.
    pub(crate) silent_most: Duration,
    /// Between tries to renew a token.
    pub(crate) renew_again: Duration,
    pub(crate) reconnect_first: Duration,
    pub(crate) reconnect_most: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            socket: SocketOptions::default(),
            answer_within: Duration::from_secs(15),
            ping_after: Duration::from_secs(20),
            silent_most: Duration::from_secs(10),
            renew_again: Duration::from_secs(5),
            reconnect_first: Duration::from_millis(250),
            reconnect_most: Duration::from_secs(15),
        }
    }
}

/// What handles of a client and its session share.
pub(crate) struct Shared {
    pub(crate) rest: Rest,
    pub(crate) queues: Mutex<Queues>,
    /// Something was queued.
    pub(crate) wake: Notify,
}

/// What a handle asks of the session.
pub(crate) enum Request {
    Command {
        event: &'static str,
        data: serde_json::Value,
        reply: Reply,
    },
    /// A frame that may be lost.
    Notice(String),
    /// The token was replaced.
    NewToken,
    Close,
}

/// What goes from one connection to the next.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) timelines: Timelines,
    pub(crate) outlet: Outlet,
    pub(crate) options: SessionOptions,
    pub(crate) credentials: Credentials,
    pub(crate) backoff: Backoff,
    /// Whether the application was told that something does not work.
    pub(crate) lacking: bool,
}

/// What comes after a connection, or after a try.
enum Next {
    Again { reason: String, told: Option<Duration>, new_token: bool },
    End(Ended),
}

impl Next {
    fn again(reason: impl ToString) -> Self {
        Self::Again { reason: reason.to_string(), told: None, new_token: false }
    }
}

/// Runs until the client is closed, or may not connect any more.
pub(crate) async fn run(mut core: Core) {
    let ended = core.supervise().await;
    tracing::debug!(%ended, "the session ends");
    core.shared.queues.lock().end(&ended);
    core.requests.close();
    while let Ok(request) = core.requests.try_recv() {
        refuse(request, CommandError::Ended);
    }
    let Core { timelines, mut outlet, requests, .. } = core;
    outlet.save(|| timelines.saved());
    outlet.tell(Update::Ended(ended));
    drop(requests);
    outlet.finish().await;
}

impl Core {
    async fn supervise(&mut self) -> Ended {
        let mut new_token = false;
        loop {
            let (reason, told) = match self.attempt(new_token).await {
                Next::End(ended) => return ended,
                Next::Again { reason, told, new_token: wanted } => {
                    new_token = wanted;
                    (reason, told)
                }
            };
            let own = self.backoff.next_wait();
            let retry_in = told.map_or(own, |told| told.min(TOLD_MOST));
            tracing::debug!(reason, ?retry_in, "not connected");
            self.outlet.tell(Update::Link(Link::Lost { reason, retry_in }));
            let wake_at = Instant::now() + retry_in;
            if self.while_offline(sleep_until(wake_at.into())).await.is_none() {
                return Ended::Closed;
            }
        }
    }

    /// One connection, from logging in to its end.
    async fn attempt(&mut self, new_token: bool) -> Next {
        let rest = self.shared.rest.clone();
        let stale = rest.token().is_none_or(|t| renew_in(&t) == Some(Duration::ZERO));
        if let (true, Credentials::Password { username, password }) = (new_token || stale, &self.credentials)
        {
            let (username, password) = (username.clone(), password.clone());
            let logging_in = async { rest.log_in(&username, &password).await };
            match self.while_offline(logging_in).await {
                None => return Next::End(Ended::Closed),
                Some(Err(error)) => return after_login(&error),
                Some(Ok(session)) => self.outlet.tell(Update::TokenRenewed(Token::new(&session.token))),
            }
        }
        let (token, options) = (rest.token(), self.options.socket);
        let opening = Socket::open(rest.endpoint(), token.as_ref(), &options);
        let next = match self.while_offline(opening).await {
            None => return Next::End(Ended::Closed),
            Some(Err(error)) => after_opening(error),
            Some(Ok(socket)) => match Connection::new(self, socket).run().await {
                Cease::Finished => Next::End(Ended::Closed),
                Cease::Closed(closed) => after_close(&closed),
            },
        };
        match next {
            // Without a password there is no other token, unless the application has brought one since.
            Next::Again { reason, new_token: true, .. }
                if matches!(self.credentials, Credentials::Token(_)) && rest.token() == token =>
            {
                Next::End(Ended::SignInAgain(reason))
            }
            next => next,
        }
    }

    /// Waits for `work`, answering the application meanwhile; `None` where it wants no more.
    async fn while_offline<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                output = &mut work => return Some(output),
                () = self.outlet.pass_on(), if !self.outlet.is_empty() => {}
                request = self.requests.recv() => match request {
                    None | Some(Request::Close) => return None,
                    Some(request) => refuse(request, CommandError::NotConnected),
                },
            }
        }
    }
}

fn refuse(request: Request, error: CommandError) {
    if let Request::Command { reply, .. } = request {
        // An application that waits no more need not be told.
        let _ = reply.send(Err(error));
    }
}

/// How long until a token should be renewed: a minute before its end, or half of what is left where
/// that is later. `None` where it does not say.
pub(crate) fn renew_in(token: &Token) -> Option<Duration> {
    let left = token.expires_at()?.as_millis().saturating_sub(now_ms());
    Some(Duration::from_millis(left.saturating_sub(60_000).max(left / 2)))
}

fn after_login(error: &RestError) -> Next {
    if error.is_retryable() || matches!(error, RestError::NotOurs { .. }) {
        return Next::Again { reason: error.to_string(), told: error.retry_after(), new_token: true };
    }
    Next::End(Ended::SignInAgain(error.to_string()))
}

fn after_opening(error: OpenError) -> Next {
    match error {
        OpenError::BadToken | OpenError::Refused { status: 403, .. } => {
            Next::End(Ended::SignInAgain(error.to_string()))
        }
        OpenError::Refused { status, code, retry_after } => Next::Again {
            reason: error.to_string(),
            told: retry_after,
            new_token: status == ErrorCode::Unauthenticated.status() || code.status() == 401,
        },
        OpenError::Closed(closed) => after_close(&closed),
        // A proxy may answer with anything while the servers behind it restart.
        error => Next::again(error),
    }
}

fn after_close(closed: &Closed) -> Next {
    let Some(code) = closed.close_code() else { return Next::again(closed) };
    let (told, new_token) = match code.reconnect() {
        Reconnect::WithBackoff => (None, false),
        Reconnect::AsTold => (closed.reconnect_after(), false),
        Reconnect::WithNewToken => (None, true),
        Reconnect::Never => return Next::End(end_after(code, closed)),
    };
    Next::Again { reason: closed.to_string(), told, new_token }
}

fn end_after(code: CloseCode, closed: &Closed) -> Ended {
    match code {
        CloseCode::Replaced => Ended::Replaced,
        CloseCode::DeviceRevoked => Ended::SignInAgain(closed.to_string()),
        _ => Ended::ProtocolViolation(closed.reason.clone()),
    }
}
