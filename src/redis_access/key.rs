//! Every key that stands in Redis. Each has a tag in braces, by which the servers place it: keys of
//! one tag are in one slot, so they can go in one pipeline, and the tags' slots lie evenly over
//! all slots, so that servers have equal shares of them.

use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};
use reedi_protocol::{AccountId, ConversationKey};
use std::sync::LazyLock;

/// How many tags there are, for ever: like the shards, more than there are servers by far, and few
/// enough that a pipeline of an edge with many accounts is long.
pub const TAGS: usize = 256;
/// Of a Redis cluster, by its specification.
const SLOTS: u16 = 16_384;

/// The text of each tag: the lowest number whose slot is in the tag's 256th of the slots.
static TAG_TEXTS: LazyLock<[u16; TAGS]> = LazyLock::new(|| {
    let mut texts = [None; TAGS];
    let of_tag = SLOTS / TAGS as u16;
    for number in (0..=u16::MAX).rev() {
        texts[usize::from(slot(number.to_string().as_bytes()) / of_tag)] = Some(number);
    }
    texts.map(Option::unwrap_or_default)
});

/// CRC-16/XMODEM, as the specification of the cluster has it.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

/// A key and the tag in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    tag: u8,
    text: String,
}

impl Key {
    fn new(tag: u8, what: &str, whose: &str) -> Self {
        let text = format!("reedi:{what}:{{{}}}:{whose}", TAG_TEXTS[usize::from(tag)]);
        Self { tag, text }
    }

    #[must_use]
    pub fn tag(&self) -> u8 {
        self.tag
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who holds an account, and when it was last seen.
    #[must_use]
    pub fn presence(account: AccountId) -> Self {
        Self::new(tag_of(account.as_bytes()), "presence", &account.as_uuid().to_string())
    }

    /// When the bucket of what an account sends is full again.
    #[must_use]
    pub fn rate_of_account(account: AccountId) -> Self {
        Self::new(tag_of(account.as_bytes()), "rate:account", &account.as_uuid().to_string())
    }

    /// When the bucket of what enters a conversation is full again.
    #[must_use]
    pub fn rate_of_conversation(conversation: ConversationKey) -> Self {
        let number = conversation.as_u64();
        Self::new(tag_of(&number.to_be_bytes()), "rate:conversation", &format!("{number:016x}"))
    }

    /// When the bucket of an address's tries to sign in is full again.
    #[must_use]
    pub fn rate_of_sign_in(address: u128) -> Self {
        Self::new(tag_of(&address.to_be_bytes()), "rate:sign-in", &format!("{address:032x}"))
    }

    /// Written to see whether the tag's server is well.
    #[must_use]
    pub fn probe(tag: u8) -> Self {
        Self::new(tag, "probe", "")
    }
}

/// Identifiers from elsewhere may have their randomness anywhere.
fn tag_of(identifier: &[u8]) -> u8 {
    blake3::hash(identifier).as_bytes()[0]
}

impl ToRedisArgs for Key {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.text.as_bytes());
    }
}

impl ToSingleRedisArg for Key {}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::cluster_routing::Slot;
    use uuid::Uuid;

    #[test]
    fn tags_lie_evenly_over_the_slots() {
        for tag in 0..=u8::MAX {
            let text = TAG_TEXTS[usize::from(tag)].to_string();
            assert_eq!(Some(Slot::for_key(&text)), Slot::new(slot(text.as_bytes())));
            assert_eq!(slot(text.as_bytes()) / 64, u16::from(tag), "{text}");
        }
    }

    #[test]
    fn a_key_is_where_its_tag_is() {
        let keys = [
            Key::presence(AccountId::new(Uuid::from_u128(1))),
            Key::rate_of_account(AccountId::new(Uuid::from_u128(2))),
            Key::rate_of_conversation(ConversationKey::from_u64(3)),
            Key::rate_of_sign_in(4),
            Key::probe(5),
        ];
        for key in keys {
            let tag = TAG_TEXTS[usize::from(key.tag())].to_string();
            assert_eq!(Slot::for_key(key.text()), Slot::for_key(tag), "{key:?}");
        }
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
            Key::probe(255),
        ];
        let expected = [
            "reedi:presence:{226}:01980000-0000-7000-8000-000000000001",
            "reedi:rate:account:{226}:01980000-0000-7000-8000-000000000001",
            "reedi:rate:conversation:{21}:00000000000000ab",
            "reedi:rate:sign-in:{278}:000000000000000000000000000000cd",
            "reedi:probe:{430}:",
        ];
        assert_eq!(keys.map(|key| key.text), expected);
    }
}
