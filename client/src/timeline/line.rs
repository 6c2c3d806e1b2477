//! One conversation.

use super::Told;
use reedi_protocol::event::{Place, ServerEvent};
use reedi_protocol::resource::{Events, LoggedEvent};
use reedi_protocol::{ConversationId, Position};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Line {
    /// Everything up to here has been told.
    pub(super) complete: Position,
    /// What waits for its predecessors, all of it later than `complete`.
    pub(super) held: BTreeMap<Position, ServerEvent>,
    /// Whether an answer of `/events` is awaited.
    pub(super) fetching: bool,
    /// Answers that have left the present gap open.
    pub(super) tries: u8,
}

impl Line {
    pub(super) const fn at(complete: Position) -> Self {
        Self { complete, held: BTreeMap::new(), fetching: false, tries: 0 }
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

    /// Applies an event, keeps it back, or drops it as a duplicate. `trusting` says that an event
    /// without a predecessor may be taken as the next one.
    pub(super) fn receive(&mut self, place: Place, event: ServerEvent, trusting: bool, told: &mut Vec<Told>) {
        if place.position <= self.complete {
            return;
        }
        // An edge that skipped something proves no more coverage until the gap is closed.
        let trusting = trusting && self.held.is_empty();
        self.held.entry(place.position).or_insert(event);
        self.release(trusting, told);
    }

    /// Tells what is kept back, as far as each event's predecessor is here.
    pub(super) fn release(&mut self, trusting: bool, told: &mut Vec<Told>) {
        while let Some(first) = self.held.first_entry() {
            let previous = first.get().place().and_then(|(_, place)| place.previous_position);
            let follows = previous.map_or(trusting, |previous| previous <= self.complete);
            if !follows {
                return;
            }
            let (position, event) = first.remove_entry();
            self.tell(position, event, told);
        }
    }

    /// Everything up to `position` is here or kept back: tells it.
    pub(super) fn complete_to(&mut self, position: Position, told: &mut Vec<Told>) {
        while let Some(first) = self.held.first_entry().filter(|first| *first.key() <= position) {
            let (position, event) = first.remove_entry();
            self.tell(position, event, told);
        }
        self.complete = self.complete.max(position);
    }

    /// Takes over an answer of `/events`: it and what is kept back are one sequence up to its end.
    pub(super) fn merge(&mut self, page: Events, told: &mut Vec<Told>) {
        for logged in page.events {
            let position = logged.position;
            // What a newer server added is skipped here as it is on the socket.
            if let Some(event) = decode(logged).filter(|_| position > self.complete) {
                self.held.entry(position).or_insert(event);
            }
        }
        self.complete_to(page.complete_to, told);
        self.release(true, told);
    }

    /// Leaves everything up to the newest event here to the application, which loads it as a page. What
    /// is kept back goes too: it may have gaps of its own.
    pub(super) fn give_up(&mut self, conversation: ConversationId, told: &mut Vec<Told>) {
        if let Some((newest, _)) = self.held.last_key_value() {
            self.complete = self.complete.max(*newest);
        }
        self.forget_held();
        told.push(Told::Reset(conversation));
    }

    fn tell(&mut self, position: Position, event: ServerEvent, told: &mut Vec<Told>) {
        self.complete = position;
        told.push(Told::Event(Box::new(event)));
    }
}

fn decode(logged: LoggedEvent) -> Option<ServerEvent> {
    let frame = serde_json::json!({ "event": logged.event, "data": logged.data });
    serde_json::from_value(frame).ok()
}
