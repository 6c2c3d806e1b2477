//! Delivery: from the log to the edges that hold the recipients' sockets. It does not wait for the
//! writer; all it knows is in memory and can be asked for again.

pub mod again;
pub mod consume;
pub mod fan_out;
pub mod membership;
pub mod own_shards;
pub mod routes;

use crate::edge_link::{EdgeLink, EdgeLinkPort, ToWorkers, WorkerId};
use crate::log::lag::{Lag, Role};
use crate::log::reading::{Reading, SliceReading};
use crate::log::{Log, LogPort, Slice};
use crate::ownership::keep::Owned;
use crate::runtime::backoff::Backoff;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::store::Store;
use consume::{Consumer, Interrupted};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// What a delivery worker is made of.
#[derive(Clone)]
pub struct Delivery {
    pub id: WorkerId,
    pub log: Log,
    pub store: Store,
    pub link: EdgeLink,
    pub metrics: Metrics,
    /// What the keeper of its leases goes by.
    pub reading: Reading,
}

impl Delivery {
    /// Delivers the owned shards of every slice until the process leaves.
    pub async fn run(self, owned: watch::Receiver<Owned>, shutdown: Shutdown) {
        let mut tasks = Vec::new();
        let slices = self.log.slices();
        let (frames, _) = broadcast::channel(crate::edge_link::QUEUE_FRAMES);
        for slice in slices {
            let inbound = relay(frames.subscribe());
            let task = tokio::spawn(self.clone().run_slice(slice, owned.clone(), inbound, shutdown.clone()));
            tasks.push(shutdown.supervise("a slice of delivery", task));
        }
        let listening = tokio::spawn(self.clone().listen(frames));
        let stop_listening = listening.abort_handle();
        shutdown.supervise("listening to edges", listening);
        for task in tasks {
            let _ = task.await;
        }
        stop_listening.abort();
    }

    /// Gives what edges say to every slice.
    async fn listen(self, frames: broadcast::Sender<ToWorkers>) {
        let mut backoff = Backoff::for_parts();
        loop {
            match self.link.listen_as_worker(self.id).await {
                Ok(mut inbound) => {
                    backoff.reset();
                    while let Some(frame) = inbound.recv().await {
                        let _ = frames.send(frame);
                    }
                }
                Err(error) => tracing::warn!(%error, "the edge link cannot be listened to"),
            }
            tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }

    async fn run_slice(
        self,
        slice: Slice,
        owned: watch::Receiver<Owned>,
        inbound: mpsc::Receiver<ToWorkers>,
        shutdown: Shutdown,
    ) {
        let lag = Lag::default();
        let telling = lag.clone().tell(self.log.clone(), slice, self.metrics.clone(), Role::Delivery);
        let reading = self.reading.of(slice);
        let consumer = Consumer::new(self.clone(), slice, lag, reading.clone());
        tokio::select! {
            () = self.consume(consumer, &reading, owned, inbound, shutdown) => {}
            () = reading.keep_looking(&self.log) => {}
            () = telling => {}
        }
    }

    async fn consume(
        &self,
        mut consumer: Consumer,
        reading: &SliceReading,
        mut owned: watch::Receiver<Owned>,
        mut inbound: mpsc::Receiver<ToWorkers>,
        shutdown: Shutdown,
    ) {
        let mut backoff = Backoff::for_parts();
        loop {
            // Without its keeper a worker owns nothing any more, and is never told so.
            if shutdown.is_draining() || owned.has_changed().is_err() {
                return;
            }
            let mine = owned.borrow_and_update().clone();
            let ended = consumer.run(&mine, &mut owned, &mut inbound, &shutdown, &mut backoff).await;
            if let Err(error) = ended {
                let Interrupted::Log(why) = &error;
                reading.failed(why);
                self.metrics.retried("log");
                tracing::warn!(%error, "delivery reads the log anew");
                tokio::select! {
                    biased;
                    () = shutdown.draining() => {}
                    () = tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(1))) => {}
                }
            }
        }
    }
}

/// A bounded queue of its own for one slice. One that falls behind loses frames, which edges notice
/// by the numbers in what they get.
fn relay(mut frames: broadcast::Receiver<ToWorkers>) -> mpsc::Receiver<ToWorkers> {
    let (out, inbound) = mpsc::channel(crate::edge_link::QUEUE_FRAMES);
    tokio::spawn(async move {
        loop {
            match frames.recv().await {
                Ok(frame) => {
                    if out.send(frame).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    inbound
}
