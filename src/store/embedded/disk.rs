//! The engine on disk: fjall, a log-structured merge tree with a journal.

use super::engine::{Changes, Engine, Visit};
use super::keys::{Key, Span};
use crate::store::{Order, StoreError, StoreResult};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

/// Blocks of the tree kept in memory, in bytes: the newest pages of the conversations that a single
/// machine has open, and small beside what such a machine has.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// One tree for all tables: their numbers keep them apart, and memory is bounded by one memtable.
const KEYSPACE: &str = "store";

pub struct DiskEngine {
    database: Database,
    keyspace: Keyspace,
}

impl DiskEngine {
    /// Opens the engine in `dir`, or makes it.
    ///
    /// # Errors
    /// Another process has it, the disk fails, or what is there is no store.
    pub fn open(dir: &Path) -> StoreResult<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).open().map_err(away)?;
        let keyspace = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default).map_err(away)?;
        Ok(Self { database, keyspace })
    }
}

/// What no retry mends says so; the rest may pass.
fn away(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::InvalidVersion(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::Unrecoverable => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

impl Engine for DiskEngine {
    fn get(&self, key: &Key) -> StoreResult<Option<Vec<u8>>> {
        let value = self.keyspace.get(key.as_bytes()).map_err(away)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, span: &Span, order: Order, visit: Visit<'_>) -> StoreResult<()> {
        if span.is_empty() {
            return Ok(());
        }
        let mut range = self.keyspace.range(span.from.as_bytes()..span.to.as_bytes());
        loop {
            let next = match order {
                Order::OldestFirst => range.next(),
                Order::NewestFirst => range.next_back(),
            };
            let Some((key, value)) = next.map(Guard::into_inner).transpose().map_err(away)? else {
                return Ok(());
            };
            if visit(&key, &value)?.is_break() {
                return Ok(());
            }
        }
    }

    fn commit(&self, changes: Changes) -> StoreResult<()> {
        if changes.is_empty() {
            return Ok(());
        }
        // The journal's file has its size from the start, and a longer one's size is data that
        // fdatasync has to write too.
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key.as_bytes(), value),
                None => batch.remove(&self.keyspace, key.as_bytes()),
            }
        }
        batch.commit().map_err(away)
    }
}
