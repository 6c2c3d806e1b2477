//! Outcomes as tables.

use super::{Outcome, Table};
use crate::checker::Verdict;
use crate::latency::Quantiles;
use crate::procfs::Memory;
use crate::scenario::{direct, group, history, idle, storm, strangers};
use crate::server::CpuUse;
use crate::traffic::Step;
use std::collections::BTreeMap;

/// A budget, and what was measured.
fn budget(what: &str, limit: f64, measured: f64, unit: &str) -> String {
    let verdict = if measured <= limit { "met" } else { "MISSED" };
    format!("Budget: {what} at most {limit} {unit}; measured {measured:.1} {unit}: {verdict}.")
}

/// The tables of one scenario.
#[must_use]
pub fn tables(name: &str, outcome: &Outcome) -> Vec<Table> {
    match outcome {
        Outcome::Idle(outcome) => vec![idle_table(name, outcome)],
        Outcome::Strangers(outcome) => vec![strangers_table(name, outcome), beside_table(name, outcome)],
        Outcome::Direct(outcome) => vec![direct_table(name, outcome)],
        Outcome::Group(outcome) => vec![group_table(name, outcome)],
        Outcome::Storm(outcome) => vec![storm_table(name, outcome)],
        Outcome::History(outcome) => vec![history_table(name, outcome)],
    }
}

/// Memory of every role at the end of every scenario.
#[must_use]
pub fn memory_table(memory: &[(String, BTreeMap<String, Memory>)]) -> Table {
    let mib = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
    let mut rows = vec![header("scenario, role, PSS MiB, RSS MiB, anonymous MiB")];
    for (scenario, by_role) in memory {
        for (role, held) in by_role {
            let sizes = [held.pss_bytes, held.rss_bytes, held.anonymous_bytes].map(mib);
            rows.push([scenario.clone(), role.clone()].into_iter().chain(sizes).collect());
        }
    }
    Table { title: "Memory at the end of each scenario".to_owned(), rows, notes: Vec::new() }
}

fn header(columns: &str) -> Vec<String> {
    columns.split(", ").map(str::to_owned).collect()
}

fn ms(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn quantiles(of: &Quantiles) -> [String; 4] {
    [ms(of.p50_ms), ms(of.p90_ms), ms(of.p99_ms), ms(of.max_ms)]
}

/// Server, components, generator, other.
fn cores(cpu: &CpuUse) -> [String; 4] {
    let known = cpu.server_cores + cpu.component_cores + cpu.generator_cores();
    let other = (cpu.machine_cores - known).max(0.0);
    [cpu.server_cores, cpu.component_cores, cpu.generator_cores(), other].map(|c| format!("{c:.2}"))
}

fn by_role(cpu: &CpuUse) -> String {
    let roles: Vec<String> = cpu.cores_by_role.iter().map(|(role, c)| format!("{role} {c:.2}")).collect();
    format!("Cores by role: {}.", roles.join(", "))
}

fn checked(verdict: &Verdict, histories: usize) -> String {
    let mut text = format!("Checked: {}; {histories} whole histories compared.", verdict.line());
    verdict.examples.iter().for_each(|example| text.push_str(&format!(" **{example}**.")));
    text
}

fn kept_up(kept_up: bool) -> String {
    if kept_up { "yes".into() } else { "no".into() }
}

fn step_cells(step: &Step) -> Vec<String> {
    let mut cells = vec![format!("{:.0}", step.acknowledged_per_second)];
    cells.extend([ms(step.to_ack.p50_ms), ms(step.to_ack.p99_ms)]);
    cells.extend(quantiles(&step.to_delivered));
    cells.extend(cores(&step.cpu));
    cells.push(format!("{:.1}", step.cpu_micros_per_delivery));
    cells.push(kept_up(step.kept_up));
    cells
}

fn direct_table(name: &str, outcome: &direct::Outcome) -> Table {
    let mut rows = vec![header(
        "rate/s, acked/s, ack p50 ms, p99, delivered p50, p90, p99, max, server cores, components, generator, other, us/delivery, kept up",
    )];
    for step in &outcome.steps {
        let mut row = vec![format!("{:.0}", step.rate)];
        row.extend(step_cells(step));
        rows.push(row);
    }
    let mut verdict = outcome.verdict.clone();
    verdict.examples.extend(outcome.histories.iter().flat_map(|h| h.examples.clone()));
    let mut notes = vec![checked(&verdict, outcome.histories.len())];
    notes.push(match outcome.knee {
        Some(knee) => format!("Kept up with {knee:.0} messages/s."),
        None => "Kept up with none of these rates.".to_owned(),
    });
    notes.extend(outcome.steps.iter().rfind(|step| step.kept_up).map(|step| by_role(&step.cpu)));
    if let Some(step) =
        outcome.steps.iter().find(|step| step.rate == 1_000.0 && outcome.connections >= 10_000)
    {
        notes.push(budget("send to delivered, p50", 3.0, step.to_delivered.p50_ms, "ms"));
        notes.push(budget("send to delivered, p99", 10.0, step.to_delivered.p99_ms, "ms"));
    }
    if let Some(step) = outcome.steps.iter().rfind(|step| step.kept_up) {
        notes.push(budget("CPU for each delivery", 60.0, step.cpu_micros_per_delivery, "us"));
    }
    let title = format!(
        "{name}: one-to-one messages of {} bytes over {} connections",
        outcome.content_bytes, outcome.connections
    );
    Table { title, rows, notes }
}

fn group_table(name: &str, outcome: &group::Outcome) -> Table {
    let mut rows = vec![header(
        "members, messages/s, acked/s, ack p50 ms, p99, delivered p50, p90, p99, max, server cores, components, generator, other, us/delivery, kept up, deliveries/s, to the last p50, p99",
    )];
    let mut notes = Vec::new();
    for group in &outcome.groups {
        let mut row = vec![group.members.to_string(), format!("{:.1}", group.step.rate)];
        row.extend(step_cells(&group.step));
        row.push(format!("{:.0}", group.step.delivered_per_second));
        row.extend([ms(group.step.to_last.p50_ms), ms(group.step.to_last.p99_ms)]);
        rows.push(row);
        let mut verdict = group.verdict.clone();
        verdict.examples.extend(group.history.examples.clone());
        notes.push(format!("{} members. {}", group.members, checked(&verdict, 1)));
    }
    Table { title: format!("{name}: one message to many"), rows, notes }
}

fn idle_table(name: &str, outcome: &idle::Outcome) -> Table {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / (1 << 20) as f64);
    let mut row = vec![outcome.sockets.to_string(), format!("{:.0}", outcome.bytes_each)];
    row.extend([mib(outcome.before.anonymous_bytes), mib(outcome.after.anonymous_bytes)]);
    row.extend([mib(outcome.after.pss_bytes), mib(outcome.after.rss_bytes)]);
    row.push(format!("{:.1}", outcome.connected_in_s));
    row.push(format!("{:.4}", outcome.cpu.server_cores));
    let columns = "sockets, bytes each, anonymous MiB before, after, PSS after, RSS after, connected in s, server cores while idle";
    Table {
        title: format!("{name}: authenticated sockets that say nothing"),
        rows: vec![header(columns), row],
        notes: vec![
            budget("user space of each idle socket", 4_096.0, outcome.bytes_each, "bytes"),
            format!("{} sockets were disturbed.", outcome.disturbed),
        ],
    }
}

fn strangers_table(name: &str, outcome: &strangers::Outcome) -> Table {
    let seconds = |ms: f64| format!("{:.2}", ms / 1_000.0);
    let mut row = vec![outcome.strangers.to_string()];
    row.extend([outcome.opened, outcome.refused, outcome.wrong].map(|n| n.to_string()));
    row.push(format!("{:.1}", outcome.came_in_s));
    row.extend([outcome.refused_after.p50_ms, outcome.refused_after.max_ms].map(ms));
    row.extend([outcome.closed_after.p50_ms, outcome.closed_after.max_ms].map(seconds));
    row.extend([outcome.most_waiting, outcome.places as u64].map(|n| n.to_string()));
    row.push(format!("{:.0}", outcome.bytes_each));
    row.extend([outcome.let_in.count, outcome.shut_out].map(|n| n.to_string()));
    row.extend([outcome.let_in.p50_ms, outcome.let_in.max_ms].map(ms));
    let columns = "strangers, opened, refused, neither as promised, came in s, refused after p50 ms, max, closed after p50 s, max, most waiting, places, bytes each, newcomers let in, shut out, in after p50 ms, max";
    let mut notes: Vec<String> = outcome.broken.iter().map(|broken| format!("**{broken}**.")).collect();
    notes.push("`bytes each` has in it what those who were refused left in the allocator.".to_owned());
    Table {
        title: format!("{name}: sockets that never say whose they are"),
        rows: vec![header(columns), row],
        notes,
    }
}

fn beside_table(name: &str, outcome: &strangers::Outcome) -> Table {
    let mut rows = vec![header(
        "beside, acked/s, ack p50 ms, p99, delivered p50, p90, p99, max, server cores, components, generator, other, us/delivery, kept up",
    )];
    for (beside, step) in ["nobody", "strangers"].into_iter().zip(&outcome.steps) {
        let mut row = vec![beside.to_owned()];
        row.extend(step_cells(step));
        rows.push(row);
    }
    let mut verdict = outcome.verdict.clone();
    verdict.examples.extend(outcome.histories.iter().flat_map(|h| h.examples.clone()));
    let mut notes = vec![checked(&verdict, outcome.histories.len())];
    notes.extend(outcome.steps.last().map(|step| by_role(&step.cpu)));
    Table { title: format!("{name}: pairs that talk beside them"), rows, notes }
}

fn storm_table(name: &str, outcome: &storm::Outcome) -> Table {
    let mut row = vec![outcome.clients.to_string(), format!("{:.1}", outcome.spread_s)];
    row.push(format!("{:.2}", outcome.all_resumed_s));
    row.extend(quantiles(&outcome.to_resumed));
    row.extend([outcome.missed_messages, outcome.retries, outcome.failed].map(|n| n.to_string()));
    row.extend(cores(&outcome.cpu));
    let columns = "clients, come within s, all resumed s, each p50 ms, p90, p99, max, messages missed, retries, failed, server cores, components, generator, other";
    Table {
        title: format!("{name}: everybody reconnects and resumes"),
        rows: vec![header(columns), row],
        notes: vec![checked(&outcome.verdict, 0), by_role(&outcome.cpu)],
    }
}

fn history_table(name: &str, outcome: &history::Outcome) -> Table {
    let mut rows = vec![header(
        "rate/s, pages/s, p50 ms, p90, p99, max, server cores, components, generator, other, us/page, wrong, kept up",
    )];
    for step in &outcome.steps {
        let mut row = vec![format!("{:.0}", step.rate), format!("{:.0}", step.pages_per_second)];
        row.extend(quantiles(&step.latency));
        row.extend(cores(&step.cpu));
        row.extend([
            format!("{:.0}", step.cpu_micros_per_page),
            step.wrong.to_string(),
            kept_up(step.kept_up),
        ]);
        rows.push(row);
    }
    let whole = outcome.histories.iter().filter(|h| h.is_clean()).count();
    let title = format!(
        "{name}: pages of 50 from {} conversations of {} messages",
        outcome.conversations, outcome.messages_each
    );
    let notes = vec![format!(
        "Checked: {whole} of {} whole histories have every message once and in order.",
        outcome.histories.len()
    )];
    Table { title, rows, notes }
}
