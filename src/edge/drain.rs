//! Drain: sending clients elsewhere, spread so that they do not all come back at once.

use super::Edge;
use crate::edge_link::{EdgeLinkPort, ToWorkers};
use crate::runtime::random;
use rand::Rng;
use reedi_protocol::CloseCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The least and the longest time between two steps of closing.
const STEP_LEAST: Duration = Duration::from_millis(10);
const STEP_MOST: Duration = Duration::from_millis(100);

/// How long the last sessions may take to be gone: two seconds for a client to say goodbye, and one until others were told
/// that it left.
const GONE_WITHIN: Duration = Duration::from_secs(3);

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

/// How many of `left` sessions to close now, and how long to wait then, where there is `time` for all of them. A timer
/// is as fine as a millisecond, so that many go at a time rather than each by itself.
fn step(left: usize, time: Duration) -> (usize, Duration) {
    let each = time.checked_div(u32::try_from(left).unwrap_or(u32::MAX)).unwrap_or_default();
    let pause = each.clamp(STEP_LEAST, STEP_MOST);
    let steps = (time.as_millis() / pause.as_millis()).max(1) as usize;
    (left.div_ceil(steps).min(left), pause)
}

/// Closes all sessions, a few at a time over `window`, so that the edges that take them over are not
/// stormed. Ends when the last is gone and everybody was told, or the time for that is over.
pub async fn drain(edge: Arc<Edge>, window: Duration) {
    let mut sessions = edge.routes.sessions();
    tracing::info!(sessions = sessions.len(), "draining");
    let until = Instant::now() + window;
    while !sessions.is_empty() {
        let (count, pause) = step(sessions.len(), until.saturating_duration_since(Instant::now()));
        for session in sessions.drain(sessions.len() - count..) {
            session.close(CloseCode::Restarting, reason(0));
        }
        tokio::time::sleep(pause).await;
    }
    // Who came in meanwhile.
    for session in edge.routes.sessions() {
        session.close(CloseCode::Restarting, reason(0));
    }
    // Whoever is not known to have left by then is so when what this edge held of them has run out.
    if tokio::time::timeout(GONE_WITHIN, gone(&edge)).await.is_err() {
        let sessions = edge.routes.sessions().len();
        tracing::info!(sessions, "leaving before all are gone");
    }
    // Workers that do not hear it forget this edge after its silence.
    let _ = edge.link.to_workers(ToWorkers::Bye { edge: edge.id }).await;
    if let Err(error) = edge.link.flush().await {
        tracing::debug!(%error, "the last words may not have been heard");
    }
}

/// Ends when no session is left, and nobody is said to be here any more.
async fn gone(edge: &Edge) {
    let mut held = edge.presence_held.subscribe();
    let is_gone = |held: &usize| *held == 0 && edge.routes.is_empty() && edge.presence_touched.is_empty();
    // The sender is the edge's own.
    let _ = held.wait_for(is_gone).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are, they are gone within the window; however few, they are not held up for all of it.
    #[test]
    fn all_go_within_the_window() {
        let window = Duration::from_secs(25);
        for sessions in [1, 7, 249, 250, 2_500, 2_501, 100_000, 1_000_000] {
            let (mut left, mut time, mut steps) = (sessions, window, 0);
            while left > 0 {
                let (count, pause) = step(left, time);
                assert!((1..=left).contains(&count), "{sessions}: {count} of {left}");
                (left, time) = (left - count, time.saturating_sub(pause));
                steps += 1;
            }
            let took = window - time;
            assert!(steps <= 2_501 && took <= window, "{sessions} took {took:?}");
            assert!(took <= STEP_MOST * sessions as u32, "{sessions} took {took:?}");
        }
    }
}
