//! How long a file and a function may be.

use super::Finding;
use super::tree::Source;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Files of thousands of lines are what to avoid; what does not fit here is two things.
const FILE_LINES: usize = 500;
/// About what a screen shows.
const FUNCTION_LINES: usize = 70;

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        findings.push(Finding {
            file: source.path.clone(),
            line: FILE_LINES + 1,
            rule: "length",
            says: format!(
                "the file has {lines} lines, {FILE_LINES} are allowed: split it by what it is about"
            ),
        });
    }
    Functions { path: &source.path, findings }.visit_file(&source.parsed);
}

struct Functions<'f> {
    path: &'f str,
    findings: &'f mut Vec<Finding>,
}

impl Functions<'_> {
    /// From the line of `fn` to the closing brace; attributes and documentation do not count.
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (from, to) = (signature.span().start().line, block.span().end().line);
        let lines = to - from + 1;
        if lines > FUNCTION_LINES {
            self.findings.push(Finding {
                file: self.path.to_owned(),
                line: from,
                rule: "length",
                says: format!(
                    "`{}` has {lines} lines, {FUNCTION_LINES} are allowed: take a step out of it and name it",
                    signature.ident
                ),
            });
        }
    }
}

impl<'a> Visit<'a> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::{FILE_LINES, FUNCTION_LINES};
    use crate::tidy::broken_by;

    #[test]
    fn a_long_file_is_found() {
        let most = "// a line\n".repeat(FILE_LINES);
        assert!(broken_by(&[("src/edge/a.rs", &most)]).is_empty());
        assert_eq!(
            broken_by(&[("tests/a.rs", &format!("{most}// one more\n"))]),
            ["tests/a.rs:501 [length]"]
        );
    }

    #[test]
    fn a_long_function_is_found_wherever_it_stands() {
        let body = "    g();\n".repeat(FUNCTION_LINES - 2);
        let most = format!("/// Documented.\n#[must_use]\nfn f() {{\n{body}}}\n");
        assert!(broken_by(&[("client/src/a.rs", &most)]).is_empty());
        let one_more = format!("{body}    g();\n");
        let free = format!("fn f() {{\n{one_more}}}\n");
        let method = format!("impl A {{\n    fn f() {{\n{one_more}}}\n}}\n");
        let default = format!("trait A {{\n    fn f() {{\n{one_more}}}\n}}\n");
        let inner = format!("mod tests {{\n    async fn f() {{\n{one_more}}}\n}}\n");
        for (text, line) in [(free, 1), (method, 2), (default, 2), (inner, 2)] {
            assert_eq!(
                broken_by(&[("client/src/a.rs", &text)]),
                [format!("client/src/a.rs:{line} [length]")]
            );
        }
    }
}
