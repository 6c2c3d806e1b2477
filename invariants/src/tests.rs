//! Each predicate lets a good observation pass and names a minimal bad one.

use super::*;
use proptest::prelude::*;
use reedi_protocol::{AccountId, ConversationKey, Epoch, EventId, Position};
use std::collections::{BTreeMap, BTreeSet};

const TALK: ConversationKey = ConversationKey::from_u64(7);

fn account(n: u128) -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(n))
}

fn at(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).unwrap()
}

fn event(sequence: u64) -> EventId {
    TALK.event_id(at(sequence))
}

fn ack(key: &str, sequence: u64) -> Acked {
    let message = event(sequence);
    Acked { sender: account(1), client_message_id: key.into(), message, at_ms: 100 }
}

fn row(key: &str, sequence: u64) -> HistoryRow {
    let client_message_id = Some(key.to_owned());
    HistoryRow { message: event(sequence), sender: account(1), client_message_id }
}

fn seen(told: &[u64]) -> Seen {
    let told = told.iter().map(|n| ToldEvent { event: event(*n), name: "new_message".into() });
    Seen { client: "a phone".into(), account: Some(account(1)), told: told.collect(), ..Seen::default() }
}

fn span(after: u64, up_to: u64) -> Gap {
    let after = if after == 0 { Position::START } else { at(after) };
    Gap { conversation: TALK, after, up_to: at(up_to) }
}

fn logged(sequence: u64) -> LoggedEvent {
    LoggedEvent { event: event(sequence), only_for: None }
}

fn member(n: u128, joined: u64, left: Option<u64>) -> Membership {
    Membership { conversation: TALK, account: account(n), joined: at(joined), left: left.map(at) }
}

fn broken(outcome: Result<(), Violation>, invariant: Invariant, id: &str) {
    let violation = outcome.unwrap_err();
    assert_eq!(violation.invariant, invariant);
    assert!(violation.ids.iter().any(|i| i.contains(id)), "{violation} does not name {id}");
    assert!(violation.to_string().starts_with(invariant.name()), "{violation}");
}

#[test]
fn acked_before_the_log_has_it() {
    let durable = [Durable { event: event(1), since_ms: 100 }];
    assert_eq!(acked_is_durable(&[ack("a", 1)], &durable), Ok(()));
    let id = event(1).to_string();
    broken(acked_is_durable(&[ack("a", 1)], &[]), Invariant::AckedIsDurable, &id);
    let late = [Durable { event: event(1), since_ms: 101 }];
    broken(acked_is_durable(&[ack("a", 1)], &late), Invariant::AckedIsDurable, &id);
}

#[test]
fn acked_twice_or_not_at_all() {
    let good = [row("a", 1), row("b", 2)];
    assert_eq!(acked_exactly_once(&[ack("a", 1), ack("a", 1), ack("b", 2)], &good), Ok(()));
    let wrong = Invariant::AckedExactlyOnce;
    broken(acked_exactly_once(&[ack("a", 1), ack("a", 2)], &good), wrong, &event(2).to_string());
    broken(acked_exactly_once(&[ack("c", 3)], &good), wrong, "clientMessageId c");
    broken(acked_exactly_once(&[ack("a", 1)], &[row("a", 1), row("a", 1)]), wrong, &event(1).to_string());
    broken(acked_exactly_once(&[], &[row("a", 1), row("a", 2)]), wrong, "clientMessageId a");
}

#[test]
fn told_out_of_order_or_twice() {
    assert_eq!(one_order(&[seen(&[1, 2, 5])], &[], &[]), Ok(()));
    broken(one_order(&[seen(&[2, 1])], &[], &[]), Invariant::OneOrder, &event(1).to_string());
    broken(one_order(&[seen(&[1, 1])], &[], &[]), Invariant::OneOrder, &event(1).to_string());
    let mut control = seen(&[1, 2]);
    control.told[0].name = "participant_added".into();
    control.told.insert(1, ToldEvent { event: event(1), name: "participant_added".into() });
    control.told.insert(2, ToldEvent { event: event(1), name: "new_message".into() });
    assert_eq!(one_order(&[control], &[], &[]), Ok(()), "one control event tells several things");
}

#[test]
fn a_gap_that_nobody_noticed() {
    let (log, members) = ([logged(1), logged(2), logged(3)], [member(1, 1, None)]);
    let mut client = seen(&[1, 3]);
    assert_eq!(one_order(std::slice::from_ref(&client), &log, &members), Ok(()), "it claims nothing");
    client.complete = vec![span(0, 3)];
    let one = std::slice::from_ref;
    broken(one_order(one(&client), &log, &members), Invariant::OneOrder, &event(2).to_string());
    assert_eq!(one_order(one(&client), &log, &[member(1, 3, None)]), Ok(()), "joined later");
    let private = [logged(1), LoggedEvent { only_for: Some(vec![account(2)]), ..logged(2) }, logged(3)];
    assert_eq!(one_order(one(&client), &private, &members), Ok(()), "for another");
    client.noticed = vec![span(1, 2)];
    assert_eq!(one_order(&[client], &log, &members), Ok(()));
}

#[test]
fn content_in_the_clear() {
    let sealed = Found { place: "segment 1", bytes: b"\x01 ssecre secres" };
    assert_eq!(content_stays_private(&["secret", ""], &[sealed]), Ok(()));
    let clear = Found { place: "table messages", bytes: b"xx secsecret" };
    let outcome = content_stays_private(&["secret"], &[sealed, clear]);
    broken(outcome, Invariant::ContentStaysPrivate, "table messages");
}

#[test]
fn a_replay_that_ends_otherwise() {
    let rows = |rows: &[(&str, u8)]| rows.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    let once: BTreeMap<String, u8> = rows(&[("head", 1), ("row", 2)]);
    assert_eq!(replay_converges(&once, &once.clone()), Ok(()));
    let wrong = Invariant::ReplayConverges;
    broken(replay_converges(&once, &rows(&[("head", 9), ("row", 2)])), wrong, "head");
    broken(replay_converges(&once, &rows(&[("head", 1)])), wrong, "row");
    broken(replay_converges(&once, &rows(&[("head", 1), ("row", 2), ("more", 3)])), wrong, "more");
}

#[test]
fn told_to_a_stranger() {
    assert_eq!(members_only(&[seen(&[2, 3])], &[member(1, 2, Some(4))]), Ok(()));
    let wrong = Invariant::MembersOnly;
    broken(members_only(&[seen(&[1])], &[member(1, 2, None)]), wrong, &event(1).to_string());
    broken(members_only(&[seen(&[4])], &[member(1, 2, Some(4))]), wrong, &event(4).to_string());
    broken(members_only(&[seen(&[1])], &[member(2, 1, None)]), wrong, &account(1).to_string());
    let mut leaving = seen(&[4]);
    leaving.told[0].name = "participant_removed".into();
    assert_eq!(members_only(&[leaving], &[member(1, 2, Some(4))]), Ok(()), "its own leaving");
}

#[test]
fn a_limit_that_does_not_hold_and_a_silent_loss() {
    let queue = |most| Bounded { name: "outbox".into(), limit: 4, most };
    let lost = |told| Dropped { name: "edge_link".into(), dropped: 3, told };
    assert_eq!(bounded_and_visible(&[queue(4)], &[lost(3)]), Ok(()));
    broken(bounded_and_visible(&[queue(5)], &[]), Invariant::BoundedAndVisible, "outbox");
    broken(bounded_and_visible(&[], &[lost(2)]), Invariant::BoundedAndVisible, "edge_link");
}

#[test]
fn acknowledged_and_gone_with_an_edge() {
    let survived: BTreeSet<EventId> = [event(1)].into();
    assert_eq!(nothing_lives_on_an_edge(&[event(1)], &survived), Ok(()));
    let outcome = nothing_lives_on_an_edge(&[event(1), event(2)], &survived);
    broken(outcome, Invariant::NothingLivesOnAnEdge, &event(2).to_string());
}

#[test]
fn forgotten_before_it_was_stored() {
    let trimmed = |stored| Trimmed { event: event(1), stored };
    assert_eq!(stored_before_trimmed(&[trimmed(true)]), Ok(()));
    broken(stored_before_trimmed(&[trimmed(false)]), Invariant::StoredBeforeTrimmed, &event(1).to_string());
}

#[test]
fn there_are_nine_with_names_of_their_own() {
    let names: BTreeSet<&str> = Invariant::ALL.iter().map(|invariant| invariant.name()).collect();
    assert_eq!(names.len(), 9);
}

fn losses(found: &[Violation]) -> Vec<Loss> {
    found.iter().map(|violation| violation.loss).collect()
}

#[test]
fn all_is_found_and_each_called_what_it_is() {
    use Loss::{Doubled, Lost, Other, OutOfOrder};
    let acked = [ack("a", 1), ack("b", 2), ack("b", 3), ack("c", 4), ack("d", 5), ack("d", 5)];
    let history = [row("a", 1), row("a", 1), row("b", 2), row("b", 3), row("c", 4)];
    let found = acked_not_exactly_once(&acked, &history);
    assert_eq!(losses(&found), [Doubled, Doubled, Lost, Doubled], "{found:?}");
    let survived: BTreeSet<EventId> = [event(2)].into();
    assert_eq!(losses(&lost_with_an_edge(&[event(1), event(2), event(3)], &survived)), [Lost, Lost]);
    let found = not_one_order(&[seen(&[1, 3, 2, 2, 3, 4, 1])], &[], &[]);
    assert_eq!(losses(&found), [OutOfOrder, Doubled, Doubled, Doubled], "{found:?}");
    let mut client = seen(&[2]);
    client.complete = vec![span(0, 4)];
    client.noticed = vec![span(3, 4)];
    let log = [logged(1), logged(2), logged(3), logged(4)];
    let members = [member(1, 1, None)];
    let found = not_one_order(std::slice::from_ref(&client), &log, &members);
    assert_eq!(losses(&found), [Lost, Lost], "{found:?}");
    assert_eq!(losses(&not_members_only(&[seen(&[1, 2, 3])], &[member(1, 2, Some(3))])), [Other, Other]);
}

proptest! {
    /// Whatever order events are told in, only the sorted ones pass.
    #[test]
    fn only_sorted_is_in_order(told in prop::collection::vec(1u64..9, 0..6)) {
        let sorted = told.windows(2).all(|pair| pair[0] < pair[1]);
        prop_assert_eq!(one_order(&[seen(&told)], &[], &[]).is_ok(), sorted);
    }

    #[test]
    fn a_mark_is_found_wherever_it_stands(before in "[a-c]{0,9}", after in "[a-c]{0,9}") {
        let text = format!("{before}abcab{after}");
        let found = [Found { place: "x", bytes: text.as_bytes() }];
        prop_assert!(content_stays_private(&["abcab"], &found).is_err());
    }
}
