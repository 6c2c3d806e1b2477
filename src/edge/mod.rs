//! The edge: where clients come in.

pub mod authenticate;
