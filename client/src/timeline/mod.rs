//! What a client has of its conversations: every durable event passes here, and comes out once and
//! in order, or a reset says that there is a gap. Pure and synchronous.
//!
//! The rules are P6's. An event whose predecessor is here already is applied at once. On a connection
//! that has caught up, so is one that names no predecessor, because the edge proves coverage. While
//! catching up it is kept until `resume_complete`: a live event may overtake what is replayed, and
//! would make that look like a duplicate. Anything else is a gap, which a call of `/events` fills.
//!
//! While a resume has to wait, live events go on, and nothing proves that no receipt was missed between
//! them, for receipts are no links. So the next resume asks for everything again: what was told is dropped,
//! and a receipt that was missed is told late, which is why receipts alone may come out of order.

mod line;
#[cfg(test)]
mod tests;

use line::Line;
use reedi_protocol::command::Resume;
use reedi_protocol::event::ServerEvent;
use reedi_protocol::resource::Events;
use reedi_protocol::{Checkpoint, ConversationId, Position, limits};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Events kept back per conversation: as many as a server replays before it resets (P6, step 4).
const HELD_PER_CONVERSATION: usize = 1_000;
/// Events kept back over all conversations.
const HELD_IN_ALL: usize = 20_000;
/// Answers of `/events` that leave a gap open before the conversation is reset (P6).
const TRIES: u8 = 3;

/// What comes out, to be handled in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// For the application.
    Event(Box<ServerEvent>),
    /// What the conversation holds up to now is not told event by event: the application loads its
    /// newest page again. What follows is told as ever.
    Reset(ConversationId),
    /// Ask `/events?after=`, and hand the answer to [`Timelines::filled`].
    Fetch { conversation: ConversationId, after: Position, tries: u8 },
}

/// The answer to a [`Told::Fetch`].
#[derive(Clone, Debug)]
pub enum Filled {
    Page(Events),
    /// The server will never answer this: not a participant any more, for example.
    Refused,
}

/// How far a client has got; what a `resume` is made of, and what outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub checkpoint: Option<Checkpoint>,
    /// Conversations that are further than the checkpoint.
    pub cursors: HashMap<ConversationId, Position>,
}

/// All conversations of one account, as far as this client has them.
#[derive(Debug, Default)]
pub struct Timelines {
    checkpoint: Option<Checkpoint>,
    /// Only conversations that are further than the checkpoint, or have a gap.
    lines: HashMap<ConversationId, Line>,
    held: usize,
    caught_up: bool,
}

impl Timelines {
    /// Goes on where an earlier process stopped.
    #[must_use]
    pub fn new(saved: Saved) -> Self {
        let line = |(id, position)| (id, Line::at(position));
        Self {
            checkpoint: saved.checkpoint,
            lines: saved.cursors.into_iter().map(line).collect(),
            held: 0,
            caught_up: false,
        }
    }

    #[must_use]
    pub fn saved(&self) -> Saved {
        let ahead = |(id, line): (&ConversationId, &Line)| {
            (line.complete > self.baseline(*id)).then_some((*id, line.complete))
        };
        Saved { checkpoint: self.checkpoint.clone(), cursors: self.lines.iter().filter_map(ahead).collect() }
    }

    /// Up to where a conversation is here without a gap.
    #[must_use]
    pub fn complete(&self, conversation: ConversationId) -> Position {
        self.lines.get(&conversation).map_or_else(|| self.baseline(conversation), |line| line.complete)
    }

    /// Whether everything up to the last checkpoint is here.
    #[must_use]
    pub const fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// A new connection: forgets what was kept back, for it will be replayed, and says from where.
    pub fn resume(&mut self) -> Resume {
        self.caught_up = false;
        self.held = 0;
        self.lines.values_mut().for_each(Line::forget_held);
        let saved = self.saved();
        let text = |(id, position): (ConversationId, Position)| (id.to_string(), position.as_u64());
        Resume {
            checkpoint: saved.checkpoint.map(|c| c.to_string()),
            // Those left out are replayed from the checkpoint, and dropped here as duplicates.
            cursors: saved.cursors.into_iter().map(text).take(limits::RESUME_CURSORS).collect(),
        }
    }

    /// The server does not know the checkpoint: everything begins anew.
    pub fn start_over(&mut self) {
        *self = Self::default();
    }

    /// An event from the socket.
    pub fn receive(&mut self, event: ServerEvent, told: &mut Vec<Told>) {
        match event {
            ServerEvent::ResumeComplete { checkpoint } => self.resumed(&checkpoint, told),
            ServerEvent::Checkpoint { checkpoint } => self.adopt(&checkpoint),
            ServerEvent::ConversationReset { conversation_id } => {
                if let Some(line) = self.lines.get_mut(&conversation_id) {
                    self.held -= line.held.len();
                    line.forget_held();
                }
                told.push(Told::Reset(conversation_id));
            }
            event => match event.place() {
                None => told.push(Told::Event(Box::new(event))),
                Some((conversation, place)) => {
                    let (baseline, caught_up) = (self.baseline(conversation), self.caught_up);
                    let line = self.lines.entry(conversation).or_insert_with(|| Line::at(baseline));
                    let before = line.held.len();
                    line.receive(place, event, caught_up, told);
                    self.held = self.held + line.held.len() - before;
                    self.settle(conversation, told);
                }
            },
        }
    }

    /// The answer to a [`Told::Fetch`]. One that comes late, after a new connection, does nothing.
    pub fn filled(&mut self, conversation: ConversationId, filled: Filled, told: &mut Vec<Told>) {
        let Some(line) = self.lines.get_mut(&conversation).filter(|line| line.fetching) else { return };
        line.fetching = false;
        self.held -= line.held.len();
        match filled {
            Filled::Page(page) => {
                let before = line.complete;
                let has_more = page.has_more;
                line.merge(page, told);
                if !(has_more && line.complete > before) {
                    line.tries += 1;
                }
            }
            Filled::Refused => line.give_up(conversation, told),
        }
        self.held += line.held.len();
        self.settle(conversation, told);
    }

    /// Brings a line to rest: nothing kept back, or a fetch under way, or given up.
    fn settle(&mut self, conversation: ConversationId, told: &mut Vec<Told>) {
        let Some(line) = self.lines.get_mut(&conversation) else { return };
        if line.ahead.len() > HELD_PER_CONVERSATION {
            self.held -= line.held.len();
            line.give_up(conversation, told);
        }
        if line.held.is_empty() {
            line.rest();
            return;
        }
        let full = line.held.len() > HELD_PER_CONVERSATION || self.held > HELD_IN_ALL;
        if full || line.tries >= TRIES {
            self.held -= line.held.len();
            line.give_up(conversation, told);
        } else if self.caught_up && !line.fetching {
            line.fetching = true;
            told.push(Told::Fetch { conversation, after: line.complete, tries: line.tries });
        }
    }

    /// Everything up to `checkpoint` has been replayed: what was kept back up to there is in order.
    fn resumed(&mut self, checkpoint: &Checkpoint, told: &mut Vec<Told>) {
        self.caught_up = true;
        let conversations: Vec<_> = self.lines.keys().copied().collect();
        for conversation in conversations {
            if let Some(line) = self.lines.get_mut(&conversation) {
                self.held -= line.held.len();
                line.catch_up(checkpoint.get(conversation.shard()), told);
                self.held += line.held.len();
            }
            self.settle(conversation, told);
        }
        self.adopt(checkpoint);
    }

    /// Takes a checkpoint over, but not beyond a gap that is still open.
    fn adopt(&mut self, checkpoint: &Checkpoint) {
        if !self.caught_up {
            return;
        }
        let mut next = checkpoint.clone();
        for (conversation, line) in &self.lines {
            let shard = conversation.shard();
            if !line.held.is_empty() && line.complete < next.get(shard) {
                next.set(shard, line.complete);
            }
        }
        let mut held = self.checkpoint.take().unwrap_or_default();
        for shard in reedi_protocol::Shard::all() {
            held.advance(shard, next.get(shard));
        }
        self.lines.retain(|id, line| !line.held.is_empty() || line.complete > held.get(id.shard()));
        self.checkpoint = Some(held);
    }

    fn baseline(&self, conversation: ConversationId) -> Position {
        self.checkpoint.as_ref().map_or(Position::START, |c| c.get(conversation.shard()))
    }
}
