//! Texts that people write, parsed once at the border: a value of these types is within its limits.

use crate::limits;
use serde::{Deserialize, Serialize};

/// Why a text is refused; `Display` says what would be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("content must not be empty")]
    ContentEmpty,
    #[error("content may have at most {} bytes of UTF-8", limits::CONTENT_BYTES)]
    ContentTooLong,
    #[error("a name has 1 to {} characters, none of them a control character", limits::NAME_CHARS)]
    Name,
    #[error("an avatar URL is an http or https URL of at most {} characters", limits::AVATAR_URL_CHARS)]
    AvatarUrl,
    #[error("a reaction is exactly one emoji of at most {} bytes", limits::REACTION_BYTES)]
    Reaction,
    #[error("an idempotency key has 1 to {} bytes", limits::CLIENT_MESSAGE_ID_BYTES)]
    ClientMessageId,
    #[error(
        "a user name has 3 to 32 of the characters a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
    )]
    Username,
    #[error("a display name has 1 to {} characters, none of them a control character", limits::NAME_CHARS)]
    DisplayName,
    #[error("a password has 8 to 256 bytes")]
    Password,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }
    };
}

text! {
    /// Content in the clear: any UTF-8 of 1 to 65,536 bytes, kept byte for byte, NUL included.
    /// Neither `Debug` nor `Display`, so that it cannot reach a log by accident.
    Content
}
text! {
    /// A conversation's or person's name.
    #[derive(Debug)]
    Name
}
text! {
    /// Where a conversation's picture is.
    #[derive(Debug)]
    AvatarUrl
}
text! {
    /// One grapheme of emoji.
    #[derive(Debug)]
    Reaction
}
text! {
    /// The sender's idempotency key.
    #[derive(Debug)]
    ClientMessageId
}
text! {
    /// What an own account signs in with; lower case.
    #[derive(Debug)]
    Username
}

impl Content {
    /// # Errors
    /// Empty, or over [`limits::CONTENT_BYTES`].
    pub fn parse(text: String) -> Result<Self, TextError> {
        match text.len() {
            0 => Err(TextError::ContentEmpty),
            n if n > limits::CONTENT_BYTES => Err(TextError::ContentTooLong),
            _ => Ok(Self(text)),
        }
    }
}

impl Name {
    /// # Errors
    /// Empty or blank, over [`limits::NAME_CHARS`], or with a control character (NUL among them).
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        let chars = text.chars().count();
        if chars == 0 || chars > limits::NAME_CHARS || text.chars().any(char::is_control) {
            return Err(TextError::Name);
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<&Username> for Name {
    /// Every user name is a name too: shorter, and of plain characters.
    fn from(username: &Username) -> Self {
        Self(username.0.clone())
    }
}

impl AvatarUrl {
    /// # Errors
    /// Not `http:` or `https:`, over [`limits::AVATAR_URL_CHARS`], or with white space or controls.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let fits = text.chars().count() <= limits::AVATAR_URL_CHARS;
        let clean = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        match rest {
            Some(rest) if !rest.is_empty() && fits && clean => Ok(Self(text.to_owned())),
            _ => Err(TextError::AvatarUrl),
        }
    }
}

impl Reaction {
    /// An emoji has several spellings, with and without variation selectors: whichever comes, it is the fully qualified
    /// one, so that one emoji is one reaction.
    ///
    /// # Errors
    /// Not exactly one emoji (with its modifiers), or over [`limits::REACTION_BYTES`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > limits::REACTION_BYTES {
            return Err(TextError::Reaction);
        }
        emojis::get(text).map(|emoji| Self(emoji.as_str().to_owned())).ok_or(TextError::Reaction)
    }

    /// One as it was stored: earlier versions kept the spelling in which it came.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl ClientMessageId {
    /// # Errors
    /// Empty, or over [`limits::CLIENT_MESSAGE_ID_BYTES`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.is_empty() || text.len() > limits::CLIENT_MESSAGE_ID_BYTES {
            return Err(TextError::ClientMessageId);
        }
        Ok(Self(text.to_owned()))
    }

    /// When the client made it, in milliseconds since 1970, where it is a UUIDv7 (RFC 9562, 5.7).
    #[must_use]
    pub fn minted_at_ms(&self) -> Option<u64> {
        let uuid = uuid::Uuid::try_parse(&self.0).ok()?;
        (uuid.get_version_num() == 7).then(|| uuid.as_u64_pair().0 >> 16)
    }
}

impl Username {
    /// # Errors
    /// See [`TextError::Username`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let text = text.to_ascii_lowercase();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let fits = limits::USERNAME_CHARS.contains(&text.chars().count());
        if starts && fits && text.chars().all(allowed) { Ok(Self(text)) } else { Err(TextError::Username) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaction_is_one_emoji() {
        for good in ["👍", "👍🏽", "❤️", "👨‍👩‍👧‍👦", "🇩🇪", "🏳️‍🌈", "1️⃣"]
        {
            assert!(Reaction::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "👍👍", "👍 ", "1", "\u{200d}", "🇩"] {
            assert_eq!(Reaction::parse(bad), Err(TextError::Reaction), "{bad:?}");
        }
    }

    #[test]
    fn one_emoji_is_one_reaction_however_it_is_spelt() {
        for spellings in [
            ["\u{2764}", "\u{2764}\u{fe0f}"],
            ["\u{1f3f3}\u{200d}\u{1f308}", "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}"],
        ] {
            for spelling in spellings {
                assert_eq!(Reaction::parse(spelling).unwrap().as_str(), spellings[1], "{spelling:?}");
            }
        }
        // Modifiers are no spelling.
        assert_ne!(Reaction::parse("👍"), Reaction::parse("👍🏽"));
    }

    #[test]
    fn content_may_have_nul_and_names_not() {
        assert!(Content::parse("a\0b".into()).is_ok());
        assert_eq!(Name::parse("a\0b"), Err(TextError::Name));
        assert!(Content::parse("x".repeat(limits::CONTENT_BYTES)).is_ok());
        assert!(Content::parse("x".repeat(limits::CONTENT_BYTES + 1)).is_err());
        assert!(Content::parse(String::new()).is_err());
    }

    #[test]
    fn a_uuid_v7_tells_its_time() {
        let id = ClientMessageId::parse("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        assert_eq!(id.minted_at_ms(), Some(0x017f_22e2_79b0), "the example of RFC 9562, A.6");
        assert_eq!(ClientMessageId::parse("order-17").unwrap().minted_at_ms(), None);
    }
}
