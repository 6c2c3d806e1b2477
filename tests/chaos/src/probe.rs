//! The probe: says whether a message that is sent now, through any edge, is acknowledged and told on
//! every edge, and how long that takes.

use crate::book::Book;
use crate::cluster::Cluster;
use crate::population::{PopulationError, rest, sign_up};
use parking_lot::Mutex;
use reedi_client::{Client, Rest, RestError, Update, Updates};
use reedi_protocol::command::SendMessage;
use reedi_protocol::event::ServerEvent;
use reedi_protocol::resource::MessageType;
use reedi_protocol::{ConversationId, MessageId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// So many conversations lie in shards of all workers but once in 2^7 runs.
const CONVERSATIONS: usize = 8;
/// For one answer and one telling; after that another message is sent.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Making the probe's conversations, when all is well.
const SET_UP_WITHIN: Duration = Duration::from_secs(30);

type Heard = Arc<Mutex<HashMap<MessageId, HashSet<String>>>>;

struct ProbedEdge {
    name: String,
    rest: Rest,
    _client: Client,
}

pub struct Probe {
    edges: Vec<ProbedEdge>,
    conversations: Vec<ConversationId>,
    mark: Arc<str>,
    heard: Heard,
    changed: watch::Sender<u64>,
}

impl Probe {
    /// Connects to every edge by itself, past the balancer.
    pub async fn open(cluster: &Cluster, book: &Book) -> Result<Self, PopulationError> {
        let (heard, changed) = (Heard::default(), watch::Sender::new(0));
        let entry = rest(cluster.entry, ANSWER_WITHIN)?;
        let (_, token) = sign_up(&entry, "probe", &cluster.secrets.password).await?;
        let (peer, _) = sign_up(&entry, "probed", &cluster.secrets.password).await?;
        let mut edges = Vec::new();
        for role in cluster.edges() {
            let own = rest(role.listen, ANSWER_WITHIN)?.for_token(token.clone());
            let (client, updates) = Client::builder(&own.endpoint().to_string())
                .rest(own.clone())
                .token(token.clone())
                .liveness(Duration::from_secs(2), Duration::from_secs(2))
                .reconnect(Duration::from_millis(100), Duration::from_millis(500))
                .connect()
                .await?;
            tokio::spawn(listen(role.name.clone(), updates, Arc::clone(&heard), changed.clone()));
            edges.push(ProbedEdge { name: role.name.clone(), rest: own, _client: client });
        }
        let mut conversations = Vec::new();
        for _ in 0..CONVERSATIONS {
            let create = || edges[0].rest.create_group("probe", std::slice::from_ref(&peer));
            let made = crate::patience::patiently(SET_UP_WITHIN, create).await?;
            conversations.push(made.conversation_id);
        }
        Ok(Self { edges, conversations, mark: Arc::clone(&book.mark), heard, changed })
    }

    /// Sends until every conversation's message was acknowledged and told on all edges that are not
    /// `without`. Gives how long that took, or what does not work after `within`.
    pub async fn run(&self, without: &[String], within: Duration) -> Result<Duration, String> {
        let begun = Instant::now();
        let edges: Vec<&ProbedEdge> = self.edges.iter().filter(|e| !without.contains(&e.name)).collect();
        let names: HashSet<String> = edges.iter().map(|edge| edge.name.clone()).collect();
        let last = Arc::new(Mutex::new(HashMap::new()));
        let mut trying = JoinSet::new();
        for (number, conversation) in self.conversations.iter().enumerate() {
            let edge = edges[number % edges.len()];
            let one = One {
                edge: edge.name.clone(),
                rest: edge.rest.clone(),
                conversation: *conversation,
                text: format!("{} probe", self.mark),
                names: names.clone(),
                heard: Arc::clone(&self.heard),
                changed: self.changed.subscribe(),
            };
            let last = Arc::clone(&last);
            trying.spawn(async move {
                loop {
                    match one.clone().attempt().await {
                        Ok(()) => break drop(last.lock().remove(&one.conversation)),
                        Err(why) => drop(last.lock().insert(one.conversation, why)),
                    }
                    sleep(AGAIN_AFTER).await;
                }
            });
        }
        let all = async { while trying.join_next().await.is_some() {} };
        let ended = timeout(within, all).await;
        self.heard.lock().clear();
        if ended.is_ok() {
            return Ok(begun.elapsed());
        }
        let mut whys: Vec<String> = last.lock().values().cloned().collect();
        whys.sort();
        whys.dedup();
        Err(whys.join("; "))
    }
}

/// One conversation's probe.
#[derive(Clone)]
struct One {
    edge: String,
    rest: Rest,
    conversation: ConversationId,
    text: String,
    names: HashSet<String>,
    heard: Heard,
    changed: watch::Receiver<u64>,
}

impl One {
    async fn attempt(mut self) -> Result<(), String> {
        let message = SendMessage {
            content: std::mem::take(&mut self.text),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: Some(uuid::Uuid::now_v7().to_string()),
        };
        let sent: Result<_, RestError> = self.rest.send_message(self.conversation, &message).await;
        let id = sent.map_err(|error| format!("{}: {error}", self.edge))?.0.message_id;
        let (heard, names) = (Arc::clone(&self.heard), self.names.clone());
        let everywhere =
            || heard.lock().get(&id).is_some_and(|edges| names.iter().all(|name| edges.contains(name)));
        match timeout(ANSWER_WITHIN, self.changed.wait_for(|_| everywhere())).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let heard = heard.lock();
                let has = |name: &&String| !heard.get(&id).is_some_and(|edges| edges.contains(*name));
                let mut deaf: Vec<&str> = self.names.iter().filter(has).map(String::as_str).collect();
                deaf.sort_unstable();
                let shard = self.conversation.shard().0;
                Err(format!("a message of shard {shard} through {} is not told on {deaf:?}", self.edge))
            }
        }
    }
}

async fn listen(edge: String, mut updates: Updates, heard: Heard, changed: watch::Sender<u64>) {
    while let Some(update) = updates.recv().await {
        let Update::Event(event) = update else { continue };
        if let ServerEvent::NewMessage(message) = *event {
            heard.lock().entry(message.message_id).or_default().insert(edge.clone());
            changed.send_modify(|count| *count += 1);
        }
    }
}
