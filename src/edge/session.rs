//! A session: one connection of an account, whatever front door it came through, and its outbox.

use super::authenticate::Identity;
use super::coverage::CoverageBook;
pub use super::outbox::{Close, Next, OutFrame, OutboxLimits};
use super::outbox::{Outbox, Wake};
use super::refused::{Outcome, Refused};
use crate::rate_limit::{Rate, gcra};
use parking_lot::Mutex;
use reedi_protocol::{AccountId, Checkpoint, CloseCode, ConversationKey, DeviceId, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Conversations that one session may have joined at once.
pub const JOINED_MOST: usize = 100;

/// Commands of one session that may wait for others at once.
pub const PATIENT_MOST: u32 = 64;

/// Commands refused for coming too fast, beyond which the connection ends: at once several times what a client has
/// under way when the first refusal reaches it, and for ever more than one that waits as it is told comes to.
const UNHEEDED: Rate = Rate { per_second: 5, burst: 256 };

/// Frames that count against nobody's account, for they ask nothing of any other part: pings, what is no command, new
/// tokens and the like.
const SMALL_TALK: Rate = Rate { per_second: 20, burst: 600 };

/// What one session may do so often; nothing is held for it but this number ([`gcra`]).
#[derive(Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one at `uptime_ms`.
    ///
    /// # Errors
    /// Too many; how many milliseconds to wait.
    fn take(&self, rate: Rate, uptime_ms: u64) -> Result<(), u64> {
        let now_us = uptime_ms.saturating_mul(1_000);
        let mut refused = 0;
        let next = |full_at_us| {
            gcra(Some(full_at_us), now_us, rate).inspect_err(|early| refused = early.retry_after_ms).ok()
        };
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(drop).map_err(|_| refused)
    }
}

pub struct Session {
    pub id: u64,
    pub account: AccountId,
    pub device: Option<DeviceId>,
    expires_at_ms: AtomicU64,
    /// When it came, by the log's clock in milliseconds since 1970.
    came_ms: AtomicU64,
    /// When the client last sent anything, in milliseconds of this edge's uptime.
    heard_ms: AtomicU64,
    /// When it was last asked for a sign of life, likewise.
    asked_ms: AtomicU64,
    patient: AtomicU32,
    limits: OutboxLimits,
    outbox: Mutex<Outbox>,
    wake: Notify,
    joined: Mutex<Vec<ConversationKey>>,
    unheeded: Bucket,
    small_talk: Bucket,
}

impl Session {
    /// A session that holds live frames back until [`Session::release`].
    #[must_use]
    pub fn new(id: u64, identity: Identity, limits: OutboxLimits) -> Arc<Self> {
        Arc::new(Self {
            id,
            account: identity.account,
            device: identity.device,
            expires_at_ms: AtomicU64::new(identity.expires_at.as_millis()),
            came_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            asked_ms: AtomicU64::new(0),
            patient: AtomicU32::new(0),
            limits,
            outbox: Mutex::default(),
            wake: Notify::new(),
            joined: Mutex::default(),
            unheeded: Bucket::default(),
            small_talk: Bucket::default(),
        })
    }

    /// Changes the outbox and wakes the connection where that gives it something to do.
    fn outbox(&self, change: impl FnOnce(&mut Outbox) -> Wake) {
        let wake = change(&mut self.outbox.lock());
        if wake == Wake::Yes {
            self.wake.notify_one();
        }
    }

    /// Puts a live event into the outbox: [`Outbox::push`].
    pub fn push(&self, frame: OutFrame) {
        self.outbox(|outbox| outbox.push(frame, self.limits));
    }

    /// Ends the session; what waits is not written any more.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        self.outbox(|outbox| outbox.close(code, reason.into()));
    }

    /// What lies before is not told: [`Outbox::begin_after`].
    pub fn begin_after(&self, baseline: Checkpoint) {
        self.outbox.lock().begin_after(baseline);
    }

    /// Another edge told the client more: [`Outbox::begin_ahead`].
    pub fn begin_ahead(&self, told_to: Checkpoint) {
        self.outbox.lock().begin_ahead(told_to);
    }

    /// This edge has come to `through`.
    pub fn has_come_to(&self, through: &Checkpoint) {
        self.outbox.lock().has_come_to(through);
    }

    /// A resume has come: [`Outbox::expect_resume`].
    ///
    /// The book is the edge's own, locked: whoever tells events locks it before any outbox, and to lock
    /// it in here, after this one, would be a deadlock.
    pub fn expect_resume(&self, book: &CoverageBook) {
        self.outbox.lock().expect_resume(book);
    }

    /// It begins: [`Outbox::begin_resume`].
    pub fn begin_resume(&self) -> Option<Checkpoint> {
        self.outbox.lock().begin_resume()
    }

    /// It does not begin: what waits for it goes.
    pub fn resume_refused(&self) {
        self.outbox(Outbox::resume_refused);
    }

    /// Lets live frames go.
    pub fn release(&self) {
        self.outbox(Outbox::release);
    }

    /// Lets go if nobody spoke of a resume within `patience`. True once nothing is held any more.
    pub fn release_unless_resuming(&self, patience: Duration) -> bool {
        let is_holding = self.outbox.lock().is_holding(patience);
        if !is_holding {
            self.release();
        }
        !is_holding
    }

    /// The client spoke, and not of resuming: it wants what happens from now on.
    pub fn spoke(&self) {
        self.outbox(Outbox::spoke);
    }

    /// A frame of the resume itself: goes before everything that is held.
    pub fn push_replayed(&self, frame: OutFrame) {
        self.outbox(|outbox| outbox.push_replayed(frame));
    }

    /// Whether an event was told since the last time this was asked, and everything before it too.
    pub fn take_told(&self) -> bool {
        self.outbox.lock().take_told()
    }

    /// Says whether what a resume asked for is still to come.
    pub fn owes(&self, owes: bool) {
        self.outbox.lock().owes(owes);
    }

    /// Waits for something to write; drains everything at once, so that a backlog goes out in one
    /// write.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    /// What there is to write now.
    #[must_use]
    pub fn try_next(&self) -> Option<Next> {
        self.outbox.lock().take_next()
    }

    /// What can be written now, beside something else that is written; nothing where the session ends.
    #[must_use]
    pub fn take_frames(&self) -> Vec<OutFrame> {
        self.outbox.lock().take_frames()
    }

    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_millis(self.expires_at_ms.load(Ordering::Relaxed))
    }

    pub fn renew(&self, expires_at: Timestamp) {
        self.expires_at_ms.store(expires_at.as_millis(), Ordering::Relaxed);
    }

    pub fn came(&self, at: Timestamp) {
        self.came_ms.store(at.as_millis(), Ordering::Relaxed);
    }

    #[must_use]
    pub fn came_at(&self) -> Timestamp {
        Timestamp::from_millis(self.came_ms.load(Ordering::Relaxed))
    }

    pub fn heard(&self, uptime_ms: u64) {
        self.heard_ms.store(uptime_ms, Ordering::Relaxed);
    }

    /// The client's transport has a heartbeat of its own and ends the session when it stops: the sweep
    /// need not listen for it.
    pub fn heard_by_transport(&self) {
        self.heard_ms.store(u64::MAX, Ordering::Relaxed);
    }

    #[must_use]
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// Asks for a sign of life if nothing was heard for `silence_ms` and it was not asked since.
    pub fn ping_if_silent(&self, uptime_ms: u64, silence_ms: u64) {
        let due = |since: &AtomicU64| since.load(Ordering::Relaxed).saturating_add(silence_ms) <= uptime_ms;
        if due(&self.heard_ms) && due(&self.asked_ms) {
            self.asked_ms.store(uptime_ms, Ordering::Relaxed);
            self.outbox.lock().ping();
            self.wake.notify_one();
        }
    }

    /// Begins a command that may wait for others; `None` if [`PATIENT_MOST`] do already.
    pub fn begin_patient(self: &Arc<Self>) -> Option<Patient> {
        let begun = self
            .patient
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < PATIENT_MOST).then_some(n + 1));
        begun.ok().map(|_| Patient(self.clone()))
    }

    /// A command came too fast. Who does not heed being told so is sent away.
    pub fn unheeded(&self, uptime_ms: u64, refused: &Refused) {
        if self.unheeded.take(UNHEEDED, uptime_ms).is_err() {
            let wait_ms = refused.retry_after.unwrap_or(1) * 1_000;
            self.close(CloseCode::TooMany, format!("{{\"reconnectAfterMs\":{wait_ms}}}"));
        }
    }

    /// Counts a command that counts against no account.
    ///
    /// # Errors
    /// Too many of them.
    pub fn small_talk(&self, uptime_ms: u64) -> Outcome<()> {
        self.small_talk.take(SMALL_TALK, uptime_ms).map_err(Refused::rate_limited)
    }

    /// Counts a frame that is no command. Whoever sends too many of them, and goes on, is sent away.
    ///
    /// # Errors
    /// Too many of them.
    pub fn no_command(&self, uptime_ms: u64) -> Outcome<()> {
        self.small_talk(uptime_ms).inspect_err(|refused| self.unheeded(uptime_ms, refused))
    }

    /// False where it has joined too many.
    pub fn join(&self, conversation: ConversationKey) -> bool {
        let mut joined = self.joined.lock();
        if joined.contains(&conversation) {
            return true;
        }
        if joined.len() >= JOINED_MOST {
            return false;
        }
        joined.push(conversation);
        true
    }

    /// False where it had not joined.
    pub fn leave(&self, conversation: ConversationKey) -> bool {
        let mut joined = self.joined.lock();
        let place = joined.iter().position(|of| *of == conversation);
        place.map(|place| joined.swap_remove(place)).is_some()
    }

    #[must_use]
    pub fn has_joined(&self, conversation: ConversationKey) -> bool {
        self.joined.lock().contains(&conversation)
    }

    #[must_use]
    pub fn joined(&self) -> Vec<ConversationKey> {
        self.joined.lock().clone()
    }

    #[must_use]
    pub fn waiting_frames(&self) -> usize {
        self.outbox.lock().waiting()
    }
}

/// A command of a session that waits, counted for as long as this lives.
pub struct Patient(Arc<Session>);

impl Drop for Patient {
    fn drop(&mut self) {
        self.0.patient.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the sweep would hold every session that ends within its resume for as long as the edge lives.
    #[test]
    fn one_that_ends_within_its_resume_is_held_no_more() {
        let account = AccountId::new(uuid::Uuid::from_u128(1));
        let identity = Identity { account, device: None, expires_at: Timestamp::from_millis(1) };
        let session = Session::new(1, identity, OutboxLimits { frames: 2, bytes: 1_000 });
        let book = CoverageBook::new(crate::edge_link::EdgeId(1));
        session.expect_resume(&book);
        session.begin_resume().expect("it begins");
        assert!(!session.release_unless_resuming(Duration::ZERO), "it goes on");
        session.release();
        assert!(session.release_unless_resuming(Duration::MAX));
    }

    #[test]
    fn a_session_has_so_much_small_talk() {
        let account = AccountId::new(uuid::Uuid::from_u128(1));
        let identity = Identity { account, device: None, expires_at: Timestamp::from_millis(1) };
        let session = Session::new(1, identity, OutboxLimits { frames: 2, bytes: 1_000 });
        let talk = |tries: u32, at: u64| (0..tries).filter(|_| session.no_command(at).is_ok()).count();
        assert_eq!(talk(700, 1_000), 600);
        assert_eq!(talk(50, 2_000), 20, "so many a second for ever");
        assert!(session.try_next().is_none(), "it has been told 130 times");
        assert_eq!(talk(200, 2_000), 0);
        assert!(matches!(session.try_next(), Some(Next::Close(close)) if close.code == CloseCode::TooMany));
    }

    #[test]
    fn a_silent_client_is_asked_once() {
        let account = AccountId::new(uuid::Uuid::from_u128(1));
        let identity = Identity { account, device: None, expires_at: Timestamp::from_millis(1) };
        let session = Session::new(1, identity, OutboxLimits { frames: 2, bytes: 1_000 });
        session.heard(1_000);
        session.ping_if_silent(30_999, 30_000);
        assert!(session.try_next().is_none());
        session.ping_if_silent(31_000, 30_000);
        assert!(matches!(session.try_next(), Some(Next::Ping)));
        session.ping_if_silent(32_000, 30_000);
        assert!(session.try_next().is_none());
    }
}
