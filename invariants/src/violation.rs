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

/// What a violation comes to for whoever was promised otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Something is not where it must be.
    Lost,
    /// Something is there more than once.
    Doubled,
    OutOfOrder,
    /// Something was told or shown to whom it is not for, or what was promised does not hold otherwise.
    Other,
}

/// A broken invariant: which, how, and the ids to look for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {what} [{}]", ids.join(", "))]
pub struct Violation {
    pub invariant: Invariant,
    pub loss: Loss,
    pub what: String,
    pub ids: Vec<String>,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, loss: Loss, what: impl Into<String>, ids: Vec<String>) -> Self {
        Self { invariant, loss, what: what.into(), ids }
    }

    /// The first of `all`, for who asks only whether a promise holds.
    pub(crate) fn first_of(all: Vec<Self>) -> Result<(), Self> {
        all.into_iter().next().map_or(Ok(()), Err)
    }
}
