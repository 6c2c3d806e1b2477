//! What a typed line means.

/// What `/help` shows. Each command of [`Command::parse`] stands here.
pub(super) const HELP: &str = "\
/to NAME               talk with a person, or in a group of yours
/people WORD           find people
/list                  your conversations
/group NAME WHO...     begin a group: /group \"book club\" bob carol
/history [N]           the last N messages of this conversation
/help                  this
/quit                  leave
Anything else is sent to the open conversation (// at the beginning stands for one slash).";

/// Messages that `/history` shows unless told, and when a conversation is opened.
pub(super) const HISTORY: usize = 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Nothing,
    Say(String),
    To(String),
    People(String),
    List,
    Group {
        name: String,
        members: Vec<String>,
    },
    History(usize),
    Help,
    Quit,
    /// With what to say about it.
    Wrong(String),
}

impl Command {
    pub(super) fn parse(line: &str) -> Self {
        if line.trim().is_empty() {
            return Self::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Self::Say(line.to_owned()) };
        if command.starts_with('/') {
            return Self::Say(command.to_owned());
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "to" if rest.is_empty() => Self::Wrong("To whom? For example: /to bob".into()),
            "to" => Self::To(rest.trim_matches('"').to_owned()),
            "people" => Self::People(rest.to_owned()),
            "list" => Self::List,
            "group" => Self::group(rest),
            "history" => Self::history(rest),
            "help" | "?" => Self::Help,
            "quit" | "exit" | "q" => Self::Quit,
            other => Self::Wrong(format!("There is no /{other}. /help lists what there is.")),
        }
    }

    fn group(rest: &str) -> Self {
        let mut words = words(rest).into_iter();
        match (words.next(), words.collect::<Vec<_>>()) {
            (Some(name), members) if !members.is_empty() => Self::Group { name, members },
            _ => Self::Wrong("A group has a name and members: /group \"book club\" bob carol".into()),
        }
    }

    fn history(rest: &str) -> Self {
        match rest.parse::<usize>() {
            _ if rest.is_empty() => Self::History(HISTORY),
            Ok(count @ 1..=reedi_protocol::limits::PAGE_MOST) => Self::History(count),
            _ => Self::Wrong(format!(
                "/history takes a number from 1 to {}.",
                reedi_protocol::limits::PAGE_MOST
            )),
        }
    }
}

/// Words, of which one in quotes may have spaces.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let group = |name: &str, members: &[&str]| Command::Group {
            name: name.into(),
            members: members.iter().map(|m| (*m).to_owned()).collect(),
        };
        for (line, expected) in [
            ("  ", Command::Nothing),
            ("  hello ", Command::Say("  hello ".into())),
            ("//etc", Command::Say("/etc".into())),
            ("/to bob", Command::To("bob".into())),
            ("/to \"book club\"", Command::To("book club".into())),
            ("/people", Command::People(String::new())),
            ("/group \"book club\" bob  carol", group("book club", &["bob", "carol"])),
            ("/history", Command::History(HISTORY)),
            ("/history 5", Command::History(5)),
            ("/quit", Command::Quit),
        ] {
            assert_eq!(Command::parse(line), expected, "{line:?}");
        }
        for line in
            ["/to", "/group", "/group alone", "/history 0", "/history 1000", "/history x", "/nonsense", "/"]
        {
            assert!(matches!(Command::parse(line), Command::Wrong(_)), "{line:?}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for name in ["to", "people", "list", "group", "history", "help", "quit"] {
            assert!(HELP.contains(&format!("/{name}")), "{name}");
        }
    }
}
