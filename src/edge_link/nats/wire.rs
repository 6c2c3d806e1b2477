//! How a frame travels: a version, whether it is whole or a part, and postcard.
//!
//! What is larger than the server takes at once is sent in parts and put together again before
//! anybody sees it. So a lost part is a lost frame, and a frame's coverage never claims events that
//! were in a part which is missing.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Of everything after it. A receiver drops what it does not know.
const VERSION: u8 = 1;
const WHOLE: u8 = 0;
const PART: u8 = 1;
/// The longest a part's header can get: version, kind, and postcard of two u64 and two u32.
const HEADER_BYTES: usize = 2 + 10 + 10 + 5 + 5;
/// The most bytes of one frame: a snapshot of two million accounts, far above what an edge holds.
const FRAME_BYTES_MOST: usize = 32 * 1024 * 1024;
/// Frames that may be incomplete at once at one receiver; parts of several come mixed only where
/// several senders, or tasks of one, send large frames at the same time.
const INCOMPLETE_MOST: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PartOf {
    sender: u64,
    frame: u64,
    index: u32,
    count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("a frame of {0} bytes is larger than any should be")]
    TooLarge(usize),
    #[error("a server that takes {0} bytes at most is of no use")]
    NoRoom(usize),
    #[error("version {0} is not known here")]
    Version(u8),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl From<postcard::Error> for WireError {
    fn from(error: postcard::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// The payloads that carry `frame`, each of at most `payload_most` bytes.
pub(super) fn encode<T: Serialize>(
    frame: &T,
    sender: u64,
    number: u64,
    payload_most: usize,
) -> Result<Vec<Bytes>, WireError> {
    let whole = postcard::to_extend(frame, vec![VERSION, WHOLE])?;
    if whole.len() <= payload_most {
        return Ok(vec![whole.into()]);
    }
    if whole.len() > FRAME_BYTES_MOST {
        return Err(WireError::TooLarge(whole.len()));
    }
    let room = payload_most.checked_sub(HEADER_BYTES).filter(|room| *room > 0);
    let room = room.ok_or(WireError::NoRoom(payload_most))?;
    let content = &whole[2..];
    let count = u32::try_from(content.len().div_ceil(room)).map_err(|_| WireError::NoRoom(payload_most))?;
    let parts = content.chunks(room).zip(0..count).map(|(chunk, index)| {
        let mut part = BytesMut::with_capacity(HEADER_BYTES + chunk.len());
        part.put_slice(&[VERSION, PART]);
        let of = PartOf { sender, frame: number, index, count };
        part.put_slice(&postcard::to_stdvec(&of)?);
        part.put_slice(chunk);
        Ok(part.freeze())
    });
    parts.collect()
}

/// Puts frames together. Bounded: the oldest incomplete frame makes room for a new one.
#[derive(Default)]
pub(super) struct Assembly {
    incomplete: VecDeque<Incomplete>,
}

struct Incomplete {
    of: PartOf,
    content: Vec<u8>,
}

impl Assembly {
    /// The frame that `payload` is, or completes.
    pub(super) fn take<T: DeserializeOwned>(&mut self, payload: Bytes) -> Result<Option<T>, WireError> {
        match payload.get(..2) {
            Some([VERSION, WHOLE]) => Ok(Some(postcard::from_bytes(&payload[2..])?)),
            Some([VERSION, PART]) => {
                let (of, chunk) = postcard::take_from_bytes::<PartOf>(&payload[2..])?;
                match self.add(of, chunk) {
                    Some(content) => Ok(Some(postcard::from_bytes(&content)?)),
                    None => Ok(None),
                }
            }
            Some([version, _]) if *version != VERSION => Err(WireError::Version(*version)),
            _ => Err(WireError::Unreadable("neither whole nor a part".to_owned())),
        }
    }

    /// The whole content, once its last part is added. Parts of a frame come in order (one sender, one
    /// subject), so a part out of order means that another is lost, and the frame with it.
    fn add(&mut self, of: PartOf, chunk: &[u8]) -> Option<Vec<u8>> {
        let key = |of: &PartOf| (of.sender, of.frame, of.count);
        let at = self.incomplete.iter().position(|one| key(&one.of) == key(&of));
        let mut frame = match (of.index, at.and_then(|at| self.incomplete.remove(at))) {
            (0, _) => Incomplete { of, content: Vec::new() },
            (index, Some(frame)) if index == frame.of.index + 1 => frame,
            _ => return None,
        };
        if frame.content.len() + chunk.len() > FRAME_BYTES_MOST {
            return None;
        }
        frame.content.extend_from_slice(chunk);
        frame.of = of;
        if of.index + 1 >= of.count {
            return Some(frame.content);
        }
        if self.incomplete.len() >= INCOMPLETE_MOST {
            self.incomplete.pop_front();
        }
        self.incomplete.push_back(frame);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn give(assembly: &mut Assembly, parts: &[Bytes]) -> Vec<Vec<u8>> {
        parts.iter().filter_map(|part| assembly.take::<Vec<u8>>(part.clone()).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn frames_come_back(frame: Vec<u8>, payload_most in 33_usize..200) {
            let parts = encode(&frame, 1, 2, payload_most).unwrap();
            prop_assert!(parts.iter().all(|part| part.len() <= payload_most));
            prop_assert_eq!(give(&mut Assembly::default(), &parts), vec![frame]);
        }

        #[test]
        fn a_lost_part_is_a_lost_frame(lost in 0_usize..5) {
            let frame = vec![7_u8; 5 * 100 - 10];
            let mut parts = encode(&frame, 1, 2, 100 + HEADER_BYTES).unwrap();
            prop_assert_eq!(parts.len(), 5);
            parts.remove(lost);
            let mut assembly = Assembly::default();
            prop_assert!(give(&mut assembly, &parts).is_empty());
            let next = encode(&vec![1_u8; 300], 1, 3, 100 + HEADER_BYTES).unwrap();
            prop_assert_eq!(give(&mut assembly, &next).len(), 1);
        }

        #[test]
        fn nothing_received_panics(payload: Vec<u8>) {
            let _ = Assembly::default().take::<Vec<u8>>(payload.into());
        }
    }

    #[test]
    fn frames_of_several_senders_may_be_mixed() {
        let frames: Vec<Vec<u8>> = (0..3_u8).map(|n| vec![n; 250]).collect();
        let parts: Vec<Vec<Bytes>> =
            (0..3).map(|n| encode(&frames[n], n as u64, 1, 100 + HEADER_BYTES).unwrap()).collect();
        let mixed: Vec<Bytes> =
            (0..3).flat_map(|part| parts.iter().map(move |of| of[part].clone())).collect();
        assert_eq!(give(&mut Assembly::default(), &mixed), frames);
    }

    #[test]
    fn what_is_incomplete_is_bounded() {
        let mut assembly = Assembly::default();
        for number in 0..1_000 {
            let parts = encode(&vec![0_u8; 150], 1, number, 100 + HEADER_BYTES).unwrap();
            assert!(give(&mut assembly, &parts[..1]).is_empty());
        }
        assert_eq!(assembly.incomplete.len(), INCOMPLETE_MOST);
    }

    #[test]
    fn another_version_is_refused() {
        let error = Assembly::default().take::<Vec<u8>>(Bytes::from_static(&[9, 0, 0])).unwrap_err();
        assert_eq!(error, WireError::Version(9));
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::edge_link::{Coverage, EdgeId, Generation, ToEdge, ToWorkers, WorkerId};
    use crate::fuzz::{Edit, edited};
    use reedi_protocol::{AccountId, Epoch, Position, Shard};

    fn to_edge() -> ToEdge {
        let at = |sequence| Position::new(Epoch::FIRST, sequence).unwrap();
        let coverage = (0..9).map(|n| Coverage {
            shard: Shard(n),
            generation: Generation(3),
            after: at(1),
            through: at(u64::from(n) + 1),
        });
        ToEdge::Batch { worker: WorkerId(1), routes: 7, coverage: coverage.collect(), events: Vec::new() }
    }

    fn to_workers() -> ToWorkers {
        let accounts = (0..9).map(|n| AccountId::new(uuid::Uuid::from_u128(n))).collect();
        ToWorkers::Snapshot {
            edge: EdgeId(1),
            version: 2,
            accounts,
            through: vec![(Shard(1), Position::START)],
        }
    }

    /// Payloads of frames, whole and in parts, changed, lost and in any order.
    #[test]
    fn frames_of_the_link() {
        const WORDS: &[&[u8]] = &[&[VERSION, WHOLE], &[VERSION, PART], &[0xff; 10], &[0; 5]];
        let payloads: Vec<Bytes> = [200, 40]
            .into_iter()
            .flat_map(|most| {
                let edge = encode(&to_edge(), 1, 2, most).unwrap();
                edge.into_iter().chain(encode(&to_workers(), 3, 4, most).unwrap())
            })
            .collect();
        bolero::check!().with_type::<Vec<(u8, Vec<Edit>)>>().for_each(|arriving| {
            let (mut edges, mut workers) = (Assembly::default(), Assembly::default());
            for (which, edits) in arriving {
                let payload = edited(&payloads[usize::from(*which) % payloads.len()], edits, WORDS);
                let payload = Bytes::from(payload);
                if let Ok(Some(frame)) = edges.take::<ToEdge>(payload.clone()) {
                    let again = encode(&frame, 1, 2, FRAME_BYTES_MOST).unwrap().remove(0);
                    assert_eq!(Assembly::default().take(again), Ok(Some(frame)), "what was written is read");
                }
                let _ = workers.take::<ToWorkers>(payload);
                assert!(
                    edges.incomplete.len() <= INCOMPLETE_MOST && workers.incomplete.len() <= INCOMPLETE_MOST
                );
            }
        });
    }
}
