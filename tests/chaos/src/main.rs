//! The chaos run: the whole service as real processes on real components, people who write to each
//! other, and faults. What was acknowledged must be there, once and in order, with everybody.

mod balancer;
mod book;
mod cluster;
mod components;
mod fault;
mod frames;
mod history;
mod inject;
mod invariants;
mod line;
mod observed;
mod patience;
mod population;
mod probe;
mod ready;
mod report;
mod role;
mod scan;
mod session;
mod storm;
mod traffic;

use book::Book;
use clap::Parser;
use cluster::Cluster;
use fault::Deck;
use invariants::Findings;
use population::Population;
use probe::Probe;
use rand::SeedableRng;
use rand::rngs::StdRng;
use report::{Counts, FaultReport};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// For the last messages to reach everybody, once every outbox is empty.
const SETTLE_WITHIN: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Parser)]
struct Arguments {
    /// How long faults happen.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Chooses people, messages and faults; a new one each time unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many people send and receive.
    #[arg(long, default_value_t = 200)]
    people: usize,
    /// Messages a second, over all people.
    #[arg(long, default_value_t = 30.0)]
    rate: f64,
    /// Only faults whose name has this in it, for example kill-edge, hold or nats; `none` for none.
    #[arg(long)]
    only: Option<String>,
    /// The program.
    #[arg(long)]
    reedi: PathBuf,
    /// The scripts that start the components.
    #[arg(long)]
    components: PathBuf,
    /// Where logs and data go; emptied first.
    #[arg(long)]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool, String> {
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let Arguments { seconds, people, rate, .. } = arguments;
    println!("chaos: seed {seed}, {people} people, {rate} messages/s, {seconds} s of faults");
    let folder = std::path::absolute(&arguments.folder).map_err(|error| error.to_string())?;
    // Processes are started in folders of their own.
    let reedi = std::path::absolute(&arguments.reedi).map_err(|error| error.to_string())?;
    let parts = folder.join("parts");
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        // The components' own script empties this one, once what may still run there has ended.
        if name != "parts" {
            let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
        }
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let mut cluster = Cluster::start(&reedi, &arguments.components, &parts)
        .await
        .map_err(|error| format!("the cluster does not start: {error}"))?;
    println!("chaos: the cluster is ready after {:.1} s", begun.elapsed().as_secs_f64());
    let verdict = weather(arguments, seed, &folder, &mut cluster).await;
    let stopped = cluster.components.stop().await.map_err(|error| error.to_string());
    let findings = verdict?;
    stopped?;
    if findings.is_clean() {
        println!("\nchaos: nothing acknowledged was lost, doubled or out of order");
        return Ok(true);
    }
    let file = folder.join("findings");
    std::fs::write(&file, report::all(&findings)).map_err(|error| error.to_string())?;
    let only = arguments.only.as_ref().map(|only| format!(" CHAOS_ARGS='--only {only}'")).unwrap_or_default();
    println!("\nchaos: FAILED; findings, logs and data lie in {}", folder.display());
    println!("chaos: the same faults again: make chaos SECONDS_OF_FAULTS={seconds} SEED={seed}{only}");
    Ok(false)
}

/// People, traffic and faults, and then the checks.
async fn weather(
    arguments: &Arguments,
    seed: u64,
    folder: &std::path::Path,
    cluster: &mut Cluster,
) -> Result<Findings, String> {
    let mark = format!("chaos-mark-{}", uuid::Uuid::new_v4().simple());
    let (book, begun) = (Book::new(&mark), Instant::now());
    let mut random = StdRng::seed_from_u64(seed);
    let settled = Population::settle(cluster, &book, folder, arguments.people, &mut random).await;
    let population = Arc::new(settled.map_err(|error| format!("the people cannot be set up: {error}"))?);
    let probe = Probe::open(cluster, &book).await.map_err(|error| format!("the probe: {error}"))?;
    println!("chaos: the people are there after {:.1} s more", begun.elapsed().as_secs_f64());
    let (stop, stopped) = watch::channel(false);
    let traffic_random = StdRng::seed_from_u64(seed.wrapping_add(1));
    let traffic =
        traffic::run(book.clone(), Arc::clone(&population), arguments.rate, traffic_random, stopped);
    let traffic = tokio::spawn(traffic);

    let faults = storm(arguments, seed, cluster, &probe, &book).await;
    let _ = stop.send(true);
    let _ = traffic.await;
    let (reports, mut broken) = faults;
    let waiting = traffic::flush(&population).await;
    let missing = settle(&book).await;
    println!("chaos: {waiting} messages wait, {missing} tellings are missing after settling");
    let mut findings = match history::read(&population, &book).await {
        Ok(history) => book.read(|pages| invariants::check(pages, &history)),
        Err(error) => {
            broken = Some(broken.map_or(error.clone(), |why| format!("{why}; and history: {error}")));
            book.read(invariants::check_told)
        }
    };
    findings.other.extend(broken);
    let found = scan::run(cluster, &mark, &folder.join("parts")).await;
    findings.other.extend(found.map_err(|error| format!("files cannot be searched: {error}"))?);
    report::print(&book.read(Counts::of), &findings, &reports);
    match Arc::try_unwrap(population) {
        Ok(population) => close(population).await,
        Err(_) => println!("chaos: somebody still holds the people"),
    }
    Ok(findings)
}

async fn storm(
    arguments: &Arguments,
    seed: u64,
    cluster: &mut Cluster,
    probe: &Probe,
    book: &Book,
) -> (Vec<FaultReport>, Option<String>) {
    let length = Duration::from_secs(arguments.seconds);
    let until = Instant::now() + length;
    match probe.run(&[], Duration::from_secs(30)).await {
        Ok(healthy) => println!("chaos: the probe takes {:.3} s without a fault", healthy.as_secs_f64()),
        Err(why) => return (Vec::new(), Some(format!("the service does not work before any fault: {why}"))),
    }
    if arguments.only.as_deref() == Some("none") {
        tokio::time::sleep_until(until).await;
        return (Vec::new(), cluster.ready().await.err().map(|error| error.to_string()));
    }
    // A short run shall see many faults, not one that lasts.
    let longest = (length / 8).min(Duration::from_secs(40));
    let random = StdRng::seed_from_u64(seed.wrapping_add(2));
    let mut deck = Deck::new(random, longest, arguments.only.clone());
    let mut reports = Vec::new();
    let stormed = storm::run(cluster, probe, book, &mut deck, until, &mut reports).await;
    (reports, stormed.err())
}

/// Waits until every session has been told everything, and gives how many tellings are missing.
async fn settle(book: &Book) -> usize {
    let until = Instant::now() + SETTLE_WITHIN;
    loop {
        let missing = book.read(invariants::not_told_yet);
        if missing == 0 || Instant::now() > until {
            return missing;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn close(population: Population) {
    for session in population.people.into_iter().flat_map(|person| person.sessions) {
        session.close().await;
    }
}
