//! The place of an event in the log.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Bits of a [`Position`] that hold the sequence number within one epoch.
pub const SEQUENCE_BITS: u32 = 44;

/// Bits of a whole [`Position`]: 14 of epoch and 44 of sequence.
pub const POSITION_BITS: u32 = 58;

/// One life of the log. A new epoch begins when the log's streams are made anew, so that a sequence
/// that ran backwards can never be mistaken for progress.
///
/// Limited to 101 for two reasons that meet in the same number: read as microseconds, a position of
/// epoch 101 lies in the past, which stores demand of a write timestamp; and it stays below 2^53,
/// so that JavaScript clients can hold a position as an ordinary number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Epoch(u16);

impl Epoch {
    /// The first epoch of a new installation.
    pub const FIRST: Epoch = Epoch(1);
    /// The last epoch that an installation can reach.
    pub const LAST: Epoch = Epoch(101);

    /// `None` outside 1..=101.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number >= Self::FIRST.0 && number <= Self::LAST.0 { Some(Self(number)) } else { None }
    }

    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| serde::de::Error::custom("an epoch is 1 to 101"))
    }
}

/// Place of an event in the log: (epoch, sequence), totally ordered within a conversation.
///
/// On the wire a JSON integer. `Position::START` (0) lies before every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Before every event.
    pub const START: Position = Position(0);

    /// `None` where the sequence is 0 or does not fit 44 bits.
    #[must_use]
    pub const fn new(epoch: Epoch, sequence: u64) -> Option<Self> {
        if sequence == 0 || sequence >> SEQUENCE_BITS != 0 {
            return None;
        }
        Some(Self(((epoch.0 as u64) << SEQUENCE_BITS) | sequence))
    }

    /// The number as it stands on the wire, in identifiers and as the store's write timestamp (as
    /// microseconds). `None` for an epoch beyond the last, and for epoch 0 unless it is the start.
    #[must_use]
    pub const fn from_u64(raw: u64) -> Option<Self> {
        if raw == 0 {
            return Some(Self::START);
        }
        let epoch = raw >> SEQUENCE_BITS;
        if epoch == 0 || epoch > Epoch::LAST.0 as u64 {
            return None;
        }
        Some(Self(raw))
    }

    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// `None` at the start, which is of no epoch.
    #[must_use]
    pub const fn epoch(self) -> Option<Epoch> {
        Epoch::new((self.0 >> SEQUENCE_BITS) as u16)
    }

    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }

    #[must_use]
    pub const fn is_start(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = u64::deserialize(deserializer)?;
        Self::from_u64(raw).ok_or_else(|| serde::de::Error::custom("not a position of the log"))
    }
}

impl std::str::FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let raw: u64 = text.parse().map_err(|_| "a position is a whole number")?;
        Self::from_u64(raw).ok_or("not a position of the log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_come_back(epoch in 1u16..=101, sequence in 1u64..(1 << SEQUENCE_BITS)) {
            let position = Position::new(Epoch::new(epoch).unwrap(), sequence).unwrap();
            prop_assert_eq!(position.epoch().unwrap().number(), epoch);
            prop_assert_eq!(position.sequence(), sequence);
            prop_assert_eq!(Position::from_u64(position.as_u64()), Some(position));
            prop_assert!(position.as_u64() < 1 << 53, "must stay exact in JavaScript");
        }

        #[test]
        fn a_later_epoch_is_later(a in 1u16..101, s in 1u64..(1 << SEQUENCE_BITS), t in 1u64..(1 << SEQUENCE_BITS)) {
            let earlier = Position::new(Epoch::new(a).unwrap(), s).unwrap();
            let later = Position::new(Epoch::new(a + 1).unwrap(), t).unwrap();
            prop_assert!(earlier < later);
        }

        #[test]
        fn any_number_is_a_position_or_refused(raw: u64) {
            if let Some(position) = Position::from_u64(raw) {
                prop_assert!(raw == 0 || position.epoch().is_some());
            }
        }
    }
}
