//! Degraded: while the log or the store is away, clients are told what does not work, and again once it
//! does. The state is looked at and told as a whole, so that whatever happens between two looks comes to at
//! most one frame for each session.

use super::session::Session;
use super::{Edge, wire};
use crate::store::StorePort as _;
use parking_lot::Mutex;
use reedi_protocol::event::{Lack, ServerEvent};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A store that answers later is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Looks in a row in which a part was away before anybody is told: one alone is an election of a leader, or
/// a pause.
const LOOKS: u32 = 2;

/// What this edge has told of.
#[derive(Default)]
pub struct Degraded(Mutex<Told>);

#[derive(Default)]
struct Told {
    log_away: u32,
    store_away: u32,
    lacks: Vec<Lack>,
}

/// Looks after the parts for as long as the edge is there.
pub async fn run(edge: Arc<Edge>) {
    edge.metrics.set_degraded("log", false);
    edge.metrics.set_degraded("store", false);
    loop {
        edge.metrics.set_degraded("people", edge.people.degraded());
        tokio::time::sleep(LOOK_EVERY).await;
        let store = tokio::time::timeout(ANSWER_WITHIN, edge.store.ping()).await;
        let log = *edge.log_answers.borrow();
        look(&edge, log, matches!(store, Ok(Ok(()))));
    }
}

/// Takes in which parts answer, and tells all sessions where that makes a difference.
fn look(edge: &Edge, log: bool, store: bool) {
    let mut told = edge.degraded.0.lock();
    told.log_away = if log { 0 } else { told.log_away.saturating_add(1) };
    told.store_away = if store { 0 } else { told.store_away.saturating_add(1) };
    let away = [(Lack::Sends, told.log_away), (Lack::History, told.store_away)];
    let lacks: Vec<Lack> =
        away.into_iter().filter(|(_, looks)| *looks >= LOOKS).map(|(lack, _)| lack).collect();
    if lacks == told.lacks {
        return;
    }
    tracing::warn!(?lacks, "what clients do without has changed");
    edge.metrics.set_degraded("log", lacks.contains(&Lack::Sends));
    edge.metrics.set_degraded("store", lacks.contains(&Lack::History));
    told.lacks = lacks;
    let frame = wire::encode(&event(&told.lacks));
    // Under the lock, so that a session that comes now is told what holds last.
    for session in edge.routes.sessions() {
        session.push(frame.clone());
    }
}

/// Tells a session that has just come what does not work, if anything.
pub fn tell(edge: &Edge, session: &Session) {
    let told = edge.degraded.0.lock();
    if !told.lacks.is_empty() {
        session.push(wire::encode(&event(&told.lacks)));
    }
}

fn event(lacks: &[Lack]) -> ServerEvent {
    ServerEvent::Degraded { degraded: !lacks.is_empty(), lacks: lacks.to_vec() }
}
