//! Each way in which a call of the client can fail, declared once.

use crate::outbox::OutboxFull;
use crate::update::Ended;
use reedi_protocol::resource::Problem;
use reedi_protocol::text::TextError;
use reedi_protocol::{ErrorCode, frame::Refusal};
use std::time::Duration;

/// Why a REST call failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The server said no, and why.
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Box<Problem>),
    /// No answer came: the server is away, or did not answer within the time limit.
    #[error("no answer from {server}: {source}")]
    Unreachable { server: String, source: reqwest::Error },
    /// Something answered that is not this service, or not this version of it.
    #[error("the answer (HTTP {status}) is not of this service: {why}")]
    NotOurs { status: u16, why: String },
    /// The request could not be built, which is a mistake of the caller.
    #[error("the request cannot be sent: {0}")]
    Request(String),
}

impl RestError {
    /// The stable code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) => Some(parse_code(&problem.code)),
            _ => None,
        }
    }

    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            // What a newer server means goes by its status.
            Self::Refused(problem) if self.code() == Some(ErrorCode::Unknown) => {
                ErrorCode::is_retryable_status(problem.status)
            }
            Self::Refused(_) => self.code().is_some_and(ErrorCode::is_retryable),
            Self::Unreachable { .. } => true,
            // A proxy in front of servers that restart answers with pages of its own.
            Self::NotOurs { status, .. } => matches!(status, 502..=504),
            Self::Request(_) => false,
        }
    }

    /// How long the server asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.problem()?.retry_after.map(Duration::from_secs)
    }
}

/// A code as it stands in a problem document; one of a newer server is `Unknown`.
pub(crate) fn parse_code(text: &str) -> ErrorCode {
    ErrorCode::ALL.iter().copied().find(|c| c.code() == text).unwrap_or(ErrorCode::Unknown)
}

/// Why a message was not accepted into the outbox, or will never be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Invalid(#[from] TextError),
    /// Content within its limit can outgrow the frame once it is escaped as JSON.
    #[error("the message takes {bytes} bytes on the wire, {most} at most are possible")]
    TooLarge { bytes: usize, most: usize },
    #[error(transparent)]
    OutboxFull(#[from] OutboxFull),
    #[error("the message cannot be kept on disk: {0}")]
    Journal(#[from] crate::journal::JournalError),
    /// The server will not take it, however often it is asked.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// It may have been accepted, and it is too old to ask again. History tells.
    #[error("it is not known whether the message was accepted, and it is too late to ask")]
    OutcomeUnknown,
    /// The client ended first. With a state folder, the next one sends the message.
    #[error("the client has ended: {0}")]
    Ended(Ended),
}

/// Why a command got no `ok`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommandError {
    #[error("not connected now")]
    NotConnected,
    #[error("too many commands wait for an answer")]
    Busy,
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The connection went before the answer came.
    #[error("the connection was lost before the answer came")]
    Lost,
    #[error("the command cannot be encoded: {0}")]
    Encoding(String),
    #[error("the command takes {bytes} bytes on the wire, {most} at most are possible")]
    TooLarge { bytes: usize, most: usize },
    #[error("the client has ended")]
    Ended,
}
