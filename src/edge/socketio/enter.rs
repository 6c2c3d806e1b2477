//! Enter: who a client is, before it is told that it is connected; then its session.

use super::Door;
use super::front::{Arrival, Noted};
use super::inbox::{Asked, Asking, Inbox, Put, Taken};
use super::refusal::NotLetIn;
use crate::edge::connection::Present;
use crate::edge::refused::{Outcome, Refused};
use crate::edge::session::Session;
use parking_lot::Mutex;
use reedi_protocol::{CloseCode, ErrorCode};
use serde::Deserialize;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::TryData;
use socketioxide::handler::{FromConnectParts, FromDisconnectParts, Value};
use socketioxide::socket::{DisconnectReason, Socket};
use std::convert::Infallible;
use std::sync::Arc;

/// What a client whose commands came too fast is told.
const BACK_OFF: &str = "{\"reconnectAfterMs\":2000}";

/// A socket of socketioxide's, as its handlers get it.
pub struct Whole(pub Arc<Socket<LocalAdapter>>);

impl FromConnectParts<LocalAdapter> for Whole {
    type Error = Infallible;

    fn from_connect_parts(socket: &Arc<Socket<LocalAdapter>>, _: &Option<Value>) -> Result<Self, Infallible> {
        Ok(Self(socket.clone()))
    }
}

impl FromDisconnectParts<LocalAdapter> for Whole {
    type Error = Infallible;

    fn from_disconnect_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        _: DisconnectReason,
    ) -> Result<Self, Infallible> {
        Ok(Self(socket.clone()))
    }
}

/// What a client gives when it connects: `auth: {token}`.
#[derive(Deserialize)]
pub struct Auth {
    token: Option<String>,
}

/// A session that was let in; in its socket's extensions while it is connected.
#[derive(Clone)]
pub struct Entered {
    session: Arc<Session>,
    present: Arc<Mutex<Option<Present>>>,
    _polled: Option<Arc<Noted>>,
    pub inbox: Arc<Inbox>,
}

impl Entered {
    /// The session's place among those present, once.
    pub fn take_present(&self) -> Option<Present> {
        self.present.lock().take()
    }

    /// Takes what the client sent. Who sends much faster than is done what it asks for is cut off: its
    /// commands cannot be left unread, as on the plain WebSocket, because its pongs are among them. Who
    /// sends too much at once is sent away, as there.
    pub fn ask(&self, asking: Asking) {
        if matches!(asking.asked, Asked::TooLarge) {
            self.session.close(CloseCode::TooLarge, "");
        } else if self.inbox.put(asking) == Put::Full {
            self.session.close(CloseCode::TooMany, BACK_OFF);
        }
    }
}

/// Lets a client in, or tells it why not.
pub async fn enter(
    door: Arc<Door>,
    Whole(socket): Whole,
    TryData(auth): TryData<Auth>,
) -> Result<(), NotLetIn> {
    let token = auth.ok().and_then(|auth| auth.token);
    let present = admit(&door, &socket, token).await.map_err(|refused| {
        door.edge.metrics.refused(refused.code);
        NotLetIn::new(&refused)
    })?;
    present.session.heard_by_transport();
    let inbox = Arc::new(Inbox::new(door.edge.limits.outbox.bytes));
    let session = present.session.clone();
    let polled = door.note_polled(&socket).map(Arc::new);
    let entered = Entered { session, present: Arc::new(Mutex::new(Some(present))), _polled: polled, inbox };
    socket.extensions.insert(entered);
    // Before the client hears that it is connected: nothing it sends or does is missed.
    socket.on_fallback(async |_: Taken| {});
    socket.on_disconnect(move |socket| left(door.clone(), socket));
    Ok(())
}

async fn admit(door: &Door, socket: &Socket<LocalAdapter>, token: Option<String>) -> Outcome<Present> {
    let arrival = socket.req_parts().extensions.get::<Arc<Arrival>>();
    let token = token.or_else(|| arrival.and_then(|arrival| arrival.bearer.clone()));
    let token = token.ok_or_else(|| {
        Refused::new(ErrorCode::Unauthenticated, "Give a token: `auth: {token}`, or an Authorization header.")
    })?;
    let identity = door.edge.verifier.verify(&token).await?;
    if let Some(arrival) = arrival {
        arrival.waiting.lock().take();
    }
    Present::come(&door.edge, identity).await
}

/// The client left the namespace or lost its connection. What it sent before is still done.
async fn left(door: Arc<Door>, Whole(socket): Whole) {
    // Also breaks the circle from the socket over its inbox back to it.
    if let Some(entered) = socket.extensions.remove::<Entered>() {
        entered.inbox.close();
    }
    door.see_off(&socket).await;
}
