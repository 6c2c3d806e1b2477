//! What the run prints.

use crate::book::{Outcome, Pages};
use crate::fault::Fault;
use crate::invariants::Findings;
use std::time::Duration;

/// Of each kind of finding so many are printed; all of them are in the findings file.
const PRINTED: usize = 20;

/// How one fault went.
pub struct FaultReport {
    pub faults: Vec<Fault>,
    /// Since the faults began in this run.
    pub at: Duration,
    /// Until the probe succeeded while the fault lasted, on what was not its target.
    pub during: Option<Duration>,
    /// Until the probe succeeded on all edges after it ended.
    pub after: Result<Duration, String>,
    /// The longest time in which nobody got an acknowledgement.
    pub silence: Duration,
}

impl FaultReport {
    pub fn line(&self, number: usize) -> String {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        let seconds = |duration: &Duration| format!("{:.1} s", duration.as_secs_f64());
        let during = self.during.as_ref().map_or_else(|| "not while it lasted".to_owned(), seconds);
        let after = self.after.as_ref().map_or_else(|why| format!("NOT RECOVERED: {why}"), seconds);
        format!(
            "#{number:<3} {:>6.1} s  {:<58} whole again: during {during}, after {after}; longest without acks {}",
            self.at.as_secs_f64(),
            faults.join(" + "),
            seconds(&self.silence),
        )
    }
}

/// How long it took after each fault until everything worked again, shortest first.
pub fn recoveries(reports: &[FaultReport]) -> String {
    let mut after: Vec<Duration> = reports.iter().filter_map(|report| report.after.clone().ok()).collect();
    after.sort_unstable();
    let each: Vec<String> = after.iter().map(|d| format!("{:.1}", d.as_secs_f64())).collect();
    format!(
        "recovery      {:>8}  faults, seconds until all was well after each: {}",
        reports.len(),
        each.join(" ")
    )
}

/// The counts of a run.
#[derive(Debug)]
pub struct Counts {
    pub sent: usize,
    pub acknowledged: usize,
    pub repeated: usize,
    pub delivered: usize,
    pub resets: usize,
    pub connections: usize,
    latencies: Vec<Duration>,
}

impl Counts {
    pub fn of(pages: &Pages) -> Self {
        let mut latencies = Vec::new();
        let mut repeated = 0;
        for sent in &pages.sent {
            if let Outcome::Acknowledged { after, is_duplicate, .. } = sent.outcome {
                latencies.push(after);
                repeated += usize::from(is_duplicate);
            }
        }
        latencies.sort_unstable();
        let sessions = &pages.sessions;
        Self {
            sent: pages.sent.len(),
            acknowledged: latencies.len(),
            repeated,
            delivered: sessions.iter().flat_map(|s| s.told.values()).map(Vec::len).sum(),
            resets: sessions.iter().map(|s| s.resets).sum(),
            connections: sessions.iter().map(|s| s.connections).sum(),
            latencies,
        }
    }

    pub fn progress(&self) -> String {
        let Self { sent, acknowledged, delivered, connections, .. } = self;
        format!(
            "sent {sent}, acknowledged {acknowledged}, delivered {delivered}, connections made {connections}"
        )
    }

    fn latency(&self, percent: usize) -> String {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).map_or_else(|| "-".to_owned(), |d| format!("{:.3} s", d.as_secs_f64()))
    }
}

/// Prints counts and findings. Where history could not be read, it says so.
pub fn print(counts: &Counts, findings: &Findings, reports: &[FaultReport]) {
    println!();
    println!("sessions' connections {}, conversations reset {}", counts.connections, counts.resets);
    println!(
        "send to ack, faults and waiting included: p50 {}, p90 {}, p99 {}, most {}",
        counts.latency(50),
        counts.latency(90),
        counts.latency(99),
        counts.latency(100)
    );
    println!("sent          {:>8}", counts.sent);
    println!("acknowledged  {:>8}  ({} of them by a repeat)", counts.acknowledged, counts.repeated);
    println!("delivered     {:>8}", counts.delivered);
    println!("lost          {:>8}{}", findings.lost.len(), not_read(findings));
    println!("doubled       {:>8}{}", findings.doubled.len(), not_read(findings));
    println!("out of order  {:>8}{}", findings.out_of_order.len(), not_read(findings));
    println!("other         {:>8}", findings.other.len());
    println!("{}", recoveries(reports));
    for (what, lines) in kinds(findings) {
        for line in lines.iter().take(PRINTED) {
            println!("  {what}: {line}");
        }
        if lines.len() > PRINTED {
            println!("  {what}: and {} more", lines.len() - PRINTED);
        }
    }
}

fn not_read(findings: &Findings) -> &'static str {
    if findings.history_was_read { "" } else { "  (of what sessions were told; history was NOT READ)" }
}

/// All findings, one line each.
pub fn all(findings: &Findings) -> String {
    kinds(findings)
        .into_iter()
        .flat_map(|(what, lines)| lines.iter().map(move |line| format!("{what}: {line}\n")))
        .collect()
}

fn kinds(findings: &Findings) -> [(&'static str, &[String]); 4] {
    [
        ("lost", &findings.lost),
        ("doubled", &findings.doubled),
        ("out of order", &findings.out_of_order),
        ("other", &findings.other),
    ]
}
