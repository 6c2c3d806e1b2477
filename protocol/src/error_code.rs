//! Every refusal a client can meet, declared once: its stable code, HTTP status and title.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// The stable `code` of a problem document (RFC 9457) and of a socket's refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
            /// A code of a newer server.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            pub const ALL: &'static [ErrorCode] = &[$(Self::$variant),*];

            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* Self::Unknown => "unknown" }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* Self::Unknown => 500 }
            }

            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* Self::Unknown => "Unknown error" }
            }
        }
    };
}

error_codes! {
    /// The body or frame is no JSON, or not of the shape that the call wants.
    Malformed = "malformed", 400, "Malformed request";
    /// Not UTF-8 where text is wanted, or a lone surrogate.
    NotUnicode = "not_unicode", 400, "Not well-formed Unicode";
    /// A binary frame, or an event that the server does not know.
    UnknownEvent = "unknown_event", 400, "Unknown event";
    Unauthenticated = "unauthenticated", 401, "Authentication needed";
    InvalidToken = "invalid_token", 401, "The token is not valid";
    TokenExpired = "token_expired", 401, "The token has expired";
    WrongCredentials = "wrong_credentials", 401, "Wrong user name or password";
    Forbidden = "forbidden", 403, "Not allowed";
    /// Blocked, or a recipient who accepts nobody; the same for both, so that neither is told.
    RecipientUnavailable = "recipient_unavailable", 403, "The recipient cannot be messaged";
    EditWindowOver = "edit_window_over", 403, "The time to change this message is over";
    NotFound = "not_found", 404, "Not found";
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    /// The same idempotency key came with another request.
    IdempotencyKeyReused = "idempotency_key_reused", 409, "The idempotency key belongs to another request";
    LastAdmin = "last_admin", 409, "The last admin cannot step down";
    NotAGroup = "not_a_group", 409, "Only groups can do this";
    /// Too many others changed the same conversation at the same time.
    Conflict = "conflict", 409, "Changed by others at the same time";
    UsernameTaken = "username_taken", 409, "This user name is taken";
    Gone = "gone", 410, "Deleted";
    TooLarge = "too_large", 413, "Too large";
    UnsupportedMediaType = "unsupported_media_type", 415, "Unsupported media type";
    InvalidValue = "invalid_value", 422, "A value is not acceptable";
    /// The time within `clientMessageId` is too far from the server's.
    ClientMessageIdTime = "client_message_id_time", 422, "The time of the clientMessageId is out of range";
    GroupFull = "group_full", 422, "The group is full";
    RateLimited = "rate_limited", 429, "Too many requests";
    Internal = "internal", 500, "Internal error";
    /// The log did not take it, surely.
    LogUnavailable = "log_unavailable", 503, "Messages cannot be accepted now";
    /// The log may or may not have it: send the same again.
    OutcomeUnknown = "outcome_unknown", 503, "The outcome is unknown, send the same again";
    /// History has not caught up yet, or the store is away.
    StoreUnavailable = "store_unavailable", 503, "Stored data cannot be read now";
    /// This server is leaving, or has not found its parts yet.
    Unavailable = "unavailable", 503, "Not ready";
}

impl ErrorCode {
    /// Whether the same request may succeed later without being changed. Of a code that is not known nothing says
    /// so.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        !matches!(self, Self::Unknown) && Self::is_retryable_status(self.status())
            || matches!(self, Self::Conflict)
    }

    /// The same, as far as the status alone tells it.
    #[must_use]
    pub const fn is_retryable_status(status: u16) -> bool {
        matches!(status, 408 | 429 | 500 | 503)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_come_back() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.code()), "{code} twice");
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), *code);
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"new\"").unwrap(), ErrorCode::Unknown);
    }
}
