//! How far the writer has stored every shard, as this edge last read it; and waiting for it.

use crate::store::{Store, Watermarks as _};
use parking_lot::Mutex;
use reedi_protocol::{Checkpoint, Position, Shard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// How long a client waits for the writer before it is told to come back (rules P4.3, P6).
pub const WAIT: Duration = Duration::from_secs(2);

/// How often the store is asked while somebody waits. One read serves all who wait.
const ASK_EVERY: Duration = Duration::from_millis(10);
const ASK_AFTER_FAILURE: Duration = Duration::from_millis(200);

/// The writer has not got there in time, or the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has not caught up")]
pub struct NotStored;

impl From<NotStored> for super::refused::Refused {
    fn from(_: NotStored) -> Self {
        let detail = "Stored data has not caught up with what was sent. Try again.";
        Self::new(reedi_protocol::ErrorCode::StoreUnavailable, detail)
    }
}

/// Cheap to clone; clones share what was read.
#[derive(Clone)]
pub struct Watermarks {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    known: Mutex<Checkpoint>,
    changed: watch::Sender<u64>,
    waiting: AtomicUsize,
    wake: Notify,
    /// Reads by [`Watermarks::fresh`] that have begun.
    begun: AtomicU64,
    /// The last of them that has ended.
    fresh: tokio::sync::Mutex<u64>,
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        if shared.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            shared.wake.notify_one();
        }
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watermarks {
    #[must_use]
    pub fn new(store: Store) -> Self {
        let shared = Shared {
            store,
            known: Mutex::default(),
            changed: watch::channel(0).0,
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
            begun: AtomicU64::new(0),
            fresh: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks the store while somebody waits; to be spawned once.
    pub async fn run(self) {
        loop {
            if self.shared.waiting.load(Ordering::Acquire) == 0 {
                self.shared.wake.notified().await;
            }
            let pause = if self.refresh().await.is_ok() { ASK_EVERY } else { ASK_AFTER_FAILURE };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads them now.
    ///
    /// # Errors
    /// The store is away.
    pub async fn refresh(&self) -> Result<(), crate::store::StoreError> {
        let read = self.shared.store.watermarks().await?;
        {
            let mut known = self.shared.known.lock();
            for (shard, position) in read {
                known.advance(shard, position);
            }
        }
        self.shared.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Reads them as they stand now or later. Who asks while they are being read shares the next read with all others.
    ///
    /// # Errors
    /// The store is away.
    pub async fn fresh(&self) -> Result<(), crate::store::StoreError> {
        let asked = self.shared.begun.load(Ordering::Acquire);
        let mut ended = self.shared.fresh.lock().await;
        if *ended > asked {
            return Ok(());
        }
        let this = self.shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.refresh().await?;
        *ended = this;
        Ok(())
    }

    /// What was last read, of every shard.
    #[must_use]
    pub fn all(&self) -> Checkpoint {
        self.shared.known.lock().clone()
    }

    /// What was last read: never too high.
    #[must_use]
    pub fn known(&self, shard: Shard) -> Position {
        self.shared.known.lock().get(shard)
    }

    /// Waits until everything of `shard` up to `position` is stored.
    ///
    /// # Errors
    /// It is not within [`WAIT`].
    pub async fn passed(&self, shard: Shard, position: Position) -> Result<(), NotStored> {
        self.passed_where(|known| known.get(shard) >= position).await
    }

    /// Waits until everything up to `all` is stored, in every shard.
    ///
    /// # Errors
    /// It is not within [`WAIT`].
    pub async fn passed_all(&self, all: &Checkpoint) -> Result<(), NotStored> {
        self.passed_where(|known| Shard::all().all(|shard| known.get(shard) >= all.get(shard))).await
    }

    async fn passed_where(&self, enough: impl Fn(&Checkpoint) -> bool) -> Result<(), NotStored> {
        if enough(&self.shared.known.lock()) {
            return Ok(());
        }
        let mut changed = self.shared.changed.subscribe();
        let _waiting = Waiting::new(&self.shared);
        let until = Instant::now() + WAIT;
        loop {
            if enough(&self.shared.known.lock()) {
                return Ok(());
            }
            match timeout_at(until, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(NotStored),
            }
        }
    }
}
