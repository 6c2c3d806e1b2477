//! What must hold after a run: the shared invariants, asked about the book and history, and what only this
//! run can see.

use crate::book::{Outcome, Pages, SentMessage, ToldMessage};
use crate::observed::{self, acknowledged};
use reedi_invariants::{Loss, Violation};
use reedi_protocol::{ConversationId, MessageId};
use std::collections::{BTreeSet, HashMap};

/// What stands in each conversation, oldest first.
pub type History = HashMap<ConversationId, Vec<ToldMessage>>;

/// What does not hold, in words that name the ids.
#[derive(Debug, Default)]
pub struct Findings {
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub out_of_order: Vec<String>,
    /// Told to somebody who takes no part, told but not in history, never answered, and the like.
    pub other: Vec<String>,
    pub history_was_read: bool,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.history_was_read
            && [&self.lost, &self.doubled, &self.out_of_order, &self.other].into_iter().all(Vec::is_empty)
    }

    fn take(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            let list = match violation.loss {
                Loss::Lost => &mut self.lost,
                Loss::Doubled => &mut self.doubled,
                Loss::OutOfOrder => &mut self.out_of_order,
                Loss::Other => &mut self.other,
            };
            list.push(violation.to_string());
        }
    }
}

/// What can be said without history, which could not be read.
pub fn check_told(pages: &Pages) -> Findings {
    let (mut findings, nothing) = (Findings::default(), History::new());
    let (seen, members) = (observed::seen(pages, &nothing), observed::memberships(pages));
    findings.take(reedi_invariants::not_one_order(&seen, &observed::log(pages, &nothing), &members));
    findings.take(reedi_invariants::not_members_only(&seen, &members));
    everything_answered(pages, &mut findings);
    findings
}

/// Everything at once.
pub fn check(pages: &Pages, history: &History) -> Findings {
    let mut findings = Findings { history_was_read: true, ..Findings::default() };
    let (seen, members) = (observed::seen(pages, history), observed::memberships(pages));
    let (acked, log) = (observed::acked(pages), observed::log(pages, history));
    findings.take(reedi_invariants::acked_not_exactly_once(&acked, &observed::rows(pages, history)));
    findings.take(reedi_invariants::not_one_order(&seen, &log, &members));
    findings.take(reedi_invariants::not_one_order(&observed::read(history), &[], &[]));
    findings.take(reedi_invariants::not_members_only(&seen, &members));
    order_of_sending(pages, history, &mut findings);
    told_what_stands(pages, history, &mut findings);
    everything_answered(pages, &mut findings);
    findings
}

/// How many tellings of what was acknowledged are missing now.
pub fn not_told_yet(pages: &Pages) -> usize {
    let (nothing, members) = (History::new(), observed::memberships(pages));
    let (seen, log) = (observed::seen(pages, &nothing), observed::log(pages, &nothing));
    let broken = reedi_invariants::not_one_order(&seen, &log, &members);
    broken.iter().filter(|violation| violation.loss == Loss::Lost).count()
}

fn name(number: usize, sent: &SentMessage) -> String {
    format!("message {number} ({}, {})", sent.conversation, sent.client_message_id)
}

/// What one client sent stands in the order of its sending.
fn order_of_sending(pages: &Pages, history: &History, findings: &mut Findings) {
    for messages in history.values() {
        let mut last: HashMap<usize, usize> = HashMap::new();
        for number in messages.iter().filter_map(|message| message.number) {
            let Some(sent) = pages.sent.get(number) else { continue };
            if let Some(before) = last.insert(sent.session, number).filter(|before| *before > number) {
                let later = name(number, sent);
                findings.out_of_order.push(format!("{later} stands after message {before}, sent later"));
            }
        }
    }
}

/// What was told stands in history, as what it was told to be; and what was acknowledged is the message
/// that its sender wrote.
fn told_what_stands(pages: &Pages, history: &History, findings: &mut Findings) {
    let stands: BTreeSet<MessageId> = history.values().flatten().map(|message| message.id).collect();
    let written: HashMap<MessageId, Option<usize>> =
        history.values().flatten().map(|message| (message.id, message.number)).collect();
    for session in &pages.sessions {
        for message in session.told.values().flatten() {
            if !stands.contains(&message.id) {
                findings.other.push(format!("{} was told {}: not in history", session.name, message.id));
            } else if written.get(&message.id) != Some(&message.number) {
                findings.other.push(format!("{} was told {} with another text", session.name, message.id));
            }
        }
        findings.other.extend(session.problems.iter().map(|problem| format!("{}: {problem}", session.name)));
    }
    for (number, sent, id) in acknowledged(pages) {
        if written.get(&id).is_some_and(|written| *written != Some(number)) {
            findings.other.push(format!("{} was acknowledged as {id}, another text", name(number, sent)));
        }
    }
}

/// Nothing is left without an answer, and nothing was refused for good.
fn everything_answered(pages: &Pages, findings: &mut Findings) {
    for (number, sent) in pages.sent.iter().enumerate() {
        match &sent.outcome {
            Outcome::Waiting => findings.other.push(format!("{} was never answered", name(number, sent))),
            Outcome::Failed(why) => findings.other.push(format!("{} failed: {why}", name(number, sent))),
            Outcome::Acknowledged { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Session;
    use reedi_protocol::{AccountId, ConversationKey, Epoch, Position};
    use std::time::{Duration, Instant};

    fn key() -> ConversationKey {
        ConversationKey::from_u64(5 << 56 | 1)
    }

    fn message(sequence: u64, number: usize) -> ToldMessage {
        let position = Position::new(Epoch::FIRST, sequence).unwrap();
        ToldMessage { id: key().event_id(position), position, number: Some(number) }
    }

    /// Two messages, acknowledged at 1 and 2, told to one session and in history.
    fn clean() -> (Pages, History) {
        let conversation = key().conversation_id();
        let messages = vec![message(1, 0), message(2, 1)];
        let sent = messages.iter().map(|message| SentMessage {
            session: 0,
            conversation,
            client_message_id: message.id.to_string(),
            at: Instant::now(),
            outcome: Outcome::Acknowledged { id: message.id, after: Duration::ZERO, is_duplicate: false },
        });
        let mut session = Session::new("a phone".to_owned(), AccountId::new(uuid::Uuid::from_u128(1)));
        session.conversations.insert(conversation);
        session.told.insert(conversation, messages.clone());
        let pages = Pages { sent: sent.collect(), sessions: vec![session], ..Pages::default() };
        (pages, [(conversation, messages)].into())
    }

    fn counts(pages: &Pages, history: &History) -> [usize; 4] {
        let found = check(pages, history);
        [found.lost.len(), found.doubled.len(), found.out_of_order.len(), found.other.len()]
    }

    #[test]
    fn a_clean_run_has_no_findings() {
        let (pages, history) = clean();
        assert_eq!(counts(&pages, &history), [0, 0, 0, 0]);
    }

    #[test]
    fn what_is_missing_is_lost() {
        let (mut pages, mut history) = clean();
        history.values_mut().for_each(|messages| messages.truncate(messages.len().saturating_sub(1)));
        // Its other session was told of it, though it does not stand.
        assert_eq!(counts(&pages, &history), [1, 0, 0, 1]);
        let (_, history) = clean();
        pages.sessions[0].told.values_mut().for_each(|told| told.truncate(told.len().saturating_sub(1)));
        assert_eq!(counts(&pages, &history), [1, 0, 0, 0]);
        pages.sessions[0].loaded.insert(key().conversation_id(), [message(2, 1).id].into());
        assert_eq!(counts(&pages, &history), [0, 0, 0, 0]);
    }

    #[test]
    fn what_comes_again_is_doubled() {
        let (pages, mut history) = clean();
        history.values_mut().for_each(|messages| messages.push(message(3, 1)));
        assert_eq!(counts(&pages, &history), [1, 1, 0, 0], "and nobody was told of the other one");
        let (pages, mut history) = clean();
        history.values_mut().for_each(|messages| messages.push(message(2, 1)));
        assert_eq!(counts(&pages, &history), [0, 2, 0, 0], "it stands twice, and is read twice");
        let (mut pages, history) = clean();
        pages.sessions[0].told.values_mut().for_each(|told| told.push(message(2, 1)));
        assert_eq!(counts(&pages, &history), [0, 1, 0, 0]);
    }

    #[test]
    fn what_comes_in_another_order_is_out_of_order() {
        let (mut pages, mut history) = clean();
        pages.sessions[0].told.values_mut().for_each(|told| told.reverse());
        assert_eq!(counts(&pages, &history), [0, 0, 1, 0]);
        let (pages, _) = clean();
        history.values_mut().for_each(|messages| messages.reverse());
        assert_eq!(counts(&pages, &history), [0, 0, 2, 0], "by position, and by the order of sending");
    }

    #[test]
    fn what_is_not_one_s_own_and_what_has_no_answer_is_found() {
        let (mut pages, history) = clean();
        pages.sessions[0].conversations.clear();
        pages.sent[1].outcome = Outcome::Waiting;
        assert_eq!(counts(&pages, &history), [0, 0, 0, 3], "two that it was told, and one answer");
    }

    #[test]
    fn without_history_a_run_is_never_clean_and_still_says_what_was_not_told() {
        let (mut pages, _) = clean();
        assert!(!check_told(&pages).is_clean());
        pages.sessions[0].told.clear();
        assert_eq!(check_told(&pages).lost.len(), 2);
    }

    #[test]
    fn what_stands_twice_under_two_ids_is_doubled() {
        let (mut pages, mut history) = clean();
        let again = message(3, 1);
        history.values_mut().for_each(|messages| messages.push(again));
        pages.sessions[0].told.values_mut().for_each(|told| told.push(again));
        assert_eq!(counts(&pages, &history), [0, 1, 0, 0]);
    }

    #[test]
    fn what_stands_without_an_acknowledgement_must_be_told_too() {
        let (mut pages, history) = clean();
        pages.sent[1].outcome = Outcome::Waiting;
        pages.sessions[0].told.values_mut().for_each(|told| told.truncate(1));
        assert_eq!(counts(&pages, &history), [1, 0, 0, 1]);
        assert_eq!(not_told_yet(&pages), 0, "nobody waits for what nobody was promised");
        let (mut pages, _) = clean();
        pages.sessions[0].told.clear();
        assert_eq!(not_told_yet(&pages), 2);
    }

    #[test]
    fn another_text_than_was_written_is_found() {
        let (mut pages, history) = clean();
        pages.sessions[0].told.values_mut().for_each(|told| told[0].number = Some(1));
        assert_eq!(counts(&pages, &history), [0, 0, 0, 1]);
        let (pages, mut history) = clean();
        history.values_mut().for_each(|messages| messages[1].number = None);
        assert_eq!(counts(&pages, &history), [0, 0, 0, 2], "told as another, and acknowledged as another");
    }
}
