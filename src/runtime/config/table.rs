//! The form of the one table that declares every setting (in `mod.rs`), and what is made of it.

use super::value::Value;
use std::ops::RangeInclusive;

/// One setting, as every source names it and every text about it tells it.
pub struct Setting {
    /// Its key in the TOML file; the other names are made of it.
    pub name: &'static str,
    pub env: &'static str,
    /// Without the leading `--`.
    pub flag: &'static str,
    pub section: &'static str,
    pub doc: &'static str,
    /// As text; empty where none is a value too.
    pub default: &'static str,
    pub secret: bool,
    pub optional: bool,
    pub range: Option<RangeInclusive<u64>>,
    accepted: fn() -> String,
    parses: fn(&str) -> bool,
}

impl Setting {
    /// What is accepted, in words that follow "wants".
    #[must_use]
    pub fn accepted(&self) -> String {
        match &self.range {
            Some(range) => format!("a whole number from {} to {}", range.start(), range.end()),
            None => (self.accepted)(),
        }
    }

    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        let within = match &self.range {
            Some(range) => text.parse().is_ok_and(|number| range.contains(&number)),
            None => true,
        };
        within && (self.parses)(text)
    }

    pub(super) const fn new<T: Value>(names: Names, section: &'static str, told: Told) -> Self {
        Self {
            name: names.name,
            env: names.env,
            flag: names.flag,
            section,
            doc: told.doc,
            default: told.default,
            secret: T::SECRET,
            optional: T::OPTIONAL,
            range: told.range,
            accepted: T::accepted,
            parses: |text| T::parse(text).is_some(),
        }
    }
}

/// The three spellings of a setting.
pub(super) struct Names {
    pub name: &'static str,
    pub env: &'static str,
    pub flag: &'static str,
}

/// What a row of the table says beyond name and type.
pub(super) struct Told {
    pub default: &'static str,
    pub doc: &'static str,
    pub range: Option<RangeInclusive<u64>>,
}

/// `nats_url` as `NATS_URL`.
pub(super) const fn upper<const N: usize>(name: &str) -> [u8; N] {
    spelled(name, b'_', true)
}

/// `nats_url` as `nats-url`.
pub(super) const fn kebab<const N: usize>(name: &str) -> [u8; N] {
    spelled(name, b'-', false)
}

const fn spelled<const N: usize>(name: &str, separator: u8, upper: bool) -> [u8; N] {
    let bytes = name.as_bytes();
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = match bytes[i] {
            b'_' => separator,
            letter if upper => letter.to_ascii_uppercase(),
            letter => letter,
        };
        i += 1;
    }
    out
}

/// Text of ASCII bytes; what else a name had would fail the build.
pub(super) const fn ascii(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

/// Makes, of the one table, the struct of each section, [`Config`](super::Config) of them, the list of
/// settings, and the reading of a value for each.
macro_rules! settings {
    ($(
        $(#[$group_doc:meta])*
        $group:ident: $Group:ident = $title:literal {
            $($field:ident = $name:literal: $type:ty $(, in $range:expr)?, default $default:literal, $doc:literal;)*
        }
    )*) => {
        $(
            $(#[$group_doc])*
            #[derive(Clone, Debug)]
            pub struct $Group {
                $(#[doc = $doc] pub $field: $type,)*
            }
        )*

        /// All settings of a process. Each role gets the sections that it needs, and nothing reads
        /// configuration from anywhere else.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[$group_doc])* pub $group: $Group,)*
        }

        /// Every setting there is.
        pub static SETTINGS: &[Setting] = &[$($({
            const NAME: &str = $name;
            const ENV_NAME: &str = concat!("reedi_", $name);
            const ENV: [u8; ENV_NAME.len()] = table::upper(ENV_NAME);
            const FLAG: [u8; NAME.len()] = table::kebab(NAME);
            Setting::new::<$type>(
                Names { name: NAME, env: table::ascii(&ENV), flag: table::ascii(&FLAG) },
                $title,
                Told { default: $default, doc: $doc, range: settings!(@range $($range)?) },
            )
        }),*),*];

        impl Config {
            /// `text_of` gives each setting's text, already checked.
            fn read(text_of: impl Fn(&'static str) -> (String, Source)) -> Result<(Self, Vec<Shown>), ConfigErrors> {
                let mut shown = Vec::new();
                let config = Self {
                    $($group: $Group {
                        $($field: {
                            let (text, source) = text_of($name);
                            let text = zeroize::Zeroizing::new(text);
                            let Some(value) = <$type as Value>::parse(&text) else {
                                return Err(ConfigError::wrong($name, &source, &text).into());
                            };
                            shown.push(Shown { name: $name, value: value.show(), source });
                            value
                        },)*
                    },)*
                };
                Ok((config, shown))
            }
        }
    };
    (@range) => { None };
    (@range $range:expr) => { Some($range) };
}

pub(super) use settings;
