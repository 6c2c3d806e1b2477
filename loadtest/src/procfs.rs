//! What the kernel says of processes: their CPU time and their memory.

use serde::Serialize;
use std::time::Duration;

/// The key of the clock's ticks in a process's auxiliary vector (`getauxval(3)`).
const AT_CLKTCK: u64 = 17;
/// What every Linux answers; used where the auxiliary vector cannot be read.
const TICKS_USUAL: u64 = 100;

/// Ticks a second, in which `/proc` counts CPU time.
#[must_use]
pub fn ticks_per_second() -> u64 {
    let Ok(vector) = std::fs::read("/proc/self/auxv") else { return TICKS_USUAL };
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
    let mut pairs = vector.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..])));
    pairs.find_map(|(key, value)| value.filter(|_| key == Some(AT_CLKTCK))).unwrap_or(TICKS_USUAL)
}

/// CPU time (user and system) that a process has used; `None` where it is gone.
#[must_use]
pub fn cpu(pid: u32, ticks_per_second: u64) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have spaces; the fields after it begin with the state, the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_micros(ticks * 1_000_000 / ticks_per_second.max(1)))
}

/// Memory of one or several processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    pub rss_bytes: u64,
    /// Shared pages divided among those who share them.
    pub pss_bytes: u64,
    /// What the process itself has allocated and touched: heap and stacks.
    pub anonymous_bytes: u64,
}

impl std::ops::AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.rss_bytes += other.rss_bytes;
        self.pss_bytes += other.pss_bytes;
        self.anonymous_bytes += other.anonymous_bytes;
    }
}

/// Memory of a process; `None` where it is gone.
#[must_use]
pub fn memory(pid: u32) -> Option<Memory> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let bytes = |name: &str| {
        let line = rollup.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
    };
    Some(Memory { rss_bytes: bytes("Rss")?, pss_bytes: bytes("Pss")?, anonymous_bytes: bytes("Anonymous")? })
}

/// CPU time of the whole machine: in use, and stolen by the machine around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineCpu {
    pub busy: Duration,
    pub stolen: Duration,
}

#[must_use]
pub fn machine_cpu(ticks_per_second: u64) -> MachineCpu {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .map(|line| line.split_ascii_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let time = |indices: &[usize]| {
        let sum: u64 = indices.iter().filter_map(|i| ticks.get(*i)).sum();
        Duration::from_micros(sum * 1_000_000 / ticks_per_second.max(1))
    };
    // user, nice, system, (idle, iowait), irq, softirq, steal
    MachineCpu { busy: time(&[0, 1, 2, 5, 6]), stolen: time(&[7]) }
}

/// Files that this process may have open.
#[must_use]
pub fn open_files_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let ticks = ticks_per_second();
        assert!((50..=10_000).contains(&ticks), "{ticks}");
        let begun = cpu(std::process::id(), ticks).unwrap();
        let mut spun = 0u64;
        while cpu(std::process::id(), ticks).unwrap() < begun + Duration::from_millis(20) {
            spun = spun.wrapping_add(std::hint::black_box(1));
        }
        assert!(spun > 0);
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.anonymous_bytes > 4_096 && memory.rss_bytes >= memory.anonymous_bytes);
        assert!(open_files_limit().unwrap() > 2);
        assert!(cpu(u32::MAX, ticks).is_none());
    }
}
