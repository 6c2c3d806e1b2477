//! The supervised client.

use crate::backoff::Backoff;
use crate::checkpoint_store::{CheckpointStore, SaveError};
use crate::credentials::{Credentials, Password, Token};
use crate::endpoint::{Endpoint, NotAnEndpoint};
use crate::error::{CommandError, RestError, SendError};
use crate::frame::{self, In, Nothing};
use crate::journal::{Journal, JournalError, Kept};
use crate::marks::Mark;
use crate::outbox::OutboxLimits;
use crate::queues::{Draft, JOINED, Queues, SendTicket};
use crate::rest::{Rest, RestOptions};
use crate::session::{self, Core, Request, SessionOptions, Shared};
use crate::socket::SocketOptions;
use crate::timeline::{Saved, Timelines};
use crate::update::{Outlet, Updates};
use parking_lot::Mutex;
use reedi_protocol::command::name;
use reedi_protocol::frame::Answer;
use reedi_protocol::{AccountId, ConversationId, MessageId};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Updates that wait for the application before the socket is read no further.
const UPDATES: usize = 1_024;
/// Commands that wait for the session.
const REQUESTS: usize = 256;

/// Why a client could not begin. Once it has begun, it connects for as long as it may.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Endpoint(#[from] NotAnEndpoint),
    #[error("neither a token nor a user name and password is given")]
    NoCredentials,
    #[error("the token is no JWT of an account")]
    NotAToken,
    #[error(transparent)]
    LogIn(#[from] RestError),
    #[error("the outbox cannot be opened: {0}")]
    Outbox(#[from] JournalError),
    #[error("progress cannot be read: {0}")]
    Progress(#[from] SaveError),
    #[error("the state folder cannot be read: {0}")]
    State(#[from] tokio::task::JoinError),
}

/// Puts a client together.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    base_url: String,
    rest: Option<Rest>,
    credentials: Option<Credentials>,
    token: Option<Token>,
    state_dir: Option<PathBuf>,
    outbox: OutboxLimits,
    session: SessionOptions,
}

impl ClientBuilder {
    /// A token that the application gets from somewhere. No server is needed to begin with one.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// An own account. With [`Self::token`] too, that one is used until it runs out.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        let password = Password::new(password);
        self.credentials = Some(Credentials::Password { username: username.to_owned(), password });
        self
    }

    /// Where unsent messages and progress outlive the process; `None` keeps them in memory. Several
    /// accounts may share a folder, one client at a time each.
    #[must_use]
    pub fn state_dir(mut self, folder: Option<PathBuf>) -> Self {
        self.state_dir = folder;
        self
    }

    /// Shares connections with others instead of making its own.
    #[must_use]
    pub fn rest(mut self, rest: Rest) -> Self {
        self.rest = Some(rest);
        self
    }

    #[must_use]
    pub const fn outbox(mut self, limits: OutboxLimits) -> Self {
        self.outbox = limits;
        self
    }

    #[must_use]
    pub const fn socket(mut self, options: SocketOptions) -> Self {
        self.session.socket = options;
        self
    }

    /// For the answer to a command, after which the connection counts as dead.
    #[must_use]
    pub const fn answer_within(mut self, limit: Duration) -> Self {
        self.session.answer_within = limit;
        self
    }

    /// The first wait between connections, which doubles up to the second.
    #[must_use]
    pub const fn reconnect(mut self, first: Duration, most: Duration) -> Self {
        self.session.reconnect_first = first;
        self.session.reconnect_most = most;
        self
    }

    /// A ping after so much silence, and how much more of it means that the server is gone.
    #[must_use]
    pub const fn liveness(mut self, ping_after: Duration, silent_most: Duration) -> Self {
        self.session.ping_after = ping_after;
        self.session.silent_most = silent_most;
        self
    }

    /// Begins: logs in where no token is at hand, reads the state folder and starts to connect, which
    /// [`crate::Update::Link`] tells about.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(self) -> Result<(Client, Updates), ConnectError> {
        let rest = match self.rest {
            Some(rest) => rest,
            None => Rest::new(Endpoint::parse(&self.base_url)?, RestOptions::default())?,
        };
        let token = match (self.token, &self.credentials) {
            (Some(token), _) => token,
            (None, Some(Credentials::Password { username, password })) => {
                Token::new(&rest.log_in(username, password).await?.token)
            }
            (None, _) => return Err(ConnectError::NoCredentials),
        };
        let account = token.account().ok_or(ConnectError::NotAToken)?;
        let rest = rest.for_token(token.clone());
        let folder = self.state_dir.map(|folder| folder.join(account.to_string()));
        let state = tokio::task::spawn_blocking(move || State::open(folder)).await??;
        let shared = Arc::new(Shared {
            rest,
            queues: Mutex::new(Queues::new(self.outbox, state.journal)),
            wake: Notify::new(),
        });
        let (requests, receive_requests) = mpsc::channel(REQUESTS);
        let (items, receive_items) = mpsc::channel(UPDATES);
        let core = Core {
            shared: Arc::clone(&shared),
            requests: receive_requests,
            timelines: Timelines::new(state.saved),
            outlet: Outlet::new(items, state.store.is_some()),
            options: self.session,
            credentials: self.credentials.unwrap_or(Credentials::Token(token)),
            backoff: Backoff::new(self.session.reconnect_first, self.session.reconnect_most),
            lacking: false,
        };
        tokio::spawn(session::run(core));
        Ok((Client { account, shared, requests }, Updates::new(receive_items, state.store)))
    }
}

/// What the state folder holds.
struct State {
    journal: Option<(Journal, Vec<Kept>)>,
    store: Option<CheckpointStore>,
    saved: Saved,
}

impl State {
    fn open(folder: Option<PathBuf>) -> Result<Self, ConnectError> {
        let Some(folder) = folder else {
            return Ok(Self { journal: None, store: None, saved: Saved::default() });
        };
        let journal = Journal::open(&folder)?;
        let store = CheckpointStore::new(&folder);
        let saved = store.load()?;
        Ok(Self { journal: Some(journal), store: Some(store), saved })
    }
}

/// A handle of a client; clones are handles of the same one, which ends with the last of them.
#[derive(Clone)]
pub struct Client {
    account: AccountId,
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `base_url`, for example `http://127.0.0.1:8080`.
    #[must_use]
    pub fn builder(base_url: &str) -> ClientBuilder {
        ClientBuilder {
            base_url: base_url.to_owned(),
            rest: None,
            credentials: None,
            token: None,
            state_dir: None,
            outbox: OutboxLimits::default(),
            session: SessionOptions::default(),
        }
    }

    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// REST calls with this client's token, whichever is the newest.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.shared.rest
    }

    /// Accepts a message to be sent, connected or not. The messages of a conversation are sent in the
    /// order of these calls, each exactly once.
    ///
    /// # Errors
    /// Not acceptable, or the outbox is full.
    pub fn send(
        &self,
        conversation: ConversationId,
        draft: impl Into<Draft>,
    ) -> Result<SendTicket, SendError> {
        let ticket = self.shared.queues.lock().send(conversation, draft.into())?;
        self.shared.wake.notify_one();
        Ok(ticket)
    }

    /// Messages that are not acknowledged yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        *self.shared.queues.lock().unsent().borrow()
    }

    /// Waits until nothing is unsent, or the client has ended.
    pub async fn flushed(&self) {
        let mut unsent = self.shared.queues.lock().unsent();
        tokio::select! {
            _ = unsent.wait_for(|count| *count == 0) => {}
            () = self.requests.closed() => {}
        }
    }

    /// Says that all messages up to this one have arrived. Kept until the server has it.
    pub fn mark_delivered(&self, message: MessageId) {
        self.mark(Mark::Delivered, message);
    }

    /// Says that all messages up to this one have been read. Kept until the server has it.
    pub fn mark_read(&self, message: MessageId) {
        self.mark(Mark::Read, message);
    }

    fn mark(&self, mark: Mark, message: MessageId) {
        self.shared.queues.lock().marks.want(mark, message);
        self.shared.wake.notify_one();
    }

    /// Says that the user begins or stops to write. Lost where there is no connection.
    pub fn typing(&self, conversation: ConversationId, typing: bool) {
        let event = if typing { name::TYPING_START } else { name::TYPING_STOP };
        let notice = Request::Notice(frame::in_conversation(event, conversation, None));
        // Old news once it could be sent later.
        let _ = self.requests.try_send(notice);
    }

    /// Opens a conversation, also on later connections: typing and presence are told from now on.
    ///
    /// # Errors
    /// Refused, not connected now (it is opened once connected), or a hundred are open.
    pub async fn join(&self, conversation: ConversationId) -> Result<Answer, CommandError> {
        {
            let joined = &mut self.shared.queues.lock().joined;
            if joined.len() >= JOINED && !joined.contains(&conversation) {
                return Err(CommandError::Busy);
            }
            joined.insert(conversation);
        }
        self.command(name::JOIN_CONVERSATION, &In { conversation_id: conversation, body: Nothing {} }).await
    }

    /// # Errors
    /// Refused, or not connected now (then it stays closed on the next connection).
    pub async fn leave(&self, conversation: ConversationId) -> Result<Answer, CommandError> {
        self.shared.queues.lock().joined.remove(&conversation);
        self.command(name::LEAVE_CONVERSATION, &In { conversation_id: conversation, body: Nothing {} }).await
    }

    /// Any other command; see [`crate::frame::In`] and [`crate::frame::Of`] for payloads.
    ///
    /// # Errors
    /// Refused, or the connection went: then it is not known whether it was carried out.
    pub async fn command<T: Serialize>(&self, event: &'static str, data: &T) -> Result<Answer, CommandError> {
        let data = serde_json::to_value(data).map_err(|e| CommandError::Encoding(e.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Command { event, data, reply };
        self.requests.send(request).await.map_err(|_| CommandError::Ended)?;
        answer.await.map_err(|_| CommandError::Ended)?
    }

    /// Replaces the token, also on the present connection.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn set_token(&self, token: Token) -> Result<(), CommandError> {
        self.shared.rest.set_token(token);
        self.requests.send(Request::NewToken).await.map_err(|_| CommandError::Ended)
    }

    /// Ends the client, on all its handles. What is unsent stays in the state folder, if there is one.
    pub async fn close(self) {
        // It may have ended already.
        let _ = self.requests.send(Request::Close).await;
        self.requests.closed().await;
    }
}
