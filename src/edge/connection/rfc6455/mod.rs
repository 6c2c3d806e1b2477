//! The WebSocket protocol (RFC 6455), a server's side of it, without extensions. Written for many
//! connections that are silent most of the time: one holds no buffer unless half a frame has come, and
//! what there is to say goes out in one write.

mod decode;
mod encode;
mod socket;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use socket::{Broken, WebSocket};

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    /// A binary message; what is in it is not kept, since nobody here takes any.
    Binary,
    Ping(Vec<u8>),
    Pong,
    /// The client ends the connection, and perhaps says with which code.
    Close(Option<u16>),
}

/// What a client sent is not the protocol, or more than is taken. Nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the message is too long")]
    TooLarge,
    #[error("a text message is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    NotAFrame(&'static str),
}
