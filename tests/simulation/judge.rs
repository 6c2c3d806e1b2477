//! After a run: all nine invariants over what was seen.

use crate::client::MARK;
use crate::cluster::{BEGIN, Cluster};
use crate::observed::Observed;
use rand::seq::SliceRandom;
use reedi::domain::record::{Body, Entry};
use reedi::domain::retention::RESUME_EVENTS_MOST;
use reedi::domain::write::writes_of;
use reedi::edge::query::history;
use reedi::runtime::random;
use reedi::store::embedded::EmbeddedStore;
use reedi::store::embedded::clock::Clock;
use reedi::store::{Conversations as _, Messages as _, Order, Range, Writes as _};
use reedi_invariants::{
    Bounded, Durable, Found, Gap, HistoryRow, LoggedEvent, Membership, Seen, Trimmed, Violation,
    acked_exactly_once, acked_is_durable, bounded_and_visible, content_stays_private, members_only,
    nothing_lives_on_an_edge, one_order, replay_converges, stored_before_trimmed,
};
use reedi_protocol::{AccountId, ConversationKey, EventId, Position};
use std::collections::{BTreeMap, BTreeSet};

/// Frames of a resume that go before those that wait: what it replays, resets and its end.
const RESUME_FRAMES: usize = RESUME_EVENTS_MOST + 64;

/// Everything of the log that is not void, in order.
pub fn entries(cluster: &Cluster) -> Vec<Entry> {
    let decoded = |raw: reedi::log::RawRecord| Entry::decode(raw.position, raw.log_time, &raw.payload).ok();
    let mut entries: Vec<Entry> = cluster.disks().taken().into_iter().filter_map(decoded).collect();
    entries.sort_by_key(|entry| entry.position);
    entries
}

fn event_of(entry: &Entry) -> EventId {
    entry.record.conversation.event_id(entry.position)
}

/// Who was a member when, as control events say.
pub fn memberships(entries: &[Entry]) -> Vec<Membership> {
    let mut open: BTreeMap<(ConversationKey, AccountId), Position> = BTreeMap::new();
    let mut all = Vec::new();
    for entry in entries {
        let Body::Control { after, .. } = &entry.record.body else { continue };
        let conversation = entry.record.conversation;
        let now: BTreeSet<AccountId> = after.accounts().into_iter().collect();
        let gone: Vec<_> = open
            .keys()
            .filter(|(of, account)| *of == conversation && !now.contains(account))
            .copied()
            .collect();
        for key in gone {
            let joined = open.remove(&key).unwrap_or_default();
            all.push(Membership { conversation, account: key.1, joined, left: Some(entry.position) });
        }
        for account in now {
            open.entry((conversation, account)).or_insert(entry.position);
        }
    }
    all.extend(open.into_iter().map(|((conversation, account), joined)| Membership {
        conversation,
        account,
        joined,
        left: None,
    }));
    all
}

/// What clients were to be told.
fn logged(entries: &[Entry]) -> Vec<LoggedEvent> {
    let told = |entry: &Entry| {
        let only_for = match &entry.record.body {
            Body::Tick => return None,
            Body::Hide { .. } => Some(vec![entry.record.actor]),
            Body::Receipt(mark) => Some(mark.told(entry.record.actor)),
            _ => None,
        };
        Some(LoggedEvent { event: event_of(entry), only_for })
    };
    entries.iter().filter_map(told).collect()
}

/// Every message of the store.
async fn rows(store: &EmbeddedStore, conversations: &BTreeSet<ConversationKey>) -> Vec<HistoryRow> {
    let mut rows = Vec::new();
    for conversation in conversations {
        let all = Range::after(Position::START);
        let stored = store.messages(*conversation, all, Order::OldestFirst, usize::MAX).await;
        for message in stored.expect("the store is there") {
            let row = message.row;
            let key = row.client_message_id.filter(|_| row.keyed_by_client);
            rows.push(HistoryRow {
                message: conversation.event_id(row.position),
                sender: row.sender,
                client_message_id: key.map(|key| key.as_str().to_owned()),
            });
        }
    }
    rows
}

/// What an account is shown of a conversation, page by page.
async fn history_of(cluster: &Cluster, account: AccountId, conversation: ConversationKey) -> Vec<EventId> {
    let edge = &cluster.edges()[0].edge;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let query = history::Query { limit: Some(7), before: before.take(), ..Default::default() };
        let Ok((_, page)) = history::get(edge, account, conversation, &query).await else { return found };
        found.extend(page.messages.iter().map(|message| message.message_id));
        match page.next_cursor {
            Some(cursor) => before = Some(cursor),
            None => return found,
        }
    }
}

/// What everybody may read by asking is what stands, once each.
async fn history_is_whole(
    cluster: &Cluster,
    members: &[Membership],
    rows: &[HistoryRow],
    entries: &[Entry],
) -> Result<(), String> {
    for member in members.iter().filter(|member| member.left.is_none()) {
        let Membership { conversation, account, joined, .. } = *member;
        let hidden: BTreeSet<Position> = entries
            .iter()
            .filter(|entry| entry.record.conversation == conversation && entry.record.actor == account)
            .filter_map(|entry| match entry.record.body {
                Body::Hide { target } => Some(target),
                _ => None,
            })
            .collect();
        let mut due: Vec<EventId> = rows
            .iter()
            .map(|row| row.message)
            .filter(|id| id.key() == conversation && id.position() >= joined)
            .filter(|id| !hidden.contains(&id.position()))
            .collect();
        due.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        let shown = history_of(cluster, account, conversation).await;
        if shown != due {
            return Err(format!("{account} is shown {shown:?} of {conversation:?}, and there is {due:?}"));
        }
    }
    Ok(())
}

/// Records in any order, some of them twice, come to the same store.
async fn replayed(cluster: &Cluster, entries: &[Entry]) -> BTreeMap<String, Vec<u8>> {
    let now = cluster.now();
    let store = EmbeddedStore::in_memory(Clock::from_fn(move || now));
    let mut order: Vec<&Entry> = entries.iter().chain(entries.iter().step_by(3)).collect();
    order.shuffle(&mut random::rng());
    for entry in order {
        store.apply(&writes_of(entry)).await.expect("in memory");
    }
    store.contents().expect("readable")
}

/// The lives of the clients, with what each was to be told.
fn whole_lives(observed: &Observed, entries: &[Entry]) -> Vec<Seen> {
    let conversations: BTreeSet<ConversationKey> = entries.iter().map(|e| e.record.conversation).collect();
    let end = Range::END;
    let mut lives = Vec::new();
    for life in observed.lives() {
        let mut seen = life.seen;
        if let Some(since) = &life.since {
            let span = |conversation: &ConversationKey| Gap {
                conversation: *conversation,
                after: since.get(conversation.shard()),
                up_to: end,
            };
            seen.complete = conversations.iter().map(span).collect();
        }
        // What somebody hid from itself is not told to it again.
        for entry in entries.iter().filter(|entry| Some(entry.record.actor) == seen.account) {
            if let Body::Hide { target } = entry.record.body {
                let after = Position::from_u64(target.as_u64() - 1).unwrap_or_default();
                seen.noticed.push(Gap { conversation: entry.record.conversation, after, up_to: target });
            }
        }
        lives.push(seen);
    }
    lives
}

fn broken(violation: &Violation) -> String {
    violation.to_string()
}

/// Everything that is wrong with a run; empty where nothing is.
pub async fn judge(cluster: &Cluster, observed: &Observed) -> Vec<String> {
    let entries = entries(cluster);
    let members = memberships(&entries);
    let conversations: BTreeSet<ConversationKey> = entries
        .iter()
        .filter(|entry| !matches!(entry.record.body, Body::Tick))
        .map(|entry| entry.record.conversation)
        .collect();
    let acked = observed.all_acked();
    let durable: Vec<Durable> = entries
        .iter()
        .map(|entry| Durable {
            event: event_of(entry),
            since_ms: entry.log_time.as_millis() - BEGIN.as_millis(),
        })
        .collect();
    let rows = rows(cluster.store(), &conversations).await;
    let lives = whole_lives(observed, &entries);
    let connections = observed.connections();
    let survived: BTreeSet<EventId> = rows.iter().map(|row| row.message).collect();
    let logged_ids: BTreeSet<EventId> = entries.iter().map(event_of).collect();
    let ids: Vec<EventId> = acked.iter().map(|ack| ack.message).collect();
    let told: Vec<EventId> = connections.iter().flat_map(|c| c.told.iter().map(|t| t.event)).collect();
    let outcomes = [
        acked_is_durable(&acked, &durable),
        acked_exactly_once(&acked, &rows),
        one_order(&connections, &[], &[]),
        one_order(&lives, &logged(&entries), &members),
        private(cluster),
        replay(cluster, &entries).await,
        members_only(&connections, &members),
        members_only(&lives, &members),
        bounds(cluster),
        nothing_lives_on_an_edge(&ids, &survived),
        nothing_lives_on_an_edge(&told, &logged_ids),
        trims(cluster),
    ];
    let mut wrong: Vec<String> = outcomes.iter().filter_map(|o| o.as_ref().err()).map(broken).collect();
    wrong.extend(history_is_whole(cluster, &members, &rows, &entries).await.err());
    wrong.extend(states_are_the_last(cluster, &entries).await.err());
    wrong
}

fn private(cluster: &Cluster) -> Result<(), Violation> {
    let contents = cluster.store().contents().expect("readable");
    let taken = cluster.disks().taken();
    let stored = contents.iter().map(|(place, bytes)| Found { place, bytes });
    let logged = taken.iter().map(|record| Found { place: "the log", bytes: &record.payload });
    content_stays_private(&[MARK], &stored.chain(logged).collect::<Vec<_>>())
}

async fn replay(cluster: &Cluster, entries: &[Entry]) -> Result<(), Violation> {
    replay_converges(&cluster.store().contents().expect("readable"), &replayed(cluster, entries).await)
}

fn bounds(cluster: &Cluster) -> Result<(), Violation> {
    let outbox = Bounded {
        name: "outbox of a connection".to_owned(),
        limit: (cluster.shape().outbox_frames + RESUME_FRAMES) as u64,
        most: cluster.waiting_most() as u64,
    };
    bounded_and_visible(&[outbox], &[])
}

fn trims(cluster: &Cluster) -> Result<(), Violation> {
    let trimmed: Vec<Trimmed> = cluster
        .trimmed()
        .into_iter()
        .map(|(raw, stored)| Trimmed { event: raw.conversation.event_id(raw.position), stored })
        .collect();
    stored_before_trimmed(&trimmed)
}

/// Every conversation stands as its last control event left it, and no group has lost its admins.
async fn states_are_the_last(cluster: &Cluster, entries: &[Entry]) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for entry in entries {
        if let Body::Control { after, .. } = &entry.record.body {
            last.insert(entry.record.conversation, (entry.position, after.clone()));
        }
    }
    for (conversation, expected) in last {
        let stored = cluster.store().state(conversation).await.expect("in memory");
        if stored.as_ref() != Some(&expected) {
            return Err(format!("{conversation:?} stands as {stored:?}, and its log says {expected:?}"));
        }
        let (_, state) = expected;
        let is_group = state.kind == reedi_protocol::resource::ConversationType::Group;
        let admin = |m: &reedi::domain::conversation::Member| m.role == reedi_protocol::resource::Role::Admin;
        if is_group && !state.members.is_empty() && !state.members.iter().any(admin) {
            return Err(format!("{conversation:?} has no admin"));
        }
    }
    Ok(())
}
