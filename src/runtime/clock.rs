//! The log's clock, as a process knows it.

use parking_lot::RwLock;
use reedi_protocol::Timestamp;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How far the system's clock and the monotonic one may move apart between two measurements, before it counts as a
/// pause of the machine that the monotonic one slept through. Slewing by NTP is at most 500 ppm: 15 ms in
/// the 30 s between them.
const MOVED_APART: Duration = Duration::from_secs(3);

/// What time it is at the log: this process's monotonic clock and an offset measured against the log
/// (rule P4), so that steps of the system clock stamp nothing. Clones share it. It follows tokio's
/// clock, so that a simulation can pause it.
#[derive(Clone, Debug)]
pub struct LogClock {
    origin: Instant,
    /// The log's time at `origin`, in milliseconds since 1970.
    at_origin: Arc<RwLock<AtOrigin>>,
}

#[derive(Clone, Copy, Debug)]
struct AtOrigin {
    ms: u64,
    /// When the log was last asked; `None` while only the system clock is known.
    measured: Option<Moment>,
}

/// A moment by the clocks of this machine. Not by tokio's: a pause of the machine is none of a simulation's.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    system: SystemTime,
    monotonic: std::time::Instant,
}

impl Moment {
    #[must_use]
    pub fn now() -> Self {
        Self { system: SystemTime::now(), monotonic: std::time::Instant::now() }
    }

    /// Whether both clocks have gone on alike since then. A suspended machine's, or a paused guest's, monotonic clock
    /// may stand still; the system's is set when it wakes.
    fn goes_on_to(self, later: Self) -> bool {
        let by_monotonic = later.monotonic.saturating_duration_since(self.monotonic);
        // Before the first moment only where the clock was set back.
        let by_system = later.system.duration_since(self.system);
        by_system.is_ok_and(|by_system| by_monotonic.abs_diff(by_system) <= MOVED_APART)
    }
}

impl Default for LogClock {
    fn default() -> Self {
        Self::from_system()
    }
}

impl LogClock {
    /// Starts from the system's time, until the log's has been measured.
    #[must_use]
    pub fn from_system() -> Self {
        // Before 1970 only on a machine whose clock was never set; the log's own time mends it.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Timestamp::from_millis(whole_ms(since_1970)))
    }

    /// Starts from a given time, for a log in the same process and for simulations.
    #[must_use]
    pub fn starting_at(now: Timestamp) -> Self {
        let at_origin = AtOrigin { ms: now.as_millis(), measured: None };
        Self { origin: Instant::now(), at_origin: Arc::new(RwLock::new(at_origin)) }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        let elapsed_ms = whole_ms(self.origin.elapsed());
        Timestamp::from_millis(self.at_origin.read().ms.saturating_add(elapsed_ms))
    }

    /// Takes over the log's time as an answer that has just come told it, after `round_trip`: it was
    /// taken half of that ago, give or take the other half. Gives how far this clock was behind, in
    /// milliseconds (negative: ahead). `asked` is from before the question: an answer that lay there while this machine
    /// stood still is of an earlier time than it seems.
    pub fn measured(&self, log_time: Timestamp, round_trip: Duration, asked: Moment) -> i64 {
        let now = Instant::now();
        let there_now_ms = log_time.as_millis().saturating_add(whole_ms(round_trip / 2));
        let ms = there_now_ms.saturating_sub(whole_ms(now.duration_since(self.origin)));
        let mut at_origin = self.at_origin.write();
        let behind_ms = i128::from(ms) - i128::from(at_origin.ms);
        *at_origin = AtOrigin { ms, measured: Some(asked) };
        i64::try_from(behind_ms).unwrap_or(if behind_ms < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether the log's time is known: measured, and this machine has not stood still since. By a clock that is not,
    /// nothing may be stamped: what is stamped too early is void for every reader (rule P4.4).
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.at_origin.read().measured.is_some_and(|measured| measured.goes_on_to(Moment::now()))
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_log_and_its_own_monotonic_clock() {
        let clock = LogClock::starting_at(Timestamp::from_millis(1_000_000));
        assert_eq!(clock.now().as_millis(), 1_000_000);
        assert!(!clock.is_known());
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(clock.now().as_millis(), 1_001_500);

        let same = clock.clone();
        let round_trip = Duration::from_millis(20);
        assert_eq!(clock.measured(Timestamp::from_millis(1_003_000), round_trip, Moment::now()), 1_510);
        assert_eq!(same.now().as_millis(), 1_003_010);
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(same.now().as_millis(), 1_003_050);
        assert!(same.is_known());
        assert_eq!(same.measured(Timestamp::from_millis(1_000_000), Duration::ZERO, Moment::now()), -3_050);
    }

    #[test]
    fn an_answer_that_lay_there_while_the_machine_stood_still_tells_nothing() {
        let clock = LogClock::from_system();
        let now = Moment::now();
        let asked = Moment { system: now.system - Duration::from_secs(60), monotonic: now.monotonic };
        clock.measured(clock.now(), Duration::from_millis(2), asked);
        assert!(!clock.is_known());
        clock.measured(clock.now(), Duration::from_millis(2), now);
        assert!(clock.is_known());
    }

    #[test]
    fn a_machine_that_stood_still_knows_the_time_no_more() {
        let measured = Moment::now();
        let later = |system_s, monotonic_s| Moment {
            system: measured.system + Duration::from_secs(system_s),
            monotonic: measured.monotonic + Duration::from_secs(monotonic_s),
        };
        assert!(measured.goes_on_to(later(30, 30)));
        assert!(measured.goes_on_to(later(32, 30)), "a clock that is set right a little");
        assert!(!measured.goes_on_to(later(70, 30)), "40 s of sleep");
        assert!(!measured.goes_on_to(later(0, 30)), "set back by half a minute");
        let set_back = Moment { system: measured.system - Duration::from_secs(60), ..later(0, 1) };
        assert!(!measured.goes_on_to(set_back));
    }

    #[test]
    fn the_system_clock_is_a_start() {
        let now = LogClock::from_system().now().as_millis();
        assert!(now > 1_700_000_000_000, "{now}");
    }
}
