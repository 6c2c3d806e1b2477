//! Processes end suddenly under load; nothing acknowledged is lost, doubled or out of order.

use crate::support::backend::Backend;
use crate::support::balancer::Balancer;
use crate::support::cluster::{self, Cluster, Node, WITHIN};
use crate::support::listening::listening;
use crate::support::order;
use crate::support::person::{Person, Scene};
use parking_lot::Mutex;
use reedi::role::process::Roles;
use reedi_client::{Client, ClientBuilder, Update};
use reedi_protocol::event::ServerEvent;
use reedi_protocol::{Checkpoint, ConversationId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The same on both kinds of parts, each on a cluster of its own.
macro_rules! on_both_alone {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let backend = super::Backend::embedded(stringify!($name)).await;
                super::$name(super::cluster::own(backend).await).await;
            })*
        }
        mod real {
            $(#[tokio::test]
            async fn $name() {
                let backend = super::Backend::real(stringify!($name)).await;
                super::$name(super::cluster::own(backend).await).await;
            })*
        }
    };
}

on_both_alone!(nothing_is_lost_whoever_dies, a_role_that_is_away_is_not_hidden);

/// Pairs that talk all the time.
const PAIRS: usize = 4;
/// Between two messages of one sender: whoever is away while a lease runs out misses fewer than the 1,000
/// events that a resume replays.
const PACE: Duration = Duration::from_millis(30);
/// A fault is over when this many messages more were acknowledged and received in each pair.
const GO_ON: usize = 10;

/// Two who talk: one sends, and notes what was acknowledged; the other notes what comes.
struct Pair {
    reader: Person,
    conversation: String,
    acknowledged: Arc<Mutex<Vec<(String, String)>>>,
    received: Arc<Mutex<Vec<(String, String)>>>,
    is_over: Arc<AtomicBool>,
    sending: JoinHandle<Client>,
    receiving: JoinHandle<()>,
    listener: Client,
}

fn client(url: &str, person: &Person) -> ClientBuilder {
    let quick = (Duration::from_millis(50), Duration::from_millis(500));
    Client::builder(url).token(person.token()).reconnect(quick.0, quick.1)
}

impl Pair {
    async fn start(scene: &Scene, url: &str) -> Self {
        let [writer, reader] = scene.people();
        let conversation = writer.direct(&reader).await;
        let id: ConversationId = conversation.parse().unwrap();
        let (acknowledged, received): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (listener, mut updates) = listening(client(url, &reader)).await;
        let (mouth, mut own_updates) = client(url, &writer).connect().await.expect("it begins");
        tokio::spawn(async move { while own_updates.recv().await.is_some() {} });
        let (noted, over) = (acknowledged.clone(), is_over.clone());
        let sending = tokio::spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            for n in 0.. {
                pace.tick().await;
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let text = n.to_string();
                let sent = mouth.send(id, text.as_str()).expect("room").await.expect("it is sent in the end");
                noted.lock().push((sent.message_id.to_string(), text));
            }
            mouth
        });
        let noted = received.clone();
        let receiving = tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                match update {
                    Update::Event(event) => {
                        if let ServerEvent::NewMessage(message) = *event {
                            noted.lock().push((message.message_id.to_string(), message.content.unwrap()));
                        }
                    }
                    Update::Reset(_) | Update::ResetAll => panic!("nothing was too much"),
                    _ => {}
                }
            }
        });
        Self { reader, conversation, acknowledged, received, is_over, sending, receiving, listener }
    }

    /// Waits until `more` messages more were acknowledged, and those received.
    async fn goes_on(&self, more: usize, what: &str) {
        let goal = self.acknowledged.lock().len() + more;
        let going = async {
            while self.acknowledged.lock().len() < goal || self.received.lock().len() < goal {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let counts = || (self.acknowledged.lock().len(), self.received.lock().len());
        timeout(2 * WITHIN, going)
            .await
            .unwrap_or_else(|_| panic!("{what}: stuck at {:?} of {goal}", counts()));
    }

    /// Ends it and looks: what was acknowledged stands once, in the order it was sent, and came in that order.
    async fn check(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mouth = self.sending.await.expect("the sender lives");
        let acknowledged = self.acknowledged.lock().clone();
        let received = async {
            while self.received.lock().len() < acknowledged.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(WITHIN, received).await.is_err() {
            let received = self.received.lock().clone();
            let missing: Vec<_> = acknowledged.iter().filter(|message| !received.contains(message)).collect();
            let (all, some) = (acknowledged.len(), missing.len());
            panic!("of {all} acknowledged {some} were not received: {missing:?}");
        }
        assert_eq!(*self.received.lock(), acknowledged);
        let mut stands = Vec::new();
        let mut before = String::new();
        loop {
            let path = format!("/conversations/{}/messages?limit=100{before}", self.conversation);
            let page = self.reader.at(0).get(&path).await.expect(200);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            stands.extend(page.list("messages").iter().map(|m| (text(&m["messageId"]), text(&m["content"]))));
            match page.body["nextCursor"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        stands.reverse();
        assert_eq!(stands, acknowledged);
        assert_eq!(stands.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), stands.len());
        mouth.close().await;
        self.listener.close().await;
        self.receiving.await.expect("the receiver lives");
    }
}

async fn all_go_on(pairs: &[Pair], what: &str) {
    futures_util::future::join_all(pairs.iter().map(|pair| pair.goes_on(GO_ON, what))).await;
}

async fn nothing_is_lost_whoever_dies(cluster: &'static Cluster) {
    let scene = Scene::on(cluster);
    let backend = &cluster.backend;
    let fourth = cluster.edge(&[]).await;
    let balancer = Balancer::before(&[fourth.url(), scene.urls[0].clone()]).await;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        pairs.push(Pair::start(&scene, &balancer.url).await);
    }
    all_go_on(&pairs, "at the beginning").await;

    balancer.set(&scene.urls);
    fourth.kill();
    all_go_on(&pairs, "after an edge was killed").await;

    let writer = cluster.writers.lock().remove(0);
    writer.kill();
    let new = Node::start(backend, Roles::WRITER, &[]).await;
    cluster.writers.lock().push(new);
    all_go_on(&pairs, "after a writer was killed").await;

    let delivery = cluster.deliveries.lock().remove(0);
    delivery.kill();
    let new = Node::start(backend, Roles::DELIVERY, &[]).await;
    cluster.deliveries.lock().push(new);
    all_go_on(&pairs, "after a delivery worker was killed").await;

    let delivery = cluster.deliveries.lock().remove(0);
    delivery.leave().await;
    all_go_on(&pairs, "after a delivery worker left").await;
    let writer = cluster.writers.lock().remove(0);
    writer.leave().await;
    all_go_on(&pairs, "after a writer left").await;
    for pair in pairs {
        pair.check().await;
    }
}

async fn a_role_that_is_away_is_not_hidden(cluster: &'static Cluster) {
    let scene = Scene::on(cluster);
    without_writers(&scene, &cluster.backend).await;
    without_deliveries(&scene, &cluster.backend).await;
}

/// With nobody to store, messages are accepted and delivered all the same, and nothing is claimed of history.
async fn without_writers(scene: &Scene, backend: &Backend) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let (sending, listening) = (alice.socket(0).await, bob.socket(1).await);
    sending.send(&conversation, "before").await;
    listening.message("before").await;
    let draft = alice.send(0, &conversation, "draft").await;
    let draft = format!("/messages/{}", draft["messageId"].as_str().expect("an id"));
    scene.cluster.stored(&conversation).await;
    scene.cluster.writers.lock().drain(..).for_each(Node::kill);
    // Through an edge that was told nothing of the deletion, and by the store the message stands.
    alice.at(0).delete(&draft).await.expect(204);
    alice.at(2).put(&draft, &json!({ "content": "no draft" })).await.expect(200);
    let told = listening.event("message_edited", |_| true).await;
    assert_eq!(told["content"], Value::Null, "what is deleted stays so");
    assert_eq!(listening.all("message_deleted").len(), 1);
    sending.send(&conversation, "meanwhile").await;
    listening.message("meanwhile").await;
    let path = format!("/conversations/{conversation}/messages");
    bob.at(1).get(&path).await.refused(503, "store_unavailable");
    // Who repeats a send is not refused because what became of the message cannot be read.
    let key = uuid::Uuid::now_v7();
    let body = json!({ "content": "again", "messageType": "text", "clientMessageId": key });
    let first = alice.at(0).post(&path, &body).await.expect(201);
    assert_eq!(alice.at(0).post(&path, &body).await.expect(200).body, first.body);
    let back = bob.socket(1).await;
    assert_eq!(back.try_resume(Some(&Checkpoint::default().to_string()), json!({})).await, None);
    sending.send(&conversation, "live").await;
    back.message("live").await;
    let writer = Node::start(backend, Roles::WRITER, &[]).await;
    scene.cluster.writers.lock().push(writer);
    scene.cluster.stored(&conversation).await;
    let texts = json!(bob.at(2).texts(&conversation).await);
    assert_eq!(texts, json!(["before", null, "meanwhile", "again", "live"]));
    order::check(&listening);
}

/// With nobody to deliver, no socket looks alive and is deaf; what was sent meanwhile comes later.
async fn without_deliveries(scene: &Scene, backend: &Backend) {
    let [alice, bob] = scene.people();
    let conversation = alice.direct(&bob).await;
    let listening = bob.socket(1).await;
    let checkpoint = listening.resume(None, json!({})).await;
    scene.cluster.deliveries.lock().drain(..).for_each(Node::kill);
    alice.send(0, &conversation, "meanwhile").await;
    let closed = listening.closed().await;
    assert_eq!(closed.code, Some(1012), "{closed}");
    scene.cluster.edges[1].not_ready().await;
    let delivery = Node::start(backend, Roles::DELIVERY, &[]).await;
    scene.cluster.deliveries.lock().push(delivery);
    for edge in &scene.cluster.edges {
        edge.ready().await;
    }
    let back = bob.socket(2).await;
    back.resume(Some(&checkpoint), json!({})).await;
    back.message("meanwhile").await;
    alice.send(0, &conversation, "after").await;
    back.message("after").await;
    order::check(&back);
}
