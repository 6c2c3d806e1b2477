//! The command line.

mod check;
mod cluster;
mod dev;
mod token;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use reedi::runtime::config::{self, Effective, Inputs};
use std::process::ExitCode;

const ABOUT: &str = "Reedi Messaging: direct and group chat that a company runs on its own machines";
const AFTER: &str = "\
Try it:
  reedi dev                       a whole server on 127.0.0.1:8080, nothing else needed
  reedi chat --as alice           talk, in another terminal
  reedi chat --as bob             and somebody to talk to, in a third

Every setting is a flag, an environment variable and a key of the TOML file (--config);
`reedi config check` shows what is in effect and where it comes from.";

fn command() -> Command {
    let role =
        |name: &'static str, about: &'static str| Command::new(name).about(about).args(config::flags());
    Command::new("reedi")
        .about(ABOUT)
        .after_help(AFTER)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(role("dev", "The whole service in one process, with nothing else installed"))
        .subcommand(role("edge", "An edge of a cluster: REST and sockets"))
        .subcommand(role("delivery", "A delivery worker of a cluster: pushes events to edges"))
        .subcommand(role("writer", "A writer of a cluster: stores what the log has"))
        .subcommand(
            role("migrate", "Bring the store's schema up to date").arg(
                Arg::new("back")
                    .long("back")
                    .action(clap::ArgAction::SetTrue)
                    .help("Take the last migration back instead; what it added is lost"),
            ),
        )
        .subcommand(reedi::chat::ChatArgs::augment_args(
            Command::new("chat").about("Talk to somebody in this terminal"),
        ))
        .subcommand(
            role("token", "Print a token for a test")
                .arg(
                    Arg::new("sub")
                        .long("sub")
                        .value_name("UUID")
                        .required(true)
                        .value_parser(value_parser!(uuid::Uuid))
                        .help("The account"),
                )
                .arg(
                    Arg::new("device")
                        .long("device")
                        .value_name("1..127")
                        .value_parser(value_parser!(u8).range(1..=127))
                        .help("The device, for a session that is more than a plain one"),
                ),
        )
        .subcommand(Command::new("config").about("Configuration").subcommand_required(true).subcommand(role(
            "check",
            "Print the effective configuration, secrets hidden, or say what is wrong with it",
        )))
}

/// Runs what the arguments ask for.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let outcome = match matches.subcommand() {
        Some(("dev", matches)) => dev::run(matches),
        Some((name @ ("edge" | "delivery" | "writer"), matches)) => cluster::run(name, matches),
        Some(("migrate", matches)) => cluster::migrate(matches),
        Some(("chat", matches)) => chat(matches),
        Some(("token", matches)) => token::run(matches),
        Some(("config", matches)) => matches.subcommand_matches("check").map_or(Ok(()), check::run),
        _ => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("reedi: {message}");
            ExitCode::FAILURE
        }
    }
}

fn effective(matches: &ArgMatches) -> Result<Effective, String> {
    Inputs::of_process(matches).and_then(Inputs::resolve).map_err(|errors| errors.to_string())
}

fn chat(matches: &ArgMatches) -> Result<(), String> {
    let args = reedi::chat::ChatArgs::from_arg_matches(matches).map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(reedi::chat::run(args)).map_err(|e| e.to_string())
}
