//! The outbox: what waits for one client, in the order in which it is written, and what waits behind a
//! resume (rule P6). Pure: whoever holds it locks it, and wakes the connection where it says so.

use super::coverage::CoverageBook;
use bytes::Bytes;
use reedi_protocol::{Checkpoint, CloseCode, Position, Shard};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

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

/// What a connection does next.
pub enum Next {
    /// Write these, in order.
    Frames(Vec<OutFrame>),
    /// Ask the client for a sign of life.
    Ping,
    /// Close with this.
    Close(Close),
}

/// Whether the connection has something to do now.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Yes,
    No,
}

/// Live frames that wait until the client has resumed or shown that it will not.
struct Held {
    since: Instant,
    /// What waits lies after this, and what does not is dropped: it happened before this session, or a
    /// resume replays it. `None` until the session has its place.
    baseline: Option<Checkpoint>,
    resume: Resume,
    frames: VecDeque<OutFrame>,
    bytes: usize,
}

/// What is known of a resume: once there is one, nothing but its end lets live frames go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume {
    None,
    /// It has come, and waits for its turn.
    Expected,
    Begun,
}

impl Held {
    fn new(baseline: Option<Checkpoint>, resume: Resume) -> Box<Self> {
        Box::new(Self { since: Instant::now(), baseline, resume, frames: VecDeque::new(), bytes: 0 })
    }

    fn waits_for_a_word(&self) -> bool {
        self.resume == Resume::None && self.baseline.is_some()
    }
}

/// What waits for one client.
pub struct Outbox {
    /// What can be written.
    frames: VecDeque<OutFrame>,
    /// Bytes of the live ones of them.
    bytes: usize,
    /// How many of them a resume put there: bounded by how much it replays and not by the limits, or a
    /// client that missed more than an outbox holds would come back for ever.
    replayed: usize,
    held: Option<Box<Held>>,
    close: Option<Close>,
    /// How far the client had been told elsewhere, beyond what this edge knew when it resumed: what comes up to there
    /// it has. Gone once the edge knows as much.
    ahead: Option<Checkpoint>,
    /// Whether an event was told since the last checkpoint frame.
    told: bool,
    /// A resume was not carried out yet: what was missed before is still owed, and no place may be
    /// claimed that lies beyond it.
    owes: bool,
    /// Whether the client is to be asked for a sign of life.
    ping: bool,
}

impl Default for Outbox {
    /// One that holds live frames back until it is released.
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            replayed: 0,
            held: Some(Held::new(None, Resume::None)),
            close: None,
            ahead: None,
            told: false,
            owes: false,
            ping: false,
        }
    }
}

impl Outbox {
    /// Puts a live event in. One that finds no room ends the session: the client comes back and resumes,
    /// so nothing is dropped silently.
    pub fn push(&mut self, frame: OutFrame, limits: OutboxLimits) -> Wake {
        let is_known =
            |ahead: &Checkpoint| frame.place.is_some_and(|(shard, position)| position <= ahead.get(shard));
        if self.close.is_some() || self.ahead.as_ref().is_some_and(is_known) {
            return Wake::No;
        }
        let (held, held_bytes) = self.held.as_ref().map_or((0, 0), |held| (held.frames.len(), held.bytes));
        let frames = self.frames.len() - self.replayed + held;
        if frames >= limits.frames || self.bytes + held_bytes + frame.text.len() > limits.bytes {
            self.take();
            self.held = None;
            return self.close(CloseCode::SlowConsumer, "outbox full: reconnect and resume".into());
        }
        self.told |= frame.place.is_some();
        if let Some(held) = &mut self.held {
            held.bytes += frame.text.len();
            held.frames.push_back(frame);
            return Wake::No;
        }
        self.bytes += frame.text.len();
        self.frames.push_back(frame);
        Wake::Yes
    }

    /// A frame of a resume itself, which everything that is held goes behind.
    pub fn push_replayed(&mut self, frame: OutFrame) -> Wake {
        if self.close.is_some() {
            return Wake::No;
        }
        self.replayed += 1;
        self.frames.push_back(frame);
        Wake::Yes
    }

    /// Ends it; what waits is not written any more. The first reason counts.
    pub fn close(&mut self, code: CloseCode, reason: String) -> Wake {
        self.close.get_or_insert(Close { code, reason });
        Wake::Yes
    }

    /// Everything up to `baseline` happened before this session, or its client has it: of what is held back,
    /// only what lies after that will be told.
    pub fn begin_after(&mut self, baseline: Checkpoint) {
        if let Some(held) = &mut self.held {
            held.baseline = Some(baseline);
        }
    }

    /// The client resumes from a place that this edge has not come to: another one told it more.
    pub fn begin_ahead(&mut self, told_to: Checkpoint) {
        self.begin_after(told_to.clone());
        self.ahead = Some(told_to);
    }

    /// This edge has come to `through`.
    pub fn has_come_to(&mut self, through: &Checkpoint) {
        self.ahead.take_if(|ahead| Shard::all().all(|shard| ahead.get(shard) <= through.get(shard)));
    }

    /// A resume has come and will begin when it is its turn: live frames wait from here on, whatever else
    /// the client says meanwhile. What was told before goes out as it would have. The book is locked, so
    /// its place is the one after which frames wait.
    pub fn expect_resume(&mut self, book: &CoverageBook) {
        match &mut self.held {
            Some(held) if held.resume != Resume::None => {}
            Some(held) => {
                held.resume = Resume::Expected;
                held.baseline.get_or_insert_with(|| book.through());
            }
            None => self.held = Some(Held::new(Some(book.through()), Resume::Expected)),
        }
    }

    /// The resume that was expected begins. Gives the place up to which to replay: where the session
    /// began, if nothing has been told yet, else how far it was told when the resume came. `None` while
    /// an earlier resume goes on, or the client has not taken what that replayed.
    pub fn begin_resume(&mut self) -> Option<Checkpoint> {
        if self.replayed > 0 {
            return None;
        }
        let held = self.held.as_mut().filter(|held| held.resume == Resume::Expected)?;
        held.resume = Resume::Begun;
        held.baseline.clone()
    }

    /// The resume that was expected does not begin: what waits for it goes.
    pub fn resume_refused(&mut self) -> Wake {
        match &self.held {
            Some(held) if held.resume == Resume::Expected => self.release(),
            _ => Wake::No,
        }
    }

    /// Lets live frames go, those after the baseline.
    pub fn release(&mut self) -> Wake {
        let Some(held) = self.held.take() else { return Wake::No };
        for frame in held.frames {
            let is_before = |baseline: &Checkpoint| {
                frame.place.is_some_and(|(shard, position)| position <= baseline.get(shard))
            };
            if !held.baseline.as_ref().is_some_and(is_before) {
                self.bytes += frame.text.len();
                self.frames.push_back(frame);
            }
        }
        Wake::Yes
    }

    /// Whether live frames wait for something else than a word of the client, within `patience`.
    #[must_use]
    pub fn is_holding(&self, patience: Duration) -> bool {
        self.held.as_ref().is_some_and(|held| !held.waits_for_a_word() || held.since.elapsed() < patience)
    }

    /// The client spoke, and not of resuming: it wants what happens from now on.
    pub fn spoke(&mut self) -> Wake {
        match &self.held {
            Some(held) if held.waits_for_a_word() => self.release(),
            _ => Wake::No,
        }
    }

    /// Whether an event was told since the last time this was asked, and everything before it too.
    pub fn take_told(&mut self) -> bool {
        self.held.is_none() && !self.owes && self.ahead.is_none() && std::mem::take(&mut self.told)
    }

    /// Says whether what a resume asked for is still to come.
    pub fn owes(&mut self, owes: bool) {
        self.owes = owes;
    }

    /// The client is to be asked for a sign of life.
    pub fn ping(&mut self) {
        self.ping = true;
    }

    /// What there is to write now: all of it, so that a backlog goes out in one write.
    #[must_use]
    pub fn take_next(&mut self) -> Option<Next> {
        if let Some(close) = &self.close {
            return Some(Next::Close(close.clone()));
        }
        if std::mem::take(&mut self.ping) {
            return Some(Next::Ping);
        }
        let frames = self.take_frames();
        (!frames.is_empty()).then_some(Next::Frames(frames))
    }

    /// The frames that can be written now; none where the session ends.
    #[must_use]
    pub fn take_frames(&mut self) -> Vec<OutFrame> {
        if self.close.is_some() { Vec::new() } else { self.take().into() }
    }

    /// Frames that wait, held ones included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.frames.len() + self.held.as_ref().map_or(0, |held| held.frames.len())
    }

    /// Takes everything that can be written. The queue's memory goes with it: an idle session holds none.
    fn take(&mut self) -> VecDeque<OutFrame> {
        (self.bytes, self.replayed) = (0, 0);
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_link::{Coverage, EdgeId, Generation, WorkerId};
    use reedi_protocol::Epoch;

    const LIMITS: OutboxLimits = OutboxLimits { frames: 10, bytes: 1_000 };

    fn frame(sequence: u64) -> OutFrame {
        let position = Position::new(Epoch::FIRST, sequence).unwrap();
        OutFrame { text: Bytes::from(sequence.to_string()), place: Some((Shard(3), position)) }
    }

    fn written(outbox: &mut Outbox) -> Vec<String> {
        match outbox.take_next() {
            Some(Next::Frames(frames)) => {
                frames.iter().map(|f| String::from_utf8_lossy(&f.text).into_owned()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn push(outbox: &mut Outbox, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            let _ = outbox.push(frame(sequence), LIMITS);
        }
    }

    fn replay(outbox: &mut Outbox, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            let _ = outbox.push_replayed(frame(sequence));
        }
    }

    fn after(sequence: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.set(Shard(3), Position::new(Epoch::FIRST, sequence).unwrap());
        checkpoint
    }

    fn begun_after(sequence: u64) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.begin_after(after(sequence));
        outbox
    }

    fn book_at(sequence: u64) -> CoverageBook {
        let at = Position::new(Epoch::FIRST, sequence).unwrap();
        let range = Coverage { shard: Shard(3), generation: Generation(1), after: at, through: at };
        let mut book = CoverageBook::new(EdgeId(1));
        book.take(WorkerId(1), 1, &[range], Vec::new());
        book
    }

    /// A resume that comes and begins at once.
    fn resumed(outbox: &mut Outbox) -> Option<Checkpoint> {
        outbox.expect_resume(&CoverageBook::new(EdgeId(1)));
        outbox.begin_resume()
    }

    /// Else what waits would be written by the way, and the close that says why after it.
    #[test]
    fn nothing_is_written_of_a_session_that_ends() {
        let mut outbox = begun_after(1);
        let _ = outbox.release();
        push(&mut outbox, 2..=3);
        let _ = outbox.close(CloseCode::Restarting, String::new());
        assert!(outbox.take_frames().is_empty());
        assert!(matches!(outbox.take_next(), Some(Next::Close(_))));
    }

    #[test]
    fn live_frames_wait_for_the_baseline_and_older_ones_are_not_told() {
        let mut outbox = Outbox::default();
        push(&mut outbox, 1..=3);
        assert!(written(&mut outbox).is_empty());
        outbox.begin_after(after(2));
        assert_eq!(outbox.spoke(), Wake::Yes);
        assert_eq!(written(&mut outbox), ["3"]);
        push(&mut outbox, 4..=4);
        assert_eq!(written(&mut outbox), ["4"]);
    }

    #[test]
    fn a_resume_replays_before_what_was_held() {
        let mut outbox = begun_after(2);
        push(&mut outbox, 3..=3);
        assert_eq!(resumed(&mut outbox), Some(after(2)), "nothing has been told yet");
        assert_eq!(resumed(&mut outbox), None, "one at a time");
        assert_eq!(outbox.spoke(), Wake::No);
        assert!(outbox.is_holding(Duration::ZERO));
        push(&mut outbox, 4..=4);
        replay(&mut outbox, 1..=2);
        assert_eq!(written(&mut outbox), ["1", "2"], "what is replayed need not wait for the rest");
        assert_eq!(outbox.release(), Wake::Yes);
        assert_eq!(written(&mut outbox), ["3", "4"]);
    }

    /// The schedule: a resume waits for its account's limit, and a command behind it is done first.
    #[test]
    fn a_command_behind_a_resume_does_not_let_live_frames_overtake_it() {
        let mut outbox = begun_after(2);
        outbox.expect_resume(&CoverageBook::new(EdgeId(1)));
        push(&mut outbox, 3..=3);
        assert_eq!(outbox.spoke(), Wake::No);
        assert!(written(&mut outbox).is_empty());
        assert!(outbox.is_holding(Duration::ZERO));
        assert_eq!(outbox.begin_resume(), Some(after(2)));
        replay(&mut outbox, 1..=1);
        assert_eq!(outbox.release(), Wake::Yes);
        assert_eq!(written(&mut outbox), ["1", "3"]);
    }

    #[test]
    fn a_resume_that_is_refused_lets_go() {
        let mut outbox = begun_after(2);
        outbox.expect_resume(&CoverageBook::new(EdgeId(1)));
        push(&mut outbox, 3..=3);
        assert_eq!(outbox.resume_refused(), Wake::Yes);
        assert_eq!(written(&mut outbox), ["3"]);
    }

    #[test]
    fn what_another_edge_told_is_not_told_again() {
        let mut outbox = begun_after(2);
        push(&mut outbox, 3..=5);
        assert_eq!(resumed(&mut outbox), Some(after(2)));
        outbox.begin_after(after(4));
        assert_eq!(outbox.release(), Wake::Yes);
        assert_eq!(written(&mut outbox), ["5"]);
    }

    /// Else a client that resumes without a checkpoint would lose what was told and not written yet.
    #[test]
    fn what_was_told_before_a_late_resume_is_written_before_it() {
        let mut outbox = begun_after(2);
        assert_eq!(outbox.spoke(), Wake::Yes);
        push(&mut outbox, 3..=4);
        outbox.expect_resume(&book_at(4));
        push(&mut outbox, 5..=5);
        assert_eq!(outbox.begin_resume().map(|at| at.get(Shard(3))), Some(after(4).get(Shard(3))));
        replay(&mut outbox, 100..=100);
        assert_eq!(outbox.release(), Wake::Yes);
        assert_eq!(written(&mut outbox), ["3", "4", "100", "5"]);
    }

    #[test]
    fn what_a_resume_replays_leaves_room_for_what_is_live() {
        let mut outbox = begun_after(50);
        assert!(resumed(&mut outbox).is_some());
        replay(&mut outbox, 1..=50);
        push(&mut outbox, 51..=60);
        assert_eq!(outbox.release(), Wake::Yes);
        assert_eq!(resumed(&mut outbox), None, "no second replay upon one that was not taken");
        assert_eq!(outbox.resume_refused(), Wake::Yes);
        assert_eq!(written(&mut outbox).len(), 60);
        push(&mut outbox, 61..=71);
        assert!(matches!(outbox.take_next(), Some(Next::Close(_))), "live ones are bounded as ever");
    }

    #[test]
    fn no_place_is_claimed_while_a_resume_is_owed() {
        let mut outbox = begun_after(2);
        assert!(resumed(&mut outbox).is_some());
        outbox.owes(true);
        assert_eq!(outbox.release(), Wake::Yes);
        push(&mut outbox, 3..=3);
        assert!(!outbox.take_told(), "a checkpoint now would hide what was missed");
        outbox.owes(false);
        assert!(outbox.take_told());
    }

    fn checkpoint(sequence: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.set(Shard(3), Position::new(Epoch::FIRST, sequence).unwrap());
        checkpoint
    }

    /// Another edge had told the client up to 5 when this one had only come to 2.
    #[test]
    fn what_another_edge_has_told_is_told_once() {
        let mut outbox = begun_after(2);
        assert!(resumed(&mut outbox).is_some());
        outbox.begin_ahead(checkpoint(5));
        push(&mut outbox, 3..=3);
        assert_eq!(outbox.release(), Wake::Yes);
        push(&mut outbox, 4..=7);
        assert_eq!(written(&mut outbox), ["6", "7"]);
        outbox.has_come_to(&checkpoint(4));
        assert!(!outbox.take_told(), "a checkpoint now would take the client back");
        outbox.has_come_to(&checkpoint(7));
        assert!(outbox.take_told());
    }

    #[test]
    fn a_full_outbox_closes_with_slow_consumer() {
        let mut outbox = begun_after(1);
        push(&mut outbox, 2..=6);
        assert_eq!(outbox.release(), Wake::Yes);
        push(&mut outbox, 7..=12);
        let Some(Next::Close(close)) = outbox.take_next() else { panic!("it goes on") };
        assert_eq!(close.code, CloseCode::SlowConsumer);
        assert_eq!(outbox.waiting(), 0);
    }
}
