use super::*;
use proptest::prelude::*;
use reedi_protocol::event::{Place, PresenceStatus};
use reedi_protocol::resource::{Conversation, ConversationType, LoggedEvent, Message, MessageType, Role};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Shard, Timestamp};
use std::collections::VecDeque;

const KEY: ConversationKey = ConversationKey::from_u64(0x0500_0000_0000_0001);

fn at(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).unwrap_or(Position::START)
}

/// An event whose predecessor is named where `previous` is `Some`.
fn event(sequence: u64, previous: Option<u64>) -> ServerEvent {
    ServerEvent::NewMessage(Box::new(Message {
        message_id: KEY.event_id(at(sequence)),
        conversation_id: KEY.conversation_id(),
        sender_id: AccountId::new(uuid::Uuid::nil()),
        content: Some(sequence.to_string()),
        message_type: MessageType::Text,
        timestamp: Timestamp::from_millis(sequence),
        position: at(sequence),
        previous_position: previous.map(at),
        reply_to_id: None,
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        expires_at: None,
        system: None,
        reactions: vec![],
    }))
}

fn logged(sequence: u64) -> LoggedEvent {
    let ServerEvent::NewMessage(message) = event(sequence, None) else { unreachable!() };
    let data = serde_json::to_value(message).unwrap();
    LoggedEvent { position: at(sequence), event: "new_message".into(), data }
}

fn as_logged(sequence: u64, event: &ServerEvent) -> LoggedEvent {
    let mut frame = serde_json::to_value(event).unwrap();
    let name = frame["event"].as_str().unwrap().to_owned();
    LoggedEvent { position: at(sequence), event: name, data: frame["data"].take() }
}

fn page(after: u64, to: u64, has_more: bool) -> Filled {
    Filled::Page(Events { events: (after + 1..=to).map(logged).collect(), complete_to: at(to), has_more })
}

fn checkpoint(sequence: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    Shard::all().for_each(|shard| checkpoint.set(shard, at(sequence)));
    checkpoint
}

fn complete(sequence: u64) -> ServerEvent {
    ServerEvent::ResumeComplete { checkpoint: checkpoint(sequence) }
}

/// `7` for an event, `7+` for a companion, `R` for a reset, `F7` for a fetch after 7.
fn shown(told: &[Told]) -> Vec<String> {
    let show = |told: &Told| match told {
        Told::Event(event) => match event.place() {
            Some((_, place)) => place.position.sequence().to_string(),
            None => format!("{}+", event.stands_at().unwrap().1.sequence()),
        },
        Told::Reset(_) => "R".into(),
        Told::Fetch { after, .. } => format!("F{}", after.sequence()),
    };
    told.iter().map(show).collect()
}

/// Caught up to `sequence`.
fn live(sequence: u64) -> Timelines {
    let mut timelines = Timelines::default();
    timelines.resume();
    timelines.receive(complete(sequence), &mut Vec::new());
    timelines
}

fn receive(timelines: &mut Timelines, events: &[(u64, Option<u64>)]) -> Vec<String> {
    let mut told = Vec::new();
    for (sequence, previous) in events {
        timelines.receive(event(*sequence, *previous), &mut told);
    }
    shown(&told)
}

fn fill(timelines: &mut Timelines, filled: Filled) -> Vec<String> {
    let mut told = Vec::new();
    timelines.filled(KEY.conversation_id(), filled, &mut told);
    shown(&told)
}

/// The schedule: the store is away, a live message follows the last one that was told, and the receipt
/// between them, which is no link, was missed.
#[test]
fn a_receipt_missed_before_a_resume_that_had_to_wait_is_told_late_and_nothing_twice() {
    let (mut timelines, mut told) = (live(5), Vec::new());
    timelines.resume();
    timelines.receive(event(8, Some(5)), &mut told);
    assert_eq!(shown(&told), ["8"], "what is live does not wait for the store");
    let again = timelines.resume();
    assert!(again.cursors.is_empty(), "nothing proves that there was nothing in between");
    told.clear();
    for again in [event(7, None), event(8, Some(5)), event(9, Some(8))] {
        timelines.receive(again, &mut told);
    }
    timelines.receive(complete(9), &mut told);
    timelines.receive(event(10, None), &mut told);
    assert_eq!(shown(&told), ["7", "9", "10"]);
    assert_eq!(timelines.complete(KEY.conversation_id()), at(10));
}

#[test]
fn events_in_order_pass_and_duplicates_do_not() {
    let mut timelines = live(4);
    let told = receive(&mut timelines, &[(5, None), (5, None), (7, Some(5)), (3, None), (9, None)]);
    assert_eq!(told, ["5", "7", "9"]);
    assert_eq!(timelines.complete(KEY.conversation_id()), at(9));
}

#[test]
fn a_gap_is_filled_before_what_follows_is_told() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(5, Some(4)), (8, Some(7)), (9, None)]), ["5", "F5"]);
    assert_eq!(fill(&mut timelines, page(5, 8, false)), ["6", "7", "8", "9"]);
    assert_eq!(receive(&mut timelines, &[(10, Some(9))]), ["10"]);
}

#[test]
fn an_edge_that_skipped_something_is_not_trusted_until_the_gap_is_closed() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(8, Some(7)), (6, None)]), ["F4"]);
    assert_eq!(fill(&mut timelines, page(4, 8, false)), ["5", "6", "7", "8"]);
}

#[test]
fn an_empty_answer_closes_a_gap_where_it_says_so() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(8, Some(7))]), ["F4"]);
    let nothing = Events { events: vec![], complete_to: at(7), has_more: false };
    assert_eq!(fill(&mut timelines, Filled::Page(nothing)), ["8"], "hidden events leave no gap");
}

#[test]
fn three_answers_in_vain_reset() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(8, Some(7)), (9, Some(8))]), ["F4"]);
    assert_eq!(fill(&mut timelines, page(4, 4, false)), ["F4"]);
    assert_eq!(fill(&mut timelines, page(4, 4, true)), ["F4"], "more without progress is in vain");
    assert_eq!(fill(&mut timelines, page(4, 4, false)), ["R"]);
    assert_eq!(receive(&mut timelines, &[(9, Some(8)), (10, Some(9))]), ["10"], "9 is in the page");
    assert_eq!(fill(&mut timelines, page(4, 4, false)), [""; 0], "a late answer does nothing");
}

#[test]
fn pages_with_progress_are_no_tries() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(20, Some(19))]), ["F4"]);
    for after in 4..18 {
        let told = fill(&mut timelines, page(after, after + 1, true));
        assert_eq!(told, [(after + 1).to_string(), format!("F{}", after + 1)]);
    }
    assert_eq!(fill(&mut timelines, page(18, 19, false)), ["19", "20"]);
}

#[test]
fn what_shares_a_position_comes_out_of_a_page_together() {
    let companion = ServerEvent::ParticipantAdded {
        conversation_id: KEY.conversation_id(),
        user_id: AccountId::new(uuid::Uuid::nil()),
        role: Role::Member,
        by: AccountId::new(uuid::Uuid::nil()),
        position: at(6),
    };
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(7, Some(6))]), ["F4"]);
    let events = vec![logged(5), as_logged(6, &companion), logged(6)];
    let page = Events { events, complete_to: at(6), has_more: false };
    assert_eq!(fill(&mut timelines, Filled::Page(page)), ["5", "6+", "6", "7"]);
}

#[test]
fn a_page_that_begins_with_a_reset_resets_and_goes_on() {
    let reset = ServerEvent::ConversationReset { conversation_id: KEY.conversation_id() };
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(10, Some(9))]), ["F4"]);
    let events = vec![as_logged(8, &reset), logged(8), logged(9)];
    let page = Events { events, complete_to: at(9), has_more: false };
    assert_eq!(fill(&mut timelines, Filled::Page(page)), ["R", "8", "9", "10"]);
}

/// The schedule: of what a page has at a position, a part had come live and was kept back.
#[test]
fn a_page_replaces_what_was_kept_back_of_a_position() {
    let reset = ServerEvent::ConversationReset { conversation_id: KEY.conversation_id() };
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(8, Some(7))]), ["F4"]);
    let page = Events { events: vec![as_logged(8, &reset), logged(8)], complete_to: at(8), has_more: false };
    assert_eq!(fill(&mut timelines, Filled::Page(page)), ["R", "8"]);
}

fn created(sequence: u64, previous: u64) -> ServerEvent {
    let ServerEvent::NewMessage(message) = event(sequence, Some(previous)) else { unreachable!() };
    let conversation = Conversation {
        conversation_id: message.conversation_id,
        kind: ConversationType::Group,
        name: None,
        avatar_url: None,
        expires_after: None,
        created_at: message.timestamp,
        my_role: Role::Member,
        participants: Vec::new(),
        activity: None,
    };
    let place = Place { position: at(sequence), previous_position: Some(at(previous)) };
    ServerEvent::ConversationCreated { conversation: Box::new(conversation), place }
}

#[test]
fn who_joins_is_told_of_the_conversation_and_by_whom_once_each() {
    let mut told = Vec::new();
    let mut timelines = live(7);
    for event in [created(8, 7), event(8, Some(7)), event(8, Some(7)), created(8, 7)] {
        timelines.receive(event, &mut told);
    }
    assert_eq!(shown(&told), ["8", "8"], "live");
    let (mut told, mut timelines) = (Vec::new(), live(4));
    for event in [created(8, 7), event(8, Some(7)), event(8, Some(7))] {
        timelines.receive(event, &mut told);
    }
    assert_eq!(shown(&told), ["F4"]);
    assert_eq!(fill(&mut timelines, page(4, 7, false)), ["5", "6", "7", "8", "8"], "kept back");
}

#[test]
fn a_refusal_and_an_overflow_reset() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(8, Some(7))]), ["F4"]);
    assert_eq!(fill(&mut timelines, Filled::Refused), ["R"]);

    let mut timelines = live(4);
    let many: Vec<_> = (10..=10 + HELD_PER_CONVERSATION as u64).map(|n| (n, Some(n - 1))).collect();
    assert_eq!(receive(&mut timelines, &many), ["F4", "R"]);
    assert_eq!(timelines.held, 0);
    let newest = 10 + HELD_PER_CONVERSATION as u64;
    assert_eq!(timelines.complete(KEY.conversation_id()), at(newest));
}

#[test]
fn a_live_event_does_not_make_the_replay_look_like_duplicates() {
    let mut timelines = live(4);
    timelines.resume();
    assert_eq!(receive(&mut timelines, &[(9, None), (5, None), (6, Some(5)), (8, None)]), [""; 0]);
    let mut told = Vec::new();
    timelines.receive(complete(8), &mut told);
    assert_eq!(shown(&told), ["5", "6", "8", "9"]);
}

#[test]
fn a_replay_that_names_predecessors_is_told_at_once() {
    let mut timelines = live(4);
    timelines.resume();
    assert_eq!(receive(&mut timelines, &[(5, Some(4)), (9, Some(5)), (11, Some(10))]), ["5", "9"]);
}

#[test]
fn what_was_replayed_up_to_the_checkpoint_has_no_gap() {
    let mut timelines = live(4);
    timelines.resume();
    assert_eq!(receive(&mut timelines, &[(9, Some(7)), (12, Some(11))]), [""; 0]);
    let mut told = Vec::new();
    timelines.receive(complete(10), &mut told);
    assert_eq!(shown(&told), ["9", "F10"], "5 to 8 are hidden from this account, or gone");
}

#[test]
fn a_checkpoint_does_not_pass_an_open_gap() {
    let mut timelines = live(4);
    assert_eq!(receive(&mut timelines, &[(8, Some(7))]), ["F4"]);
    timelines.receive(ServerEvent::Checkpoint { checkpoint: checkpoint(9) }, &mut Vec::new());
    let saved = timelines.saved().checkpoint.unwrap();
    assert_eq!(saved.get(KEY.shard()), at(4), "a process that begins anew must meet the gap again");
    assert_eq!(saved.get(Shard(0)), at(9));
    fill(&mut timelines, page(4, 7, false));
    assert_eq!(timelines.saved().cursors[&KEY.conversation_id()], at(8));
    timelines.receive(ServerEvent::Checkpoint { checkpoint: checkpoint(9) }, &mut Vec::new());
    assert_eq!(timelines.saved(), Saved { checkpoint: Some(checkpoint(9)), cursors: HashMap::new() });
}

#[test]
fn a_reset_by_the_server_is_told() {
    let mut timelines = live(4);
    timelines.resume();
    receive(&mut timelines, &[(9, None)]);
    let reset = ServerEvent::ConversationReset { conversation_id: KEY.conversation_id() };
    let mut told = Vec::new();
    timelines.receive(reset, &mut told);
    timelines.receive(complete(10), &mut told);
    assert_eq!(shown(&told), ["R"]);
    assert_eq!(receive(&mut timelines, &[(11, Some(10))]), ["11"]);
}

#[test]
fn what_is_told_and_forgotten_passes() {
    let mut timelines = Timelines::default();
    let status = ServerEvent::UserStatusChange {
        user_id: AccountId::new(uuid::Uuid::nil()),
        status: PresenceStatus::Online,
        last_seen: None,
    };
    let mut told = Vec::new();
    timelines.receive(status.clone(), &mut told);
    assert_eq!(told, [Told::Event(Box::new(status))]);
}

/// What a hostile network and a restless server do to one client.
#[derive(Clone, Debug)]
enum Step {
    /// Events join the log without being pushed.
    Grow(u8),
    /// A push of any event, earlier ones included, that names its predecessor.
    Push(u16),
    /// The oldest fetch is answered up to this much further, perhaps with nothing.
    Answer {
        further: u8,
        has_more: bool,
    },
    Refuse,
    /// A frame that promises what was perhaps dropped on the way.
    Checkpoint(u16),
    /// A new connection: live events overtake the replay; neither names predecessors, or both do.
    /// With `pending`, what is later than the checkpoint comes before it, as when the store is away.
    Reconnect {
        overtaking: Vec<u16>,
        named: bool,
        upto: u16,
        pending: bool,
    },
    /// The process ends and another one begins from what was saved.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..5).prop_map(Step::Grow),
        8 => any::<u16>().prop_map(Step::Push),
        4 => (0u8..6, any::<bool>()).prop_map(|(further, has_more)| Step::Answer { further, has_more }),
        1 => Just(Step::Refuse),
        2 => any::<u16>().prop_map(Step::Checkpoint),
        2 => (prop::collection::vec(any::<u16>(), 0..4), any::<bool>(), any::<u16>(), any::<bool>())
            .prop_map(|(overtaking, named, upto, pending)| {
                Step::Reconnect { overtaking, named, upto, pending }
            }),
        1 => Just(Step::Restart),
    ]
}

/// The log is 1..=`last`; `told` is what the application has seen.
struct World {
    timelines: Timelines,
    last: u64,
    told: Vec<Told>,
    /// The newest event that was ever pushed.
    pushed: u64,
    fetches: VecDeque<u64>,
}

impl World {
    fn pick(&self, raw: u16) -> u64 {
        u64::from(raw) % self.last + 1
    }

    fn push(&mut self, sequence: u64, named: bool) {
        let previous = named.then(|| sequence - 1);
        self.pushed = self.pushed.max(sequence);
        let mut told = Vec::new();
        self.timelines.receive(event(sequence, previous), &mut told);
        self.take(told);
    }

    fn take(&mut self, told: Vec<Told>) {
        for one in told {
            match one {
                Told::Fetch { after, .. } => self.fetches.push_back(after.sequence()),
                one => self.told.push(one),
            }
        }
    }

    fn run(&mut self, step: Step) {
        let mut told = Vec::new();
        match step {
            Step::Grow(count) => self.last += u64::from(count),
            Step::Push(raw) => self.push(self.pick(raw), true),
            Step::Answer { further, has_more } => {
                let Some(after) = self.fetches.pop_front() else { return };
                let to = (after + u64::from(further)).min(self.last);
                self.timelines.filled(KEY.conversation_id(), page(after, to, has_more), &mut told);
            }
            Step::Refuse => {
                if self.fetches.pop_front().is_some() {
                    self.timelines.filled(KEY.conversation_id(), Filled::Refused, &mut told);
                }
            }
            Step::Checkpoint(raw) => {
                // Behind the newest push there may be a gap, but one that the client has seen.
                let upto = self.pick(raw).min(self.pushed);
                let promised = ServerEvent::Checkpoint { checkpoint: checkpoint(upto) };
                self.timelines.receive(promised, &mut told);
            }
            Step::Reconnect { overtaking, named, upto, pending } => {
                self.reconnect(overtaking, named, upto, pending);
            }
            Step::Restart => {
                let saved = serde_json::to_string(&self.timelines.saved()).unwrap();
                self.timelines = Timelines::new(serde_json::from_str(&saved).unwrap());
                self.reconnect(vec![], false, u16::MAX, false);
            }
        }
        self.take(told);
    }

    fn reconnect(&mut self, overtaking: Vec<u16>, named: bool, upto: u16, pending: bool) {
        self.fetches.clear();
        let resume = self.timelines.resume();
        let known =
            resume.checkpoint.map_or(0, |c| c.parse::<Checkpoint>().unwrap().get(KEY.shard()).sequence());
        let cursor = resume.cursors.get(&KEY.conversation_id().to_string());
        let from = cursor.map_or(known, |raw| Position::from_u64(*raw).unwrap().sequence());
        assert!(from >= known, "a cursor is never behind the checkpoint");
        let upto = self.pick(upto).max(from);
        for raw in overtaking {
            self.push(self.pick(raw).min(upto), named);
        }
        if pending {
            (upto + 1..=self.last).for_each(|sequence| self.push(sequence, named));
        }
        (from + 1..=upto).for_each(|sequence| self.push(sequence, named));
        let mut told = Vec::new();
        self.timelines.receive(complete(upto), &mut told);
        self.take(told);
        if !pending {
            (upto + 1..=self.last).for_each(|sequence| self.push(sequence, named));
        }
    }

    /// Invariant 3: in order, each once, and every gap announced by a reset.
    fn check(&self) {
        let mut newest = 0;
        let mut announced = false;
        for told in &self.told {
            match told {
                Told::Event(event) => {
                    let sequence = event.place().unwrap().1.position.sequence();
                    assert!(sequence > newest, "{sequence} after {newest}");
                    assert!(sequence == newest + 1 || announced, "a silent gap from {newest} to {sequence}");
                    (newest, announced) = (sequence, false);
                }
                _ => announced = true,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn one_order_whatever_the_network_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut world =
            World { timelines: live(0), last: 1, told: vec![], pushed: 0, fetches: VecDeque::new() };
        for step in steps {
            world.run(step);
            world.check();
        }
        world.reconnect(vec![], true, u16::MAX, false);
        world.last += 1;
        world.push(world.last, true);
        while !world.fetches.is_empty() {
            world.run(Step::Answer { further: u8::MAX, has_more: false });
        }
        world.check();
        prop_assert_eq!(world.timelines.complete(KEY.conversation_id()), at(world.last));
        prop_assert_eq!(world.timelines.held, 0);
        let reset = world.told.iter().any(|told| matches!(told, Told::Reset(_)));
        let events = world.told.iter().filter(|told| matches!(told, Told::Event(_))).count() as u64;
        prop_assert!(reset || events == world.last, "{events} of {} told", world.last);
    }
}

#[test]
fn a_place_without_predecessor_is_what_the_wire_leaves_out() {
    let place: Place = serde_json::from_str(r#"{"position":17592186044417}"#).unwrap();
    assert_eq!(place, Place { position: at(1), previous_position: None });
}
