//! Which messages were deleted for everyone lately, as this edge was told: what is edited after that shows nothing.
//!
//! An edit is judged by the store before it is appended, so one through another edge may come to stand behind a deletion.
//! In the store the deletion wins whatever the order ([ADR 0005]); to those who are connected this does the same.
//!
//! [ADR 0005]: ../../docs/adr/0005-deletion-wins.md

use parking_lot::Mutex;
use reedi_protocol::{ConversationKey, Position};
use std::collections::{HashSet, VecDeque};

/// Deletions remembered; some 1 MB. An edit that was judged before one of them follows it within the time that a record may
/// be late, in which an edge is not told of so many.
const MOST: usize = 16_384;

type Target = (ConversationKey, Position);

/// The latest deletions.
#[derive(Default)]
pub struct Deletions(Mutex<Book>);

#[derive(Default)]
struct Book {
    known: HashSet<Target>,
    oldest_first: VecDeque<Target>,
}

impl Deletions {
    /// Remembers one.
    pub fn note(&self, conversation: ConversationKey, target: Position) {
        let mut book = self.0.lock();
        if !book.known.insert((conversation, target)) {
            return;
        }
        book.oldest_first.push_back((conversation, target));
        if book.oldest_first.len() > MOST
            && let Some(oldest) = book.oldest_first.pop_front()
        {
            book.known.remove(&oldest);
        }
    }

    /// Whether a message is known to be deleted.
    #[must_use]
    pub fn knows(&self, conversation: ConversationKey, target: Position) -> bool {
        self.0.lock().known.contains(&(conversation, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::Epoch;

    #[test]
    fn the_oldest_is_forgotten_for_a_new_one() {
        let deletions = Deletions::default();
        let at = |n: usize| Position::new(Epoch::FIRST, n as u64 + 1).unwrap();
        let conversation = ConversationKey::from_u64(7);
        for n in 0..MOST {
            deletions.note(conversation, at(n));
            deletions.note(conversation, at(n));
        }
        assert!(deletions.knows(conversation, at(0)) && deletions.knows(conversation, at(MOST - 1)));
        assert!(!deletions.knows(ConversationKey::from_u64(8), at(0)));
        deletions.note(conversation, at(MOST));
        assert!(!deletions.knows(conversation, at(0)) && deletions.knows(conversation, at(1)));
    }
}
