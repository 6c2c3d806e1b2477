//! What a token says, and whether it says it to us and now.

use super::{Identity, LEEWAY_MS, TokenError};
use reedi_protocol::{AccountId, DeviceId, Timestamp};
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: NumericDate,
    #[serde(default)]
    nbf: Option<NumericDate>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    device_id: Option<i64>,
}

/// Seconds since 1970, with or without decimals (RFC 7519, section 2).
#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
struct NumericDate(f64);

impl NumericDate {
    fn to_timestamp(self) -> Timestamp {
        // What is not a number of this range saturates: before 1970 to 1970, and what is too late to
        // the last moment that there is.
        Timestamp::from_millis((self.0 * 1_000.0) as u64)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

/// How long ago the token with these claims was issued, by what it says of itself. Believed only where nothing comes of it
/// but which error is told.
pub(super) fn issued_ago(body: &str, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Issued {
        iat: NumericDate,
    }
    let issued: Issued = super::decoded(body, TokenError::Claims).ok()?;
    let ago_ms = now.as_millis().checked_sub(issued.iat.to_timestamp().as_millis());
    Some(Duration::from_millis(ago_ms.unwrap_or_default()))
}

impl Claims {
    pub(super) fn identity(
        self,
        now: Timestamp,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Result<Identity, TokenError> {
        let expires_at = self.exp.to_timestamp();
        if now >= expires_at.plus_millis(LEEWAY_MS) {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf.to_timestamp() > now.plus_millis(LEEWAY_MS)) {
            return Err(TokenError::NotYetValid);
        }
        if issuer.is_some() && issuer != self.iss.as_deref() {
            return Err(TokenError::Issuer);
        }
        if audience.is_some_and(|wanted| !self.aud.is_some_and(|aud| aud.has(wanted))) {
            return Err(TokenError::Audience);
        }
        let account: AccountId = self.sub.parse().map_err(|_| TokenError::Subject)?;
        let device = |number: i64| {
            let number = u8::try_from(number).map_err(|_| TokenError::Device)?;
            DeviceId::new(number).map_err(|_| TokenError::Device)
        };
        Ok(Identity { account, device: self.device_id.map(device).transpose()?, expires_at })
    }
}
