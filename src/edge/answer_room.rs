//! Room for answers: how much memory the answers to reads may take, on an edge and of each account. An answer counts from
//! before it is read until its client has taken it: who asks for much and takes none of it, takes from itself.

use super::fair_share::Taken;
use super::refused::{Outcome, Refused};
use crate::runtime::metrics::Metrics;
use bytes::Bytes;
use parking_lot::Mutex;
use reedi_protocol::{AccountId, ErrorCode, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// So many accounts that each take all they may fill an edge.
const SHARES: usize = 16;
/// Once half of the room is taken, an account may have this part of what it may have otherwise: a few that take nothing of
/// what they asked for leave the other half to everybody.
const PART_WHEN_CROWDED: usize = 8;
/// How long a read waits for room; longer than reads take.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// What a message has besides its content, reactions aside.
const FIELDS_BYTES: usize = 1_024;
/// What a conversation tells of each participant, in JSON.
const PARTICIPANT_BYTES: usize = 128;

/// Bytes that a page of messages or events may have, before JSON escapes anything.
#[must_use]
pub const fn page_bytes(limit: usize) -> usize {
    limit * (limits::CONTENT_BYTES + FIELDS_BYTES)
}

/// Bytes that a conversation, or something of each of its participants, may have.
#[must_use]
pub const fn participants_bytes(members: usize) -> usize {
    members * PARTICIPANT_BYTES
}

/// The room for answers of one edge.
pub struct AnswerRoom(Arc<Room>);

struct Room {
    most: usize,
    taken: Mutex<Taken<AccountId>>,
    freed: Notify,
    metrics: Metrics,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Account,
    Edge,
}

impl Room {
    /// What an account may have in all, as full as it is now.
    fn share(&self, taken: &Taken<AccountId>) -> usize {
        let share = (self.most / SHARES).max(1);
        if taken.all >= self.most / 2 { (share / PART_WHEN_CROWDED).max(1) } else { share }
    }

    /// Takes room for `bytes`; who wants more than its share gets all of that, once it has nothing else.
    fn take(&self, account: AccountId, bytes: usize) -> Result<usize, Full> {
        let mut taken = self.taken.lock();
        let share = self.share(&taken);
        let wanted = bytes.clamp(1, share);
        let own = taken.of(account);
        if own + wanted > share {
            return Err(Full::Account);
        }
        if taken.all + wanted > self.most {
            return Err(Full::Edge);
        }
        self.add(&mut taken, account, wanted);
        Ok(wanted)
    }

    /// Takes `bytes` more for an answer that turned out to be larger; false where that is more than there is.
    fn take_more(&self, account: AccountId, bytes: usize) -> bool {
        let mut taken = self.taken.lock();
        let own = taken.of(account);
        let fits = own + bytes <= self.share(&taken) && taken.all + bytes <= self.most;
        if fits {
            self.add(&mut taken, account, bytes);
        }
        fits
    }

    fn add(&self, taken: &mut Taken<AccountId>, account: AccountId, bytes: usize) {
        taken.add(Some(account), bytes);
        self.metrics.answer_bytes.inc_by(bytes as i64);
    }

    fn give_back(&self, account: AccountId, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.taken.lock().give_back(Some(account), bytes);
        self.metrics.answer_bytes.dec_by(bytes as i64);
        self.freed.notify_waiters();
    }
}

impl AnswerRoom {
    #[must_use]
    pub fn new(bytes_most: usize, metrics: Metrics) -> Self {
        let (taken, freed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Room { most: bytes_most, taken, freed, metrics }))
    }

    /// Waits for room for an answer of `bytes`. Taken when nothing but reading is left to wait for: what waits for the
    /// store to catch up must hold nobody up.
    ///
    /// # Errors
    /// This account's other answers take its share, or all answers the edge's room.
    pub async fn take(&self, account: AccountId, bytes: usize) -> Outcome<ReadUnderWay> {
        let mut full = Full::Edge;
        let waiting = async {
            loop {
                let mut freed = std::pin::pin!(self.0.freed.notified());
                // Before looking: what is freed in between is not missed.
                freed.as_mut().enable();
                match self.0.take(account, bytes) {
                    Ok(bytes) => return ReadUnderWay { room: self.0.clone(), account, bytes },
                    Err(why) => full = why,
                }
                freed.await;
            }
        };
        if let Ok(reading) = tokio::time::timeout(ROOM_WITHIN, waiting).await {
            return Ok(reading);
        }
        Err(self.refused(full))
    }

    fn refused(&self, full: Full) -> Refused {
        match full {
            Full::Account => {
                self.0.metrics.limit_hit("account_answer_bytes");
                let detail =
                    "This account's other answers are as much as it may ask for at once: take them first.";
                Refused::new(ErrorCode::RateLimited, detail)
            }
            Full::Edge => {
                self.0.metrics.limit_hit("answer_bytes");
                Refused::new(ErrorCode::Unavailable, "This server answers as much as it can now. Try again.")
            }
        }
    }
}

/// A read under way, with the room that its answer may take.
pub struct ReadUnderWay {
    room: Arc<Room>,
    account: AccountId,
    bytes: usize,
}

impl ReadUnderWay {
    /// The answer as it goes to the client. Its room is free again when the system has the last of it; what it does not
    /// need is at once.
    ///
    /// # Errors
    /// It is larger than was thought, by what JSON escapes, and there is no room for that.
    pub fn answer(mut self, json: Vec<u8>) -> Outcome<(Bytes, OnItsWay)> {
        let json = json.into_boxed_slice();
        if let Some(over) = self.bytes.checked_sub(json.len()) {
            self.room.give_back(self.account, over);
        } else if !self.room.take_more(self.account, json.len() - self.bytes) {
            self.room.metrics.limit_hit("account_answer_bytes");
            let detail = "This answer is larger than there is room for now: ask for a smaller page.";
            return Err(Refused::new(ErrorCode::Unavailable, detail));
        }
        self.bytes = json.len();
        let done = CancellationToken::new();
        let on_its_way = OnItsWay { done: done.clone(), bytes: json.len() };
        Ok((Bytes::from_owner(Answering { json, _reading: self, _done: done.drop_guard() }), on_its_way))
    }
}

impl Drop for ReadUnderWay {
    fn drop(&mut self) {
        self.room.give_back(self.account, self.bytes);
    }
}

struct Answering {
    json: Box<[u8]>,
    _reading: ReadUnderWay,
    _done: DropGuard,
}

impl AsRef<[u8]> for Answering {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// An answer on its way, in the extensions of its response: whoever serves the connection sees to it that the client
/// takes it in time.
#[derive(Clone)]
pub struct OnItsWay {
    /// Cancelled once the system has the last of it, or its connection is gone.
    pub done: CancellationToken,
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const MIB: usize = 1_024 * 1_024;

    fn account(n: u128) -> AccountId {
        AccountId::new(Uuid::from_u128(n))
    }

    fn room() -> AnswerRoom {
        AnswerRoom::new(16 * MIB, Metrics::new())
    }

    async fn refusal(room: &AnswerRoom, n: u128, bytes: usize) -> ErrorCode {
        room.take(account(n), bytes).await.err().expect("no room").code
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answer_gets_no_more_and_others_do() {
        let room = room();
        let reading = room.take(account(1), usize::MAX).await.unwrap();
        let (answer, on_its_way) = reading.answer(vec![b' '; MIB]).unwrap();
        assert_eq!(refusal(&room, 1, 1).await, ErrorCode::RateLimited);
        drop(room.take(account(2), usize::MAX).await.unwrap());
        let part = answer.slice(1_000_000..);
        drop(answer);
        assert!(!on_its_way.done.is_cancelled());
        assert_eq!(refusal(&room, 1, 1).await, ErrorCode::RateLimited);
        drop(part);
        assert!(on_its_way.done.is_cancelled());
        drop(room.take(account(1), usize::MAX).await.unwrap());
        assert_eq!(room.0.metrics.answer_bytes.get(), 0);
        assert!(room.0.taken.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_keeps_what_it_needs_and_no_more() {
        let room = room();
        let (small, _) = room.take(account(1), MIB).await.unwrap().answer(vec![b' '; 1_000]).unwrap();
        assert_eq!(room.0.metrics.answer_bytes.get(), 1_000);
        // What JSON escapes makes an answer larger than anybody could know before.
        let (large, _) = room.take(account(1), 1_000).await.unwrap().answer(vec![b' '; 6_000]).unwrap();
        assert_eq!(room.0.metrics.answer_bytes.get(), 7_000);
        let too_large = room.take(account(1), 1_000).await.unwrap().answer(vec![b' '; MIB]);
        assert_eq!(too_large.err().map(|refused| refused.code), Some(ErrorCode::Unavailable));
        assert_eq!(room.0.metrics.answer_bytes.get(), 7_000);
        drop((small, large));
        assert_eq!(room.0.metrics.answer_bytes.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn few_that_take_nothing_leave_half_to_everybody() {
        let room = room();
        let mut held = Vec::new();
        for n in 0..100 {
            while let Ok(reading) = room.0.take(account(n), MIB) {
                held.push((n, reading));
            }
        }
        assert_eq!(held.iter().filter(|(n, _)| *n < 8).map(|(_, bytes)| bytes).sum::<usize>(), 8 * MIB);
        assert_eq!(held.len(), 8 + 64, "an eighth of a share each, of the other half");
        assert_eq!(refusal(&room, 200, 1).await, ErrorCode::Unavailable);
        let (n, bytes) = held.pop().unwrap();
        room.0.give_back(account(n), bytes);
        drop(room.take(account(200), 1).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_the_one_before() {
        let room = Arc::new(room());
        let first = room.take(account(1), usize::MAX).await.unwrap();
        let second = tokio::spawn({
            let room = room.clone();
            async move { room.take(account(1), usize::MAX).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }
}
