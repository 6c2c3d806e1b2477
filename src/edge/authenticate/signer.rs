//! Signing tokens: for own accounts, and for `reedi token`.

use super::TokenError;
use crate::runtime::clock::LogClock;
use crate::runtime::config::AuthConfig;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reedi_protocol::{AccountId, DeviceId, Timestamp};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Signs tokens by HMAC-SHA-256 that a [`Verifier`](super::Verifier) of the same configuration accepts.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    key: EncodingKey,
    issuer: Option<String>,
    audience: Option<String>,
    lifetime: Duration,
    clock: LogClock,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: AccountId,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<DeviceId>,
}

impl Signer {
    /// `None` without a secret to sign with.
    #[must_use]
    pub fn new(auth: &AuthConfig, clock: LogClock) -> Option<Self> {
        let secret = auth.hs256_secret.as_ref()?;
        let text = |word: &crate::runtime::config::Word| word.as_str().to_owned();
        Some(Self(Arc::new(Inner {
            key: EncodingKey::from_secret(secret.reveal().as_bytes()),
            issuer: auth.issuer.as_ref().map(text),
            audience: auth.audience.as_ref().map(text),
            lifetime: Duration::from_secs(auth.token_hours * 3_600),
            clock,
        })))
    }

    /// A token for `account`, and when it expires.
    ///
    /// # Errors
    /// Never with a secret of this type; the library could not sign.
    pub fn sign(
        &self,
        account: AccountId,
        device: Option<DeviceId>,
    ) -> Result<(String, Timestamp), TokenError> {
        let now_s = self.0.clock.now().as_millis() / 1_000;
        let exp = now_s.saturating_add(self.0.lifetime.as_secs());
        let claims = Claims {
            sub: account,
            iat: now_s,
            exp,
            iss: self.0.issuer.as_deref(),
            aud: self.0.audience.as_deref(),
            device_id: device,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.0.key)
            .map_err(|_| TokenError::Signature)?;
        Ok((token, Timestamp::from_millis(exp.saturating_mul(1_000))))
    }
}
