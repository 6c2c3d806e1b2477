//! A connection to NATS that never sends late. `async_nats` keeps what is published while it is
//! disconnected and sends it after it reconnects, however late; rule P4 makes a late record void, and
//! this keeps late records rare: a client that lost its server is thrown away with all it holds, and a
//! new one is built.

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, Request, ServerAddr};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::future::{Ready, ready};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where NATS is and how to be let in.
#[derive(Clone, Debug, Default)]
pub struct NatsConfig {
    /// `nats://host:port`, or `tls://`; any of them leads to the whole cluster.
    pub urls: Vec<String>,
    /// A `.creds` file of JWT and key. Read again at every connect, so that it may be renewed.
    pub credentials_file: Option<PathBuf>,
    /// Whom to trust, in PEM; the system's authorities unless told.
    pub ca_file: Option<PathBuf>,
    /// Refuse a server without TLS.
    pub tls: bool,
}

/// A configuration that no waiting can mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsConfigError {
    #[error("no NATS server is named")]
    NoServer,
    #[error("{url} is no address of a NATS server: {why}")]
    Url { url: String, why: String },
}

/// Time for one server to take a connection and let us in.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between questions whether the server still is there. Two unanswered ones end the connection, so a
/// server that hangs is given up within 12 s, before edges take themselves for deaf (rule P5: 15 s).
const PING_EVERY: Duration = Duration::from_secs(4);
/// Between tries to connect: the first and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Requests without an answer after which a client is thrown away. `async_nats` keeps some 150 bytes
/// for each for as long as the client lives; this bounds it to 3 MB.
const UNANSWERED_MOST: u32 = 20_000;
/// A client whose JetStream requests all go unanswered for this long, or are told that nobody answers, is
/// thrown away: its server may be cut off from the others, take connections and answer pings all the
/// same. Longer than an election takes (4 to 9 s), so that one is mostly waited for; where no server has
/// a majority, each connection goes round them no faster than this.
const UNSERVED_MOST: Duration = Duration::from_secs(10);
/// An address where nobody listens, ever (RFC 6335: port 0 is reserved). A client that lost its server
/// is sent there by [`give_up`], for want of a way to tell it not to reconnect.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// One client, from its connect to the loss of its server.
pub(crate) struct Live {
    pub(crate) client: Client,
    /// Cancelled when the server is gone.
    pub(crate) lost: CancellationToken,
    unanswered: AtomicU32,
    served: Mutex<Served>,
}

/// How JetStream serves one client.
struct Served {
    /// The last answer, or the connect.
    at: Instant,
    /// The first question since that had no answer, and when the last of them was given up.
    unserved: Option<(Instant, Instant)>,
}

impl Served {
    fn new() -> Self {
        Self { at: Instant::now(), unserved: None }
    }

    fn answered(&mut self) {
        *self = Self::new();
    }

    /// Notes a question of `asked` that had no answer by now; true once there was none for too long.
    fn unanswered(&mut self, asked: Instant) -> bool {
        let now = Instant::now();
        // Who asks nothing in between does not know whether there would have been an answer.
        let going_on = self.unserved.filter(|(_, last)| now - *last < UNSERVED_MOST);
        let first = going_on.map_or(asked.max(self.at), |(first, _)| first);
        self.unserved = Some((first, now));
        now - first >= UNSERVED_MOST
    }
}

/// One question to JetStream under way. Dropped without an answer it counts as unanswered: whoever asked
/// may wait for less time than the request would.
pub(crate) struct Asked<'a> {
    live: &'a Live,
    at: Instant,
    is_answered: bool,
}

impl Asked<'_> {
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
        self.live.served.lock().answered();
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.live.served.lock().unanswered(self.at) {
            self.live.end("JetStream does not answer there");
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// It never left this process.
    #[error("{0}")]
    NotSent(String),
    /// Nobody listens there: surely nobody has it.
    #[error("nobody answers for it now")]
    NoResponders,
    /// It may have arrived.
    #[error("{0}")]
    Unanswered(String),
}

impl Live {
    /// One that begins to ask JetStream something.
    pub(crate) fn asks(&self) -> Asked<'_> {
        Asked { live: self, at: Instant::now(), is_answered: false }
    }

    /// Throws this client away: its connection builds another, to the next server.
    fn end(&self, why: &str) {
        if !self.is_lost() {
            tracing::warn!(why, "a NATS client is thrown away");
            self.lost.cancel();
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Sends a request and waits for its answer until `deadline`.
    pub(crate) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, RequestError> {
        if self.is_lost() {
            return Err(RequestError::NotSent("NATS is disconnected".to_owned()));
        }
        let mut request = Request::new().payload(payload).timeout(None);
        request.headers = headers;
        tokio::select! {
            biased;
            answer = self.client.send_request(subject, request) => answer.map_err(|error| {
                use async_nats::client::RequestErrorKind::{InvalidSubject, MaxPayloadExceeded, NoResponders};
                match error.kind() {
                    NoResponders => RequestError::NoResponders,
                    InvalidSubject | MaxPayloadExceeded => RequestError::NotSent(error.to_string()),
                    _ => RequestError::Unanswered(error.to_string()),
                }
            }),
            () = self.lost.cancelled() => Err(RequestError::Unanswered("the connection was lost".to_owned())),
            () = tokio::time::sleep_until(deadline) => {
                if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 == UNANSWERED_MOST {
                    self.end("it has too many open requests");
                }
                Err(RequestError::Unanswered("no answer in time".to_owned()))
            }
        }
    }
}

/// Keeps one [`Live`] client at a time. Cheap to clone; ends with the last clone.
#[derive(Clone)]
pub(crate) struct NatsConnection {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

struct Shared {
    servers: Vec<ServerAddr>,
    config: NatsConfig,
    /// What the connection is for, as logs and the server's connection list name it.
    what: &'static str,
    next_server: AtomicUsize,
    current: RwLock<Option<Arc<Live>>>,
    changed: watch::Sender<u64>,
}

impl NatsConnection {
    /// Waits until NATS lets us in, saying in the log what it waits for.
    pub(crate) async fn open(config: &NatsConfig, what: &'static str) -> Result<Self, NatsConfigError> {
        if config.urls.is_empty() {
            return Err(NatsConfigError::NoServer);
        }
        let servers = config.urls.iter().map(|url| {
            url.parse().map_err(|error: std::io::Error| NatsConfigError::Url {
                url: url.clone(),
                why: error.to_string(),
            })
        });
        let servers: Vec<ServerAddr> = servers.collect::<Result<_, _>>()?;
        // Processes that start together must not all go to the server named first.
        let next_server = AtomicUsize::new(rand::random_range(0..servers.len()));
        let shared = Arc::new(Shared {
            servers,
            config: config.clone(),
            what,
            next_server,
            current: RwLock::new(None),
            changed: watch::Sender::new(0),
        });
        // `async_nats` takes the process's TLS provider, and panics where two are built in and none is
        // chosen. Whoever chose before keeps its choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&shared).keep_connected()));
        let connection = Self { shared, _stop: Arc::new(stop.drop_guard()) };
        connection.connected().await;
        Ok(connection)
    }

    /// The client, unless it has lost its server.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.shared.current.read().as_ref().filter(|live| !live.is_lost()).cloned()
    }

    /// Waits for a client that has its server.
    pub(crate) async fn connected(&self) -> Arc<Live> {
        let mut changed = self.shared.changed.subscribe();
        loop {
            if let Some(live) = self.live() {
                return live;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
}

impl Shared {
    async fn keep_connected(self: Arc<Self>) {
        loop {
            let (live, leaving) = self.connect_until_done().await;
            *self.current.write() = Some(Arc::clone(&live));
            self.changed.send_modify(|count| *count += 1);
            tokio::select! {
                () = live.lost.cancelled() => self.let_go(&live),
                () = disconnected(&live.client) => {
                    live.lost.cancel();
                    self.let_go(&live);
                }
                // The server says that it will leave: take another while this one still answers what
                // is under way.
                () = leaving.notified() => tracing::info!(what = self.what, "the NATS server is leaving; moving on"),
            }
        }
    }

    fn let_go(&self, live: &Live) {
        *self.current.write() = None;
        tracing::warn!(what = self.what, "lost the connection to NATS; building a new one");
        // Of a client that was thrown away the server is still there: it must not send what it holds. One that
        // cannot be told so has nothing more to send, and ends with the last who waits for an answer of it.
        let client = live.client.clone();
        tokio::spawn(async move { timeout(CONNECT_WITHIN, client.force_reconnect()).await.map(drop) });
    }

    async fn connect_until_done(&self) -> (Arc<Live>, Arc<Notify>) {
        let mut delay = RETRY_FIRST;
        loop {
            let turn = self.next_server.fetch_add(1, Ordering::Relaxed);
            let server = &self.servers[turn % self.servers.len()];
            match self.connect(server).await {
                Ok(connected) => return connected,
                Err(why) => {
                    let server = format!("{}:{}", server.host(), server.port());
                    tracing::warn!(what = self.what, server, why, "waiting for NATS");
                }
            }
            tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.0))).await;
            delay = RETRY_MOST.min(delay * 2);
        }
    }

    async fn connect(&self, server: &ServerAddr) -> Result<(Arc<Live>, Arc<Notify>), String> {
        let lost = CancellationToken::new();
        let leaving = Arc::new(Notify::new());
        let options = self.options(server, &lost, &leaving).await?;
        let nowhere: ServerAddr = NOWHERE.parse().map_err(|error: std::io::Error| error.to_string())?;
        let client =
            options.connect(vec![server.clone(), nowhere]).await.map_err(|error| error.to_string())?;
        let (unanswered, served) = (AtomicU32::new(0), Mutex::new(Served::new()));
        Ok((Arc::new(Live { client, lost, unanswered, served }), leaving))
    }

    async fn options(
        &self,
        server: &ServerAddr,
        lost: &CancellationToken,
        leaving: &Arc<Notify>,
    ) -> Result<ConnectOptions, String> {
        let (ended, leaves) = (lost.clone(), Arc::clone(leaving));
        let mut options = ConnectOptions::new()
            .name(format!("reedi {}", self.what))
            .connection_timeout(CONNECT_WITHIN)
            .ping_interval(PING_EVERY)
            .request_timeout(None)
            .retain_servers_order()
            .ignore_discovered_servers()
            // The server, then nowhere.
            .max_reconnects(2)
            .reconnect_delay_callback(|_| Duration::ZERO)
            .reconnect_to_server_callback(give_up())
            .require_tls(self.config.tls)
            .event_callback(move |event| {
                match event {
                    Event::Disconnected | Event::Closed => ended.cancel(),
                    Event::LameDuckMode => leaves.notify_one(),
                    _ => {}
                }
                ready(())
            });
        options = match (server.username(), server.password()) {
            (Some(user), Some(password)) => options.user_and_password(user.to_owned(), password.to_owned()),
            // `nats://TOKEN@host`, as NATS's own tools write it.
            (Some(token), None) => options.token(token.to_owned()),
            (None, _) => options,
        };
        if let Some(file) = &self.config.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        if let Some(file) = &self.config.credentials_file {
            options = options
                .credentials_file(file)
                .await
                .map_err(|error| format!("the credentials file {}: {error}", file.display()))?;
        }
        Ok(options)
    }
}

/// Waits until the client has no server. `async_nats` says so by an event too, but drops events where
/// more come than are taken.
async fn disconnected(client: &Client) {
    while client.connection_state() == State::Connected {
        tokio::time::sleep(PING_EVERY).await;
    }
}

type NextServer = Option<async_nats::ReconnectToServer>;

/// Lets a client connect once and sends it to [`NOWHERE`] ever after, where it ends at once, with all
/// that it had not sent.
fn give_up() -> impl Fn(Vec<async_nats::Server>, async_nats::ServerInfo) -> Ready<NextServer> + Send + Sync {
    let began = AtomicBool::new(false);
    move |servers, _| {
        let first = !began.swap(true, Ordering::Relaxed);
        let nowhere = servers.into_iter().find(|server| server.addr.port() == 0).filter(|_| !first);
        ready(
            nowhere.map(|server| async_nats::ReconnectToServer {
                addr: server.addr,
                delay: Some(Duration::ZERO),
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    /// What a client that was given `who@` in the address says when it connects.
    async fn introduces_itself(who: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{who}@{}", listener.local_addr().unwrap());
        let config = NatsConfig { urls: vec![url], ..NatsConfig::default() };
        let opening = tokio::spawn(async move { NatsConnection::open(&config, "a test").await.map(drop) });
        let (mut socket, _) = listener.accept().await.unwrap();
        let info = r#"{"server_id":"a","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,"auth_required":true}"#;
        socket.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        BufReader::new(socket).read_line(&mut said).await.unwrap();
        opening.abort();
        said
    }

    #[tokio::test]
    async fn a_name_alone_in_the_address_is_a_token() {
        let said = introduces_itself("t0ken").await;
        assert!(said.starts_with("CONNECT ") && said.contains(r#""auth_token":"t0ken""#), "{said}");
        let said = introduces_itself("ann:s3cret").await;
        assert!(said.contains(r#""user":"ann""#) && said.contains(r#""pass":"s3cret""#), "{said}");
    }

    async fn later(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_without_answers_for_ten_seconds_is_of_no_use() {
        let mut served = Served::new();
        for second in 0..10 {
            assert!(!served.unanswered(Instant::now()), "after {second} s");
            later(1).await;
        }
        assert!(served.unanswered(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn any_answer_begins_anew() {
        let mut served = Served::new();
        let long_ago = Instant::now();
        later(9).await;
        assert!(!served.unanswered(long_ago));
        served.answered();
        later(5).await;
        assert!(!served.unanswered(long_ago), "of before the answer");
        later(4).await;
        assert!(!served.unanswered(Instant::now()));
        later(1).await;
        assert!(served.unanswered(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_seldom_is_not_without_answers_meanwhile() {
        let mut served = Served::new();
        for _ in 0..5 {
            assert!(!served.unanswered(Instant::now()));
            later(60).await;
        }
    }
}
