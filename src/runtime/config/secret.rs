//! Settings that nobody may see.

use super::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashSet;
use std::fmt;
use zeroize::Zeroizing;

/// What stands where a secret would.
const HIDDEN: &str = "(hidden)";

/// A secret text: neither shown nor logged, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The secret itself, for whoever has to send or compute with it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Value for Secret {
    const SECRET: bool = true;

    fn accepted() -> String {
        "a text".into()
    }

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::new(text.to_owned()))
    }

    fn show(&self) -> String {
        HIDDEN.into()
    }
}

/// The secret that signs and verifies tokens by HMAC-SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecret(Secret);

/// Below this many bytes anyone who has one token can find the secret by trying.
const SIGNING_BYTES_LEAST: usize = 16;
/// RFC 7518, section 3.2, wants a key as long as the hash.
const SIGNING_BYTES_WANTED: usize = 32;

impl SigningSecret {
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// Whether it is shorter than RFC 7518, section 3.2, wants.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.reveal().len() < SIGNING_BYTES_WANTED
    }
}

impl Value for SigningSecret {
    const SECRET: bool = true;

    fn accepted() -> String {
        format!("a text of at least {SIGNING_BYTES_LEAST} bytes; {SIGNING_BYTES_WANTED} random ones are wise")
    }

    fn parse(text: &str) -> Option<Self> {
        (text.len() >= SIGNING_BYTES_LEAST).then(|| Self(Secret::new(text.to_owned())))
    }

    fn show(&self) -> String {
        HIDDEN.into()
    }
}

/// One key of the ring that seals content: AES-256.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    pub id: String,
    pub key: Zeroizing<[u8; SEAL_KEY_BYTES]>,
}

/// AES-256.
pub const SEAL_KEY_BYTES: usize = 32;
/// Longest name of a key, in characters: it is stored with everything that the key has sealed.
const SEAL_KEY_ID_CHARS: usize = 32;

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{HIDDEN}", self.id)
    }
}

/// The key ring for content in the clear: the first key seals, all of them open. At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealKeys(Vec<SealKey>);

impl SealKeys {
    #[must_use]
    pub fn keys(&self) -> &[SealKey] {
        &self.0
    }
}

fn seal_key(text: &str) -> Option<SealKey> {
    let (id, encoded) = text.split_once(':')?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if id.is_empty() || id.len() > SEAL_KEY_ID_CHARS || !id.chars().all(allowed) {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let key = Zeroizing::new(<[u8; SEAL_KEY_BYTES]>::try_from(decoded.as_slice()).ok()?);
    Some(SealKey { id: id.to_owned(), key })
}

impl Value for SealKeys {
    const SECRET: bool = true;

    fn accepted() -> String {
        format!(
            "keys as `id:base64` with commas between, each id once (1 to {SEAL_KEY_ID_CHARS} of A-Z, a-z, 0-9, \
             '.', '_' and '-') and each key {SEAL_KEY_BYTES} bytes, such as one of `openssl rand -base64 32`"
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let keys: Vec<_> = text.split(',').map(|key| seal_key(key.trim())).collect::<Option<_>>()?;
        let ids: HashSet<_> = keys.iter().map(|key| &key.id).collect();
        (ids.len() == keys.len()).then_some(Self(keys))
    }

    fn show(&self) -> String {
        let shown: Vec<_> = self.0.iter().map(|key| format!("{key:?}")).collect();
        shown.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::parse("s3cret-s3cret-s3cret").unwrap();
        let signing = SigningSecret::parse("s3cret-s3cret-s3cret").unwrap();
        assert!(signing.is_short());
        for shown in [format!("{secret:?}"), secret.show(), format!("{signing:?}"), signing.show()] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        let keys = SealKeys::parse(&format!("new:{KEY},old:{KEY}")).unwrap();
        for shown in [format!("{keys:?}"), keys.show()] {
            assert!(shown.contains("new") && !shown.contains("AAEC"), "{shown}");
        }
    }

    #[test]
    fn a_key_ring_has_a_key_of_32_bytes_for_each_id() {
        let keys = SealKeys::parse(&format!("k2:{KEY}, k1:{KEY}")).unwrap();
        assert_eq!(keys.keys().iter().map(|k| k.id.as_str()).collect::<Vec<_>>(), ["k2", "k1"]);
        assert_eq!(keys.keys()[0].key[31], 31);
        for bad in [
            String::new(),
            KEY.into(),
            format!(":{KEY}"),
            "k1:AAAA".into(),
            "k1:!".into(),
            format!("k1:{KEY},k1:{KEY}"),
            format!("k 1:{KEY}"),
            format!("k1:{KEY},"),
        ] {
            assert_eq!(SealKeys::parse(&bad), None, "{bad}");
        }
    }
}
