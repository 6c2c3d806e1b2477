//! The book of the run: what was sent, what became of it, and what every session was told.

use parking_lot::Mutex;
use reedi_client::Sent;
use reedi_protocol::resource::{Message, MessageType};
use reedi_protocol::{AccountId, ConversationId, MessageId, Position};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Still in its client's outbox.
    Waiting,
    Acknowledged {
        id: MessageId,
        after: Duration,
        is_duplicate: bool,
    },
    /// Given up by the client, which says why.
    Failed(String),
}

/// One message that a client accepted for sending.
#[derive(Clone, Debug)]
pub struct SentMessage {
    pub session: usize,
    pub conversation: ConversationId,
    pub client_message_id: String,
    pub at: Instant,
    pub outcome: Outcome,
}

/// One message that a session was told of, or that stands in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldMessage {
    pub id: MessageId,
    pub position: Position,
    /// Which of the sent messages it is, as its text says.
    pub number: Option<usize>,
}

/// One session: a client that is connected as an account, over all its connections.
#[derive(Clone, Debug)]
pub struct Session {
    pub name: String,
    pub account: AccountId,
    pub conversations: BTreeSet<ConversationId>,
    /// In the order of the telling.
    pub told: HashMap<ConversationId, Vec<ToldMessage>>,
    /// Read as pages, where the server said that it would not tell one by one.
    pub loaded: HashMap<ConversationId, BTreeSet<MessageId>>,
    pub resets: usize,
    pub connections: usize,
    pub problems: Vec<String>,
}

impl Session {
    pub fn new(name: String, account: AccountId) -> Self {
        Self {
            name,
            account,
            conversations: BTreeSet::new(),
            told: HashMap::new(),
            loaded: HashMap::new(),
            resets: 0,
            connections: 0,
            problems: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Pages {
    pub sent: Vec<SentMessage>,
    pub sessions: Vec<Session>,
    pub last_acknowledged: Option<Instant>,
    /// The longest time between two acknowledgements since it was last asked for.
    pub longest_silence: Duration,
}

/// The book; clones are the same one.
#[derive(Clone)]
pub struct Book {
    /// Begins every text, and must be found nowhere but with the clients.
    pub mark: Arc<str>,
    pages: Arc<Mutex<Pages>>,
}

impl Book {
    pub fn new(mark: &str) -> Self {
        Self { mark: mark.into(), pages: Arc::default() }
    }

    pub fn open_session(&self, name: String, account: AccountId) -> usize {
        let sessions = &mut self.pages.lock().sessions;
        sessions.push(Session::new(name, account));
        sessions.len() - 1
    }

    pub fn joins(&self, session: usize, conversation: ConversationId) {
        self.pages.lock().sessions[session].conversations.insert(conversation);
    }

    /// The number that the next message has, with which its text must begin.
    pub fn text(&self, number: usize, padding: usize) -> String {
        format!("{} {number} {}", self.mark, "~".repeat(padding))
    }

    pub fn number_of(&self, content: &str) -> Option<usize> {
        let rest = content.strip_prefix(&*self.mark)?;
        rest.split_whitespace().next()?.parse().ok()
    }

    pub fn next_number(&self) -> usize {
        self.pages.lock().sent.len()
    }

    pub fn sent(&self, message: SentMessage) {
        self.pages.lock().sent.push(message);
    }

    pub fn answered(&self, number: usize, answer: Result<Sent, String>) {
        let mut pages = self.pages.lock();
        let now = Instant::now();
        let outcome = match answer {
            Ok(sent) => {
                let silence = pages.last_acknowledged.map_or(Duration::ZERO, |last| now - last);
                pages.longest_silence = pages.longest_silence.max(silence);
                pages.last_acknowledged = Some(now);
                let after = now - pages.sent[number].at;
                Outcome::Acknowledged { id: sent.message_id, after, is_duplicate: sent.duplicate }
            }
            Err(why) => Outcome::Failed(why),
        };
        pages.sent[number].outcome = outcome;
    }

    pub fn told(&self, session: usize, message: &Message) {
        if message.message_type == MessageType::System {
            return;
        }
        let told = self.entry(message);
        let mut pages = self.pages.lock();
        pages.sessions[session].told.entry(message.conversation_id).or_default().push(told);
    }

    pub fn loaded(&self, session: usize, conversation: ConversationId, message: MessageId) {
        let mut pages = self.pages.lock();
        pages.sessions[session].loaded.entry(conversation).or_default().insert(message);
    }

    pub fn reset(&self, session: usize) {
        self.pages.lock().sessions[session].resets += 1;
    }

    pub fn connected(&self, session: usize) {
        self.pages.lock().sessions[session].connections += 1;
    }

    pub fn problem(&self, session: usize, problem: String) {
        self.pages.lock().sessions[session].problems.push(problem);
    }

    pub fn entry(&self, message: &Message) -> ToldMessage {
        let number = message.content.as_deref().and_then(|content| self.number_of(content));
        ToldMessage { id: message.message_id, position: message.position, number }
    }

    /// Where a session stands in a conversation: the newest position it was told.
    pub fn newest(&self, session: usize, conversation: ConversationId) -> Option<Position> {
        let pages = self.pages.lock();
        let told = pages.sessions[session].told.get(&conversation)?;
        told.iter().map(|message| message.position).max()
    }

    /// The longest silence of acknowledgements since this was last asked, the present one included.
    pub fn take_silence(&self) -> Duration {
        let mut pages = self.pages.lock();
        let now = pages.last_acknowledged.map_or(Duration::ZERO, |last| last.elapsed());
        std::mem::take(&mut pages.longest_silence).max(now)
    }

    pub fn read<T>(&self, read: impl FnOnce(&Pages) -> T) -> T {
        read(&self.pages.lock())
    }
}
