//! The life of one connection: resume, send what waits, take what comes, notice silence.

use crate::acks::{Acks, Waiting};
use crate::backoff::wait_after;
use crate::credentials::{Credentials, Token};
use crate::error::{CommandError, RestError};
use crate::frame;
use crate::marks::Mark;
use crate::rest::Rest;
use crate::session::{Core, Request, renew_in};
use crate::socket::{Closed, Socket, authenticate_frame};
use crate::timeline::{Filled, Told};
use crate::update::{Link, Update};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use reedi_protocol::command::name;
use reedi_protocol::event::{Lack, ServerEvent};
use reedi_protocol::frame::{Answer, ServerFrame};
use reedi_protocol::{CloseCode, ConversationId, ErrorCode, Position, limits};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};

/// Gaps filled at once.
const FETCHES: usize = 4;
/// Waits between answers that leave a gap open: the store is behind by less than this.
const FETCH_FIRST: Duration = Duration::from_millis(200);
const FETCH_MOST: Duration = Duration::from_secs(10);
/// Between a receipt that was refused for now and the next try.
const MARKS_AGAIN: Duration = Duration::from_secs(2);
/// Between a resume that the server could not carry out yet and the next: its store is behind or away.
const RESUME_FIRST: Duration = Duration::from_millis(500);
const RESUME_MOST: Duration = Duration::from_secs(10);

/// How a connection ended.
pub(crate) enum Cease {
    Closed(Closed),
    /// The application wants no more.
    Finished,
}

/// What a task in the background came to.
enum Done {
    Filled(ConversationId, Filled),
    Renewed(Result<Token, RestError>),
}

pub(crate) struct Connection<'a> {
    core: &'a mut Core,
    socket: Socket,
    acks: Acks,
    background: FuturesUnordered<BoxFuture<'static, Done>>,
    wanted: VecDeque<(ConversationId, Position, u8)>,
    fetching: usize,
    /// Since when frames are read: not while the application is slow to take updates.
    reading_since: Instant,
    pinged_at: Option<Instant>,
    renew_at: Option<Instant>,
    marks_at: Option<Instant>,
    /// When to ask for what was missed again, and how often that was in vain.
    resume_at: Option<Instant>,
    resumes_in_vain: u32,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(core: &'a mut Core, socket: Socket) -> Self {
        let now = Instant::now();
        let renew_at = match core.credentials {
            Credentials::Password { .. } => core.shared.rest.token().and_then(|token| renewal(&token, now)),
            Credentials::Token(_) => None,
        };
        Self {
            core,
            socket,
            acks: Acks::default(),
            background: FuturesUnordered::new(),
            wanted: VecDeque::new(),
            fetching: 0,
            reading_since: now,
            pinged_at: None,
            renew_at,
            marks_at: None,
            resume_at: None,
            resumes_in_vain: 0,
        }
    }

    pub(crate) async fn run(mut self) -> Cease {
        let cease = match self.serve().await {
            Ok(()) => Cease::Finished,
            Err(closed) => Cease::Closed(closed),
        };
        let too_large =
            matches!(&cease, Cease::Closed(closed) if closed.close_code() == Some(CloseCode::TooLarge));
        {
            let mut queues = self.core.shared.queues.lock();
            if let Some(update) = too_large.then(|| queues.too_large()).flatten() {
                self.core.outlet.tell(update);
            }
            queues.disconnected();
        }
        self.acks.lost();
        if matches!(cease, Cease::Finished) {
            self.socket.close().await;
        }
        cease
    }

    async fn serve(&mut self) -> Result<(), Closed> {
        self.core.outlet.tell(Update::Link(Link::Connected));
        // Of a server that lacks nothing a new connection is told nothing.
        self.lacks(Vec::new());
        self.begin().await?;
        loop {
            self.send_due().await?;
            self.start_fetches();
            let deadline = self.deadline();
            tokio::select! {
                frame = self.socket.next(), if self.core.outlet.is_empty() => self.frame(&frame?).await?,
                () = self.core.outlet.pass_on(), if !self.core.outlet.is_empty() => {
                    self.reading_since = Instant::now();
                }
                request = self.core.requests.recv() => match request {
                    None | Some(Request::Close) => return Ok(()),
                    Some(request) => self.request(request).await?,
                },
                () = self.core.shared.wake.notified() => {}
                Some(done) = self.background.next(), if !self.background.is_empty() => {
                    self.done(done).await?;
                }
                () = sleep_until(deadline.into()) => self.tick().await?,
            }
        }
    }

    /// Says how far this client has got, and which conversations are open.
    async fn begin(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        let resume = self.core.timelines.resume();
        let ack = self.acks.expect(now, Waiting::Resume);
        let mut frames = vec![frame::infallible(name::RESUME, &resume, Some(ack)).into()];
        let joined = self.core.shared.queues.lock().joined.clone();
        for conversation in joined {
            let ack = self.acks.expect(now, Waiting::Join);
            frames.push(frame::in_conversation(name::JOIN_CONVERSATION, conversation, Some(ack)).into());
        }
        self.socket.send_all(frames).await
    }

    async fn send_due(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        let mut frames = Vec::new();
        {
            let mut queues = self.core.shared.queues.lock();
            while let Some((conversation, entry)) = queues.take_due(now) {
                let ack = self.acks.expect(now, Waiting::Message(entry.key));
                frames.push(frame::send_message(conversation, &entry.message, ack).into());
            }
            while self.marks_at.is_none() && !self.acks.is_full() {
                let Some((mark, message)) = queues.marks.take_due() else { break };
                let ack = self.acks.expect(now, Waiting::Mark(mark, message));
                let command = match mark {
                    Mark::Delivered => name::MARK_DELIVERED,
                    Mark::Read => name::MARK_READ,
                };
                frames.push(frame::of_message(command, message, Some(ack)).into());
            }
        }
        if frames.is_empty() { Ok(()) } else { self.socket.send_all(frames).await }
    }

    async fn request(&mut self, request: Request) -> Result<(), Closed> {
        match request {
            Request::Notice(frame) => self.socket.send(frame.into()).await,
            Request::NewToken => self.authenticate().await,
            Request::Close => Ok(()),
            Request::Command { event, data, reply } => {
                if self.acks.is_full() {
                    let _ = reply.send(Err(CommandError::Busy));
                    return Ok(());
                }
                let bytes = frame::infallible(event, &data, Some(u64::MAX)).len();
                if bytes > limits::FRAME_BYTES {
                    // Sent, it would end the connection, and whatever else is on its way would be suspected.
                    let _ = reply.send(Err(CommandError::TooLarge { bytes, most: limits::FRAME_BYTES }));
                    return Ok(());
                }
                let ack = self.acks.expect(Instant::now(), Waiting::Reply(reply));
                self.socket.send(frame::infallible(event, &data, Some(ack)).into()).await
            }
        }
    }

    async fn authenticate(&mut self) -> Result<(), Closed> {
        let Some(token) = self.core.shared.rest.token() else { return Ok(()) };
        let ack = self.acks.expect(Instant::now(), Waiting::Authenticate);
        self.socket.send(authenticate_frame(&token, Some(ack)).into()).await
    }

    async fn frame(&mut self, text: &str) -> Result<(), Closed> {
        match ServerFrame::decode(text) {
            Ok(ServerFrame::Answer { ack, answer }) => self.answer(ack, answer).await,
            Ok(ServerFrame::Event(event)) => {
                self.event(event);
                Ok(())
            }
            Err(error) => {
                // Without the error's text, which may quote content.
                tracing::debug!(category = ?error.classify(), "skipped a frame of a newer server");
                Ok(())
            }
        }
    }

    fn event(&mut self, event: ServerEvent) {
        let progress = matches!(event, ServerEvent::ResumeComplete { .. } | ServerEvent::Checkpoint { .. });
        let caught_up = matches!(event, ServerEvent::ResumeComplete { .. });
        if let ServerEvent::ResumePending { reason, .. } = event {
            // What comes live meanwhile is kept back, for nothing says that it is all.
            let wait = wait_after(RESUME_FIRST, RESUME_MOST, self.resumes_in_vain);
            self.resume_at = Some(Instant::now() + wait);
            self.resumes_in_vain = self.resumes_in_vain.saturating_add(1);
            return self.core.outlet.tell(Update::Link(Link::Behind { reason }));
        }
        if let ServerEvent::Degraded { lacks, .. } = event {
            return self.lacks(lacks);
        }
        let mut told = Vec::new();
        self.core.timelines.receive(event, &mut told);
        self.tell(told);
        if caught_up {
            self.core.backoff.succeeded();
            (self.resume_at, self.resumes_in_vain) = (None, 0);
            self.core.outlet.tell(Update::Link(Link::CaughtUp));
        }
        if progress {
            let timelines = &self.core.timelines;
            self.core.outlet.save(|| timelines.saved());
        }
    }

    fn lacks(&mut self, lacks: Vec<Lack>) {
        if self.core.lacking || !lacks.is_empty() {
            self.core.lacking = !lacks.is_empty();
            self.core.outlet.tell(Update::Lacks(lacks));
        }
    }

    fn tell(&mut self, told: Vec<Told>) {
        for one in told {
            match one {
                Told::Event(event) => self.core.outlet.tell(Update::Event(event)),
                Told::Reset(conversation) => self.core.outlet.tell(Update::Reset(conversation)),
                Told::Fetch { conversation, after, tries } => {
                    self.wanted.push_back((conversation, after, tries));
                }
            }
        }
    }

    async fn answer(&mut self, ack: u64, answer: Answer) -> Result<(), Closed> {
        let code = answer.error.as_ref().map(|e| e.code);
        let retryable = code.is_some_and(ErrorCode::is_retryable);
        let Some(waiting) = self.acks.take(ack) else { return Ok(()) };
        match waiting {
            Waiting::Message(key) => {
                unauthenticated(code)?;
                let mut queues = self.core.shared.queues.lock();
                let update = queues.answered(key, answer, Instant::now());
                if let Some(update) = update.map_err(Closed::broken)? {
                    self.core.outlet.tell(update);
                }
            }
            Waiting::Mark(mark, message) => {
                unauthenticated(code)?;
                if retryable {
                    self.marks_at = Some(Instant::now() + MARKS_AGAIN);
                } else {
                    self.core.shared.queues.lock().marks.finish(mark, message);
                }
            }
            Waiting::Reply(reply) => {
                let outcome = match answer.error {
                    Some(refusal) if !answer.ok => Err(CommandError::Refused(refusal)),
                    _ => Ok(answer),
                };
                // An application that waits no more need not be told.
                let _ = reply.send(outcome);
            }
            Waiting::Authenticate if !answer.ok => unauthenticated(Some(ErrorCode::InvalidToken))?,
            Waiting::Resume if !answer.ok => return self.resume_refused(retryable).await,
            Waiting::Authenticate | Waiting::Resume | Waiting::Join => {}
        }
        Ok(())
    }

    /// A checkpoint of another installation, for example: go on from now, and say that all may be missing.
    async fn resume_refused(&mut self, retryable: bool) -> Result<(), Closed> {
        let saved = self.core.timelines.saved();
        if retryable || saved.checkpoint.is_none() {
            return Err(Closed::broken("the server refused to resume"));
        }
        tracing::warn!("the server does not know this client's checkpoint");
        self.core.timelines.start_over();
        self.core.outlet.tell(Update::ResetAll);
        self.resume().await
    }

    async fn resume(&mut self) -> Result<(), Closed> {
        let ack = self.acks.expect(Instant::now(), Waiting::Resume);
        let resume = self.core.timelines.resume();
        self.socket.send(frame::infallible(name::RESUME, &resume, Some(ack)).into()).await
    }

    fn start_fetches(&mut self) {
        while self.fetching < FETCHES {
            let Some((conversation, after, tries)) = self.wanted.pop_front() else { return };
            self.fetching += 1;
            let rest = self.core.shared.rest.clone();
            self.background.push(Box::pin(async move {
                Done::Filled(conversation, fetch(rest, conversation, after, tries).await)
            }));
        }
    }

    async fn done(&mut self, done: Done) -> Result<(), Closed> {
        match done {
            Done::Filled(conversation, filled) => {
                self.fetching -= 1;
                let mut told = Vec::new();
                self.core.timelines.filled(conversation, filled, &mut told);
                self.tell(told);
                Ok(())
            }
            Done::Renewed(Ok(token)) => {
                let least = self.core.options.renew_again;
                self.renew_at = renewal(&token, Instant::now()).map(|at| at.max(Instant::now() + least));
                self.core.outlet.tell(Update::TokenRenewed(token));
                self.authenticate().await
            }
            Done::Renewed(Err(error)) => {
                tracing::warn!(%error, "the token could not be renewed yet");
                self.renew_at = Some(Instant::now() + self.core.options.renew_again);
                Ok(())
            }
        }
    }

    /// When something has to be looked at, though nothing comes.
    fn deadline(&self) -> Instant {
        let options = &self.core.options;
        let heard_at = self.socket.heard_at().max(self.reading_since);
        let silent = self.pinged_at.map_or(heard_at + options.ping_after, |at| at + options.silent_most);
        let unanswered = self.acks.oldest().map(|at| at.max(self.reading_since) + options.answer_within);
        let resting = self.core.shared.queues.lock().next_due();
        let due = [unanswered, resting, self.renew_at, self.marks_at, self.resume_at];
        due.into_iter().flatten().fold(silent, Instant::min)
    }

    async fn tick(&mut self) -> Result<(), Closed> {
        let (now, options) = (Instant::now(), self.core.options);
        if self.marks_at.is_some_and(|at| at <= now) {
            self.marks_at = None;
            self.core.shared.queues.lock().marks.again();
        }
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            self.resume().await?;
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew_at = None;
            self.renew();
        }
        if !self.core.outlet.is_empty() {
            // Nothing is read now, so that silence says nothing about the server.
            self.reading_since = now;
            self.pinged_at = None;
            return Ok(());
        }
        let oldest = self.acks.oldest().map(|at| at.max(self.reading_since));
        if oldest.is_some_and(|at| now >= at + options.answer_within) {
            return Err(Closed::broken("a command got no answer in time"));
        }
        let heard_at = self.socket.heard_at().max(self.reading_since);
        match self.pinged_at {
            Some(at) if heard_at > at => self.pinged_at = None,
            Some(at) if now >= at + options.silent_most => {
                return Err(Closed::broken("the server is silent"));
            }
            None if now >= heard_at + options.ping_after => {
                self.pinged_at = Some(now);
                self.socket.ping().await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn renew(&mut self) {
        let Credentials::Password { username, password } = self.core.credentials.clone() else { return };
        let rest = self.core.shared.rest.clone();
        self.background.push(Box::pin(async move {
            let session = rest.log_in(&username, &password).await;
            Done::Renewed(session.map(|s| Token::new(&s.token)))
        }));
    }
}

/// When to renew a token that was given out just now. One that is over already says that this machine's clock is
/// wrong, and to ask for another at once would go on for ever: the server tells when it is over.
fn renewal(token: &Token, now: Instant) -> Option<Instant> {
    renew_in(token).filter(|wait| !wait.is_zero()).map(|wait| now + wait)
}

/// An answer that a new token would change is an end like 4401.
fn unauthenticated(code: Option<ErrorCode>) -> Result<(), Closed> {
    use ErrorCode::{InvalidToken, TokenExpired, Unauthenticated};
    match code {
        Some(code @ (Unauthenticated | InvalidToken | TokenExpired)) => {
            Err(Closed { code: Some(CloseCode::Unauthenticated.code()), reason: code.code().into() })
        }
        _ => Ok(()),
    }
}

/// Asks until there is an answer: only answers count as tries, and the connection's end ends this too.
async fn fetch(rest: Rest, conversation: ConversationId, after: Position, tries: u8) -> Filled {
    if tries > 0 {
        sleep(wait_after(FETCH_FIRST, FETCH_MOST, tries.into())).await;
    }
    let mut failures = 0;
    loop {
        match rest.events(conversation, after, limits::PAGE_MOST).await {
            Ok(page) => return Filled::Page(page),
            Err(e) if e.is_retryable() || e.code().is_some_and(|c| c.status() == 401) => {
                let asked = e.retry_after().unwrap_or_default().min(FETCH_MOST);
                sleep(wait_after(FETCH_FIRST, FETCH_MOST, failures).max(asked)).await;
                failures += 1;
            }
            Err(error) => {
                tracing::debug!(%error, "a gap cannot be filled");
                return Filled::Refused;
            }
        }
    }
}
