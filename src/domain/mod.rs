//! What a conversation is and may become: pure and synchronous, no I/O and no clock.

pub mod conversation;
pub mod invariants;
pub mod permission;
pub mod plan;
pub mod record;
pub mod retention;
pub mod send_key;
pub mod write;
