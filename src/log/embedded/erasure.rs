//! Erasing a record where it stands. What is overwritten in the middle of a file must not be left half written: its
//! checksum would be wrong, and what is acknowledged lies behind it. So what will be written is noted first, and done
//! again at the next opening.

use super::segment::{FLAG_ERASED, HEAD, checksum, decode, frame_head};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The note of the newest erasure. It stays, for doing it again changes nothing.
const NOTE: &str = "erasure";
/// Overwrites the payload of the record with this body, which stands at `offset` of the segment that begins at
/// `first`.
pub(super) fn erase(
    folder: &Path,
    first: u64,
    path: &Path,
    offset: u64,
    mut body: Vec<u8>,
) -> std::io::Result<()> {
    let Some(record) = decode(&body) else { return Ok(()) };
    let payload = body.len() - record.payload.len();
    body[0] |= FLAG_ERASED;
    body[payload..].fill(0);
    let mut frame = frame_head(&body).to_vec();
    frame.append(&mut body);
    note(folder, first, offset, &frame)?;
    overwrite(path, offset, &frame)
}

/// Does the newest erasure again, in case it was cut short.
pub(super) fn redo(folder: &Path, path_of: impl Fn(u64) -> PathBuf) -> std::io::Result<()> {
    let note = match std::fs::read(folder.join(NOTE)) {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some((path, offset, frame)) = noted(&note, path_of) else { return Ok(()) };
    match stands_there(&path, offset, frame) {
        Ok(true) => overwrite(&path, offset, frame),
        Ok(false) => Ok(()),
        // Trimmed since.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checksum, the segment's first sequence, the place within it, the frame.
fn note(folder: &Path, first: u64, offset: u64, frame: &[u8]) -> std::io::Result<()> {
    let mut rest = first.to_be_bytes().to_vec();
    rest.extend_from_slice(&offset.to_be_bytes());
    rest.extend_from_slice(frame);
    let path = folder.join(NOTE);
    let is_new = !path.exists();
    let mut file = File::create(&path)?;
    file.write_all(&[&checksum(&rest)[..], &rest].concat())?;
    file.sync_all()?;
    // The name must survive a crash as well as the bytes.
    if is_new { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// What a note says; `None` of one that is not whole: what it is about was not begun.
fn noted(note: &[u8], path_of: impl Fn(u64) -> PathBuf) -> Option<(PathBuf, u64, &[u8])> {
    let (sum, rest) = note.split_first_chunk::<8>()?;
    if *sum != checksum(rest) {
        return None;
    }
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (offset, frame) = rest.split_first_chunk::<8>()?;
    Some((path_of(u64::from_be_bytes(*first)), u64::from_be_bytes(*offset), frame))
}

/// Whether what stands at that place is the frame that was to be overwritten, before, after, or in the middle of it:
/// its length and its position are the same in all three.
fn stands_there(path: &Path, offset: u64, frame: &[u8]) -> std::io::Result<bool> {
    const LENGTH: std::ops::Range<usize> = 0..4;
    const POSITION: std::ops::Range<usize> = HEAD + 1..HEAD + 9;
    let mut file = File::open(path)?;
    if file.metadata()?.len() < offset + frame.len() as u64 || frame.len() < POSITION.end {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut there = [0; POSITION.end];
    file.read_exact(&mut there)?;
    Ok(there[LENGTH] == frame[LENGTH] && there[POSITION] == frame[POSITION])
}

fn overwrite(path: &Path, offset: u64, frame: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(frame)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::super::segment::{self, Segments};
    use super::super::sequencer::StoredRecord;
    use super::*;

    fn record(sequence: u64) -> StoredRecord {
        let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        StoredRecord { traceparent, payload: vec![b'x'; 200].into(), ..segment::tests::record(sequence) }
    }

    /// The schedule: the process ends after any byte of the overwriting is on the disk.
    #[test]
    fn an_erasure_that_was_cut_short_takes_nothing_along() {
        let folder = std::env::temp_dir().join(format!("reedi-erasure-{}", std::process::id()));
        for cut in [0, 3, HEAD, HEAD + 1, HEAD + 150, HEAD + 300] {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            let mut segments = Segments::open(&folder, |_| {}).unwrap();
            segments.append((1..=3).map(record).collect::<Vec<_>>().iter()).unwrap();
            let path = folder.join(format!("{:020}.segment", 1));
            let before = std::fs::read(&path).unwrap();
            segments.erase(2).unwrap();
            let mut torn = std::fs::read(&path).unwrap();
            let begins = before.iter().zip(&torn).position(|(old, new)| old != new).unwrap();
            // The frame begins with its length, which stays; the checksum is the first that differs.
            let begins = begins / 4 * 4 - 4;
            torn[begins + cut..].copy_from_slice(&before[begins + cut..]);
            drop(segments);
            std::fs::write(&path, &torn).unwrap();
            let mut read = Vec::new();
            Segments::open(&folder, |record| read.push((record.position.sequence(), record.payload.len())))
                .unwrap();
            assert_eq!(read, [(1, 200), (2, 0), (3, 200)], "cut after {cut} bytes");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
