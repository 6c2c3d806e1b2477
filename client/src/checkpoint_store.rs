//! How far the application has got, on disk.

use crate::journal::private_file;
use crate::timeline::Saved;
use parking_lot::Mutex;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why progress cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct SaveError {
    path: PathBuf,
    source: std::io::Error,
}

/// The file of one account's progress, written whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointStore {
    path: PathBuf,
    /// The number of the newest state written: a slow write must not put an older one in its place.
    newest: Arc<Mutex<u64>>,
}

impl CheckpointStore {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { path: folder.join("progress.json"), newest: Arc::default() }
    }

    /// What was saved last; nothing where there is no file, or none of this version.
    pub(crate) fn load(&self) -> Result<Saved, SaveError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "progress cannot be read, beginning anew");
                Saved::default()
            })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Saved::default()),
            Err(source) => Err(SaveError { path: self.path.clone(), source }),
        }
    }

    /// Saves one state; `number` grows with each.
    pub(crate) fn save(&self, number: u64, saved: &Saved) -> Result<(), SaveError> {
        let mut newest = self.newest.lock();
        if number <= *newest {
            return Ok(());
        }
        self.write(saved).map_err(|source| SaveError { path: self.path.clone(), source })?;
        *newest = number;
        Ok(())
    }

    fn write(&self, saved: &Saved) -> std::io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = private_file().write(true).truncate(true).open(&beside)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }
}

/// A folder of this test process alone, empty.
#[cfg(test)]
pub(crate) fn test_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("reedi-client-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::{Checkpoint, ConversationKey, Epoch, Position, Shard};

    #[test]
    fn the_newest_state_comes_back() {
        let store = CheckpointStore::new(&test_folder("progress"));
        assert_eq!(store.load().unwrap(), Saved::default());
        let position = Position::new(Epoch::FIRST, 7).unwrap();
        let mut checkpoint = Checkpoint::default();
        checkpoint.set(Shard(3), position);
        let cursors = [(ConversationKey::from_u64(1).conversation_id(), position)].into();
        let saved = Saved { checkpoint: Some(checkpoint), cursors };
        store.save(2, &saved).unwrap();
        store.save(1, &Saved::default()).unwrap();
        assert_eq!(store.load().unwrap(), saved, "an older state must not win");
        std::fs::write(&store.path, "{").unwrap();
        assert_eq!(store.load().unwrap(), Saved::default());
    }
}
