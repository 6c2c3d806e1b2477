//! Messages under way: who sends them, when each was due, and what comes of them. Shared by the
//! scenarios that send.

use crate::checker::{Checker, Session, Verdict};
use crate::client::{Failure, FrameMaker, Incoming, Person};
use crate::latency::{Latencies, Quantiles};
use crate::pace::{self, Pace};
use crate::server::{CpuUse, Server};
use reedi_client::RawConnection;
use reedi_protocol::ConversationId;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// Marks the due time of a message that is measured.
const MEASURED: u64 = 1 << 63;
/// A step begins this much later than it is asked for, so that its pacer is awake.
const BEGIN_AFTER: Duration = Duration::from_millis(20);
/// How long after a step what was sent may take to be told to all.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// Above this the server does not keep up: the knee.
pub const KNEE_P99_MS: f64 = 250.0;
/// A server that acknowledges less of what is due does not keep up either.
const KEPT_UP: f64 = 0.97;

/// All messages of a scenario.
pub struct Traffic {
    pub checker: Checker,
    /// By number: nanoseconds from `began` at which the message was due, and [`MEASURED`].
    due: Vec<AtomicU64>,
    began: Instant,
    audience: u32,
    to_ack: Latencies,
    to_delivered: Latencies,
    to_last: Latencies,
    refused: AtomicU64,
    /// Messages told to others than their sender.
    delivered: AtomicU64,
}

/// One who sends, and how.
#[derive(Clone)]
pub struct Sender {
    pub connection: usize,
    pub frames: FrameMaker,
}

/// What a step of constant rate came to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub rate: f64,
    pub sent: u64,
    /// Due, but the generator's connection was full or over.
    pub unsent: u64,
    pub refused: u64,
    pub acknowledged_per_second: f64,
    pub delivered_per_second: f64,
    pub to_ack: Quantiles,
    /// To others than the sender.
    pub to_delivered: Quantiles,
    /// To the last of all sessions.
    pub to_last: Quantiles,
    pub cpu: CpuUse,
    pub cpu_micros_per_delivery: f64,
    pub cpu_micros_per_message: f64,
    /// From the end of sending until everything was told to everybody.
    pub settled_after_ms: f64,
    pub pacer_late_most_ms: f64,
    pub kept_up: bool,
}

impl Traffic {
    /// Room for `messages` messages, each told to `audience` sessions.
    ///
    /// # Errors
    /// Never, see [`Latencies::new`].
    pub fn new(messages: u64, audience: u32) -> Result<Arc<Self>, Failure> {
        Ok(Arc::new(Self {
            checker: Checker::new(messages as usize, audience),
            due: std::iter::repeat_with(AtomicU64::default).take(messages as usize).collect(),
            began: Instant::now(),
            audience,
            to_ack: Latencies::new()?,
            to_delivered: Latencies::new()?,
            to_last: Latencies::new()?,
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        }))
    }

    /// What takes in the frames of a session of `person`, who is in one conversation.
    pub fn session(
        self: &Arc<Self>,
        index: usize,
        person: &Person,
        conversation: ConversationId,
    ) -> impl FnMut(&str) + Send + use<> {
        let traffic = self.clone();
        let session = self.checker.session(conversation, person.account);
        let account = person.account.to_string();
        move |text: &str| {
            let now = Instant::now();
            let Some(frame) = Incoming::decode(text) else {
                traffic.checker.foreign("a frame that is none of the contract");
                return;
            };
            match (frame.ack, frame.event) {
                (Some(number), _) => traffic.answered(index, &session, number, &frame, now),
                (None, Some("new_message")) => {
                    let own = frame.data.sender_id == Some(&account);
                    traffic.told(index, &session, &frame, own, now);
                }
                _ => {}
            }
        }
    }

    /// How long ago a message was due, if it counts.
    fn latency(&self, number: u64, now: Instant) -> Option<Duration> {
        let due = self.due.get(number as usize)?.load(Ordering::Relaxed);
        let due_at = self.began + Duration::from_nanos(due & !MEASURED);
        (due & MEASURED != 0).then(|| now.saturating_duration_since(due_at))
    }

    fn answered(&self, by: usize, session: &Session, number: u64, frame: &Incoming, now: Instant) {
        match (frame.data.ok, frame.data.position) {
            (Some(true), Some(position)) => {
                self.checker.acknowledged(session, number, position);
                if let Some(latency) = self.latency(number, now) {
                    self.to_ack.record(by, latency);
                }
            }
            _ => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn told(&self, by: usize, session: &Session, frame: &Incoming, own: bool, now: Instant) {
        let Some((number, told)) = self.checker.heard(session, &frame.data) else { return };
        if !own {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(latency) = self.latency(number, now) {
            if !own {
                self.to_delivered.record(by, latency);
            }
            if told == self.audience {
                self.to_last.record(by, latency);
            }
        }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Waits until everything that was acknowledged is told to everybody, and all is answered.
    async fn settle(&self, answered: u64) -> bool {
        let until = Instant::now() + SETTLE_WITHIN;
        while Instant::now() < until {
            let all_answered = self.checker.acknowledged_count() + self.refused() >= answered;
            let told = self.checker.acknowledged_count() * u64::from(self.audience);
            if all_answered && self.checker.told_count() >= told {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Sends at one rate, the senders in turn, numbering from `first` on; then waits for all of it.
    ///
    /// # Errors
    /// The pacer's thread died.
    pub async fn step(
        self: &Arc<Self>,
        server: &Server,
        connections: &Arc<Vec<RawConnection>>,
        senders: &Arc<Vec<Sender>>,
        pace: Pace,
        first: u64,
    ) -> Result<Step, Failure> {
        let begin = Instant::now() + BEGIN_AFTER;
        let answered_before = self.checker.acknowledged_count() + self.refused();
        let refused_before = self.refused();
        let (traffic, connections, senders) = (self.clone(), connections.clone(), senders.clone());
        let pacing = tokio::task::spawn_blocking(move || {
            pace::run(pace, begin, |i, due| {
                let number = first + i;
                let due_ns = (due - traffic.began).as_nanos() as u64;
                let measured = if pace.is_measured(i) { MEASURED } else { 0 };
                traffic.due[number as usize].store(due_ns | measured, Ordering::Relaxed);
                let sender = &senders[(number % senders.len() as u64) as usize];
                connections[sender.connection].try_send(sender.frames.message(number)).is_ok()
            })
        });
        sleep_until((begin + pace.warm_up).into()).await;
        let (cpu, delivered) = (server.cpu(), self.delivered());
        let acknowledged = self.checker.acknowledged_count();
        sleep_until((begin + pace.warm_up + pace.measure).into()).await;
        let (cpu, delivered) = (server.cpu_since(&cpu), self.delivered() - delivered);
        let acknowledged = self.checker.acknowledged_count() - acknowledged;
        let paced = pacing.await.map_err(|e| Failure::Other(format!("the pacer died: {e}")))?;
        let ended = Instant::now();
        let settled = self.settle(answered_before + paced.sent).await;
        let (to_ack, to_delivered) = (self.to_ack.take(), self.to_delivered.take());
        let refused = self.refused() - refused_before;
        let acknowledged_per_second = acknowledged as f64 / cpu.seconds;
        let kept_up = settled
            && paced.unsent == 0
            && refused == 0
            && to_delivered.p99_ms <= KNEE_P99_MS
            && acknowledged_per_second >= KEPT_UP * pace.rate;
        Ok(Step {
            rate: pace.rate,
            sent: paced.sent,
            unsent: paced.unsent,
            refused,
            acknowledged_per_second,
            delivered_per_second: delivered as f64 / cpu.seconds,
            to_ack,
            to_delivered,
            to_last: self.to_last.take(),
            cpu_micros_per_delivery: cpu.micros_each(delivered),
            cpu_micros_per_message: cpu.micros_each(acknowledged),
            cpu,
            settled_after_ms: ended.elapsed().as_secs_f64() * 1_000.0,
            pacer_late_most_ms: paced.late_most.as_secs_f64() * 1_000.0,
            kept_up,
        })
    }

    /// Judges all of it, with a word on connections that ended.
    #[must_use]
    pub fn verdict(&self, connections: &[RawConnection]) -> Verdict {
        let closed = connections.iter().filter(|c| c.is_closed()).count();
        if closed > 0 {
            self.checker.foreign(&format!("{closed} connections were ended by the server"));
        }
        self.checker.verdict()
    }
}
