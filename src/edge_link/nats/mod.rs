//! The edge link over core NATS: one subject per edge, one for all edges, one for the workers, one for
//! presence. Nothing is stored; whoever does not listen misses it and notices by the numbers.
//!
//! The frames of a sender keep their order on each subject; what is sent to one edge and what is sent
//! to all edges may pass each other.

mod wire;

use super::{
    EdgeId, EdgeLinkPort, Inbound, LinkError, PresenceChange, QUEUE_FRAMES, ToEdge, ToWorkers, WorkerId,
};
use crate::log::nats::connection::{Live, NatsConnection};
use crate::log::nats::{Namespace, NatsConfig, NatsConfigError};
use async_nats::{Message, Subscriber};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{self, Sender, error::TrySendError};
use tokio::time::{Instant, timeout_at};
use wire::Assembly;

/// How long a frame may wait to leave this process before the link counts as full: a worker serves
/// other edges meanwhile, and heartbeats go out every 100 ms (rule P5).
const SEND_WITHIN: Duration = Duration::from_millis(500);
/// Between tries to listen anew where NATS refuses.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct NatsLink {
    shared: Arc<Shared>,
}

struct Shared {
    connection: NatsConnection,
    namespace: Namespace,
    /// Names this process in the parts of frames.
    sender: u64,
    next_frame: AtomicU64,
}

impl NatsLink {
    /// Waits until NATS lets us in.
    ///
    /// # Errors
    /// For a configuration that no waiting can mend.
    pub async fn connect(config: &NatsConfig, namespace: Namespace) -> Result<Self, NatsConfigError> {
        let connection = NatsConnection::open(config, "edge link").await?;
        let (sender, next_frame) = (rand::random(), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { connection, namespace, sender, next_frame }) })
    }

    /// Whether NATS is connected now, for readiness.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connection.live().is_some()
    }

    async fn send<T: Serialize>(&self, subject: String, frame: &T) -> Result<(), LinkError> {
        let away = |why: String| LinkError::Unavailable(why);
        let shared = &self.shared;
        let live = shared.connection.live().ok_or_else(|| away("NATS is disconnected".to_owned()))?;
        let number = shared.next_frame.fetch_add(1, Ordering::Relaxed);
        let most = live.client.max_payload();
        let parts =
            wire::encode(frame, shared.sender, number, most).map_err(|error| away(error.to_string()))?;
        let deadline = Instant::now() + SEND_WITHIN;
        for part in parts {
            match timeout_at(deadline, live.client.publish(subject.clone(), part)).await {
                Ok(Ok(())) if !live.is_lost() => {}
                Ok(Ok(())) => return Err(away("the connection was lost".to_owned())),
                Ok(Err(error)) => return Err(away(error.to_string())),
                Err(_) => return Err(LinkError::Full),
            }
        }
        Ok(())
    }

    /// Listens on `subjects` until nobody takes from the queue any more, over as many connections as it
    /// takes. Returns once the server knows.
    async fn listen<T: DeserializeOwned + Send + 'static>(&self, subjects: Vec<String>) -> Inbound<T> {
        let (queue, inbound) = mpsc::channel(QUEUE_FRAMES);
        let (live, ears) = subscribe(&self.shared.connection, &subjects).await;
        tokio::spawn(keep_listening(self.shared.connection.clone(), subjects, queue, live, ears));
        inbound
    }
}

async fn keep_listening<T: DeserializeOwned + Send + 'static>(
    connection: NatsConnection,
    subjects: Vec<String>,
    queue: Sender<T>,
    mut live: Arc<Live>,
    mut ears: Vec<Subscriber>,
) {
    loop {
        let hearing = hear(stream::select_all(ears), &queue);
        tokio::select! {
            () = hearing => {}
            () = live.lost.cancelled() => {}
        }
        if queue.is_closed() {
            return;
        }
        tracing::info!(?subjects, "listening anew");
        tokio::select! {
            () = queue.closed() => return,
            again = subscribe(&connection, &subjects) => (live, ears) = again,
        }
    }
}

async fn subscribe(connection: &NatsConnection, subjects: &[String]) -> (Arc<Live>, Vec<Subscriber>) {
    loop {
        let live = connection.connected().await;
        match try_subscribe(&live, subjects).await {
            Ok(ears) => return (live, ears),
            Err(why) => tracing::warn!(why, "cannot listen on the edge link yet"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn try_subscribe(live: &Live, subjects: &[String]) -> Result<Vec<Subscriber>, String> {
    let mut ears = Vec::new();
    for subject in subjects {
        ears.push(live.client.subscribe(subject.clone()).await.map_err(|error| error.to_string())?);
    }
    round_trip(live).await?;
    Ok(ears)
}

/// Ends when the server has taken everything before: it answers by itself, since nobody listens on the inbox.
async fn round_trip(live: &Live) -> Result<(), String> {
    let inbox = live.client.new_inbox();
    let deadline = Instant::now() + SEND_WITHIN;
    match live.request(inbox, None, bytes::Bytes::new(), deadline).await {
        Err(crate::log::nats::connection::RequestError::NoResponders) | Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Passes frames on until the ears close or nobody takes them.
async fn hear<T: DeserializeOwned>(mut ears: stream::SelectAll<Subscriber>, queue: &Sender<T>) {
    let mut assembly = Assembly::default();
    let mut dropped = 0_u64;
    loop {
        let message: Message = tokio::select! {
            () = queue.closed() => return,
            message = ears.next() => match message {
                Some(message) => message,
                None => return,
            },
        };
        let frame = match assembly.take::<T>(message.payload) {
            Ok(Some(frame)) => frame,
            Ok(None) => continue,
            Err(why) => {
                tracing::warn!(subject = %message.subject, %why, "a frame that cannot be read");
                continue;
            }
        };
        match queue.try_send(frame) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                dropped += 1;
                // Each time the count doubles: seen at once, and no flood.
                if dropped.is_power_of_two() {
                    tracing::warn!(subject = %message.subject, dropped, "frames come faster than they are taken");
                }
            }
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

impl EdgeLinkPort for NatsLink {
    async fn to_edge(&self, edge: EdgeId, frame: ToEdge) -> Result<(), LinkError> {
        self.send(self.shared.namespace.edge(edge.0), &frame).await
    }

    async fn to_workers(&self, frame: ToWorkers) -> Result<(), LinkError> {
        self.send(self.shared.namespace.workers(), &frame).await
    }

    async fn to_all_edges(&self, frame: ToEdge) -> Result<(), LinkError> {
        self.send(self.shared.namespace.edges(), &frame).await
    }

    async fn presence(&self, changes: Vec<PresenceChange>) -> Result<(), LinkError> {
        self.send(self.shared.namespace.presence(), &changes).await
    }

    async fn flush(&self) -> Result<(), LinkError> {
        let live = self.shared.connection.live();
        let live = live.ok_or_else(|| LinkError::Unavailable("NATS is disconnected".to_owned()))?;
        round_trip(&live).await.map_err(LinkError::Unavailable)
    }

    async fn listen_as_edge(
        &self,
        edge: EdgeId,
    ) -> Result<(Inbound<ToEdge>, Inbound<Vec<PresenceChange>>), LinkError> {
        let names = &self.shared.namespace;
        let frames = self.listen(vec![names.edge(edge.0), names.edges()]).await;
        Ok((frames, self.listen(vec![names.presence()]).await))
    }

    async fn listen_as_worker(&self, _worker: WorkerId) -> Result<Inbound<ToWorkers>, LinkError> {
        Ok(self.listen(vec![self.shared.namespace.workers()]).await)
    }
}
