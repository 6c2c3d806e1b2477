//! Which parts of Redis are taken to be away. A part is a tag's slot (see `key`): when one server of
//! a cluster dies its tags fail and the others do not.

use super::key::TAGS;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Failures of a tag in a row that open its breaker: one may be a server that was just replaced.
const TAG_FAILURES: u32 = 3;
/// Failures in a row, whatever the tag, that open all breakers: with a third of the servers away and
/// their breakers still closed this happens by chance once in 6,561 runs, and a probe closes those
/// that need not be open.
const ALL_FAILURES: u32 = 8;

#[derive(Default)]
struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
}

/// One breaker a tag. Numbers are counted without a lock: one more or less does not matter.
pub(super) struct Breakers {
    tags: [Breaker; TAGS],
    failures: AtomicU32,
    open: AtomicU32,
}

impl Default for Breakers {
    fn default() -> Self {
        Self {
            tags: std::array::from_fn(|_| Breaker::default()),
            failures: AtomicU32::new(0),
            open: AtomicU32::new(0),
        }
    }
}

impl Breakers {
    fn of(&self, tag: u8) -> &Breaker {
        &self.tags[usize::from(tag)]
    }

    pub fn is_closed(&self, tag: u8) -> bool {
        !self.of(tag).open.load(Relaxed)
    }

    pub fn any_open(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    pub fn open_tags(&self) -> Vec<u8> {
        (0..=u8::MAX).filter(|&tag| !self.is_closed(tag)).collect()
    }

    pub fn succeeded(&self, tag: u8) {
        self.of(tag).failures.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }

    /// Whether this opened a breaker.
    pub fn failed(&self, tag: u8) -> bool {
        let of_tag = self.of(tag).failures.fetch_add(1, Relaxed) + 1;
        if self.failures.fetch_add(1, Relaxed) + 1 >= ALL_FAILURES {
            return self.open_all();
        }
        of_tag >= TAG_FAILURES && self.open(tag)
    }

    /// Whether this opened a breaker.
    pub fn open_all(&self) -> bool {
        (0..=u8::MAX).filter(|&tag| self.open(tag)).count() > 0
    }

    fn open(&self, tag: u8) -> bool {
        let opened = !self.of(tag).open.swap(true, Relaxed);
        self.open.fetch_add(u32::from(opened), Relaxed);
        opened
    }

    /// A probe of it was answered.
    pub fn close(&self, tag: u8) {
        self.succeeded(tag);
        let closed = self.of(tag).open.swap(false, Relaxed);
        self.open.fetch_sub(u32::from(closed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_opens_by_itself_after_failures_in_a_row() {
        let breakers = Breakers::default();
        for _ in 0..10 {
            assert!(!breakers.failed(7));
            assert!(!breakers.failed(7));
            breakers.succeeded(7);
        }
        assert!(!breakers.any_open());
        let opened: Vec<bool> = (0..TAG_FAILURES).map(|_| breakers.failed(7)).collect();
        assert_eq!(opened, [false, false, true]);
        assert!(!breakers.is_closed(7) && breakers.is_closed(8) && breakers.any_open());
        assert_eq!(breakers.open_tags(), [7]);
        breakers.close(7);
        assert!(breakers.is_closed(7) && !breakers.any_open());
        assert!(!breakers.failed(7), "a closed breaker counts from nought again");
    }

    #[test]
    fn failures_everywhere_open_all() {
        let breakers = Breakers::default();
        let opened: Vec<bool> = (0..ALL_FAILURES as u8).map(|tag| breakers.failed(tag)).collect();
        assert_eq!(opened, [false, false, false, false, false, false, false, true]);
        assert_eq!(breakers.open_tags().len(), TAGS);
        assert!(!breakers.failed(9), "what is open already is not opened again");
        for tag in breakers.open_tags() {
            breakers.close(tag);
        }
        assert!(!breakers.any_open());
    }
}
