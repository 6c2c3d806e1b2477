//! How things are put for people. What others wrote is cleaned, so that it cannot drive the terminal.

use reedi_client::RestError;
use reedi_protocol::Timestamp;
use reedi_protocol::resource::SystemNote;
use std::process::Command;
use time::{OffsetDateTime, UtcOffset};

/// An error of REST, with what to do about it.
pub(super) fn explain(error: &RestError) -> String {
    match error {
        RestError::Unreachable { server, .. } => {
            format!(
                "No server answers at {server}. Start one with `make run` in another terminal, or name it with --server."
            )
        }
        RestError::Refused(problem) => {
            let details = problem.errors.iter().map(|e| clean(&e.detail)).collect::<Vec<_>>().join("; ");
            let detail = if details.is_empty() { clean(&problem.detail) } else { details };
            format!("{}: {detail}", clean(&problem.title))
        }
        RestError::NotOurs { .. } => format!("{error}. Is this the address of a Reedi server?"),
        RestError::Request(_) => error.to_string(),
    }
}

/// Text of others, without what a terminal takes for a command or what turns the writing around.
/// Further lines are set in.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => cleaned.push_str("\n      "),
            '\t' => cleaned.push(' '),
            '\r' => {}
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => cleaned.push('\u{fffd}'),
            c if c.is_control() => cleaned.push('\u{fffd}'),
            c => cleaned.push(c),
        }
    }
    cleaned
}

/// The beginning of a text, on one line.
pub(super) fn brief(text: &str, chars: usize) -> String {
    let line = clean(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A `system` message; `who` names those it is about.
pub(super) fn note(note: &SystemNote, by: &str, who: &str) -> String {
    let name = note.name.as_deref().map(clean).unwrap_or_default();
    match note.kind.as_str() {
        "participants_added" => format!("{by} added {who}"),
        "participant_removed" | "participants_removed" => format!("{by} removed {who}"),
        "participant_left" => format!("{by} left"),
        "name_changed" => format!("{by} named the conversation {name}"),
        other => format!("{by}: {}", clean(&other.replace('_', " "))),
    }
}

/// Times as the user's clock shows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    offset: UtcOffset,
}

impl Clock {
    /// Asks the system's `date`, since no safe way to the C library's time zone exists in a program of
    /// several threads. UTC where there is none.
    pub(super) fn local() -> Self {
        let asked = Command::new("date").arg("+%z").output().ok();
        let text = asked.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        Self { offset: parse_offset(text.trim()).unwrap_or(UtcOffset::UTC) }
    }

    /// The time of day; with the date where that is not today's.
    pub(super) fn show(self, timestamp: Timestamp) -> String {
        self.show_as_of(timestamp, OffsetDateTime::now_utc())
    }

    fn show_as_of(self, timestamp: Timestamp, now: OffsetDateTime) -> String {
        let nanos = i128::from(timestamp.as_millis()) * 1_000_000;
        let Ok(at) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else { return String::new() };
        let Some(at) = at.checked_to_offset(self.offset) else { return String::new() };
        let time = format!("{:02}:{:02}", at.hour(), at.minute());
        if at.date() == now.to_offset(self.offset).date() { time } else { format!("{} {time}", at.date()) }
    }
}

/// `+0530` and the like.
fn parse_offset(text: &str) -> Option<UtcOffset> {
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let hours: i8 = text.get(1..3)?.parse().ok()?;
    let minutes: i8 = text.get(3..5)?.parse().ok()?;
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{datetime, offset};

    #[test]
    fn what_others_write_cannot_drive_the_terminal() {
        let hostile = "a\x1b[2J\x07b\u{9b}31m\u{202e}c\r\nd\te\0";
        let cleaned = clean(hostile);
        assert!(!cleaned.chars().any(|c| c.is_control() && c != '\n'), "{cleaned:?}");
        assert!(!cleaned.contains('\u{202e}'));
        assert!(cleaned.ends_with("\n      d e\u{fffd}"));
        assert_eq!(clean("grüße 👨‍👩‍👧‍👦"), "grüße 👨‍👩‍👧‍👦");
        assert_eq!(brief("one\n two three", 9), "one two t…");
    }

    #[test]
    fn times_are_those_of_the_users_clock() {
        let clock = Clock { offset: offset!(+5:30) };
        let now = datetime!(2025-03-01 20:00 UTC);
        let at = |ms: i64| Timestamp::from_millis(u64::try_from(now.unix_timestamp() * 1_000 + ms).unwrap());
        assert_eq!(clock.show_as_of(at(0), now), "01:30");
        assert_eq!(clock.show_as_of(at(-2 * 3_600_000), now), "2025-03-01 23:30");
        assert_eq!(parse_offset("-0330"), Some(offset!(-3:30)));
        assert_eq!(parse_offset("UTC"), None);
        assert_eq!(parse_offset(""), None);
    }
}
