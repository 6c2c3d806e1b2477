//! What goes wrong with a process and the parts it talks to, in a simulation: the adapters named
//! `simulated` ask here before and after every call. All of it is drawn from the seed.

use super::random;
use parking_lot::Mutex;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Of a thousand calls.
pub type PerMille = u32;

/// What happens to calls of the log.
#[derive(Clone, Debug, Default)]
pub struct LogFaults {
    pub away: bool,
    /// Refused and surely not taken.
    pub refused: PerMille,
    /// Taken, and the answer is lost.
    pub unanswered: PerMille,
    /// Taken only after a time within [`LogFaults::late_by_ms`]; the caller hears nothing.
    pub late: PerMille,
    pub late_by_ms: std::ops::Range<u64>,
    /// A reader that has to begin anew.
    pub reset: PerMille,
}

/// What happens to calls of the store.
#[derive(Clone, Debug, Default)]
pub struct StoreFaults {
    pub away: bool,
    pub refused: PerMille,
    /// Done in part or in whole, and answered with an error.
    pub unanswered: PerMille,
    pub slow: PerMille,
    pub slow_by: Duration,
}

/// What happens to frames of the edge link.
#[derive(Clone, Debug, Default)]
pub struct LinkFaults {
    pub away: bool,
    pub lost: PerMille,
    pub doubled: PerMille,
    /// Overtaken by later ones.
    pub delayed: PerMille,
    pub delayed_by: Duration,
}

/// All that goes wrong for one process now.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub log: LogFaults,
    pub store: StoreFaults,
    pub link: LinkFaults,
    pub ownership_away: bool,
    pub redis_away: bool,
    /// The longest that a call takes each way.
    pub latency: Duration,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Runs,
    Paused,
    Dead,
}

/// One process of a simulation. Cheap to clone; clones are the same process.
#[derive(Clone)]
pub struct Process(Arc<Shared>);

struct Shared {
    name: String,
    gate: watch::Sender<Gate>,
    faults: Mutex<Faults>,
    tasks: Mutex<Vec<AbortHandle>>,
    trace: Trace,
}

impl Process {
    #[must_use]
    pub fn new(name: impl Into<String>, faults: Faults, trace: Trace) -> Self {
        let gate = watch::channel(Gate::Runs).0;
        let faults = Mutex::new(faults);
        Self(Arc::new(Shared { name: name.into(), gate, faults, tasks: Mutex::default(), trace }))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[must_use]
    pub fn faults(&self) -> Faults {
        self.0.faults.lock().clone()
    }

    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.faults.lock());
    }

    /// Stops the process until [`Process::wake`], as SIGSTOP does.
    pub fn pause(&self) {
        self.turn(Gate::Runs, Gate::Paused);
    }

    pub fn wake(&self) {
        self.turn(Gate::Paused, Gate::Runs);
    }

    fn turn(&self, from: Gate, to: Gate) {
        self.0.gate.send_if_modified(|gate| {
            let turns = *gate == from;
            if turns {
                *gate = to;
            }
            turns
        });
    }

    /// Ends the process, as SIGKILL does: its calls never come back and its tasks are gone.
    pub fn kill(&self) {
        self.0.gate.send_replace(Gate::Dead);
        self.0.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    #[must_use]
    pub fn is_dead(&self) -> bool {
        *self.0.gate.borrow() == Gate::Dead
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.0.gate.borrow() == Gate::Paused
    }

    /// A task that ends with the process.
    pub fn owns(&self, task: AbortHandle) {
        let mut tasks = self.0.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// Waits while the process is paused; for ever once it is dead.
    pub async fn runs(&self) {
        let mut gate = self.0.gate.subscribe();
        if gate.wait_for(|gate| *gate == Gate::Runs).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The way of a call there or back.
    pub async fn travels(&self) {
        let most = self.0.faults.lock().latency;
        if !most.is_zero() {
            tokio::time::sleep(up_to(most)).await;
        }
        self.runs().await;
    }

    /// Notes what happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.0.trace.note(&self.0.name, what);
    }
}

/// Whether it happens this time.
#[must_use]
pub fn happens(per_mille: PerMille) -> bool {
    per_mille > 0 && random::rng().random_range(0..1_000) < per_mille
}

/// Any time within the range, in milliseconds; its start where it is empty.
#[must_use]
pub fn within(range_ms: &std::ops::Range<u64>) -> Duration {
    let most_ms = range_ms.end.max(range_ms.start + 1);
    Duration::from_millis(random::rng().random_range(range_ms.start..most_ms))
}

/// Any time up to `most`, in milliseconds.
#[must_use]
pub fn up_to(most: Duration) -> Duration {
    Duration::from_millis(random::rng().random_range(0..=most.as_millis() as u64))
}

/// What happened in a run, as one number, and as lines where somebody wants to read them.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Kept>>);

/// What becomes of the lines of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    Hashed,
    Kept,
    /// At once, so that they are there whatever becomes of the run.
    Printed,
}

struct Kept {
    hash: blake3::Hasher,
    become_of: Lines,
    lines: Vec<String>,
    begun: Instant,
}

impl Trace {
    #[must_use]
    pub fn new(become_of: Lines) -> Self {
        let (hash, begun) = (blake3::Hasher::new(), Instant::now());
        Self(Arc::new(Mutex::new(Kept { hash, become_of, lines: Vec::new(), begun })))
    }

    pub fn note(&self, who: &str, what: impl FnOnce() -> String) {
        let mut kept = self.0.lock();
        let line = format!("{:>9.3} {who}: {}", kept.begun.elapsed().as_secs_f64(), what());
        kept.hash.update(line.as_bytes());
        match kept.become_of {
            Lines::Hashed => {}
            Lines::Kept => kept.lines.push(line),
            Lines::Printed => println!("{line}"),
        }
    }

    /// The same for two runs in which the same happened.
    #[must_use]
    pub fn hash(&self) -> String {
        self.0.lock().hash.finalize().to_hex().to_string()
    }

    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.clone()
    }
}
