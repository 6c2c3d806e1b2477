//! What clients were told: in which order, whether all of it, and whether it was theirs.

use crate::observation::{Gap, LoggedEvent, Membership, Seen};
use crate::violation::{Invariant, Violation};
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
/// leaves out the gaps.
///
/// # Errors
/// An event told before an earlier one, told twice, or missing where the client believes to have all.
pub fn one_order(seen: &[Seen], log: &[LoggedEvent], memberships: &[Membership]) -> Result<(), Violation> {
    let memberships = Memberships::new(memberships);
    let mut by_conversation: BTreeMap<ConversationKey, Vec<&LoggedEvent>> = BTreeMap::new();
    for logged in log {
        by_conversation.entry(logged.event.key()).or_default().push(logged);
    }
    by_conversation.values_mut().for_each(|events| events.sort_by_key(|logged| logged.event));
    for client in seen {
        in_order(client)?;
        without_gap(client, &by_conversation, &memberships)?;
    }
    Ok(())
}

fn in_order(client: &Seen) -> Result<(), Violation> {
    let mut last: BTreeMap<ConversationKey, Position> = BTreeMap::new();
    // One position may tell several things, each once.
    let mut here: BTreeMap<ConversationKey, Vec<&str>> = BTreeMap::new();
    for told in &client.told {
        let (conversation, position) = (told.event.key(), told.event.position());
        let before = last.insert(conversation, position).unwrap_or_default();
        let names = here.entry(conversation).or_default();
        let ids = || {
            let before = conversation.event_id(before).to_string();
            vec![client.client.clone(), told.event.to_string(), format!("{} after {before}", told.name)]
        };
        if position < before {
            let what = "an event was told after a later one";
            return Err(Violation::new(Invariant::OneOrder, what, ids()));
        }
        if position > before {
            names.clear();
        } else if names.contains(&told.name.as_str()) && !repeats_at_one_position(&told.name) {
            return Err(Violation::new(Invariant::OneOrder, "an event was told twice", ids()));
        }
        names.push(&told.name);
    }
    Ok(())
}

/// One control event may tell of several participants.
fn repeats_at_one_position(name: &str) -> bool {
    matches!(name, "participant_added" | "participant_removed")
}

fn without_gap(
    client: &Seen,
    log: &BTreeMap<ConversationKey, Vec<&LoggedEvent>>,
    memberships: &Memberships,
) -> Result<(), Violation> {
    let Some(account) = client.account else { return Ok(()) };
    let told: BTreeSet<EventId> = client.told.iter().map(|told| told.event).collect();
    for span in &client.complete {
        for logged in log.get(&span.conversation).into_iter().flatten() {
            let event = logged.event;
            let due = contains(span, event)
                && memberships.is_member(event, account)
                && logged.only_for.as_ref().is_none_or(|only| only.contains(&account));
            if due && !told.contains(&event) && !client.noticed.iter().any(|gap| contains(gap, event)) {
                let ids = vec![client.client.clone(), event.to_string(), format!("account {account}")];
                let what = "a client believes to have everything, and was never told this";
                return Err(Violation::new(Invariant::OneOrder, what, ids));
            }
        }
    }
    Ok(())
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
    let memberships = Memberships::new(memberships);
    for client in seen {
        let Some(account) = client.account else { continue };
        for told in &client.told {
            let own_leaving = told.name == "participant_removed" && memberships.left_at(told.event, account);
            if !memberships.is_member(told.event, account) && !own_leaving {
                let ids = vec![client.client.clone(), told.event.to_string(), format!("account {account}")];
                let what = format!("{} was told to somebody who was no participant there", told.name);
                return Err(Violation::new(Invariant::MembersOnly, what, ids));
            }
        }
    }
    Ok(())
}
