//! The outbox on disk: one line per message that came and per message that went, so that a client
//! that was killed sends what it had not got acknowledged, with the same ids.
//!
//! A line is handed to the operating system before a message counts as accepted: a killed process
//! loses nothing, a machine that loses its power may lose the last lines.

use crate::outbox::EntryKey;
use reedi_protocol::ConversationId;
use reedi_protocol::command::SendMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Lines about messages that are gone, before the file is written anew.
const STALE_LINES: usize = 10_000;

/// Why messages cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{folder}: another client uses this state folder now")]
    InUse { folder: PathBuf },
}

/// A message as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) key: EntryKey,
    pub(crate) conversation: ConversationId,
    pub(crate) message: SendMessage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// Also when a message got a new id: the later line counts.
    Kept(Kept),
    Gone(EntryKey),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum LineRef<'a> {
    Kept(&'a Kept),
    Gone(EntryKey),
}

/// An open journal. Its folder is locked against a second client until it is dropped.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    _lock: File,
    stale: usize,
    /// The last line may be a part of one: the disk took no more of it.
    torn: bool,
}

impl Journal {
    /// Opens or makes the journal of a folder, and returns what waits in it, in order.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Kept>), JournalError> {
        let lock = lock(folder)?;
        let path = folder.join("outbox.jsonl");
        let waiting = match File::open(&path) {
            Ok(file) => read(BufReader::new(file)).map_err(|e| failed(&path, e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed(&path, e)),
        };
        let file = write_anew(&path, &waiting).map_err(|e| failed(&path, e))?;
        Ok((Self { path, file, _lock: lock, stale: 0, torn: false }, waiting))
    }

    /// Keeps a message, or keeps it anew.
    pub(crate) fn keep(&mut self, kept: &Kept) -> Result<(), JournalError> {
        self.append(&LineRef::Kept(kept))
    }

    /// Forgets a message. `waiting` lists the others, for when the file has to be written anew. Once
    /// there are none, it is emptied: what was said should not lie about.
    pub(crate) fn forget(
        &mut self,
        key: EntryKey,
        none_waits: bool,
        waiting: impl FnOnce() -> Vec<Kept>,
    ) -> Result<(), JournalError> {
        if none_waits {
            (self.stale, self.torn) = (0, false);
            return self.file.set_len(0).map_err(|e| failed(&self.path, e));
        }
        self.stale += 2;
        if self.stale < STALE_LINES {
            return self.append(&LineRef::Gone(key));
        }
        (self.stale, self.torn) = (0, false);
        self.file = write_anew(&self.path, &waiting()).map_err(|e| failed(&self.path, e))?;
        Ok(())
    }

    fn append(&mut self, line: &LineRef) -> Result<(), JournalError> {
        let written = encode(line).and_then(|mut bytes| {
            if self.torn {
                // What is left of the other line is skipped when it is read, and must not take this one along.
                bytes.insert(0, b'\n');
            }
            self.file.write_all(&bytes)
        });
        self.torn = written.is_err();
        written.map_err(|e| failed(&self.path, e))
    }
}

fn failed(path: &Path, source: std::io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), source }
}

/// Two clients of one folder would write into each other's lines.
fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join("lock");
    let opened = std::fs::create_dir_all(folder).and_then(|()| private_file().append(true).open(&path));
    let file = opened.map_err(|e| failed(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { folder: folder.to_owned() }),
        Err(TryLockError::Error(e)) => Err(failed(&path, e)),
    }
}

/// What is kept and not gone. A line that was cut off by the end of a process was never accepted.
fn read(file: impl BufRead) -> std::io::Result<Vec<Kept>> {
    let mut waiting = BTreeMap::new();
    for line in file.split(b'\n') {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Kept(kept)) => {
                waiting.insert(kept.key, kept);
            }
            Ok(Line::Gone(key)) => {
                waiting.remove(&key);
            }
            Err(error) => tracing::warn!(%error, "a line of the outbox cannot be read"),
        }
    }
    Ok(waiting.into_values().collect())
}

/// Replaces the file by one of just these lines, whole or not at all.
fn write_anew(path: &Path, waiting: &[Kept]) -> std::io::Result<File> {
    let beside = path.with_extension("new");
    let mut bytes = Vec::new();
    for kept in waiting {
        bytes.extend(encode(&LineRef::Kept(kept))?);
    }
    let mut file = private_file().write(true).truncate(true).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    private_file().append(true).open(path)
}

fn encode(line: &LineRef) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Options for a file that only its owner reads: messages stand in it in the clear.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use reedi_protocol::{ConversationKey, resource::MessageType};

    fn kept(key: u64, id: &str) -> Kept {
        let message = SendMessage {
            content: format!("content {key}"),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: Some(id.into()),
        };
        Kept { key: EntryKey(key), conversation: ConversationKey::from_u64(1).conversation_id(), message }
    }

    fn ids(kept: &[Kept]) -> Vec<(u64, &str)> {
        kept.iter().map(|k| (k.key.0, k.message.client_message_id.as_deref().unwrap())).collect()
    }

    #[test]
    fn what_is_not_gone_comes_back_in_order_with_its_last_id() {
        let folder = crate::checkpoint_store::test_folder("journal");
        let (mut journal, waiting) = Journal::open(&folder).unwrap();
        assert!(waiting.is_empty());
        for key in 1..=3 {
            journal.keep(&kept(key, "first")).unwrap();
        }
        journal.keep(&kept(1, "second")).unwrap();
        journal.forget(EntryKey(2), false, Vec::new).unwrap();
        assert!(matches!(Journal::open(&folder), Err(JournalError::InUse { .. })));
        drop(journal);

        let path = folder.join("outbox.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"kept\":{\"key\":9,\"conv").unwrap();
        let (_journal, waiting) = Journal::open(&folder).unwrap();
        assert_eq!(ids(&waiting), [(1, "second"), (3, "first")]);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    /// A disk that was full for a moment costs the message that it was full for, whose sender was told, and no other.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_line_that_was_cut_off_takes_no_other_along() {
        let folder = crate::checkpoint_store::test_folder("journal-torn");
        let (mut journal, _) = Journal::open(&folder).unwrap();
        journal.keep(&kept(1, "before")).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut file = std::mem::replace(&mut journal.file, full);
        assert!(matches!(journal.keep(&kept(2, "refused")), Err(JournalError::Io { .. })));
        file.write_all(b"{\"kept\":{\"key\":2,\"conv").unwrap();
        journal.file = file;
        journal.keep(&kept(3, "after")).unwrap();
        drop(journal);
        assert_eq!(ids(&Journal::open(&folder).unwrap().1), [(1, "before"), (3, "after")]);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = crate::checkpoint_store::test_folder("journal-growth");
        let (mut journal, _) = Journal::open(&folder).unwrap();
        let waits = kept(u64::MAX, "waits");
        journal.keep(&waits).unwrap();
        for key in 0..STALE_LINES as u64 {
            journal.keep(&kept(key, "x")).unwrap();
            journal.forget(EntryKey(key), false, || vec![waits.clone()]).unwrap();
        }
        drop(journal);
        let lines = std::fs::read_to_string(folder.join("outbox.jsonl")).unwrap().lines().count();
        assert!(lines <= STALE_LINES + 1, "{lines}");
        let (mut journal, waiting) = Journal::open(&folder).unwrap();
        assert_eq!(ids(&waiting), [(u64::MAX, "waits")]);
        journal.forget(EntryKey(u64::MAX), true, Vec::new).unwrap();
        assert_eq!(std::fs::read(folder.join("outbox.jsonl")).unwrap(), b"", "nothing said lies about");
        journal.keep(&kept(1, "next")).unwrap();
        drop(journal);
        assert_eq!(ids(&Journal::open(&folder).unwrap().1), [(1, "next")]);
    }

    /// What may stand in a line of the file.
    #[derive(Clone, Debug)]
    enum Stands {
        /// A key, and the content of its message.
        Kept(u64, String),
        Gone(u64),
        /// A part of a line, where the process or the room on the disk ended.
        CutOff(Index),
        Other(Vec<u8>),
    }

    fn stands() -> impl Strategy<Value = Stands> {
        prop_oneof![
            4 => (0u64..6, any::<String>()).prop_map(|(key, content)| Stands::Kept(key, content)),
            3 => (0u64..6).prop_map(Stands::Gone),
            1 => any::<Index>().prop_map(Stands::CutOff),
            1 => any::<Vec<u8>>().prop_map(Stands::Other),
        ]
    }

    fn line(of: &Kept) -> Vec<u8> {
        encode(&LineRef::Kept(of)).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_kept_and_not_gone_is_read_whatever_else_stands_there(
            all in proptest::collection::vec(stands(), 0..40)
        ) {
            let mut file = Vec::<u8>::new();
            let mut waiting = BTreeMap::new();
            for one in all {
                match one {
                    Stands::Kept(key, content) => {
                        let mut of = kept(key, "id");
                        of.message.content = content;
                        file.extend(line(&of));
                        waiting.insert(key, line(&of));
                    }
                    Stands::Gone(key) => {
                        file.extend(encode(&LineRef::Gone(EntryKey(key))).unwrap());
                        waiting.remove(&key);
                    }
                    Stands::CutOff(at) => {
                        let whole = line(&kept(0, "cut off"));
                        // The end of the line and at least one byte before it are missing.
                        file.extend_from_slice(&whole[..at.index(whole.len() - 1)]);
                        file.push(b'\n');
                    }
                    Stands::Other(bytes) => {
                        file.extend(bytes);
                        file.push(b'\n');
                    }
                }
            }
            let found: Vec<Vec<u8>> = read(&file[..]).unwrap().iter().map(line).collect();
            prop_assert_eq!(found, waiting.into_values().collect::<Vec<_>>());
        }

        #[test]
        fn any_file_is_read(bytes: Vec<u8>) {
            prop_assert!(read(&bytes[..]).is_ok());
        }
    }
}
