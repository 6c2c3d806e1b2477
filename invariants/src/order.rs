//! What clients were told: in which order, whether all of it, and whether it was theirs.

use crate::observation::{Gap, LoggedEvent, Membership, Seen};
use crate::violation::{Invariant, Loss, Violation};
use reedi_protocol::{AccountId, ConversationKey, EventId, Position};
use std::collections::{BTreeMap, BTreeSet};

/// Where accounts were members, for looking up.
struct Memberships(BTreeMap<(ConversationKey, AccountId), Vec<Interval>>);

/// From a joining to a leaving, if there was one.
type Interval = (Position, Option<Position>);

impl Memberships {
    fn new(memberships: &[Membership]) -> Self {
        let mut spans: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for m in memberships {
            spans.entry((m.conversation, m.account)).or_default().push((m.joined, m.left));
        }
        Self(spans)
    }

    fn spans(&self, conversation: ConversationKey, account: AccountId) -> &[Interval] {
        self.0.get(&(conversation, account)).map_or(&[], Vec::as_slice)
    }

    fn is_member(&self, event: EventId, account: AccountId) -> bool {
        let within = |(joined, left): &Interval| {
            *joined <= event.position() && left.is_none_or(|left| event.position() < left)
        };
        self.spans(event.key(), account).iter().any(within)
    }

    fn left_at(&self, event: EventId, account: AccountId) -> bool {
        self.spans(event.key(), account).iter().any(|(_, left)| *left == Some(event.position()))
    }
}

/// Every device sees a conversation's events in position order, each once, without a gap that it does
/// not notice. `log` is all that was to be told, in any order; empty where a run cannot know it, which
/// leaves out the gaps. What is only for some, as receipts are, is told once and may come late.
///
/// # Errors
/// An event told before an earlier one, told twice, or missing where the client believes to have all.
pub fn one_order(seen: &[Seen], log: &[LoggedEvent], memberships: &[Membership]) -> Result<(), Violation> {
    Violation::first_of(not_one_order(seen, log, memberships))
}

/// All that breaks [`one_order`].
#[must_use]
pub fn not_one_order(seen: &[Seen], log: &[LoggedEvent], memberships: &[Membership]) -> Vec<Violation> {
    let memberships = Memberships::new(memberships);
    let mut by_conversation: BTreeMap<ConversationKey, Vec<&LoggedEvent>> = BTreeMap::new();
    for logged in log {
        by_conversation.entry(logged.event.key()).or_default().push(logged);
    }
    by_conversation.values_mut().for_each(|events| events.sort_by_key(|logged| logged.event));
    // A mark stands for all earlier messages, whenever it comes: its place among them matters to nobody.
    let unlinked: BTreeSet<EventId> = log.iter().filter(|l| l.only_for.is_some()).map(|l| l.event).collect();
    let mut found = Vec::new();
    for client in seen {
        out_of_order(client, &unlinked, &mut found);
        gaps(client, &by_conversation, &memberships, &mut found);
    }
    found
}

fn out_of_order(client: &Seen, unlinked: &BTreeSet<EventId>, found: &mut Vec<Violation>) {
    // The last position told, the highest, and what was told already.
    let mut places: BTreeMap<ConversationKey, (Position, Position)> = BTreeMap::new();
    let mut known: BTreeSet<(EventId, &str)> = BTreeSet::new();
    for told in &client.told {
        let (conversation, position) = (told.event.key(), told.event.position());
        let (last, highest) = places.entry(conversation).or_default();
        let (before, is_behind) = (*last, position < *highest && !unlinked.contains(&told.event));
        if !unlinked.contains(&told.event) {
            (*last, *highest) = (position, position.max(*highest));
        }
        // One position may tell several things, each once.
        let is_repeat = !known.insert((told.event, &told.name)) && !repeats_at_one_position(&told.name);
        let (loss, what) = match (is_repeat, is_behind) {
            (true, _) => (Loss::Doubled, "an event was told twice"),
            (false, true) => (Loss::OutOfOrder, "an event was told after a later one"),
            (false, false) => continue,
        };
        let before = conversation.event_id(before).to_string();
        let ids =
            vec![client.client.clone(), told.event.to_string(), format!("{} after {before}", told.name)];
        found.push(Violation::new(Invariant::OneOrder, loss, what, ids));
    }
}

/// One control event may tell of several participants.
fn repeats_at_one_position(name: &str) -> bool {
    matches!(name, "participant_added" | "participant_removed")
}

fn gaps(
    client: &Seen,
    log: &BTreeMap<ConversationKey, Vec<&LoggedEvent>>,
    memberships: &Memberships,
    found: &mut Vec<Violation>,
) {
    let Some(account) = client.account else { return };
    let told: BTreeSet<EventId> = client.told.iter().map(|told| told.event).collect();
    let mut noticed: BTreeMap<ConversationKey, Vec<&Gap>> = BTreeMap::new();
    for gap in &client.noticed {
        noticed.entry(gap.conversation).or_default().push(gap);
    }
    for span in &client.complete {
        let noticed = noticed.get(&span.conversation).map_or(&[][..], Vec::as_slice);
        for logged in log.get(&span.conversation).into_iter().flatten() {
            let event = logged.event;
            let due = contains(span, event)
                && memberships.is_member(event, account)
                && logged.only_for.as_ref().is_none_or(|only| only.contains(&account));
            if due && !told.contains(&event) && !noticed.iter().any(|gap| contains(gap, event)) {
                let ids = vec![client.client.clone(), event.to_string(), format!("account {account}")];
                let what = "a client believes to have everything, and was never told this";
                found.push(Violation::new(Invariant::OneOrder, Loss::Lost, what, ids));
            }
        }
    }
}

fn contains(span: &Gap, event: EventId) -> bool {
    span.conversation == event.key() && span.after < event.position() && event.position() <= span.up_to
}

/// No byte of a conversation reaches an account that is no participant at that position. Where it left,
/// it is told of its leaving and nothing else.
///
/// # Errors
/// Something was told to somebody who was no member there.
pub fn members_only(seen: &[Seen], memberships: &[Membership]) -> Result<(), Violation> {
    Violation::first_of(not_members_only(seen, memberships))
}

/// All that breaks [`members_only`].
#[must_use]
pub fn not_members_only(seen: &[Seen], memberships: &[Membership]) -> Vec<Violation> {
    let memberships = Memberships::new(memberships);
    let mut found = Vec::new();
    for client in seen {
        let Some(account) = client.account else { continue };
        for told in &client.told {
            let own_leaving = told.name == "participant_removed" && memberships.left_at(told.event, account);
            if !memberships.is_member(told.event, account) && !own_leaving {
                let ids = vec![client.client.clone(), told.event.to_string(), format!("account {account}")];
                let what = format!("{} was told to somebody who was no participant there", told.name);
                found.push(Violation::new(Invariant::MembersOnly, Loss::Other, what, ids));
            }
        }
    }
    found
}
