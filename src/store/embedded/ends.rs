//! Notes of what ends when. They stand in the order of time, so that what has ended is found without looking at what
//! has not. What ends at one moment, as all sends of a commit do, is one note: each would cost a row of the tree.

use super::engine::{Changes, Engine};
use super::keys::{self, Key};
use crate::store::StoreResult;
use reedi_protocol::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What the changes of a commit end with, by the moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ends(BTreeMap<Timestamp, BTreeSet<Key>>);

impl Ends {
    pub fn add(&mut self, at: Timestamp, key: Key) {
        self.0.entry(at).or_default().insert(key);
    }

    pub fn append(&mut self, other: Self) {
        for (at, keys) in other.0 {
            self.0.entry(at).or_default().extend(keys);
        }
    }

    /// Puts the notes into `changes`. A list that stands for the same moment already goes on, with what it lacks: what is
    /// written again and again, as a reaction that comes and goes, is noted once.
    ///
    /// # Errors
    /// What stands cannot be read.
    pub fn note(self, engine: &dyn Engine, changes: &mut Changes) -> StoreResult<()> {
        for (at, mut ending) in self.0 {
            if let (Some(key), 1) = (ending.first(), ending.len()) {
                changes.insert(keys::expiry(at, key), Some(Vec::new()));
                continue;
            }
            let note = keys::expiries_at(at);
            let mut list = engine.get(&note)?.unwrap_or_default();
            for known in keys::parts_of_list(&list)? {
                ending.remove(&known);
            }
            if !ending.is_empty() {
                keys::append_list(&mut list, &ending);
                changes.insert(note, Some(list));
            }
        }
        Ok(())
    }
}

/// A note as it was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Timestamp,
    /// Where it stands.
    pub key: Key,
    pub ending: Vec<Key>,
}

impl Note {
    /// # Errors
    /// It is none.
    pub fn read(key: &[u8], value: &[u8]) -> StoreResult<Self> {
        let (at, one) = keys::parts_of_expiry(key)?;
        let ending = match one {
            Some(one) => vec![one],
            None => keys::parts_of_list(value)?,
        };
        Ok(Self { at, key: Key::found(key), ending })
    }

    /// What the note becomes once all but `rest` of what it names is removed.
    pub fn cut(self, rest: &[Key], changes: &mut Changes) {
        let left = (!rest.is_empty()).then(|| {
            let mut list = Vec::new();
            keys::append_list(&mut list, rest);
            list
        });
        changes.insert(self.key, left);
    }
}
