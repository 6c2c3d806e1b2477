//! A refusal, made once and shown as a problem document, a socket's answer, a metric or a log line.

use crate::log::{AppendError, ReadError};
use crate::store::StoreError;
use reedi_protocol::frame::Refusal;
use reedi_protocol::resource::{FieldError, Problem};
use reedi_protocol::{ErrorCode, Timestamp};

/// Seconds after which a client may try again where an outside part is away and nobody knows better.
const RETRY_PART_S: u64 = 1;

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: ErrorCode,
    /// What to do about it, for the developer of a client; never another's data.
    pub detail: String,
    pub fields: Vec<FieldError>,
    /// Seconds.
    pub retry_after: Option<u64>,
    pub server_time: Option<Timestamp>,
}

/// What an edge answers.
pub type Outcome<T> = Result<T, Refused>;

impl Refused {
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let retry_after = code.is_retryable().then_some(RETRY_PART_S);
        Self { code, detail: detail.into(), fields: Vec::new(), retry_after, server_time: None }
    }

    /// A value that cannot be accepted, at `pointer` (RFC 6901, or `?name` of a query parameter).
    #[must_use]
    pub fn invalid(pointer: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidValue, detail.to_string()).at(pointer)
    }

    /// The same refusal, of what stands at `pointer`.
    #[must_use]
    pub fn at(mut self, pointer: &str) -> Self {
        self.fields.push(FieldError { pointer: pointer.to_owned(), detail: self.detail.clone() });
        self
    }

    /// Nothing that this account may see; the same for what does not exist.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "There is nothing here that this account can see.")
    }

    #[must_use]
    pub fn recipient_unavailable() -> Self {
        Self::new(ErrorCode::RecipientUnavailable, "This account cannot be messaged.")
    }

    #[must_use]
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Self::new(ErrorCode::RateLimited, "Slow down and try again later.")
            .again_after(retry_after_ms.div_ceil(1_000).max(1))
    }

    /// To be tried again after so many seconds.
    #[must_use]
    pub fn again_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// As an answer on a socket tells it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal {
            code: self.code,
            message: self.detail.clone(),
            retry_after: self.retry_after,
            server_time: self.server_time,
            pointer: self.fields.first().map(|f| f.pointer.clone()),
        }
    }

    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem {
            kind: format!("urn:reedi:error:{}", self.code.code()),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail.clone(),
            code: self.code.code().to_owned(),
            errors: self.fields.clone(),
            retry_after: self.retry_after,
            server_time: self.server_time,
        }
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotFound => Self::not_found(),
            code => Self::new(code, format!("{}.", code.title())),
        }
    }
}

impl From<super::authenticate::TokenError> for Refused {
    fn from(error: super::authenticate::TokenError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<crate::people::PeopleError> for Refused {
    fn from(error: crate::people::PeopleError) -> Self {
        tracing::debug!(%error, "people could not be looked up");
        Self::new(ErrorCode::Unavailable, "People cannot be looked up now. Try again.")
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::debug!(reason, "the store could not answer a client");
                Self::new(ErrorCode::StoreUnavailable, "Stored data cannot be read now. Try again.")
            }
            StoreError::GaveUp(reason) => {
                tracing::warn!(reason, "the store gives up on the rows of a client's request");
                Self::new(ErrorCode::StoreUnavailable, "These data cannot be read now. Try again.")
            }
            StoreError::Corrupt(reason) => {
                tracing::error!(reason, "the store holds what this binary cannot read");
                Self::new(ErrorCode::Internal, "Stored data could not be read.")
            }
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        tracing::debug!(%error, "the log did not take what a client sent");
        match error {
            AppendError::Unavailable(_) | AppendError::Full | AppendError::Fenced(_) => Self::new(
                ErrorCode::LogUnavailable,
                "Messages cannot be accepted now. Nothing was sent; try again.",
            ),
            AppendError::OutcomeUnknown(_) | AppendError::InFlight => Self::outcome_unknown(),
            AppendError::ControlMoved(_) => Self::new(
                ErrorCode::Conflict,
                "Others changed this conversation at the same time. Try again.",
            ),
        }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        tracing::debug!(%error, "the log cannot say what became of what a client sent");
        Self::outcome_unknown()
    }
}

impl Refused {
    #[must_use]
    pub fn outcome_unknown() -> Self {
        let detail = "It may or may not have been sent. Send the same again, with the same clientMessageId.";
        Self::new(ErrorCode::OutcomeUnknown, detail)
    }
}
