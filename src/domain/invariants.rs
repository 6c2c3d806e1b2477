//! The nine invariants of the design. They live in a crate of their own, so that the load test and the
//! chaos run judge by the same predicates without depending on the server.

pub use reedi_invariants::*;
