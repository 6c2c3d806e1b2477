//! Queries: what clients read. Answered once what they must see is stored.

pub mod events;
pub mod history;
pub mod kept;
pub mod lists;

use crate::edge::Edge;
use crate::edge::refused::Outcome;
use crate::store::{InboxRow, StoreResult};
use reedi_protocol::{ConversationKey, Position, Shard};

impl Edge {
    /// How far `shard` is stored now. What is read after this has everything up to there, and knows who had left by
    /// then; whatever lies beyond may lack what comes before it (invariants `members_only`, `one_order`).
    ///
    /// # Errors
    /// The store is away.
    async fn stored_now(&self, shard: Shard) -> Outcome<Position> {
        self.watermarks.fresh().await?;
        Ok(self.watermarks.known(shard))
    }

    /// What was read of one conversation, or nothing where its rows alone cannot be read: then others are answered
    /// without it (ADR 0042).
    ///
    /// # Errors
    /// It is not about these rows alone.
    pub(super) fn if_readable<T>(
        &self,
        conversation: ConversationKey,
        read: StoreResult<T>,
    ) -> StoreResult<Option<T>> {
        match read {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_of_these_rows_alone() => {
                let conversation = conversation.conversation_id();
                tracing::warn!(%conversation, %error, "a conversation cannot be read: others are, without it");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The place right before another.
#[must_use]
pub fn before(position: Position) -> Position {
    let place = position.as_u64();
    Position::from_u64(place - u64::from(place > 0)).unwrap_or_default()
}

/// The place right behind another.
#[must_use]
pub fn behind(position: Position) -> Position {
    Position::from_u64(position.as_u64() + 1).unwrap_or(crate::store::Range::END)
}

/// What an account may see of a conversation comes after this, however much earlier it asks for.
#[must_use]
pub fn floor(row: &InboxRow) -> Position {
    before(row.joined)
}
