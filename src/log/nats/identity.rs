//! Watching that the log stays the one it was (rule P9).
//!
//! What one server says is not enough to fence it: a leader that was cut off takes itself for the leader
//! for a while, and knows nothing of what the others acknowledged since. That a stream ends too early is
//! proven by appending: only a majority acknowledges, and at a place above all that it has. What was
//! appended stays as the proof, since it moves the end, and whoever looks next would miss nothing.

use super::api::{ApiError, StreamInfo, Which, code, server_time};
use super::connection::Live;
use super::stream::SliceStream;
use super::subject::api;
use super::{ANSWER_WITHIN, Shared};
use crate::log::tick::tick;
use crate::log::{AppendError, ReadError};
use crate::runtime::clock::LogClock;
use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_STREAM;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use reedi_protocol::Shard;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between looks whether the log is still the one it was, and where the last one told nothing.
const CHECK_EVERY: Duration = Duration::from_secs(60);
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// What looks wrong is looked at this often, this far apart: a leader just elected may not have applied
/// all that it has.
const CONFIRM_TIMES: u32 = 4;
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// What nobody can append a proof of must be told for this long: a server that was cut off looks every 10 s
/// whether it heard of the others within 10 s (`lostQuorumCheck` in nats-server's `raft.go`), and leads no
/// longer after that.
pub(super) const STALE_MOST: Duration = Duration::from_secs(25);
/// What a record that was appended as a proof says: a sequence that was acknowledged before it.
const SEEN: &str = "Reedi-Seen";

/// What a look at a stream came to.
enum Found {
    Whole,
    /// It ends before `seen`, says who answered.
    Behind {
        seen: u64,
        info: StreamInfo,
    },
    /// It is gone, or another one, says who answered.
    NotOurs(String),
    /// It ran backwards: the proof stands in it.
    Proven(String),
}

/// Whether it is known how the log stands; else it is looked at again soon.
type IsKnown = bool;

impl SliceStream {
    /// The lane of the proofs: control events of a conversation that is nobody's.
    fn proof(&self, shared: &Shared) -> (Shard, String) {
        let shard = self.slice.shards().iter().next().unwrap_or(Shard(0));
        (shard, shared.namespace.record(crate::log::tick::tick_conversation(shard), true))
    }

    async fn look(&self, shared: &Shared, live: &Live) -> Result<Found, ApiError> {
        // Before the question: what is acknowledged while it is under way is not held against it.
        let seen = self.seen();
        let info = match live.stream_info(&self.name).await {
            Ok(info) => info,
            Err(error) if error.is_refusal(&[code::NO_STREAM]) => {
                return Ok(Found::NotOurs(format!("{} is gone", self.name)));
            }
            Err(error) => return Err(error),
        };
        if let Err(why) = self.check_incarnation(&info) {
            return Ok(Found::NotOurs(why));
        }
        let (_, subject) = self.proof(shared);
        if let Some(proof) = live.stored(&self.name, Which::LastOf(&subject)).await?
            && let Some(seen) = proof.headers.get(SEEN).and_then(|text| text.parse::<u64>().ok())
            && proof.sequence <= seen
        {
            let at = proof.sequence;
            return Ok(Found::Proven(format!("{} was at {at} after {seen} was acknowledged", self.name)));
        }
        Ok(if info.state.last_seq >= seen { Found::Whole } else { Found::Behind { seen, info } })
    }
}

impl Shared {
    /// Looks at all streams, fencing the log if one is not what it was.
    pub(super) async fn check_all(&self) -> IsKnown {
        let mut is_known = true;
        for stream in &self.slices {
            is_known &= self.check(stream).await.unwrap_or_else(|error| {
                tracing::warn!(stream = stream.name, why = %error, "cannot look at the log");
                false
            });
        }
        is_known
    }

    /// Looks at all streams until it is known how they stand.
    pub(super) async fn check_until_known(&self) {
        while !self.check_all().await && self.fenced.get().is_none() {
            tokio::time::sleep(CHECK_AGAIN).await;
        }
    }

    async fn check(&self, stream: &SliceStream) -> Result<IsKnown, ReadError> {
        let (began, mut looks) = (Instant::now(), 0);
        loop {
            looks += 1;
            match stream.look(self, &*self.reading()?).await? {
                Found::Whole => return Ok(true),
                Found::Behind { seen, info } if looks >= CONFIRM_TIMES => {
                    return self.prove(stream, seen, &info).await;
                }
                Found::NotOurs(why) if began.elapsed() >= STALE_MOST => {
                    self.fence(why);
                    return Ok(true);
                }
                Found::Proven(why) => {
                    self.fence(why);
                    return Ok(true);
                }
                Found::Behind { .. } | Found::NotOurs(_) => tokio::time::sleep(CONFIRM_AFTER).await,
            }
        }
    }

    /// Appends a record that says what had been `seen`: a stream that gives it a place after that has
    /// everything, one that gives it a place before ran backwards.
    async fn prove(&self, stream: &SliceStream, seen: u64, told: &StreamInfo) -> Result<IsKnown, ReadError> {
        let (shard, subject) = stream.proof(self);
        let payload = tick(shard, &LogClock::starting_at(server_time(&told.told_at)?)).payload;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, stream.name.as_str());
        headers.insert(SEEN, seen.to_string());
        let live = self.appending().map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let answer = live.publish(subject, headers, payload, Instant::now() + ANSWER_WITHIN).await;
        let last = told.state.last_seq;
        let outcome = match answer {
            Ok(ack) => self.acknowledged(stream, ack, seen).map(drop),
            Err(error) => Err(self.refused(stream, error)),
        };
        match outcome {
            Ok(()) => {
                tracing::warn!(stream = stream.name, last, seen, "whole, whatever a leader of the past says");
                Ok(true)
            }
            Err(AppendError::Fenced(_)) => Ok(true),
            Err(error) => {
                tracing::warn!(
                    stream = stream.name, last, seen, why = %error,
                    "the log may end before what was acknowledged; that cannot be proven now"
                );
                Ok(false)
            }
        }
    }
}

/// Looks at the streams every minute, at every new connection and whenever one changes its leader.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        let live = shared.reads.connected().await;
        let mut elections = Vec::new();
        for stream in &shared.slices {
            match live.client.subscribe(api::leader_elected(&stream.name)).await {
                Ok(subscription) => elections.push(subscription),
                Err(error) => {
                    tracing::warn!(stream = stream.name, why = %error, "cannot hear of new leaders")
                }
            }
        }
        let mut elections = select_all(elections);
        while !live.is_lost() {
            let again = if shared.check_all().await { CHECK_EVERY } else { CHECK_AGAIN };
            tokio::select! {
                () = tokio::time::sleep(again) => {}
                () = live.lost.cancelled() => {}
                Some(_) = elections.next() => {}
            }
        }
    }
}
