//! Words that say that something is not finished, and what must not be in any program.

use super::Finding;
use super::tree::{Source, Tree};
use proc_macro2::{TokenStream, TokenTree};

/// Marks of what is left to do, in any file. Put together here so that this file has none.
fn marks() -> [String; 3] {
    ["TO", "FIX", "XX"].map(|first| {
        format!(
            "{first}{}",
            if first == "TO" {
                "DO"
            } else if first == "FIX" {
                "ME"
            } else {
                "X"
            }
        )
    })
}

/// Macros of what is not finished or was for looking.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let marks = marks();
    for text in &tree.texts {
        for (number, line) in text.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| has_word(line, mark)) {
                findings.push(Finding {
                    file: text.path.clone(),
                    line: number + 1,
                    rule: "words",
                    says: format!("{mark}: do it, or write down what is missing where readers look for it"),
                });
            }
        }
    }
    for source in &tree.sources {
        if let Ok(tokens) = source.text.parse::<TokenStream>() {
            scan(source, tokens, findings);
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let mut parts = line.split(|c: char| !c.is_ascii_alphanumeric());
    parts.any(|part| part == word)
}

fn scan(source: &Source, tokens: TokenStream, findings: &mut Vec<Finding>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => scan(source, group.stream(), findings),
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                let called = matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == '!');
                let says = if name == "unsafe" {
                    "`unsafe`: find a crate that is trusted with it, or another way".to_owned()
                } else if called && UNFINISHED.contains(&name.as_str()) {
                    format!("`{name}!`: finish it, or take it out")
                } else {
                    continue;
                };
                let line = ident.span().start().line;
                findings.push(Finding { file: source.path.clone(), line, rule: "words", says });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::marks;
    use crate::tidy::broken_by;

    #[test]
    fn marks_of_unfinished_work_are_found_in_every_kind_of_file() {
        for mark in marks() {
            for path in ["src/edge/a.rs", "cql/1.cql", "docs/a.md", "tests/steps/a.sh", "Makefile"] {
                let text = format!("// fine\n// {mark}: later\n// A{mark}B\n");
                let text = if path.ends_with(".rs") { text } else { text.replace("//", "#") };
                assert_eq!(broken_by(&[(path, &text)]), [format!("{path}:2 [words]")]);
            }
        }
    }

    #[test]
    fn unfinished_and_unsafe_code_is_found() {
        let text = "fn f() {\n    let dbg = 1;\n    dbg!(dbg);\n    todo!();\n    unimplemented!(\"x\");\n    \
                    unsafe { g() }\n    let s = \"unsafe todo!()\";\n    select! { a => { todo!() } }\n}\n";
        let expected = [3, 4, 5, 6, 8].map(|line| format!("client/src/a.rs:{line} [words]"));
        assert_eq!(broken_by(&[("client/src/a.rs", text)]), expected);
    }
}
