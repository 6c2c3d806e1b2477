//! Drain: sending clients elsewhere, spread so that they do not all come back at once.

use super::Edge;
use crate::edge_link::{EdgeLinkPort, ToWorkers};
use crate::runtime::random;
use rand::Rng;
use reedi_protocol::CloseCode;
use std::sync::Arc;
use std::time::Duration;

/// Closes all sessions now, each with a time of its own to come back after, up to `spread`.
pub fn send_away(edge: &Edge, spread: Duration) {
    for session in edge.routes.sessions() {
        let wait_ms = random::rng().random_range(0..=spread.as_millis() as u64);
        session.close(CloseCode::Restarting, reason(wait_ms));
    }
}

fn reason(wait_ms: u64) -> String {
    format!("{{\"reconnectAfterMs\":{wait_ms}}}")
}

/// Closes all sessions, a few at a time over `window`, so that the edges that take them over are not
/// stormed. Ends when the last is gone.
pub async fn drain(edge: Arc<Edge>, window: Duration) {
    let mut sessions = edge.routes.sessions();
    tracing::info!(sessions = sessions.len(), "draining");
    let each = window.checked_div(sessions.len() as u32).unwrap_or_default();
    while let Some(session) = sessions.pop() {
        session.close(CloseCode::Restarting, reason(0));
        tokio::time::sleep(each.min(Duration::from_millis(100))).await;
    }
    // Workers that do not hear it forget this edge after its silence.
    let _ = edge.link.to_workers(ToWorkers::Bye { edge: edge.id }).await;
}
