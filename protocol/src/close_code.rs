//! Why a socket was closed, and what the client does next: one table for server, client and docs.

/// A WebSocket close code of the contract (RFC 6455, section 7.4; 4000..=4999 are ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    Normal,
    GoingAway,
    TooLarge,
    Restarting,
    ProtocolViolation,
    Unauthenticated,
    DeviceRevoked,
    SlowConsumer,
    Replaced,
    TooMany,
}

/// What a client does after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// With back-off of its own, and `resume`.
    WithBackoff,
    /// After the time that the reason names, and `resume`.
    AsTold,
    /// Only after the account has a new token.
    WithNewToken,
    /// Not by itself.
    Never,
}

impl CloseCode {
    pub const ALL: [CloseCode; 10] = [
        Self::Normal,
        Self::GoingAway,
        Self::TooLarge,
        Self::Restarting,
        Self::ProtocolViolation,
        Self::Unauthenticated,
        Self::DeviceRevoked,
        Self::SlowConsumer,
        Self::Replaced,
        Self::TooMany,
    ];

    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::TooLarge => 1009,
            Self::Restarting => 1012,
            Self::ProtocolViolation => 4400,
            Self::Unauthenticated => 4401,
            Self::DeviceRevoked => 4403,
            Self::SlowConsumer => 4408,
            Self::Replaced => 4409,
            Self::TooMany => 4429,
        }
    }

    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.code() == code)
    }

    #[must_use]
    pub const fn reconnect(self) -> Reconnect {
        match self {
            Self::Normal | Self::GoingAway | Self::TooLarge | Self::SlowConsumer => Reconnect::WithBackoff,
            Self::Restarting | Self::TooMany => Reconnect::AsTold,
            Self::Unauthenticated => Reconnect::WithNewToken,
            Self::ProtocolViolation | Self::DeviceRevoked | Self::Replaced => Reconnect::Never,
        }
    }
}
