//! `/ws`: the upgrade from HTTP to the plain WebSocket (RFC 6455, section 4.2).

use super::Api;
use super::body::bearer;
use crate::edge::client_address::ClientAddress;
use crate::edge::connection::Present;
use crate::edge::connection::websocket::{self, Entry};
use crate::edge::refused::{Outcome, Refused};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use reedi_protocol::{ErrorCode, frame::SUBPROTOCOL};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The version of the WebSocket protocol that is spoken, and how long its nonce is (RFC 6455, section 4.1).
const VERSION: &str = "13";
const NONCE_BYTES: usize = 16;

/// Opens the WebSocket.
///
/// Frames, commands, events and close codes are in `docs/events.md`. A token is given in the
/// `Authorization` header, or in a first frame `authenticate` within 10 s. With the header, a bad token
/// is refused here; in the frame, by close code 4401. The subprotocol, where one is asked for, is
/// `reedi.v1`.
#[utoipa::path(
    get,
    path = "/ws",
    operation_id = "openWebSocket",
    tag = "socket",
    security((), ("bearer" = [])),
    params(
        ("Connection" = String, Header, description = "`Upgrade`."),
        ("Upgrade" = String, Header, description = "`websocket`."),
        ("Sec-WebSocket-Version" = String, Header, description = "`13`."),
        ("Sec-WebSocket-Key" = String, Header, description = "As RFC 6455 says."),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`reedi.v1`, or none."),
    ),
    responses((status = 101, description = "The connection is a WebSocket from here on.")),
)]
pub async fn upgrade(State(api): State<Api>, request: Request) -> Outcome<Response> {
    let (mut parts, _) = request.into_parts();
    let key = match accept_key(&parts.headers) {
        Ok(key) => key,
        Err(refused) => {
            let mut response = refused.into_response();
            // RFC 6455, section 4.4: the server says which version it speaks.
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            return Ok(response);
        }
    };
    let subprotocol = subprotocol(&parts.headers)?;
    let entry = match bearer(&parts.headers)? {
        Some(token) => {
            let identity = api.edge.verifier.verify(token).await?;
            // Workers know of the account before the client hears that it is connected.
            Entry::Known(Box::new(Present::come(&api.edge, identity).await?))
        }
        None => {
            let from = ClientAddress::in_extensions(&parts.extensions);
            Entry::Unknown(api.edge.admission.wait_unauthenticated(from)?)
        }
    };
    let on_upgrade: OnUpgrade = parts.extensions.remove().ok_or_else(|| {
        Refused::new(ErrorCode::Malformed, "This connection cannot be upgraded: use HTTP/1.1.")
    })?;
    let edge = api.edge.clone();
    tokio::spawn(async move {
        match on_upgrade.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<TcpStream>>) {
            Ok(Ok(parts)) => websocket::serve(edge, Prefixed::from(parts), entry).await,
            Ok(Err(upgraded)) => websocket::serve(edge, TokioIo::new(upgraded), entry).await,
            Err(error) => tracing::debug!(%error, "a connection ended before it was upgraded"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// The answer to the key of an upgrade request.
///
/// # Errors
/// Not an upgrade to a WebSocket of version 13.
pub fn accept_key(headers: &HeaderMap) -> Outcome<HeaderValue> {
    let has = |name: header::HeaderName, token: &str| {
        // A list may stand on several lines (RFC 9110, section 5.3).
        let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let refuse = |detail: &str| Refused::new(ErrorCode::Malformed, detail);
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(refuse("This path is a WebSocket: send an upgrade request."));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, VERSION) {
        return Err(refuse("Only version 13 of the WebSocket protocol is spoken."));
    }
    let key =
        headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| refuse("Sec-WebSocket-Key is missing."))?;
    let is_nonce = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == NONCE_BYTES);
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    accept.ok().filter(|_| is_nonce).ok_or_else(|| refuse("Sec-WebSocket-Key is not 16 bytes in base64."))
}

/// Whether the client asked for our subprotocol; one that asks only for others is refused.
fn subprotocol(headers: &HeaderMap) -> Outcome<bool> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if offered.contains(&SUBPROTOCOL) {
        return Ok(true);
    }
    if offered.is_empty() {
        return Ok(false);
    }
    Err(Refused::new(ErrorCode::Malformed, format!("The subprotocol is `{SUBPROTOCOL}`.")))
}

/// A connection whose first bytes were read already.
pub struct Prefixed {
    first: bytes::Bytes,
    io: TcpStream,
}

impl From<hyper::upgrade::Parts<TokioIo<TcpStream>>> for Prefixed {
    /// Without hyper's wrapping, and without the 8 KiB that it read the request into, which an idle connection
    /// would hold for as long as it lives.
    fn from(parts: hyper::upgrade::Parts<TokioIo<TcpStream>>) -> Self {
        let first = bytes::Bytes::copy_from_slice(&parts.read_buf);
        Self { first, io: parts.io.into_inner() }
    }
}

impl tokio::io::AsyncRead for Prefixed {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.first.is_empty() {
            return std::pin::Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let take = self.first.len().min(buf.remaining());
        let part = self.first.split_to(take);
        buf.put_slice(&part);
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Prefixed {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
