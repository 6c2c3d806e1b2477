//! Leaving gracefully: first drain, then stop; a second signal leaves at once.

use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The exit status after a second signal: 128 + SIGINT, as shells count it.
const EXIT_FORCED: i32 = 130;

/// The two moments of leaving. Clones share them.
///
/// *Draining*: not ready any more; take no new connections and no new leases, tell clients to go,
/// give leases back, finish what is in hand. *Stopping*: whatever is left ends now.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopping: CancellationToken,
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

    /// Drains at the first SIGTERM or SIGINT and stops `drain_within` later; a second signal ends the
    /// process at once. Ends when stopping has begun, whoever began it.
    ///
    /// # Errors
    /// The system refuses to tell this process of signals.
    pub fn on_signals(&self, drain_within: Duration) -> std::io::Result<tokio::task::JoinHandle<()>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        Ok(tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
                _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
                () = shutdown.draining() => {}
            }
            shutdown.drain();
            let second = async {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            };
            tokio::select! {
                () = second => {
                    tracing::warn!("second signal: leaving at once");
                    std::process::exit(EXIT_FORCED);
                }
                () = shutdown.stopping() => {}
                () = tokio::time::sleep_until(Instant::now() + drain_within) => {
                    tracing::warn!(drain_s = drain_within.as_secs(), "draining took too long: stopping");
                }
            }
            shutdown.stop();
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_comes_first_and_stopping_after_the_time_given() {
        let shutdown = Shutdown::new();
        let task = shutdown.on_signals(Duration::from_secs(25)).unwrap();
        let begun = Instant::now();
        assert!(!shutdown.is_draining());
        shutdown.clone().drain();
        shutdown.draining().await;
        assert!(!shutdown.is_stopping());
        shutdown.stopping().await;
        assert_eq!(begun.elapsed().as_secs(), 25);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn stopping_implies_draining() {
        let shutdown = Shutdown::new();
        shutdown.stop();
        assert!(shutdown.is_draining() && shutdown.is_stopping());
        shutdown.draining().await;
    }
}
