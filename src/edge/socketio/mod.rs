//! Socket.IO v4 at `/socket.io/`: the same commands and events as on the plain WebSocket, for clients
//! that speak Socket.IO, by WebSocket, long polling, or polling that upgrades.
//!
//! socketioxide speaks the protocol. What it leaves open is decided here: who may come in and how many
//! wait ([`enter`]), what the others are told ([`refusal`]), that commands run in the order sent ([`inbox`]), that a client is written to no
//! faster than it reads ([`converse`]), and how one connection is ended ([`front`], [`wire`]).

mod converse;
mod enter;
mod front;
mod goodbye;
mod inbox;
mod refusal;
mod wire;

use super::Edge;
use axum::Router;
use axum::routing::any;
use parking_lot::Mutex;
use reedi_protocol::limits;
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::{ParserConfig, SocketIo, TransportType};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;
use wire::Cut;

/// How often a client is asked whether it is there, and how long its answer may take: Socket.IO's own
/// defaults, which its clients expect.
const PING_EVERY: Duration = Duration::from_secs(25);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long the way from polling to a WebSocket may take: Socket.IO's own default.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);
/// Packets that wait in socketioxide for one client: of the largest messages some 4 MiB, and as many as
/// one poll is answered with. What is more waits in the outbox, whose limits are configured.
const PACKETS_MOST: usize = 64;
/// How long the goodbyes of a leaving server may take: each is given 2 s to be said and 2 to be read.
const GOODBYES_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that a connection reads at once, as on the plain WebSocket; socketioxide's default is four times that.
const READ_BUFFER: usize = 1_024;

/// The largest message that is read from a WebSocket: four times what a command may have, so that who sends
/// too much is told so and what is still more ends the connection.
const HEARD_BYTES: usize = 4 * limits::FRAME_BYTES;

/// The Socket.IO front door of an edge.
pub struct SocketIoDoor {
    door: Arc<Door>,
    io: SocketIo,
}

/// Session ids.
type Sessions = Arc<Mutex<HashSet<String>>>;

struct Door {
    edge: Arc<Edge>,
    service: SocketIoService<Router>,
    /// Connections that were polled before, by session id.
    upgraded: Mutex<HashMap<String, Cut>>,
    /// Sessions that came by polling and were let in, and those that have a POST under way, by session id.
    polled: Sessions,
    posting: Sessions,
    conversations: TaskTracker,
}

impl SocketIoDoor {
    #[must_use]
    pub fn open(edge: Arc<Edge>) -> Self {
        let parser = ParserConfig::common()
            .max_incoming_binary_buf_size(limits::FRAME_BYTES)
            // No command has attachments; one is let through to be answered with a refusal.
            .max_incoming_binaries(1);
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .transports([TransportType::Polling, TransportType::Websocket])
            .ping_interval(PING_EVERY)
            .ping_timeout(PONG_WITHIN)
            .upgrade_timeout(UPGRADE_WITHIN)
            .connect_timeout(Duration::from_millis(limits::AUTHENTICATE_WITHIN_MS))
            .max_buffer_size(PACKETS_MOST)
            .max_payload(limits::FRAME_BYTES as u64)
            .ws_max_message_size(HEARD_BYTES)
            .ws_max_frame_size(HEARD_BYTES)
            .ws_read_buffer_size(READ_BUFFER)
            .with_parser(parser)
            .build_with_inner_svc(Router::new());
        let door = Arc::new(Door {
            edge,
            service,
            upgraded: Mutex::default(),
            polled: Sessions::default(),
            posting: Sessions::default(),
            conversations: TaskTracker::new(),
        });
        let (at_the_door, inside) = (door.clone(), door.clone());
        let connected = move |socket| converse::run(inside.clone(), socket);
        let enter = move |socket, auth| enter::enter(at_the_door.clone(), socket, auth);
        io.ns("/", connected.with(enter));
        Self { door, io }
    }

    /// The paths of this front door.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/socket.io", any(front::take))
            .route("/socket.io/", any(front::take))
            .with_state(self.door.clone())
    }

    /// Ends every connection, so that clients look for another server by themselves, once sessions that
    /// were closed have told theirs.
    pub async fn close(&self) {
        self.door.conversations.close();
        if tokio::time::timeout(GOODBYES_WITHIN, self.door.conversations.wait()).await.is_err() {
            tracing::warn!(left = self.door.conversations.len(), "Socket.IO sessions end without a goodbye");
        }
        self.io.close().await;
    }
}
