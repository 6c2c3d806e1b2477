//! Erase: what was deleted for everyone leaves the log as well, after the store has the deletion and
//! the log's duplicate window is over (rule P8). A writer that stops forgets what was due; the log
//! drops everything within a day all the same.

use super::batch::Batch;
use crate::domain::record::Body;
use crate::log::{DUPLICATE_WINDOW_MS, Log, LogPort};
use crate::store::{Messages as _, Range, Store};
use reedi_protocol::{ConversationKey, Position};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// After this time no retry of the send can be answered from the log's copy any more.
const AFTER: Duration = Duration::from_millis(DUPLICATE_WINDOW_MS + 30_000);
/// Deletions remembered; beyond, the oldest is left to the log's own age.
const MOST: usize = 100_000;
/// Edits looked for of one deleted message.
const EDITS_MOST: usize = 1_000;

#[derive(Default)]
pub struct Erasures {
    due: VecDeque<(Instant, ConversationKey, Position)>,
}

impl Erasures {
    /// Remembers the deletions of a batch that is stored.
    pub fn note(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            if let Body::Delete { target } = entry.record.body {
                self.due.push_back((Instant::now() + AFTER, entry.record.conversation, target));
                if self.due.len() > MOST {
                    self.due.pop_front();
                }
            }
        }
    }

    /// Erases what is due: the message and its edits.
    pub async fn run_due(&mut self, log: &Log, store: &Store) {
        while self.due.front().is_some_and(|(at, ..)| *at <= Instant::now()) {
            let Some((_, conversation, target)) = self.due.pop_front() else { return };
            let mut positions = vec![target];
            if let Ok(events) = store.events(conversation, Range::after(target), EDITS_MOST).await {
                let edits = events
                    .iter()
                    .filter(|e| matches!(e.record.body, Body::Edit { target: of, .. } if of == target));
                positions.extend(edits.map(|e| e.position));
            }
            for position in positions {
                if let Err(error) = log.erase(conversation.shard(), position).await {
                    tracing::warn!(%error, "deleted content could not be erased from the log; it goes within a day");
                }
            }
        }
    }
}
