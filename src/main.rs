//! `reedi`: arguments -> role -> run.

mod cli;

// Why not the system's: ADR 0025.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
