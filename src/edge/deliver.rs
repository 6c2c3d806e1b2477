//! Deliver: from the edge link into outboxes. One task an edge, so that every session sees a
//! conversation's events in position order (invariant `one_order`).

use super::Edge;
use super::session::Session;
use super::wire::{self, Audience};
use crate::domain::record::{Body, Entry, NotAnEvent};
use crate::edge_link::{
    DeviceCame, EdgeId, EdgeLinkPort, Fleeting, Inbound, LinkEvent, PresenceChange, ToEdge, ToWorkers,
};
use crate::runtime::trace_context::trace_id_of;
use reedi_protocol::event::ServerEvent;
use reedi_protocol::{AccountId, CloseCode};
use std::sync::Arc;
use std::time::Duration;

/// How long clients are given to come back, at most, when this edge lost events.
const SPREAD: Duration = Duration::from_secs(5);

/// Takes in all frames of the link until it ends.
pub async fn run(edge: Arc<Edge>, mut frames: Inbound<ToEdge>) {
    while let Some(frame) = frames.recv().await {
        for answer in take(&edge, frame) {
            if let Err(error) = edge.link.to_workers(answer).await {
                tracing::debug!(%error, "the edge link did not take a frame");
            }
        }
    }
}

/// Takes in presence changes until the link ends.
pub async fn run_presence(edge: Arc<Edge>, mut changes: Inbound<Vec<PresenceChange>>) {
    while let Some(changes) = changes.recv().await {
        super::fleeting::tell_presence(&edge, &changes);
    }
}

fn take(edge: &Edge, frame: ToEdge) -> Vec<ToWorkers> {
    match frame {
        ToEdge::Batch { worker, routes, coverage, events } => {
            // Held for the whole batch: a session that begins meanwhile begins before or after it.
            let mut book = edge.coverage.lock();
            let taken = book.take(worker, routes, &coverage, events);
            for event in &taken.events {
                tell(edge, event);
            }
            let applied = book.routes_applied();
            drop(book);
            edge.metrics.link_stale.inc_by(taken.stale);
            edge.metrics.link_repeats.inc_by(taken.repeats.len() as u64);
            if let Some(applied) = applied {
                edge.routes_applied.send_if_modified(|known| std::mem::replace(known, applied) != applied);
            }
            taken.repeats
        }
        ToEdge::Collect { .. } => {
            let through = edge.coverage.lock().through_list();
            vec![edge.routes.snapshot(through)]
        }
        ToEdge::Devices { by, came } => {
            if by != edge.id {
                came.iter().for_each(|device| replace(edge, by, device));
            }
            Vec::new()
        }
        ToEdge::Skip { shard, generation, through } => {
            if edge.coverage.lock().skip(shard, generation, through) {
                tracing::warn!(
                    shard = shard.0,
                    "events were missed for too long; clients are sent to resume"
                );
                super::drain::send_away(edge, SPREAD);
            }
            Vec::new()
        }
        ToEdge::Preferences { account } => {
            edge.preferences.forget(account);
            // Looked at elsewhere: it reads the store, for which events must not wait.
            edge.preferences_touched.touch(account);
            Vec::new()
        }
        ToEdge::Fleeting { conversation, audience, what: Fleeting::Typing { account, typing } } => {
            let event = ServerEvent::UserTyping {
                conversation_id: conversation.conversation_id(),
                user_id: account,
                typing,
            };
            let frame = wire::encode(&event);
            for recipient in audience.into_iter().filter(|a| *a != account) {
                edge.routes.each_session(recipient, |session| {
                    if session.has_joined(conversation) {
                        session.push(frame.clone());
                    }
                });
            }
            Vec::new()
        }
    }
}

/// The same device has connected to another edge: the later connection stays, and of two that came in the
/// same moment the one at the edge with the higher id, whichever edge judges.
fn replace(edge: &Edge, by: EdgeId, elsewhere: &DeviceCame) {
    edge.routes.each_session(elsewhere.account, |session| {
        let is_same = session.device == Some(elsewhere.device);
        if is_same && (session.came_at(), edge.id) < (elsewhere.at, by) {
            session.close(CloseCode::Replaced, "the same device connected elsewhere");
        }
    });
}

fn tell(edge: &Edge, event: &LinkEvent) {
    let mut entry = match Entry::decode(event.position, event.log_time, &event.payload) {
        Ok(entry) => entry,
        Err(NotAnEvent::Late { .. }) => return,
        Err(error) => {
            edge.metrics.records_unreadable.inc();
            tracing::error!(%error, position = event.position.as_u64(), "a record cannot be read");
            return;
        }
    };
    match &mut entry.record.body {
        Body::Delete { target } => edge.deletions.note(entry.record.conversation, *target),
        Body::Edit { target, content, .. } if edge.deletions.knows(entry.record.conversation, *target) => {
            *content = None;
        }
        _ => {}
    }
    let record = &entry.record;
    tracing::debug!(
        trace_id = trace_id_of(event.traceparent),
        position = entry.position.as_u64(),
        recipients = event.recipients.len(),
        "an event is told"
    );
    if let Body::Control { change, after } = &record.body {
        let (came, gone) = (change.came(after), change.gone(record.actor));
        super::fleeting::members_changed(edge, record.conversation, &came, gone, after);
        edge.views.learn(record.conversation, entry.position, entry.position, Arc::new(after.clone()));
    }
    edge.newest.tell(record.conversation, entry.position, &event.recipients);
    let told = wire::events_of(&edge.key_ring, &entry, event.previous);
    let now_ms = edge.clock.now().as_millis();
    let age_s = now_ms.saturating_sub(record.stamp.as_millis()) as f64 / 1_000.0;
    for (audience, server_event) in &told {
        let frame = wire::encode(server_event);
        let is_message = matches!(record.body, Body::Message(_));
        each_recipient(edge, &event.recipients, audience, |session| {
            session.push(frame.clone());
            if is_message {
                edge.metrics.messages_delivered.inc();
                edge.metrics.send_to_delivered.observe(age_s);
            }
        });
    }
}

fn each_recipient(
    edge: &Edge,
    recipients: &[AccountId],
    audience: &Audience,
    mut each: impl FnMut(&Arc<Session>),
) {
    for account in recipients.iter().filter(|account| audience.includes(**account)) {
        edge.routes.each_session(*account, &mut each);
    }
}
