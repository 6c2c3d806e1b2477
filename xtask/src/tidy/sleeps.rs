//! Tests wait for what they test, not for time to pass: a sleep between two looks at a condition, in a
//! `while` or `loop`, is how one waits for another process. Where time itself must pass, the test says why
//! in a comment right above: `// sleeps: <reason>`.

use super::Finding;
use super::paths::is_for_tests;
use super::tree::Source;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

const MARK: &str = "// sleeps: ";
/// A reason is a sentence, not a word.
const REASON_AT_LEAST: usize = 15;

/// Where the clock is paused, so that sleeping takes no time and is how time is told to pass.
const PAUSED_CLOCKS: &[&str] = &["tests/simulation/"];

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    if PAUSED_CLOCKS.iter().any(|folder| source.path.starts_with(folder)) {
        return;
    }
    let mut sleeps = Sleeps { in_test: source.is_test(), in_loop: false, lines: Vec::new() };
    sleeps.visit_file(&source.parsed);
    let lines: Vec<&str> = source.text.lines().collect();
    for line in sleeps.lines {
        // The comment may be of several lines.
        let above = lines[..line - 1].iter().rev().map(|l| l.trim()).take_while(|l| l.starts_with("//"));
        let reason = above.filter_map(|l| l.strip_prefix(MARK)).next();
        if reason.is_none_or(|reason| reason.len() < REASON_AT_LEAST) {
            findings.push(Finding {
                file: source.path.clone(),
                line,
                rule: "sleeps",
                says: format!(
                    "a test that sleeps: wait for the condition, or say why time must pass right above \
                     (`{MARK}<reason>`)"
                ),
            });
        }
    }
}

struct Sleeps {
    in_test: bool,
    /// In a loop that looks at something again and again.
    in_loop: bool,
    lines: Vec<usize>,
}

impl Sleeps {
    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.in_test;
        self.in_test |= is_for_tests(attributes);
        visit(self);
        self.in_test = before;
    }

    fn looping(&mut self, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.in_loop, true);
        visit(self);
        self.in_loop = before;
    }

    fn call(&mut self, ident: &syn::Ident) {
        if self.in_test && !self.in_loop && ident == "sleep" {
            self.lines.push(ident.span().start().line);
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) => {
                    if matches!(tokens.peek(), Some(TokenTree::Group(_))) {
                        self.call(&ident);
                    }
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {}
            }
        }
    }
}

impl<'a> Visit<'a> for Sleeps {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        self.within(&module.attrs, |sleeps| visit::visit_item_mod(sleeps, module));
    }

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.within(&function.attrs, |sleeps| visit::visit_item_fn(sleeps, function));
    }

    fn visit_expr_while(&mut self, looped: &'a syn::ExprWhile) {
        self.looping(|sleeps| visit::visit_expr_while(sleeps, looped));
    }

    fn visit_expr_loop(&mut self, looped: &'a syn::ExprLoop) {
        self.looping(|sleeps| visit::visit_expr_loop(sleeps, looped));
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func
            && let Some(last) = path.path.segments.last()
        {
            self.call(&last.ident);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}

#[cfg(test)]
mod tests {
    use crate::tidy::broken_by;

    #[test]
    fn a_test_that_sleeps_is_found() {
        let files = [
            ("tests/a.rs", "async fn f() {\n    tokio::time::sleep(d).await;\n}\n"),
            (
                "src/edge/a.rs",
                "fn f() { sleep(d); }\n#[cfg(test)]\nmod tests {\n    fn g() {\n        sleep(d);\n    }\n}\n",
            ),
            (
                "src/log/conformance.rs",
                "fn f() {\n    select! {\n        () = tokio::time::sleep(d) => {}\n    }\n}\n",
            ),
            ("src/edge/b.rs", "#[tokio::test]\nasync fn g() {\n    std::thread::sleep(d);\n}\n"),
        ];
        let expected = [
            "src/edge/a.rs:5 [sleeps]",
            "src/edge/b.rs:3 [sleeps]",
            "src/log/conformance.rs:3 [sleeps]",
            "tests/a.rs:2 [sleeps]",
        ];
        assert_eq!(broken_by(&files), expected);
    }

    #[test]
    fn waiting_for_a_condition_is_no_sleep() {
        let text = "fn f() {\n    while !done() { sleep(d); }\n    loop {\n        if done() { break; }\n        sleep(d);\n    }\n    \
                    for _ in 0..3 {\n        sleep(d);\n    }\n}\n";
        assert_eq!(broken_by(&[("tests/a.rs", text)]), ["tests/a.rs:8 [sleeps]"]);
    }

    #[test]
    fn a_paused_clock_is_told_to_go_on() {
        assert!(broken_by(&[("tests/simulation/a.rs", "fn f() {\n    sleep(d);\n}\n")]).is_empty());
    }

    #[test]
    fn a_reason_lets_it_sleep() {
        let with = |comment: &str| format!("fn f() {{\n    {comment}\n    sleep(d);\n}}\n");
        assert!(
            broken_by(&[("tests/a.rs", &with("// sleeps: the lease must run out by itself"))]).is_empty()
        );
        let two = with("// sleeps: the lease must run out by itself,\n    // which takes this long");
        assert!(broken_by(&[("tests/a.rs", &two)]).is_empty());
        for poor in ["// the lease must run out by itself", "// sleeps: needed"] {
            assert_eq!(broken_by(&[("tests/a.rs", &with(poor))]), ["tests/a.rs:3 [sleeps]"]);
        }
    }
}
