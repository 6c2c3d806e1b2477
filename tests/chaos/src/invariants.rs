//! What must hold after a run, as predicates over the book and history: the invariants of the design
//! that clients can see.

use crate::book::{Outcome, Pages, SentMessage, ToldMessage};
use reedi_protocol::{ConversationId, MessageId};
use std::collections::{BTreeSet, HashMap, HashSet};

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
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        [&self.lost, &self.doubled, &self.out_of_order, &self.other].into_iter().all(Vec::is_empty)
    }
}

/// Everything at once.
pub fn check(pages: &Pages, history: &History) -> Findings {
    let mut findings = Findings::default();
    acked_exactly_once(pages, history, &mut findings);
    one_order_in_history(pages, history, &mut findings);
    told_once_and_in_order(pages, &mut findings);
    told_what_stands(pages, history, &mut findings);
    everything_answered(pages, &mut findings);
    findings
}

fn acknowledged(pages: &Pages) -> impl Iterator<Item = (usize, &SentMessage, MessageId)> {
    pages.sent.iter().enumerate().filter_map(|(number, sent)| match sent.outcome {
        Outcome::Acknowledged { id, .. } => Some((number, sent, id)),
        _ => None,
    })
}

fn name(number: usize, sent: &SentMessage) -> String {
    format!("message {number} ({}, {})", sent.conversation, sent.client_message_id)
}

/// An acknowledged message stands in history exactly once, under the id that was acknowledged; one that
/// was not acknowledged at most once.
fn acked_exactly_once(pages: &Pages, history: &History, findings: &mut Findings) {
    let mut copies: HashMap<usize, Vec<MessageId>> = HashMap::new();
    let mut ids = HashSet::new();
    for message in history.values().flatten() {
        if !ids.insert(message.id) {
            findings.doubled.push(format!("{} is listed twice in history", message.id));
        }
        if let Some(number) = message.number {
            copies.entry(number).or_default().push(message.id);
        }
    }
    for (number, copies) in copies.iter().filter(|(_, copies)| copies.len() > 1) {
        let sent = pages.sent.get(*number).map_or_else(String::new, |sent| name(*number, sent));
        findings.doubled.push(format!("{sent} stands in history {} times: {copies:?}", copies.len()));
    }
    for (number, sent, id) in acknowledged(pages) {
        let stands = copies.get(&number).is_some_and(|copies| copies.contains(&id));
        if !stands {
            findings.lost.push(format!("{} was acknowledged as {id}: not in history", name(number, sent)));
        }
    }
}

/// History is in position order, and what one client sent stands in the order of its sending.
fn one_order_in_history(pages: &Pages, history: &History, findings: &mut Findings) {
    for (conversation, messages) in history {
        for pair in messages.windows(2).filter(|pair| pair[0].position >= pair[1].position) {
            findings
                .out_of_order
                .push(format!("history of {conversation}: {} before {}", pair[0].id, pair[1].id));
        }
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

/// Every session is told each acknowledged message of its conversations exactly once, in position
/// order. What it was sent to read as a page instead counts as told.
pub fn told_once_and_in_order(pages: &Pages, findings: &mut Findings) {
    for session in &pages.sessions {
        for (conversation, told) in &session.told {
            let mut seen = HashSet::new();
            for message in told.iter().filter(|message| !seen.insert(message.id)) {
                findings.doubled.push(format!("{} was told {} twice", session.name, message.id));
            }
            for pair in told.windows(2).filter(|pair| pair[0].position > pair[1].position) {
                let (first, second) = (pair[0].id, pair[1].id);
                let line = format!("{} was told {first}, then {second} in {conversation}", session.name);
                findings.out_of_order.push(line);
            }
        }
    }
    for session in &pages.sessions {
        let told = session.told.values().flatten().map(|message| message.id);
        let has: HashSet<MessageId> = told.chain(session.loaded.values().flatten().copied()).collect();
        let concerns = |sent: &SentMessage| session.conversations.contains(&sent.conversation);
        for (number, sent, id) in acknowledged(pages).filter(|(_, sent, _)| concerns(sent)) {
            if !has.contains(&id) {
                let message = name(number, sent);
                findings.lost.push(format!("{} was never told {id}, {message}", session.name));
            }
        }
    }
}

/// What was told stands in history, and was told to participants alone.
fn told_what_stands(pages: &Pages, history: &History, findings: &mut Findings) {
    let stands: BTreeSet<MessageId> = history.values().flatten().map(|message| message.id).collect();
    for session in &pages.sessions {
        for (conversation, told) in &session.told {
            if !session.conversations.contains(conversation) {
                findings.other.push(format!("{} was told of {conversation}, not its own", session.name));
            }
            for message in told.iter().filter(|message| !stands.contains(&message.id)) {
                findings.other.push(format!("{} was told {}: not in history", session.name, message.id));
            }
        }
        findings.other.extend(session.problems.iter().map(|problem| format!("{}: {problem}", session.name)));
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
    use reedi_protocol::{ConversationKey, Epoch, Position};
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
            client_message_id: String::new(),
            at: Instant::now(),
            outcome: Outcome::Acknowledged { id: message.id, after: Duration::ZERO, is_duplicate: false },
        });
        let session = Session {
            conversations: [conversation].into(),
            told: [(conversation, messages.clone())].into(),
            ..Session::default()
        };
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
        // And it was told, which it should not have been.
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
        assert_eq!(counts(&pages, &history), [0, 1, 0, 0]);
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
        assert_eq!(counts(&pages, &history), [0, 0, 0, 2]);
    }
}
