//! The command line.

mod check;
mod cluster;
mod dev;
mod help;
mod token;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use reedi::runtime::config::{self, Effective, Inputs};
use reedi::runtime::shutdown::Shutdown;
use std::process::ExitCode;

const ABOUT: &str = "Reedi Messaging: direct and group chat that a company runs on its own machines";
const AFTER: &str = "\
Try it:
  reedi dev                       a whole server on 127.0.0.1:8080, nothing else needed
  reedi chat --as alice           talk, in another terminal
  reedi chat --as bob             and somebody to talk to, in a third

A cluster: `reedi migrate` once, then `reedi edge`, `reedi delivery` and `reedi writer`, as many of \
each as you like.

Every setting is a flag, an environment variable and a key of the TOML file (--config); `reedi <COMMAND> --help` \
lists them, and `reedi config check` shows what is in effect and where it comes from.";

fn command() -> Command {
    let role = |name: &'static str, about: &'static str, long: &'static str| {
        // `-h` is for a glance: the settings are in `--help`.
        let settings = config::flags().into_iter().map(|flag| match flag.get_id().as_str() {
            "config" => flag,
            _ => flag.hide_short_help(true),
        });
        Command::new(name).about(about).long_about(long).args(settings)
    };
    Command::new("reedi")
        .about(ABOUT)
        .after_help(AFTER)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(role("dev", "The whole service in one process, with nothing else installed", help::DEV))
        .subcommand(role("edge", "An edge of a cluster: REST and sockets", help::EDGE))
        .subcommand(role(
            "delivery",
            "A delivery worker of a cluster: pushes events to edges",
            help::DELIVERY,
        ))
        .subcommand(role("writer", "A writer of a cluster: stores what the log has", help::WRITER))
        .subcommand(
            role("migrate", "Bring the store's schema up to date", help::MIGRATE).arg(
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
            role("token", "Print a token for a test", help::TOKEN)
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
        .subcommand(
            Command::new("config")
                .about("See what is configured, and from where")
                .subcommand_required(true)
                .subcommand(role(
                    "check",
                    "Print the effective configuration, secrets hidden, or say what is wrong with it",
                    help::CHECK,
                )),
        )
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

/// How a process that has left ends: well, unless it had to leave.
fn ended(shutdown: &Shutdown) -> Result<(), String> {
    shutdown.failure().map_or(Ok(()), |why| Err(why.to_owned()))
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
