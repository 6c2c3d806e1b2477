//! Every path that a file names, made absolute: from `use`, from types and expressions, from macros.

use super::tree::Source;
use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// `crate::log::LogPort` at a line; the first segment is `crate` or the name of another crate (or of
/// something in scope).
#[derive(Debug)]
pub struct Named {
    pub segments: Vec<String>,
    pub line: usize,
    /// Named inside `#[cfg(test)]`.
    pub in_test: bool,
}

/// All paths of a file.
#[must_use]
pub fn named(source: &Source) -> Vec<Named> {
    let modules = source.modules().into_iter().map(str::to_owned).collect();
    let mut finder = Finder { modules, in_test: source.is_test(), found: Vec::new() };
    finder.visit_file(&source.parsed);
    finder.found
}

/// Whether something is compiled for tests alone.
#[must_use]
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            list.tokens.clone().into_iter().any(|t| matches!(&t, TokenTree::Ident(i) if i == "test"))
        }
        meta => meta.path().segments.last().is_some_and(|last| last.ident == "test"),
    })
}

struct Finder {
    modules: Vec<String>,
    in_test: bool,
    found: Vec<Named>,
}

impl Finder {
    fn add(&mut self, segments: Vec<String>, line: usize) {
        let segments = self.absolute(segments);
        self.found.push(Named { segments, line, in_test: self.in_test });
    }

    /// `self::x` and `super::x` from the crate's root.
    fn absolute(&self, segments: Vec<String>) -> Vec<String> {
        if !matches!(segments[0].as_str(), "self" | "super") {
            return segments;
        }
        let ups = segments.iter().take_while(|s| *s == "super" || *s == "self").filter(|s| *s == "super");
        let keep = self.modules.len().saturating_sub(ups.count());
        let rest = segments.iter().skip_while(|s| *s == "super" || *s == "self");
        let inside = self.modules[..keep].iter().chain(rest).cloned();
        std::iter::once("crate".to_owned()).chain(inside).collect()
    }

    fn use_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| prefix.iter().cloned().chain([ident.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(with(&name.ident), name.ident.span().start().line),
            syn::UseTree::Rename(name) => self.add(with(&name.ident), name.ident.span().start().line),
            syn::UseTree::Glob(glob) => {
                if !prefix.is_empty() {
                    self.add(prefix.to_vec(), glob.span().start().line);
                }
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(prefix, tree);
                }
            }
        }
    }

    /// Paths in what a macro is given, which is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end(&mut path, line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end(&mut path, line);
    }

    fn end(&mut self, path: &mut Vec<String>, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.add(path, line);
        }
    }

    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.in_test;
        self.in_test |= is_for_tests(attributes);
        visit(self);
        self.in_test = before;
    }
}

impl<'a> Visit<'a> for Finder {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        self.within(&module.attrs, |finder| {
            finder.modules.push(module.ident.to_string());
            visit::visit_item_mod(finder, module);
            finder.modules.pop();
        });
    }

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.within(&function.attrs, |finder| visit::visit_item_fn(finder, function));
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.within(&item.attrs, |finder| finder.use_tree(&[], &item.tree));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.add(segments, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}
