//! Segments: the files of the embedded log. A file is named by its first sequence and holds frames:
//! length, checksum, body. A frame is whole or it is not there.

use super::sequencer::StoredRecord;
use super::{OpenError, erasure, io_error};
use crate::runtime::trace_context::TraceContext;
use bytes::Bytes;
use reedi_protocol::{ConversationKey, Position, Timestamp};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A segment is closed at this size, in bytes; trimming removes whole ones.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Zeros written ahead of the records, in bytes: syncing within a file that has its size takes three
/// quarters of the time of syncing one that grows.
const ROOM: u64 = 1 << 20;
/// One in so many records has its offset in memory.
const INDEX_EVERY: u64 = 64;
/// Length and checksum before each body, in bytes.
pub(super) const HEAD: usize = 12;
/// A body of more bytes is damage, not a record: the largest payload is a frame's worth.
const BODY_MOST: usize = 16 << 20;

/// Bytes read at once, about: appends wait meanwhile.
const READ_BYTES: usize = 4 << 20;

const FLAG_CONTROL: u8 = 1;
pub(super) const FLAG_ERASED: u8 = 2;
const FLAG_KEY: u8 = 4;

struct Segment {
    path: PathBuf,
    first: u64,
    /// Offset of each record whose sequence is `first` + a multiple of [`INDEX_EVERY`].
    index: Vec<u64>,
    bytes: u64,
    next: u64,
}

pub(super) struct Segments {
    folder: PathBuf,
    closed: Vec<Segment>,
    open: Option<(Segment, File)>,
    /// Bytes that the open segment's file has: records, and zeros after them.
    room: u64,
    buffer: Vec<u8>,
}

impl Segments {
    /// Reads all segments in `folder`, giving every record to `learn`, and is ready to append.
    pub fn open(folder: &Path, mut learn: impl FnMut(StoredRecord)) -> Result<Self, OpenError> {
        erasure::redo(folder, |first| path_of(folder, first)).map_err(io_error(folder))?;
        let mut names: Vec<(u64, PathBuf)> = std::fs::read_dir(folder)
            .map_err(io_error(folder))?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let first = path.file_name()?.to_str()?.strip_suffix(".segment")?.parse().ok()?;
                Some((first, path))
            })
            .collect();
        names.sort();
        let mut segments =
            Self { folder: folder.to_owned(), closed: Vec::new(), open: None, room: 0, buffer: Vec::new() };
        let last = names.len().saturating_sub(1);
        for (i, (first, path)) in names.into_iter().enumerate() {
            let segment = scan(first, &path, i == last, &mut learn)?;
            segments.closed.push(segment);
        }
        if let Some(segment) = segments.closed.pop() {
            let file = OpenOptions::new().read(true).write(true).open(&segment.path);
            let mut file = file.map_err(io_error(folder))?;
            file.set_len(segment.bytes).map_err(io_error(folder))?;
            file.seek(SeekFrom::End(0)).map_err(io_error(folder))?;
            segments.room = segment.bytes;
            segments.open = Some((segment, file));
        }
        Ok(segments)
    }

    /// The first sequence on disk; 1 where there is none.
    pub fn first_sequence(&self) -> u64 {
        self.all().next().map_or(1, |segment| segment.first)
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.closed.iter().chain(self.open.as_ref().map(|(segment, _)| segment))
    }

    /// Writes and syncs all of `records`, in order.
    pub fn append<'a>(&mut self, records: impl Iterator<Item = &'a StoredRecord>) -> std::io::Result<()> {
        self.buffer.clear();
        for record in records {
            let sequence = record.position.sequence();
            let full = self.open.as_ref().is_some_and(|(s, _)| s.bytes >= SEGMENT_BYTES);
            if full || self.open.is_none() {
                self.flush()?;
                self.roll(sequence)?;
            }
            if let Some((segment, _)) = &mut self.open {
                let before = self.buffer.len();
                encode(record, &mut self.buffer);
                if (sequence - segment.first).is_multiple_of(INDEX_EVERY) {
                    segment.index.push(segment.bytes);
                }
                segment.bytes += (self.buffer.len() - before) as u64;
                segment.next = sequence + 1;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if let Some((segment, file)) = &mut self.open
            && !self.buffer.is_empty()
        {
            if segment.bytes > self.room {
                let begins = segment.bytes - self.buffer.len() as u64;
                make_room(file, segment.bytes, ROOM)?;
                file.seek(SeekFrom::Start(begins))?;
                self.room = segment.bytes + ROOM;
            }
            file.write_all(&self.buffer)?;
            file.sync_data()?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn roll(&mut self, first: u64) -> std::io::Result<()> {
        if let Some((full, file)) = &mut self.open {
            // In a file that is not the newest, zeros would be damage. Before the next file has its name.
            file.set_len(full.bytes)?;
            file.sync_all()?;
        }
        self.room = 0;
        let path = path_of(&self.folder, first);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        // The name must survive a crash as well as the bytes.
        File::open(&self.folder)?.sync_all()?;
        let segment = Segment { path, first, index: Vec::new(), bytes: 0, next: first };
        if let Some((closed, _)) = self.open.replace((segment, file)) {
            self.closed.push(closed);
        }
        Ok(())
    }

    /// At most `most` records after `after`, from disk, within one segment.
    pub fn read_after(&self, after: u64, most: usize) -> std::io::Result<Vec<StoredRecord>> {
        let Some(segment) = self.all().find(|s| s.next > after + 1) else { return Ok(Vec::new()) };
        let (mut records, mut bytes) = (Vec::new(), 0);
        segment.frames(after + 1, |_, body| {
            if let Some(record) = decode(body)
                && record.position.sequence() > after
            {
                bytes += body.len();
                records.push(record);
            }
            records.len() < most && bytes < READ_BYTES
        })?;
        Ok(records)
    }

    /// Overwrites the payload of one record on disk.
    pub fn erase(&mut self, sequence: u64) -> std::io::Result<()> {
        let Some(segment) = self.all().find(|s| s.first <= sequence && sequence < s.next) else {
            return Ok(());
        };
        let mut found = None;
        segment.frames(sequence, |offset, body| match decode(body) {
            Some(record) if record.position.sequence() == sequence => {
                found = Some((offset, body.to_vec()));
                false
            }
            _ => true,
        })?;
        let Some((offset, body)) = found else { return Ok(()) };
        erasure::erase(&self.folder, segment.first, &segment.path, offset, body)
    }

    /// Removes segments that hold nothing from `first` on.
    pub fn trim(&mut self, first: u64) -> std::io::Result<()> {
        let gone: Vec<Segment> = {
            let keep = self.closed.iter().position(|s| s.next > first).unwrap_or(self.closed.len());
            self.closed.drain(..keep).collect()
        };
        gone.iter().try_for_each(|segment| std::fs::remove_file(&segment.path))
    }
}

fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.segment"))
}

impl Segment {
    /// Gives the frames from about `sequence` on (never later) to `each`, until it says no.
    fn frames(&self, sequence: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> std::io::Result<()> {
        let slot = (sequence.saturating_sub(self.first) / INDEX_EVERY) as usize;
        let mut offset = self.index.get(slot).or(self.index.last()).copied().unwrap_or(0);
        let mut file = std::io::BufReader::with_capacity(1 << 16, File::open(&self.path)?);
        file.seek(SeekFrom::Start(offset))?;
        let (mut head, mut body) = ([0; HEAD], Vec::new());
        while offset < self.bytes {
            file.read_exact(&mut head)?;
            let length = body_length(&head);
            body.resize(length.min(BODY_MOST), 0);
            file.read_exact(&mut body)?;
            if frame_head(&body) != head {
                return Err(std::io::Error::other(format!(
                    "{} is damaged at byte {offset}",
                    self.path.display()
                )));
            }
            if !each(offset, &body) {
                break;
            }
            offset += (HEAD + length) as u64;
        }
        Ok(())
    }
}

/// Writes `bytes` zeros from `from` on.
fn make_room(file: &mut File, from: u64, bytes: u64) -> std::io::Result<()> {
    const PART: &[u8] = &[0; 1 << 16];
    file.seek(SeekFrom::Start(from))?;
    let whole = bytes / PART.len() as u64;
    (0..whole).try_for_each(|_| file.write_all(PART))
}

pub(super) fn frame_head(body: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(body.len() as u32).to_be_bytes());
    head[4..].copy_from_slice(&checksum(body));
    head
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    sum
}

fn body_length(head: &[u8; HEAD]) -> usize {
    u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize
}

/// Body: flags, sequence and epoch as position, time, conversation, key, traceparent, payload.
fn encode(record: &StoredRecord, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let mut flags = 0;
    if record.is_control {
        flags |= FLAG_CONTROL;
    }
    if record.duplicate_key.is_some() {
        flags |= FLAG_KEY;
    }
    out.push(flags);
    out.extend_from_slice(&record.position.as_u64().to_be_bytes());
    out.extend_from_slice(&record.log_time.as_millis().to_be_bytes());
    out.extend_from_slice(&record.conversation.as_u64().to_be_bytes());
    if let Some(key) = record.duplicate_key {
        out.extend_from_slice(&key.0);
    }
    match record.traceparent.map(|trace| trace.text()) {
        Some(trace) => {
            out.push(trace.len() as u8);
            out.extend_from_slice(&trace);
        }
        None => out.push(0),
    }
    out.extend_from_slice(&record.payload);
    let head = frame_head(&out[start + HEAD..]);
    out[start..start + HEAD].copy_from_slice(&head);
}

pub(super) fn decode(body: &[u8]) -> Option<StoredRecord> {
    let mut rest = body;
    let mut take = |n: usize| {
        let (part, after) = rest.split_at_checked(n)?;
        rest = after;
        Some(part)
    };
    let flags = take(1)?[0];
    let mut number = || Some(u64::from_be_bytes(take(8)?.try_into().ok()?));
    let position = Position::from_u64(number()?)?;
    let log_time = Timestamp::from_millis(number()?);
    let conversation = ConversationKey::from_u64(number()?);
    let duplicate_key = match flags & FLAG_KEY {
        0 => None,
        _ => Some(crate::domain::send_key::DuplicateKey(take(16)?.try_into().ok()?)),
    };
    let trace = usize::from(take(1)?[0]);
    let traceparent = TraceContext::from_bytes(take(trace)?);
    let payload = if flags & FLAG_ERASED != 0 { Bytes::new() } else { Bytes::copy_from_slice(rest) };
    let is_control = flags & FLAG_CONTROL != 0;
    Some(StoredRecord { position, log_time, conversation, is_control, duplicate_key, traceparent, payload })
}

/// Reads one segment whole. In the newest, a frame that is not whole ends it.
fn scan(
    first: u64,
    path: &Path,
    newest: bool,
    learn: &mut impl FnMut(StoredRecord),
) -> Result<Segment, OpenError> {
    let mut segment = Segment { path: path.to_owned(), first, index: Vec::new(), bytes: 0, next: first };
    let file = File::open(path).map_err(io_error(path))?;
    let length = file.metadata().map_err(io_error(path))?.len();
    let mut file = std::io::BufReader::with_capacity(1 << 20, file);
    let (mut head, mut body) = ([0; HEAD], Vec::new());
    while segment.bytes < length {
        let whole = (|| {
            file.read_exact(&mut head).ok()?;
            let expected = body_length(&head);
            if expected > BODY_MOST {
                return None;
            }
            body.resize(expected, 0);
            file.read_exact(&mut body).ok()?;
            let record = if frame_head(&body) == head { decode(&body) } else { None };
            // Sequences have no gaps within a file; one that does not follow was not written here.
            record.filter(|record| record.position.sequence() == segment.next)
        })();
        let Some(record) = whole else {
            if newest {
                break;
            }
            return Err(OpenError::Damaged { path: path.display().to_string(), at: segment.bytes });
        };
        let sequence = record.position.sequence();
        if (sequence - first).is_multiple_of(INDEX_EVERY) {
            segment.index.push(segment.bytes);
        }
        segment.bytes += (HEAD + body.len()) as u64;
        segment.next = sequence + 1;
        learn(record);
    }
    Ok(segment)
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::domain::send_key::DuplicateKey;
    use crate::fuzz::{Edit, edited};
    use reedi_protocol::Epoch;

    fn record(sequence: u64) -> StoredRecord {
        StoredRecord {
            position: Position::new(Epoch::FIRST, sequence).unwrap(),
            log_time: Timestamp::from_millis(1_700_000_000_000 + sequence),
            conversation: ConversationKey::from_u64(sequence << 56 | 1),
            is_control: sequence.is_multiple_of(3),
            duplicate_key: sequence.is_multiple_of(2).then_some(DuplicateKey([7; 16])),
            traceparent: None,
            payload: Bytes::from(vec![sequence as u8; 40]),
        }
    }

    /// Whatever became of a file: what is read from it is what was written, from its beginning on, in
    /// order; and a damaged one that is not the newest is not taken for a shorter one.
    #[test]
    fn segments_of_the_log() {
        let written: Vec<StoredRecord> = (5..13).map(record).collect();
        let mut whole = Vec::new();
        written.iter().for_each(|record| encode(record, &mut whole));
        let frame = whole.len() / written.len();
        let word = &whole[..frame];
        let path = std::env::temp_dir().join(format!("reedi-fuzz-segment-{}", std::process::id()));
        bolero::check!().with_type::<(Vec<Edit>, bool, u8)>().for_each(|(edits, newest, first)| {
            let first = 5 + u64::from(first / 250);
            let bytes = edited(&whole, edits, &[word, &[0xff; 4], &[0; 12]]);
            std::fs::write(&path, &bytes).unwrap();
            let mut read = Vec::new();
            let scanned = scan(first, &path, *newest, &mut |record| read.push(record));
            let expected = if first == 5 { &written[..] } else { &[] };
            assert!(expected.starts_with(&read), "read what was not written there: {read:?}");
            match scanned {
                Ok(segment) => {
                    assert_eq!(segment.next, first + read.len() as u64);
                    assert!(*newest || segment.bytes == bytes.len() as u64, "a part was passed over");
                }
                Err(error) => assert!(!newest, "{error}"),
            }
        });
        let _ = std::fs::remove_file(&path);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use reedi_protocol::Epoch;

    pub fn record(sequence: u64) -> StoredRecord {
        StoredRecord {
            position: Position::new(Epoch::FIRST, sequence).unwrap(),
            log_time: Timestamp::from_millis(sequence),
            conversation: ConversationKey::from_u64(sequence),
            is_control: false,
            duplicate_key: None,
            traceparent: None,
            payload: Bytes::from(vec![1; 700_000]),
        }
    }

    fn read(folder: &Path) -> (Segments, Vec<u64>) {
        let mut read = Vec::new();
        let segments = Segments::open(folder, |record| read.push(record.position.sequence())).unwrap();
        (segments, read)
    }

    /// Room is made several times, is cut off where a segment is closed, and is nothing where one is read.
    /// The index leads up to 63 records before the one that is asked for, which are read over.
    #[test]
    fn what_is_read_over_does_not_count_as_read() {
        let folder = std::env::temp_dir().join(format!("reedi-read-over-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut segments = Segments::open(&folder, |_| {}).unwrap();
        let large = |sequence| StoredRecord { payload: vec![1; READ_BYTES / 16].into(), ..record(sequence) };
        segments.append((1..=40).map(large).collect::<Vec<_>>().iter()).unwrap();
        let read = segments.read_after(38, 10).unwrap();
        assert_eq!(read.iter().map(|r| r.position.sequence()).collect::<Vec<_>>(), [39, 40]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn room_ahead_is_no_damage() {
        let folder = std::env::temp_dir().join(format!("reedi-room-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (mut segments, _) = read(&folder);
        for sequence in 1..=4 {
            segments.append(std::iter::once(&record(sequence))).unwrap();
        }
        let length = |segment: &Segment| std::fs::metadata(&segment.path).unwrap().len();
        let (open, _) = segments.open.as_ref().unwrap();
        assert!(length(open) > open.bytes, "there is room");
        segments.roll(5).unwrap();
        assert_eq!(length(&segments.closed[0]), segments.closed[0].bytes);
        segments.append([5, 6].map(record).iter()).unwrap();
        // As after a sudden end: nothing is tidied up.
        drop(segments);
        let (mut segments, sequences) = read(&folder);
        assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
        segments.append(std::iter::once(&record(7))).unwrap();
        assert_eq!(segments.read_after(4, 10).unwrap().len(), 3);
        assert_eq!(read(&folder).1, [1, 2, 3, 4, 5, 6, 7]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
