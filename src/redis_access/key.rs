//! Every key that stands in Redis, and the slot of a cluster that it is in.

use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};
use reedi_protocol::{AccountId, ConversationKey};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Of a cluster, by its specification.
pub const SLOTS: u16 = 16_384;

/// No key has braces, so its slot is that of its whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    fn new(what: &str, whose: impl Display) -> Self {
        Self(format!("reedi:{what}:{whose}"))
    }

    /// Who holds an account, and when it was last seen.
    #[must_use]
    pub fn presence(account: AccountId) -> Self {
        Self::new("presence", account.as_uuid())
    }

    /// When the bucket of what an account sends is full again.
    #[must_use]
    pub fn rate_of_account(account: AccountId) -> Self {
        Self::new("rate:account", account.as_uuid())
    }

    /// When the bucket of what enters a conversation is full again.
    #[must_use]
    pub fn rate_of_conversation(conversation: ConversationKey) -> Self {
        Self::new("rate:conversation", format_args!("{:016x}", conversation.as_u64()))
    }

    /// When the bucket of an address's tries to sign in is full again.
    #[must_use]
    pub fn rate_of_sign_in(address: u128) -> Self {
        Self::new("rate:sign-in", format_args!("{address:032x}"))
    }

    /// Written to see whether the server of these slots is well: the first of such keys that is in them.
    #[must_use]
    pub fn probe(slots: &RangeInclusive<u16>) -> Self {
        let mut probes = (0..u32::MAX).map(|number| Self::new("probe", number));
        probes.find(|key| slots.contains(&key.slot())).unwrap_or_else(|| Self::new("probe", ""))
    }

    /// CRC-16/XMODEM, by the cluster's specification.
    #[must_use]
    pub fn slot(&self) -> u16 {
        let crc = self.0.bytes().fold(0u16, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            })
        });
        crc % SLOTS
    }
}

impl ToRedisArgs for Key {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.0.as_bytes());
    }
}

impl ToSingleRedisArg for Key {}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::cluster_routing::Slot;
    use uuid::Uuid;

    #[test]
    fn slots_are_the_clusters() {
        for number in 0..10_000u128 {
            let key = Key::rate_of_sign_in(number);
            assert_eq!(Some(Slot::for_key(&key.0)), Slot::new(key.slot()), "{key:?}");
        }
    }

    #[test]
    fn every_slot_has_a_probe() {
        for slot in (0..SLOTS).step_by(1_000) {
            assert_eq!(Key::probe(&(slot..=slot)).slot(), slot);
        }
        assert_eq!(Key::probe(&(0..=SLOTS - 1)).0, "reedi:probe:0");
    }

    /// Processes of different versions run at the same time, so keys never change.
    #[test]
    fn keys_stay_as_they_are() {
        let account = AccountId::new(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001));
        let keys = [
            Key::presence(account),
            Key::rate_of_account(account),
            Key::rate_of_conversation(ConversationKey::from_u64(0xab)),
            Key::rate_of_sign_in(0xcd),
        ];
        let expected = [
            "reedi:presence:01980000-0000-7000-8000-000000000001",
            "reedi:rate:account:01980000-0000-7000-8000-000000000001",
            "reedi:rate:conversation:00000000000000ab",
            "reedi:rate:sign-in:000000000000000000000000000000cd",
        ];
        assert_eq!(keys.map(|key| key.0), expected);
    }
}
