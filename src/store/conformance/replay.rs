//! `replay_converges` (invariant 5): writes end the same in whatever order and however often they come.

use super::fresh::{self, position};
use crate::domain::conversation::ConversationState;
use crate::domain::record::RequestDigest;
use crate::domain::write::Write;
use crate::store::{InboxRow, Order, Range, StorePort, StoredEvent, StoredMessage, StoredReaction};
use crate::store::{StoredReceipt, StoredSend};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};

const ALL: Range = Range { after: Position::START, before: Range::END };
const REACTIONS: [&str; 3] = ["👍", "❤️", "🎉"];
const SEND_IDS: [&str; 3] = ["one", "two", "two\0"];
/// Messages of a run: few, so that changes meet.
const MESSAGES: u64 = 6;
/// Who acts in a run.
pub const ACCOUNTS: usize = 3;

/// How a run may order its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orders {
    /// Each message has been applied before anything else is, as the log's order has it; then all comes
    /// again, the messages too, in any order.
    MessagesFirst,
    /// Any at all: a change may come long before its message.
    Any,
}

/// One thing that happens, by small numbers so that a failing list can be made smaller.
#[derive(Clone, Debug)]
pub struct Step {
    pub what: u8,
    pub target: u8,
    pub who: u8,
    pub flag: bool,
}

/// What the reads of one conversation show, but for its key.
#[derive(Debug, PartialEq)]
struct View {
    messages: Vec<StoredMessage>,
    newest: Vec<StoredMessage>,
    singles: Vec<Option<StoredMessage>>,
    events: Vec<StoredEvent>,
    reactions: Vec<StoredReaction>,
    hidden: Vec<Vec<Position>>,
    sent: Vec<Option<StoredSend>>,
    receipts: Vec<StoredReceipt>,
    state: Option<(Position, ConversationState)>,
    heads: Vec<Option<(Position, Timestamp)>>,
    inbox: Vec<Option<InboxRow>>,
}

/// A small run of random steps, as every store can afford.
pub async fn all<S: StorePort>(store: &S) {
    for _ in 0..8 {
        let seed = rand::random();
        let steps = random_steps(seed, 80);
        replay_converges(store, &steps, seed, Orders::MessagesFirst).await;
    }
}

#[must_use]
pub fn random_steps(seed: u64, count: usize) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|_| Step {
            what: random.random(),
            target: random.random(),
            who: random.random(),
            flag: random.random(),
        })
        .collect()
}

/// Applies the writes of `steps` to one fresh conversation in the log's order, once, and to others in
/// orders made from `seed` with repeats: all show the same.
pub async fn replay_converges<S: StorePort>(store: &S, steps: &[Step], seed: u64, orders: Orders) {
    let accounts: Vec<AccountId> = (0..ACCOUNTS).map(|_| fresh::account()).collect();
    let began = fresh::ago(fresh::HOUR_MS);
    let writes = |conversation| writes_of(steps, conversation, &accounts, began);

    let straight = fresh::conversation();
    for batch in writes(straight).chunks(7) {
        store.apply(batch).await.expect("it applies");
    }
    let wanted = view(store, straight, &accounts).await;

    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..2 {
        let conversation = fresh::conversation();
        let log = writes(conversation);
        if orders == Orders::MessagesFirst {
            let mut messages = log.clone();
            messages.retain(|w| matches!(w, Write::Message { .. }));
            messages.shuffle(&mut random);
            store.apply(&messages).await.expect("it applies");
        }
        let mut shuffled = log.clone();
        shuffled.extend(log.iter().filter(|_| random.random()).cloned());
        shuffled.shuffle(&mut random);
        let mut rest = shuffled.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(random.random_range(1..=rest.len().min(20)));
            store.apply(batch).await.expect("it applies");
            rest = after;
        }
        assert_eq!(view(store, conversation, &accounts).await, wanted, "seed {seed}, {orders:?}");
    }
}

/// What `steps` come to, in the log's order: the first is at position 1, and each one further.
#[must_use]
pub fn writes_of(
    steps: &[Step],
    conversation: ConversationKey,
    accounts: &[AccountId],
    began: Timestamp,
) -> Vec<Write> {
    let messages = (1..=MESSAGES).map(|n| {
        let kind = ConversationType::Direct;
        let row = fresh::row(kind, position(n), accounts[0], began.plus_millis(n));
        Write::Message { conversation, row, content: Some(fresh::sealed(&[n as u8, 0])) }
    });
    let changes = steps.iter().enumerate().map(|(n, step)| {
        let at = MESSAGES + 1 + n as u64;
        change(step, conversation, accounts, position(at), began.plus_millis(at * 1_000))
    });
    messages.chain(changes).collect()
}

fn change(
    step: &Step,
    conversation: ConversationKey,
    accounts: &[AccountId],
    at: Position,
    when: Timestamp,
) -> Write {
    let target = position(u64::from(step.target) % MESSAGES + 1);
    let account = accounts[usize::from(step.who) % accounts.len()];
    let pick = usize::from(step.target) % 3;
    let (up_to, private) = (position(u64::from(step.target) + 1), false);
    let expires_at = step.flag.then(|| when.plus_millis(fresh::DAY_MS));
    match step.what % 15 {
        0 | 1 => {
            let content = fresh::sealed(&at.as_u64().to_be_bytes());
            Write::EditContent { conversation, target, at, content, edited_at: when, expires_at }
        }
        2 if step.flag => {
            // By its sender, and so of one time: a second deletion is no event.
            let deleted_at = Timestamp::from_millis(1_700_000_000_000 + target.as_u64());
            Write::DeleteContent { conversation, target, deleted_at, deleted_by: accounts[0] }
        }
        2..=4 => {
            let reaction = fresh::reaction(REACTIONS[pick]);
            let present = step.flag;
            Write::Reaction { conversation, target, account, reaction, at, present, expires_at: None }
        }
        5 => Write::Delivered { conversation, account, up_to, at: when, private },
        6 => Write::Read { conversation, account, up_to, at: when, private },
        7 => Write::Sent {
            conversation,
            sender: account,
            client_message_id: fresh::send_id(SEND_IDS[pick]),
            position: at,
            digest: RequestDigest([step.who; 16]),
        },
        8 => Write::State { conversation, at, state: state(when, step) },
        9 => {
            let kind = ConversationType::Direct;
            Write::InboxJoined { account, conversation, kind, at }
        }
        10 => Write::InboxLeft { account, conversation, at },
        11 => Write::InboxHead { account, conversation, head: at, head_time: when },
        12 => Write::InboxRead { account, conversation, up_to },
        13 if step.flag => Write::Head { conversation, head: at, head_time: when },
        13 => Write::Hidden { conversation, account, target, at },
        _ => fresh::event(conversation, at, account, when),
    }
}

fn state(when: Timestamp, step: &Step) -> ConversationState {
    ConversationState {
        kind: ConversationType::Direct,
        name: None,
        avatar_url: None,
        expires_after_s: step.flag.then_some(u64::from(step.who)),
        created_at: when,
        members: Vec::new(),
    }
}

async fn view<S: StorePort>(store: &S, conversation: ConversationKey, accounts: &[AccountId]) -> View {
    let neutral = ConversationKey::from_u64(0);
    let mut events = store.events(conversation, ALL, 1_000).await.expect("it reads");
    events.iter_mut().for_each(|e| e.record.conversation = neutral);
    let mut receipts = store.receipts(conversation).await.expect("it reads");
    receipts.sort_by_key(|r| r.account);
    let mut reactions = store.reactions(conversation, ALL).await.expect("it reads");
    reactions.sort_by_key(|r| r.target);
    let (mut hidden, mut sent, mut inbox, mut singles) = (vec![], vec![], vec![], vec![]);
    for account in accounts {
        let mut of_account = store.hidden(conversation, *account, ALL).await.expect("it reads");
        of_account.sort();
        hidden.push(of_account);
        for id in SEND_IDS.map(fresh::send_id) {
            sent.push(store.sent(conversation, *account, &id).await.expect("it reads"));
        }
        let row = store.inbox_row(*account, conversation).await.expect("it reads");
        inbox.push(row.map(|row| InboxRow { conversation: neutral, ..row }));
    }
    for n in 1..=MESSAGES {
        singles.push(store.message(conversation, position(n)).await.expect("it reads"));
    }
    View {
        messages: store.messages(conversation, ALL, Order::OldestFirst, 100).await.expect("it reads"),
        newest: store.messages(conversation, ALL, Order::NewestFirst, 100).await.expect("it reads"),
        singles,
        events,
        reactions,
        hidden,
        sent,
        receipts,
        state: store.state(conversation).await.expect("it reads"),
        heads: store.heads(&[conversation]).await.expect("it reads"),
        inbox,
    }
}
