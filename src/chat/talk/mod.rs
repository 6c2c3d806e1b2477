//! The conversation with the user: what is open, what is shown, what is sent.

mod commands;
mod updates;

use super::command::Command;
use super::people::People;
use super::terminal::{Input, Terminal, Tone};
use super::wording::Clock;
use super::{ChatError, command};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use reedi_client::{Client, Ended, SendError, Sent, Update, Updates};
use reedi_protocol::{AccountId, ConversationId, MessageId};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::task::unconstrained;
use tokio::time::{sleep_until, timeout};

/// How long the list waits for what was missed, so that its unread counts are right.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// How long leaving waits for messages that are not acknowledged yet.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);
/// Between two notices that the user is writing.
const TYPING_EVERY: Duration = Duration::from_secs(3);
/// How long somebody counts as writing who says no more.
const TYPING_LASTS: Duration = Duration::from_secs(8);
/// Who is shown as writing at once.
const TYPING_MOST: usize = 3;
/// Titles remembered; more are forgotten all at once, and asked for again.
const TITLES: usize = 10_000;

/// What became of a message, with its text for when that was nothing good.
type Outcome = (String, Result<Sent, SendError>);

pub(super) struct Talk {
    client: Client,
    terminal: Terminal,
    people: People,
    clock: Clock,
    titles: HashMap<ConversationId, Title>,
    open: Option<Open>,
    /// Messages whose acknowledgement is awaited, bounded by the outbox.
    sending: FuturesUnordered<BoxFuture<'static, Outcome>>,
    is_new: bool,
    /// Whether the list was shown and lines are taken.
    begun: bool,
    /// Whether "reconnecting" is the last thing that was said about the connection.
    offline: bool,
}

/// What a conversation is called.
struct Title {
    text: String,
    is_group: bool,
}

/// The conversation that lines go to.
struct Open {
    id: ConversationId,
    /// The newest message that was shown, so that none is shown twice.
    newest: Option<MessageId>,
    said_typing: Option<Instant>,
    typing: HashMap<AccountId, Instant>,
}

/// Whether to go on.
enum Flow {
    On,
    Leave,
}

impl Talk {
    pub(super) fn new(client: Client, terminal: Terminal, is_new: bool) -> Self {
        Self {
            people: People::new(client.account()),
            client,
            terminal,
            clock: Clock::local(),
            titles: HashMap::new(),
            open: None,
            sending: FuturesUnordered::new(),
            is_new,
            begun: false,
            offline: false,
        }
    }

    pub(super) async fn run(mut self, mut updates: Updates) -> Result<(), ChatError> {
        let begin_at = Instant::now() + BEGIN_WITHIN;
        loop {
            let typing_ends = self.open.as_ref().and_then(|open| open.typing.values().min().copied());
            tokio::select! {
                update = updates.recv() => match update {
                    Some(Update::Ended(ended)) => return Err(ChatError::Ended(ended)),
                    Some(update) => self.update(update).await,
                    None => return Err(ChatError::Ended(Ended::Closed)),
                },
                input = self.terminal.next(), if self.begun => {
                    if let Flow::Leave = self.input(input).await {
                        break;
                    }
                }
                Some((text, outcome)) = self.sending.next(), if !self.sending.is_empty() => {
                    self.sent(&text, outcome);
                }
                () = sleep_until(begin_at.into()), if !self.begun => self.begin().await,
                () = sleep_until(typing_ends.unwrap_or(begin_at).into()), if typing_ends.is_some() => {
                    self.forget_typing().await;
                }
            }
        }
        self.leave(updates).await;
        Ok(())
    }

    /// The first thing to see.
    async fn begin(&mut self) {
        self.begun = true;
        if self.is_new {
            self.notice("Welcome! Your account is made, and its password remembered here.");
        }
        self.list().await;
        self.notice("/to NAME opens a conversation, /help lists the rest.");
        self.terminal.set_prompt("> ");
    }

    async fn input(&mut self, input: Input) -> Flow {
        match input {
            Input::End => return Flow::Leave,
            Input::Typing(typing) => self.typing(typing),
            Input::Line(line) => match Command::parse(&line) {
                Command::Nothing => {}
                Command::Say(text) => self.say(text),
                Command::To(who) => self.to(&who).await,
                Command::People(query) => self.find_people(&query).await,
                Command::List => self.list().await,
                Command::Group { name, members } => self.group(&name, &members).await,
                Command::History(count) => self.history(count).await,
                Command::Help => self.notice(command::HELP),
                Command::Wrong(why) => self.warn(&why),
                Command::Quit => return Flow::Leave,
            },
        }
        Flow::On
    }

    fn say(&mut self, text: String) {
        let Some(open) = &mut self.open else {
            self.warn("To whom? /to NAME opens a conversation, /list shows those you have.");
            return;
        };
        open.said_typing = None;
        match self.client.send(open.id, text.as_str()) {
            Ok(ticket) => {
                if self.offline {
                    self.notice("(kept, and sent once connected)");
                }
                self.sending.push(Box::pin(async move { (text, ticket.await) }));
            }
            Err(error) => self.warn(&format!("Not sent: {error}.")),
        }
    }

    /// A message that was accepted shows itself; only what was not has to be told.
    fn sent(&mut self, text: &str, outcome: Result<Sent, SendError>) {
        if let Err(error) = outcome {
            let text = super::wording::brief(text, 40);
            self.warn(&format!("Not sent: {error}. It was: {text}"));
        }
    }

    fn typing(&mut self, typing: bool) {
        let Some(open) = &mut self.open else { return };
        let said_lately = open.said_typing.is_some_and(|at| at.elapsed() < TYPING_EVERY);
        if typing && !said_lately {
            open.said_typing = Some(Instant::now());
            self.client.typing(open.id, true);
        } else if !typing && open.said_typing.take().is_some() {
            self.client.typing(open.id, false);
        }
    }

    /// Lets the last messages go out and the last updates be seen.
    async fn leave(mut self, mut updates: Updates) {
        if self.client.unsent() > 0 {
            self.notice("(waiting until everything is sent)");
            let client = self.client.clone();
            let flushing = async {
                let mut flushed = std::pin::pin!(client.flushed());
                loop {
                    tokio::select! {
                        () = &mut flushed => return,
                        update = updates.recv() => match update {
                            Some(update) => self.update(update).await,
                            None => return,
                        },
                    }
                }
            };
            if timeout(FLUSH_WITHIN, flushing).await.is_err() {
                let unsent = self.client.unsent();
                self.warn(&format!("{unsent} not sent; `reedi chat` sends them when you come back."));
            }
        }
        // What was refused last has its answer by now, and nobody would ask for it any more.
        while let Some((text, outcome)) = unconstrained(self.sending.next()).now_or_never().flatten() {
            self.sent(&text, outcome);
        }
        let closing = tokio::spawn(self.client.clone().close());
        while let Some(update) = updates.recv().await {
            if !matches!(update, Update::Ended(_)) {
                self.update(update).await;
            }
        }
        if let Err(error) = closing.await {
            tracing::debug!(%error, "closing");
        }
    }

    fn notice(&mut self, text: &str) {
        self.terminal.show(Tone::Notice, text);
    }

    fn warn(&mut self, text: &str) {
        self.terminal.show(Tone::Warning, text);
    }
}
