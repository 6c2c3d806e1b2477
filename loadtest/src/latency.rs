//! Latencies in HDR histograms, recorded by many connections at once.

use crate::client::Failure;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use std::time::Duration;

/// Parts, so that two threads seldom want the same one.
const PARTS: usize = 16;
/// Longest latency that is told apart from longer ones, in microseconds.
const MOST_MICROS: u64 = 120_000_000;
/// Decimal digits that a latency keeps: within 0.1 %.
const DIGITS: u8 = 3;

/// Takes latencies in.
pub struct Latencies {
    parts: Vec<Mutex<Histogram<u64>>>,
}

impl Latencies {
    /// # Errors
    /// Never: the bounds are constants.
    pub fn new() -> Result<Self, Failure> {
        let part = |_| Histogram::new_with_bounds(1, MOST_MICROS, DIGITS).map(Mutex::new);
        let parts = (0..PARTS).map(part).collect::<Result<_, _>>();
        Ok(Self { parts: parts.map_err(|e| Failure::Other(format!("no histogram: {e}")))? })
    }

    /// Records one; `by` is any number of whoever records.
    pub fn record(&self, by: usize, latency: Duration) {
        self.parts[by % PARTS].lock().saturating_record(latency.as_micros().max(1) as u64);
    }

    /// What was recorded since the last time; begins anew.
    #[must_use]
    pub fn take(&self) -> Quantiles {
        let mut sum: Option<Histogram<u64>> = None;
        for part in &self.parts {
            let mut part = part.lock();
            match &mut sum {
                // All have the same bounds.
                Some(sum) => drop(sum.add(&*part)),
                None => sum = Some(part.clone()),
            }
            part.reset();
        }
        sum.map(|sum| Quantiles::of(&sum)).unwrap_or_default()
    }
}

/// A distribution in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded_since_the_last_time() {
        let latencies = Latencies::new().unwrap();
        (1..=1_000).for_each(|ms| latencies.record(ms, Duration::from_millis(ms as u64)));
        let taken = latencies.take();
        assert_eq!(taken.count, 1_000);
        assert!((taken.p50_ms - 500.0).abs() < 1.0 && (taken.p99_ms - 990.0).abs() < 2.0, "{taken:?}");
        assert!((taken.max_ms - 1_000.0).abs() < 2.0);
        latencies.record(0, Duration::from_secs(1_000));
        assert!(latencies.take().max_ms < 130_000.0, "longer ones count as the longest");
    }
}
