//! The checker: whatever its speed, a run in which a message is wrong, doubled, out of order or
//! missing has failed. It knows every message by its number, which the sender writes into it.

use parking_lot::Mutex;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Examples of what went wrong that are kept to be shown.
const EXAMPLES: usize = 10;

/// The invariant of `docs/rules.md` that a message broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// Acknowledged and not told to everybody in time, or not in history.
    Missing,
    /// Told to a session twice, or twice in history.
    Doubled,
    /// Told to a session before one that stands before it.
    OutOfOrder,
    /// Two places for one message, or told to somebody whom it is not for.
    Misplaced,
}

const KINDS: [Broken; 4] = [Broken::Missing, Broken::Doubled, Broken::OutOfOrder, Broken::Misplaced];

#[derive(Default)]
struct Slot {
    /// Where it stands, as the first said who named a place; 0 until then.
    position: AtomicU64,
    acknowledged: AtomicBool,
    /// Sessions that were told of it.
    told: AtomicU32,
}

/// All messages of a run, by number.
pub struct Checker {
    slots: Vec<Slot>,
    /// Sessions that must be told of each message.
    audience: u32,
    broken: [AtomicU64; KINDS.len()],
    examples: Mutex<Vec<String>>,
    acknowledged: AtomicU64,
    told: AtomicU64,
}

/// What one session has seen of the one conversation it is in. A session that sees positions only
/// rise is told of nothing twice.
#[derive(Clone, Debug, Default)]
pub struct SessionOrder {
    last: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub acknowledged: u64,
    /// Frames with a message, over all sessions.
    pub told: u64,
    pub missing: u64,
    pub doubled: u64,
    pub out_of_order: u64,
    pub misplaced: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

impl Verdict {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing + self.doubled + self.out_of_order + self.misplaced == 0
    }

    /// In one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} acknowledged, {} deliveries; {} missing, {} doubled, {} out of order, {} misplaced",
            self.acknowledged, self.told, self.missing, self.doubled, self.out_of_order, self.misplaced
        )
    }
}

impl Checker {
    /// For messages numbered below `messages`, each told to `audience` sessions.
    #[must_use]
    pub fn new(messages: usize, audience: u32) -> Self {
        Self {
            slots: std::iter::repeat_with(Slot::default).take(messages).collect(),
            audience,
            broken: Default::default(),
            examples: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    pub fn broken(&self, kind: Broken, what: impl FnOnce() -> String) {
        let index = KINDS.iter().position(|k| *k == kind).unwrap_or_default();
        self.broken[index].fetch_add(1, Ordering::Relaxed);
        let mut examples = self.examples.lock();
        if examples.len() < EXAMPLES {
            examples.push(format!("{kind:?}: {}", what()));
        }
    }

    fn stands_at(&self, number: u64, position: u64) -> Option<&Slot> {
        let Some(slot) = self.slots.get(number as usize) else {
            self.broken(Broken::Misplaced, || format!("message {number} was never sent"));
            return None;
        };
        let known = slot.position.compare_exchange(0, position, Ordering::Relaxed, Ordering::Relaxed);
        if let Err(known) = known
            && known != position
        {
            self.broken(Broken::Misplaced, || {
                format!("message {number} stands at {known} and at {position}")
            });
        }
        Some(slot)
    }

    /// The sender was told that message `number` stands at `position`.
    pub fn acknowledged(&self, number: u64, position: u64) {
        let Some(slot) = self.stands_at(number, position) else { return };
        if slot.acknowledged.swap(true, Ordering::Relaxed) {
            self.broken(Broken::Doubled, || format!("message {number} was acknowledged twice"));
        } else {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A session was told of message `number`. Gives how many sessions have been told of it now.
    pub fn told(&self, order: &mut SessionOrder, number: u64, position: u64) -> u32 {
        if position <= order.last {
            let kind = if position == order.last { Broken::Doubled } else { Broken::OutOfOrder };
            self.broken(kind, || format!("message {number} at {position} came after {}", order.last));
        }
        order.last = order.last.max(position);
        let Some(slot) = self.stands_at(number, position) else { return 0 };
        self.told.fetch_add(1, Ordering::Relaxed);
        slot.told.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A message that is not for this session.
    pub fn foreign(&self, what: &str) {
        self.broken(Broken::Misplaced, || what.to_owned());
    }

    #[must_use]
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn told_count(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Where message `number` stands, if it was acknowledged.
    #[must_use]
    pub fn acknowledged_at(&self, number: u64) -> Option<u64> {
        let slot = self.slots.get(number as usize)?;
        slot.acknowledged.load(Ordering::Relaxed).then(|| slot.position.load(Ordering::Relaxed))
    }

    /// Judges. Nothing may be under way any more.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        for (number, slot) in self.slots.iter().enumerate() {
            let told = slot.told.load(Ordering::Relaxed);
            if slot.acknowledged.load(Ordering::Relaxed) && told < self.audience {
                self.broken(Broken::Missing, || {
                    format!("message {number} was told to {told} of {} sessions", self.audience)
                });
            }
            if told > self.audience {
                self.broken(Broken::Doubled, || {
                    format!("message {number} was told to {told} sessions, not {}", self.audience)
                });
            }
        }
        let count = |kind: Broken| {
            KINDS.iter().position(|k| *k == kind).map_or(0, |i| self.broken[i].load(Ordering::Relaxed))
        };
        Verdict {
            acknowledged: self.acknowledged_count(),
            told: self.told_count(),
            missing: count(Broken::Missing),
            doubled: count(Broken::Doubled),
            out_of_order: count(Broken::OutOfOrder),
            misplaced: count(Broken::Misplaced),
            examples: self.examples.lock().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_to_two(checker: &Checker, numbers: &[u64]) {
        let mut sessions = [SessionOrder::default(), SessionOrder::default()];
        for number in numbers {
            for (i, order) in sessions.iter_mut().enumerate() {
                assert_eq!(checker.told(order, *number, 10 + number), 1 + i as u32);
            }
        }
    }

    #[test]
    fn a_clean_run_is_clean() {
        let checker = Checker::new(3, 2);
        (0..3).for_each(|n| checker.acknowledged(n, 10 + n));
        told_to_two(&checker, &[0, 1, 2]);
        let verdict = checker.verdict();
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.told), (3, 6));
    }

    #[test]
    fn what_is_not_acknowledged_may_be_missing() {
        let checker = Checker::new(1, 2);
        assert!(checker.verdict().is_clean());
    }

    #[test]
    fn every_kind_of_wrong_is_seen() {
        let checker = Checker::new(3, 2);
        checker.acknowledged(0, 10);
        assert_eq!(checker.verdict().missing, 1, "told to nobody");

        let checker = Checker::new(3, 2);
        let mut order = SessionOrder::default();
        checker.told(&mut order, 1, 11);
        checker.told(&mut order, 1, 11);
        assert_eq!(checker.verdict().doubled, 1);
        checker.told(&mut order, 0, 10);
        assert_eq!(checker.verdict().out_of_order, 1);
        checker.acknowledged(1, 12);
        assert_eq!(checker.verdict().misplaced, 1, "the acknowledgement names another place");
        checker.told(&mut order, 9, 19);
        assert_eq!(checker.verdict().misplaced, 2, "never sent");
    }
}
