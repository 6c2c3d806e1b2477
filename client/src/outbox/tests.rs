use super::*;
use proptest::prelude::*;
use reedi_protocol::ConversationKey;
use reedi_protocol::resource::MessageType;
use std::time::Duration;

fn conversation(number: u64) -> ConversationId {
    ConversationKey::from_u64(number).conversation_id()
}

fn message(content: &str) -> SendMessage {
    SendMessage {
        content: content.into(),
        message_type: MessageType::Text,
        reply_to_id: None,
        client_message_id: Some(format!("id of {content}")),
    }
}

fn outbox(limits: OutboxLimits, entries: &[(u64, u64)]) -> Outbox {
    let mut outbox = Outbox::new(limits);
    for (key, to) in entries {
        outbox.push(conversation(*to), EntryKey(*key), message(&key.to_string()), false);
    }
    outbox
}

fn take(outbox: &mut Outbox, now: Instant) -> Option<u64> {
    outbox.take_due(now).map(|(_, entry)| entry.key.0)
}

#[test]
fn one_message_of_a_conversation_is_in_flight_and_others_take_turns() {
    let now = Instant::now();
    let mut outbox = outbox(OutboxLimits::default(), &[(1, 1), (2, 1), (3, 2), (4, 1)]);
    assert_eq!(
        [take(&mut outbox, now), take(&mut outbox, now), take(&mut outbox, now)],
        [Some(1), Some(3), None]
    );
    assert!(outbox.finish(EntryKey(2)).is_none(), "it is not in flight");
    assert_eq!(outbox.finish(EntryKey(1)).unwrap().1.key, EntryKey(1));
    assert_eq!(take(&mut outbox, now), Some(2));
}

#[test]
fn a_refusal_for_now_holds_its_conversation_back_and_no_other() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut outbox = outbox(OutboxLimits::default(), &[(1, 1), (2, 1), (3, 2)]);
    take(&mut outbox, now);
    outbox.again(EntryKey(1), Outcome::NotTaken, later);
    assert_eq!(outbox.next_due(), Some(later));
    assert_eq!([take(&mut outbox, now), take(&mut outbox, now)], [Some(3), None]);
    let (_, entry) = outbox.take_due(later).unwrap();
    assert_eq!((entry.key, entry.refusals, entry.perhaps_taken), (EntryKey(1), 1, false));
    outbox.again(EntryKey(1), Outcome::Unknown, later);
    assert!(outbox.take_due(later).unwrap().1.perhaps_taken);
}

#[test]
fn what_was_in_flight_goes_again_with_the_same_id() {
    let now = Instant::now();
    let mut outbox = outbox(OutboxLimits::default(), &[(1, 1), (2, 1)]);
    take(&mut outbox, now);
    outbox.disconnected();
    let (_, entry) = outbox.take_due(now).unwrap();
    assert_eq!((entry.key, entry.perhaps_taken), (EntryKey(1), true));
    assert_eq!(entry.message.client_message_id.as_deref(), Some("id of 1"));
    assert_eq!(take(&mut outbox, now), None);
}

#[test]
fn limits_hold() {
    let limits = OutboxLimits { messages: 2, bytes: 100, in_flight: 1 };
    let mut outbox = outbox(limits, &[(1, 1), (2, 2)]);
    assert_eq!(outbox.has_room(1), Err(OutboxFull { messages: 2, bytes: 2 }));
    let now = Instant::now();
    assert_eq!([take(&mut outbox, now), take(&mut outbox, now)], [Some(1), None]);
    outbox.finish(EntryKey(1));
    assert_eq!(outbox.has_room(100), Err(OutboxFull { messages: 1, bytes: 1 }));
    assert_eq!(outbox.has_room(99), Ok(()));
    assert_eq!(outbox.len(), 1);
}

#[test]
fn the_largest_in_flight_is_found() {
    let mut outbox = outbox(OutboxLimits::default(), &[]);
    for (key, content) in [(1, "aa"), (2, "aaaa"), (3, "a")] {
        outbox.push(conversation(key), EntryKey(key), message(content), false);
    }
    assert_eq!(outbox.largest_in_flight(), None);
    while take(&mut outbox, Instant::now()).is_some() {}
    assert_eq!(outbox.largest_in_flight(), Some(EntryKey(2)));
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Take,
    /// The oldest message in flight is acknowledged, refused for now, or lost with the connection.
    Acknowledge,
    Again(u8),
    Disconnect,
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4).prop_map(Step::Push),
        5 => Just(Step::Take),
        4 => Just(Step::Acknowledge),
        2 => any::<u8>().prop_map(Step::Again),
        1 => Just(Step::Disconnect),
        2 => any::<u8>().prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Each message is acknowledged once and in the order of its conversation, whatever happens.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(steps in prop::collection::vec(step(), 1..80)) {
        let start = Instant::now();
        let mut now = start;
        let mut outbox = Outbox::new(OutboxLimits { messages: 1_000, bytes: 1_000_000, in_flight: 3 });
        let (mut next, mut in_flight) = (0u64, VecDeque::<(ConversationId, u64)>::new());
        let mut acknowledged: HashMap<ConversationId, Vec<u64>> = HashMap::new();
        let mut pushed: HashMap<ConversationId, Vec<u64>> = HashMap::new();
        for step in steps {
            match step {
                Step::Push(to) => {
                    let to = conversation(u64::from(to));
                    outbox.push(to, EntryKey(next), message("m"), false);
                    pushed.entry(to).or_default().push(next);
                    next += 1;
                }
                Step::Take => {
                    if let Some((to, entry)) = outbox.take_due(now) {
                        prop_assert!(in_flight.iter().all(|(other, _)| *other != to), "two of one conversation");
                        in_flight.push_back((to, entry.key.0));
                        prop_assert!(in_flight.len() <= 3);
                    }
                }
                Step::Acknowledge => {
                    if let Some((to, key)) = in_flight.pop_front() {
                        prop_assert_eq!(outbox.finish(EntryKey(key)).unwrap().1.key.0, key);
                        acknowledged.entry(to).or_default().push(key);
                    }
                }
                Step::Again(ms) => {
                    if let Some((_, key)) = in_flight.pop_front() {
                        outbox.again(EntryKey(key), Outcome::Unknown, now + Duration::from_millis(ms.into()));
                    }
                }
                Step::Disconnect => {
                    in_flight.clear();
                    outbox.disconnected();
                }
                Step::Wait(ms) => now += Duration::from_millis(ms.into()),
            }
        }
        outbox.disconnected();
        now += Duration::from_secs(1);
        while let Some((to, entry)) = outbox.take_due(now) {
            outbox.finish(entry.key).unwrap();
            acknowledged.entry(to).or_default().push(entry.key.0);
        }
        prop_assert_eq!(outbox.len(), 0);
        prop_assert_eq!(outbox.bytes, 0);
        prop_assert_eq!(acknowledged, pushed);
    }
}
