//! From flags, environment and file to the values that hold.

use super::{Config, ConfigError, ConfigErrors, SETTINGS, Setting, Source};
use clap::{Arg, ArgMatches};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The flag, and with the prefix the variable, that names the configuration file.
const CONFIG_FLAG: &str = "config";
const CONFIG_ENV: &str = "REEDI_CONFIG";
const PREFIX: &str = "REEDI_";
/// Tests find their real parts by variables of this prefix; they are no settings.
const TEST_PREFIX: &str = "REEDI_TEST_";
/// A larger file is no configuration file.
const FILE_BYTES_MOST: u64 = 1 << 20;

/// The flags of every command that takes settings, for `clap`.
#[must_use]
pub fn flags() -> Vec<Arg> {
    let config = Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("FILE")
        .help(format!("TOML file of settings [env: {CONFIG_ENV}]"));
    let settings = SETTINGS.iter().map(|setting| {
        let default = match (setting.default, setting.optional) {
            ("", _) => String::new(),
            (default, _) => format!(" [default: {default}]"),
        };
        Arg::new(setting.name)
            .long(setting.flag)
            .value_name("VALUE")
            .help_heading(setting.section)
            .help(format!("{} [env: {}]{default}", setting.doc, setting.env))
    });
    std::iter::once(config).chain(settings).collect()
}

/// What the sources say, before it is understood.
#[derive(Default)]
pub struct Inputs {
    /// By setting name.
    pub flags: Vec<(String, String)>,
    pub environment: Vec<(OsString, OsString)>,
    /// Path and text of the configuration file.
    pub file: Option<(PathBuf, String)>,
}

impl Inputs {
    /// What this process was given: flags as `clap` found them, its environment and the file that
    /// either names.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_process(matches: &ArgMatches) -> Result<Self, ConfigErrors> {
        let given = |setting: &Setting| {
            let value = matches.try_get_one::<String>(setting.name).ok().flatten();
            value.map(|value| (setting.name.to_owned(), value.clone()))
        };
        let named = matches.try_get_one::<String>(CONFIG_FLAG).ok().flatten();
        let path = named.map(PathBuf::from).or_else(|| std::env::var_os(CONFIG_ENV).map(PathBuf::from));
        let file = path.map(|path| read(&path).map(|text| (path, text))).transpose()?;
        Ok(Self {
            flags: SETTINGS.iter().filter_map(given).collect(),
            environment: std::env::vars_os().collect(),
            file,
        })
    }

    /// The values that hold, each from the strongest source that names it: flag, environment, file,
    /// default.
    ///
    /// # Errors
    /// All that is wrong with any source.
    pub fn resolve(self) -> Result<Effective, ConfigErrors> {
        let mut errors = Vec::new();
        let mut texts: HashMap<&'static str, (Zeroizing<String>, Source)> =
            SETTINGS.iter().map(|s| (s.name, (s.default.to_owned().into(), Source::Default))).collect();
        let mut put = |name: &str, text: String, source: Source| match setting(name) {
            Some(setting) => drop(texts.insert(setting.name, (text.into(), source))),
            None => errors.push(ConfigError::unknown(name, source)),
        };
        let mut malformed = Vec::new();
        match self.file.map(|(path, text)| (of_file(&path, &text), path)) {
            Some((Ok(entries), path)) => {
                entries
                    .into_iter()
                    .for_each(|(name, text)| put(&name, text, Source::File(path.to_path_buf())));
            }
            Some((Err(found), _)) => malformed.extend(found.0),
            None => {}
        }
        for (variable, text) in self.environment {
            match of_variable(&variable, text) {
                Ok(Some((name, text))) => put(&name, text, Source::Environment),
                Ok(None) => {}
                Err(error) => malformed.push(error),
            }
        }
        self.flags.into_iter().for_each(|(name, text)| put(&name, text, Source::Flag));
        errors.extend(malformed);
        for setting in SETTINGS {
            if let Some((text, source)) = texts.get(setting.name).filter(|(text, _)| !setting.accepts(text)) {
                errors.push(ConfigError::wrong(setting.name, source, text));
            }
        }
        ConfigErrors::none_or(errors)?;
        let (config, shown) = Config::read(|name| match texts.get(name) {
            Some((text, source)) => (text.to_string(), source.clone()),
            None => (String::new(), Source::Default),
        })?;
        config.check_pairs()?;
        Ok(Effective { config, shown })
    }
}

fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let failed = |detail: String| ConfigErrors::from(ConfigError::File { path: path.to_path_buf(), detail });
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > FILE_BYTES_MOST {
        return Err(failed(format!("it has more than {FILE_BYTES_MOST} bytes")));
    }
    std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))
}

/// A variable as a setting's name and text, where it is one of ours. An unknown one comes back under
/// the name it has in the environment.
fn of_variable(variable: &OsString, text: OsString) -> Result<Option<(String, String)>, ConfigError> {
    let spelled = variable.to_string_lossy().into_owned();
    if !spelled.starts_with(PREFIX) || spelled.starts_with(TEST_PREFIX) || spelled == CONFIG_ENV {
        return Ok(None);
    }
    let known = SETTINGS.iter().find(|setting| setting.env == spelled);
    let is_service_link = known.is_none() && is_service_link(&spelled, &text.to_string_lossy());
    if is_service_link {
        return Ok(None);
    }
    let Ok(text) = text.into_string() else { return Err(ConfigError::NotUnicode { spelled }) };
    Ok(Some((known.map_or(spelled, |setting| setting.name.to_owned()), text)))
}

/// Whether Kubernetes put it there: for every service of a namespace, and so for one named `reedi`,
/// it sets `REEDI_SERVICE_HOST`, `REEDI_SERVICE_PORT...`, `REEDI_PORT=tcp://...` and
/// `REEDI_PORT_8080_TCP...`, unless the pod says `enableServiceLinks: false`.
fn is_service_link(name: &str, text: &str) -> bool {
    let numbered = |rest: &str| {
        let protocol = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() > protocol.len() && ["_TCP", "_UDP", "_SCTP"].iter().any(|p| protocol.starts_with(p))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && text.contains("://"))
        || name.split_once("_PORT_").is_some_and(|(_, rest)| numbered(rest))
}

/// A file's settings by name. Tables stand for a prefix: `url` under `[nats]` is `nats_url`.
fn of_file(path: &Path, text: &str) -> Result<Vec<(String, String)>, ConfigErrors> {
    let table: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        // Its own display quotes the line, and with it perhaps a secret.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        let detail = format!("line {line}: {}", error.message().lines().next().unwrap_or_default());
        ConfigError::File { path: path.to_path_buf(), detail }
    })?;
    let mut entries = Vec::new();
    let mut errors = Vec::new();
    flatten("", table, &mut |name, value| {
        if entries.iter().any(|(seen, _)| *seen == name) {
            errors.push(ConfigError::twice(&name, path.to_path_buf()));
        } else if let Some(text) = as_text(&value) {
            entries.push((name, text));
        } else {
            errors.push(ConfigError::wrong(&name, &Source::File(path.to_path_buf()), value.type_str()));
        }
    });
    ConfigErrors::none_or(errors)?;
    Ok(entries)
}

fn flatten(prefix: &str, table: toml::Table, take: &mut impl FnMut(String, toml::Value)) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}_{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&name, inner, take),
            value => take(name, value),
        }
    }
}

/// A list is its entries with commas between, as in the other sources.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(entries) => {
            let texts: Option<Vec<_>> = entries.iter().map(|e| e.as_str().map(str::to_owned)).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

/// A setting's value as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

/// The configuration that holds, and where each value came from.
#[derive(Clone, Debug)]
pub struct Effective {
    pub config: Config,
    pub shown: Vec<Shown>,
}
