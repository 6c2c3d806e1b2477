//! The engine on disk: fjall, a log-structured merge tree with a journal.

use super::engine::{Changes, Engine, Visit};
use super::keys::{Key, Span};
use crate::store::{Order, StoreError, StoreResult};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::path::Path;

/// Blocks of the tree kept in memory, in bytes: the newest pages of the conversations that a single
/// machine has open, and small beside what such a machine has.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Rows that are written again and again, kept beside the tree, in bytes: some hundred thousand inbox rows.
const HOT_BYTES: u64 = 32 * 1024 * 1024;
/// What a row takes besides its key and value: its places in the cache's tables.
const HOT_ROW_BYTES: u64 = 64;

/// One tree for all tables: their numbers keep them apart, and memory is bounded by one memtable.
const KEYSPACE: &str = "store";

pub struct DiskEngine {
    database: Database,
    keyspace: Keyspace,
    /// What was committed last of rows that are hot. Only a commit puts in, one at a time and before it
    /// answers, so nothing older than what was answered for stands here.
    hot: Cache<Key, Option<Vec<u8>>, HotWeight>,
}

#[derive(Clone)]
struct HotWeight;

impl Weighter<Key, Option<Vec<u8>>> for HotWeight {
    fn weight(&self, key: &Key, value: &Option<Vec<u8>>) -> u64 {
        HOT_ROW_BYTES + (key.as_bytes().len() + value.as_ref().map_or(0, Vec::len)) as u64
    }
}

impl DiskEngine {
    /// Opens the engine in `dir`, or makes it.
    ///
    /// # Errors
    /// Another process has it, the disk fails, or what is there is no store.
    pub fn open(dir: &Path) -> StoreResult<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).open().map_err(away)?;
        let keyspace = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default).map_err(away)?;
        let rows = HOT_BYTES / (2 * HOT_ROW_BYTES);
        let hot = Cache::with_weighter(rows as usize, HOT_BYTES, HotWeight);
        Ok(Self { database, keyspace, hot })
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
        if key.is_hot()
            && let Some(committed) = self.hot.get(key)
        {
            return Ok(committed);
        }
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
        let mut hot = Vec::new();
        for (key, value) in changes {
            match &value {
                Some(value) => batch.insert(&self.keyspace, key.as_bytes(), value.as_slice()),
                None => batch.remove(&self.keyspace, key.as_bytes()),
            }
            if key.is_hot() {
                hot.push((key, value));
            }
        }
        // Before the commit, for it shows all at once what is in the tree, watermarks among it: who sees those must not
        // be told by an older row. Until they are put back the tree is asked, also where the commit fails.
        hot.iter().for_each(|(key, _)| drop(self.hot.remove(key)));
        batch.commit().map_err(away)?;
        hot.into_iter().for_each(|(key, value)| self.hot.insert(key, value));
        Ok(())
    }
}
