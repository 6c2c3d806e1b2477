//! The command line, as a process: what it prints, what it refuses, and with which status.

#[path = "support_process/mod.rs"]
mod support_process;

use reedi_client::{Closed, Endpoint, Password, Rest, RestOptions, Socket, SocketOptions, Token};
use reedi_protocol::{CloseCode, ErrorCode};
use std::path::Path;
use std::process::Command;
use support_process::{Folder, Server, WITHIN, reedi};
use tokio::time::timeout;

const COMMANDS: [&str; 8] = ["dev", "edge", "delivery", "writer", "migrate", "chat", "token", "config"];
/// How clap ends where it cannot make sense of the arguments.
const NOT_UNDERSTOOD: i32 = 2;

/// What a command came to.
#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it writes text");
    Ran { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// What a command prints that succeeds.
fn printed(command: &mut Command) -> String {
    let ran = ran(command);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    ran.out
}

/// What a command says that fails, ending with `status`; it prints nothing then that could be taken for a result.
fn refused(command: &mut Command, status: i32) -> String {
    let ran = ran(command);
    assert_eq!((ran.status, ran.out.as_str()), (Some(status), ""), "{ran:?}");
    ran.err
}

#[test]
fn help_names_the_subcommands_and_each_has_its_own() {
    let help = printed(reedi().arg("--help"));
    for name in COMMANDS {
        let is_listed = help.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(is_listed, "{name} is not in\n{help}");
        let own = printed(reedi().args([name, "--help"]));
        assert!(own.contains(&format!("Usage: reedi {name}")), "{own}");
    }
    assert!(printed(reedi().args(["config", "--help"])).contains("check"));
    assert!(printed(reedi().args(["config", "check", "--help"])).contains("Usage: reedi config check"));
}

#[test]
fn settings_are_in_the_long_help_and_not_in_the_short_one() {
    let (long, short) = (printed(reedi().args(["dev", "--help"])), printed(reedi().args(["dev", "-h"])));
    for part in ["--listen", "REEDI_LISTEN", "--nats-url", "127.0.0.1:8080"] {
        assert!(long.contains(part), "{part} is not in\n{long}");
    }
    assert!(short.contains("--config") && !short.contains("--nats-url"), "{short}");
}

#[test]
fn what_is_not_understood_is_named() {
    let nobody = "0b0b0000-0000-4000-8000-000000000002";
    let cases: [(&[&str], &[&str]); 7] = [
        (&["dev", "--lisen", "127.0.0.1:0"], &["'--lisen'", "'--listen'"]),
        (&["chat", "--as", "alice", "--sever", "http://a"], &["'--sever'", "'--server'"]),
        (&["chat"], &["--as <NAME>"]),
        (&["develop"], &["'develop'"]),
        (&["token"], &["--sub <UUID>"]),
        (&["token", "--sub", "nobody"], &["'nobody'", "--sub <UUID>"]),
        (&["token", "--sub", nobody, "--device", "128"], &["'128'", "--device"]),
    ];
    for (args, named) in cases {
        let said = refused(reedi().args(args), NOT_UNDERSTOOD);
        for name in named {
            assert!(said.contains(name), "{args:?}: {name} is not in\n{said}");
        }
    }
}

#[test]
fn config_check_prints_what_holds_and_whence_without_secrets() {
    let folder = Folder::made();
    let file = folder.join("reedi.toml");
    let top = "log_level = \"warn\"\nlisten = \"127.0.0.1:1\"\n";
    let nats = "[nats]\nurl = \"nats://ann:s3cret@n1:4222\"\n";
    std::fs::write(&file, format!("{top}{nats}")).expect("a file");
    let mut command = reedi();
    command.args(["config", "check", "--listen", "127.0.0.1:7777", "--config"]).arg(&file);
    command.env("REEDI_AUTH_HS256_SECRET", "s3cret, and long enough to sign with it");
    command.env("REEDI_LOG_LEVEL", "debug");
    let checked = ran(&mut command);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert!(!checked.out.contains("s3cret") && !checked.err.contains("s3cret"), "{checked:?}");
    let from_file = format!("file {}", file.display());
    for (name, value, source) in [
        ("listen", "127.0.0.1:7777", "flag"),
        ("log_level", "debug", "environment"),
        ("auth_hs256_secret", "(hidden)", "environment"),
        ("nats_url", "nats://ann:hidden@n1:4222", from_file.as_str()),
        ("drain_seconds", "15", "default"),
        ("redis_url", "(not set)", "default"),
    ] {
        let line = checked.out.lines().find(|line| line.split_whitespace().next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{}", checked.out));
        assert!(line.contains(value) && line.ends_with(&format!(" {source}")), "{line}");
    }
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_name_wherever_it_stands() {
    let folder = Folder::made();
    let file = folder.join("reedi.toml");
    std::fs::write(&file, "nats_replica = 3\ndrain_seconds = 9999\n").expect("a file");
    let mut command = reedi();
    command.args(["config", "check"]).env("REEDI_CONFIG", &file).env("REEDI_NATS_ULR", "nats://n1:4222");
    let said = refused(&mut command, 1);
    for part in [
        "nats_replica (file ",
        "did you mean nats_replicas?",
        "REEDI_NATS_ULR (environment) is no setting; did you mean REEDI_NATS_URL?",
        // Not only the first mistake: they are mended in one go.
        "drain_seconds (file ",
        "wants a whole number from 0 to 3600",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    // No command begins with a setting that it would pass over.
    let said = refused(reedi().arg("dev").env("REEDI_LISTN", "127.0.0.1:0"), 1);
    assert!(said.contains("did you mean REEDI_LISTEN?"), "{said}");
}

#[test]
fn migrate_without_a_store_says_what_is_missing() {
    let said = refused(reedi().arg("migrate"), 1);
    assert!(said.contains("REEDI_CQL_CONTACT_POINTS (--cql-contact-points)"), "{said}");
}

#[test]
fn what_dev_tells_to_type_leads_to_this_server() {
    let folder = Folder::made();
    let server = Server::start(&folder.join("data"), "127.0.0.1:0");
    let commands: Vec<_> = server.told.lines().filter(|line| line.contains(" chat --as ")).collect();
    assert_eq!(commands.len(), 2, "{}", server.told);
    for command in commands {
        assert!(command.ends_with(&format!(" --server http://{}", server.address)), "{command}");
    }
}

fn token(data: &Path, sub: &str, more: &[&str]) -> Token {
    Token::new(&printed(reedi().args(["token", "--sub", sub]).args(more).arg("--data-dir").arg(data)))
}

#[tokio::test]
async fn a_printed_token_is_accepted_by_the_server_with_that_folder() {
    let folder = Folder::made();
    let data = folder.join("data");
    let said = refused(
        reedi().args(["token", "--sub", "0b0b0000-0000-4000-8000-000000000002", "--data-dir"]).arg(&data),
        1,
    );
    assert!(said.contains("is not there: give the folder of a server that has run (--data-dir)"), "{said}");

    let server = Server::start(&data, "127.0.0.1:0");
    let endpoint = Endpoint::parse(&format!("http://{}", server.address)).expect("an address");
    let rest = Rest::new(endpoint, RestOptions::default()).expect("a client");
    let alice = rest.sign_up("alice", &Password::new("correct horse"), None).await.expect("an account");
    let sub = alice.user_id.to_string();
    let kinds: [&[&str]; 2] = [&[], &["--device", "3"]];
    for more in kinds {
        let token = token(&data, &sub, more);
        assert_eq!(token.account(), Some(alice.user_id));
        rest.for_token(token).conversations(None, 10).await.expect("the token is accepted");
    }
    let other = ["--auth-hs256-secret", "another secret than the server's"];
    let refused = rest.for_token(token(&data, &sub, &other)).conversations(None, 10).await;
    assert_eq!(refused.expect_err("it was signed by somebody else").code(), Some(ErrorCode::InvalidToken));
}

#[tokio::test]
async fn a_token_of_a_device_makes_its_later_connection_take_the_place_of_the_earlier() {
    let folder = Folder::made();
    let data = folder.join("data");
    let server = Server::start(&data, "127.0.0.1:0");
    let endpoint = Endpoint::parse(&format!("http://{}", server.address)).expect("an address");
    let sub = uuid::Uuid::new_v4().to_string();
    let (plain, device) = (token(&data, &sub, &[]), token(&data, &sub, &["--device", "3"]));
    let open = async |token: &Token| {
        let opened = Socket::open(&endpoint, Some(token), &SocketOptions::default()).await;
        opened.expect("the token is accepted")
    };
    let mut earlier = open(&device).await;
    let _elsewhere = open(&plain).await;
    let _later = open(&device).await;
    let closed = timeout(WITHIN, end_of(&mut earlier)).await.expect("the earlier one is closed in time");
    assert_eq!(closed.close_code(), Some(CloseCode::Replaced), "{closed}");
}

async fn end_of(socket: &mut Socket) -> Closed {
    loop {
        if let Err(closed) = socket.next().await {
            return closed;
        }
    }
}
