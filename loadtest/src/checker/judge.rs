//! What sessions wrote down, translated into what the shared invariants look at, and asked of them; and
//! the little that is known to a load test alone.

use super::{Line, Session, Verdict, told_event};
use reedi_invariants::{
    Acked, Gap, HistoryRow, LoggedEvent, Loss, Membership, Seen, acked_not_exactly_once, not_members_only,
    not_one_order,
};
use reedi_protocol::{AccountId, ConversationKey, EventId, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Judges conversation by conversation, and in each session by session: all predicates together look at
/// every telling a few times, and no more of it is translated at once than one conversation was sent and
/// one session was told.
pub(super) fn judge(sessions: &[Arc<Session>], messages: usize, verdict: &mut Verdict) {
    let mut by_conversation: BTreeMap<ConversationKey, Vec<&Session>> = BTreeMap::new();
    for session in sessions {
        by_conversation.entry(session.conversation).or_default().push(session);
    }
    let mut places = vec![None; messages];
    for (conversation, sessions) in by_conversation {
        judge_conversation(conversation, &sessions, &mut places, verdict);
    }
}

fn judge_conversation(
    conversation: ConversationKey,
    sessions: &[&Session],
    places: &mut [Option<EventId>],
    verdict: &mut Verdict,
) {
    let mut told = BTreeSet::new();
    for session in sessions {
        told.extend(session.pages.lock().told.iter().copied());
    }
    let acked: Vec<Acked> = sessions.iter().flat_map(|session| session.acked()).collect();
    verdict.take(acked_not_exactly_once(&acked, &rows(conversation, &told)));
    numbers(conversation, sessions, &told, places, verdict);
    // What was not acknowledged was promised to nobody.
    let due: BTreeSet<EventId> = acked.iter().map(|ack| ack.message).collect();
    let end = due.last().map_or(Position::START, |last| last.position());
    let log: Vec<LoggedEvent> = due.into_iter().map(|event| LoggedEvent { event, only_for: None }).collect();
    for session in sessions {
        let (seen, member) = ([session.seen(end)], [session.membership()]);
        verdict.take(not_one_order(&seen, &log, &member));
        verdict.take(not_members_only(&seen, &member));
    }
}

/// What counts as history while nobody has read it: every message that any session was told of, once for
/// each place that it was told at. Whole histories are read and compared by the scenarios.
fn rows(conversation: ConversationKey, told: &BTreeSet<Line>) -> Vec<HistoryRow> {
    let row = |line: &Line| HistoryRow {
        message: conversation.event_id(line.position),
        // A number is one sender's alone, whoever that is.
        sender: AccountId::new(uuid::Uuid::nil()),
        client_message_id: Some(line.number.to_string()),
    };
    told.iter().map(row).collect()
}

/// What no predicate knows: a number is written into one message of one conversation, which is answered
/// once, since nothing is sent again, and told where it was acknowledged. `places` says of each number
/// where it was told first, over all conversations.
fn numbers(
    conversation: ConversationKey,
    sessions: &[&Session],
    told: &BTreeSet<Line>,
    places: &mut [Option<EventId>],
    verdict: &mut Verdict,
) {
    for line in told {
        let (number, message) = (line.number, conversation.event_id(line.position));
        let Some(place) = places.get_mut(number as usize) else { continue };
        let first = *place.get_or_insert(message);
        if first.key() != conversation {
            verdict.broken(Loss::Other, || format!("message {number} stands at {first} and at {message}"));
        }
    }
    let mut answered = BTreeSet::new();
    for line in sessions.iter().flat_map(|session| session.pages.lock().acked.clone()) {
        let (number, message) = (line.number, conversation.event_id(line.position));
        if !answered.insert(number) {
            verdict.broken(Loss::Doubled, || format!("message {number} was acknowledged twice"));
        }
        if told.contains(&line) {
            continue;
        }
        let place = places.get(number as usize).copied().flatten();
        match (place, told.range(at(line.position)).next()) {
            (Some(place), _) => verdict.broken(Loss::Other, || {
                format!("message {number} was acknowledged at {message} and told at {place}")
            }),
            // The invariants see that its place was told of, and cannot know that it was as another message.
            (None, Some(other)) => verdict.broken(Loss::Lost, || {
                format!("message {number} was acknowledged at {message}, where {} was told", other.number)
            }),
            // The invariants find it missing.
            (None, None) => {}
        }
    }
}

/// All lines of a place.
fn at(position: Position) -> RangeInclusive<Line> {
    Line { position, number: 0 }..=Line { position, number: u32::MAX }
}

impl Session {
    /// It must have been told of everything up to `end`.
    fn seen(&self, end: Position) -> Seen {
        let pages = self.pages.lock();
        let own = pages.told.iter().map(|line| self.conversation.event_id(line.position));
        let all = own.chain(pages.elsewhere.iter().copied());
        Seen {
            client: format!("a session of {}", self.account),
            account: Some(self.account),
            told: all.map(told_event).collect(),
            complete: vec![Gap { conversation: self.conversation, after: Position::START, up_to: end }],
            noticed: Vec::new(),
        }
    }

    /// Conversations are made before the first message, and nobody joins or leaves later.
    fn membership(&self) -> Membership {
        Membership {
            conversation: self.conversation,
            account: self.account,
            joined: Position::START,
            left: None,
        }
    }
}
