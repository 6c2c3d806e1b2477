//! Open loop: messages are sent when they are due, whether earlier ones were answered or not, and
//! every latency counts from when a message was due. A server that stalls is charged for all that
//! should have been sent meanwhile.

use std::time::{Duration, Instant};

/// The pacer sleeps at least this long, so that a high rate costs few wake-ups; latencies include
/// what messages wait for it.
const QUANTUM: Duration = Duration::from_micros(200);

/// One step of constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A second.
    pub rate: f64,
    /// Sent before anything is measured.
    pub warm_up: Duration,
    pub measure: Duration,
}

impl Pace {
    #[must_use]
    pub fn messages(&self) -> u64 {
        (self.rate * (self.warm_up + self.measure).as_secs_f64()).round() as u64
    }

    /// When message `i` is due, from the beginning of the step.
    #[must_use]
    pub fn due(&self, i: u64) -> Duration {
        Duration::from_secs_f64(i as f64 / self.rate)
    }

    #[must_use]
    pub fn is_measured(&self, i: u64) -> bool {
        self.due(i) >= self.warm_up
    }
}

/// What the pacer did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paced {
    pub sent: u64,
    /// Due and not sent: its connection's queue was full, or the connection over.
    pub unsent: u64,
    /// The latest that the pacer itself was.
    pub late_most: Duration,
}

/// Calls `send` with each message's number within the step and when it was due. Blocks: give it a
/// thread of its own.
pub fn run(pace: Pace, begin: Instant, mut send: impl FnMut(u64, Instant) -> bool) -> Paced {
    let mut paced = Paced::default();
    for i in 0..pace.messages() {
        let due = begin + pace.due(i);
        let now = Instant::now();
        if now < due {
            std::thread::sleep((due - now).max(QUANTUM));
        }
        paced.late_most = paced.late_most.max(Instant::now().saturating_duration_since(due));
        if send(i, due) {
            paced.sent += 1;
        } else {
            paced.unsent += 1;
        }
    }
    paced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_due_is_sent_and_none_before_it_is_due() {
        let pace =
            Pace { rate: 2_000.0, warm_up: Duration::from_millis(20), measure: Duration::from_millis(30) };
        let begin = Instant::now();
        let mut numbers = Vec::new();
        let paced = run(pace, begin, |i, due| {
            assert!(Instant::now() >= due);
            numbers.push(i);
            i != 7
        });
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert_eq!((paced.sent, paced.unsent), (99, 1));
        assert!(!pace.is_measured(39) && pace.is_measured(40));
    }
}
