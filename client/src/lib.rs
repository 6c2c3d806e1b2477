//! The Rust client of Reedi Messaging: connect, authenticate, send exactly once, resume, fill gaps.
//!
//! [`Client`] is the supervised way: it keeps one socket alive, re-sends what was not acknowledged
//! and hands every event to the application once and in order. [`Socket`] and [`RawConnection`] are
//! the lean way, for a load test that holds ten thousand connections. [`Rest`] is the typed REST API
//! beneath both. [`Timelines`] is what orders events; it is pure, and the simulation may use it too.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use reedi_client::{Client, Update};
//! let (client, mut updates) =
//!     Client::builder("http://127.0.0.1:8080").credentials("alice", "a long password").connect().await?;
//! let bob = client.rest().people("bob").await?.remove(0);
//! let (conversation, _) = client.rest().create_direct(bob.user_id).await?;
//! let sent = client.send(conversation.conversation_id, "hello")?.await?;
//! println!("{} stands at {}", sent.message_id, sent.message_id.position());
//! while let Some(update) = updates.recv().await {
//!     if let Update::Event(event) = update {
//!         println!("{event:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod acks;
mod backoff;
mod checkpoint_store;
mod client;
mod connection;
mod credentials;
mod endpoint;
mod error;
pub mod frame;
mod journal;
mod marks;
mod outbox;
mod queues;
mod raw;
mod rest;
mod session;
mod socket;
mod timeline;
mod update;

pub use checkpoint_store::SaveError;
pub use client::{Client, ClientBuilder, ConnectError};
pub use credentials::{Credentials, Password, Token};
pub use endpoint::{Endpoint, NotAnEndpoint};
pub use error::{CommandError, RestError, SendError};
pub use journal::JournalError;
pub use marks::Mark;
pub use outbox::{OutboxFull, OutboxLimits};
pub use queues::{Draft, SendTicket, Sent};
pub use raw::{RawConnection, RawSendError};
pub use rest::{Page, Rest, RestOptions};
pub use socket::{AuthenticateBy, Closed, OpenError, Socket, SocketOptions};
pub use timeline::{Filled, Saved, Timelines, Told};
pub use tokio_tungstenite::tungstenite::Utf8Bytes;
pub use update::{Ended, Link, Update, Updates};
