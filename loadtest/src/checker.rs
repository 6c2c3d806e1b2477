//! The checker: whatever its speed, a run in which a message is wrong, doubled, out of order or
//! missing has failed. While messages are under way each session only writes down what it is told;
//! afterwards [`judge`] asks the shared invariants. What the checker knows by itself is the load
//! test's own: every message has a number, which its sender writes into it.
//!
//! A telling or an acknowledgement is a [`Line`] of 16 bytes, in a list of its session, and no more
//! are written than twice what there is to tell: 10,000 messages a second for 30 s, each told to two
//! sessions and acknowledged to one, are 14 MB, in lists that may be half empty. Of a conversation
//! that it is not in a session writes down [`ELSEWHERE_MOST`] messages.

mod judge;

use crate::client::{Data, number_in};
use parking_lot::Mutex;
use reedi_invariants::{Acked, Loss, ToldEvent, Violation};
use reedi_protocol::{AccountId, ConversationId, ConversationKey, EventId, Position};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Examples of what went wrong that are kept to be shown.
const EXAMPLES: usize = 10;
/// Messages of other conversations that a session writes down. The first of them fails the run.
const ELSEWHERE_MOST: usize = 100;

/// A message as a session was told of it, or as it was acknowledged; in the session's conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    position: Position,
    number: u32,
}

/// What a session wrote down.
#[derive(Clone, Debug, Default)]
struct Pages {
    /// In the order of the telling.
    told: Vec<Line>,
    acked: Vec<Line>,
    /// What it was told of conversations that it is not in.
    elsewhere: Vec<EventId>,
}

/// One client, who is in one conversation.
pub struct Session {
    account: AccountId,
    conversation: ConversationKey,
    /// As frames name the conversation: compared with each of them, so that none need be parsed.
    conversation_id: String,
    /// Only its own frames and the verdict lock it, so that nobody waits while messages are under way.
    pages: Mutex<Pages>,
}

/// All messages of a run, by number, and all sessions.
pub struct Checker {
    /// By number: sessions that were told of the message.
    told_of: Vec<AtomicU32>,
    /// Tellings that are written down.
    told_most: u64,
    sessions: Mutex<Vec<Arc<Session>>>,
    /// What was wrong by itself, when it came.
    found: Mutex<Verdict>,
    acknowledged: AtomicU64,
    told: AtomicU64,
}

/// What a run came to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub acknowledged: u64,
    /// Frames with a message, over all sessions.
    pub told: u64,
    /// Acknowledged and not told to a session in time, one for each of them; and told to nobody, or not
    /// in history.
    pub missing: u64,
    /// Told to a session twice, twice in history, or one message under two ids.
    pub doubled: u64,
    /// Told to a session, or standing in history, after one that stands behind it.
    pub out_of_order: u64,
    /// Told to somebody whom it is not for, told at another place than it was acknowledged at, or what
    /// nobody sent.
    pub misplaced: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

impl Verdict {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing + self.doubled + self.out_of_order + self.misplaced == 0
    }

    /// In one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} acknowledged, {} deliveries; {} missing, {} doubled, {} out of order, {} misplaced",
            self.acknowledged, self.told, self.missing, self.doubled, self.out_of_order, self.misplaced
        )
    }

    /// Counts what breaks a shared invariant.
    pub fn take(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            self.broken(violation.loss, || violation.to_string());
        }
    }

    fn broken(&mut self, loss: Loss, what: impl FnOnce() -> String) {
        let count = match loss {
            Loss::Lost => &mut self.missing,
            Loss::Doubled => &mut self.doubled,
            Loss::OutOfOrder => &mut self.out_of_order,
            Loss::Other => &mut self.misplaced,
        };
        *count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what());
        }
    }
}

/// That a message was told, as the shared invariants look at it.
#[must_use]
pub fn told_event(event: EventId) -> ToldEvent {
    ToldEvent { event, name: "new_message".to_owned() }
}

impl Session {
    fn acked(&self) -> Vec<Acked> {
        let acked = |line: &Line| Acked {
            sender: self.account,
            // As the load test knows it; the server was given another one beside it.
            client_message_id: line.number.to_string(),
            message: self.conversation.event_id(line.position),
            at_ms: 0,
        };
        self.pages.lock().acked.iter().map(acked).collect()
    }
}

impl Checker {
    /// For messages numbered below `messages`, each told to `audience` sessions.
    #[must_use]
    pub fn new(messages: usize, audience: u32) -> Self {
        Self {
            told_of: std::iter::repeat_with(AtomicU32::default).take(messages).collect(),
            told_most: 2 * messages as u64 * u64::from(audience),
            sessions: Mutex::default(),
            found: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// A session of `account`, which must be told of everything that is acknowledged in `conversation`.
    pub fn session(&self, conversation: ConversationId, account: AccountId) -> Arc<Session> {
        let session = Arc::new(Session {
            account,
            conversation: conversation.key(),
            conversation_id: conversation.to_string(),
            pages: Mutex::default(),
        });
        self.sessions.lock().push(session.clone());
        session
    }

    fn broken(&self, loss: Loss, what: impl FnOnce() -> String) {
        self.found.lock().broken(loss, what);
    }

    /// The count of message `number`, if there is such a message.
    fn told_of(&self, number: u64) -> Option<&AtomicU32> {
        let told_of = self.told_of.get(number as usize);
        if told_of.is_none() {
            self.broken(Loss::Other, || format!("message {number} was never sent"));
        }
        told_of
    }

    /// A session was told that message `number`, which it sent, stands at `position`.
    pub fn acknowledged(&self, session: &Session, number: u64, position: Position) {
        if self.told_of(number).is_none() {
            return;
        }
        if self.acknowledged_count() < self.told_of.len() as u64 {
            session.pages.lock().acked.push(Line { position, number: number as u32 });
        } else {
            self.broken(Loss::Doubled, || format!("more was acknowledged than sent, last message {number}"));
        }
        // Only now, and so for whoever reads the count: what is counted is written down.
        self.acknowledged.fetch_add(1, Ordering::Release);
    }

    /// A session was sent a message. Gives the message's number and how many sessions have been told of
    /// it now; `None` for what is none of its conversation.
    pub fn heard(&self, session: &Session, data: &Data) -> Option<(u64, u32)> {
        let Some(position) = data.position.filter(|position| !position.is_start()) else {
            self.foreign("a message that stands nowhere");
            return None;
        };
        if data.conversation_id != Some(session.conversation_id.as_str()) {
            self.told_elsewhere(session, data.conversation_id, position);
            return None;
        }
        let Some(number) = data.content.as_deref().and_then(number_in) else {
            self.foreign("a message that nobody sent");
            return None;
        };
        Some((number, self.told(session, number, position)))
    }

    fn told(&self, session: &Session, number: u64, position: Position) -> u32 {
        let Some(told_of) = self.told_of(number) else { return 0 };
        if self.told_count() < self.told_most {
            session.pages.lock().told.push(Line { position, number: number as u32 });
        } else {
            self.broken(Loss::Doubled, || format!("twice as much was told as is, then message {number}"));
        }
        // As above.
        self.told.fetch_add(1, Ordering::Release);
        told_of.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn told_elsewhere(&self, session: &Session, conversation: Option<&str>, position: Position) {
        let conversation = conversation.and_then(|id| id.parse::<ConversationId>().ok());
        let Some(conversation) = conversation else {
            return self.foreign("a message of no conversation");
        };
        let mut pages = session.pages.lock();
        if pages.elsewhere.len() < ELSEWHERE_MOST {
            pages.elsewhere.push(conversation.key().event_id(position));
        }
    }

    /// What is not for this session, or ended it.
    pub fn foreign(&self, what: &str) {
        self.broken(Loss::Other, || what.to_owned());
    }

    #[must_use]
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn told_count(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// What was acknowledged in a conversation.
    #[must_use]
    pub fn acknowledged_in(&self, conversation: ConversationId) -> Vec<Acked> {
        let sessions = self.sessions.lock();
        let of_it = sessions.iter().filter(|session| session.conversation == conversation.key());
        of_it.flat_map(|session| session.acked()).collect()
    }

    /// Judges. Nothing may be under way any more.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.found.lock().clone();
        verdict.acknowledged = self.acknowledged_count();
        verdict.told = self.told_count();
        judge::judge(&self.sessions.lock(), self.told_of.len(), &mut verdict);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::Epoch;

    const TALK: ConversationKey = ConversationKey::from_u64(7);
    const OTHER: ConversationKey = ConversationKey::from_u64(8);

    fn account(n: u128) -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(n))
    }

    fn at(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    /// Two who talk, and room for so many messages.
    fn pair(messages: usize) -> (Checker, [Arc<Session>; 2]) {
        let checker = Checker::new(messages, 2);
        let sessions = [1, 2].map(|n| checker.session(TALK.conversation_id(), account(n)));
        (checker, sessions)
    }

    /// The same, and both are told of message 0 at 10.
    fn told_one(messages: usize) -> (Checker, [Arc<Session>; 2]) {
        let (checker, sessions) = pair(messages);
        for session in &sessions {
            checker.told(session, 0, at(10));
        }
        (checker, sessions)
    }

    /// Three messages, acknowledged to the first at 10, 11 and 12. Sessions are told what is given, each
    /// message where it stands.
    fn told(first: &[u64], second: &[u64]) -> (Checker, [Arc<Session>; 2]) {
        let (checker, sessions) = pair(3);
        (0..3).for_each(|n| checker.acknowledged(&sessions[0], n, at(10 + n)));
        for (session, numbers) in sessions.iter().zip([first, second]) {
            for n in numbers {
                checker.told(session, *n, at(10 + n));
            }
        }
        (checker, sessions)
    }

    /// Missing, doubled, out of order, misplaced.
    fn counts(checker: &Checker) -> [u64; 4] {
        let verdict = checker.verdict();
        let counts = [verdict.missing, verdict.doubled, verdict.out_of_order, verdict.misplaced];
        assert_eq!(counts.iter().sum::<u64>(), verdict.examples.len() as u64, "{verdict:?}");
        counts
    }

    #[test]
    fn a_clean_run_is_clean() {
        let (checker, _) = told(&[0, 1, 2], &[0, 1, 2]);
        let verdict = checker.verdict();
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.told), (3, 6));
        let acked = checker.acknowledged_in(TALK.conversation_id());
        assert_eq!(
            acked.iter().map(|ack| ack.message.position()).collect::<Vec<_>>(),
            [at(10), at(11), at(12)]
        );
        assert!(checker.acknowledged_in(OTHER.conversation_id()).is_empty());
    }

    #[test]
    fn how_many_were_told_is_known_at_once() {
        let (checker, [first, second]) = pair(1);
        assert_eq!((checker.told(&first, 0, at(10)), checker.told(&second, 0, at(10))), (1, 2));
    }

    #[test]
    fn what_is_not_acknowledged_may_be_missing() {
        let (checker, [first, _]) = pair(2);
        checker.told(&first, 0, at(10));
        assert_eq!(counts(&checker), [0, 0, 0, 0]);
    }

    #[test]
    fn what_is_acknowledged_and_not_told_is_missing() {
        assert_eq!(counts(&told(&[0, 1, 2], &[0, 1]).0), [1, 0, 0, 0], "the end, for one of them");
        assert_eq!(counts(&told(&[0, 1], &[0, 1]).0), [3, 0, 0, 0], "for each of them, and to nobody");
    }

    #[test]
    fn a_gap_in_the_middle_is_missing() {
        let (checker, _) = told(&[0, 1, 2], &[0, 2]);
        assert_eq!(counts(&checker), [1, 0, 0, 0]);
        let example = checker.verdict().examples.remove(0);
        let message = TALK.event_id(at(11)).to_string();
        assert!(example.contains("one_order") && example.contains(&message), "{example}");
        assert!(example.contains(&account(2).to_string()), "{example}");
    }

    #[test]
    fn what_is_told_again_is_doubled() {
        assert_eq!(counts(&told(&[0, 1, 1, 2], &[0, 1, 2]).0), [0, 1, 0, 0]);
        assert_eq!(counts(&told(&[0, 1, 2, 1], &[0, 1, 2]).0), [0, 1, 0, 0], "also later on");
    }

    #[test]
    fn what_comes_after_a_later_one_is_out_of_order() {
        assert_eq!(counts(&told(&[0, 2, 1], &[0, 1, 2]).0), [0, 0, 1, 0]);
    }

    #[test]
    fn one_message_at_two_places_and_two_at_one_are_doubled() {
        let (checker, [first, _]) = pair(2);
        checker.told(&first, 0, at(10));
        checker.told(&first, 0, at(11));
        assert_eq!(counts(&checker), [0, 1, 0, 0]);
        let (checker, [first, second]) = pair(2);
        checker.told(&first, 0, at(10));
        checker.told(&second, 1, at(10));
        assert_eq!(counts(&checker), [0, 1, 0, 0]);
    }

    #[test]
    fn an_acknowledgement_that_names_another_place_is_misplaced() {
        let (checker, sessions) = told_one(1);
        checker.acknowledged(&sessions[0], 0, at(11));
        assert_eq!(counts(&checker), [3, 0, 0, 1], "and nobody was told of that place");
    }

    #[test]
    fn what_is_acknowledged_at_the_place_of_another_is_missing() {
        let (checker, sessions) = told_one(2);
        checker.acknowledged(&sessions[0], 0, at(10));
        checker.acknowledged(&sessions[1], 1, at(10));
        assert_eq!(counts(&checker), [1, 0, 0, 0]);
    }

    #[test]
    fn one_message_in_two_conversations_is_misplaced() {
        let (checker, _) = told(&[0, 1, 2], &[0, 1, 2]);
        let stranger = checker.session(OTHER.conversation_id(), account(3));
        checker.told(&stranger, 1, at(20));
        assert_eq!(counts(&checker), [0, 0, 0, 1]);
    }

    #[test]
    fn an_answer_that_comes_twice_is_doubled() {
        let (checker, sessions) = told_one(2);
        (0..2).for_each(|_| checker.acknowledged(&sessions[0], 0, at(10)));
        assert_eq!(counts(&checker), [0, 1, 0, 0]);
        checker.acknowledged(&sessions[0], 0, at(10));
        assert_eq!(counts(&checker), [0, 2, 0, 0], "more than there are is not written down, and counted");
        assert_eq!(sessions[0].pages.lock().acked.len(), 2);
    }

    #[test]
    fn what_was_never_sent_is_misplaced() {
        let (checker, [first, _]) = pair(3);
        assert_eq!(checker.told(&first, 9, at(19)), 0);
        checker.acknowledged(&first, 9, at(19));
        assert_eq!(counts(&checker), [0, 0, 0, 2]);
        assert_eq!((checker.told_count(), checker.acknowledged_count()), (0, 0));
    }

    #[test]
    fn what_frames_say_is_written_down_and_judged() {
        let (checker, [first, _]) = pair(2);
        let (talk, other) = (TALK.conversation_id().to_string(), OTHER.conversation_id().to_string());
        let frame = |conversation, content: &'static str, position| Data {
            conversation_id: Some(conversation),
            content: Some(content.into()),
            position: Some(position),
            ..Data::default()
        };
        assert_eq!(checker.heard(&first, &frame(&talk, "0000000001..", at(10))), Some((1, 1)));
        assert_eq!(counts(&checker), [0, 0, 0, 0]);
        assert_eq!(checker.heard(&first, &frame(&other, "0000000000..", at(11))), None);
        assert_eq!(counts(&checker), [0, 0, 0, 1], "told of a conversation that it is not in");
        let example = checker.verdict().examples.remove(0);
        assert!(example.contains("members_only"), "{example}");
        assert_eq!(checker.told_count(), 1, "which nobody waits for");
        for (conversation, content, position) in
            [(&talk, "hello", at(12)), (&talk, "0000000000", Position::START)]
        {
            assert_eq!(checker.heard(&first, &frame(conversation, content, position)), None);
        }
        assert_eq!(checker.heard(&first, &frame("x", "0000000000", at(12))), None);
        assert_eq!(counts(&checker), [0, 0, 0, 4]);
    }

    #[test]
    fn what_is_written_down_is_bounded() {
        let (checker, [first, _]) = pair(1);
        for _ in 0..5 {
            checker.told(&first, 0, at(10));
        }
        assert_eq!(first.pages.lock().told.len(), 4);
        assert_eq!(counts(&checker), [0, 4, 0, 0], "the fifth is counted all the same");
        for n in 0..=ELSEWHERE_MOST as u64 {
            checker.told_elsewhere(&first, Some(&OTHER.conversation_id().to_string()), at(20 + n));
        }
        assert_eq!(first.pages.lock().elsewhere.len(), ELSEWHERE_MOST);
    }
}
