//! Who somebody is: JSON Web Tokens (RFC 7519, with the precautions of RFC 8725), signed by a shared
//! secret or by keys that a URL tells.

mod claims;
mod jwks;
pub mod signer;
#[cfg(test)]
mod tests;

pub use signer::Signer;

use crate::runtime::clock::LogClock;
use crate::runtime::config::{AuthConfig, SigningSecret};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::Claims;
use jsonwebtoken::{Algorithm, DecodingKey};
use jwks::Jwks;
use reedi_protocol::{AccountId, DeviceId, ErrorCode, Timestamp};
use serde::Deserialize;
use std::sync::Arc;

/// How far the clock of whoever signs may be from ours, in milliseconds.
pub const LEEWAY_MS: u64 = 30_000;
/// Longest token, in bytes: what HTTP servers commonly take as one header.
pub const TOKEN_BYTES: usize = 8_192;

/// Who a token says that somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub account: AccountId,
    /// None: a plain session.
    pub device: Option<DeviceId>,
    /// The token's `exp`.
    pub expires_at: Timestamp,
}

impl Identity {
    /// Until when it is accepted: its `exp` and the leeway.
    #[must_use]
    pub fn accepted_until(&self) -> Timestamp {
        self.expires_at.plus_millis(LEEWAY_MS)
    }
}

/// Why a token is not accepted. What it says can be told to its bearer: it holds nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a JSON Web Token")]
    Malformed,
    #[error("the token is longer than {TOKEN_BYTES} bytes")]
    TooLong,
    /// `none` among them, and every one that is not configured.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    #[error("the token needs an extension that is not understood")]
    Critical,
    #[error("the token is signed by a key that is not known")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has no `exp` or another claim that cannot be read")]
    Claims,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token's `sub` is not a UUID")]
    Subject,
    #[error("the token's `device_id` is not 1 to 127")]
    Device,
    /// The token may well be good.
    #[error("the keys that verify tokens cannot be fetched now")]
    KeysUnavailable,
}

impl TokenError {
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            Self::KeysUnavailable => ErrorCode::Unavailable,
            _ => ErrorCode::InvalidToken,
        }
    }
}

/// Why no verifier can be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    #[error("neither REEDI_AUTH_HS256_SECRET nor REEDI_AUTH_JWKS_URL is set: no token can be verified")]
    NothingToVerifyWith,
    #[error("no HTTP client for the JWKS URL: {0}")]
    Client(#[from] reqwest::Error),
}

/// Verifies tokens; clones share the keys.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    hs256: Option<DecodingKey>,
    jwks: Option<Jwks>,
    issuer: Option<String>,
    audience: Option<String>,
    clock: LogClock,
}

/// What of the header counts. Key hints in it (`jwk`, `jku`, `x5u`) are never followed.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// RFC 7515, section 4.1.11: who does not understand an extension named here must refuse.
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

fn accepted(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str, error: TokenError) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| error)
}

impl Verifier {
    /// # Errors
    /// Nothing to verify with is configured.
    pub fn new(auth: &AuthConfig, clock: LogClock) -> Result<Self, VerifierError> {
        if auth.hs256_secret.is_none() && auth.jwks_url.is_none() {
            return Err(VerifierError::NothingToVerifyWith);
        }
        let hs256 = |secret: &SigningSecret| DecodingKey::from_secret(secret.reveal().as_bytes());
        let jwks = auth.jwks_url.as_ref().map(|url| Jwks::new(url.url().clone())).transpose()?;
        let text = |word: &crate::runtime::config::Word| word.as_str().to_owned();
        Ok(Self(Arc::new(Inner {
            hs256: auth.hs256_secret.as_ref().map(hs256),
            jwks,
            issuer: auth.issuer.as_ref().map(text),
            audience: auth.audience.as_ref().map(text),
            clock,
        })))
    }

    /// Fetches the keys where a URL tells them and none is known yet, for readiness at the start.
    ///
    /// # Errors
    /// They cannot be fetched; why.
    pub async fn fetch_keys(&self) -> Result<(), String> {
        match &self.0.jwks {
            Some(jwks) => jwks.fetch_first().await,
            None => Ok(()),
        }
    }

    /// Who the bearer of `token` is.
    ///
    /// # Errors
    /// The token is not accepted, or cannot be judged now.
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = decoded(head, TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let algorithm = accepted(&header.alg).ok_or(TokenError::Algorithm)?;
        // Keys are of `algorithm` alone: a public key never verifies as if it were a secret.
        let verifies = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, algorithm).unwrap_or(false)
        };
        if algorithm == Algorithm::HS256 {
            let secret = self.0.hs256.as_ref().ok_or(TokenError::Algorithm)?;
            verifies(secret).then_some(()).ok_or(TokenError::Signature)?;
        } else {
            let jwks = self.0.jwks.as_ref().ok_or(TokenError::Algorithm)?;
            let issued_ago = || claims::issued_ago(body, self.0.clock.now());
            jwks.verify(algorithm, header.kid.as_deref(), verifies, issued_ago).await?;
        }
        let claims: Claims = decoded(body, TokenError::Claims)?;
        claims.identity(self.0.clock.now(), self.0.issuer.as_deref(), self.0.audience.as_deref())
    }
}
