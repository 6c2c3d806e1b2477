//! Names of modules that say nothing.

use super::Finding;
use super::tree::Source;
use syn::visit::{self, Visit};

/// Whatever is put into a module of such a name, its name does not say.
const EMPTY: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let stem = source.path.strip_suffix(".rs").unwrap_or(&source.path);
    if let Some(name) = stem.split('/').find(|part| EMPTY.contains(part)) {
        findings.push(finding(&source.path, 1, name));
    }
    Modules { path: &source.path, findings }.visit_file(&source.parsed);
}

fn finding(path: &str, line: usize, name: &str) -> Finding {
    Finding {
        file: path.to_owned(),
        line,
        rule: "names",
        says: format!("a module named `{name}`: name it by what is in it"),
    }
}

struct Modules<'f> {
    path: &'f str,
    findings: &'f mut Vec<Finding>,
}

impl<'a> Visit<'a> for Modules<'_> {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        let name = module.ident.to_string();
        if module.content.is_some() && EMPTY.contains(&name.as_str()) {
            self.findings.push(finding(self.path, module.ident.span().start().line, &name));
        }
        visit::visit_item_mod(self, module);
    }
}

#[cfg(test)]
mod tests {
    use crate::tidy::broken_by;

    #[test]
    fn names_that_say_nothing_are_found() {
        let files = [
            ("src/edge/utils.rs", ""),
            ("client/src/helpers/time.rs", ""),
            ("tests/common/mod.rs", ""),
            ("src/edge/a.rs", "fn f() {}\nmod manager {\n}\n"),
            ("src/edge/b.rs", "mod managed {}\n"),
        ];
        let expected = [
            "client/src/helpers/time.rs:1 [names]",
            "src/edge/a.rs:2 [names]",
            "src/edge/utils.rs:1 [names]",
            "tests/common/mod.rs:1 [names]",
        ];
        assert_eq!(broken_by(&files), expected);
    }
}
