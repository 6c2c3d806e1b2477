//! What a client is told before its session ends: Socket.IO has no close codes, so an `error` event
//! says which it is, and whether the connection or the namespace ends says whether the client's own
//! reconnection goes on.

use crate::edge::session::Close;
use reedi_protocol::CloseCode;
use reedi_protocol::close_code::Reconnect;
use serde::{Deserialize, Serialize};

/// The payload of the `error` event before an end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Goodbye {
    code: &'static str,
    message: String,
    close_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect_after_ms: Option<u64>,
}

/// How a reason names the time to come back after.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AsTold {
    reconnect_after_ms: u64,
}

impl Goodbye {
    #[must_use]
    pub fn new(close: &Close) -> Self {
        let (code, message) = said(close.code);
        let told: Option<AsTold> = serde_json::from_str(&close.reason).ok();
        let message = match &told {
            None if !close.reason.is_empty() => close.reason.clone(),
            _ => message.to_owned(),
        };
        let reconnect_after_ms = told.map(|told| told.reconnect_after_ms);
        Self { code, message, close_code: close.code.code(), reconnect_after_ms }
    }
}

/// Whether the client comes back by itself.
#[must_use]
pub fn comes_back(code: CloseCode) -> bool {
    matches!(code.reconnect(), Reconnect::WithBackoff | Reconnect::AsTold)
}

/// A close code in words: a stable one for programs, and one for people where there is no reason.
fn said(code: CloseCode) -> (&'static str, &'static str) {
    match code {
        CloseCode::Normal => ("closed", "The session has ended."),
        CloseCode::GoingAway => ("going_away", "The connection ends. Connect again."),
        CloseCode::TooLarge => ("too_large", "What was sent is too large."),
        CloseCode::Restarting => ("restarting", "This server leaves. Connect again and resume."),
        CloseCode::ProtocolViolation => ("malformed", "This is not the protocol."),
        CloseCode::Unauthenticated => ("token_expired", "The token has expired. Get a new one and connect."),
        CloseCode::DeviceRevoked => ("device_revoked", "This device was revoked. Sign in again."),
        CloseCode::SlowConsumer => ("slow_consumer", "Too much waited for this client. Connect and resume."),
        CloseCode::Replaced => ("replaced", "The same device connected again."),
        CloseCode::TooMany => ("rate_limited", "Too many commands at once. Slow down and connect again."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goodbye_says_code_reason_and_when_to_come_back() {
        let close = |code, reason: &str| Close { code, reason: reason.to_owned() };
        let json = |close| serde_json::to_value(Goodbye::new(&close)).unwrap();
        assert_eq!(
            json(close(CloseCode::Restarting, r#"{"reconnectAfterMs":70}"#)),
            serde_json::json!({
                "code": "restarting",
                "message": "This server leaves. Connect again and resume.",
                "closeCode": 1012,
                "reconnectAfterMs": 70
            })
        );
        assert_eq!(
            json(close(CloseCode::Unauthenticated, "the token has expired")),
            serde_json::json!({ "code": "token_expired", "message": "the token has expired", "closeCode": 4401 })
        );
    }

    #[test]
    fn codes_in_words_are_distinct() {
        let codes: std::collections::HashSet<_> = CloseCode::ALL.map(|code| said(code).0).into();
        assert_eq!(codes.len(), CloseCode::ALL.len());
    }
}
