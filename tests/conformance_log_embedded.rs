//! The embedded log, on disk and in memory, against the log's conformance suite; and what a disk can
//! do to it.

use reedi::domain::send_key::DuplicateKey;
use reedi::log::embedded::{EmbeddedLog, OpenError};
use reedi::log::{Append, Appended, Lane, LogPort, LogReader, ShardSet, conformance};
use reedi_protocol::{ConversationKey, Epoch, Position, Timestamp};
use std::path::PathBuf;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("reedi-log-{}", uuid::Uuid::new_v4()));
        Self(path)
    }

    fn log(&self) -> EmbeddedLog {
        EmbeddedLog::open(&self.0, Epoch::FIRST).expect("it opens")
    }

    fn newest_segment(&self) -> PathBuf {
        let entries = std::fs::read_dir(&self.0).expect("the folder").flatten().map(|e| e.path());
        entries.filter(|p| p.extension().is_some_and(|e| e == "segment")).max().expect("a segment")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn event(conversation: u64, payload: &'static [u8]) -> Append {
    Append {
        conversation: ConversationKey::from_u64(conversation),
        lane: Lane::Event,
        duplicate_key: None,
        payload: payload.into(),
        traceparent: None,
    }
}

async fn append(log: &EmbeddedLog, append: Append) -> Position {
    match log.append(append).await.expect("the log takes it") {
        Appended::New(position) | Appended::Duplicate(position) => position,
    }
}

async fn payloads(log: &EmbeddedLog, count: usize) -> Vec<Vec<u8>> {
    let slice = log.slices()[0];
    let mut reader = log.read(slice, ShardSet::all(), Position::START).await.expect("it reads");
    let mut found = Vec::new();
    while found.len() < count {
        let records = reader.next(100).await.expect("it reads on");
        found.extend(records.into_iter().map(|r| r.payload.to_vec()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_it_conforms() {
    let folder = Folder::new();
    conformance::all(&folder.log()).await;
}

#[tokio::test]
async fn in_memory_it_conforms() {
    let now = Timestamp::from_millis(1_700_000_000_000);
    conformance::all(&EmbeddedLog::in_memory(Epoch::FIRST, "memory", now)).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_with_its_keys_and_conditions() {
    let folder = Folder::new();
    let key = Some(DuplicateKey([7; 16]));
    let (first, control) = {
        let log = folder.log();
        let first = append(&log, Append { duplicate_key: key, ..event(1, b"one") }).await;
        let lane = Lane::Control { expected: Position::START };
        (first, append(&log, Append { lane, ..event(1, b"control") }).await)
    };
    let log = folder.log();
    assert_eq!(payloads(&log, 2).await, [b"one".to_vec(), b"control".to_vec()]);
    let again = log.append(Append { duplicate_key: key, ..event(1, b"one") }).await;
    assert_eq!(again, Ok(Appended::Duplicate(first)), "the key is known across a restart");
    let stale = Append { lane: Lane::Control { expected: Position::START }, ..event(1, b"x") };
    assert!(log.append(stale).await.is_err(), "the newest control event is known across a restart");
    let next = Append { lane: Lane::Control { expected: control }, ..event(1, b"next") };
    assert!(append(&log, next).await > control);
}

#[tokio::test]
async fn a_frame_cut_short_by_a_crash_is_cut_off() {
    let folder = Folder::new();
    {
        let log = folder.log();
        append(&log, event(1, b"whole")).await;
        append(&log, event(1, b"torn")).await;
    }
    let segment = folder.newest_segment();
    let mut bytes = std::fs::read(&segment).expect("the segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records, before the room for more");
    // The room for more is there, or was not written either.
    for (in_room, after) in [(true, &b"after"[..]), (false, b"later")] {
        bytes.truncate(end - 3);
        bytes.resize(if in_room { end + 5_000 } else { end - 3 }, 0);
        std::fs::write(&segment, &bytes).expect("it is cut");
        let log = folder.log();
        let position = append(&log, event(1, after)).await;
        assert_eq!(position.sequence(), 2, "the place of what was never acknowledged is free again");
        assert_eq!(payloads(&log, 2).await, [b"whole".to_vec(), after.to_vec()]);
    }
}

#[tokio::test]
async fn erased_content_is_on_no_disk_and_stays_away() {
    let folder = Folder::new();
    {
        let log = folder.log();
        let position = append(&log, event(1, b"SECRET-PAYLOAD")).await;
        append(&log, event(1, b"kept")).await;
        log.erase(ConversationKey::from_u64(1).shard(), position).await.expect("it erases");
        assert_eq!(log.get(ConversationKey::from_u64(1).shard(), position).await, Ok(None));
    }
    let bytes = std::fs::read(folder.newest_segment()).expect("the segment");
    assert!(!bytes.windows(6).any(|w| w == b"SECRET"));
    assert_eq!(payloads(&folder.log(), 1).await, [b"kept".to_vec()]);
}

#[tokio::test]
async fn two_processes_cannot_share_a_folder() {
    let folder = Folder::new();
    let log = folder.log();
    assert!(matches!(EmbeddedLog::open(&folder.0, Epoch::FIRST), Err(OpenError::InUse { .. })));
    drop(log);
    folder.log();
}

#[tokio::test]
async fn damage_before_the_newest_segment_is_told_and_not_skipped() {
    let folder = Folder::new();
    {
        let log = folder.log();
        append(&log, event(1, b"one")).await;
    }
    let older = folder.newest_segment();
    // A newer, empty segment makes the first one closed.
    std::fs::write(folder.0.join(format!("{:020}.segment", 2)), b"").expect("it writes");
    let mut bytes = std::fs::read(&older).expect("the segment");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&older, bytes).expect("it writes");
    assert!(matches!(EmbeddedLog::open(&folder.0, Epoch::FIRST), Err(OpenError::Damaged { .. })));
}
