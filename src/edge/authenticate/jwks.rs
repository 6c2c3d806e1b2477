//! Public keys that a URL tells (RFC 7517): cached, fetched again for a key that is not known and now
//! and then besides, and kept while the URL is away.

use super::TokenError;
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Whoever signs in waits at most this long for the keys.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Anyone can name a key that does not exist: fetches beyond a burst come at most this often.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// Fetches at once, so that a rotation right after a start or another rotation is seen at once.
const FETCH_BURST: u32 = 5;
/// Keys that were withdrawn are forgotten within this time.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// A set has a handful of keys of some 400 bytes each.
const SET_BYTES: usize = 256 * 1024;
const SET_KEYS: usize = 64;

pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    url: Url,
    client: reqwest::Client,
    known: ArcSwap<Known>,
    /// Counts attempts, so that who waited for another's fetch does not repeat it.
    attempts: AtomicU64,
    fetching: tokio::sync::Mutex<()>,
    allowance: Mutex<Allowance>,
}

/// What the last fetch that succeeded told.
#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    fetched: Option<Instant>,
    /// Whether the latest attempt failed.
    failing: bool,
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
            .redirect(reqwest::redirect::Policy::limited(3))
            .user_agent(concat!("reedi/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(Arc::new(Inner {
            url,
            client,
            known: ArcSwap::default(),
            attempts: AtomicU64::new(0),
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

    /// The keys that may have signed a token: those of its `kid`, or all of its algorithm where it
    /// names none.
    pub(super) async fn keys(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Vec<DecodingKey>, TokenError> {
        let found = self.0.find(algorithm, kid);
        if !found.is_empty() {
            self.refresh_if_old();
            return Ok(found);
        }
        self.0.fetch_unless_just_done().await;
        let found = self.0.find(algorithm, kid);
        match found.is_empty() {
            false => Ok(found),
            true if self.0.known.load().failing => Err(TokenError::KeysUnavailable),
            true => Err(TokenError::UnknownKey),
        }
    }

    /// Keeps nobody waiting.
    fn refresh_if_old(&self) {
        let known = self.0.known.load();
        let is_old = known.fetched.is_none_or(|at| at.elapsed() > FRESH_FOR);
        // Somebody who is fetching already will do.
        if is_old && self.0.fetching.try_lock().is_ok() {
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move { inner.fetch_unless_just_done().await });
        }
    }
}

impl Inner {
    fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Vec<DecodingKey> {
        let known = self.known.load();
        let fits = |key: &&Key| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid);
        known.keys.iter().filter(fits).map(|key| key.key.clone()).collect()
    }

    /// Fetches once for all who ask meanwhile, and not at all where too many have asked before.
    async fn fetch_unless_just_done(&self) {
        let before = self.attempts.load(Ordering::Acquire);
        let _turn = self.fetching.lock().await;
        if self.attempts.load(Ordering::Acquire) != before || !self.allowance.lock().take() {
            return;
        }
        // What is wrong is in the log and in `failing`.
        let _ = self.fetch().await;
    }

    async fn fetch(&self) -> Result<(), String> {
        let result = self.ask().await;
        let known = match &result {
            Ok(keys) => Known { keys: keys.clone(), fetched: Some(Instant::now()), failing: false },
            Err(error) => {
                tracing::warn!(error, "the keys that verify tokens cannot be fetched; the known ones stay");
                let known = self.known.load();
                Known { keys: known.keys.clone(), fetched: known.fetched, failing: true }
            }
        };
        self.known.store(Arc::new(known));
        self.attempts.fetch_add(1, Ordering::Release);
        result.map(drop)
    }

    async fn ask(&self) -> Result<Vec<Key>, String> {
        // The URL may hold a password: it is not for the log.
        let told = |error: reqwest::Error| error.without_url().to_string();
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
