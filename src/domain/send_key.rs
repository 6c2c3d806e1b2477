//! What makes two sends the same send (rule P4).

use super::record::RequestDigest;
use reedi_protocol::text::ClientMessageId;
use reedi_protocol::{AccountId, ConversationKey, Position};

/// The age range, in milliseconds, in which a key is fresh: no earlier send with it can have left
/// the log's duplicate window, so the log alone decides.
pub const FRESH_MS: std::ops::RangeInclusive<i64> = -5_000..=30_000;

/// The age, in milliseconds, up to which a key is looked up in the store; beyond, it is refused.
pub const OLDEST_MS: i64 = 48 * 3_600 * 1_000;

/// The log's key for duplicates: 128 bits of BLAKE3 over what makes a send unique. The same message
/// must give the same key on every edge for ever, so the input is fixed and length-framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DuplicateKey(pub [u8; 16]);

impl DuplicateKey {
    #[must_use]
    pub fn of_send(sender: AccountId, conversation: ConversationKey, id: &ClientMessageId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"reedi send 1");
        hasher.update(sender.as_bytes());
        hasher.update(&conversation.as_u64().to_be_bytes());
        hasher.update(id.as_str().as_bytes());
        Self(truncated(&hasher))
    }

    /// The key to publish under after the record at `void` was found to be void.
    #[must_use]
    pub fn after_void(self, void: Position) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"reedi again 1");
        hasher.update(&self.0);
        hasher.update(&void.as_u64().to_be_bytes());
        Self(truncated(&hasher))
    }
}

impl std::fmt::Display for DuplicateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl RequestDigest {
    /// Of the parts of a request that a repeat must have in common.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"reedi request 1");
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(truncated(&hasher))
    }
}

fn truncated(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// What the age of a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Publish: the log's duplicate window covers every earlier try.
    Fresh,
    /// Look into the store first: an earlier try may have left the window.
    LookUp,
    /// Refuse: what became of an earlier try is no longer known, or the clock is wrong.
    OutOfRange,
}

/// Judges a key by the time within it.
#[must_use]
pub fn freshness(id: &ClientMessageId, now_ms: u64) -> Freshness {
    let Some(minted_ms) = id.minted_at_ms() else { return Freshness::LookUp };
    let age_ms = now_ms as i64 - minted_ms as i64;
    if FRESH_MS.contains(&age_ms) {
        Freshness::Fresh
    } else if age_ms < *FRESH_MS.start() || age_ms > OLDEST_MS {
        Freshness::OutOfRange
    } else {
        Freshness::LookUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted(ms: u64) -> ClientMessageId {
        let uuid = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(
            uuid::NoContext,
            ms / 1_000,
            (ms % 1_000 * 1_000_000) as u32,
        ));
        ClientMessageId::parse(&uuid.to_string()).unwrap()
    }

    #[test]
    fn the_boundaries_are_where_the_rule_says() {
        let now = 1_800_000_000_000;
        let cases = [
            (now + 5_000, Freshness::Fresh),
            (now + 5_001, Freshness::OutOfRange),
            (now - 30_000, Freshness::Fresh),
            (now - 30_001, Freshness::LookUp),
            (now - 48 * 3_600_000, Freshness::LookUp),
            (now - 48 * 3_600_000 - 1, Freshness::OutOfRange),
        ];
        for (at, expected) in cases {
            assert_eq!(freshness(&minted(at), now), expected, "{at}");
        }
        assert_eq!(freshness(&ClientMessageId::parse("x").unwrap(), now), Freshness::LookUp);
    }

    #[test]
    fn the_key_never_changes() {
        let key = DuplicateKey::of_send(
            AccountId::new(uuid::Uuid::from_u128(1)),
            ConversationKey::from_u64(2),
            &ClientMessageId::parse("three").unwrap(),
        );
        assert_eq!(key.to_string(), include_str!("fixtures/duplicate-key.txt").trim());
    }
}
