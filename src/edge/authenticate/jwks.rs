//! Public keys that a URL tells (RFC 7517): cached, fetched again for a token that no known key has signed and
//! now and then besides, and kept while the URL is away.

use super::{LEEWAY_MS, TokenError};
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Whoever signs in waits at most this long for the keys.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Anyone can name a key that does not exist, or forge a signature: fetches beyond a burst come at most this often.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// Fetches at once, so that a rotation right after a start or another rotation is seen at once.
const FETCH_BURST: u32 = 5;
/// A set that is older is fetched anew by the next token, which does not wait for it.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// A token waits where the set is older still, as on an edge that nobody came to: so keys that were withdrawn verify
/// nothing after this time, as long as the URL answers.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(1_200);
/// A set so young is taken for what the provider has: a forged signature costs no fetch.
const LATELY: Duration = Duration::from_secs(5);
/// As many servers as a fetch may be sent on to.
const REDIRECTIONS: usize = 3;
/// A set has a handful of keys of some 400 bytes each.
const SET_BYTES: usize = 256 * 1024;
const SET_KEYS: usize = 64;

pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    url: Url,
    client: reqwest::Client,
    /// Another one after each attempt, so that who waited for another's does not repeat it.
    known: ArcSwap<Known>,
    fetching: tokio::sync::Mutex<()>,
    allowance: Mutex<Allowance>,
}

/// What the last fetch that succeeded told.
#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    fetched: Option<Instant>,
    /// When the latest attempt failed, if it did.
    failed: Option<Instant>,
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Fetches that may still be made, as a bucket that refills.
struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        while self.left < FETCH_BURST && now.duration_since(self.refilled) >= FETCH_EVERY {
            self.left += 1;
            self.refilled += FETCH_EVERY;
        }
        if self.left == FETCH_BURST {
            self.refilled = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

impl Jwks {
    pub(super) fn new(url: Url) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_WITHIN)
            .redirect(reqwest::redirect::Policy::custom(|attempt| {
                match may_follow(attempt.previous(), attempt.url()) {
                    Ok(()) => attempt.follow(),
                    Err(why) => attempt.error(why),
                }
            }))
            .user_agent(concat!("reedi/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(Arc::new(Inner {
            url,
            client,
            known: ArcSwap::default(),
            fetching: tokio::sync::Mutex::new(()),
            allowance: Mutex::new(Allowance { left: FETCH_BURST, refilled: Instant::now() }),
        })))
    }

    /// Fetches unless that has succeeded before; the caller spaces its tries.
    pub(super) async fn fetch_first(&self) -> Result<(), String> {
        if self.0.known.load().fetched.is_some() {
            return Ok(());
        }
        let _turn = self.0.fetching.lock().await;
        self.0.fetch().await
    }

    /// Whether a key that may have signed a token, of its `kid` or any of its algorithm where it names none,
    /// `verifies` it. `issued_ago` is how long ago the token says it was issued.
    pub(super) async fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        verifies: impl Fn(&DecodingKey) -> bool,
        issued_ago: impl FnOnce() -> Option<Duration>,
    ) -> Result<(), TokenError> {
        self.refresh_if_old().await;
        let known = self.0.known.load_full();
        let judged = known.judge(algorithm, kid, &verifies);
        if judged.is_ok() {
            return judged;
        }
        let issued_ago = issued_ago();
        if judged == Err(TokenError::Signature)
            && let Some(age) = known.age().filter(|age| *age < LATELY)
        {
            return if covers(age, issued_ago) { judged } else { Err(TokenError::KeysUnavailable) };
        }
        // Perhaps by a new key, under a new `kid` or an old one.
        self.0.fetch_unless_just_done(&known).await;
        let newest = self.0.known.load();
        let judged = newest.judge(algorithm, kid, &verifies);
        let was_looked_for = newest.fetched > known.fetched
            || (newest.failed.is_none() && newest.age().is_some_and(|age| covers(age, issued_ago)));
        // A good token must not be said to be bad because nobody could look for its key.
        if judged.is_ok() || was_looked_for { judged } else { Err(TokenError::KeysUnavailable) }
    }

    /// Keeps nobody waiting, unless the set is too old to go by and nothing says that it cannot be fetched.
    async fn refresh_if_old(&self) {
        let known = self.0.known.load_full();
        let Some(age) = known.age().filter(|age| *age > FRESH_FOR) else { return };
        if age > WITHDRAWN_WITHIN && !known.has_just_failed() {
            self.0.fetch_unless_just_done(&known).await;
            return;
        }
        // Somebody who is fetching already will do.
        if self.0.fetching.try_lock().is_ok() {
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move { inner.fetch_unless_just_done(&known).await });
        }
    }
}

/// Whether a set that was fetched `age` ago has the key of a token that was issued `issued_ago`, if any has. Whoever
/// signs tells a key before it is used. A token that does not say goes by how often the set is fetched where many
/// ask.
fn covers(age: Duration, issued_ago: Option<Duration>) -> bool {
    match issued_ago {
        Some(issued_ago) => age + Duration::from_millis(LEEWAY_MS) < issued_ago,
        None => age < FETCH_EVERY,
    }
}

/// Whether a fetch that came by `previous` may be sent on to `next`: whoever is in between could answer with a key
/// of its own where TLS is given up.
pub(super) fn may_follow(previous: &[Url], next: &Url) -> Result<(), &'static str> {
    if previous.len() > REDIRECTIONS {
        return Err("the JWKS URL redirects too often");
    }
    if previous.iter().any(|url| url.scheme() == "https") && next.scheme() != "https" {
        return Err("the JWKS URL redirects from https to http");
    }
    Ok(())
}

impl Known {
    fn age(&self) -> Option<Duration> {
        self.fetched.map(|at| at.elapsed())
    }

    /// Nobody waits for what has just failed. Long ago says nothing: who nobody comes to asks nobody.
    fn has_just_failed(&self) -> bool {
        self.failed.is_some_and(|at| at.elapsed() < FETCH_EVERY)
    }

    fn judge(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        verifies: impl Fn(&DecodingKey) -> bool,
    ) -> Result<(), TokenError> {
        let fits = |key: &&Key| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid);
        let mut found = self.keys.iter().filter(fits).peekable();
        if found.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        if found.any(|key| verifies(&key.key)) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

impl Inner {
    /// Fetches once for all who found nothing in `known`, and not at all where too many have asked before.
    async fn fetch_unless_just_done(&self, known: &Arc<Known>) {
        let _turn = self.fetching.lock().await;
        let was_asked = !Arc::ptr_eq(known, &self.known.load());
        if was_asked || !self.allowance.lock().take() {
            return;
        }
        // What is wrong is in the log and in `failed`.
        let _ = self.fetch().await;
    }

    async fn fetch(&self) -> Result<(), String> {
        let result = self.ask().await;
        let known = match &result {
            Ok(keys) => Known { keys: keys.clone(), fetched: Some(Instant::now()), failed: None },
            Err(error) => {
                tracing::warn!(error, "the keys that verify tokens cannot be fetched; the known ones stay");
                let known = self.known.load();
                Known { keys: known.keys.clone(), fetched: known.fetched, failed: Some(Instant::now()) }
            }
        };
        self.known.store(Arc::new(known));
        result.map(drop)
    }

    async fn ask(&self) -> Result<Vec<Key>, String> {
        // The URL may hold a password: it is not for the log.
        let told = |error: reqwest::Error| {
            let error = error.without_url();
            match std::error::Error::source(&error).filter(|_| error.is_redirect()) {
                Some(why) => why.to_string(),
                None => error.to_string(),
            }
        };
        let request = self.client.get(self.url.clone()).header("accept", "application/json");
        let mut response = request.send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("the JWKS URL answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > SET_BYTES {
                return Err(format!("the key set has more than {SET_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let keys = parse(&body)?;
        if keys.is_empty() {
            return Err("the key set has no key of RS256, ES256 or EdDSA".into());
        }
        Ok(keys)
    }
}

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// A set's keys that can verify tokens. Others in it (for encryption, of other kinds, of a later day)
/// are none of our business.
fn parse(body: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_slice(body).map_err(|_| "the answer is no key set".to_owned())?;
    Ok(set.keys.into_iter().filter_map(usable).take(SET_KEYS).collect())
}

fn usable(key: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    // A symmetric key in a public set is no key: anyone could sign with it.
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let for_signing = jwk.common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
    let for_this = jwk.common.key_algorithm.is_none_or(|a| a.to_string() == format!("{algorithm:?}"));
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (for_signing && for_this).then_some(Key { kid: jwk.common.key_id, algorithm, key })
}
