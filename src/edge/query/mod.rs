//! Queries: what clients read. Answered once what they must see is stored.

pub mod events;
pub mod history;
pub mod lists;
