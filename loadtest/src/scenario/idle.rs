//! `idle`: sockets that are connected, authenticated and silent. What does each cost?

use crate::client::{self, Failure};
use crate::procfs::Memory;
use crate::server::{CpuUse, Server};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections opened before memory is first looked at, so that what the first ones make (threads,
/// tables, allocator arenas) is not charged to the others.
const WARM_UP: usize = 200;
/// Sockets between two looks at the memory, for the plot.
const LOOKS: usize = 10;

#[derive(Clone, Debug)]
pub struct Plan {
    pub sockets: usize,
    /// How long the sockets are watched doing nothing.
    pub watch: Duration,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub sockets: usize,
    pub connected_in_s: f64,
    /// Of the server's user space, by the growth of its anonymous memory.
    pub bytes_each: f64,
    pub before: Memory,
    pub after: Memory,
    /// (sockets, anonymous bytes) while they connect.
    pub growth: Vec<(usize, u64)>,
    pub cpu: CpuUse,
    /// Connections that ended or were told of a message while idle; must be none.
    pub disturbed: u64,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.disturbed == 0
    }
}

/// Runs it.
///
/// # Errors
/// A socket could not be opened.
pub async fn run(server: &Server, plan: &Plan) -> Result<Outcome, Failure> {
    let people = client::people(WARM_UP + plan.sockets, &server.secret)?;
    let told = Arc::new(AtomicU64::new(0));
    let count = |_: usize| {
        let told = told.clone();
        move |text: &str| {
            if text.contains("new_message") {
                told.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut connections = client::connect(server, &people[..WARM_UP], count).await?;
    // The idle allocator may give back what the handshakes used.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.edge_memory();
    let mut growth = vec![(0, before.anonymous_bytes)];
    let begun = Instant::now();
    for part in people[WARM_UP..].chunks(plan.sockets.div_ceil(LOOKS).max(1)) {
        connections.extend(client::connect(server, part, count).await?);
        growth.push((connections.len() - WARM_UP, server.edge_memory().anonymous_bytes));
    }
    let connected_in_s = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cpu = server.cpu();
    tokio::time::sleep(plan.watch).await;
    let (cpu, after) = (server.cpu_since(&cpu), server.edge_memory());
    let grown = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
    let closed = connections.iter().filter(|c| c.is_closed()).count() as u64;
    let outcome = Outcome {
        sockets: plan.sockets,
        connected_in_s,
        bytes_each: grown as f64 / plan.sockets.max(1) as f64,
        before,
        after,
        growth,
        cpu,
        disturbed: closed + told.load(Ordering::Relaxed),
    };
    eprintln!(
        "  {} sockets: {:.0} bytes each, {:.3} cores while idle",
        outcome.sockets, outcome.bytes_each, outcome.cpu.server_cores
    );
    Ok(outcome)
}
