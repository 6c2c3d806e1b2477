//! Erase: what was deleted for everyone leaves the log as well, after the store has the deletion and
//! the log's duplicate window is over (rule P8). A writer that stops forgets what was due; the log
//! drops everything within a day all the same.

use super::batch::Batch;
use crate::domain::record::{Body, LATE_MS};
use crate::domain::retention::CHANGE_WINDOW_MS;
use crate::log::{DUPLICATE_WINDOW_MS, Log, LogPort};
use crate::store::{Messages as _, Range, Store};
use reedi_protocol::{ConversationKey, Position};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// After this time no retry of the send can be answered from the log's copy any more.
pub const AFTER: Duration = Duration::from_millis(DUPLICATE_WINDOW_MS + 30_000);
/// Deletions remembered; beyond, the oldest is left to the log's own age.
const MOST: usize = 100_000;
/// Erased in one turn, between batches: each takes a read and some writes.
const AT_ONCE: usize = 16;
/// Events looked at at once for edits of a deleted message.
const EVENTS_AT_ONCE: usize = 1_000;
/// After its message an edit lands within this time, in milliseconds: both are judged by stamps, which the log's time
/// may lie behind; twice, for the edge may have judged some time before it stamped.
const EDITED_WITHIN_MS: u64 = CHANGE_WINDOW_MS + 2 * LATE_MS;
/// How often an erasure that failed is tried; then it is left to the log's own age.
const TRIES: u32 = 10;

struct Due {
    at: Instant,
    conversation: ConversationKey,
    target: Position,
    /// Where the deletion stands.
    deleted: Position,
    tries: u32,
}

type Target = (ConversationKey, Position);

/// The erasures that are due some time.
pub struct Erasures {
    after: Duration,
    due: VecDeque<Due>,
    /// Of what is due, where edits stand behind the deletion: such a one was judged just before, and shows nothing.
    edited_after: HashMap<Target, Vec<Position>>,
}

impl Erasures {
    /// Erases what was deleted so long ago.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after, due: VecDeque::new(), edited_after: HashMap::new() }
    }

    /// Remembers the deletions of a batch that is stored, and what was edited after one.
    pub fn note(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            let conversation = entry.record.conversation;
            match entry.record.body {
                Body::Delete { target } => {
                    let (at, deleted) = (Instant::now() + self.after, entry.position);
                    self.edited_after.entry((conversation, target)).or_default();
                    self.remember(Due { at, conversation, target, deleted, tries: 0 });
                }
                Body::Edit { target, .. } => {
                    if let Some(edits) = self.edited_after.get_mut(&(conversation, target)) {
                        edits.push(entry.position);
                    }
                }
                _ => {}
            }
        }
    }

    fn remember(&mut self, due: Due) {
        self.due.push_back(due);
        if self.due.len() > MOST
            && let Some(oldest) = self.due.pop_front()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, due: &Due) -> Vec<Position> {
        self.edited_after.remove(&(due.conversation, due.target)).unwrap_or_default()
    }

    /// Ends when there is something to erase; never, while there is nothing.
    pub async fn are_due(&self) {
        match self.due.front() {
            Some(due) => tokio::time::sleep_until(due.at).await,
            None => std::future::pending().await,
        }
    }

    /// Erases some of what is due: each message and its edits.
    pub async fn run_due(&mut self, log: &Log, store: &Store) {
        for _ in 0..AT_ONCE {
            let Some(due) = self.due.pop_front_if(|due| due.at <= Instant::now()) else { return };
            let edited_after = self.forget(&due);
            if let Err(why) = erase(log, store, &due, &edited_after).await {
                let tries = due.tries + 1;
                if tries < TRIES {
                    self.edited_after.insert((due.conversation, due.target), edited_after);
                    // Behind all others, so that they stay in the order of their time.
                    self.remember(Due { at: Instant::now() + self.after, tries, ..due });
                } else {
                    tracing::warn!(
                        why,
                        "deleted content could not be erased from the log; it goes within a day"
                    );
                }
            }
        }
    }
}

async fn erase(log: &Log, store: &Store, due: &Due, edited_after: &[Position]) -> Result<(), String> {
    let mut after = due.target;
    let mut positions = vec![due.target];
    let message = store.message(due.conversation, due.target).await.map_err(|error| error.to_string())?;
    // Of an old message nothing later than this is an edit: a year of a busy group must not be read for it.
    let last_edit = message.map(|message| message.row.log_time.plus_millis(EDITED_WITHIN_MS));
    while after < due.deleted {
        let range = Range { after, before: due.deleted };
        let events = store.events(due.conversation, range, EVENTS_AT_ONCE).await;
        let events = events.map_err(|error| error.to_string())?;
        let is_over = events.last().zip(last_edit).is_some_and(|(event, last)| event.log_time > last);
        let edits = events
            .iter()
            .filter(|e| matches!(e.record.body, Body::Edit { target, .. } if target == due.target));
        positions.extend(edits.map(|e| e.position));
        let more = events.last().filter(|_| events.len() == EVENTS_AT_ONCE && !is_over);
        after = more.map_or(due.deleted, |event| event.position);
    }
    positions.extend(edited_after);
    for position in positions {
        log.erase(due.conversation.shard(), position).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
