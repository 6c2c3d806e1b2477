//! Texts made of the table: the reference for operators and what `reedi config check` prints.

use super::{Effective, SETTINGS, Setting};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Configuration

<!-- Made of the table in src/runtime/config/mod.rs; a test tells how to make it again. -->

Flags, environment variables and a TOML file name the same settings; a flag is stronger than a variable, a variable
stronger than the file, the file stronger than the default. The file is named by `--config` or `REEDI_CONFIG`. In it a
table stands for a prefix, so `url = \"...\"` under `[nats]` is `nats_url`, and a list may be an array of texts. An unknown
setting in any of the three is an error. Variables that begin with `REEDI_TEST_` are not settings, and neither are those
that Kubernetes sets for a service named `reedi`.

`reedi config check` prints what holds, and from where, without secrets. Secrets are better kept out of flags, which
every user of the machine can see.
";

/// The configuration reference, as `docs/configuration.md` has it.
#[must_use]
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            let head =
                "| setting | variable, flag | default | meaning; accepted |\n| --- | --- | --- | --- |\n";
            out.push_str(&format!("\n## {section}\n\n{head}"));
        }
        out.push_str(&row(setting));
    }
    out
}

fn row(setting: &Setting) -> String {
    let default = match setting.default {
        "" => String::new(),
        default => format!("`{default}`"),
    };
    let Setting { name, env, flag, .. } = setting;
    let accepted = setting.accepted().replace('|', "\\|");
    let doc = setting.doc.replace('|', "\\|");
    format!("| `{name}` | `{env}` `--{flag}` | {default} | {doc} Wants {accepted}. |\n")
}

impl Effective {
    /// Every setting's value and where it came from; secrets hidden.
    #[must_use]
    pub fn describe(&self) -> String {
        let width = |text: fn(&super::Shown) -> usize| self.shown.iter().map(text).max().unwrap_or(0);
        let name_width = width(|shown| shown.name.len());
        // A key ring or a list of servers may be long; it does not move the others.
        let value_width = width(|shown| shown.value.len()).min(40);
        let mut out = String::new();
        for shown in &self.shown {
            let value = if shown.value.is_empty() { "(not set)" } else { &shown.value };
            let written = writeln!(out, "{:name_width$}  {value:value_width$}  {}", shown.name, shown.source);
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes `docs/configuration.md` anew instead of checking it, where set.
    const REGENERATE: &str = "REEDI_TEST_REGENERATE";

    #[test]
    fn the_checked_in_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os(REGENERATE).is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let standing = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            standing == reference(),
            "docs/configuration.md is out of date: run `{REGENERATE}=1 cargo test --lib \
             the_checked_in_reference_is_current` and commit it"
        );
    }

    #[test]
    fn every_setting_is_in_the_reference() {
        let text = reference();
        for setting in SETTINGS {
            assert!(text.contains(&format!("| `{}` | `{}` ", setting.name, setting.env)), "{}", setting.name);
        }
    }
}
