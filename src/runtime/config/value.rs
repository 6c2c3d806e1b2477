//! How a setting's text becomes a value, and how a value is shown again.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What a setting's value can be. All sources give text, so that one parser serves them all.
pub trait Value: Sized {
    /// Whether the text must not be shown, not even when it is wrong.
    const SECRET: bool = false;
    /// Whether no text is a value too.
    const OPTIONAL: bool = false;

    /// What is accepted, in words that follow "wants".
    fn accepted() -> String;

    /// `None` for what is not accepted.
    fn parse(text: &str) -> Option<Self>;

    /// What `reedi config check` shows; never a secret.
    fn show(&self) -> String;
}

impl<T: Value> Value for Option<T> {
    const SECRET: bool = T::SECRET;
    const OPTIONAL: bool = true;

    fn accepted() -> String {
        format!("{}, or nothing", T::accepted())
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Value::show)
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn accepted() -> String {
                "a whole number".into()
            }

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, usize);

impl Value for SocketAddr {
    fn accepted() -> String {
        "an address and port, such as 127.0.0.1:8080 or [::]:8080".into()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    fn accepted() -> String {
        "a path".into()
    }

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| text.into())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A short text without white space or control characters: names, issuers, audiences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

/// Longest [`Word`], in bytes; an issuer is a URL.
const WORD_BYTES: usize = 1_024;

impl Word {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Word {
    fn accepted() -> String {
        "a text without white space".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let clean = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        (!text.is_empty() && text.len() <= WORD_BYTES && clean).then(|| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A CQL keyspace's name, such that it needs no quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace(String);

/// Cassandra's own limit on a keyspace's name.
const KEYSPACE_CHARS: usize = 48;

impl Keyspace {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Keyspace {
    fn accepted() -> String {
        format!("1 to {KEYSPACE_CHARS} of a-z, 0-9 and _, beginning with a letter")
    }

    fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let fits = text.len() <= KEYSPACE_CHARS && text.starts_with(|c: char| c.is_ascii_lowercase());
        (fits && text.chars().all(allowed)).then(|| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// What everything of an installation at NATS is named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsName(String);

/// NATS keeps each stream in a folder of its name; file names end at 255 bytes.
const NATS_NAME_CHARS: usize = 64;

impl NatsName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for NatsName {
    fn accepted() -> String {
        format!("1 to {NATS_NAME_CHARS} of a-z, 0-9, - and _")
    }

    fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let fits = !text.is_empty() && text.len() <= NATS_NAME_CHARS;
        (fits && text.chars().all(allowed)).then(|| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const BYTE_UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];

impl ByteSize {
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// For sizes of memory; saturates where memory ends.
    #[must_use]
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for ByteSize {
    fn accepted() -> String {
        "a size of at least 1 byte, such as 65536, 512KiB, 8MiB, 10GiB or 1TiB".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let (digits, shift) = BYTE_UNITS
            .iter()
            .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)))
            .unwrap_or((text, 0));
        let number: u64 = digits.trim_end().parse().ok()?;
        let bytes = number.checked_mul(1 << shift)?;
        (bytes > 0).then_some(Self(bytes))
    }

    fn show(&self) -> String {
        let exact = |shift: u32| self.0.is_multiple_of(1 << shift);
        BYTE_UNITS[..4]
            .iter()
            .rev()
            .find(|(_, shift)| exact(*shift))
            .map_or_else(|| self.0.to_string(), |(unit, shift)| format!("{}{unit}", self.0 >> shift))
    }
}

/// Into how many parts something is divided: a power of two from 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOfTwo(u16);

impl PowerOfTwo {
    #[must_use]
    pub fn count(self) -> u16 {
        self.0
    }
}

impl Value for PowerOfTwo {
    fn accepted() -> String {
        "a power of two from 1 to 256".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let count: u16 = text.parse().ok()?;
        (count.is_power_of_two() && count <= 256).then_some(Self(count))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl Value for $name {
            fn accepted() -> String {
                [$(concat!("`", $text, "`")),*].join(" or ")
            }

            fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }

            fn show(&self) -> String {
                match self { $(Self::$variant => $text),* }.to_owned()
            }
        }
    };
}

choice! {
    /// Whose accounts these are.
    AccountsOf {
        /// Sign-up and login here, accounts in the store.
        Own = "own",
        /// The platform's: its identity provider signs tokens, its HTTP interface knows people.
        Platform = "platform"
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// Pretty on a terminal, JSON elsewhere.
        Auto = "auto",
        Pretty = "pretty",
        Json = "json"
    }
}

/// Which log lines are written, as `tracing-subscriber` filters them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    #[must_use]
    pub fn directives(&self) -> &str {
        &self.0
    }
}

impl Value for LogLevel {
    fn accepted() -> String {
        "`error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,reedi::edge=debug`".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let parsed = tracing_subscriber::EnvFilter::builder().parse(text);
        // A lone word that is no level would be taken for the name of a module.
        let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
        let meant = text.split(',').all(|directive| directive.contains('=') || is_level(directive.trim()));
        (!text.is_empty() && meant && parsed.is_ok()).then(|| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("1", 1, "1"),
            ("512KiB", 524_288, "512KiB"),
            ("1024 MiB", 1 << 30, "1GiB"),
            ("7B", 7, "7"),
            ("3TiB", 3 << 40, "3TiB"),
        ] {
            let size = ByteSize::parse(text);
            assert_eq!(size.map(ByteSize::bytes), Some(bytes), "{text}");
            assert_eq!(size.map(|s| s.show()), Some(shown.to_owned()), "{text}");
        }
        for bad in ["", "0", "-1", "1.5GiB", "GiB", "1GB", "99999999999TiB", "1gib"] {
            assert_eq!(ByteSize::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn levels_are_levels_and_parts_powers_of_two() {
        for good in ["info", "warn", "info,reedi::edge=debug", "off"] {
            assert!(LogLevel::parse(good).is_some(), "{good}");
        }
        for bad in ["", "loud", "info,loud", "reedi=loud", "info,,=x"] {
            assert_eq!(LogLevel::parse(bad), None, "{bad}");
        }
        assert_eq!(PowerOfTwo::parse("64").map(PowerOfTwo::count), Some(64));
        for bad in ["0", "3", "512", "x", "-2"] {
            assert_eq!(PowerOfTwo::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(bytes in 1u64.., port: u16, shift in 0u32..=8) {
            let size = ByteSize(bytes);
            prop_assert_eq!(ByteSize::parse(&size.show()), Some(size));
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            prop_assert_eq!(<SocketAddr as Value>::parse(&address.show()), Some(address));
            let parts = PowerOfTwo(1 << shift);
            prop_assert_eq!(PowerOfTwo::parse(&parts.show()), Some(parts));
        }
    }
}
