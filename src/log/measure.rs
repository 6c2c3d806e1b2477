//! Measuring the log's clock (rule P4), which every role goes by: for the whole process, and by a writer that must not
//! wait for that.

use super::{Log, LogPort};
use crate::runtime::clock::{LogClock, Moment};
use crate::runtime::metrics::Metrics;
use reedi_protocol::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// A log that answers a question later is away.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The log is asked so often for one measurement, unless it answers at once: a time is as exact as its answer was
/// quick, and who came first to which edge is judged by clocks of different edges.
const ASKED_MOST: usize = 5;
/// How often the log's time is measured (rule P4): a quartz that is off by 100 ppm drifts 3 ms in this time.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// How often the log is asked whether it answers, which is what readiness goes by.
const AGAIN_WHEN_THERE: Duration = Duration::from_secs(2);
/// Until the log's time is known no message is appended nor stored: it is asked soon again.
const AGAIN_WHEN_AWAY: Duration = Duration::from_secs(1);
/// An answer that is quick enough.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Asks the log for its time, takes it over, and tells how far this machine's clock is behind it. Gives
/// whether the log answered.
pub async fn measure(log: &Log, clock: &LogClock, metrics: &Metrics) -> bool {
    // From before the first question: a pause of the machine since then is seen as one since the measurement.
    let asked = Moment::now();
    let Some((log_time, round_trip)) = quickest(|| ask(log)).await else { return false };
    clock.measured(log_time, round_trip, asked);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.clock_offset_ms.set(behind_ms(log_time, round_trip, since_1970));
    true
}

/// The log's time; nothing where it does not answer.
async fn ask(log: &Log) -> Option<Timestamp> {
    tokio::time::timeout(ANSWER_WITHIN, log.now()).await.ok()?.ok()
}

/// Asks some times and gives what the quickest answer would tell by now, and how long that answer took.
async fn quickest<A>(ask: impl Fn() -> A) -> Option<(Timestamp, Duration)>
where
    A: Future<Output = Option<Timestamp>>,
{
    let mut best: Option<(Timestamp, Instant, Duration)> = None;
    for _ in 0..ASKED_MOST {
        let asked = Instant::now();
        let Some(log_time) = ask().await else { break };
        let (answered, round_trip) = (Instant::now(), asked.elapsed());
        if best.is_none_or(|(.., quickest)| round_trip < quickest) {
            best = Some((log_time, answered, round_trip));
        }
        if round_trip <= AT_ONCE {
            break;
        }
    }
    let (log_time, answered, round_trip) = best?;
    let since_ms = u64::try_from(answered.elapsed().as_millis()).unwrap_or(u64::MAX);
    Some((log_time.plus_millis(since_ms), round_trip))
}

/// How long after a measurement that had an answer, or none, the log is asked again.
#[must_use]
pub fn again_after(answered: bool) -> Duration {
    if answered { AGAIN_WHEN_THERE } else { AGAIN_WHEN_AWAY }
}

/// Measures for as long as it is polled, and tells `answers` whether the log does.
pub async fn keep_measuring(log: Log, clock: LogClock, metrics: Metrics, answers: watch::Sender<bool>) {
    let mut measured: Option<Instant> = None;
    loop {
        let is_due = !clock.is_known() || measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
        let answered = if is_due {
            let answered = measure(&log, &clock, &metrics).await;
            measured = answered.then(Instant::now).or(measured);
            answered
        } else {
            ask(&log).await.is_some()
        };
        answers.send_if_modified(|answers| std::mem::replace(answers, answered) != answered);
        tokio::time::sleep(again_after(answered)).await;
    }
}

/// How far a system clock that shows `system` is behind `log_time`, which was taken in the middle of
/// `round_trip`; negative: ahead.
fn behind_ms(log_time: Timestamp, round_trip: Duration, system: Duration) -> i64 {
    let there_ms = i128::from(log_time.as_millis()) + (round_trip / 2).as_millis() as i128;
    i64::try_from(there_ms - system.as_millis() as i128).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::EmbeddedLog;
    use reedi_protocol::Epoch;

    #[test]
    fn a_log_that_did_not_answer_is_asked_soon_again() {
        assert_eq!(again_after(false), Duration::from_secs(1));
        assert_eq!(again_after(true), Duration::from_secs(2));
    }

    #[test]
    fn an_offset_has_a_sign() {
        let (time, way) = (Timestamp::from_millis(10_000), Duration::from_millis(40));
        assert_eq!(behind_ms(time, way, Duration::from_millis(7_020)), 3_000);
        assert_eq!(behind_ms(time, way, Duration::from_millis(12_020)), -2_000);
    }

    /// An answer that was long on its way says little: the log's time may have been taken at either end of it.
    #[tokio::test(start_paused = true)]
    async fn the_quickest_answer_counts() {
        let began = Instant::now();
        let log_time = || Timestamp::from_millis(1_000_000 + began.elapsed().as_millis() as u64);
        let back_ms = std::cell::RefCell::new(vec![600, 500, 4, 300, 400]);
        let ask = || async {
            let told = log_time();
            let way_back = back_ms.borrow_mut().pop()?;
            // sleeps: the way of an answer, on a clock that is paused
            tokio::time::sleep(Duration::from_millis(way_back)).await;
            Some(told)
        };
        let (told, round_trip) = quickest(ask).await.unwrap();
        assert_eq!(round_trip, Duration::from_millis(4));
        assert_eq!(log_time().as_millis() - told.as_millis(), 4, "it goes on while the others are asked");
        assert_eq!(*back_ms.borrow(), Vec::<u64>::new());
        assert_eq!(quickest(ask).await, None, "a log that does not answer is not asked on");
    }

    #[tokio::test]
    async fn the_offset_is_told_and_the_clock_follows() {
        let ahead_ms = 3_600_000;
        let begin = LogClock::from_system().now().plus_millis(ahead_ms);
        let log = Log::Embedded(EmbeddedLog::in_memory(Epoch::FIRST, "a", begin));
        let (clock, metrics) = (LogClock::from_system(), Metrics::new());
        assert!(measure(&log, &clock, &metrics).await);
        let told = metrics.clock_offset_ms.get();
        assert!((ahead_ms as i64 - 5_000..ahead_ms as i64 + 5_000).contains(&told), "{told}");
        assert!(clock.now() >= begin);
    }
}
