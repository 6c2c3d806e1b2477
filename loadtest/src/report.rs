//! Results.

use crate::traffic::Step;

/// A step in one line, for whoever watches.
#[must_use]
pub fn step_line(step: &Step) -> String {
    format!(
        "{:>7.0}/s  ack p50 {:.2} p99 {:.2}  delivered p50 {:.2} p90 {:.2} p99 {:.2} max {:.1} ms  server {:.2} generator {:.2} machine {:.2} cores  {:.1} us/delivery{}",
        step.rate,
        step.to_ack.p50_ms,
        step.to_ack.p99_ms,
        step.to_delivered.p50_ms,
        step.to_delivered.p90_ms,
        step.to_delivered.p99_ms,
        step.to_delivered.max_ms,
        step.cpu.server_cores,
        step.cpu.generator_cores(),
        step.cpu.machine_cores,
        step.cpu_micros_per_delivery,
        if step.kept_up { "" } else { "  (does not keep up)" },
    )
}
