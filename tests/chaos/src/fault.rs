//! Which faults happen, to whom and for how long: chosen by the seed alone.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kill -9`, and a start after a while.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Hold,
    /// SIGTERM, and a start once it has left.
    Restart,
    /// A process loses all connections to NATS and gets no new ones for a while.
    Cut,
    /// Nothing passes between a process and NATS for a while, though connections stand.
    Mute,
    /// Messages of the edge link are lost for a while: core NATS promises no more.
    Lossy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Edge,
    Delivery,
    Writer,
    Nats,
    Cassandra,
    Redis,
}

impl Class {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Delivery => "delivery",
            Self::Writer => "writer",
            Self::Nats => "nats",
            Self::Cassandra => "cassandra",
            Self::Redis => "redis",
        }
    }

    pub const fn is_role(self) -> bool {
        matches!(self, Self::Edge | Self::Delivery | Self::Writer)
    }

    const fn count(self) -> usize {
        match self {
            Self::Delivery | Self::Writer => 2,
            _ => 3,
        }
    }

    fn can(self, kind: Kind) -> bool {
        match kind {
            Kind::Kill | Kind::Hold | Kind::Restart => true,
            Kind::Cut | Kind::Mute => self.is_role(),
            Kind::Lossy => matches!(self, Self::Edge | Self::Delivery),
        }
    }
}

const CLASSES: [Class; 6] =
    [Class::Edge, Class::Delivery, Class::Writer, Class::Nats, Class::Cassandra, Class::Redis];
const KINDS: [Kind; 6] = [Kind::Kill, Kind::Hold, Kind::Restart, Kind::Cut, Kind::Mute, Kind::Lossy];

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub class: Class,
    /// Which of its class, from 1.
    pub number: usize,
    pub length: Duration,
}

impl Fault {
    pub fn target(&self) -> String {
        format!("{}-{}", self.class.name(), self.number)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = format!("{:?}", self.kind).to_lowercase();
        write!(f, "{kind} {} for {:.1} s", self.target(), self.length.as_secs_f64())
    }
}

/// One time of so many, two faults come at once.
const DOUBLE_ONE_OF: u32 = 6;

/// Deals faults: every combination once before any comes again, and always one whose kind, and
/// among those whose class, came least so far: the first six are of every kind.
pub struct Deck {
    random: StdRng,
    cards: Vec<(Class, Kind)>,
    dealt: Vec<(Class, Kind)>,
    longest: Duration,
    /// Only these, as `kill-edge` or a part of it, where a run shall be narrowed.
    only: Option<String>,
}

impl Deck {
    /// `longest` bounds how long a process is held.
    pub fn new(random: StdRng, longest: Duration, only: Option<String>) -> Self {
        Self { random, cards: Vec::new(), dealt: Vec::new(), longest, only }
    }

    /// The next fault, or two different ones; none where nothing fits what is wanted.
    pub fn deal(&mut self) -> Vec<Fault> {
        let Some(first) = self.draw(|_| true) else { return Vec::new() };
        let is_double = self.random.random_ratio(1, DOUBLE_ONE_OF);
        let second = if is_double { self.draw(|class| class != first.class) } else { None };
        std::iter::once(first).chain(second).collect()
    }

    fn draw(&mut self, fits: impl Fn(Class) -> bool) -> Option<Fault> {
        if self.cards.is_empty() {
            let all = CLASSES.into_iter().flat_map(|class| KINDS.map(|kind| (class, kind)));
            let only = self.only.as_deref().unwrap_or_default();
            let wanted =
                |class: Class, kind: Kind| format!("{kind:?}-{}", class.name()).to_lowercase().contains(only);
            self.cards = all.filter(|(class, kind)| class.can(*kind) && wanted(*class, *kind)).collect();
            self.cards.shuffle(&mut self.random);
        }
        let kinds = |kind: Kind| self.dealt.iter().filter(|(_, k)| *k == kind).count();
        let classes = |class: Class| self.dealt.iter().filter(|(c, _)| *c == class).count();
        let fitting = self.cards.iter().enumerate().filter(|(_, (class, _))| fits(*class));
        let (index, _) = fitting.min_by_key(|(_, (class, kind))| (kinds(*kind), classes(*class)))?;
        let (class, kind) = self.cards.remove(index);
        self.dealt.push((class, kind));
        let seconds = match kind {
            Kind::Kill => 0.5..8.0,
            Kind::Restart => 0.0..0.1,
            Kind::Hold => 2.0..40.0,
            Kind::Cut | Kind::Mute => 1.0..25.0,
            Kind::Lossy => 5.0..20.0,
        };
        let length = Duration::from_secs_f64(self.random.random_range(seconds)).min(self.longest);
        let number = self.random.random_range(1..=class.count());
        Some(Fault { kind, class, number, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn deal(seed: u64, count: usize) -> Vec<Vec<Fault>> {
        let mut deck = Deck::new(StdRng::seed_from_u64(seed), Duration::from_secs(40), None);
        (0..count).map(|_| deck.deal()).collect()
    }

    #[test]
    fn a_seed_deals_the_same_faults_again() {
        assert_eq!(deal(7, 50), deal(7, 50));
        assert_ne!(deal(7, 50), deal(8, 50));
    }

    #[test]
    fn everything_comes_once_before_anything_comes_again() {
        let dealt: Vec<Fault> = deal(1, 100).into_iter().flatten().take(26).collect();
        let mut seen: Vec<String> = dealt.iter().map(|f| format!("{:?}{:?}", f.class, f.kind)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 26);
        assert!(deal(1, 100).iter().any(|faults| faults.len() == 2));
    }

    #[test]
    fn a_short_run_sees_every_kind_and_one_little_longer_every_class() {
        for seed in 0..50 {
            let first = |count| deal(seed, count).into_iter().flatten().collect::<Vec<Fault>>();
            for kind in KINDS {
                assert!(first(6).iter().any(|fault| fault.kind == kind), "seed {seed}: no {kind:?}");
            }
            for class in CLASSES {
                assert!(first(14).iter().any(|fault| fault.class == class), "seed {seed}: no {class:?}");
            }
        }
    }

    #[test]
    fn two_at_once_are_of_different_classes() {
        assert!(deal(3, 200).iter().all(|faults| faults.len() < 2 || faults[0].class != faults[1].class));
    }
}
