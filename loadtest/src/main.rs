//! The load test of Reedi Messaging.

mod checker;
mod client;
mod cluster;
mod latency;
mod pace;
mod procfs;
mod report;
mod scenario;
mod server;
mod traffic;

use clap::Parser;
use server::{Backend, Server, Setup};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    reedi: PathBuf,
    #[arg(long, value_enum, default_value = "embedded")]
    backend: Backend,
    #[arg(long, default_value_t = 1000)]
    pairs: usize,
    #[arg(long, value_delimiter = ',', default_value = "500,1000,2000,5000,10000,15000,20000")]
    rates: Vec<f64>,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value = "/tmp/bench-data")]
    folder: PathBuf,
    #[arg(long, default_value = "tests/components")]
    components: PathBuf,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    let setup = Setup {
        reedi: args.reedi,
        backend: args.backend,
        edges: 1,
        deliveries: 1,
        writers: 1,
        folder: args.folder,
        components: args.components,
    };
    let server = Server::start(&setup).await.unwrap();
    let plan = scenario::direct::Plan {
        pairs: args.pairs,
        rates: args.rates,
        warm_up: Duration::from_secs(1),
        measure: Duration::from_secs_f64(args.seconds),
        content_bytes: 100,
    };
    let outcome = scenario::direct::run(&server, &plan).await.unwrap();
    eprintln!("{}", outcome.verdict.line());
    eprintln!("{:?}", outcome.is_clean());
    server.stop().await;
}
