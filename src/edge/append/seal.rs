//! Sealing: content in the clear is encrypted before the log sees it (invariant
//! `content_stays_private`), with AES-256-GCM under a key of its conversation's own.

use crate::domain::record::Sealed;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use rand::RngCore;
use reedi_protocol::text::{ClientMessageId, Content};
use reedi_protocol::{AccountId, ConversationKey, EventId};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
/// Bytes of a GCM nonce (NIST SP 800-38D, section 8.2.2). Drawn at random: with a key per
/// conversation, 2^32 sealings of one conversation stay below the bound of section 8.3.
const NONCE: usize = 12;
/// Bytes of a key of the ring, and of a key's name at most.
const KEY: usize = 32;
const NAME_MOST: usize = 64;

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
                let mut aad = vec![b's'];
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

/// Why a key ring cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    #[error("the key ring is empty: give at least one `id:base64` of 32 random bytes")]
    Empty,
    #[error("a key is `id:base64`, the id of 1 to 64 letters, digits, '-' or '_'")]
    Shape,
    #[error("the key {0:?} is not 32 bytes of base64")]
    Key(String),
    #[error("two keys are called {0:?}")]
    Twice(String),
}

/// Sealed content cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("sealed with the key {0:?}, which is not in the ring")]
    UnknownKey(String),
    #[error("not sealed for this place, or damaged")]
    Damaged,
}

impl KeyRing {
    /// Parses `id:base64,id:base64,...`.
    ///
    /// # Errors
    /// See [`KeyRingError`]; none of them shows a key.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut ring: Vec<RingKey> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, key) = part.split_once(':').ok_or(KeyRingError::Shape)?;
            let name_is_fine = (1..=NAME_MOST).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            if !name_is_fine {
                return Err(KeyRingError::Shape);
            }
            if ring.iter().any(|k| k.name == name) {
                return Err(KeyRingError::Twice(name.to_owned()));
            }
            let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| KeyRingError::Key(name.to_owned()))?);
            let secret: [u8; KEY] =
                bytes.as_slice().try_into().map_err(|_| KeyRingError::Key(name.to_owned()))?;
            ring.push(RingKey { name: name.to_owned(), secret: Zeroizing::new(secret) });
        }
        if ring.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self(ring)) }
    }

    /// A ring of one fresh key, as [`KeyRing::parse`] reads it: for `reedi dev`.
    #[must_use]
    pub fn fresh() -> String {
        let mut key = Zeroizing::new([0u8; KEY]);
        rand::rng().fill_bytes(key.as_mut_slice());
        format!("dev-1:{}", STANDARD.encode(key.as_slice()))
    }

    #[must_use]
    pub fn seal(&self, content: &Content, belonging: Belonging) -> Sealed {
        let key = &self.0[0];
        let mut nonce = [0u8; NONCE];
        rand::rng().fill_bytes(&mut nonce);
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

    #[test]
    fn only_its_own_place_opens_it() {
        let ring = KeyRing::parse(&KeyRing::fresh()).unwrap();
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
            Belonging::Sent { conversation: ConversationKey::from_u64(8), sender: account(1), client_message_id: &a },
            Belonging::Edit(conversation.event_id(position)),
        ] {
            assert_eq!(ring.open(&sealed, elsewhere), Err(OpenError::Damaged));
        }
    }

    #[test]
    fn a_rotated_ring_opens_what_the_old_key_sealed() {
        let (old, new) = (KeyRing::fresh().replace("dev-1", "old"), KeyRing::fresh().replace("dev-1", "new"));
        let id = ClientMessageId::parse("a").unwrap();
        let place = Belonging::Sent { conversation: ConversationKey::from_u64(7), sender: account(1), client_message_id: &id };
        let content = Content::parse("x".into()).unwrap();
        let sealed = KeyRing::parse(&old).unwrap().seal(&content, place);
        let rotated = KeyRing::parse(&format!("{new},{old}")).unwrap();
        assert_eq!(rotated.open(&sealed, place).unwrap(), "x");
        let without = KeyRing::parse(&new).unwrap();
        assert_eq!(without.open(&sealed, place), Err(OpenError::UnknownKey("old".into())));
        assert!(without.open(&rotated.seal(&content, place), place).is_ok(), "the first key seals");
    }

    #[test]
    fn a_bad_ring_is_refused_without_showing_a_key() {
        for (text, error) in [
            ("", KeyRingError::Empty),
            ("abc", KeyRingError::Shape),
            ("a:c2hvcnQ=", KeyRingError::Key("a".into())),
        ] {
            assert_eq!(KeyRing::parse(text).unwrap_err(), error);
        }
        let fresh = KeyRing::fresh();
        assert_eq!(KeyRing::parse(&format!("{fresh},{fresh}")).unwrap_err(), KeyRingError::Twice("dev-1".into()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_opened_or_refused(bytes: Vec<u8>) {
            let ring = KeyRing::parse(&KeyRing::fresh()).unwrap();
            let id = ClientMessageId::parse("a").unwrap();
            let place = Belonging::Sent { conversation: ConversationKey::from_u64(7), sender: account(1), client_message_id: &id };
            prop_assert!(ring.open(&Sealed(Bytes::from(bytes)), place).is_err());
        }
    }
}
