//! What every edge link must do, as checks that each adapter's test calls. The link may lose, so a
//! check that waits for a frame sends it again until it comes.
//!
//! A check panics with what it found; there is nothing to return.

use super::{
    Coverage, EdgeId, EdgeLinkPort, Fleeting, Generation, Inbound, LinkEvent, PresenceChange, ToEdge,
    ToWorkers, WorkerId,
};
use reedi_protocol::event::PresenceStatus;
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Shard, Timestamp};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Nothing that is waited for may take longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one frame is waited for before it is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Every check, one after the other.
///
/// # Panics
/// As every check: where the link does not keep its contract.
pub async fn all<L: EdgeLinkPort>(link: &L) {
    reaches_the_edge_named(link).await;
    keeps_a_senders_order(link).await;
    reaches_all_edges_and_workers(link).await;
    tells_presence_to_all_edges(link).await;
    carries_large_frames_whole(link).await;
    does_not_wait_for_the_absent(link).await;
}

fn edge() -> EdgeId {
    EdgeId(rand::random())
}

fn worker() -> WorkerId {
    WorkerId(rand::random())
}

fn account() -> AccountId {
    AccountId::new(uuid::Uuid::new_v4())
}

fn position(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).expect("a position")
}

/// A frame that can be told from others by its number.
fn numbered(worker: WorkerId, routes: u64) -> ToEdge {
    let coverage = vec![Coverage {
        shard: Shard(3),
        generation: Generation(9),
        after: Position::START,
        through: position(routes + 1),
    }];
    ToEdge::Batch { worker, routes, coverage, events: Vec::new() }
}

/// A batch of about `events` times 16 KiB.
fn large(worker: WorkerId, events: u64) -> ToEdge {
    let conversation = ConversationKey::from_u64(3 << 56);
    let event = |number: u64| LinkEvent {
        position: position(number + 1),
        log_time: Timestamp::from_millis(1_800_000_000_000 + number),
        conversation,
        previous: (number > 0).then(|| position(number)),
        recipients: vec![account(), account()],
        payload: vec![number as u8; 16 * 1024].into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok(),
    };
    let coverage = vec![Coverage {
        shard: Shard(3),
        generation: Generation(1 << 60),
        after: Position::START,
        through: position(events),
    }];
    ToEdge::Batch { worker, routes: 7, coverage, events: (0..events).map(event).collect() }
}

async fn take<T>(inbound: &mut Inbound<T>) -> Option<T> {
    timeout(AGAIN_AFTER, inbound.recv()).await.ok().map(|frame| frame.expect("the link left its listener"))
}

/// Sends until the wanted frame comes. Frames before it are passed over.
///
/// # Panics
/// If it never comes.
pub async fn send_until_heard<T, F>(
    inbound: &mut Inbound<T>,
    send: impl Fn() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T
where
    F: Future<Output = Result<(), super::LinkError>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "a frame did not come within {PATIENCE:?}");
        // Refused or lost: it is sent again.
        let _ = send().await;
        while let Some(frame) = take(inbound).await {
            if wanted(&frame) {
                return frame;
            }
        }
    }
}

/// A frame for an edge reaches that one alone, as it was sent.
pub async fn reaches_the_edge_named<L: EdgeLinkPort>(link: &L) {
    let (one, other, sender) = (edge(), edge(), worker());
    let (mut to_one, _presence) = link.listen_as_edge(one).await.expect("listening");
    let (mut to_other, _presence) = link.listen_as_edge(other).await.expect("listening");
    let frame = numbered(sender, 1);
    let heard =
        send_until_heard(&mut to_one, || link.to_edge(one, frame.clone()), |heard| *heard == frame).await;
    assert_eq!(heard, frame);
    // Whatever was wrongly sent to the other came before this.
    let mark = numbered(sender, 2);
    let heard = send_until_heard(
        &mut to_other,
        || link.to_edge(other, mark.clone()),
        |heard| {
            assert_ne!(*heard, frame, "a frame came to an edge that it was not for");
            *heard == mark
        },
    );
    heard.await;
}

/// What one sender sends comes in the order in which it was sent.
pub async fn keeps_a_senders_order<L: EdgeLinkPort>(link: &L) {
    let (to, sender) = (edge(), worker());
    let (mut inbound, _presence) = link.listen_as_edge(to).await.expect("listening");
    let first = numbered(sender, 0);
    send_until_heard(&mut inbound, || link.to_edge(to, first.clone()), |heard| *heard == first).await;
    for number in 1..=1_000 {
        let frame = if number % 100 == 0 { large(sender, 80) } else { numbered(sender, number) };
        link.to_edge(to, frame).await.expect("sending");
    }
    let mut heard = 0;
    let mut whole = 0;
    while heard < 999 {
        let frame = timeout(PATIENCE, inbound.recv()).await.expect("frames").expect("frames");
        let ToEdge::Batch { routes, events, .. } = frame else { panic!("nobody sent {frame:?}") };
        if events.is_empty() {
            assert!(routes > heard || routes == 0, "{routes} came after {heard}");
            heard = heard.max(routes);
        } else {
            whole += 1;
            assert_eq!(heard % 100, 99, "a large frame was passed or passed another");
        }
    }
    assert_eq!(whole, 9, "large frames among small ones");
}

/// What is for all reaches all.
pub async fn reaches_all_edges_and_workers<L: EdgeLinkPort>(link: &L) {
    let (mut one, _presence) = link.listen_as_edge(edge()).await.expect("listening");
    let (mut two, _presence) = link.listen_as_edge(edge()).await.expect("listening");
    let collect = ToEdge::Collect { worker: worker() };
    for inbound in [&mut one, &mut two] {
        send_until_heard(inbound, || link.to_all_edges(collect.clone()), |heard| *heard == collect).await;
    }
    let mut workers = [
        link.listen_as_worker(worker()).await.expect("listening"),
        link.listen_as_worker(worker()).await.expect("listening"),
    ];
    let leaving = edge();
    let frames = [
        ToWorkers::Routes { edge: leaving, from: 1, to: 2, came: vec![account()], left: vec![account()] },
        ToWorkers::Snapshot {
            edge: leaving,
            version: 3,
            accounts: vec![account()],
            through: vec![(Shard(1), position(5))],
        },
        ToWorkers::Repeat { edge: leaving, shard: Shard(255), after: position(9) },
        ToWorkers::Fleeting {
            conversation: ConversationKey::from_u64(8),
            audience: vec![account()],
            what: Fleeting::Typing { account: account(), typing: true },
        },
        ToWorkers::Bye { edge: leaving },
    ];
    for frame in frames {
        for inbound in &mut workers {
            send_until_heard(inbound, || link.to_workers(frame.clone()), |heard| *heard == frame).await;
        }
    }
}

/// Presence comes to every edge, and not among the frames of workers.
pub async fn tells_presence_to_all_edges<L: EdgeLinkPort>(link: &L) {
    let (_frames, mut one) = link.listen_as_edge(edge()).await.expect("listening");
    let (_frames, mut two) = link.listen_as_edge(edge()).await.expect("listening");
    let changes = vec![
        PresenceChange { account: account(), status: PresenceStatus::Online, last_seen: None },
        PresenceChange {
            account: account(),
            status: PresenceStatus::Offline,
            last_seen: Some(Timestamp::from_millis(1_800_000_000_000)),
        },
    ];
    for inbound in [&mut one, &mut two] {
        send_until_heard(inbound, || link.presence(changes.clone()), |heard| *heard == changes).await;
    }
}

/// Batches and snapshots far beyond a megabyte come whole.
pub async fn carries_large_frames_whole<L: EdgeLinkPort>(link: &L) {
    let (to, sender) = (edge(), worker());
    let (mut inbound, _presence) = link.listen_as_edge(to).await.expect("listening");
    let batch = large(sender, 200);
    send_until_heard(&mut inbound, || link.to_edge(to, batch.clone()), |heard| *heard == batch).await;
    let mut worker = link.listen_as_worker(worker()).await.expect("listening");
    let snapshot = ToWorkers::Snapshot {
        edge: to,
        version: 1,
        accounts: (0..100_000).map(|_| account()).collect(),
        through: Shard::all().map(|shard| (shard, position(1))).collect(),
    };
    send_until_heard(&mut worker, || link.to_workers(snapshot.clone()), |heard| *heard == snapshot).await;
}

/// A frame for an edge that is not there is no error, and neither is a listener that left.
pub async fn does_not_wait_for_the_absent<L: EdgeLinkPort>(link: &L) {
    let (gone, sender) = (edge(), worker());
    drop(link.listen_as_edge(gone).await.expect("listening"));
    let frame = || numbered(sender, 1);
    timeout(PATIENCE, link.to_edge(gone, frame())).await.expect("no waiting").expect("nobody is there");
    timeout(PATIENCE, link.to_edge(edge(), frame())).await.expect("no waiting").expect("nobody ever was");
}
