//! The contract between Reedi servers and clients: identifiers, positions, limits, frames, events,
//! resources, error codes and close codes.
//!
//! Nothing here does I/O, so that the crate compiles natively and to WebAssembly, and so that the
//! server, the Rust client, the load test and the chaos run cannot disagree about the wire.

pub mod checkpoint;
pub mod close_code;
pub mod command;
pub mod error_code;
pub mod event;
pub mod frame;
pub mod id;
pub mod limits;
pub mod position;
pub mod resource;
pub mod text;
pub mod timestamp;

pub use checkpoint::Checkpoint;
pub use close_code::CloseCode;
pub use error_code::ErrorCode;
pub use id::{AccountId, ConversationId, ConversationKey, DeviceId, EventId, MessageId, Shard};
pub use position::{Epoch, Position};
pub use timestamp::Timestamp;
