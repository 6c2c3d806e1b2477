//! One conversation.

use super::Told;
use reedi_protocol::event::{Place, ServerEvent};
use reedi_protocol::resource::{Events, LoggedEvent};
use reedi_protocol::{ConversationId, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

#[derive(Debug)]
pub(super) struct Line {
    /// Everything up to here has been told.
    pub(super) complete: Position,
    /// What was told beyond `complete` before the connection had caught up: each follows the one before it,
    /// and what is linked to nothing, as receipts are, may be missing in between. It is replayed.
    pub(super) ahead: BTreeSet<Position>,
    /// What waits for its predecessors, all of it later than what was told. In a page of `/events` a message
    /// may have companions at its position, before it (ADR 0006 of the server).
    pub(super) held: BTreeMap<Position, Vec<ServerEvent>>,
    /// Where the account was last told that it joined: the `system` message of that place may still come.
    created: Option<Position>,
    /// Whether an answer of `/events` is awaited.
    pub(super) fetching: bool,
    /// Answers that have left the present gap open.
    pub(super) tries: u8,
}

impl Line {
    pub(super) const fn at(complete: Position) -> Self {
        Self {
            complete,
            ahead: BTreeSet::new(),
            held: BTreeMap::new(),
            created: None,
            fetching: false,
            tries: 0,
        }
    }

    pub(super) fn forget_held(&mut self) {
        self.held.clear();
        self.rest();
    }

    /// No gap is open.
    pub(super) const fn rest(&mut self) {
        self.fetching = false;
        self.tries = 0;
    }

    /// The last that was told.
    fn reached(&self) -> Position {
        self.ahead.last().map_or(self.complete, |last| self.complete.max(*last))
    }

    /// Applies an event, keeps it back, or drops it as a duplicate. On a connection that has caught up an
    /// event without a predecessor may be taken as the next one.
    pub(super) fn receive(
        &mut self,
        place: Place,
        event: ServerEvent,
        caught_up: bool,
        told: &mut Vec<Told>,
    ) {
        if place.position <= self.complete || self.ahead.contains(&place.position) {
            // Who joins is told of the conversation, and then by a message of the same place who let it in.
            if matches!(event, ServerEvent::NewMessage(_)) && self.created == Some(place.position) {
                self.created = None;
                told.push(as_told(event));
            }
            return;
        }
        if place.position < self.reached() {
            // All that is linked was told: this is a receipt or the like, whose place matters to nobody.
            return self.tell_ahead(place.position, event, told);
        }
        // An edge that skipped something proves no more coverage until the gap is closed.
        let trusting = caught_up && self.held.is_empty();
        let here = self.held.entry(place.position).or_default();
        if here.iter().all(|other| discriminant(other) != discriminant(&event)) {
            here.push(event);
        }
        self.release(trusting, caught_up, told);
    }

    /// The connection has caught up: what was told ahead joins on, and so does what is kept back.
    pub(super) fn catch_up(&mut self, checkpoint: Position, told: &mut Vec<Told>) {
        self.complete_to(checkpoint, told);
        self.complete = self.reached();
        self.ahead.clear();
        self.release(true, true, told);
    }

    /// Tells what is kept back, as far as each event's predecessor is here, or `trusting` that it is.
    fn release(&mut self, trusting: bool, caught_up: bool, told: &mut Vec<Told>) {
        while let Some((_, first)) = self.held.first_key_value() {
            let place = first.iter().find_map(ServerEvent::place);
            let previous = place.and_then(|(_, place)| place.previous_position);
            if !previous.map_or(trusting, |previous| previous <= self.reached()) {
                return;
            }
            let Some((position, events)) = self.held.pop_first() else { return };
            if caught_up {
                self.tell(position, events, told);
            } else {
                self.ahead.insert(position);
                self.tell_all(position, events, told);
            }
        }
    }

    /// Everything up to `position` is here or kept back: tells it.
    pub(super) fn complete_to(&mut self, position: Position, told: &mut Vec<Told>) {
        while let Some(first) = self.held.first_entry().filter(|first| *first.key() <= position) {
            let (position, events) = first.remove_entry();
            self.tell(position, events, told);
        }
        self.complete = self.complete.max(position);
        self.ahead.retain(|ahead| *ahead > self.complete);
    }

    /// Takes over an answer of `/events`: it and what is kept back are one sequence up to its end.
    pub(super) fn merge(&mut self, page: Events, told: &mut Vec<Told>) {
        let mut in_page: BTreeMap<Position, Vec<ServerEvent>> = BTreeMap::new();
        for logged in page.events {
            let position = logged.position;
            // What a newer server added is skipped here as it is on the socket.
            if let Some(event) = decode(logged).filter(|_| position > self.complete) {
                in_page.entry(position).or_default().push(event);
            }
        }
        // The page has all of a position; of what is kept back a part may be missing.
        self.held.extend(in_page);
        self.complete_to(page.complete_to, told);
        self.release(true, true, told);
    }

    /// Leaves everything up to the newest event here to the application, which loads it as a page. What
    /// is kept back goes too: it may have gaps of its own.
    pub(super) fn give_up(&mut self, conversation: ConversationId, told: &mut Vec<Told>) {
        let newest = self.held.last_key_value().map_or(Position::START, |(newest, _)| *newest);
        self.complete = self.reached().max(newest);
        self.ahead.clear();
        self.forget_held();
        told.push(Told::Reset(conversation));
    }

    fn tell(&mut self, position: Position, events: Vec<ServerEvent>, told: &mut Vec<Told>) {
        self.complete = position;
        self.tell_all(position, events, told);
    }

    fn tell_all(&mut self, position: Position, events: Vec<ServerEvent>, told: &mut Vec<Told>) {
        let is_created = events.iter().any(|event| matches!(event, ServerEvent::ConversationCreated { .. }));
        let has_message = events.iter().any(|event| matches!(event, ServerEvent::NewMessage(_)));
        self.created = (is_created && !has_message).then_some(position);
        told.extend(events.into_iter().map(as_told));
    }

    /// Tells what proves nothing of what lies before it.
    fn tell_ahead(&mut self, position: Position, event: ServerEvent, told: &mut Vec<Told>) {
        self.ahead.insert(position);
        told.push(as_told(event));
    }
}

/// For the application. In a page of `/events` a reset stands for what cannot be told event by event.
fn as_told(event: ServerEvent) -> Told {
    match event {
        ServerEvent::ConversationReset { conversation_id } => Told::Reset(conversation_id),
        event => Told::Event(Box::new(event)),
    }
}

fn decode(logged: LoggedEvent) -> Option<ServerEvent> {
    let frame = serde_json::json!({ "event": logged.event, "data": logged.data });
    serde_json::from_value(frame).ok()
}
