//! Receipts that this client gives: the newest per conversation is all that the server needs, since
//! one stands for all earlier messages. Kept over reconnects, until they are acknowledged.

use reedi_protocol::{ConversationId, MessageId};
use std::collections::{HashMap, VecDeque};

/// What a receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    Delivered,
    Read,
}

type Key = (ConversationId, Mark);

#[derive(Clone, Copy)]
struct Wanted {
    message: MessageId,
    /// What is on its way now.
    in_flight: Option<MessageId>,
}

#[derive(Default)]
pub(crate) struct Marks {
    /// At most two per conversation that this account takes part in.
    wanted: HashMap<Key, Wanted>,
    due: VecDeque<Key>,
}

impl Marks {
    /// Wants a receipt given. Nothing happens where a later message's one is wanted already.
    pub(crate) fn want(&mut self, mark: Mark, message: MessageId) {
        let key = (message.conversation_id(), mark);
        if mark == Mark::Read {
            // Read implies delivered.
            let delivered = (key.0, Mark::Delivered);
            if self.wanted.get(&delivered).is_some_and(|w| w.in_flight.is_none() && w.message <= message) {
                self.wanted.remove(&delivered);
                self.due.retain(|k| *k != delivered);
            }
        }
        match self.wanted.get_mut(&key) {
            Some(wanted) => wanted.message = wanted.message.max(message),
            None => {
                self.wanted.insert(key, Wanted { message, in_flight: None });
                self.due.push_back(key);
            }
        }
    }

    /// The next receipt to give, which is on its way from now on.
    pub(crate) fn take_due(&mut self) -> Option<(Mark, MessageId)> {
        let key = self.due.pop_front()?;
        let wanted = self.wanted.get_mut(&key)?;
        wanted.in_flight = Some(wanted.message);
        Some((key.1, wanted.message))
    }

    /// The server has it, or will never take it.
    pub(crate) fn finish(&mut self, mark: Mark, message: MessageId) {
        let key = (message.conversation_id(), mark);
        let Some(wanted) = self.wanted.get_mut(&key).filter(|w| w.in_flight == Some(message)) else { return };
        if wanted.message > message {
            wanted.in_flight = None;
            self.due.push_back(key);
        } else {
            self.wanted.remove(&key);
        }
    }

    /// What was on its way goes again: the connection is lost, or the server asked to wait.
    pub(crate) fn again(&mut self) {
        for (key, wanted) in &mut self.wanted {
            if wanted.in_flight.take().is_some() {
                self.due.push_back(*key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::{ConversationKey, Epoch, Position};

    fn message(conversation: u64, sequence: u64) -> MessageId {
        let position = Position::new(Epoch::FIRST, sequence).unwrap();
        ConversationKey::from_u64(conversation).event_id(position)
    }

    #[test]
    fn the_newest_is_given_once() {
        let mut marks = Marks::default();
        for sequence in [3, 5, 4] {
            marks.want(Mark::Read, message(1, sequence));
        }
        marks.want(Mark::Read, message(2, 1));
        assert_eq!(marks.take_due(), Some((Mark::Read, message(1, 5))));
        assert_eq!(marks.take_due(), Some((Mark::Read, message(2, 1))));
        assert_eq!(marks.take_due(), None);
        marks.want(Mark::Read, message(1, 6));
        assert_eq!(marks.take_due(), None, "one of a conversation is on its way");
        marks.finish(Mark::Read, message(1, 5));
        assert_eq!(marks.take_due(), Some((Mark::Read, message(1, 6))));
        marks.finish(Mark::Read, message(1, 6));
        marks.finish(Mark::Read, message(2, 1));
        assert!(marks.wanted.is_empty() && marks.due.is_empty());
    }

    #[test]
    fn read_stands_for_delivered() {
        let mut marks = Marks::default();
        marks.want(Mark::Delivered, message(1, 3));
        marks.want(Mark::Read, message(1, 3));
        assert_eq!(marks.take_due(), Some((Mark::Read, message(1, 3))));
        assert_eq!(marks.take_due(), None);
    }

    #[test]
    fn what_was_on_its_way_goes_again() {
        let mut marks = Marks::default();
        marks.want(Mark::Delivered, message(1, 3));
        marks.take_due();
        marks.again();
        assert_eq!(marks.take_due(), Some((Mark::Delivered, message(1, 3))));
        marks.finish(Mark::Delivered, message(1, 2));
        assert_eq!(marks.wanted.len(), 1, "an answer to something else changes nothing");
    }
}
