//! Reading: how much memory the answers to reads may take, on an edge and of each account. An answer counts from
//! before it is read until its client has taken it: who asks for much and takes none of it, takes from itself.

use super::refused::{Outcome, Refused};
use crate::runtime::metrics::Metrics;
use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use reedi_protocol::{AccountId, ErrorCode, limits};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Room is given out in pieces of so many bytes.
const PIECE_BYTES: usize = 1_024;
/// So many accounts that each take all they may fill an edge.
const SHARES: u32 = 16;
/// How long a read waits for room; longer than reads take, and as long as they wait for the store.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// What a message has besides its content, reactions aside.
const FIELDS_BYTES: usize = 1_024;
/// What a conversation tells of each participant, in JSON.
const PARTICIPANT_BYTES: usize = 128;

/// Bytes that a page of messages or events may have, before JSON escapes anything.
#[must_use]
pub fn page_bytes(limit: Option<usize>) -> usize {
    let limit = limit.unwrap_or(limits::PAGE_DEFAULT).min(limits::PAGE_MOST);
    limit * (limits::CONTENT_BYTES + FIELDS_BYTES)
}

/// Bytes that a conversation, or something of each of its participants, may have.
#[must_use]
pub const fn participants_bytes(members: usize) -> usize {
    members * PARTICIPANT_BYTES
}

/// The room for answers of one edge.
pub struct Reads {
    room: Arc<Semaphore>,
    share: u32,
    accounts: Arc<Mutex<HashMap<AccountId, Share>>>,
    metrics: Metrics,
}

/// An account's part of the room, there while it reads.
struct Share {
    room: Arc<Semaphore>,
    readings: usize,
}

impl Reads {
    #[must_use]
    pub fn new(bytes_most: usize, metrics: Metrics) -> Self {
        let room = pieces(bytes_most);
        Self {
            room: Arc::new(Semaphore::new(room as usize)),
            share: (room / SHARES).max(1),
            accounts: Arc::default(),
            metrics,
        }
    }

    /// Waits for room for an answer of `bytes_most`. One that is larger than its account's share takes all of that.
    ///
    /// # Errors
    /// This account's other answers take its share, or all answers the edge's room.
    pub async fn begin(&self, account: AccountId, bytes_most: usize) -> Outcome<Reading> {
        let wanted = pieces(bytes_most).min(self.share);
        let share = self.share_of(account);
        let of_account = within_reason(&share.room, wanted).await.ok_or_else(|| {
            self.metrics.limit_hit("account_answer_bytes");
            let detail = "Answers to this account's earlier requests are not taken yet: take them first.";
            Refused::new(ErrorCode::RateLimited, detail)
        })?;
        let of_edge = within_reason(&self.room, wanted).await.ok_or_else(|| {
            self.metrics.limit_hit("answer_bytes");
            Refused::new(ErrorCode::Unavailable, "This server answers as much as it can now. Try again.")
        })?;
        let gauge = self.metrics.answer_bytes.clone();
        gauge.inc_by(i64::from(wanted) * PIECE_BYTES as i64);
        Ok(Reading { of_account, of_edge, gauge, _share: share })
    }

    fn share_of(&self, account: AccountId) -> InUse {
        let mut accounts = self.accounts.lock();
        let share = accounts
            .entry(account)
            .or_insert_with(|| Share { room: Arc::new(Semaphore::new(self.share as usize)), readings: 0 });
        share.readings += 1;
        InUse { room: share.room.clone(), account, accounts: self.accounts.clone() }
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).max(1)
}

async fn within_reason(room: &Arc<Semaphore>, wanted: u32) -> Option<OwnedSemaphorePermit> {
    // Never closed.
    tokio::time::timeout(ROOM_WITHIN, room.clone().acquire_many_owned(wanted)).await.ok()?.ok()
}

/// An account's share while one read has to do with it.
struct InUse {
    room: Arc<Semaphore>,
    account: AccountId,
    accounts: Arc<Mutex<HashMap<AccountId, Share>>>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Entry::Occupied(mut share) = self.accounts.lock().entry(self.account) {
            share.get_mut().readings -= 1;
            if share.get().readings == 0 {
                share.remove();
            }
        }
    }
}

/// A read under way, with the room that its answer may take.
pub struct Reading {
    of_account: OwnedSemaphorePermit,
    of_edge: OwnedSemaphorePermit,
    gauge: Gauge,
    _share: InUse,
}

impl Reading {
    /// The answer as it goes to the client. Its room is free again when the last of it has been taken; what it
    /// does not need is at once.
    #[must_use]
    pub fn answer(mut self, json: Vec<u8>) -> (Bytes, Untaken) {
        let over = self.of_edge.num_permits().saturating_sub(pieces(json.len()) as usize);
        drop((self.of_account.split(over), self.of_edge.split(over)));
        self.gauge.dec_by((over * PIECE_BYTES) as i64);
        let taken = CancellationToken::new();
        let untaken = Untaken { taken: taken.clone(), bytes: json.len() };
        (Bytes::from_owner(Answering { json, _reading: self, _taken: taken.drop_guard() }), untaken)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.gauge.dec_by((self.of_edge.num_permits() * PIECE_BYTES) as i64);
    }
}

struct Answering {
    json: Vec<u8>,
    _reading: Reading,
    _taken: DropGuard,
}

impl AsRef<[u8]> for Answering {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// An answer on its way, in the extensions of its response: whoever serves the connection sees to it that the client
/// takes it in time.
#[derive(Clone)]
pub struct Untaken {
    /// Cancelled once the last of it has been taken, or its connection is gone.
    pub taken: CancellationToken,
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn account(n: u128) -> AccountId {
        AccountId::new(Uuid::from_u128(n))
    }

    fn reads(bytes_most: usize) -> Reads {
        Reads::new(bytes_most, Metrics::new())
    }

    async fn refusal(reads: &Reads, n: u128, bytes: usize) -> ErrorCode {
        reads.begin(account(n), bytes).await.err().expect("no room").code
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answer_gets_no_more_and_others_do() {
        let reads = reads(16 * 1_024 * 1_024);
        let reading = reads.begin(account(1), usize::MAX).await.unwrap();
        let (answer, untaken) = reading.answer(vec![b' '; 1_024 * 1_024]);
        assert_eq!(refusal(&reads, 1, 1).await, ErrorCode::RateLimited);
        reads.begin(account(2), usize::MAX).await.unwrap();
        let part = answer.slice(1_000_000..);
        drop(answer);
        assert!(!untaken.taken.is_cancelled());
        assert_eq!(refusal(&reads, 1, 1).await, ErrorCode::RateLimited);
        drop(part);
        assert!(untaken.taken.is_cancelled());
        reads.begin(account(1), usize::MAX).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_keeps_only_what_it_needs() {
        let reads = reads(16 * 10 * PIECE_BYTES);
        let first = reads.begin(account(1), usize::MAX).await.unwrap();
        assert_eq!(reads.metrics.answer_bytes.get(), 10 * PIECE_BYTES as i64);
        let (first, _) = first.answer(vec![b' '; PIECE_BYTES + 1]);
        assert_eq!(reads.metrics.answer_bytes.get(), 2 * PIECE_BYTES as i64);
        let second = reads.begin(account(1), 8 * PIECE_BYTES).await.unwrap();
        assert_eq!(refusal(&reads, 1, 1).await, ErrorCode::RateLimited);
        drop((first, second));
        assert_eq!(reads.metrics.answer_bytes.get(), 0);
        assert_eq!(reads.room.available_permits(), 16 * 10);
        assert!(reads.accounts.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_edge_has_a_bound_whoever_reads() {
        let reads = reads(16 * 1_024 * 1_024);
        let mut readings = Vec::new();
        for n in 0..u128::from(SHARES) {
            readings.push(reads.begin(account(n), usize::MAX).await.unwrap());
        }
        assert_eq!(refusal(&reads, 99, 1).await, ErrorCode::Unavailable);
        assert_eq!(reads.accounts.lock().len(), SHARES as usize);
        readings.pop();
        reads.begin(account(99), 1).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_the_one_before() {
        let reads = Arc::new(reads(16 * 1_024 * 1_024));
        let first = reads.begin(account(1), usize::MAX).await.unwrap();
        let second = tokio::spawn({
            let reads = reads.clone();
            async move { reads.begin(account(1), usize::MAX).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }
}
