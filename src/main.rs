//! `reedi`: arguments -> role -> run.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
