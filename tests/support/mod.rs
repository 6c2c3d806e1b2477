//! A whole cluster in one process, and the people who use it. Shared by test programs.

pub mod backend;
pub mod balancer;
pub mod cluster;
pub mod content;
pub mod lines;
pub mod listening;
pub mod order;
pub mod person;
pub mod proxy;
pub mod session;
