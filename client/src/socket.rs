//! One WebSocket connection, without supervision: small, so that ten thousand fit.

use crate::credentials::Token;
use crate::endpoint::Endpoint;
use crate::error::parse_code;
use crate::frame;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, header};
use reedi_protocol::command::{self, Authenticate};
use reedi_protocol::resource::Problem;
use reedi_protocol::{CloseCode, ErrorCode, frame::SUBPROTOCOL};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

/// Frames are joined up to this before they are written; allocated only when there is something.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// How long an address is tried alone while there are others (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How a socket says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AuthenticateBy {
    #[default]
    Header,
    /// In a first frame, as browsers must.
    Frame,
}

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// For TCP, TLS and the upgrade together.
    pub connect_within: Duration,
    /// For one write: a server that reads nothing for so long is gone.
    pub write_within: Duration,
    /// Held per connection; 128 KiB by the library's default, which ten thousand cannot afford.
    pub read_buffer_bytes: usize,
    /// The largest frame accepted: content of 64 KiB, each byte escaped into six, and its fields.
    pub frame_bytes: usize,
    /// The address to connect from: one address has no more than about 28,000 free ports.
    pub local_address: Option<IpAddr>,
    pub authenticate_by: AuthenticateBy,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(10),
            write_within: Duration::from_secs(10),
            read_buffer_bytes: 4 * 1024,
            frame_bytes: 1024 * 1024,
            local_address: None,
            authenticate_by: AuthenticateBy::Header,
        }
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot reach {server}: {source}")]
    Unreachable { server: String, source: std::io::Error },
    #[error("{server} did not answer within {within:?}")]
    Late { server: String, within: Duration },
    /// The server answered the upgrade with an HTTP error.
    #[error("the server refused the connection: HTTP {status}, {code}")]
    Refused { status: u16, code: ErrorCode, retry_after: Option<Duration> },
    #[error("what answers at {server} is not this service: {source}")]
    NotOurs { server: String, source: Box<tungstenite::Error> },
    #[error("the token has characters that no header may carry")]
    BadToken,
    #[error("the connection ended during authentication: {0}")]
    Closed(Closed),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct Closed {
    /// `None` where it broke off without a close frame.
    pub code: Option<u16>,
    pub reason: String,
}

impl Closed {
    /// A connection that broke off, or that the client gave up.
    #[must_use]
    pub fn broken(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into() }
    }

    /// The code, where it is one of the contract.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        self.code.and_then(CloseCode::from_code)
    }

    /// The wait that the reason names as `reconnectAfterMs`, whatever stands around it.
    #[must_use]
    pub fn reconnect_after(&self) -> Option<Duration> {
        let (_, rest) = self.reason.split_once("reconnectAfterMs")?;
        let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok().map(Duration::from_millis)
    }

    fn describe(&self) -> String {
        match self.code {
            Some(code) => format!("closed by the server with {code} {}", self.reason),
            None => format!("the connection broke: {}", self.reason),
        }
    }
}

impl From<tungstenite::Error> for Closed {
    fn from(error: tungstenite::Error) -> Self {
        Self::broken(error.to_string())
    }
}

/// An open connection. Pings are answered while frames are awaited.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    write_within: Duration,
    heard_at: Instant,
}

impl Socket {
    /// Connects, agrees on the subprotocol and authenticates.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        endpoint: &Endpoint,
        token: Option<&Token>,
        options: &SocketOptions,
    ) -> Result<Self, OpenError> {
        let late = || OpenError::Late { server: endpoint.to_string(), within: options.connect_within };
        let opened = timeout(options.connect_within, Self::shake_hands(endpoint, token, options));
        let mut socket = opened.await.map_err(|_| late())??;
        if let (AuthenticateBy::Frame, Some(token)) = (options.authenticate_by, token) {
            let frame = authenticate_frame(token, None);
            socket.send(frame.into()).await.map_err(OpenError::Closed)?;
        }
        Ok(socket)
    }

    async fn shake_hands(
        endpoint: &Endpoint,
        token: Option<&Token>,
        options: &SocketOptions,
    ) -> Result<Self, OpenError> {
        if endpoint.is_secure() {
            // Several providers may be compiled in, and rustls panics unless one is chosen. An error
            // says that the application has chosen already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let server = endpoint.to_string();
        let not_ours = |e| OpenError::NotOurs { server: server.clone(), source: Box::new(e) };
        let mut request = endpoint.socket().as_str().into_client_request().map_err(not_ours)?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        if let (AuthenticateBy::Header, Some(token)) = (options.authenticate_by, token) {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| OpenError::BadToken)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let tcp = connect_tcp(endpoint, options)
            .await
            .map_err(|source| OpenError::Unreachable { server: server.clone(), source })?;
        let config = WebSocketConfig::default()
            .read_buffer_size(options.read_buffer_bytes)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_frame_size(Some(options.frame_bytes))
            .max_message_size(Some(options.frame_bytes));
        match client_async_tls_with_config(request, tcp, Some(config), None).await {
            Ok((stream, _)) => {
                Ok(Self { stream, write_within: options.write_within, heard_at: Instant::now() })
            }
            Err(tungstenite::Error::Http(response)) => Err(refused(&response)),
            Err(tungstenite::Error::Io(source)) => Err(OpenError::Unreachable { server, source }),
            Err(e) => Err(not_ours(e)),
        }
    }

    /// The next text frame. May be dropped before it is ready; no frame is lost by that.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> Result<Utf8Bytes, Closed> {
        loop {
            let message = match self.stream.next().await {
                Some(message) => message?,
                None => return Err(Closed::broken("end of stream")),
            };
            self.heard_at = Instant::now();
            match message {
                Message::Text(text) => return Ok(text),
                Message::Close(Some(CloseFrame { code, reason })) => {
                    return Err(Closed { code: Some(code.into()), reason: reason.to_string() });
                }
                Message::Close(None) => return Err(Closed::broken("closed without a code")),
                // The contract knows no binary frames; the library answers pings.
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// When the server was last heard of, be it by a ping.
    #[must_use]
    pub const fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Sends one text frame.
    ///
    /// # Errors
    /// The connection is over; whether the frame arrived is not known.
    pub async fn send(&mut self, frame: Utf8Bytes) -> Result<(), Closed> {
        self.send_all([frame]).await
    }

    /// Sends frames with one flush at the end.
    ///
    /// # Errors
    /// The connection is over; whether the frames arrived is not known.
    pub async fn send_all(&mut self, frames: impl IntoIterator<Item = Utf8Bytes>) -> Result<(), Closed> {
        let stream = &mut self.stream;
        let writing = async {
            for frame in frames {
                stream.feed(Message::Text(frame)).await?;
            }
            stream.flush().await
        };
        written(timeout(self.write_within, writing).await)
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn ping(&mut self) -> Result<(), Closed> {
        let writing = self.stream.send(Message::Ping(bytes::Bytes::new()));
        written(timeout(self.write_within, writing).await)
    }

    /// Says goodbye; that it arrives is not waited for.
    pub async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal.code().into(), reason: Utf8Bytes::default() };
        let closing = self.stream.send(Message::Close(Some(frame)));
        if timeout(Duration::from_secs(1), closing).await.is_err() {
            tracing::debug!("the close frame could not be written");
        }
    }
}

type Written = Result<Result<(), tungstenite::Error>, tokio::time::error::Elapsed>;

fn written(outcome: Written) -> Result<(), Closed> {
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Closed::broken("the server took nothing in time")),
    }
}

/// The `authenticate` command.
pub(crate) fn authenticate_frame(token: &Token, ack: Option<u64>) -> String {
    let data = Authenticate { token: token.expose().to_owned() };
    frame::infallible(command::name::AUTHENTICATE, &data, ack)
}

async fn connect_tcp(endpoint: &Endpoint, options: &SocketOptions) -> std::io::Result<TcpStream> {
    let url = endpoint.as_url();
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(url::Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(url::Host::Ipv6(ip)) => vec![(ip, port).into()],
        Some(url::Host::Domain(name)) => lookup_host((name, port)).await?.collect(),
        None => Vec::new(),
    };
    let local = options.local_address;
    let stream = first_of(addresses.into_iter().map(|address| connect_to(address, local))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_to(address: SocketAddr, local: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local.filter(|local| local.is_ipv4() == address.is_ipv4()) {
        socket.bind((local, 0).into())?;
    }
    socket.connect(address).await
}

/// The first of `attempts` to succeed. Each begins once the one before has failed, or has had its time and goes on
/// beside it: an address that answers nothing must not use up the time of those behind it (RFC 8305, section 5).
async fn first_of<T>(
    mut attempts: impl ExactSizeIterator<Item: Future<Output = std::io::Result<T>>>,
) -> std::io::Result<T> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    let mut trying = FuturesUnordered::new();
    loop {
        match attempts.next() {
            Some(attempt) => trying.push(attempt),
            None if trying.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some(tried) = trying.next() => match tried {
                Ok(done) => return Ok(done),
                Err(error) => failure = error,
            },
            () = sleep(ATTEMPT_DELAY), if attempts.len() > 0 => {}
        }
    }
}

fn refused(response: &http::Response<Option<Vec<u8>>>) -> OpenError {
    let problem = response.body().as_deref().and_then(|b| serde_json::from_slice::<Problem>(b).ok());
    let header = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    OpenError::Refused {
        status: response.status().as_u16(),
        code: problem.as_ref().map_or(ErrorCode::Unknown, |p| parse_code(&p.code)),
        retry_after: problem.and_then(|p| p.retry_after).or(header).map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_answers_nothing_does_not_hold_up_the_next() {
        let attempt = async |n: u32| match n {
            0 => std::future::pending().await,
            1 => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
            n => Ok(n),
        };
        let began = tokio::time::Instant::now();
        assert_eq!(first_of([0, 1, 2, 3].into_iter().map(attempt)).await.unwrap(), 2);
        assert_eq!(began.elapsed(), ATTEMPT_DELAY);
        let refused = first_of([1, 1].into_iter().map(attempt)).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let none = first_of([].into_iter().map(attempt)).await.unwrap_err();
        assert_eq!(none.kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn the_reason_tells_when_to_come_back() {
        let told = |reason: &str| {
            Closed { code: Some(1012), reason: reason.into() }.reconnect_after().map(|d| d.as_millis())
        };
        assert_eq!(told(r#"{"reconnectAfterMs":1250}"#), Some(1250));
        assert_eq!(told(r#"{"reconnectAfterMs": 7, "x": 9}"#), Some(7));
        assert_eq!(told("reconnectAfterMs=300"), Some(300));
        assert_eq!(told("restarting"), None);
        assert_eq!(told("reconnectAfterMs"), None);
        assert_eq!(told("reconnectAfterMs 99999999999999999999999"), None);
    }
}
