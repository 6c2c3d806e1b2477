//! A session: one connection of an account, whatever front door it came through, and its outbox.

use super::authenticate::Identity;
use super::coverage::CoverageBook;
use bytes::Bytes;
use parking_lot::Mutex;
use reedi_protocol::{
    AccountId, Checkpoint, CloseCode, ConversationKey, DeviceId, Position, Shard, Timestamp,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Conversations that one session may have joined at once.
pub const JOINED_MOST: usize = 100;

/// Commands of one session that may wait for others at once.
pub const PATIENT_MOST: u32 = 16;

/// Commands refused in a row for coming too fast, after which the connection ends: several times what
/// a client has under way when the first refusal reaches it.
const UNHEEDED_MOST: u32 = 256;

/// A frame for a client, encoded once for all who get it: `{"event":NAME,"data":DATA}`.
#[derive(Clone, Debug)]
pub struct OutFrame {
    pub text: Bytes,
    /// Where the durable event in it stands.
    pub place: Option<(Shard, Position)>,
}

/// Why the server ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: CloseCode,
    pub reason: String,
}

/// How many frames and bytes may wait for one client (invariant `bounded_and_visible`).
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    pub frames: usize,
    pub bytes: usize,
}

/// Live frames wait in the outbox, until the client has resumed or shown that it will not.
struct Held {
    since: Instant,
    /// Everything up to here happened before this session, as far as it goes.
    baseline: Option<Checkpoint>,
    /// A resume is going on: nothing but its end lets go.
    resuming: bool,
}

#[derive(Default)]
struct Outbox {
    frames: VecDeque<OutFrame>,
    bytes: usize,
    held: Option<Box<Held>>,
    close: Option<Close>,
    /// Whether an event went out since the last checkpoint frame.
    told: bool,
    /// A resume was not carried out yet: what was missed before is still owed, and no place may be
    /// claimed that lies beyond it.
    owes: bool,
    /// Whether the client is to be asked for a sign of life.
    ping: bool,
}

/// What a connection does next.
pub enum Next {
    /// Write these, in order.
    Frames(Vec<OutFrame>),
    /// Ask the client for a sign of life.
    Ping,
    /// Close with this.
    Close(Close),
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
    /// Commands refused in a row for coming too fast.
    unheeded: AtomicU32,
}

impl Session {
    /// A session that holds live frames back until [`Session::release`].
    #[must_use]
    pub fn new(id: u64, identity: Identity, limits: OutboxLimits) -> Arc<Self> {
        let held = Held { since: Instant::now(), baseline: None, resuming: false };
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
            outbox: Mutex::new(Outbox { held: Some(Box::new(held)), ..Outbox::default() }),
            wake: Notify::new(),
            joined: Mutex::default(),
            unheeded: AtomicU32::new(0),
        })
    }

    /// Puts a live event into the outbox. An outbox that is full ends the session: the client comes
    /// back and resumes, so nothing is dropped silently.
    pub fn push(&self, frame: OutFrame) {
        let mut outbox = self.outbox.lock();
        if outbox.close.is_some() {
            return;
        }
        if outbox.frames.len() >= self.limits.frames || outbox.bytes + frame.text.len() > self.limits.bytes {
            outbox.close = Some(Close {
                code: CloseCode::SlowConsumer,
                reason: "outbox full: reconnect and resume".into(),
            });
            outbox.frames = VecDeque::new();
            outbox.bytes = 0;
            drop(outbox);
            self.wake.notify_one();
            return;
        }
        outbox.bytes += frame.text.len();
        outbox.told |= frame.place.is_some();
        outbox.frames.push_back(frame);
        let wake = outbox.held.is_none();
        drop(outbox);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Ends the session; what waits is not written any more.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        let mut outbox = self.outbox.lock();
        if outbox.close.is_none() {
            outbox.close = Some(Close { code, reason: reason.into() });
        }
        drop(outbox);
        self.wake.notify_one();
    }

    /// What was held back before: the session begins after `baseline`.
    pub fn begin_after(&self, baseline: Checkpoint) {
        if let Some(held) = &mut self.outbox.lock().held {
            held.baseline = Some(baseline);
        }
    }

    /// The client asked to resume. Gives the place up to which to replay: where the session began, if
    /// nothing has been told yet, else where `book` is now. Live frames wait from here on. `None` while
    /// an earlier resume is going on.
    ///
    /// The book is the edge's own, locked: whoever tells events locks it before any outbox, and to lock
    /// it in here, after this one, would be a deadlock.
    pub fn begin_resume(&self, book: &CoverageBook) -> Option<Checkpoint> {
        let mut outbox = self.outbox.lock();
        if outbox.held.as_ref().is_some_and(|held| held.resuming) {
            return None;
        }
        let baseline = outbox.held.as_mut().and_then(|held| held.baseline.clone());
        let baseline = baseline.unwrap_or_else(|| book.through());
        let held = Held { since: Instant::now(), baseline: Some(baseline.clone()), resuming: true };
        outbox.held = Some(Box::new(held));
        Some(baseline)
    }

    /// The client that resumes has everything up to `baseline`: it is told nothing of that again.
    pub fn has_up_to(&self, baseline: &Checkpoint) {
        if let Some(held) = &mut self.outbox.lock().held {
            held.baseline = Some(baseline.clone());
        }
    }

    /// Lets live frames go, those after the baseline.
    pub fn release(&self) {
        let mut outbox = self.outbox.lock();
        let Some(held) = outbox.held.take() else { return };
        if let Some(baseline) = held.baseline {
            outbox
                .frames
                .retain(|frame| frame.place.is_none_or(|(shard, position)| position > baseline.get(shard)));
            outbox.bytes = outbox.frames.iter().map(|frame| frame.text.len()).sum();
        }
        drop(outbox);
        self.wake.notify_one();
    }

    /// Lets go if nobody began a resume within `patience`. True once nothing is held any more.
    pub fn release_unless_resuming(&self, patience: std::time::Duration) -> bool {
        let due = match &self.outbox.lock().held {
            None => return true,
            Some(held) => !held.resuming && held.baseline.is_some() && held.since.elapsed() >= patience,
        };
        if due {
            self.release();
        }
        due
    }

    /// The client spoke, and not of resuming: it wants what happens from now on.
    pub fn spoke(&self) {
        if self.outbox.lock().held.as_ref().is_some_and(|held| !held.resuming && held.baseline.is_some()) {
            self.release();
        }
    }

    /// A frame of the resume itself: goes before everything that is held.
    pub fn push_ahead(&self, frame: OutFrame, ahead: &mut usize) {
        let mut outbox = self.outbox.lock();
        let at = (*ahead).min(outbox.frames.len());
        outbox.bytes += frame.text.len();
        outbox.frames.insert(at, OutFrame { place: None, ..frame });
        *ahead = at + 1;
    }

    /// Whether an event was told since the last time this was asked, and everything before it too.
    pub fn take_told(&self) -> bool {
        let mut outbox = self.outbox.lock();
        outbox.held.is_none() && !outbox.owes && std::mem::take(&mut outbox.told)
    }

    /// Says whether what a resume asked for is still to come.
    pub fn owes(&self, owes: bool) {
        self.outbox.lock().owes = owes;
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
        let mut outbox = self.outbox.lock();
        if let Some(close) = &outbox.close {
            return Some(Next::Close(close.clone()));
        }
        if std::mem::take(&mut outbox.ping) {
            return Some(Next::Ping);
        }
        if outbox.held.is_some() || outbox.frames.is_empty() {
            return None;
        }
        outbox.bytes = 0;
        // The queue's memory goes with it: an idle session holds none.
        Some(Next::Frames(std::mem::take(&mut outbox.frames).into()))
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
            self.outbox.lock().ping = true;
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

    /// A command was not refused for coming too fast.
    pub fn heeded(&self) {
        self.unheeded.store(0, Ordering::Relaxed);
    }

    /// A command came too fast again. Who does not heed being told so is sent away.
    pub fn unheeded(&self, retry_after_s: u64) {
        if self.unheeded.fetch_add(1, Ordering::Relaxed) + 1 >= UNHEEDED_MOST {
            let wait_ms = retry_after_s * 1_000;
            self.close(CloseCode::TooMany, format!("{{\"reconnectAfterMs\":{wait_ms}}}"));
        }
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

    pub fn leave(&self, conversation: ConversationKey) {
        self.joined.lock().retain(|c| *c != conversation);
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
        self.outbox.lock().frames.len()
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
    use crate::edge_link::EdgeId;
    use reedi_protocol::Epoch;

    fn session(frames: usize) -> Arc<Session> {
        let account = AccountId::new(uuid::Uuid::from_u128(1));
        let identity = Identity { account, device: None, expires_at: Timestamp::from_millis(1) };
        Session::new(1, identity, OutboxLimits { frames, bytes: 1_000 })
    }

    fn frame(sequence: u64) -> OutFrame {
        let position = Position::new(Epoch::FIRST, sequence).unwrap();
        OutFrame { text: Bytes::from(sequence.to_string()), place: Some((Shard(3), position)) }
    }

    fn written(session: &Session) -> Vec<String> {
        match session.try_next() {
            Some(Next::Frames(frames)) => {
                frames.iter().map(|f| String::from_utf8_lossy(&f.text).into_owned()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn after(sequence: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.set(Shard(3), Position::new(Epoch::FIRST, sequence).unwrap());
        checkpoint
    }

    #[test]
    fn live_frames_wait_for_the_baseline_and_older_ones_are_not_told() {
        let session = session(10);
        (1..=3).for_each(|n| session.push(frame(n)));
        assert!(written(&session).is_empty());
        session.begin_after(after(2));
        session.spoke();
        assert_eq!(written(&session), ["3"]);
        session.push(frame(4));
        assert_eq!(written(&session), ["4"]);
    }

    #[test]
    fn a_resume_replays_before_what_was_held() {
        let session = session(10);
        session.begin_after(after(2));
        session.push(frame(3));
        let book = CoverageBook::new(EdgeId(1));
        assert_eq!(session.begin_resume(&book), Some(after(2)), "nothing has been told yet");
        assert_eq!(session.begin_resume(&book), None, "one at a time");
        session.spoke();
        assert!(!session.release_unless_resuming(std::time::Duration::ZERO));
        session.push(frame(4));
        let mut ahead = 0;
        session.push_ahead(frame(1), &mut ahead);
        session.push_ahead(frame(2), &mut ahead);
        session.release();
        assert_eq!(written(&session), ["1", "2", "3", "4"]);
    }

    #[test]
    fn what_another_edge_told_is_not_told_again() {
        let session = session(10);
        session.begin_after(after(2));
        (3..=5).for_each(|n| session.push(frame(n)));
        assert_eq!(session.begin_resume(&CoverageBook::new(EdgeId(1))), Some(after(2)));
        session.has_up_to(&after(4));
        session.release();
        assert_eq!(written(&session), ["5"]);
    }

    #[test]
    fn a_silent_client_is_asked_once() {
        let session = session(2);
        session.heard(1_000);
        session.ping_if_silent(30_999, 30_000);
        assert!(session.try_next().is_none());
        session.ping_if_silent(31_000, 30_000);
        assert!(matches!(session.try_next(), Some(Next::Ping)));
        session.ping_if_silent(32_000, 30_000);
        assert!(session.try_next().is_none());
    }

    #[test]
    fn no_place_is_claimed_while_a_resume_is_owed() {
        let session = session(10);
        let book = CoverageBook::new(EdgeId(1));
        session.begin_after(after(2));
        assert!(session.begin_resume(&book).is_some());
        session.owes(true);
        session.release();
        session.push(frame(3));
        assert!(!session.take_told(), "a checkpoint now would hide what was missed");
        session.owes(false);
        assert!(session.take_told());
    }

    #[test]
    fn a_full_outbox_closes_with_slow_consumer() {
        let session = session(2);
        session.begin_after(Checkpoint::default());
        session.release();
        (1..=3).for_each(|n| session.push(frame(n)));
        assert!(matches!(session.try_next(), Some(Next::Close(Close { code: CloseCode::SlowConsumer, .. }))));
    }
}
