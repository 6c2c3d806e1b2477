//! The house rules as a failing check. Each rule is one file here and one test on samples that break it.

mod adapters;
mod cql;
mod imports;
mod length;
mod names;
mod paths;
mod sleeps;
mod tree;
mod words;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use tree::Tree;

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub rule: &'static str,
    /// What is wrong, and what to do about it.
    pub says: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.file, self.line, self.rule, self.says)
    }
}

/// All breaches in a tree, by file and line.
#[must_use]
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(tree.unreadable.iter().cloned());
    words::check(tree, &mut findings);
    cql::check(tree, &mut findings);
    imports::check_manifests(tree, &mut findings);
    imports::check_features(tree, &mut findings);
    for source in &tree.sources {
        imports::check(source, &mut findings);
        adapters::check(source, &mut findings);
        length::check(source, &mut findings);
        names::check(source, &mut findings);
        sleeps::check(source, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Checks the tree at `root` and prints what is wrong.
pub fn run(root: &Path) -> ExitCode {
    let tree = match Tree::read(root) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("tidy: the tree cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", tree.texts.len());
        return ExitCode::SUCCESS;
    }
    println!("tidy: {} findings; the rules are explained in CONTRIBUTING.md", findings.len());
    ExitCode::FAILURE
}

/// What a sample tree is found to break: each finding as `file:line [rule]`.
#[cfg(test)]
fn broken_by(files: &[(&str, &str)]) -> Vec<String> {
    let tree = Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect());
    check(&tree).iter().map(|f| format!("{}:{} [{}]", f.file, f.line, f.rule)).collect()
}
