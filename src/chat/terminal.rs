//! Keyboard and screen. In a terminal, messages appear above the line being written; with a pipe on
//! either side, lines come in and go out plainly, so that a script can drive the chat.

use super::editor::{Editor, width};
use crossterm::event::{
    DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{Clear, ClearType, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, queue};
use reedi_protocol::limits;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use tokio::sync::mpsc;
use unicode_segmentation::UnicodeSegmentation;

/// Keys or lines that wait while a command is being carried out.
const WAITING: usize = 256;
/// Columns where the terminal does not tell.
const COLUMNS: usize = 80;

/// What the user did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Line(String),
    /// A line is being written, or (`false`) given up.
    Typing(bool),
    End,
}

/// How a line is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Message,
    /// About the chat, not of it.
    Notice,
    Warning,
}

enum Raw {
    Line(String),
    Event(Event),
    End,
}

struct Tty {
    editor: Editor,
    prompt: String,
    status: String,
}

pub(super) struct Terminal {
    input: mpsc::Receiver<Raw>,
    /// `None` with a pipe on either side.
    tty: Option<Tty>,
    /// Nobody reads what is shown.
    broken: bool,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        let (events, input) = mpsc::channel(WAITING);
        // A thread of its own, because a read that blocks must not hold the process at its end.
        let reading = std::thread::Builder::new().name("chat-input".into());
        let tty = if interactive {
            enable_raw_mode()?;
            crossterm::execute!(io::stdout(), EnableBracketedPaste)?;
            reading.spawn(move || read_events(&events))?;
            Some(Tty { editor: Editor::default(), prompt: "> ".into(), status: String::new() })
        } else {
            reading.spawn(move || read_lines(&events))?;
            None
        };
        Ok(Self { input, tty, broken: false })
    }

    pub(super) const fn is_interactive(&self) -> bool {
        self.tty.is_some()
    }

    /// What the user does next. May be dropped before it is ready.
    pub(super) async fn next(&mut self) -> Input {
        loop {
            if self.broken {
                return Input::End;
            }
            let input = match self.input.recv().await {
                Some(Raw::Line(line)) => Some(Input::Line(line)),
                Some(Raw::Event(event)) => self.event(event),
                Some(Raw::End) | None => Some(Input::End),
            };
            if let Some(input) = input {
                return input;
            }
        }
    }

    pub(super) fn show(&mut self, tone: Tone, text: &str) {
        let shown = match &self.tty {
            Some(_) => self.show_above(tone, text),
            None => writeln!(io::stdout().lock(), "{text}"),
        };
        self.broken |= shown.is_err();
    }

    /// What stands before the line being written.
    pub(super) fn set_prompt(&mut self, prompt: &str) {
        if let Some(tty) = &mut self.tty {
            prompt.clone_into(&mut tty.prompt);
        }
        self.redraw();
    }

    /// What others do just now; empty: nothing.
    pub(super) fn set_status(&mut self, status: &str) {
        if let Some(tty) = &mut self.tty {
            status.clone_into(&mut tty.status);
        }
        self.redraw();
    }

    fn event(&mut self, event: Event) -> Option<Input> {
        let tty = self.tty.as_mut()?;
        let before = tty.editor.text().to_owned();
        let input = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => tty.key(key),
            Event::Paste(text) => {
                tty.editor.insert(text.replace("\r\n", "\n").replace('\r', "\n").trim_end_matches('\n'));
                None
            }
            _ => None,
        };
        let typing = is_writing(tty.editor.text());
        let changed = before != tty.editor.text() && (typing || is_writing(&before));
        self.redraw();
        input.or_else(|| changed.then_some(Input::Typing(typing)))
    }

    fn show_above(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        queue!(out, Print('\r'), Clear(ClearType::CurrentLine))?;
        match tone {
            Tone::Message => {}
            Tone::Notice => queue!(out, SetAttribute(Attribute::Dim))?,
            Tone::Warning => queue!(out, SetAttribute(Attribute::Bold))?,
        }
        for line in text.lines() {
            queue!(out, Print(line), Print("\r\n"))?;
        }
        queue!(out, SetAttribute(Attribute::Reset))?;
        drop(out);
        self.draw()
    }

    fn redraw(&mut self) {
        self.broken |= self.draw().is_err();
    }

    fn draw(&self) -> io::Result<()> {
        let Some(tty) = &self.tty else { return Ok(()) };
        let columns = crossterm::terminal::size().map_or(COLUMNS, |(columns, _)| usize::from(columns));
        let lead = format!("{}{}", tty.status, tty.prompt);
        let lead_width: usize = lead.graphemes(true).map(width).sum();
        let (text, column) = tty.editor.view(columns.saturating_sub(lead_width).max(8));
        let mut out = io::stdout().lock();
        queue!(out, Print('\r'), Clear(ClearType::CurrentLine), SetAttribute(Attribute::Dim))?;
        queue!(out, Print(&tty.status), SetAttribute(Attribute::Reset), Print(&tty.prompt), Print(text))?;
        let column = u16::try_from(lead_width + column).unwrap_or(u16::MAX);
        queue!(out, cursor::MoveToColumn(column))?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.tty.is_some() {
            // Nothing can be done about a terminal that is gone.
            let _ = crossterm::execute!(
                io::stdout(),
                Print('\r'),
                Clear(ClearType::CurrentLine),
                DisableBracketedPaste
            );
            let _ = disable_raw_mode();
        }
    }
}

impl Tty {
    fn key(&mut self, key: KeyEvent) -> Option<Input> {
        let editor = &mut self.editor;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(Input::End),
            KeyCode::Char('d') if control && editor.text().is_empty() => return Some(Input::End),
            KeyCode::Char('a') if control => editor.home(),
            KeyCode::Char('e') if control => editor.end(),
            KeyCode::Char('u') if control => editor.delete_to_start(),
            KeyCode::Char('w') if control => editor.delete_word(),
            KeyCode::Char('h') if control => editor.backspace(),
            KeyCode::Char(c) if !control => editor.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => editor.backspace(),
            KeyCode::Delete => editor.delete(),
            KeyCode::Left => editor.left(),
            KeyCode::Right => editor.right(),
            KeyCode::Home => editor.home(),
            KeyCode::End => editor.end(),
            KeyCode::Up => editor.up(),
            KeyCode::Down => editor.down(),
            KeyCode::Enter => return Some(Input::Line(editor.take())),
            _ => {}
        }
        None
    }
}

/// Whether a line is going to be a message rather than a command.
fn is_writing(text: &str) -> bool {
    !text.trim().is_empty() && !text.starts_with('/')
}

fn read_events(events: &mpsc::Sender<Raw>) {
    loop {
        let raw = crossterm::event::read().map_or(Raw::End, Raw::Event);
        let over = matches!(raw, Raw::End);
        if events.blocking_send(raw).is_err() || over {
            return;
        }
    }
}

/// Reads lines, of which one that is longer than any message is cut where a message would end.
fn read_lines(lines: &mpsc::Sender<Raw>) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let most = limits::CONTENT_BYTES as u64 + 1;
        let raw = match (&mut stdin).take(most).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => Raw::End,
            Ok(_) => Raw::Line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()),
        };
        let over = matches!(raw, Raw::End);
        if lines.blocking_send(raw).is_err() || over {
            return;
        }
    }
}
