//! Committing: jobs one after the other, several in one group, one durable commit per group. On disk a
//! thread of its own does it, so that the runtime never waits for a disk; in memory the caller does.

use super::clock::Clock;
use super::ends::Ends;
use super::engine::{Changes, Engine};
use super::purge::Purge;
use super::transaction::Transaction;
use crate::store::{StoreError, StoreResult};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Jobs that wait for the thread; beyond, callers wait to hand theirs over.
pub const QUEUE_JOBS: usize = 1_024;

/// Jobs in one group: what can gather while the group before is written, so that all of it goes at
/// once.
pub const GROUP_JOBS_MOST: usize = QUEUE_JOBS;

/// Changes in one group after which it is committed with no further job, in keys: bounds the memory of
/// a group and how long its first caller waits. At the measured rate this is below half a second.
pub const GROUP_CHANGES_MOST: usize = 10_000;

/// Something that reads and changes the store, and who waits for it.
trait Job: Send {
    /// Changes of a job that fails are not committed, those of the rest of its group are.
    fn run(&mut self, tx: &mut Transaction<'_>) -> StoreResult<()>;

    /// How it ended: after the commit, or after the job failed.
    fn end(self: Box<Self>, outcome: StoreResult<()>);
}

struct Waiting<T, W> {
    work: Option<W>,
    done: Option<T>,
    reply: oneshot::Sender<StoreResult<T>>,
}

impl<T, W> Job for Waiting<T, W>
where
    T: Send,
    W: FnOnce(&mut Transaction<'_>) -> StoreResult<T> + Send,
{
    fn run(&mut self, tx: &mut Transaction<'_>) -> StoreResult<()> {
        if let Some(work) = self.work.take() {
            self.done = Some(work(tx)?);
        }
        Ok(())
    }

    fn end(self: Box<Self>, outcome: StoreResult<()>) {
        let Self { done, reply, .. } = *self;
        let stopped = || StoreError::Unavailable("the job did not run".to_owned());
        // Whoever asked may have gone: what was done stands all the same.
        let _ = reply.send(outcome.and_then(|()| done.ok_or_else(stopped)));
    }
}

/// What commits jobs to `engine`.
pub struct Committer {
    engine: Arc<dyn Engine>,
    clock: Clock,
    purge: Purge,
}

impl Committer {
    /// Runs `first` and what `next` has, as one group.
    fn group(&mut self, first: Box<dyn Job>, mut next: impl FnMut() -> Option<Box<dyn Job>>) {
        let now = self.clock.now();
        let (mut changes, mut ends) = (Changes::new(), Ends::default());
        let mut ran: Vec<Box<dyn Job>> = Vec::new();
        let mut job = Some(first);
        while let Some(mut this) = job {
            let mut tx = Transaction::new(&*self.engine, &changes, now);
            match this.run(&mut tx) {
                Ok(()) => {
                    let (own, own_ends) = tx.into_changes();
                    if changes.is_empty() {
                        changes = own;
                    } else {
                        changes.extend(own);
                    }
                    ends.append(own_ends);
                    ran.push(this);
                }
                Err(error) => this.end(Err(error)),
            }
            let full = ran.len() >= GROUP_JOBS_MOST || changes.len() >= GROUP_CHANGES_MOST;
            job = if full { None } else { next() };
        }
        if let Err(error) = self.purge.add_due(&*self.engine, now, &mut changes) {
            // Readers skip what has ended all the same.
            tracing::error!(%error, "what has expired could not be removed");
            self.purge.again();
        }
        let noted = ends.note(&*self.engine, &mut changes);
        let outcome = noted.and_then(|()| self.engine.commit(changes));
        if outcome.is_err() {
            self.purge.again();
        }
        for job in ran {
            job.end(outcome.clone());
        }
    }
}

/// Where jobs are handed over.
pub enum Commits {
    Inline(Mutex<Committer>),
    Thread(CommitThread),
}

/// The thread ends with this, after what was handed over is committed.
pub struct CommitThread {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for CommitThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told its callers by leaving.
            let _ = thread.join();
        }
    }
}

impl Commits {
    #[must_use]
    pub fn inline(engine: Arc<dyn Engine>, clock: Clock) -> Self {
        let committer = Committer { engine, clock, purge: Purge::default() };
        Self::Inline(Mutex::new(committer))
    }

    /// # Errors
    /// The system starts no thread.
    pub fn thread(engine: Arc<dyn Engine>, clock: Clock) -> StoreResult<Self> {
        let (sender, mut jobs) = mpsc::channel::<Box<dyn Job>>(QUEUE_JOBS);
        let mut committer = Committer { engine, clock, purge: Purge::default() };
        let thread = std::thread::Builder::new()
            .name("reedi-store".to_owned())
            .spawn(move || {
                while let Some(first) = jobs.blocking_recv() {
                    committer.group(first, || jobs.try_recv().ok());
                }
            })
            .map_err(|e| StoreError::Unavailable(format!("no thread for the store: {e}")))?;
        Ok(Self::Thread(CommitThread { jobs: Some(sender), thread: Some(thread) }))
    }

    /// Runs `work` alone on the store, and answers once what it changed is committed.
    pub async fn run<T, W>(&self, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> StoreResult<T> + Send + 'static,
    {
        let stopped = || StoreError::Unavailable("the store has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Waiting { work: Some(work), done: None, reply });
        match self {
            Commits::Inline(committer) => committer.lock().group(job, || None),
            Commits::Thread(thread) => {
                let jobs = thread.jobs.as_ref().ok_or_else(stopped)?;
                jobs.send(job).await.map_err(|_| stopped())?;
            }
        }
        answer.await.map_err(|_| stopped())?
    }
}
