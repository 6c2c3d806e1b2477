//! The nine promises of the design, one pure predicate each over plain observations. Simulation, chaos
//! run, load test and integration tests bring what they saw and ask here, so that a promise means the
//! same everywhere.
//!
//! An observation is what a run wrote down: what was acknowledged, what each session was told in which
//! order, what history and the log hold, who was a member when. A predicate answers `Ok(())` or the
//! first [`Violation`], which names the invariant and the ids it is about. Where a run counts what was lost,
//! doubled or out of order, a function beside the predicate gives all of them, each with its [`Loss`].
//!
//! Its own crate, because the load test must not depend on the server, and `reedi-protocol` is the wire
//! and nothing else.

mod durable;
mod kept;
mod observation;
mod order;
#[cfg(test)]
mod tests;
mod violation;

pub use durable::{
    acked_exactly_once, acked_is_durable, acked_not_exactly_once, lost_with_an_edge,
    nothing_lives_on_an_edge, stored_before_trimmed,
};
pub use kept::{bounded_and_visible, content_stays_private, replay_converges};
pub use observation::{
    Acked, Bounded, Dropped, Durable, Found, Gap, HistoryRow, LoggedEvent, Membership, Seen, ToldEvent,
    Trimmed,
};
pub use order::{members_only, not_members_only, not_one_order, one_order};
pub use violation::{Invariant, Loss, Violation};
