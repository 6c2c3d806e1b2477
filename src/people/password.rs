//! Passwords of own accounts, hashed by Argon2id off the threads that serve sockets, a few at a time.

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use rand::Rng;
use reedi_protocol::limits::PASSWORD_BYTES;
use reedi_protocol::text::TextError;
use std::sync::Arc;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Hashes at once at most: each takes 19 MiB and a core for some 30 ms.
const AT_ONCE_MOST: usize = 4;
/// Who waits for a hash at most, besides; they wait about a second on one core.
const WAITING_MOST: usize = 32;
/// The length that RFC 9106, section 3.1, recommends for a salt.
const SALT_BYTES: usize = 16;

/// Verified for names that nobody has, so that they take as long as others. It is of no password
/// that anybody knows, and of the parameters that every hash is made with: those that OWASP
/// recommends (19 MiB, 2 passes, 1 lane).
const NOBODYS_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$T5Xyq0mMkWzJ1gV7rBnC3A$0ZkqW9mX2cVvB7nL4sDfG6hJ8kQwErTyUiOpAsDfGhI";

/// A password that an own account may have. Never shown, and overwritten when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// # Errors
    /// Shorter or longer than [`PASSWORD_BYTES`].
    pub fn parse(text: String) -> Result<Self, TextError> {
        let text = Zeroizing::new(text);
        if PASSWORD_BYTES.contains(&text.len()) { Ok(Self(text)) } else { Err(TextError::Password) }
    }
}

/// Too many sign up or log in at once: try again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many sign up or log in at once")]
pub struct Busy;

/// Makes and verifies hashes; clones share the limit.
#[derive(Clone)]
pub struct Hasher {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new(cores.min(AT_ONCE_MOST), WAITING_MOST)
    }
}

impl Hasher {
    #[must_use]
    pub fn new(at_once: usize, waiting: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(at_once)),
            admitted: Arc::new(Semaphore::new(at_once + waiting)),
        }
    }

    /// The PHC string of `password`, with a salt of its own.
    ///
    /// # Errors
    /// Too many at once.
    pub async fn hash(&self, password: Password) -> Result<String, Busy> {
        self.run(move || {
            let salt = SaltString::encode_b64(&rand::rng().random::<[u8; SALT_BYTES]>()).ok()?;
            let hash = Argon2::default().hash_password(password.0.as_bytes(), &salt).ok()?;
            Some(hash.to_string())
        })
        .await?
        .ok_or(Busy)
    }

    /// Whether `password` is the one of `hash`; never for no hash, which takes as long.
    ///
    /// # Errors
    /// Too many at once.
    pub async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, Busy> {
        self.run(move || {
            let standing = hash.as_deref().unwrap_or(NOBODYS_HASH);
            let matches = PasswordHash::new(standing).is_ok_and(|parsed| {
                Argon2::default().verify_password(password.0.as_bytes(), &parsed).is_ok()
            });
            matches && hash.is_some()
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| Busy)?;
        // Neither semaphore is ever closed.
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        // The permits go along: a client that gives up does not make room while the work goes on.
        let task = tokio::task::spawn_blocking(move || {
            let _held = (admitted, running);
            work()
        });
        task.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::time::{Duration, Instant};

    fn password(text: &str) -> Password {
        Password::parse(text.to_owned()).unwrap_or_else(|_| panic!("{text} is no password"))
    }

    #[test]
    fn a_password_has_8_to_256_bytes() {
        for (text, good) in [("1234567", false), ("12345678", true), ("pässwör", true)] {
            assert_eq!(Password::parse(text.to_owned()).is_ok(), good, "{text}");
        }
        assert!(Password::parse("x".repeat(256)).is_ok());
        assert_eq!(Password::parse("x".repeat(257)).err(), Some(TextError::Password));
    }

    #[tokio::test]
    async fn a_hash_is_of_one_password_with_a_salt_of_its_own() {
        let hasher = Hasher::default();
        let (one, two) = (password("correct horse"), password("battery staple"));
        let hash = hasher.hash(one.clone()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hasher.hash(one.clone()).await.unwrap(), hash);
        assert_eq!(hasher.verify(one.clone(), Some(hash.clone())).await, Ok(true));
        assert_eq!(hasher.verify(two, Some(hash)).await, Ok(false));
        assert_eq!(hasher.verify(one.clone(), None).await, Ok(false));
        assert_eq!(hasher.verify(one, Some("no hash".into())).await, Ok(false));
    }

    #[tokio::test]
    async fn an_unknown_name_takes_as_long_as_a_known_one() {
        let hasher = Hasher::default();
        let hash = hasher.hash(password("correct horse")).await.unwrap();
        let mut shortest = [Duration::MAX; 2];
        for _ in 0..5 {
            for (i, hash) in [Some(hash.clone()), None].into_iter().enumerate() {
                let begun = Instant::now();
                hasher.verify(password("battery staple"), hash).await.unwrap();
                shortest[i] = shortest[i].min(begun.elapsed());
            }
        }
        let [known, unknown] = shortest;
        assert!(unknown > known / 2 && known > unknown / 2, "{known:?} and {unknown:?}");
    }

    #[tokio::test]
    async fn beyond_what_may_wait_they_are_sent_away() {
        let hasher = Hasher::new(1, 2);
        let all = join_all((0..8).map(|_| hasher.verify(password("correct horse"), None))).await;
        assert_eq!(all.iter().filter(|one| **one == Ok(false)).count(), 3);
        assert_eq!(all.iter().filter(|one| **one == Err(Busy)).count(), 5);
        assert_eq!(hasher.verify(password("correct horse"), None).await, Ok(false), "there is room again");
    }
}
