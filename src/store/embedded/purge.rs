//! Removing what has ended: a little with commits that are made anyway, found by the notes that stand
//! in the order of time. Nobody waits for it to be complete, for readers skip what has ended.

use super::ends::Note;
use super::engine::{Changes, Engine};
use super::keys;
use super::value;
use crate::store::{Order, StoreResult};
use reedi_protocol::Timestamp;
use std::ops::ControlFlow;

/// How often it is looked for what has ended, in milliseconds of the store's clock: starting a scan
/// costs some ten microseconds, too much for every commit.
pub const PURGE_EVERY_MS: u64 = 1_000;

/// Keys looked at in one go, besides one for each that was written since the last time, so that it keeps up
/// however much is written.
pub const PURGE_LEAST: usize = 256;

#[derive(Default)]
pub struct Purge {
    /// Nothing is noted before this. What is written later ends later.
    done_until: Timestamp,
    next: Timestamp,
    written: usize,
}

impl Purge {
    /// What was due may be there still, since its removal was not committed.
    pub fn again(&mut self) {
        *self = Self { written: self.written, ..Self::default() };
    }

    /// Adds the removal of what has ended to `changes`.
    pub fn add_due(&mut self, engine: &dyn Engine, now: Timestamp, changes: &mut Changes) -> StoreResult<()> {
        self.written += changes.len();
        if now < self.done_until {
            // The clock went back: what is noted from now on may stand before.
            self.again();
        }
        if now < self.next {
            return Ok(());
        }
        self.next = now.plus_millis(PURGE_EVERY_MS);
        let most = PURGE_LEAST + std::mem::take(&mut self.written);
        let (mut due, mut count) = (Vec::new(), 0);
        engine.scan(&keys::expiries(self.done_until, now), Order::OldestFirst, &mut |key, value| {
            match Note::read(key, value) {
                Ok(note) => {
                    count += note.ending.len();
                    due.push(note);
                }
                // One that is damaged must not keep all others.
                Err(error) => tracing::error!(%error, "a note of an end cannot be read and is passed over"),
            }
            Ok(if count < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        self.done_until = due.last().filter(|_| count >= most).map_or(now, |note| note.at);
        let mut left = most;
        for mut note in due {
            let rest = note.ending.split_off(left.min(note.ending.len()));
            left -= note.ending.len();
            for key in std::mem::take(&mut note.ending) {
                // What this commit writes lives, or stands under a later note.
                if !changes.contains_key(&key)
                    && let Some(bytes) = engine.get(&key)?
                    && value::expires_at(&bytes)?.is_some_and(|end| end <= now)
                {
                    changes.insert(key, None);
                }
            }
            note.cut(&rest, changes);
        }
        Ok(())
    }
}
