//! `mark_delivered` and `mark_read`: watermarks of an account in a conversation, at most one event
//! every two seconds each (rule P10).

use super::target;
use crate::domain::record::{Body, ReceiptMark};
use crate::domain::write::receipt_writes;
use crate::edge::Edge;
use crate::edge::refused::Outcome;
use crate::edge::view::View;
use crate::store::{Messages as _, Order, Range, Writes as _};
use parking_lot::Mutex;
use reedi_protocol::{AccountId, ConversationKey, MessageId, Position};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// At most one receipt of an account in a conversation in this time.
const ONE_EVERY: Duration = Duration::from_secs(2);
/// Senders are looked for in at most so many messages that a receipt newly covers; of more, everybody is told.
const COVERS_MOST: usize = 100;
/// Pairs of account and conversation remembered; beyond, idle ones are forgotten.
const PAIRS_MOST: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Delivered,
    Read,
}

/// What was told of one account in one conversation.
#[derive(Clone, Copy, Default)]
struct Standing {
    told: (Position, Position),
    at: Option<Instant>,
}

/// The marks of one account in one conversation: how far something was delivered, and read.
#[derive(Default)]
struct Marks {
    /// The furthest that was asked for. It only grows, so that whoever tells, tells it for all who wait, and one whose
    /// client leaves meanwhile takes nobody else's with it.
    wanted: Mutex<(Position, Position)>,
    standing: tokio::sync::Mutex<Standing>,
}

type Pair = (AccountId, ConversationKey);

/// What accounts have marked through this edge.
#[derive(Default)]
pub struct MarkBook {
    pairs: Mutex<HashMap<Pair, Arc<Marks>>>,
}

impl MarkBook {
    fn pair(&self, pair: Pair) -> Arc<Marks> {
        let mut pairs = self.pairs.lock();
        if pairs.len() >= PAIRS_MOST {
            pairs.retain(|_, marks| Arc::strong_count(marks) > 1);
        }
        pairs.entry(pair).or_default().clone()
    }
}

/// Marks a message, and with it all earlier ones, as delivered or read. Answers once it is durable,
/// which may take two seconds: marks that come meanwhile go together.
///
/// # Errors
/// The message is not there for this account, or the mark could not be kept.
pub async fn run(edge: &Edge, actor: AccountId, id: MessageId, mark: Mark) -> Outcome<()> {
    // First: one that comes too fast costs no read.
    edge.admission.command(actor, edge.clock.now()).await?;
    let target = target(edge, actor, id).await?;
    let position = id.position();
    let marks = edge.marks.pair((actor, id.key()));
    {
        let mut wanted = marks.wanted.lock();
        wanted.0 = wanted.0.max(position);
        if mark == Mark::Read {
            wanted.1 = wanted.1.max(position);
        }
    }
    let mut standing = marks.standing.lock().await;
    let covered = |told: (Position, Position)| match mark {
        Mark::Delivered => told.0 >= position,
        Mark::Read => told.1 >= position,
    };
    if covered(standing.told) {
        return Ok(());
    }
    if let Some(at) = standing.at {
        tokio::time::sleep_until(at + ONE_EVERY).await;
    }
    let wanted = *marks.wanted.lock();
    let told = tell(edge, &target.view, actor, standing.told, wanted).await;
    standing.at = Some(Instant::now());
    // The others who wait ask for theirs themselves.
    if told.is_ok() {
        standing.told = wanted;
    }
    told
}

async fn tell(
    edge: &Edge,
    view: &View,
    actor: AccountId,
    before: (Position, Position),
    now: (Position, Position),
) -> Outcome<()> {
    let delivered = (now.0 > before.0).then_some(now.0);
    let read = (now.1 > before.1).then_some(now.1);
    let private = !edge.settings(actor).await?.read_receipts;
    if !view.state.is_small() {
        let mut writes = Vec::new();
        receipt_writes(view.conversation, actor, (delivered, read), private, edge.clock.now(), &mut writes);
        return Ok(edge.store.apply(&writes).await?);
    }
    // What is read has been delivered: two events only where more was delivered than read.
    if let Some(up_to) = delivered.filter(|delivered| read.is_none_or(|read| *delivered > read)) {
        let tell = told(edge, view, actor, private, (before.0, up_to)).await?;
        let mark = ReceiptMark { delivered: Some(up_to), read: None, tell };
        edge.publish(view, actor, Body::Receipt(mark)).await?;
    }
    if let Some(up_to) = read {
        let tell = told(edge, view, actor, private, (before.1, up_to)).await?;
        let mark = ReceiptMark { delivered: None, read: Some(up_to), tell };
        edge.publish(view, actor, Body::Receipt(mark)).await?;
    }
    Ok(())
}

/// Who is told of a receipt for what lies in `covers`: nobody of a private one. Of one that concerns nobody else
/// the reader is, since a receipt that nobody is told of is private.
async fn told(
    edge: &Edge,
    view: &View,
    actor: AccountId,
    private: bool,
    covers: (Position, Position),
) -> Outcome<Vec<AccountId>> {
    if private {
        return Ok(Vec::new());
    }
    let senders = senders(edge, view, actor, covers).await?;
    Ok(if senders.is_empty() { vec![actor] } else { senders })
}

/// The authors of the messages that a receipt newly covers.
async fn senders(
    edge: &Edge,
    view: &View,
    actor: AccountId,
    (after, up_to): (Position, Position),
) -> Outcome<Vec<AccountId>> {
    if let Some(peer) = view.state.peer_of(actor) {
        return Ok(vec![peer]);
    }
    let before = Position::from_u64(up_to.as_u64() + 1).unwrap_or(Range::END);
    let range = Range { after, before };
    let covered = edge.store.messages(view.conversation, range, Order::NewestFirst, COVERS_MOST).await?;
    if covered.len() == COVERS_MOST {
        // Who wrote what is before these is not looked up: a small group is told as a whole.
        return Ok(view.state.accounts().into_iter().filter(|account| *account != actor).collect());
    }
    let mut senders: Vec<AccountId> = covered.iter().map(|m| m.row.sender).filter(|s| *s != actor).collect();
    senders.sort_unstable();
    senders.dedup();
    senders.retain(|sender| view.state.member(*sender).is_some());
    Ok(senders)
}
