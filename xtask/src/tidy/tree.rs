//! The files that the rules are about.

use super::Finding;
use std::path::Path;

/// Folders with nothing of ours in them, besides those whose name begins with a dot.
const NOT_OURS: &[&str] = &["target", "node_modules", "reedi-data"];
/// Files that tools write.
const WRITTEN_BY_TOOLS: &[&str] = &["Cargo.lock", "package-lock.json"];
/// What the rules about words read.
const TEXT: &[&str] =
    &["rs", "cql", "toml", "sh", "py", "js", "mjs", "ts", "css", "html", "md", "json", "yaml", "yml"];
/// Text files without an extension.
const NAMED_TEXT: &[&str] = &["Makefile", "run"];

/// A file as text, at its path from the root.
pub struct Text {
    pub path: String,
    pub text: String,
}

/// A Rust file, parsed.
pub struct Source {
    pub path: String,
    pub text: String,
    pub parsed: syn::File,
}

#[derive(Default)]
pub struct Tree {
    pub texts: Vec<Text>,
    pub sources: Vec<Source>,
    pub unreadable: Vec<Finding>,
}

impl Tree {
    /// Reads all of our files under `root`.
    ///
    /// # Errors
    /// A folder or a file cannot be read.
    pub fn read(root: &Path) -> std::io::Result<Self> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        files.sort();
        Ok(Self::of(files))
    }

    /// The tree of files given as path and text.
    #[must_use]
    pub fn of(files: Vec<(String, String)>) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            if path.ends_with(".rs") {
                match syn::parse_file(&text) {
                    Ok(parsed) => {
                        tree.sources.push(Source { path: path.clone(), text: text.clone(), parsed });
                    }
                    Err(error) => tree.unreadable.push(Finding {
                        file: path.clone(),
                        line: error.span().start().line,
                        rule: "parse",
                        says: format!("this is not Rust that syn can read: {error}"),
                    }),
                }
            }
            tree.texts.push(Text { path, text });
        }
        tree
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &path, files)?;
        } else if kind.is_file() && is_text(&name) {
            files.push((path, String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned()));
        }
    }
    Ok(())
}

fn is_text(name: &str) -> bool {
    if WRITTEN_BY_TOOLS.contains(&name) {
        return false;
    }
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    NAMED_TEXT.contains(&name) || extension.is_some_and(|e| TEXT.contains(&e))
}

impl Source {
    /// The modules that the file stands in, from its crate's root: `src/log/nats/mod.rs` is `log`, `nats`.
    #[must_use]
    pub fn modules(&self) -> Vec<&str> {
        let Some((_, inside)) = self.path.split_once("src/") else { return Vec::new() };
        let inside = inside.strip_suffix(".rs").unwrap_or(inside);
        let mut modules: Vec<&str> = inside.split('/').collect();
        if matches!(modules.last(), Some(&("mod" | "lib" | "main"))) {
            modules.pop();
        }
        modules
    }

    /// Whether nothing in the file is in the service: tests and what they stand on.
    #[must_use]
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| {
            matches!(part, "tests" | "tests.rs" | "benches" | "fuzz" | "conformance" | "conformance.rs")
        })
    }
}
