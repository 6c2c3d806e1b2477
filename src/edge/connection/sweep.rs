//! The sweep: one timer for all connections, so that an idle one needs none.

use crate::edge::authenticate::LEEWAY_MS;
use crate::edge::{Edge, wire};
use reedi_protocol::CloseCode;
use reedi_protocol::event::ServerEvent;
use std::sync::Arc;
use std::time::Duration;

/// How often the sweep looks at new sessions.
const EVERY: Duration = Duration::from_millis(50);
/// A new connection's live frames wait this long for its `resume`.
const RESUME_WITHIN: Duration = Duration::from_millis(150);
/// How often all sessions are looked at: tokens that ran out, clients that fell silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A client that sent nothing for this long, not even a pong, is gone.
pub const SILENT_FOR: Duration = Duration::from_secs(75);
/// A client that sent nothing for this long is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(30);
/// How often a session that was told something gets a checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// Looks after all sessions; ends with the runtime.
pub async fn run(edge: Arc<Edge>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut looked, mut checkpointed) = (tokio::time::Instant::now(), tokio::time::Instant::now());
    let mut deaf = false;
    loop {
        tick.tick().await;
        let fresh: Vec<_> = std::mem::take(&mut *edge.fresh.lock());
        let holding: Vec<_> =
            fresh.into_iter().filter(|s| !s.release_unless_resuming(RESUME_WITHIN)).collect();
        edge.fresh.lock().extend(holding);
        if looked.elapsed() >= LOOK_EVERY {
            looked = tokio::time::Instant::now();
            look(&edge);
            deaf = send_away_when_deaf(&edge, deaf);
        }
        if checkpointed.elapsed() >= CHECKPOINT_EVERY {
            checkpointed = tokio::time::Instant::now();
            checkpoint(&edge);
        }
    }
}

fn look(edge: &Edge) {
    let now_ms = edge.clock.now().as_millis();
    let uptime_ms = edge.uptime_ms();
    let through = edge.coverage.lock().through();
    let mut waiting = 0;
    for session in edge.routes.sessions() {
        if session.expires_at().as_millis() + LEEWAY_MS < now_ms {
            session.close(CloseCode::Unauthenticated, "the token has expired");
        } else if uptime_ms.saturating_sub(session.heard_ms()) > SILENT_FOR.as_millis() as u64 {
            session.close(CloseCode::GoingAway, "nothing was heard");
        } else {
            session.ping_if_silent(uptime_ms, PING_AFTER.as_millis() as u64);
        }
        session.has_come_to(&through);
        waiting += session.waiting_frames();
    }
    edge.metrics.outbox_frames.set(waiting as i64);
}

/// No socket may look alive and be deaf (rule P5): without a worker for some shard, clients go
/// elsewhere. Once, until all shards are heard again.
fn send_away_when_deaf(edge: &Edge, was_deaf: bool) -> bool {
    let shards = edge.coverage.lock().deaf_shards();
    let deaf = shards > 0 && edge.uptime_ms() > crate::edge::coverage::DEAF_AFTER.as_millis() as u64;
    if deaf && !was_deaf {
        tracing::warn!(shards, "no delivery worker speaks for some shards; clients are sent elsewhere");
        crate::edge::drain::send_away(edge, Duration::from_secs(5));
    }
    deaf
}

/// Tells sessions how far they have got. Everything up to there was put into their outboxes before,
/// since coverage moves on only after its events were told.
fn checkpoint(edge: &Edge) {
    let mut book = edge.coverage.lock();
    if book.routes_applied().is_none() {
        return;
    }
    let frame = wire::encode(&ServerEvent::Checkpoint { checkpoint: book.through() });
    for session in edge.routes.sessions() {
        if session.take_told() {
            session.push(frame.clone());
        }
    }
}
