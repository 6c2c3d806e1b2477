//! What can be wrong with a configuration, told so that it can be mended without reading code.

use super::SETTINGS;
use super::table::Setting;
use std::fmt;
use std::path::PathBuf;

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File(PathBuf),
    Environment,
    Flag,
}

impl Source {
    /// How a setting is spelled there.
    fn spell(&self, name: &str) -> String {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        match (self, setting) {
            (Self::Environment, Some(setting)) => setting.env.to_owned(),
            (Self::Flag, Some(setting)) => format!("--{}", setting.flag),
            _ => name.to_owned(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `got` is already quoted, and hidden where the setting is a secret.
    #[error("{spelled} ({from}) wants {accepted}; got {got}")]
    Wrong { spelled: String, from: Source, accepted: String, got: String },
    #[error("{spelled} ({from}) is no setting{}", did_you_mean(.nearest.as_deref()))]
    Unknown { spelled: String, from: Source, nearest: Option<String> },
    #[error("{name} stands twice in {}", .path.display())]
    Twice { name: String, path: PathBuf },
    #[error("{spelled} (environment) is not UTF-8")]
    NotUnicode { spelled: String },
    #[error("the configuration file {} cannot be read: {detail}", .path.display())]
    File { path: PathBuf, detail: String },
    #[error("{} (--{}) is not set, and {because}", .setting.env, .setting.flag)]
    Missing { setting: Named, because: &'static str },
    #[error("{} (--{}) is {got:?}, and {because}", .setting.env, .setting.flag)]
    Contradicts { setting: Named, got: String, because: &'static str },
}

/// A setting within an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub env: &'static str,
    pub flag: &'static str,
}

impl Named {
    fn of(name: &str) -> Self {
        let found = SETTINGS.iter().find(|setting| setting.name == name);
        found.map_or(Self { env: "", flag: "" }, |setting| Self { env: setting.env, flag: setting.flag })
    }
}

/// The longest name that is repeated: twice the longest that a setting has.
const NAME_BYTES_MOST: usize = 64;

/// `text` where it can have been meant as the name of a setting. What cannot may be a secret that stands in
/// the wrong place, such as a quoted key in a file whose `name =` was lost.
fn name_or_length(text: &str) -> String {
    let is_name = text.len() <= NAME_BYTES_MOST
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if is_name { text.to_owned() } else { format!("a name of {} hidden bytes", text.len()) }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl ConfigError {
    pub(super) fn wrong(name: &str, from: &Source, text: &str) -> Self {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Self::unknown(name, from.clone());
        };
        Self::Wrong {
            spelled: from.spell(name),
            from: from.clone(),
            accepted: setting.accepted(),
            got: if setting.secret { format!("{} hidden bytes", text.len()) } else { format!("{text:?}") },
        }
    }

    pub(super) fn unknown(spelled: &str, from: Source) -> Self {
        let spell = |setting: &Setting| from.spell(setting.name);
        let nearest = nearest(spelled, SETTINGS.iter().map(spell));
        Self::Unknown { spelled: name_or_length(spelled), from, nearest }
    }

    pub(super) fn twice(name: &str, path: PathBuf) -> Self {
        Self::Twice { name: name_or_length(name), path }
    }

    pub(super) fn missing(name: &str, because: &'static str) -> Self {
        Self::Missing { setting: Named::of(name), because }
    }

    pub(super) fn contradicts(name: &str, got: &str, because: &'static str) -> Self {
        Self::Contradicts { setting: Named::of(name), got: got.to_owned(), because }
    }
}

/// The name that `meant` was most likely meant to be; none if all are far from it.
fn nearest(meant: &str, names: impl Iterator<Item = String>) -> Option<String> {
    // A third of the letters may be wrong before the guess is worse than none.
    let far = (meant.len() / 3).max(2);
    names
        .map(|name| (strsim::damerau_levenshtein(&meant.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, name)| name)
}

/// Everything that is wrong with a configuration, so that it can be mended in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Ok if nothing was found.
    pub(super) fn none_or(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "configuration: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
