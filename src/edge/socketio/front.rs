//! The requests of Engine.IO, which carries Socket.IO: handshakes, polls and upgrades. Each connection
//! that comes is counted until it has authenticated, and can be ended.

use super::refusal::undisguised;
use super::wire::{Carried, Carries, Cut, Wire};
use super::{Door, Sessions};
use crate::edge::admission::WaitingSocket;
use crate::edge::client_address::ClientAddress;
use crate::edge::refused::{Outcome, Refused};
use crate::edge::rest::body::bearer;
use crate::edge::rest::socket::{Prefixed, accept_key};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Frame;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use reedi_protocol::{ErrorCode, limits};
use socketioxide::TransportType;
use socketioxide::adapter::LocalAdapter;
use socketioxide::socket::Socket;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

/// How long what a client posts may take to arrive; as for REST.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take to hear its goodbye and end its connection before that is done for it.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// A goodbye may just miss the flush that is waited for, and goes out with the next one within this time.
const LAST_FLUSH_WITHIN: Duration = Duration::from_millis(50);

/// What is known of a connection from its handshake; socketioxide keeps it as long as the connection.
pub struct Arrival {
    /// Its place among those that wait to authenticate, until it has.
    pub waiting: Mutex<Option<WaitingSocket>>,
    /// The token of its `Authorization` header.
    pub bearer: Option<String>,
    cut: Option<Cut>,
}

/// Answers a request to `/socket.io/`.
pub async fn take(State(door): State<Arc<Door>>, request: Request) -> Response {
    door.take(request).await.unwrap_or_else(|refused| {
        door.edge.metrics.refused(refused.code);
        refused.into_response()
    })
}

/// The value of `name` in a query, as Engine.IO's clients write it.
fn value<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// What is polled, with a refusal in its place.
fn undisguised_frame(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| undisguised(&data).map_or(data, Bytes::from))
}

/// What depends on a body that is still to come.
async fn in_time<T>(body: impl Future<Output = T>) -> Outcome<T> {
    let late = |_| Refused::new(ErrorCode::RequestTimeout, "The body took too long to arrive.");
    tokio::time::timeout(BODY_WITHIN, body).await.map_err(late)
}

/// What somebody posts whom we do not know yet: as much as a plain WebSocket's first frame may have.
async fn of_stranger(body: Body) -> Outcome<Body> {
    let whole = Limited::new(body, limits::FIRST_FRAME_BYTES).collect();
    let whole = in_time(whole).await?.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return ErrorCode::TooLarge.into();
        }
        Refused::new(ErrorCode::Malformed, "The body did not arrive whole.")
    })?;
    Ok(Body::from(whole.to_bytes()))
}

/// A session's id among those of a set, for as long as this lives.
pub struct Noted {
    among: Sessions,
    sid: String,
}

impl Noted {
    /// `None` where it stands there already.
    fn note(among: &Sessions, sid: String) -> Option<Self> {
        let is_new = among.lock().insert(sid.clone());
        is_new.then(|| Self { among: among.clone(), sid })
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.among.lock().remove(&self.sid);
    }
}

impl Door {
    async fn take(self: &Arc<Self>, request: Request) -> Outcome<Response> {
        let (mut parts, body) = request.into_parts();
        let sid = value(&parts.uri, "sid").map(str::to_owned);
        match (value(&parts.uri, "EIO"), value(&parts.uri, "transport")) {
            (Some("4"), Some("websocket")) if parts.method == Method::GET => return self.upgrade(parts),
            (Some("4"), Some("polling")) => {}
            // socketioxide reads queries in its own way: what is not plainly one of the two does not come to it.
            _ => {
                let detail = "Speak Engine.IO 4: `EIO=4` and `transport=polling` or `websocket`.";
                return Err(Refused::new(ErrorCode::Malformed, detail));
            }
        }
        // Nothing that is polled becomes a WebSocket but by `upgrade`.
        parts.extensions.remove::<OnUpgrade>();
        let is_post = parts.method == Method::POST;
        let _posting = match &sid {
            Some(sid) if is_post => Some(self.begin_posting(sid)?),
            _ => None,
        };
        let is_known = sid.as_ref().is_some_and(|sid| self.polled.lock().contains(sid));
        let request = if sid.is_some() {
            let body = if is_post && !is_known { of_stranger(body).await? } else { body };
            Request::from_parts(parts, body)
        } else {
            self.arrive(parts, None)?.map(|()| Body::empty())
        };
        let answering = self.service.clone().oneshot(request);
        let answered = if is_post { in_time(answering).await? } else { answering.await };
        match answered {
            Ok(response) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ErrorCode::TooLarge.into())
            }
            Ok(response) => Ok(response.map(|body| Body::new(body.map_frame(undisguised_frame)))),
            Err(never) => match never {},
        }
    }

    /// A body is posted to a session: one at a time, as Socket.IO's own server has it. What a session posts is taken in
    /// order, and takes no more memory than one body.
    fn begin_posting(&self, sid: &str) -> Outcome<Noted> {
        Noted::note(&self.posting, sid.to_owned()).ok_or_else(|| {
            let detail = "This session's last POST is still under way: send one after the other.";
            Refused::new(ErrorCode::Malformed, detail)
        })
    }

    /// A session that came by polling was let in; `None` for one that came by WebSocket. How it came is what counts: by
    /// now it may have upgraded.
    pub fn note_polled(&self, socket: &Socket<LocalAdapter>) -> Option<Noted> {
        let arrival = socket.req_parts().extensions.get::<Arc<Arrival>>()?;
        if arrival.cut.is_some() {
            return None;
        }
        Noted::note(&self.polled, socket.id.to_string())
    }

    /// What socketioxide is given of a handshake, and keeps: nothing of the headers but the token.
    fn arrive(&self, parts: Parts, cut: Option<Cut>) -> Outcome<axum::http::Request<()>> {
        let bearer = bearer(&parts.headers)?.map(str::to_owned);
        let from = ClientAddress::in_extensions(&parts.extensions);
        let waiting = self.edge.admission.wait_unauthenticated(from)?;
        let mut request = axum::http::Request::new(());
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        request.extensions_mut().insert(Arc::new(Arrival {
            waiting: Mutex::new(Some(waiting)),
            bearer,
            cut,
        }));
        Ok(request)
    }

    /// Makes a WebSocket of a request, and gives it to socketioxide on a wire that can be cut.
    fn upgrade(self: &Arc<Self>, mut parts: Parts) -> Outcome<Response> {
        let key = accept_key(&parts.headers)?;
        let on_upgrade: OnUpgrade = parts.extensions.remove().ok_or_else(|| {
            Refused::new(ErrorCode::Malformed, "This connection cannot be upgraded: use HTTP/1.1.")
        })?;
        let cut = Cut::default();
        let (head, kept) = match value(&parts.uri, "sid").map(str::to_owned) {
            Some(sid) => {
                let mut head = axum::http::Request::new(());
                *head.uri_mut() = parts.uri;
                (head, Kept::Upgrade(Upgrade::new(self, sid, &cut)?))
            }
            None => {
                let head = self.arrive(parts, Some(cut.clone()))?;
                let arrival = head.extensions().get::<Arc<Arrival>>().cloned();
                (head, Kept::Arrival(arrival))
            }
        };
        let door = self.clone();
        tokio::spawn(async move {
            match on_upgrade.await.map(Upgraded::downcast::<TokioIo<TcpStream>>) {
                Ok(Ok(parts)) => door.attach(Wire::new(Prefixed::from(parts), cut, kept), head).await,
                Ok(Err(upgraded)) => door.attach(Wire::new(TokioIo::new(upgraded), cut, kept), head).await,
                Err(error) => tracing::debug!(%error, "a connection ended before it was upgraded"),
            }
        });
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
        Ok(response)
    }

    async fn attach<S, K>(&self, wire: Wire<S, K>, head: axum::http::Request<()>)
    where
        S: Carries,
        K: Carried,
    {
        if let Err(error) = self.service.clone().call((wire, head)).await {
            tracing::debug!(%error, "a connection does not speak Engine.IO");
        }
    }

    /// How to end the connection under a socket.
    pub fn ending(&self, socket: &Socket<LocalAdapter>) -> Ending {
        if socket.transport_type() != TransportType::Websocket {
            return Ending::Poll(socket.id.to_string());
        }
        let arrival = socket.req_parts().extensions.get::<Arc<Arrival>>();
        let direct = arrival.and_then(|arrival| arrival.cut.clone());
        let cut = direct.or_else(|| self.upgraded.lock().get(socket.id.as_str()).cloned());
        let cut = cut.unwrap_or_default();
        Ending::Cut { written: cut.written(), cut }
    }

    /// Ends a connection as if it had broken, after what was said since [`Door::ending`].
    pub async fn hang_up(&self, ending: &Ending) {
        match ending {
            Ending::Cut { cut, written } => {
                if tokio::time::timeout(GOODBYE_WITHIN, cut.flushed(*written)).await.is_ok() {
                    tokio::time::sleep(LAST_FLUSH_WITHIN).await;
                }
                cut.end();
            }
            Ending::Poll(sid) => {
                // The next poll takes what waits. Then the client's own goodbye is said for it.
                tokio::time::sleep(GOODBYE_WITHIN).await;
                let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
                let goodbye = Request::builder().method(Method::POST).uri(uri).body(Body::from("1"));
                if let Ok(goodbye) = goodbye {
                    let Ok(_) = self.service.clone().oneshot(goodbye).await;
                }
            }
        }
    }

    /// Lets go of a connection that was ended; of one that does not read, whatever waits for it.
    pub async fn let_go(&self, ending: Ending) {
        if let Ending::Cut { cut, .. } = ending {
            tokio::time::sleep(GOODBYE_WITHIN).await;
            cut.now();
        }
    }

    /// After a session: who left the namespace leaves the connection, or it is ended for them.
    pub async fn see_off(&self, socket: &Socket<LocalAdapter>) {
        let ending = self.ending(socket);
        self.hang_up(&ending).await;
        self.let_go(ending).await;
    }
}

/// How one connection is ended.
pub enum Ending {
    /// A WebSocket's wire, and how much was written to it before the goodbye.
    Cut { cut: Cut, written: u64 },
    /// The session that is polled.
    Poll(String),
}

/// What ends with a WebSocket.
enum Kept {
    /// Its place among those that wait: socketioxide itself remembers a handshake until it should have
    /// authenticated, however early the client left.
    Arrival(Option<Arc<Arrival>>),
    Upgrade(Upgrade),
}

impl Carried for Kept {
    fn is_stranger(&self) -> bool {
        match self {
            Self::Arrival(arrival) => {
                arrival.as_ref().is_some_and(|arrival| arrival.waiting.lock().is_some())
            }
            Self::Upgrade(upgrade) => !upgrade.door.polled.lock().contains(&upgrade.sid),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Arrival(Some(arrival)) = self {
            arrival.waiting.lock().take();
        }
    }
}

/// A WebSocket that goes on with a session that was polled; forgotten with its wire.
struct Upgrade {
    door: Arc<Door>,
    sid: String,
}

impl Upgrade {
    fn new(door: &Arc<Door>, sid: String, cut: &Cut) -> Outcome<Self> {
        let mut upgraded = door.upgraded.lock();
        if upgraded.contains_key(&sid) {
            return Err(Refused::new(ErrorCode::Malformed, "This session has its WebSocket already."));
        }
        upgraded.insert(sid.clone(), cut.clone());
        drop(upgraded);
        Ok(Self { door: door.clone(), sid })
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.door.upgraded.lock().remove(&self.sid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let uri = Uri::from_static("/socket.io/?EIO=4&notsid=a&sid=b&sid=c&t");
        assert_eq!(value(&uri, "sid"), Some("b"));
        assert_eq!(value(&uri, "EIO"), Some("4"));
        assert_eq!(value(&uri, "t"), None);
    }
}
