//! How far a client has got, over all shards; opaque to it.

use crate::{Position, Shard};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const VERSION: u8 = 1;
/// Version, then at most 256 runs of a length byte and a position.
const MOST_BYTES: usize = 1 + Shard::COUNT * 9;

/// A position per shard. As text: base64url of a version byte and runs of (length - 1, position as
/// eight bytes, big-endian), so that a fresh client's is a dozen characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint(Box<[Position; Shard::COUNT]>);

/// The text is no checkpoint of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint of this service")]
pub struct NotACheckpoint;

impl Default for Checkpoint {
    fn default() -> Self {
        Self(Box::new([Position::START; Shard::COUNT]))
    }
}

impl Checkpoint {
    #[must_use]
    pub fn get(&self, shard: Shard) -> Position {
        self.0[shard.index()]
    }

    pub fn set(&mut self, shard: Shard, position: Position) {
        self.0[shard.index()] = position;
    }

    /// Moves `shard` forward to `position`, never back.
    pub fn advance(&mut self, shard: Shard, position: Position) {
        let held = &mut self.0[shard.index()];
        *held = (*held).max(position);
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut shards = self.0.iter().peekable();
        while let Some(position) = shards.next() {
            let mut more = 0u8;
            while shards.next_if_eq(&position).is_some() {
                more += 1;
            }
            bytes.push(more);
            bytes.extend_from_slice(&position.as_u64().to_be_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, runs) = bytes.split_first()?;
        if *version != VERSION || bytes.len() > MOST_BYTES || runs.len() % 9 != 0 {
            return None;
        }
        let mut positions = Vec::with_capacity(Shard::COUNT);
        for run in runs.chunks_exact(9) {
            let position = Position::from_u64(u64::from_be_bytes(run[1..].try_into().ok()?))?;
            positions.extend(std::iter::repeat_n(position, usize::from(run[0]) + 1));
        }
        Some(Self(positions.into_boxed_slice().try_into().ok()?))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.to_bytes()))
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Checkpoint {
    type Err = NotACheckpoint;

    fn from_str(text: &str) -> Result<Self, NotACheckpoint> {
        if text.len() > MOST_BYTES * 4 / 3 + 4 {
            return Err(NotACheckpoint);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACheckpoint)?;
        Self::from_bytes(&bytes).ok_or(NotACheckpoint)
    }
}

impl Serialize for Checkpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_comes_back(moves in prop::collection::vec((any::<u8>(), 1u64..9), 0..300)) {
            let mut checkpoint = Checkpoint::default();
            for (shard, sequence) in moves {
                checkpoint.advance(Shard(shard), Position::new(Epoch::FIRST, sequence).unwrap());
            }
            prop_assert_eq!(checkpoint.to_string().parse::<Checkpoint>().unwrap(), checkpoint);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = text.parse::<Checkpoint>();
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            if let Some(checkpoint) = Checkpoint::from_bytes(&bytes) {
                prop_assert_eq!(Checkpoint::from_bytes(&checkpoint.to_bytes()).unwrap(), checkpoint);
            }
        }
    }

    #[test]
    fn a_fresh_one_is_short() {
        assert_eq!(Checkpoint::default().to_string().len(), 14);
    }
}
