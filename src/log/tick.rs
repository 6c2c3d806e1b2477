//! Ticks: a record that says nothing, so that a watermark which passes it proves that everything
//! before it is stored (rule P4.3).

use super::{Append, AppendError, Appended, Lane, Log, LogPort};
use crate::domain::record::{Body, Record, RequestDigest};
use crate::runtime::clock::LogClock;
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position, Shard};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The conversation of a shard's ticks: its key is nobody's, since keys of conversations are never
/// all zeros below the shard.
#[must_use]
pub fn tick_conversation(shard: Shard) -> ConversationKey {
    ConversationKey::from_u64(u64::from(shard.0) << 56)
}

/// A tick for `shard`, stamped by `clock`.
#[must_use]
pub fn tick(shard: Shard, clock: &LogClock) -> Append {
    let conversation = tick_conversation(shard);
    let record = Record {
        conversation,
        kind: ConversationType::Account,
        actor: AccountId::new(uuid::Uuid::nil()),
        stamp: clock.now(),
        digest: RequestDigest([0; 16]),
        audience: None,
        body: Body::Tick,
    };
    Append {
        conversation,
        lane: Lane::Event,
        duplicate_key: None,
        payload: record.encode(),
        traceparent: None,
    }
}

/// Appends ticks; one serves all who asked before it was begun.
pub struct Ticks {
    shards: Vec<Mutex<Option<(Instant, Position)>>>,
}

impl Default for Ticks {
    fn default() -> Self {
        Self { shards: Shard::all().map(|_| Mutex::new(None)).collect() }
    }
}

impl Ticks {
    /// A position of `shard` after everything that the log had when this was called.
    ///
    /// # Errors
    /// The log did not take it.
    pub async fn after_now(
        &self,
        shard: Shard,
        log: &Log,
        clock: &LogClock,
    ) -> Result<Position, AppendError> {
        let asked = Instant::now();
        let mut newest = self.shards[shard.index()].lock().await;
        if let Some((begun, position)) = *newest
            && begun > asked
        {
            return Ok(position);
        }
        let begun = Instant::now();
        let (Appended::New(position) | Appended::Duplicate(position)) =
            log.append(tick(shard, clock)).await?;
        *newest = Some((begun, position));
        Ok(position)
    }
}
