//! A connection's life: come, be told, leave; the same for every front door.

pub mod rfc6455;
pub mod sweep;
pub mod websocket;

use super::Edge;
use super::authenticate::Identity;
use super::refused::{Outcome, Refused};
use super::session::Session;
use crate::runtime::metrics::{Held, Metrics};
use reedi_protocol::{CloseCode, ErrorCode};
use std::sync::Arc;
use std::time::Duration;

/// How long workers may take to learn of a new account before the client is sent elsewhere.
const ROUTED_WITHIN: Duration = Duration::from_secs(5);

/// A session that is in the edge's tables for as long as this lives.
pub struct Present {
    pub edge: Arc<Edge>,
    pub session: Arc<Session>,
    _counted: Held,
}

impl Present {
    /// Lets a client in: from the answer on, its session gets every event of its conversations.
    ///
    /// # Errors
    /// Too many sessions, or the workers cannot be told of it.
    pub async fn come(edge: &Arc<Edge>, identity: Identity) -> Outcome<Self> {
        if edge.metrics.connections.get() >= edge.limits.sessions as i64 {
            edge.metrics.limit_hit("sessions");
            return Err(Refused::new(
                ErrorCode::RateLimited,
                "This server has as many connections as it takes.",
            ));
        }
        let session = Session::new(edge.next_session_id(), identity, edge.limits.outbox);
        session.came(edge.clock.now());
        session.heard(edge.uptime_ms());
        let Some(came) = edge.routes.come(session.clone(), edge.limits.sessions_per_account) else {
            edge.metrics.limit_hit("sessions_per_account");
            return Err(Refused::new(
                ErrorCode::RateLimited,
                "This account has as many connections as it may have.",
            ));
        };
        edge.by_id.lock().insert(session.id, session.clone());
        let counted = Metrics::hold(&edge.metrics.connections);
        let present = Self { edge: edge.clone(), session: session.clone(), _counted: counted };
        if let Some(replaced) = came.replaced {
            replaced.close(CloseCode::Replaced, "the same device connected again");
        }
        if came.first_of_account {
            edge.metrics.active_accounts.inc();
            edge.presence_touched.touch(session.account);
        }
        let mut applied = edge.routes_applied.subscribe();
        let routed = applied.wait_for(|applied| *applied >= came.version);
        if tokio::time::timeout(ROUTED_WITHIN, routed).await.is_err() {
            return Err(Refused::new(
                ErrorCode::Unavailable,
                "This server cannot tell events now. Connect again.",
            ));
        }
        session.begin_after(edge.coverage.lock().through());
        super::degraded::tell(edge, &session);
        edge.fresh.lock().push(session);
        Ok(present)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let (edge, session) = (&self.edge, &self.session);
        // Whatever it waits for does not come any more: else the sweep would hold it for ever.
        session.release();
        edge.by_id.lock().remove(&session.id);
        super::fleeting::forget(edge, session);
        if edge.routes.leave(session) {
            edge.metrics.active_accounts.dec();
            edge.presence_touched.touch(session.account);
        }
    }
}
