//! Leaving gracefully: first drain, then stop; a second signal leaves at once. And leaving because a part of the process
//! has ended that it cannot do without.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The exit status after a second signal: 128 + SIGINT, as shells count it.
const EXIT_FORCED: i32 = 130;
/// The exit status of a process that has not ended by itself.
const EXIT_OVERDUE: i32 = 1;
/// How long what was begun may take once the time to drain is over: the last goodbyes, or a request under way, take half of
/// it.
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// What is left when everything was told to stop has this long to end. With the time to drain that is the default it all
/// stays below the 30 s that Kubernetes waits.
const ENDS_WITHIN: Duration = Duration::from_secs(4);

/// The two moments of leaving. Clones share them.
///
/// *Draining*: not ready any more; take no new connections and no new leases, tell clients to go,
/// give leases back, finish what is in hand. *Stopping*: whatever is left ends now.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopping: CancellationToken,
    failure: Arc<OnceLock<String>>,
}

/// Why a process ends without waiting for what is left in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtOnce {
    SecondSignal,
    Overdue,
}

impl Shutdown {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to drain; further calls change nothing.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Ends what is left; implies draining, so that nobody waits for a moment that is past.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }

    /// Begins to drain because the process is of no use any more; the first reason stands.
    pub fn fail(&self, why: impl Into<String>) {
        let why = why.into();
        tracing::error!(why, "the process cannot go on and leaves");
        let _ = self.failure.set(why);
        self.drain();
    }

    /// Why the process had to leave, for its exit status; `None` where it was told to.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Watches a task that the process cannot do without: one that panics, or ends before the process drains, fails it.
    /// To abort it is no failure. Ends with the task.
    pub fn supervise(&self, what: &'static str, task: JoinHandle<()>) -> JoinHandle<()> {
        let shutdown = self.clone();
        tokio::spawn(async move {
            match task.await {
                Err(error) if error.is_panic() => shutdown.fail(format!("{what} has panicked")),
                Ok(()) if !shutdown.is_draining() => shutdown.fail(format!("{what} has ended")),
                Ok(()) | Err(_) => {}
            }
        })
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Ends when draining begins.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Ends when everything has to end.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// The tokens themselves, for child tokens and `run_until_cancelled`.
    #[must_use]
    pub fn draining_token(&self) -> &CancellationToken {
        &self.draining
    }

    #[must_use]
    pub fn stopping_token(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Drains at the first SIGTERM or SIGINT and stops 10 s after `drain_within`. A second signal ends the process at once,
    /// whenever it comes, and so does the time when what was stopped has still not ended.
    ///
    /// # Errors
    /// The system refuses to tell this process of signals.
    pub fn on_signals(&self, drain_within: Duration) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (tell, signals) = mpsc::channel(1);
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if tell.send(name).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let status = match shutdown.leave(signals, drain_within).await {
                AtOnce::SecondSignal => EXIT_FORCED,
                AtOnce::Overdue => EXIT_OVERDUE,
            };
            std::process::exit(status);
        });
        Ok(())
    }

    /// Leaves at the first of `signals`, or when somebody else begins to; ends when it must not be waited for any more.
    async fn leave(&self, mut signals: mpsc::Receiver<&'static str>, drain_within: Duration) -> AtOnce {
        let mut is_told = tokio::select! {
            Some(name) = signals.recv() => {
                tracing::info!("{name}: draining");
                true
            }
            () = self.draining() => false,
        };
        self.drain();
        let mut second = pin!(async {
            while let Some(name) = signals.recv().await {
                // Of a process that leaves by itself nobody has asked for that yet.
                if std::mem::replace(&mut is_told, true) {
                    return;
                }
                tracing::info!("{name}: draining already");
            }
            std::future::pending().await
        });
        tokio::select! {
            () = &mut second => return second_signal(),
            () = self.stopping() => {}
            () = tokio::time::sleep_until(Instant::now() + drain_within + FINISH_WITHIN) => {
                tracing::warn!(drain_s = drain_within.as_secs(), "draining took too long: stopping");
            }
        }
        self.stop();
        tokio::select! {
            () = second => second_signal(),
            () = tokio::time::sleep(ENDS_WITHIN) => {
                tracing::error!(after_s = ENDS_WITHIN.as_secs(), "what was stopped has not ended: leaving at once");
                AtOnce::Overdue
            }
        }
    }
}

fn second_signal() -> AtOnce {
    tracing::warn!("second signal: leaving at once");
    AtOnce::SecondSignal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_comes_first_then_stopping_and_then_the_end() {
        let (shutdown, (_tell, signals)) = (Shutdown::new(), mpsc::channel(1));
        let (leaving, begun) = (shutdown.clone(), Instant::now());
        let left = tokio::spawn(async move { leaving.leave(signals, Duration::from_secs(25)).await });
        assert!(!shutdown.is_draining());
        shutdown.clone().drain();
        shutdown.draining().await;
        assert!(!shutdown.is_stopping());
        shutdown.stopping().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(25) + FINISH_WITHIN);
        assert_eq!(left.await.unwrap(), AtOnce::Overdue, "what hangs is not waited for");
        assert_eq!(begun.elapsed(), Duration::from_secs(25) + FINISH_WITHIN + ENDS_WITHIN);
    }

    #[test]
    fn by_default_a_process_has_ended_before_kubernetes_kills_it() {
        let config = crate::runtime::config::Inputs::default().resolve().unwrap().config;
        let drain = Duration::from_secs(config.process.drain_seconds);
        assert!(drain + FINISH_WITHIN + ENDS_WITHIN < Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_counts_before_and_after_everything_was_stopped() {
        for stopped in [false, true] {
            let (shutdown, (tell, signals)) = (Shutdown::new(), mpsc::channel(1));
            let leaving = shutdown.clone();
            let left = tokio::spawn(async move { leaving.leave(signals, Duration::from_secs(25)).await });
            tell.send("SIGINT").await.unwrap();
            shutdown.draining().await;
            if stopped {
                shutdown.stopping().await;
            }
            tell.send("SIGINT").await.unwrap();
            assert_eq!(left.await.unwrap(), AtOnce::SecondSignal, "stopped: {stopped}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_to_who_leaves_by_itself_is_not_the_second() {
        let (shutdown, (tell, signals)) = (Shutdown::new(), mpsc::channel(1));
        let leaving = shutdown.clone();
        shutdown.fail("on purpose");
        let mut left = tokio::spawn(async move { leaving.leave(signals, Duration::from_secs(15)).await });
        // It sees that it is draining before there is a signal.
        tokio::task::yield_now().await;
        tell.send("SIGTERM").await.unwrap();
        tokio::select! {
            left = &mut left => panic!("{left:?}"),
            () = shutdown.stopping() => {}
        }
        tell.send("SIGTERM").await.unwrap();
        assert_eq!(left.await.unwrap(), AtOnce::SecondSignal);
    }

    #[tokio::test]
    async fn a_task_that_is_needed_and_gone_fails_the_process() {
        let shutdown = Shutdown::new();
        shutdown.supervise("one", tokio::spawn(async { panic!("on purpose") })).await.unwrap();
        assert_eq!(shutdown.failure(), Some("one has panicked"));
        assert!(shutdown.is_draining());

        let shutdown = Shutdown::new();
        shutdown.supervise("another", tokio::spawn(async {})).await.unwrap();
        assert_eq!(shutdown.failure(), Some("another has ended"));
        shutdown.supervise("one", tokio::spawn(async { panic!("on purpose") })).await.unwrap();
        assert_eq!(shutdown.failure(), Some("another has ended"), "the first reason stands");
    }

    #[tokio::test]
    async fn what_ends_since_the_process_leaves_or_is_aborted_is_no_failure() {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(std::future::pending());
        task.abort();
        shutdown.supervise("aborted", task).await.unwrap();
        assert!(shutdown.failure().is_none() && !shutdown.is_draining());
        shutdown.drain();
        shutdown.supervise("done", tokio::spawn(async {})).await.unwrap();
        assert_eq!(shutdown.failure(), None);
    }

    #[tokio::test]
    async fn stopping_implies_draining() {
        let shutdown = Shutdown::new();
        shutdown.stop();
        assert!(shutdown.is_draining() && shutdown.is_stopping());
        shutdown.draining().await;
    }
}
