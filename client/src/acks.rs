//! Commands of one connection that wait for their answer.

use crate::error::CommandError;
use crate::marks::Mark;
use crate::outbox::EntryKey;
use reedi_protocol::MessageId;
use reedi_protocol::frame::Answer;
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::sync::oneshot;

/// Commands of the application that may wait at once. Messages have a limit of their own.
const COMMANDS: usize = 1_024;

pub(crate) type Reply = oneshot::Sender<Result<Answer, CommandError>>;

/// Who waits.
pub(crate) enum Waiting {
    Message(EntryKey),
    Mark(Mark, MessageId),
    Reply(Reply),
    Authenticate,
    Join,
    /// Has no time limit: it may wait for a store that is away.
    Resume,
}

#[derive(Default)]
pub(crate) struct Acks {
    last: u64,
    waiting: BTreeMap<u64, (Instant, Waiting)>,
}

impl Acks {
    /// The number that the command carries.
    pub(crate) fn expect(&mut self, now: Instant, waiting: Waiting) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, (now, waiting));
        self.last
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= COMMANDS
    }

    pub(crate) fn take(&mut self, ack: u64) -> Option<Waiting> {
        self.waiting.remove(&ack).map(|(_, waiting)| waiting)
    }

    /// Since when the oldest command waits that has a time limit.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let limited = |(_, waiting): &&(Instant, Waiting)| !matches!(waiting, Waiting::Resume);
        self.waiting.values().find(limited).map(|(since, _)| *since)
    }

    /// The connection is gone.
    pub(crate) fn lost(self) {
        for (_, waiting) in self.waiting.into_values() {
            if let Waiting::Reply(reply) = waiting {
                // An application that waits no more need not be told.
                let _ = reply.send(Err(CommandError::Lost));
            }
        }
    }
}
