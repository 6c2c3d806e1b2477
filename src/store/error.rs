//! Why a store does not answer.

/// The store could not answer. Every method may be called again: reads change nothing, position
/// writes converge, and conditional writes answer what stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// What stands in the store cannot be read by this binary.
    #[error("the store holds what this binary cannot read: {0}")]
    Corrupt(String),
    /// The servers are there and give up on these rows, as Cassandra does where more have ended in one read than it
    /// passes over. Others are read as ever (ADR 0042).
    #[error("the store gives up on these rows: {0}")]
    GaveUp(String),
}

impl StoreError {
    /// Whether it says nothing about other rows than those that were asked for.
    #[must_use]
    pub fn is_of_these_rows_alone(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::GaveUp(_) => true,
            Self::Unavailable(_) => false,
        }
    }
}
