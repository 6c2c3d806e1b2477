//! `strangers`: thousands of sockets that never say whose they are, while people who are known talk. Each
//! is refused at once or closed in time, no more of them wait than may, and nobody who is known is shut
//! out or misses a message.

use super::{check_history, pair_up, storm};
use crate::checker::Verdict;
use crate::client::{self, AT_ONCE, Failure, FrameMaker, Person};
use crate::latency::{Latencies, Quantiles};
use crate::pace::Pace;
use crate::server::{Server, WAITING_MOST};
use crate::traffic::{Sender, Step, Traffic};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reedi_client::{Endpoint, OpenError, RawConnection, Socket};
use reedi_protocol::{CloseCode, ConversationId, limits};
use serde::Serialize;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Pairs that talk, and their messages a second: enough to notice a stall, and little beside the strangers.
const PAIRS: usize = 20;
const RATE: f64 = 100.0;
/// Strangers from one address: half of what an edge leaves to each once it is crowded, a 64th of its places.
/// So it is the limit of all together that they meet.
const PER_ADDRESS: usize = WAITING_MOST / 128;
/// Strangers a second that are taken or refused at least. The pairs talk for as long as that takes.
const COME_A_SECOND: f64 = 500.0;
/// A socket is not closed before this, since its token might still come.
const TOKEN_WITHIN: Duration = Duration::from_millis(limits::AUTHENTICATE_WITHIN_MS);
/// And not later than this, counted from when it was open.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// The status of a refusal (RFC 6585, section 4), and what counts as at once on a machine that is busy.
const TOO_MANY: u16 = 429;
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// Somebody who is known connects this often, and must be in within this.
const NEWCOMER_EVERY: Duration = Duration::from_secs(1);
const LET_IN_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at how many wait.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Examples of what went wrong that are kept to be shown.
const EXAMPLES: usize = 10;

#[derive(Clone, Debug)]
pub struct Plan {
    pub strangers: usize,
    pub warm_up: Duration,
    /// How long the pairs talk before the strangers come, to compare with.
    pub quiet: Duration,
    pub content_bytes: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub strangers: usize,
    pub opened: u64,
    pub refused: u64,
    /// Strangers that were neither refused nor closed as they should be.
    pub wrong: u64,
    /// Until the last of them was let in or refused, and until the last was gone.
    pub came_in_s: f64,
    pub gone_after_s: f64,
    /// How long the pairs talked after the first of them came.
    pub talked_s: f64,
    pub refused_after: Quantiles,
    /// From when a socket was open.
    pub closed_after: Quantiles,
    /// (seconds, sockets that wait), by the server's own count.
    pub waiting: Vec<(f64, u64)>,
    pub most_waiting: u64,
    /// Those that the server counts when all are gone.
    pub left_waiting: u64,
    /// Sockets that may wait on all edges.
    pub places: usize,
    /// Of the server's user space for each that waits, by the growth of its anonymous memory.
    pub bytes_each: f64,
    /// People who are known, from when they began to connect until they had an answer to a command.
    pub let_in: Quantiles,
    pub shut_out: u64,
    /// What the pairs measured before the strangers came, and beside them.
    pub steps: Vec<Step>,
    pub verdict: Verdict,
    pub histories: Vec<Verdict>,
    /// What did not hold, in words; must be empty.
    pub broken: Vec<String>,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty() && self.verdict.is_clean() && self.histories.iter().all(Verdict::is_clean)
    }

    /// What was promised and did not hold, in words. Messages are the checker's to judge.
    fn not_held(&self) -> Vec<String> {
        let sum = |of: fn(&Step) -> u64| self.steps.iter().map(of).sum::<u64>();
        let (sent, unsent, refused) = (sum(|s| s.sent), sum(|s| s.unsent), sum(|s| s.refused));
        let (acknowledged, room) = (self.verdict.acknowledged, self.strangers.min(self.places));
        let promises = [
            (
                self.wrong == 0,
                format!("{} strangers were neither refused nor closed as promised", self.wrong),
            ),
            (
                self.opened >= room as u64,
                format!("{} strangers were let in, and there was room for {room}", self.opened),
            ),
            (
                self.most_waiting <= self.places as u64,
                format!("{} waited at once, and {} may", self.most_waiting, self.places),
            ),
            (self.left_waiting == 0, format!("{} wait when all are gone", self.left_waiting)),
            (
                self.let_in.count > 0 && self.shut_out == 0,
                format!("{} who are known were let in, and {} shut out", self.let_in.count, self.shut_out),
            ),
            (
                unsent == 0 && refused == 0 && acknowledged == sent,
                format!("{unsent} messages unsent, {refused} refused, {acknowledged} of {sent} acknowledged"),
            ),
            (
                self.gone_after_s <= self.talked_s,
                format!("strangers for {:.0} s, and messages for {:.0}", self.gone_after_s, self.talked_s),
            ),
        ];
        promises.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }
}

/// Runs it.
///
/// # Errors
/// It could not be set up, or the server does not say how many wait.
pub async fn run(server: &Server, plan: &Plan) -> Result<Outcome, Failure> {
    let talk = CLOSED_WITHIN + Duration::from_secs_f64(plan.strangers as f64 / COME_A_SECOND);
    let pace = |measure| Pace { rate: RATE, warm_up: plan.warm_up, measure };
    let (quiet, crowded) = (pace(plan.quiet), pace(talk));
    let messages = quiet.messages() + crowded.messages();
    let pairs = Pairs::connect(server, messages, plan.content_bytes).await?;
    let newcomers = client::people(talk.as_secs() as usize + 1, &server.secret)?;
    let tally = Arc::new(Tally::new()?);
    let quiet_step = pairs.talk(server, quiet, 0).await?;
    let flood = async {
        tokio::time::sleep(plan.warm_up).await;
        flood(server, plan.strangers, &newcomers, &tally).await
    };
    let (crowded_step, flood) = tokio::join!(pairs.talk(server, crowded, quiet.messages()), flood);
    let (crowded_step, (visit, waiting)) = (crowded_step?, flood?);
    let verdict = pairs.traffic.verdict(&pairs.connections);
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let mut outcome = Outcome {
        strangers: plan.strangers,
        opened: count(&tally.opened),
        refused: count(&tally.refused),
        wrong: count(&tally.wrong),
        came_in_s: visit.came_in_s,
        gone_after_s: visit.gone_after_s,
        talked_s: talk.as_secs_f64(),
        refused_after: tally.refused_after.take(),
        closed_after: tally.closed_after.take(),
        most_waiting: waiting.iter().map(|(_, count)| *count).max().unwrap_or_default(),
        left_waiting: waiting.last().map_or(0, |(_, count)| *count),
        waiting,
        places: WAITING_MOST * server.edges.len(),
        bytes_each: visit.bytes_each,
        let_in: tally.let_in.take(),
        shut_out: count(&tally.shut_out),
        steps: vec![quiet_step, crowded_step],
        verdict,
        histories: pairs.histories(server).await?,
        broken: Vec::new(),
    };
    outcome.broken = outcome.not_held();
    outcome.broken.extend(tally.examples.lock().iter().cloned());
    tell(&outcome);
    Ok(outcome)
}

fn tell(outcome: &Outcome) {
    eprintln!(
        "  {} strangers: {} let in, {} refused, at most {} waiting; closed after p50 {:.2} s, max {:.2} s; \
         {:.0} bytes each",
        outcome.strangers,
        outcome.opened,
        outcome.refused,
        outcome.most_waiting,
        outcome.closed_after.p50_ms / 1_000.0,
        outcome.closed_after.max_ms / 1_000.0,
        outcome.bytes_each
    );
    outcome.broken.iter().for_each(|broken| eprintln!("  {broken}"));
}

/// Those who are known, connected before any stranger comes.
struct Pairs {
    people: Vec<Person>,
    conversations: Vec<ConversationId>,
    traffic: Arc<Traffic>,
    connections: Arc<Vec<RawConnection>>,
    senders: Arc<Vec<Sender>>,
}

impl Pairs {
    async fn connect(server: &Server, messages: u64, content_bytes: usize) -> Result<Self, Failure> {
        let people = client::people(2 * PAIRS, &server.secret)?;
        let conversations = pair_up(server, &people).await?;
        let traffic = Traffic::new(messages, 2)?;
        let connections =
            client::connect(server, &people, |i| traffic.session(i, &people[i], conversations[i / 2]));
        let connections = Arc::new(connections.await?);
        let sender = |connection: usize| Sender {
            connection,
            frames: FrameMaker::new(conversations[connection / 2], content_bytes),
        };
        let senders = Arc::new((0..connections.len()).map(sender).collect());
        Ok(Self { people, conversations, traffic, connections, senders })
    }

    async fn talk(&self, server: &Server, pace: Pace, first: u64) -> Result<Step, Failure> {
        let step = self.traffic.step(server, &self.connections, &self.senders, pace, first).await?;
        eprintln!("  {}", crate::report::step_line(&step));
        Ok(step)
    }

    /// Compares every whole history with what was acknowledged.
    async fn histories(&self, server: &Server) -> Result<Vec<Verdict>, Failure> {
        let mut histories = Vec::with_capacity(PAIRS);
        for (pair, conversation) in self.conversations.iter().enumerate() {
            let acknowledged = self.traffic.checker.acknowledged_in(*conversation);
            let reader = &self.people[2 * pair + 1];
            histories.push(check_history(server, reader, *conversation, &acknowledged).await?);
        }
        Ok(histories)
    }
}

/// What becomes of strangers and newcomers.
struct Tally {
    opened: AtomicU64,
    refused: AtomicU64,
    wrong: AtomicU64,
    shut_out: AtomicU64,
    examples: Mutex<Vec<String>>,
    refused_after: Latencies,
    closed_after: Latencies,
    let_in: Latencies,
}

impl Tally {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            shut_out: AtomicU64::new(0),
            examples: Mutex::default(),
            refused_after: Latencies::new()?,
            closed_after: Latencies::new()?,
            let_in: Latencies::new()?,
        })
    }

    fn went_wrong(&self, count: &AtomicU64, what: String) {
        count.fetch_add(1, Ordering::Relaxed);
        let mut examples = self.examples.lock();
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
    }
}

/// How the strangers' coming and going went.
struct Visit {
    came_in_s: f64,
    gone_after_s: f64,
    bytes_each: f64,
}

/// Strangers come and go while newcomers come too; gives how many strangers waited, by seconds.
async fn flood(
    server: &Server,
    strangers: usize,
    newcomers: &[Person],
    tally: &Arc<Tally>,
) -> Result<(Visit, Vec<(f64, u64)>), Failure> {
    let over = AtomicBool::new(false);
    let visiting = async {
        let visit = visit(server, strangers, tally).await;
        over.store(true, Ordering::Relaxed);
        visit
    };
    let (visit, waiting, ()) =
        tokio::join!(visiting, watch(server, &over), arrive(server, newcomers, tally, &over));
    Ok((visit?, waiting?))
}

/// All strangers come, as fast as they are taken or refused, and those who are in stay until they are closed.
async fn visit(server: &Server, strangers: usize, tally: &Arc<Tally>) -> Result<Visit, Failure> {
    let (before, began) = (server.edge_memory(), Instant::now());
    let mut inside = JoinSet::new();
    let coming = (0..strangers).map(|number| come(server.edge(number), number, tally));
    let mut coming = stream::iter(coming).buffer_unordered(AT_ONCE);
    while let Some(came) = coming.next().await {
        if let Some(stranger) = came {
            inside.spawn(stranger.stay(tally.clone()));
        }
    }
    let came_in_s = began.elapsed().as_secs_f64();
    // The idle allocator may give back what the handshakes used.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = server.edge_memory().anonymous_bytes.saturating_sub(before.anonymous_bytes);
    let bytes_each = grown as f64 / server.waiting().await?.max(1) as f64;
    while let Some(gone) = inside.join_next().await {
        gone.map_err(|e| Failure::Other(format!("a stranger's task died: {e}")))?;
    }
    Ok(Visit { came_in_s, gone_after_s: began.elapsed().as_secs_f64(), bytes_each })
}

/// How many wait, again and again, and once more when all are gone.
async fn watch(server: &Server, over: &AtomicBool) -> Result<Vec<(f64, u64)>, Failure> {
    let (began, mut looks) = (Instant::now(), Vec::new());
    loop {
        let last = over.load(Ordering::Relaxed);
        looks.push((began.elapsed().as_secs_f64(), server.waiting().await?));
        if last {
            return Ok(looks);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A socket that says nothing.
struct Stranger {
    number: usize,
    socket: Socket,
    /// When it began to connect, which is before the server saw it, and when it was open, which is after.
    began: Instant,
    opened: Instant,
}

/// Where a stranger comes from.
fn address(number: usize) -> Ipv4Addr {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    Ipv4Addr::from(first + (number / PER_ADDRESS) as u32)
}

/// Tries once: who is refused goes away.
async fn come(edge: &Endpoint, number: usize, tally: &Tally) -> Option<Stranger> {
    let began = Instant::now();
    let opened = Socket::open(edge, None, &client::options_from(address(number))).await;
    let took = began.elapsed();
    match opened {
        Ok(socket) => {
            tally.opened.fetch_add(1, Ordering::Relaxed);
            return Some(Stranger { number, socket, began, opened: Instant::now() });
        }
        Err(OpenError::Refused { status: TOO_MANY, retry_after: Some(_), .. }) if took <= REFUSED_WITHIN => {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            tally.refused_after.record(number, took);
        }
        Err(error) => tally.went_wrong(&tally.wrong, format!("a stranger, after {took:.1?}: {error}")),
    }
    None
}

impl Stranger {
    /// Says nothing until the server closes it.
    async fn stay(mut self, tally: Arc<Tally>) {
        let until = self.opened + CLOSED_WITHIN;
        let ended = tokio::time::timeout_at(until.into(), self.socket.next()).await;
        let stayed = self.opened.elapsed();
        let wrong = match ended {
            Ok(Err(closed)) if closed.close_code() != Some(CloseCode::Unauthenticated) => closed.to_string(),
            Ok(Err(_)) if self.began.elapsed() < TOKEN_WITHIN => "closed too early".to_owned(),
            Ok(Err(_)) => return tally.closed_after.record(self.number, stayed),
            Ok(Ok(text)) => format!("was told {text}"),
            Err(_) => "still open".to_owned(),
        };
        tally.went_wrong(&tally.wrong, format!("a stranger, after {stayed:.1?}: {wrong}"));
    }
}

/// One after the other of those who are known connects anew, until the strangers are gone.
async fn arrive(server: &Server, newcomers: &[Person], tally: &Tally, over: &AtomicBool) {
    for (number, person) in newcomers.iter().enumerate() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        let entering = enter(server.edge(number), person, number);
        let why = match tokio::time::timeout(LET_IN_WITHIN, entering).await {
            Ok(Ok(socket)) => {
                tally.let_in.record(number, began.elapsed());
                socket.close().await;
                None
            }
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("not in within {LET_IN_WITHIN:?}")),
        };
        if let Some(why) = why {
            tally.went_wrong(&tally.shut_out, format!("somebody who is known: {why}"));
        }
        tokio::time::sleep(NEWCOMER_EVERY).await;
    }
}

/// Connects with a token, once, and asks for what only those get who are known.
async fn enter(edge: &Endpoint, person: &Person, number: usize) -> Result<Socket, String> {
    let opened = Socket::open(edge, Some(&person.token), &client::socket_options(number)).await;
    let mut socket = opened.map_err(|e| e.to_string())?;
    storm::resume(&mut socket, None, |_| {}).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What a run comes to in which everything holds.
    fn clean() -> Outcome {
        Outcome {
            strangers: 10_000,
            opened: 4_100,
            refused: 5_900,
            gone_after_s: 14.0,
            talked_s: 35.0,
            most_waiting: 4_096,
            places: 4_096,
            let_in: Quantiles { count: 14, ..Quantiles::default() },
            steps: [600, 3_500].map(|sent| Step { sent, ..Step::default() }).to_vec(),
            verdict: Verdict { acknowledged: 4_100, ..Verdict::default() },
            ..Outcome::default()
        }
    }

    #[test]
    fn whatever_does_not_hold_is_told() {
        assert_eq!(clean().not_held(), Vec::<String>::new());
        let few = Outcome { strangers: 300, opened: 300, refused: 0, most_waiting: 300, ..clean() };
        assert_eq!(few.not_held(), Vec::<String>::new());
        let silent = Quantiles::default();
        let refused = vec![Step { sent: 4_100, refused: 1, ..Step::default() }];
        for broken in [
            Outcome { wrong: 1, ..clean() },
            Outcome { opened: 4_095, ..clean() },
            Outcome { most_waiting: 4_097, ..clean() },
            Outcome { left_waiting: 1, ..clean() },
            Outcome { let_in: silent, ..clean() },
            Outcome { shut_out: 1, ..clean() },
            Outcome { steps: refused, ..clean() },
            Outcome { verdict: Verdict { acknowledged: 4_099, ..Verdict::default() }, ..clean() },
            Outcome { talked_s: 13.0, ..clean() },
        ] {
            assert_eq!(broken.not_held().len(), 1, "{broken:?}");
        }
        assert!(!Outcome { broken: vec!["one".into()], ..clean() }.is_clean());
    }

    #[test]
    fn no_address_has_more_strangers_than_its_share() {
        let mut strangers = BTreeMap::<Ipv4Addr, usize>::new();
        (0..10_000).for_each(|number| *strangers.entry(address(number)).or_default() += 1);
        assert!(strangers.values().all(|count| *count <= PER_ADDRESS));
        assert!(strangers.keys().all(Ipv4Addr::is_loopback));
    }
}
