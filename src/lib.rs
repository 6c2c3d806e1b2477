//! Reedi Messaging. The tree reads as the life of a message: an edge takes it (`edge`), the log
//! orders it (`log`), delivery workers push it (`delivery`), writers store it (`writer`, `store`).

pub mod domain;
pub mod edge;
pub mod edge_link;
pub mod people;
pub mod runtime;
pub mod store;
