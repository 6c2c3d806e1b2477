//! Who the client is. Nothing here shows a secret in `Debug`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reedi_protocol::{AccountId, Timestamp};
use serde::Deserialize;
use std::{fmt, str::FromStr, sync::Arc};

/// A bearer token (JWT).
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// The claims that the client itself has a use for. It cannot check the signature and need not.
#[derive(Deserialize)]
struct Claims {
    sub: AccountId,
    exp: Option<u64>,
}

impl Token {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// The token itself, for the one header or frame that carries it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whose token it is; `None` where it is no JWT of an account.
    #[must_use]
    pub fn account(&self) -> Option<AccountId> {
        self.claims().map(|c| c.sub)
    }

    /// When it runs out, as it says itself.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.claims()?.exp.map(|s| Timestamp::from_millis(s.saturating_mul(1_000)))
    }

    fn claims(&self) -> Option<Claims> {
        let payload = self.0.split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// A password of an own account.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<str>);

impl Password {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

impl FromStr for Password {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// How the client proves who it is, and whether it can do so again once a token has run out.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Ends with the token, unless [`crate::Client::set_token`] brings a new one in time.
    Token(Token),
    /// Logs in again by itself whenever a token runs out.
    Password { username: String, password: Password },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_account_and_never_itself() {
        let claims = r#"{"sub":"018f6d1e-0000-7000-8000-000000000001","exp":1700000000}"#;
        let text = format!("head.{}.sign", URL_SAFE_NO_PAD.encode(claims));
        let token = Token::new(&text);
        assert_eq!(token.account().unwrap().to_string(), "018f6d1e-0000-7000-8000-000000000001");
        assert_eq!(token.expires_at(), Some(Timestamp::from_millis(1_700_000_000_000)));
        assert_eq!(Token::new("opaque").account(), None);
        let password = Password::new("hunter22");
        let shown =
            format!("{:?}", (token.clone(), Credentials::Password { username: "a".into(), password }));
        assert!(!shown.contains("sign") && !shown.contains("hunter22"), "{shown}");
    }
}
