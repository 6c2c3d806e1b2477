//! `cargo xtask`: what the project checks about itself.

mod tidy;

use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What the project checks about itself")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the house rules: who may import whom, lengths, names, words, sleeps, kinds of tables
    Tidy,
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match Arguments::parse().task {
        Task::Tidy => tidy::run(root),
    }
}
