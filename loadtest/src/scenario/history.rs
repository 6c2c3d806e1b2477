//! `history`: pages of 50 messages over REST, newest and older ones, at fixed rates.

use super::{check_history, pair_up};
use crate::checker::Verdict;
use crate::client::{self, AT_ONCE, Failure, Person};
use crate::latency::{Latencies, Quantiles};
use crate::pace::{self, Pace};
use crate::server::{CpuUse, Server};
use crate::traffic::KNEE_P99_MS;
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::Rng;
use reedi_client::Rest;
use reedi_invariants::Acked;
use reedi_protocol::command::SendMessage;
use reedi_protocol::resource::MessageType;
use reedi_protocol::{ConversationId, MessageId};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Messages of a page.
const PAGE: usize = 50;
/// Keep-alive connections that read pages; a call waits for a free one, which its latency shows.
const CONNECTIONS: usize = 64;
/// Calls that may wait for a connection; more says that the server does not keep up.
const QUEUE: usize = 10_000;
/// The head of an answer is read up to this.
const HEAD_BYTES: usize = 16 * 1_024;
/// How long one page may take before its connection is given up.
const PAGE_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Plan {
    pub conversations: usize,
    /// Messages in each.
    pub messages: usize,
    /// Pages a second, one step each.
    pub rates: Vec<f64>,
    pub warm_up: Duration,
    pub measure: Duration,
    pub content_bytes: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub conversations: usize,
    pub messages_each: usize,
    pub steps: Vec<Step>,
    pub knee: Option<f64>,
    pub histories: Vec<Verdict>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub rate: f64,
    pub pages: u64,
    /// Pages that were refused, short, or not in order.
    pub wrong: u64,
    pub unsent: u64,
    pub pages_per_second: f64,
    pub latency: Quantiles,
    pub cpu: CpuUse,
    pub cpu_micros_per_page: f64,
    pub kept_up: bool,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.histories.iter().all(Verdict::is_clean) && self.steps.iter().all(|step| step.wrong == 0)
    }
}

/// Runs it.
///
/// # Errors
/// It could not be set up.
pub async fn run(server: &Server, plan: &Plan) -> Result<Outcome, Failure> {
    let people = client::people(2 * plan.conversations, &server.secret)?;
    let conversations = pair_up(server, &people).await?;
    let rest = client::rest(&server.edges[0])?;
    let filling = conversations.iter().enumerate().map(|(i, conversation)| {
        let rest = rest.for_token(people[2 * i].token.clone());
        fill(rest, *conversation, plan)
    });
    let filled: Vec<Vec<MessageId>> = stream::iter(filling).buffered(AT_ONCE).try_collect().await?;
    let mut histories = Vec::new();
    for (i, messages) in filled.iter().enumerate() {
        let acknowledged = acknowledged(&people[2 * i], messages);
        histories.push(check_history(server, &people[2 * i + 1], conversations[i], &acknowledged).await?);
    }
    let readers: Arc<Vec<Reader>> = Arc::new(
        filled
            .into_iter()
            .enumerate()
            .map(|(i, messages)| Reader::new(&people[2 * i + 1], conversations[i], messages))
            .collect(),
    );
    let mut steps = Vec::<Step>::new();
    for rate in &plan.rates {
        let pace = Pace { rate: *rate, warm_up: plan.warm_up, measure: plan.measure };
        let step = run_step(server, &readers, pace).await?;
        eprintln!(
            "  {:>6.0} pages/s  p50 {:.2} p99 {:.2} ms  server {:.2} cores  {:.0} us/page{}",
            step.rate,
            step.latency.p50_ms,
            step.latency.p99_ms,
            step.cpu.server_cores,
            step.cpu_micros_per_page,
            if step.kept_up { "" } else { "  (does not keep up)" }
        );
        let kept_up = step.kept_up;
        steps.push(step);
        if !kept_up {
            break;
        }
    }
    let knee = steps.iter().filter(|s| s.kept_up).map(|s| s.rate).next_back();
    Ok(Outcome { conversations: plan.conversations, messages_each: plan.messages, steps, knee, histories })
}

/// Sends a conversation's messages, one after the other.
async fn fill(rest: Rest, conversation: ConversationId, plan: &Plan) -> Result<Vec<MessageId>, Failure> {
    let mut messages = Vec::with_capacity(plan.messages);
    for number in 0..plan.messages {
        let message = SendMessage {
            content: format!("{number:010}{}", ".".repeat(plan.content_bytes.saturating_sub(10))),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: None,
        };
        messages.push(rest.send_message(conversation, &message).await?.0.message_id);
    }
    Ok(messages)
}

/// What [`fill`] was answered, one message after the other.
fn acknowledged(sender: &Person, messages: &[MessageId]) -> Vec<Acked> {
    let acked = |(number, message): (usize, &MessageId)| Acked {
        sender: sender.account,
        client_message_id: number.to_string(),
        message: *message,
        at_ms: 0,
    };
    messages.iter().enumerate().map(acked).collect()
}

/// Somebody who scrolls through a conversation.
struct Reader {
    /// All of a request but its cursor.
    before: String,
    after: String,
    /// From which a page of 50 older ones can be asked for.
    cursors: Vec<MessageId>,
}

impl Reader {
    fn new(person: &Person, conversation: ConversationId, messages: Vec<MessageId>) -> Self {
        Self {
            before: format!("GET /api/messages/conversations/{conversation}/messages?limit={PAGE}"),
            after: format!(
                " HTTP/1.1\r\nhost: loadtest\r\nauthorization: Bearer {}\r\n\r\n",
                person.token.expose()
            ),
            cursors: messages.get(PAGE..).unwrap_or_default().to_vec(),
        }
    }

    /// Half of the pages are the newest one, as when a conversation is opened; the others are older.
    fn request(&self) -> String {
        let mut random = rand::rng();
        if self.cursors.is_empty() || random.random_bool(0.5) {
            return format!("{}{}", self.before, self.after);
        }
        let cursor = self.cursors[random.random_range(0..self.cursors.len())];
        format!("{}&before={cursor}{}", self.before, self.after)
    }
}

struct Call {
    request: String,
    due: Instant,
    measured: bool,
}

#[derive(Default)]
struct Counts {
    pages: AtomicU64,
    wrong: AtomicU64,
}

async fn run_step(server: &Server, readers: &Arc<Vec<Reader>>, pace: Pace) -> Result<Step, Failure> {
    let (calls, waiting) = tokio::sync::mpsc::channel::<Call>(QUEUE);
    let (waiting, latencies) = (Arc::new(Mutex::new(waiting)), Arc::new(Latencies::new()?));
    let counts = Arc::new(Counts::default());
    let address = server.edges[0].as_url().socket_addrs(|| None).ok().and_then(|a| a.first().copied());
    let address = address.ok_or_else(|| Failure::Other("the server has no address".into()))?;
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|i| {
            let (waiting, latencies, counts) = (waiting.clone(), latencies.clone(), counts.clone());
            tokio::spawn(async move {
                let mut stream: Option<TcpStream> = None;
                loop {
                    let Some(call) = waiting.lock().await.recv().await else { return };
                    let page =
                        tokio::time::timeout(PAGE_WITHIN, read_page(&mut stream, address, &call.request));
                    let counted = match page.await {
                        Ok(Ok(body)) if is_right(&body) => &counts.pages,
                        _ => {
                            stream = None;
                            &counts.wrong
                        }
                    };
                    counted.fetch_add(1, Ordering::Relaxed);
                    if call.measured {
                        latencies.record(i, call.due.elapsed());
                    }
                }
            })
        })
        .collect();
    let begin = Instant::now() + Duration::from_millis(20);
    let pacing = {
        let readers = readers.clone();
        tokio::task::spawn_blocking(move || {
            pace::run(pace, begin, |i, due| {
                let request = readers[(i % readers.len() as u64) as usize].request();
                calls.try_send(Call { request, due, measured: pace.is_measured(i) }).is_ok()
            })
        })
    };
    tokio::time::sleep_until((begin + pace.warm_up).into()).await;
    let (cpu, pages) = (server.cpu(), counts.pages.load(Ordering::Relaxed));
    tokio::time::sleep_until((begin + pace.warm_up + pace.measure).into()).await;
    let (cpu, measured) = (server.cpu_since(&cpu), counts.pages.load(Ordering::Relaxed) - pages);
    let paced = pacing.await.map_err(|e| Failure::Other(format!("the pacer died: {e}")))?;
    // The pacer has dropped its end of the queue: the workers finish what waits, and leave.
    for worker in workers {
        worker.await.map_err(|e| Failure::Other(format!("a reader died: {e}")))?;
    }
    let (latency, wrong) = (latencies.take(), counts.wrong.load(Ordering::Relaxed));
    let pages_per_second = measured as f64 / cpu.seconds;
    let kept_up = paced.unsent == 0
        && wrong == 0
        && latency.p99_ms <= KNEE_P99_MS
        && pages_per_second >= 0.97 * pace.rate;
    Ok(Step {
        rate: pace.rate,
        pages: counts.pages.load(Ordering::Relaxed),
        wrong,
        unsent: paced.unsent,
        pages_per_second,
        latency,
        cpu_micros_per_page: cpu.micros_each(measured),
        cpu,
        kept_up,
    })
}

/// One call on a connection that stays open. Lean: the generator shares the machine with the server.
async fn read_page(
    stream: &mut Option<TcpStream>,
    address: std::net::SocketAddr,
    request: &str,
) -> std::io::Result<Vec<u8>> {
    if stream.is_none() {
        let fresh = TcpStream::connect(address).await?;
        fresh.set_nodelay(true)?;
        *stream = Some(fresh);
    }
    let Some(stream) = stream.as_mut() else { return Err(std::io::ErrorKind::NotConnected.into()) };
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::with_capacity(32 * 1_024);
    let head = loop {
        if stream.read_buf(&mut read).await? == 0 || read.len() > HEAD_BYTES * 8 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = read.windows(4).take(HEAD_BYTES).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let (true, Some(length)) = (text.starts_with("http/1.1 200"), length) else {
        return Err(std::io::Error::other("not a page"));
    };
    while read.len() < head + length {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(read.split_off(head))
}

/// Whether a page has all its messages, the newest first.
fn is_right(body: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"messageId\":\"";
    // Ids of one conversation sort as strings.
    let mut last: Option<&[u8]> = None;
    let (mut count, mut rest) = (0, body);
    while let Some(at) = rest.windows(FIELD.len()).position(|w| w == FIELD) {
        let Some(id) = rest.get(at + FIELD.len()..at + FIELD.len() + 36) else { return false };
        if last.is_some_and(|last| last <= id) {
            return false;
        }
        last = Some(id);
        count += 1;
        // The shortest message has far more after its id.
        rest = rest.get(at + 200..).unwrap_or_default();
    }
    count == PAGE
}
