//! `storm`: everybody loses the connection at once, misses some messages, comes back and resumes.

use super::pair_up;
use crate::checker::{Checker, Session, Verdict};
use crate::client::{self, AT_ONCE, Failure, Incoming, Person};
use crate::latency::{Latencies, Quantiles};
use crate::server::{CpuUse, Server};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::Rng;
use reedi_client::{Endpoint, Socket, frame};
use reedi_protocol::ConversationId;
use reedi_protocol::command::{Resume, SendMessage, name};
use reedi_protocol::resource::MessageType;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One conversation in so many gets a message while everybody is away.
const MISSED_ONE_IN: usize = 5;
/// Why a resume was not done yet.
const PENDING: &str = "the store has not caught up";
/// How long one client may take to be back, its tries included.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How long a session is listened to after it has resumed, for what may come twice.
const LISTEN_ON: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: usize,
    /// Clients begin to come back within this time, evenly spread.
    pub spread: Duration,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub clients: usize,
    pub spread_s: f64,
    pub missed_messages: u64,
    /// From the first that came back to the last that had resumed.
    pub all_resumed_s: f64,
    /// Each from when it was due to come back until it had resumed.
    pub to_resumed: Quantiles,
    /// (seconds, clients that have resumed)
    pub resumed: Vec<(f64, u64)>,
    /// Tries that were refused or failed, and made good by a later one.
    pub retries: u64,
    /// Clients that did not come back.
    pub failed: u64,
    pub cpu: CpuUse,
    pub verdict: Verdict,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.verdict.is_clean()
    }
}

struct Shared {
    checker: Checker,
    latencies: Latencies,
    /// By client: milliseconds after the storm began; 0 while it has not resumed.
    resumed_at_ms: Vec<AtomicU64>,
    retries: AtomicU64,
    failed: AtomicU64,
}

/// Runs it.
///
/// # Errors
/// It could not be set up.
pub async fn run(server: &Server, plan: &Plan) -> Result<Outcome, Failure> {
    let people = client::people(plan.clients.next_multiple_of(2), &server.secret)?;
    let conversations = pair_up(server, &people).await?;
    let checkpoints = checkpoints(server, &people).await?;
    let missed = conversations.len().div_ceil(MISSED_ONE_IN);
    let checker = Checker::new(missed, 2);
    // Before anybody comes back: who does not is told of nothing, and that is missing.
    let sessions: Vec<Arc<Session>> = people
        .iter()
        .enumerate()
        .map(|(i, person)| checker.session(conversations[i / 2], person.account))
        .collect();
    let shared = Arc::new(Shared {
        checker,
        latencies: Latencies::new()?,
        resumed_at_ms: people.iter().map(|_| AtomicU64::new(0)).collect(),
        retries: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    send_missed(server, &people, &conversations, &sessions, &shared.checker).await?;
    let (cpu, begin) = (server.cpu(), Instant::now());
    let clients = people.into_iter().zip(checkpoints).zip(sessions).enumerate();
    let coming = clients.map(|(i, ((person, checkpoint), session))| {
        let due = begin + plan.spread.mul_f64(rand::rng().random_range(0.0..1.0));
        let away = Away { index: i, person, edge: server.edge(i).clone(), session, checkpoint, due };
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            let back = match tokio::time::timeout(BACK_WITHIN, away.come_back(&shared, begin)).await {
                Ok(back) => back,
                Err(_) => Err("not back in time".into()),
            };
            if let Err(why) = &back
                && shared.failed.fetch_add(1, Ordering::Relaxed) < 3
            {
                eprintln!("  a client did not come back: {why}");
            }
            back.ok()
        })
    });
    let coming: Vec<_> = coming.collect();
    let mut back = Vec::with_capacity(coming.len());
    for client in coming {
        back.extend(client.await.map_err(|e| Failure::Other(format!("a client's task died: {e}")))?);
    }
    let cpu = server.cpu_since(&cpu);
    let listening = back.into_iter().map(|session| tokio::spawn(session.listen_on(shared.clone())));
    for session in listening.collect::<Vec<_>>() {
        session.await.map_err(|e| Failure::Other(format!("a session's task died: {e}")))?;
    }
    Ok(outcome(plan, &shared, missed as u64, cpu))
}

fn outcome(plan: &Plan, shared: &Shared, missed: u64, cpu: CpuUse) -> Outcome {
    let mut times: Vec<u64> = shared.resumed_at_ms.iter().map(|at| at.load(Ordering::Relaxed)).collect();
    times.retain(|at| *at > 0);
    times.sort_unstable();
    let points = 60;
    let resumed = (0..=points)
        .map(|i| {
            let at_ms = times.last().copied().unwrap_or_default() * i / points;
            (at_ms as f64 / 1_000.0, times.partition_point(|t| *t <= at_ms) as u64)
        })
        .collect();
    let outcome = Outcome {
        clients: shared.resumed_at_ms.len(),
        spread_s: plan.spread.as_secs_f64(),
        missed_messages: missed,
        all_resumed_s: times.last().copied().unwrap_or_default() as f64 / 1_000.0,
        to_resumed: shared.latencies.take(),
        resumed,
        retries: shared.retries.load(Ordering::Relaxed),
        failed: shared.failed.load(Ordering::Relaxed),
        cpu,
        verdict: shared.checker.verdict(),
    };
    eprintln!(
        "  {} clients resumed in {:.2} s (each: p50 {:.0} ms, p99 {:.0} ms), {} retries, {} failed",
        outcome.clients,
        outcome.all_resumed_s,
        outcome.to_resumed.p50_ms,
        outcome.to_resumed.p99_ms,
        outcome.retries,
        outcome.failed
    );
    outcome
}

/// Connects everybody, learns where each stands, and drops the connections without a goodbye.
async fn checkpoints(server: &Server, people: &[Person]) -> Result<Vec<String>, Failure> {
    let sockets = people.iter().enumerate().map(|(i, person)| async move {
        let (mut socket, _) = client::open(server.edge(i), person, i).await?;
        let checkpoint = resume(&mut socket, None, |_| {}).await.map_err(Failure::Other)?;
        Ok::<_, Failure>((socket, checkpoint))
    });
    let held: Vec<(Socket, String)> = stream::iter(sockets).buffered(AT_ONCE).try_collect().await?;
    Ok(held.into_iter().map(|(_, checkpoint)| checkpoint).collect())
}

/// Asks to resume and waits until it is done; gives the new checkpoint. Messages go to `each`.
pub(super) async fn resume(
    socket: &mut Socket,
    checkpoint: Option<String>,
    mut each: impl FnMut(&Incoming),
) -> Result<String, String> {
    let command = Resume { checkpoint, ..Resume::default() };
    let frame = frame::command(name::RESUME, &command, Some(0)).map_err(|e| e.to_string())?;
    socket.send(frame.into()).await.map_err(|e| e.to_string())?;
    loop {
        let text = socket.next().await.map_err(|e| e.to_string())?;
        let frame = Incoming::decode(&text).ok_or("not a frame")?;
        match frame.event {
            Some("resume_complete") => return Ok(frame.data.checkpoint.unwrap_or_default().to_owned()),
            Some("resume_pending") => return Err(PENDING.into()),
            Some("new_message") => each(&frame),
            _ if frame.ack.is_some() && frame.data.ok == Some(false) => {
                return Err("resume was refused".into());
            }
            _ => {}
        }
    }
}

async fn send_missed(
    server: &Server,
    people: &[Person],
    conversations: &[ConversationId],
    sessions: &[Arc<Session>],
    checker: &Checker,
) -> Result<(), Failure> {
    let rest = client::rest(&server.edges[0])?;
    let calls = conversations.iter().enumerate().step_by(MISSED_ONE_IN).map(|(pair, conversation)| {
        let rest = rest.for_token(people[2 * pair].token.clone());
        let (number, session) = ((pair / MISSED_ONE_IN) as u64, &sessions[2 * pair]);
        let message = SendMessage {
            content: format!("{number:010} while you were away"),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: None,
        };
        async move {
            let (sent, _) = rest.send_message(*conversation, &message).await?;
            checker.acknowledged(session, number, sent.position);
            Ok::<_, Failure>(())
        }
    });
    stream::iter(calls).buffer_unordered(AT_ONCE).try_collect().await
}

/// A client that has lost its connection.
struct Away {
    index: usize,
    person: Person,
    edge: Endpoint,
    session: Arc<Session>,
    checkpoint: String,
    due: Instant,
}

/// A client that is back.
struct Back {
    socket: Socket,
    session: Arc<Session>,
}

impl Away {
    async fn come_back(self, shared: &Shared, begin: Instant) -> Result<Back, String> {
        loop {
            let opened = client::open(&self.edge, &self.person, self.index).await;
            let (mut socket, tries) = opened.map_err(|e| e.to_string())?;
            shared.retries.fetch_add(u64::from(tries), Ordering::Relaxed);
            let each = |frame: &Incoming| {
                shared.checker.heard(&self.session, &frame.data);
            };
            match resume(&mut socket, Some(self.checkpoint.clone()), each).await {
                Ok(_) => {
                    shared.latencies.record(self.index, self.due.elapsed());
                    let resumed_at_ms = begin.elapsed().as_millis().max(1) as u64;
                    shared.resumed_at_ms[self.index].store(resumed_at_ms, Ordering::Relaxed);
                    return Ok(Back { socket, session: self.session });
                }
                // Nothing was told: it may begin anew from the same checkpoint.
                Err(why) if why == PENDING => drop(shared.retries.fetch_add(1, Ordering::Relaxed)),
                Err(why) => return Err(why),
            }
        }
    }
}

impl Back {
    /// Listens for what comes twice.
    async fn listen_on(mut self, shared: Arc<Shared>) {
        let listening = async {
            while let Ok(text) = self.socket.next().await {
                if let Some(frame) = Incoming::decode(&text).filter(|f| f.event == Some("new_message")) {
                    shared.checker.heard(&self.session, &frame.data);
                }
            }
        };
        if tokio::time::timeout(LISTEN_ON, listening).await.is_ok() {
            shared.checker.foreign("a session was ended by the server after it had resumed");
        }
    }
}
