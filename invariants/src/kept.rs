//! What is kept: whether it is sealed, whether it converges, whether it is bounded.

use crate::observation::{Bounded, Dropped, Found};
use crate::violation::{Invariant, Loss, Violation};
use std::collections::BTreeMap;

/// None of the marks, which stand in content that was sent in the clear, is found anywhere.
///
/// # Errors
/// A mark was found.
pub fn content_stays_private(marks: &[&str], found: &[Found<'_>]) -> Result<(), Violation> {
    for Found { place, bytes } in found {
        for mark in marks.iter().filter(|mark| !mark.is_empty()) {
            if let Some(at) = position_of(bytes, mark.as_bytes()) {
                let ids = vec![(*place).to_owned(), format!("byte {at}")];
                let what = "content stands in the clear";
                return Err(Violation::new(Invariant::ContentStaysPrivate, Loss::Other, what, ids));
            }
        }
    }
    Ok(())
}

fn position_of(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let first = *mark.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(mark) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// However often and in whatever order records were processed, the store ended the same. Rows by a name
/// that says what they are.
///
/// # Errors
/// A row that differs, or that only one of the two has.
pub fn replay_converges<V: PartialEq + std::fmt::Debug>(
    once: &BTreeMap<String, V>,
    again: &BTreeMap<String, V>,
) -> Result<(), Violation> {
    let broken = |what: String, row: &String| {
        Err(Violation::new(Invariant::ReplayConverges, Loss::Other, what, vec![row.clone()]))
    };
    for (row, value) in once {
        match again.get(row) {
            Some(other) if other == value => {}
            Some(other) => return broken(format!("{value:?} once, {other:?} again"), row),
            None => return broken("a row is gone after processing again".to_owned(), row),
        }
    }
    match again.keys().find(|row| !once.contains_key(*row)) {
        Some(row) => broken("a row came by processing again".to_owned(), row),
        None => Ok(()),
    }
}

/// Nothing grew beyond its limit, and nothing was dropped that nobody was told of.
///
/// # Errors
/// A limit that did not hold, or a silent loss.
pub fn bounded_and_visible(bounded: &[Bounded], dropped: &[Dropped]) -> Result<(), Violation> {
    if let Some(over) = bounded.iter().find(|b| b.most > b.limit) {
        let what = format!("held {} where {} is the limit", over.most, over.limit);
        return Err(Violation::new(Invariant::BoundedAndVisible, Loss::Other, what, vec![over.name.clone()]));
    }
    match dropped.iter().find(|d| d.dropped > d.told) {
        Some(silent) => {
            let what = format!("{} dropped, {} told", silent.dropped, silent.told);
            Err(Violation::new(Invariant::BoundedAndVisible, Loss::Other, what, vec![silent.name.clone()]))
        }
        None => Ok(()),
    }
}
