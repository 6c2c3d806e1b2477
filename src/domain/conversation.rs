//! A conversation as its control events left it.

use reedi_protocol::resource::{ConversationType, Role};
use reedi_protocol::text::{AvatarUrl, Name};
use reedi_protocol::{AccountId, Position, Timestamp};
use serde::{Deserialize, Serialize};

/// The most members of a conversation whose events name them all, so that delivery needs no store.
pub const AUDIENCE_MOST: usize = 32;

/// One account's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub account: AccountId,
    pub role: Role,
    /// Where the membership began. [`Position::START`] within the record that begins it, which
    /// cannot know its own place; [`ConversationState::placed_at`] puts it in.
    pub joined: Position,
    pub joined_at: Timestamp,
}

/// All that control events decide, after the newest of them. Every control event carries it whole, so
/// that readers apply it and never have to compute it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationState {
    pub kind: ConversationType,
    pub name: Option<Name>,
    pub avatar_url: Option<AvatarUrl>,
    /// Seconds that a message lives; `None`: for ever.
    pub expires_after_s: Option<u64>,
    pub created_at: Timestamp,
    /// Longest-standing first.
    pub members: Vec<Member>,
}

impl ConversationState {
    #[must_use]
    pub fn member(&self, account: AccountId) -> Option<&Member> {
        self.members.iter().find(|m| m.account == account)
    }

    #[must_use]
    pub fn accounts(&self) -> Vec<AccountId> {
        self.members.iter().map(|m| m.account).collect()
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        self.members.len() <= AUDIENCE_MOST
    }

    /// The other person of a direct conversation.
    #[must_use]
    pub fn peer_of(&self, account: AccountId) -> Option<AccountId> {
        match self.kind {
            ConversationType::Direct => {
                self.members.iter().map(|m| m.account).find(|other| *other != account)
            }
            _ => None,
        }
    }

    /// This state as it stands once its record is at `position`: memberships that began with the
    /// record begin there.
    #[must_use]
    pub fn placed_at(mut self, position: Position) -> Self {
        for member in &mut self.members {
            if member.joined.is_start() {
                member.joined = position;
            }
        }
        self
    }
}
