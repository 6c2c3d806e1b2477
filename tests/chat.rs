//! `reedi chat` as people and scripts run it: on terminals and on pipes, with a `reedi dev` of its own.

#[path = "support_process/mod.rs"]
mod support_process;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use support_process::{Folder, Running, Server, Written, until, without_settings};

/// Wide enough that no line of these tests is cut.
const SIZE: Winsize = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };

/// Somebody who chats.
struct Chat {
    name: &'static str,
    running: Running,
    /// `None` once nothing more is to come.
    input: Option<Box<dyn Write>>,
    enter: &'static str,
    written: Written,
}

impl Chat {
    /// On a terminal of its own, as a person has it.
    fn on_terminal(server: &Server, name: &'static str, folder: &Path) -> Self {
        let ours =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a new terminal");
        grantpt(&ours).expect("it is ours");
        unlockpt(&ours).expect("it is ours");
        let path = ptsname(&ours, Vec::<u8>::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(&path, flags, Mode::empty()).expect("the program's side of it");
        tcsetwinsize(&theirs, SIZE).expect("it has a size");
        let side = || Stdio::from(theirs.try_clone().expect("one more of it"));
        let mut command = as_told(server, name, folder);
        command.stdin(side()).stdout(side()).stderr(side());
        let running = Running(command.spawn().expect("the program starts"));
        let written = Written::default();
        let input = File::from(ours);
        written.read(input.try_clone().expect("one more of it"));
        Self { name, running, input: Some(Box::new(input)), enter: "\r", written }
    }

    /// On pipes, as a script has it.
    fn on_pipes(server: &Server, name: &'static str, folder: &Path) -> Self {
        let mut command = as_told(server, name, folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn().expect("the program starts"));
        let written = Written::default();
        written.read(running.0.stdout.take().expect("it is a pipe"));
        written.read(running.0.stderr.take().expect("it is a pipe"));
        let input = running.0.stdin.take().expect("it is a pipe");
        Self { name, running, input: Some(Box::new(input)), enter: "\n", written }
    }

    fn types(&mut self, keys: &str) {
        let input = self.input.as_mut().expect("more may come");
        input.write_all(keys.as_bytes()).and_then(|()| input.flush()).expect("it reads");
    }

    fn enters(&mut self, line: &str) {
        let keys = format!("{line}{}", self.enter);
        self.types(&keys);
    }

    fn screen(&self) -> String {
        drawn(&self.written.text())
    }

    /// Waits until `text` stands on the screen.
    fn sees(&self, text: &str) {
        let what = format!("{} sees {text:?}", self.name);
        until(&what, || self.screen().contains(text), || self.screen());
    }

    /// Who has said what, from the top of the screen to its bottom.
    fn said(&self) -> Vec<String> {
        let speakers = [" you: ", " alice: ", " bob: "];
        let said = |line: &str| {
            let at = speakers.iter().find_map(|speaker| line.find(*speaker))?;
            Some(line[at..].trim().to_owned())
        };
        self.screen().lines().filter_map(said).collect()
    }

    /// Waits until the program has ended, which it does where a script ends.
    fn ends(mut self) -> ExitStatus {
        drop(self.input.take());
        let (what, written) = (format!("the chat of {} ends", self.name), self.written.clone());
        let mut status = None;
        let ended = || {
            status = self.running.0.try_wait().expect("its state can be asked");
            status.is_some()
        };
        until(&what, ended, || drawn(&written.text()));
        status.expect("it has ended")
    }
}

/// The command that the server tells people to paste, with a folder of the test's own.
fn as_told(server: &Server, name: &str, folder: &Path) -> Command {
    let wanted = format!(" chat --as {name}");
    let told = server.told.lines().find(|line| line.contains(&wanted));
    let told = told.unwrap_or_else(|| panic!("{wanted:?} is not in\n{}", server.told));
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec {} --state '{}'", told.trim(), folder.display()));
    without_settings(&mut command);
    command
}

/// What a terminal shows that got `text`. It knows the few orders that the chat gives: any other fails the test, since
/// only the chat, and nobody's message, may drive the terminal.
fn drawn(text: &str) -> String {
    let (mut lines, mut line, mut column) = (String::new(), Vec::<char>::new(), 0_usize);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' => column = 0,
            '\n' => {
                lines.extend(line.drain(..));
                lines.push('\n');
                column = 0;
            }
            '\x1b' => {
                // The rest of an order may still be to come.
                let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) else { break };
                let (order, after) = rest.split_at(end + 1);
                rest = after;
                match order {
                    "[2K" => line.clear(),
                    "[?2004h" | "[?2004l" => {}
                    _ if order.ends_with('m') => {}
                    _ => {
                        let place = order.strip_prefix('[').and_then(|order| order.strip_suffix('G'));
                        let from_1: Option<usize> = place.and_then(|place| place.parse().ok());
                        column = from_1.unwrap_or_else(|| panic!("the chat has no need of {order:?}")) - 1;
                    }
                }
            }
            c => {
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
    }
    lines.extend(line);
    lines
}

#[test]
fn a_terminal_is_drawn_as_it_would_look() {
    let notice = "\x1b[?2004h\r\x1b[2K\x1b[2mWelcome\r\n\x1b[0m";
    let prompts = "\r\x1b[2K\x1b[2m\x1b[0m> hel\x1b[6G\r\x1b[2K> \x1b[3Ghi\r\n";
    assert_eq!(drawn(&format!("{notice}{prompts}")), "Welcome\n> hi\n");
    assert_eq!(drawn("abc\x1b[5Ge\rA"), "Abc e");
    for begun in ["a\x1b", "a\x1b[", "a\x1b[2"] {
        assert_eq!(drawn(begun), "a", "what has not come yet is waited for");
    }
    assert!(std::panic::catch_unwind(|| drawn("\x1b[2J ")).is_err());
}

#[test]
fn two_people_talk_in_terminals_and_a_killed_server_loses_and_doubles_nothing() {
    let folder = Folder::made();
    let (data, state) = (folder.join("data"), folder.join("chat"));
    let server = Server::start(&data, "127.0.0.1:0");
    let address = server.address.to_string();
    let mut alice = Chat::on_terminal(&server, "alice", &state);
    let mut bob = Chat::on_terminal(&server, "bob", &state);
    for chat in [&alice, &bob] {
        chat.sees("Your account is made");
        chat.sees("/help lists the rest");
    }

    alice.enters("/people bob");
    alice.sees("  bob  (bob)");
    for (chat, to) in [(&mut alice, "/to bob"), (&mut bob, "/to alice")] {
        chat.enters(to);
        chat.sees("Write the first one");
    }
    alice.types("hello bob");
    bob.sees("(alice typing) alice> ");
    alice.enters("");
    bob.sees(" alice: hello bob");
    alice.sees("✓✓ read by bob");
    bob.enters("hello alice");
    alice.sees(" bob: hello alice");
    bob.sees("✓✓ read by alice");

    // As `kill -9`: it has no time to say goodbye.
    drop(server);
    for chat in [&alice, &bob] {
        chat.sees("reconnecting...");
    }
    alice.enters("are you there?");
    alice.sees("(kept, and sent once connected)");
    let _server = Server::start(&data, &address);
    for chat in [&alice, &bob] {
        chat.sees("\nconnected");
    }
    bob.sees(" alice: are you there?");
    alice.sees(" you: are you there? ✓");
    bob.enters("here again");
    alice.sees(" bob: here again");
    bob.sees(" you: here again ✓");

    let of_alice = ["you: hello bob ✓", "bob: hello alice", "you: are you there? ✓", "bob: here again"];
    let of_bob = ["alice: hello bob", "you: hello alice ✓", "alice: are you there?", "you: here again ✓"];
    assert_eq!(alice.said(), of_alice, "{}", alice.screen());
    assert_eq!(bob.said(), of_bob, "{}", bob.screen());
    assert!(!bob.screen().contains("typing)"), "{}", bob.screen());
    for mut chat in [alice, bob] {
        chat.enters("/quit");
        assert!(chat.ends().success());
    }
}

#[test]
fn a_script_drives_the_chat_through_pipes_and_comes_back_as_the_same_person() {
    let folder = Folder::made();
    let state = folder.join("chat");
    let server = Server::start(&folder.join("data"), "127.0.0.1:0");
    let alice = Chat::on_pipes(&server, "alice", &state);
    alice.sees("Your account is made");
    alice.sees("/help lists the rest");
    let mut bob = Chat::on_pipes(&server, "bob", &state);
    bob.enters("/to alice");
    bob.enters("from a script");
    // It leaves only when this is sent.
    assert!(bob.ends().success());
    alice.sees(" bob: from a script");
    assert!(alice.screen().lines().any(|line| line.starts_with("[bob] ")), "{}", alice.screen());
    let plain = alice.written.text();
    assert!(!plain.contains(['\x1b', '\r']), "{plain:?}");
    assert!(alice.ends().success());

    let alice = Chat::on_pipes(&server, "alice", &state);
    alice.sees("[1 unread]");
    assert!(!alice.screen().contains("Your account is made"), "{}", alice.screen());
    assert!(alice.ends().success());
}
