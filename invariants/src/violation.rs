//! What is broken, by its name in the design.

use std::fmt;

/// The invariants, in the order of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    AckedIsDurable,
    AckedExactlyOnce,
    OneOrder,
    ContentStaysPrivate,
    ReplayConverges,
    MembersOnly,
    BoundedAndVisible,
    NothingLivesOnAnEdge,
    StoredBeforeTrimmed,
}

impl Invariant {
    pub const ALL: [Self; 9] = [
        Self::AckedIsDurable,
        Self::AckedExactlyOnce,
        Self::OneOrder,
        Self::ContentStaysPrivate,
        Self::ReplayConverges,
        Self::MembersOnly,
        Self::BoundedAndVisible,
        Self::NothingLivesOnAnEdge,
        Self::StoredBeforeTrimmed,
    ];

    /// Its name in the design.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckedIsDurable => "acked_is_durable",
            Self::AckedExactlyOnce => "acked_exactly_once",
            Self::OneOrder => "one_order",
            Self::ContentStaysPrivate => "content_stays_private",
            Self::ReplayConverges => "replay_converges",
            Self::MembersOnly => "members_only",
            Self::BoundedAndVisible => "bounded_and_visible",
            Self::NothingLivesOnAnEdge => "nothing_lives_on_an_edge",
            Self::StoredBeforeTrimmed => "stored_before_trimmed",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken invariant: which, how, and the ids to look for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {what} [{}]", ids.join(", "))]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
    pub ids: Vec<String>,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, what: impl Into<String>, ids: Vec<String>) -> Self {
        Self { invariant, what: what.into(), ids }
    }
}
