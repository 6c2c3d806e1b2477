//! Reedi Messaging. The tree reads as the life of a message: an edge takes it (`edge`), the log
//! orders it (`log`), delivery workers push it (`delivery`), writers store it (`writer`, `store`).

pub mod chat;
pub mod delivery;
pub mod domain;
pub mod edge;
pub mod edge_link;
#[cfg(test)]
mod fuzz;
pub mod log;
pub mod ownership;
pub mod people;
pub mod presence;
pub mod rate_limit;
pub mod redis_access;
pub mod role;
pub mod runtime;
pub mod store;
pub mod writer;
