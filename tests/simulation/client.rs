//! A client as the contract wants it: an outbox that sends the same again, a resume at every connection,
//! gaps filled by a question. What it is told goes through the real client's [`Timelines`].

mod told;

use crate::cluster::{Cluster, EdgeProcess};
use crate::observed::{Life, Observed};
use crate::wire::{Line, NoLine, ask};
use rand::Rng;
use reedi::edge::command::send_message;
use reedi::edge::query;
use reedi::runtime::random;
use reedi_client::{Filled, Timelines, Told};
use reedi_invariants::{Acked, Gap, Seen, ToldEvent};
use reedi_protocol::command::{SendMessage, name};
use reedi_protocol::event::ServerEvent;
use reedi_protocol::frame::{Answer, ServerFrame};
use reedi_protocol::resource::{Events, MessageType};
use reedi_protocol::{
    AccountId, Checkpoint, ConversationId, ConversationKey, ErrorCode, MessageId, Position,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Every content begins with this: it must be found nowhere.
pub const MARK: &str = "plain-mark-of-the-simulation";
/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// A client that says nothing else says that it is there.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Messages remembered, to do something about.
const RECENT: usize = 20;

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Clients do what comes to their minds.
    Working,
    /// Nothing new; what was begun is finished.
    Settling,
    Done,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Between two things that it does, at most.
    pub pause: Duration,
    /// Of a hundred things to do, how many are to leave and come back.
    pub leaves: u32,
    /// After which times it sends again what was not acknowledged.
    pub retries: Vec<Duration>,
    /// Whether it sometimes sends one message through two edges at once.
    pub doubles: bool,
    /// Whether it changes groups.
    pub groups: bool,
}

struct Pending {
    conversation: ConversationKey,
    key: String,
    content: String,
    due: Instant,
    in_flight: bool,
}

enum Waiting {
    Send(String),
    Resume,
    Other,
}

pub struct Client {
    pub cluster: Cluster,
    pub observed: Observed,
    pub account: AccountId,
    pub name: String,
    pub manner: Manner,
    /// Everybody there is.
    pub people: Vec<AccountId>,
    pub conversations: BTreeSet<ConversationKey>,
    timelines: Timelines,
    outbox: Vec<Pending>,
    waiting: BTreeMap<u64, (Waiting, Instant)>,
    next_ack: u64,
    sends: u64,
    connections: u64,
    recent: VecDeque<MessageId>,
    since: Option<Checkpoint>,
    seen: Seen,
    /// A resume is asked for, and live events go on where it has to wait or comes later than they do: once it
    /// is carried out it goes back behind them, once.
    goes_back: bool,
    resets: BTreeMap<ConversationKey, Position>,
    resume_due: Option<Instant>,
    act_due: Instant,
    pinged: Instant,
    fetches: JoinSet<(ConversationId, Option<Filled>)>,
    requests: JoinSet<()>,
}

impl Client {
    pub fn new(
        cluster: &Cluster,
        observed: &Observed,
        number: usize,
        people: &[AccountId],
        manner: Manner,
    ) -> Self {
        let (account, name) = (people[number], format!("client {number}"));
        let seen = Seen { client: name.clone(), account: Some(account), ..Seen::default() };
        Self {
            cluster: cluster.clone(),
            observed: observed.clone(),
            account,
            name,
            manner,
            people: people.to_vec(),
            conversations: BTreeSet::new(),
            timelines: Timelines::default(),
            outbox: Vec::new(),
            waiting: BTreeMap::new(),
            next_ack: 0,
            sends: 0,
            connections: 0,
            recent: VecDeque::new(),
            since: None,
            seen,
            goes_back: false,
            resets: BTreeMap::new(),
            resume_due: None,
            act_due: Instant::now(),
            pinged: Instant::now(),
            fetches: JoinSet::new(),
            requests: JoinSet::new(),
        }
    }

    /// Takes the name over into what it writes down.
    pub fn rename(&mut self) {
        self.seen.client.clone_from(&self.name);
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.cluster.trace().note(&self.name, what);
    }

    /// Lives until the run is done.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        while *phase.borrow_and_update() != Phase::Done {
            self.observed.settled(&self.name, false);
            if let Some(edge) = pick(&self.cluster.edges()) {
                let until = self.cluster.now().plus_millis(30 * 24 * 3_600_000);
                match Line::open(&edge, self.account, until).await {
                    Ok(line) => self.converse(&edge, line, &mut phase).await,
                    Err(NoLine::Refused(refused)) => {
                        self.note(|| format!("{} refuses: {}", edge.process.name(), refused.code));
                    }
                    Err(NoLine::Silence) => self.note(|| format!("{} is silent", edge.process.name())),
                }
            }
            tokio::time::sleep(between(50, 1_000)).await;
        }
        let resets = std::mem::take(&mut self.resets);
        for (conversation, after) in resets {
            let up_to = self.timelines.complete(conversation.conversation_id());
            self.seen.noticed.push(Gap { conversation, after, up_to });
        }
        self.observed.life_ended(Life { seen: self.seen.clone(), since: self.since.clone() });
    }

    async fn converse(&mut self, edge: &EdgeProcess, mut line: Line, phase: &mut watch::Receiver<Phase>) {
        self.connections += 1;
        let client = format!("{} connection {} to {}", self.name, self.connections, edge.process.name());
        self.note(|| format!("connected to {}", edge.process.name()));
        let mut told = Seen { client, account: Some(self.account), ..Seen::default() };
        self.begin();
        loop {
            let at = *phase.borrow_and_update();
            if at == Phase::Done || !self.do_what_is_due(edge, &mut line, at).await {
                break;
            }
            self.observed.settled(&self.name, at == Phase::Settling && self.is_settled());
            let next = self.next_due(at);
            tokio::select! {
                biased;
                _ = phase.changed() => {}
                text = line.next() => match text {
                    Ok(text) => self.take(&text, &mut told),
                    Err(code) => {
                        self.note(|| format!("the line is gone: {code:?}"));
                        break;
                    }
                },
                Some(Ok((conversation, filled))) = self.fetches.join_next() => {
                    self.filled(conversation, filled);
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
        self.observed.connection_ended(told);
    }

    /// A new connection: nothing that was asked before is answered on it.
    fn begin(&mut self) {
        self.waiting.clear();
        self.fetches.abort_all();
        self.fetches = JoinSet::new();
        for pending in &mut self.outbox {
            if std::mem::take(&mut pending.in_flight) {
                pending.due = Instant::now() + retry_after(&self.manner);
            }
        }
        self.resume_due = Some(Instant::now());
        self.pinged = Instant::now();
        self.goes_back = true;
    }

    fn is_settled(&self) -> bool {
        self.outbox.is_empty()
            && self.timelines.is_caught_up()
            && self.resume_due.is_none()
            && self.waiting.is_empty()
            && self.fetches.is_empty()
            && self.requests.is_empty()
    }

    fn next_due(&self, phase: Phase) -> Instant {
        // Only the first of each conversation can go; the others wait for it.
        let mut busy = BTreeSet::new();
        let first: Vec<&Pending> = self.outbox.iter().filter(|p| busy.insert(p.conversation)).collect();
        let pending = first.into_iter().filter(|p| !p.in_flight).map(|p| p.due);
        let answers = self.waiting.values().map(|(_, asked)| *asked + ANSWER_WITHIN);
        let acting = (phase == Phase::Working).then_some(self.act_due);
        let soonest = pending.chain(answers).chain(acting).chain(self.resume_due);
        soonest.chain([self.pinged + PING_EVERY]).min().unwrap_or(self.pinged + PING_EVERY)
    }

    /// False where the line is to be given up.
    async fn do_what_is_due(&mut self, edge: &EdgeProcess, line: &mut Line, phase: Phase) -> bool {
        let now = Instant::now();
        while self.requests.try_join_next().is_some() {}
        if self.waiting.values().any(|(_, asked)| *asked + ANSWER_WITHIN <= now) {
            self.note(|| "an answer does not come".to_owned());
            return false;
        }
        if self.resume_due.is_some_and(|due| due <= now) {
            self.resume_due = None;
            let data = serde_json::to_value(self.timelines.resume()).unwrap_or_default();
            if !self.command(line, name::RESUME, data, Waiting::Resume).await {
                return false;
            }
        }
        if self.pinged + PING_EVERY <= now {
            self.pinged = now;
            if !line.ping().await {
                return false;
            }
        }
        if phase == Phase::Settling {
            self.outbox.iter_mut().for_each(|p| p.due = p.due.min(now + Duration::from_secs(2)));
        }
        if !self.send_due(line).await {
            return false;
        }
        if phase == Phase::Working && self.act_due <= now {
            self.act_due = now + between(5, self.manner.pause.as_millis() as u64);
            return self.act(edge, line).await;
        }
        true
    }

    async fn command(&mut self, line: &mut Line, event: &str, data: Value, waiting: Waiting) -> bool {
        self.next_ack += 1;
        self.waiting.insert(self.next_ack, (waiting, Instant::now()));
        line.send(json!({ "event": event, "data": data, "ack": self.next_ack }).to_string()).await
    }

    /// Sends what waits, one message of a conversation at a time, so that none overtakes another.
    async fn send_due(&mut self, line: &mut Line) -> bool {
        let now = Instant::now();
        let mut busy = BTreeSet::new();
        let mut due = Vec::new();
        for pending in &mut self.outbox {
            if busy.insert(pending.conversation) && !pending.in_flight && pending.due <= now {
                pending.in_flight = true;
                due.push((pending.key.clone(), wire(pending)));
            }
        }
        for (key, data) in due {
            if !self.command(line, name::SEND_MESSAGE, data, Waiting::Send(key)).await {
                return false;
            }
        }
        true
    }

    /// Puts a message into the outbox.
    fn write(&mut self, conversation: ConversationKey) {
        self.sends += 1;
        self.observed.sent();
        let key = random::uuid_v7(self.cluster.now()).to_string();
        let content = format!("{MARK} {} {}", self.name, self.sends);
        self.note(|| format!("writes {key} to {conversation:?}"));
        self.outbox.push(Pending { conversation, key, content, due: Instant::now(), in_flight: false });
    }

    /// Does one thing that a person might do.
    async fn act(&mut self, edge: &EdgeProcess, line: &mut Line) -> bool {
        let dice = random::rng().random_range(0..100);
        if dice < self.manner.leaves {
            self.note(|| "leaves for a while".to_owned());
            tokio::time::sleep(between(10, 4_000)).await;
            return false;
        }
        let conversations: Vec<ConversationKey> = self.conversations.iter().copied().collect();
        let Some(conversation) = pick(&conversations) else { return true };
        let recent: Vec<MessageId> = self.recent.iter().copied().collect();
        let message = pick(&recent);
        let ask = json!({ "messageId": message.map(|id| id.to_string()), "reaction": "👍", "content": MARK });
        match (random::rng().random_range(0..100), message) {
            (0..10, Some(_)) => self.command(line, name::ADD_REACTION, ask, Waiting::Other).await,
            (10..14, Some(_)) => self.command(line, name::REMOVE_REACTION, ask, Waiting::Other).await,
            (14..22, Some(_)) => self.command(line, name::EDIT_MESSAGE, ask, Waiting::Other).await,
            (22..26, Some(id)) => {
                let scope = if random::rng().random_bool(0.5) { "me" } else { "everyone" };
                let data = json!({ "messageId": id.to_string(), "scope": scope });
                self.command(line, name::DELETE_MESSAGE, data, Waiting::Other).await
            }
            (26..36, Some(_)) => self.command(line, name::MARK_READ, ask, Waiting::Other).await,
            (36..40, Some(_)) => self.command(line, name::MARK_DELIVERED, ask, Waiting::Other).await,
            (40..48, _) if self.manner.groups => {
                self.change_a_group(edge, conversation);
                true
            }
            (48..56, _) if self.manner.doubles => {
                self.write(conversation);
                self.send_elsewhere_too();
                true
            }
            (56..60, _) => {
                let data = json!({ "conversationId": conversation.conversation_id() });
                let event = pick(&[name::JOIN_CONVERSATION, name::TYPING_START]).unwrap_or(name::TYPING_STOP);
                self.command(line, event, data, Waiting::Other).await
            }
            _ => {
                self.write(conversation);
                true
            }
        }
    }

    /// The same message through another edge, at the same time, as an impatient client does.
    fn send_elsewhere_too(&mut self) {
        let (Some(edge), Some(pending)) = (pick(&self.cluster.edges()), self.outbox.last()) else { return };
        let command = SendMessage {
            content: pending.content.clone(),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: Some(pending.key.clone()),
        };
        let (key, conversation, account) = (pending.key.clone(), pending.conversation, self.account);
        let (observed, cluster) = (self.observed.clone(), self.cluster.clone());
        let name = self.name.clone();
        self.requests.spawn(async move {
            let reached = edge.edge.clone();
            let sending =
                async move { send_message::run(&reached, account, conversation, command, None).await };
            if let Some(Ok(sent)) = ask(&edge, sending).await {
                let message = sent.message.message_id;
                cluster.trace().note(&name, || format!("{key} acknowledged elsewhere as {message}"));
                let at_ms = cluster.elapsed_ms();
                observed.acked(Acked { sender: account, client_message_id: key, message, at_ms });
            }
        });
    }

    fn change_a_group(&mut self, edge: &EdgeProcess, conversation: ConversationKey) {
        let (account, edge) = (self.account, edge.clone());
        let others: Vec<AccountId> = self.people.iter().copied().filter(|a| *a != account).collect();
        let (cluster, name) = (self.cluster.clone(), self.name.clone());
        self.requests.spawn(async move {
            let done = crate::groups::change(&edge, account, conversation, &others).await;
            cluster.trace().note(&name, || format!("changes a group: {done}"));
        });
    }

    fn take(&mut self, text: &str, told: &mut Seen) {
        match ServerFrame::decode(text) {
            Ok(ServerFrame::Answer { ack, answer }) => {
                if let Some((waiting, _)) = self.waiting.remove(&ack) {
                    self.answered(waiting, &answer);
                }
            }
            Ok(ServerFrame::Event(event)) => {
                self.note(|| format!("told {}", summary(&event)));
                self.note_told(&event, told);
                self.learn(&event);
                let mut out = Vec::new();
                if let ServerEvent::ResumePending { .. } = event {
                    self.resume_due = Some(Instant::now() + Duration::from_secs(1));
                }
                if let (ServerEvent::ResumeComplete { checkpoint }, None) = (&event, &self.since) {
                    self.since = Some(checkpoint.clone());
                }
                self.timelines.receive(event, &mut out);
                self.apply(out);
            }
            Err(error) => panic!("{} was sent {text}: {error}", self.name),
        }
    }

    fn answered(&mut self, waiting: Waiting, answer: &Answer) {
        match waiting {
            Waiting::Send(key) => {
                let Some(at) = self.outbox.iter().position(|pending| pending.key == key) else { return };
                let message = answer.fields.get("messageId").and_then(Value::as_str);
                match (message.and_then(|id| id.parse::<MessageId>().ok()), &answer.error) {
                    (Some(message), _) if answer.ok => {
                        self.note(|| format!("{key} acknowledged as {message}"));
                        let (sender, at_ms) = (self.account, self.cluster.elapsed_ms());
                        self.observed.acked(Acked { sender, client_message_id: key, message, at_ms });
                        self.outbox.remove(at);
                    }
                    (_, Some(error)) if error.code.is_retryable() => {
                        self.note(|| format!("{key} refused for now: {}", error.code));
                        let pending = &mut self.outbox[at];
                        pending.in_flight = false;
                        pending.due = Instant::now() + retry_after(&self.manner);
                    }
                    (_, error) => {
                        self.note(|| format!("{key} refused: {:?}", error.as_ref().map(|e| e.code)));
                        self.outbox.remove(at);
                    }
                }
            }
            Waiting::Resume => {
                if let Some(error) = &answer.error {
                    if error.code == ErrorCode::InvalidValue {
                        panic!("{} resumed with a checkpoint that is refused", self.name);
                    }
                    self.resume_due = Some(Instant::now() + Duration::from_secs(1));
                }
            }
            Waiting::Other => {}
        }
    }
}

fn wire(pending: &Pending) -> Value {
    json!({
        "conversationId": pending.conversation.conversation_id(),
        "content": pending.content,
        "messageType": "text",
        "clientMessageId": pending.key,
    })
}

fn retry_after(manner: &Manner) -> Duration {
    pick(&manner.retries).unwrap_or(Duration::from_millis(500))
}

/// Any time between the two, in milliseconds.
pub fn between(least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(random::rng().random_range(least_ms..=most_ms.max(least_ms)))
}

/// Any of them.
pub fn pick<T: Clone>(all: &[T]) -> Option<T> {
    if all.is_empty() { None } else { Some(all[random::rng().random_range(0..all.len())].clone()) }
}

fn summary(event: &ServerEvent) -> String {
    let frame = serde_json::to_value(event).unwrap_or_default();
    let name = frame["event"].as_str().unwrap_or_default();
    match event.place() {
        Some((conversation, place)) => format!("{name} {conversation} {}", place.position),
        None => format!("{name} {}", frame["data"]["checkpoint"].as_str().unwrap_or_default()),
    }
}
