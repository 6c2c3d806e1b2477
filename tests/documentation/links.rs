//! What documents point at is there: files of links and files named in `code`, headings behind `#`,
//! and links between the documents, so that none lies about unread.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Folders of ours whose files documents name.
const FOLDERS: [&str; 9] =
    ["src/", "protocol/", "client/", "cql/", "docs/", "tests/", "loadtest/", "xtask/", "invariants/"];

fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["", "docs", "docs/adr"] {
        for entry in Path::new(ROOT).join(folder).read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    assert!(documents.len() > 10, "these documents are not found: {documents:?}");
    documents
}

/// The text without its blocks of code, where brackets mean something else.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of `[text](target)`, `src="target"`, `srcset="target"` and `href="target"`.
fn targets(prose: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for (mark, end) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
        for rest in prose.split(mark).skip(1) {
            targets.extend(rest.split_once(end).map(|(target, _)| target.to_owned()));
        }
    }
    targets
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(document: &Path, wanted: &str) -> bool {
    let text = std::fs::read_to_string(document).unwrap();
    let text = prose(&text);
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(|line| anchor(line.trim_start_matches('#')) == wanted)
}

#[test]
fn every_relative_link_leads_somewhere() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in targets(&prose(&text)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let at = if path.is_empty() { document.clone() } else { document.with_file_name(path) };
            let from = document.strip_prefix(ROOT).unwrap().display();
            assert!(at.exists(), "{from} links to {target}, which is not there");
            let is_document = at.extension().is_some_and(|extension| extension == "md");
            if is_document && !fragment.is_empty() {
                assert!(has_anchor(&at, fragment), "{from} links to {target}: there is no such heading");
            }
        }
    }
}

#[test]
fn every_named_file_is_there() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for named in prose(&text).split('`').skip(1).step_by(2) {
            let plain = named.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if plain && FOLDERS.iter().any(|folder| named.starts_with(folder)) {
                let from = document.strip_prefix(ROOT).unwrap().display();
                assert!(Path::new(ROOT).join(named).exists(), "{from} names {named}, which is not there");
            }
        }
    }
}

#[test]
fn every_document_is_reached_from_the_readme() {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![Path::new(ROOT).join("README.md")];
    while let Some(document) = waiting.pop() {
        if !reached.insert(document.clone()) {
            continue;
        }
        let text = std::fs::read_to_string(&document).unwrap();
        for target in targets(&prose(&text)) {
            let path = target.split('#').next().unwrap_or_default();
            let at = document.with_file_name(path);
            if !path.is_empty() && path.ends_with(".md") && !target.contains("://") && at.exists() {
                waiting.push(at.canonicalize().unwrap());
            }
        }
    }
    for document in documents() {
        assert!(reached.contains(&document), "{} is linked from nowhere", document.display());
    }
}
