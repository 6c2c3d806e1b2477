//! Sealing: content in the clear is encrypted before the log sees it (invariant
//! `content_stays_private`), with AES-256-GCM under a key of its conversation's own.

use crate::domain::record::Sealed;
use crate::runtime::random;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use bytes::Bytes;
use rand::RngCore;
use reedi_protocol::text::{ClientMessageId, Content};
use reedi_protocol::{AccountId, ConversationKey, EventId};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
/// Bytes of a GCM nonce (NIST SP 800-38D, section 8.2.2). Drawn at random: with a key per
/// conversation, 2^32 sealings of one conversation stay below the bound of section 8.3.
const NONCE: usize = 12;
/// Bytes of a key of the ring: AES-256.
const KEY: usize = crate::runtime::config::secret::SEAL_KEY_BYTES;

/// What sealed content belongs to: opening it anywhere else fails.
#[derive(Clone, Copy, Debug)]
pub enum Belonging<'a> {
    /// A new message, which cannot know its id yet.
    Sent { conversation: ConversationKey, sender: AccountId, client_message_id: &'a ClientMessageId },
    /// New content of a message that stands.
    Edit(EventId),
}

impl Belonging<'_> {
    fn conversation(&self) -> ConversationKey {
        match self {
            Self::Sent { conversation, .. } => *conversation,
            Self::Edit(id) => id.key(),
        }
    }

    fn aad(&self) -> Vec<u8> {
        match self {
            Self::Sent { conversation, sender, client_message_id } => {
                let mut aad = Vec::with_capacity(1 + 8 + 16 + client_message_id.as_str().len());
                aad.push(b's');
                aad.extend_from_slice(&conversation.as_u64().to_be_bytes());
                aad.extend_from_slice(sender.as_bytes());
                aad.extend_from_slice(client_message_id.as_str().as_bytes());
                aad
            }
            Self::Edit(id) => {
                let mut aad = vec![b'e'];
                aad.extend_from_slice(id.as_uuid().as_bytes());
                aad
            }
        }
    }
}

struct RingKey {
    name: String,
    secret: Zeroizing<[u8; KEY]>,
}

/// The keys that open content; the first one seals.
pub struct KeyRing(Vec<RingKey>);

/// Sealed content cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("sealed with the key {0:?}, which is not in the ring")]
    UnknownKey(String),
    #[error("not sealed for this place, or damaged")]
    Damaged,
}

impl KeyRing {
    /// The configured keys; the first one seals.
    #[must_use]
    pub fn new(keys: &crate::runtime::config::SealKeys) -> Self {
        let ring = keys.keys().iter().map(|key| RingKey { name: key.id.clone(), secret: key.key.clone() });
        Self(ring.collect())
    }

    #[must_use]
    pub fn seal(&self, content: &Content, belonging: Belonging) -> Sealed {
        let key = &self.0[0];
        let mut nonce = [0u8; NONCE];
        random::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: content.as_str().as_bytes(), aad: &belonging.aad() };
        let cipher = cipher(key, belonging.conversation());
        // AES-GCM refuses only texts of over 64 GiB.
        let text = cipher.encrypt(Nonce::from_slice(&nonce), payload).unwrap_or_default();
        let mut out = Vec::with_capacity(2 + key.name.len() + NONCE + text.len());
        out.push(VERSION);
        out.push(key.name.len() as u8);
        out.extend_from_slice(key.name.as_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&text);
        Sealed(Bytes::from(out))
    }

    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, sealed: &Sealed, belonging: Belonging) -> Result<String, OpenError> {
        let mut rest: &[u8] = &sealed.0;
        let mut take = |n: usize| {
            let (part, after) = rest.split_at_checked(n).ok_or(OpenError::Damaged)?;
            rest = after;
            Ok(part)
        };
        if take(1)? != [VERSION] {
            return Err(OpenError::Damaged);
        }
        let name_length = usize::from(take(1)?[0]);
        let name = take(name_length)?;
        let nonce = take(NONCE)?;
        let key = self.0.iter().find(|k| k.name.as_bytes() == name);
        let key = key.ok_or_else(|| OpenError::UnknownKey(String::from_utf8_lossy(name).into_owned()))?;
        let payload = Payload { msg: rest, aad: &belonging.aad() };
        let text = cipher(key, belonging.conversation())
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| OpenError::Damaged)?;
        String::from_utf8(text).map_err(|_| OpenError::Damaged)
    }
}

fn cipher(key: &RingKey, conversation: ConversationKey) -> Aes256Gcm {
    let mut hasher = blake3::Hasher::new_keyed(&key.secret);
    hasher.update(b"reedi seal 1");
    hasher.update(&conversation.as_u64().to_be_bytes());
    let derived = Zeroizing::new(*hasher.finalize().as_bytes());
    Aes256Gcm::new(derived.as_slice().into())
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|k| &k.name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reedi_protocol::{Epoch, Position};

    fn account(n: u128) -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(n))
    }

    fn ring(names: &[&str]) -> KeyRing {
        let keys = names.iter().map(|name| {
            let secret = Zeroizing::new(*blake3::hash(name.as_bytes()).as_bytes());
            RingKey { name: (*name).to_owned(), secret }
        });
        KeyRing(keys.collect())
    }

    #[test]
    fn only_its_own_place_opens_it() {
        let ring = ring(&["a"]);
        let (a, b) = (ClientMessageId::parse("a").unwrap(), ClientMessageId::parse("b").unwrap());
        let conversation = ConversationKey::from_u64(7);
        let content = Content::parse("plain mark\0".into()).unwrap();
        let here = Belonging::Sent { conversation, sender: account(1), client_message_id: &a };
        let sealed = ring.seal(&content, here);
        assert!(!sealed.0.windows(10).any(|w| w == b"plain mark"));
        assert_eq!(ring.open(&sealed, here).unwrap(), content.as_str());
        let position = Position::new(Epoch::FIRST, 1).unwrap();
        for elsewhere in [
            Belonging::Sent { conversation, sender: account(1), client_message_id: &b },
            Belonging::Sent { conversation, sender: account(2), client_message_id: &a },
            Belonging::Sent {
                conversation: ConversationKey::from_u64(8),
                sender: account(1),
                client_message_id: &a,
            },
            Belonging::Edit(conversation.event_id(position)),
        ] {
            assert_eq!(ring.open(&sealed, elsewhere), Err(OpenError::Damaged));
        }
    }

    #[test]
    fn a_rotated_ring_opens_what_the_old_key_sealed() {
        let id = ClientMessageId::parse("a").unwrap();
        let place = Belonging::Sent {
            conversation: ConversationKey::from_u64(7),
            sender: account(1),
            client_message_id: &id,
        };
        let content = Content::parse("x".into()).unwrap();
        let sealed = ring(&["old"]).seal(&content, place);
        let rotated = ring(&["new", "old"]);
        assert_eq!(rotated.open(&sealed, place).unwrap(), "x");
        let without = ring(&["new"]);
        assert_eq!(without.open(&sealed, place), Err(OpenError::UnknownKey("old".into())));
        assert!(without.open(&rotated.seal(&content, place), place).is_ok(), "the first key seals");
    }

    proptest! {
        #[test]
        fn any_bytes_are_opened_or_refused(bytes: Vec<u8>) {
            let ring = ring(&["a"]);
            let id = ClientMessageId::parse("a").unwrap();
            let place = Belonging::Sent { conversation: ConversationKey::from_u64(7), sender: account(1), client_message_id: &id };
            prop_assert!(ring.open(&Sealed(Bytes::from(bytes)), place).is_err());
        }
    }
}
