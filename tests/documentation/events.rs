//! The tables in `docs/events.md`, made of the types and tables of the contract.

use crate::samples::{commands, events};
use reedi::domain::retention::{CHANGE_WINDOW_MS, EVENTS_TTL_S, RESUME_EVENTS_MOST};
use reedi::edge::connection::sweep::SILENT_FOR;
use reedi::edge::session::JOINED_MOST;
use reedi_protocol::close_code::Reconnect;
use reedi_protocol::frame::{Answer, encode_answer, encode_event};
use reedi_protocol::{CloseCode, ErrorCode, limits};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md");
/// Makes the tables anew instead of checking them, where set.
const REGENERATE: &str = "REEDI_TEST_REGENERATE";

#[test]
fn the_tables_of_the_socket_are_current() {
    let standing = std::fs::read_to_string(PATH).unwrap();
    let mut fresh = standing.clone();
    for (name, table) in tables() {
        fresh = replaced(&fresh, name, &table);
    }
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(PATH, &fresh).unwrap();
        return;
    }
    assert!(
        standing == fresh,
        "docs/events.md is out of date: run `{REGENERATE}=1 cargo test --test documentation \
         the_tables_of_the_socket_are_current` and commit it"
    );
}

fn tables() -> [(&'static str, String); 5] {
    [
        ("commands", command_table()),
        ("events", event_table()),
        ("close codes", close_code_table()),
        ("error codes", error_code_table()),
        ("limits", limit_table()),
    ]
}

/// The document with what stands between the marks of `name` replaced.
fn replaced(document: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- made of the code: {name} -->\n");
    let end = format!("<!-- end: {name} -->");
    let (before, rest) =
        document.split_once(&begin).unwrap_or_else(|| panic!("docs/events.md lacks {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/events.md lacks {end}"));
    format!("{before}{begin}\n{table}\n{end}{after}")
}

fn command_table() -> String {
    let mut out = String::new();
    for command in commands() {
        out += &format!("### `{}`\n\n{}\n\n", command.name, command.says);
        let (name, data) = (command.name, &command.data);
        let fields = command.answer.as_object().cloned().unwrap_or_default();
        let answer = encode_answer(7, &Answer { ok: true, fields, error: None });
        out += &format!("```json\n{{\"event\":\"{name}\",\"data\":{data},\"ack\":7}}\n{answer}\n```\n\n");
    }
    out.trim_end().to_owned()
}

fn event_table() -> String {
    let mut out = String::new();
    for (event, says) in events() {
        let frame = encode_event(&event);
        let name = frame.split('"').nth(3).unwrap();
        out += &format!("### `{name}`\n\n{says}\n\n```json\n{frame}\n```\n\n");
    }
    out.trim_end().to_owned()
}

fn close_code_table() -> String {
    let rows = CloseCode::ALL.map(|code| {
        let meaning = match code {
            CloseCode::Normal => "the client said goodbye",
            CloseCode::GoingAway => "the connection failed, or nothing was heard for too long",
            CloseCode::TooLarge => "a frame was too large; do not send it again",
            CloseCode::Restarting => {
                "this server leaves or lost its place; the reason is `{\"reconnectAfterMs\":…}`"
            }
            CloseCode::ProtocolViolation => "no frame of this protocol; mend the client",
            CloseCode::Unauthenticated => "the token is missing, invalid or expired",
            CloseCode::DeviceRevoked => "the device was taken off the account; sign in again",
            CloseCode::SlowConsumer => "too much waited to be read; connect again and `resume`",
            CloseCode::Replaced => "the same device connected elsewhere, which goes on",
            CloseCode::TooMany => {
                "too many connections or commands; the reason is `{\"reconnectAfterMs\":…}`"
            }
        };
        let then = match code.reconnect() {
            Reconnect::WithBackoff => "connects again, with back-off",
            Reconnect::AsTold => "connects again after the time that the reason names",
            Reconnect::WithNewToken => "gets a new token, then connects again",
            Reconnect::Never => "stays away",
        };
        format!("| {} | {meaning} | {then} |\n", code.code())
    });
    format!("| code | why | what a client does |\n| --- | --- | --- |\n{}", rows.concat())
        .trim_end()
        .to_owned()
}

fn error_code_table() -> String {
    let rows = ErrorCode::ALL.iter().map(|code| {
        let again = if code.is_retryable() { "yes" } else { "" };
        format!("| `{}` | {} | {} | {again} |\n", code.code(), code.status(), code.title())
    });
    let head = "| code | status in REST | meaning | try the same again |\n| --- | --- | --- | --- |\n";
    format!("{head}{}", rows.collect::<String>()).trim_end().to_owned()
}

fn limit_table() -> String {
    let hours = CHANGE_WINDOW_MS / 3_600_000;
    let days = EVENTS_TTL_S / 86_400;
    let (expires_least, expires_most) = limits::EXPIRES_AFTER_S.into_inner();
    let rows = [
        ("a frame, and a body of REST", format!("{} KiB", limits::FRAME_BYTES / 1_024)),
        ("JSON, objects and arrays within each other", limits::JSON_DEPTH.to_string()),
        (
            "a first frame `authenticate`, after connecting",
            format!(
                "{} s and {} KiB",
                limits::AUTHENTICATE_WITHIN_MS / 1_000,
                limits::FIRST_FRAME_BYTES / 1_024
            ),
        ),
        ("`content`", format!("1 to {} bytes of UTF-8", limits::CONTENT_BYTES)),
        ("`clientMessageId`", format!("1 to {} bytes", limits::CLIENT_MESSAGE_ID_BYTES)),
        ("`name`", format!("1 to {} characters, no control characters", limits::NAME_CHARS)),
        ("`avatarUrl`", format!("{} characters, http or https", limits::AVATAR_URL_CHARS)),
        ("`reaction`", format!("one emoji of at most {} bytes", limits::REACTION_BYTES)),
        ("reactions to one message, all accounts", limits::REACTIONS_PER_MESSAGE.to_string()),
        ("`expiresAfter`", format!("{expires_least} to {expires_most} s")),
        ("editing, and deleting for everyone", format!("{hours} h from sending")),
        ("conversations joined by one connection", JOINED_MOST.to_string()),
        ("`cursors` of one `resume`", limits::RESUME_CURSORS.to_string()),
        ("events replayed by one `resume`", RESUME_EVENTS_MOST.to_string()),
        ("how far back a `resume` reaches", format!("{days} days")),
        ("unread count, exact up to", limits::UNREAD_EXACT.to_string()),
        ("silence after which a client is taken for gone", format!("{} s", SILENT_FOR.as_secs())),
    ];
    let rows = rows.map(|(what, limit)| format!("| {what} | {limit} |\n"));
    format!("| what | limit |\n| --- | --- |\n{}", rows.concat()).trim_end().to_owned()
}

/// The names of commands stand in a module of constants, which cannot be gone through.
#[test]
fn every_command_is_described() {
    let source = include_str!("../../protocol/src/command.rs");
    let names = source.split_once("pub mod name {").unwrap().1.split_once("\n}").unwrap().0;
    let names: Vec<&str> = names.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let described: Vec<&str> = commands().iter().map(|command| command.name).collect();
    assert_eq!(described, names);
}
