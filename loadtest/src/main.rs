//! The load test of Reedi Messaging: starts a server, puts it through scenarios, checks every message,
//! and reports what it measured.

mod checker;
mod client;
mod cluster;
mod latency;
mod pace;
mod plot;
mod procfs;
mod report;
mod scenario;
mod server;
mod traffic;

use clap::{Parser, ValueEnum};
use client::Failure;
use report::{Machine, Outcome, Report};
use scenario::{direct, group, history, idle, storm, strangers};
use server::{Backend, Server, Setup};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Threads of the generator. It shares two cores with the server, and one thread would be late at
/// the highest rates.
const THREADS: usize = 2;
/// Sockets of `strangers`, as many as the promise is about.
const STRANGERS: usize = 10_000;

const ABOUT: &str = "Load test of Reedi Messaging: open loop, with every message checked";
const LONG_ABOUT: &str = "\
Starts a server of its own, puts it through scenarios, and writes what it measured as JSON, as a table \
and as pictures.

Open loop: messages are sent when they are due, whether earlier ones were answered or not, and every \
latency counts from when a message was DUE. A server that stalls for a second is charged for all that \
should have been sent in that second.

Checked: every acknowledged message is told exactly once to every session of every participant, in \
position order, and stands in history exactly once. A message that is wrong or missing fails the run \
(exit status 1), whatever its speed.";
const AFTER: &str = "\
Scenarios (all of them, in this order, where none is named):
  idle       silent sockets: bytes of the server's user space for each, CPU while idle
  strangers  sockets that never say whose they are: each refused at once or closed in time, no more
             waiting than may, and nobody shut out or disturbed who is known
  direct     one-to-one messages: first at 1,000/s over many connections, for the latency budget; then
             over --pairs pairs at each of --rates, up to the knee (p99 over 250 ms, or not keeping up)
  group      one message to 10, 100 and 1,000 members
  storm      everybody loses the connection, misses messages, comes back and resumes
  history    pages of 50 messages, newest and older ones

Examples:
  reedi-loadtest                                   everything on embedded parts, about six minutes
  reedi-loadtest direct --rates 5000,10000         two rates only
  reedi-loadtest direct --backend cluster          on real NATS x 3, Cassandra and Redis
  reedi-loadtest idle --sockets 2000               fewer sockets, where few files may be open

Reading the tables: `us/delivery` is CPU time (user and system) of all our server processes for each \
message told to somebody else than its sender. Generator and server share the machine: where their cores \
add up to all there are, a faster generator would show a faster server. `other` is CPU that neither of \
them used: on a quiet machine some 0.1.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Idle,
    Strangers,
    Direct,
    Group,
    Storm,
    History,
}

#[derive(Parser)]
#[command(name = "reedi-loadtest", about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER)]
struct Args {
    /// What to run; everything where nothing is named
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// What the service runs on
    #[arg(long, value_enum, default_value = "embedded")]
    backend: Backend,
    /// The server's binary [default: `reedi` beside this one]
    #[arg(long)]
    reedi: Option<PathBuf>,
    /// Sockets of `idle`, clients of `storm`, connections of the first part of `direct`; 0 leaves that out
    #[arg(long, default_value_t = 10_000)]
    sockets: usize,
    /// Sockets of `strangers` [default: 10000, or as many as may be open]
    #[arg(long)]
    strangers: Option<usize>,
    /// Pairs of `direct`, two connections each
    #[arg(long, default_value_t = 1_000)]
    pairs: usize,
    /// Messages a second of `direct`, one step each; it ends at the first that the server does not keep up with
    #[arg(long, value_delimiter = ',', default_value = "500,1000,2000,5000,7500,10000,15000,20000,30000")]
    rates: Vec<f64>,
    /// Members of the groups of `group`
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    members: Vec<usize>,
    /// Deliveries a second that each group aims at
    #[arg(long, default_value_t = 5_000.0)]
    deliveries: f64,
    /// Seconds within which the clients of `storm` come back
    #[arg(long, default_value_t = 1.0)]
    spread: f64,
    /// Conversations of `history`
    #[arg(long, default_value_t = 50)]
    conversations: usize,
    /// Messages in each conversation of `history`
    #[arg(long, default_value_t = 500)]
    messages: usize,
    /// Pages a second of `history`, one step each
    #[arg(long, value_delimiter = ',', default_value = "250,500,1000,2000,4000")]
    pages: Vec<f64>,
    /// Bytes of each message's content
    #[arg(long, default_value_t = 100)]
    content_bytes: usize,
    /// Seconds that each step is measured
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Seconds of each step before anything is measured
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Edges of a cluster
    #[arg(long, default_value_t = 1)]
    edges: usize,
    /// Delivery workers of a cluster
    #[arg(long, default_value_t = 1)]
    deliverers: usize,
    /// Writers of a cluster
    #[arg(long, default_value_t = 1)]
    writers: usize,
    /// The scripts that start the real components
    #[arg(long, default_value = "tests/components")]
    components: PathBuf,
    /// Where results go
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
    /// Seconds after which the run is given up
    #[arg(long, default_value_t = 900)]
    time_limit: u64,
    /// Leave the server's data and logs behind
    #[arg(long)]
    keep_data: bool,
}

impl Args {
    fn setup(&self) -> Result<Setup, String> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("reedi"));
        let reedi = self.reedi.clone().or_else(beside).unwrap_or_else(|| "reedi".into());
        if !reedi.exists() {
            return Err(format!("there is no {}: cargo build --release --bin reedi", reedi.display()));
        }
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| e.to_string());
        Ok(Setup {
            reedi: absolute(&reedi)?,
            backend: self.backend,
            edges: self.edges.max(1),
            deliveries: self.deliverers.max(1),
            writers: self.writers.max(1),
            folder: absolute(&self.results)?.join("data"),
            components: absolute(&self.components)?,
        })
    }

    fn wanted(&self) -> Vec<Scenario> {
        if self.scenarios.is_empty() { Scenario::value_variants().to_vec() } else { self.scenarios.clone() }
    }

    fn direct(&self, pairs: usize, rates: Vec<f64>) -> direct::Plan {
        let (warm_up, measure) = self.durations();
        direct::Plan { pairs, rates, warm_up, measure, content_bytes: self.content_bytes }
    }

    fn strangers(&self) -> usize {
        self.strangers.unwrap_or_else(|| STRANGERS.min(report::most_sockets())).max(1)
    }

    /// The most sockets that a wanted scenario has open at once.
    fn sockets_at_once(&self) -> usize {
        let of = |scenario| match scenario {
            Scenario::Strangers => self.strangers(),
            _ => self.sockets.max(2 * self.pairs),
        };
        self.wanted().into_iter().map(of).max().unwrap_or_default()
    }

    fn durations(&self) -> (Duration, Duration) {
        (Duration::from_secs_f64(self.warm_up), Duration::from_secs_f64(self.seconds))
    }

    /// Puts a server through one scenario.
    async fn run(&self, scenario: Scenario, server: &Server) -> Result<Vec<(String, Outcome)>, Failure> {
        let (warm_up, measure) = self.durations();
        let content_bytes = self.content_bytes;
        let name = format!("{scenario:?}").to_lowercase();
        let outcome = match scenario {
            Scenario::Idle => {
                Outcome::Idle(idle::run(server, &idle::Plan { sockets: self.sockets, watch: measure }).await?)
            }
            Scenario::Strangers => {
                let plan =
                    strangers::Plan { strangers: self.strangers(), warm_up, quiet: measure, content_bytes };
                Outcome::Strangers(strangers::run(server, &plan).await?)
            }
            Scenario::Direct => {
                let mut outcomes = Vec::new();
                if self.sockets >= 2 {
                    let plan = self.direct(self.sockets / 2, vec![1_000.0]);
                    outcomes
                        .push(("direct-many".to_owned(), Outcome::Direct(direct::run(server, &plan).await?)));
                }
                if !self.rates.is_empty() {
                    let plan = self.direct(self.pairs.max(1), self.rates.clone());
                    outcomes.push((name, Outcome::Direct(direct::run(server, &plan).await?)));
                }
                return Ok(outcomes);
            }
            Scenario::Group => {
                let (members, deliveries_per_second) = (self.members.clone(), self.deliveries);
                let plan = group::Plan { members, deliveries_per_second, warm_up, measure, content_bytes };
                Outcome::Group(group::run(server, &plan).await?)
            }
            Scenario::Storm => {
                let plan =
                    storm::Plan { clients: self.sockets, spread: Duration::from_secs_f64(self.spread) };
                Outcome::Storm(storm::run(server, &plan).await?)
            }
            Scenario::History => {
                let (conversations, messages, rates) =
                    (self.conversations, self.messages, self.pages.clone());
                let plan = history::Plan { conversations, messages, rates, warm_up, measure, content_bytes };
                Outcome::History(history::run(server, &plan).await?)
            }
        };
        Ok(vec![(name, outcome)])
    }
}

/// Runs everything that is wanted, a fresh server each.
async fn run_all(args: &Args, setup: &Setup, report: &mut Report) {
    for scenario in args.wanted() {
        eprintln!("{scenario:?}, {:?}:", setup.backend);
        let server = match Server::start(setup).await {
            Ok(server) => server,
            Err(error) => {
                report.failures.push(format!("{scenario:?}: {error}"));
                continue;
            }
        };
        match args.run(scenario, &server).await {
            Ok(outcomes) => report.outcomes.extend(outcomes),
            Err(error) => report.failures.push(format!("{scenario:?}: {error}")),
        }
        report.memory.push((format!("{scenario:?}").to_lowercase(), server.memory()));
        server.stop().await;
    }
}

async fn run(args: Args) -> Result<bool, String> {
    let setup = args.setup()?;
    report::check_open_files(args.sockets_at_once())?;
    let mut report = Report {
        machine: Machine::look(&args.results),
        commit: report::commit(),
        backend: args.backend,
        outcomes: Vec::new(),
        memory: Vec::new(),
        failures: Vec::new(),
    };
    let limit = Duration::from_secs(args.time_limit);
    // Processes end when what holds them is dropped.
    tokio::select! {
        () = run_all(&args, &setup, &mut report) => {}
        () = tokio::time::sleep(limit) => report.failures.push(format!("not done after {limit:?}")),
        _ = tokio::signal::ctrl_c() => report.failures.push("interrupted".to_owned()),
    }
    println!("{}", report.markdown());
    report.write(&args.results).map_err(|e| format!("{}: {e}", args.results.display()))?;
    println!("Results: {}", args.results.display());
    if !args.keep_data && report.passed() {
        // What is left of it is in the way of nobody: the next run begins by removing it.
        let _ = std::fs::remove_dir_all(&setup.folder);
    }
    Ok(report.passed())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(args));
            // A pacer that still waits for its end is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("reedi-loadtest: {message}");
            ExitCode::from(2)
        }
    }
}
