//! Results: JSON for programs, a table for people, a picture.

mod chart;
mod rows;

use crate::procfs::{self, Memory};
use crate::scenario::{direct, group, history, idle, storm, strangers};
use crate::server::Backend;
use crate::traffic::Step;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes made to learn what a write to this disk costs.
const SYNCS: usize = 30;
/// Files that a process may have open besides the sockets that a scenario is about.
const OTHER_FILES: u64 = 500;

/// What one scenario came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Idle(idle::Outcome),
    Strangers(strangers::Outcome),
    Direct(direct::Outcome),
    Group(group::Outcome),
    Storm(storm::Outcome),
    History(history::Outcome),
}

impl Outcome {
    /// Whether every message was right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Idle(outcome) => outcome.is_clean(),
            Self::Strangers(outcome) => outcome.is_clean(),
            Self::Direct(outcome) => outcome.is_clean(),
            Self::Group(outcome) => outcome.is_clean(),
            Self::Storm(outcome) => outcome.is_clean(),
            Self::History(outcome) => outcome.is_clean(),
        }
    }
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    /// Median of a small write and its sync to the disk that the data lies on.
    pub sync_ms: f64,
    /// Runnable tasks when the run began, without ours.
    pub load_before: f64,
}

/// Everything of one run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub machine: Machine,
    pub commit: String,
    pub backend: Backend,
    pub outcomes: Vec<(String, Outcome)>,
    /// By scenario and role, at its end.
    pub memory: Vec<(String, BTreeMap<String, Memory>)>,
    /// Scenarios that did not come to an end.
    pub failures: Vec<String>,
}

/// Rows of text, the first of which names the columns.
pub struct Table {
    pub title: String,
    pub rows: Vec<Vec<String>>,
    pub notes: Vec<String>,
}

fn read_line(path: &str, wanted: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(wanted));
    line.unwrap_or_default().trim_start_matches([':', ' ', '\t']).trim().to_owned()
}

impl Machine {
    /// Looks at this machine; writes a little to `folder`.
    #[must_use]
    pub fn look(folder: &Path) -> Self {
        let memory_kib: f64 =
            read_line("/proc/meminfo", "MemTotal").replace(" kB", "").parse().unwrap_or(0.0);
        Self {
            cpu: read_line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_kib / (1 << 20) as f64,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            sync_ms: sync_median(folder).unwrap_or_default().as_secs_f64() * 1_000.0,
            load_before: read_line("/proc/loadavg", "")
                .split(' ')
                .next()
                .and_then(|l| l.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

fn sync_median(folder: &Path) -> std::io::Result<Duration> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("sync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

/// The commit of the checkout, where git tells it.
#[must_use]
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let dirty = git(&["status", "--porcelain", "-uno"]).is_some_and(|changed| !changed.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if dirty { commit + ", changed" } else { commit }
}

impl Report {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.outcomes.iter().all(|(_, outcome)| outcome.is_clean())
    }

    /// Everything as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let backend = match self.backend {
            Backend::Embedded => "embedded (`reedi dev`)",
            Backend::Cluster => "cluster (NATS x 3, Cassandra x 1, Redis x 3 on the same machine)",
        };
        let mut out = format!(
            "# Load test, {backend}, commit {}\n\n{} cores of {}, {:.0} GiB, Linux {}; a write and its sync take {:.2} ms; \
             load average {:.1} before the run. Generator and server share the machine. Latencies count from when a message \
             was due. `other` are cores that neither of them used.\n",
            self.commit,
            machine.cores,
            machine.cpu,
            machine.memory_gib,
            machine.kernel,
            machine.sync_ms,
            machine.load_before
        );
        for (name, outcome) in &self.outcomes {
            for table in rows::tables(name, outcome) {
                out.push_str(&table.markdown());
            }
        }
        out.push_str(&rows::memory_table(&self.memory).markdown());
        for failure in &self.failures {
            out.push_str(&format!("\n**Did not come to an end**: {failure}\n"));
        }
        out.push_str(if self.passed() {
            "\nEvery acknowledged message was told once, in order, to everybody it was for.\n"
        } else {
            "\n**FAILED**: see above.\n"
        });
        out
    }

    /// Writes `results.json`, `results.md` and a picture of each scenario.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("results.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(folder.join("results.md"), self.markdown())?;
        for (name, outcome) in &self.outcomes {
            std::fs::write(folder.join(format!("{name}.svg")), chart::of(name, outcome).svg())?;
        }
        Ok(())
    }
}

impl Table {
    /// With columns of even width, so that it reads well as text too.
    #[must_use]
    pub fn markdown(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = format!("\n## {}\n\n", self.title);
        for (i, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(c, w)| format!("{:>w$}", row.get(c).map_or("", |s| s)))
                .collect();
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
            if i == 0 {
                let lines: Vec<String> =
                    widths.iter().map(|w| format!("{}:", "-".repeat((*w).max(2) - 1))).collect();
                out.push_str(&format!("| {} |\n", lines.join(" | ")));
            }
        }
        self.notes.iter().for_each(|note| out.push_str(&format!("\n{note}\n")));
        out
    }
}

/// A step in one line, for whoever watches.
#[must_use]
pub fn step_line(step: &Step) -> String {
    format!(
        "{:>7.0}/s  delivered p50 {:.2} p99 {:.2} max {:.1} ms  cores: server {:.2} generator {:.2} machine {:.2}  {:.1} us/delivery{}",
        step.rate,
        step.to_delivered.p50_ms,
        step.to_delivered.p99_ms,
        step.to_delivered.max_ms,
        step.cpu.server_cores,
        step.cpu.generator_cores(),
        step.cpu.machine_cores,
        step.cpu_micros_per_delivery,
        if step.kept_up { "" } else { "  (does not keep up)" },
    )
}

/// How many sockets the limit of open files has room for.
#[must_use]
pub fn most_sockets() -> usize {
    procfs::open_files_limit().map_or(usize::MAX, |limit| limit.saturating_sub(OTHER_FILES) as usize)
}

/// How many files must be open at once for `sockets` sockets, in the generator and in the server.
///
/// # Errors
/// Fewer are allowed; says what to do.
pub fn check_open_files(sockets: usize) -> Result<(), String> {
    let wanted = sockets as u64 + OTHER_FILES;
    match procfs::open_files_limit() {
        Some(limit) if limit < wanted => Err(format!(
            "{sockets} sockets need some {wanted} open files and {limit} are allowed: `ulimit -n {wanted}` first, or \
             ask for fewer with --sockets or --strangers"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_even() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let table =
            Table { title: "t".into(), rows: vec![row(["a", "rate"]), row(["100", "2"])], notes: vec![] };
        assert_eq!(table.markdown(), "\n## t\n\n|   a | rate |\n| --: | ---: |\n| 100 |    2 |\n");
    }

    #[test]
    fn this_machine_is_described() {
        let folder = std::env::temp_dir().join(format!("reedi-loadtest-{}", std::process::id()));
        let machine = Machine::look(&folder);
        assert!(machine.cores > 0 && machine.memory_gib > 0.1 && !machine.kernel.is_empty());
        assert!(std::fs::remove_dir(&folder).is_ok(), "nothing is left behind");
    }
}
