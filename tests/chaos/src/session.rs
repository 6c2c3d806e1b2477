//! One session: a supervised client of an account, and the task that writes down what it is told.

use crate::book::Book;
use crate::patience::patiently;
use reedi_client::{Client, Link, Page, Rest, Token, Update, Updates};
use reedi_protocol::event::ServerEvent;
use reedi_protocol::{AccountId, ConversationId, limits};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A page that cannot be read for so long is a fault of the service.
const PAGE_WITHIN: Duration = Duration::from_secs(120);
/// One message of so many is marked as read: receipts go through the log too.
const READ_ONE_OF: usize = 16;

/// A session that runs.
pub struct Session {
    /// Its number in the book.
    pub number: usize,
    pub client: Client,
    /// Whether everything up to its connection has been told.
    pub caught_up: watch::Receiver<bool>,
    listening: JoinHandle<()>,
}

impl Session {
    /// Connects an account by way of `rest`'s address.
    pub async fn open(
        book: &Book,
        name: String,
        rest: &Rest,
        (account, token): (AccountId, Token),
        folder: Option<PathBuf>,
    ) -> Result<Self, reedi_client::ConnectError> {
        let number = book.open_session(name, account);
        let builder = Client::builder(&rest.endpoint().to_string()).rest(rest.clone()).token(token);
        let (client, updates) = builder
            .state_dir(folder)
            // A quarter of the patience that people's clients have, so that a run of two minutes sees
            // what they see in ten.
            .liveness(Duration::from_secs(5), Duration::from_secs(4))
            .reconnect(Duration::from_millis(250), Duration::from_secs(4))
            .connect()
            .await?;
        let (tell, caught_up) = watch::channel(false);
        let listener = Listener { book: book.clone(), number, rest: client.rest().clone(), tell };
        let handle = client.clone();
        let listening = tokio::spawn(listener.run(handle, updates));
        Ok(Self { number, client, caught_up, listening })
    }

    pub async fn close(self) {
        self.client.close().await;
        let _ = self.listening.await;
    }
}

struct Listener {
    book: Book,
    number: usize,
    rest: Rest,
    tell: watch::Sender<bool>,
}

impl Listener {
    async fn run(self, client: Client, mut updates: Updates) {
        let mut messages = 0;
        while let Some(update) = updates.recv().await {
            match update {
                Update::Event(event) => {
                    if let ServerEvent::NewMessage(message) = *event {
                        self.book.told(self.number, &message);
                        messages += 1;
                        if messages % READ_ONE_OF == 0 && message.sender_id != client.account() {
                            client.mark_read(message.message_id);
                        }
                    }
                }
                Update::Reset(conversation) => {
                    self.book.reset(self.number);
                    self.load(conversation).await;
                }
                Update::ResetAll => self.problem("the server did not know the checkpoint".to_owned()),
                Update::Link(link) => self.link(&link),
                Update::NotSent { client_message_id, error, .. } => {
                    self.problem(format!("{client_message_id} was not sent: {error}"));
                }
                Update::Ended(reedi_client::Ended::Closed) => {}
                Update::Ended(ended) => self.problem(format!("the client ended: {ended}")),
                _ => {}
            }
        }
    }

    fn link(&self, link: &Link) {
        match link {
            Link::Connected => self.book.connected(self.number),
            Link::CaughtUp => drop(self.tell.send_replace(true)),
            Link::Behind { .. } | Link::Lost { .. } => drop(self.tell.send_replace(false)),
        }
    }

    fn problem(&self, problem: String) {
        self.book.problem(self.number, problem);
    }

    /// Reads pages back to what this session was told, as an application does after a reset.
    async fn load(&self, conversation: ConversationId) {
        let known = self.book.newest(self.number, conversation);
        let mut page = Page::Newest;
        loop {
            let read = || self.rest.history(conversation, page, limits::PAGE_MOST);
            let history = match patiently(PAGE_WITHIN, read).await {
                Ok(history) => history,
                Err(error) => return self.problem(format!("{conversation} cannot be read: {error}")),
            };
            for message in &history.messages {
                if known.is_some_and(|known| message.position <= known) {
                    return;
                }
                self.book.loaded(self.number, conversation, message.message_id);
            }
            match history.messages.last() {
                Some(last) if history.next_cursor.is_some() => page = Page::Before(last.message_id),
                _ => return,
            }
        }
    }
}
