//! Commands: what clients may do, one file each. REST, the WebSocket and Socket.IO all come here, so
//! that a rule about a message is written once.

pub mod change_conversation;
pub mod create_conversation;
pub mod delete_message;
pub mod edit_message;
pub mod mark;
pub mod preferences;
pub mod react;
pub mod send_message;
pub mod socket;

use super::Edge;
use super::refused::{Outcome, Refused};
use super::view::View;
use crate::domain::conversation::Member;
use crate::domain::record::{Body, Record, RequestDigest};
use crate::store::{Messages as _, StoredMessage};
use reedi_protocol::{AccountId, ConversationId, ConversationKey, ErrorCode, MessageId, Position, Timestamp};

/// A conversation id as a client wrote it. Any other UUID is a conversation that does not exist.
///
/// # Errors
/// No UUID at all (a value to correct), or none of ours (nothing there).
pub fn conversation_id(text: &str, pointer: &str) -> Outcome<ConversationKey> {
    let uuid =
        uuid::Uuid::try_parse(text).map_err(|_| Refused::invalid(pointer, "a conversation id is a UUID"))?;
    ConversationId::try_from(uuid).map(ConversationId::key).map_err(|_| Refused::not_found())
}

/// A message id as a client wrote it.
///
/// # Errors
/// As [`conversation_id`].
pub fn message_id(text: &str, pointer: &str) -> Outcome<MessageId> {
    let uuid =
        uuid::Uuid::try_parse(text).map_err(|_| Refused::invalid(pointer, "a message id is a UUID"))?;
    MessageId::try_from(uuid).map_err(|_| Refused::not_found())
}

/// The place of a message that a client names and that must be of `conversation`; `outside` says that it is not.
///
/// # Errors
/// No UUID, or not of this conversation.
pub fn place_in(
    conversation: ConversationKey,
    text: &str,
    pointer: &str,
    outside: &str,
) -> Outcome<Position> {
    match message_id(text, pointer) {
        Ok(id) if id.key() == conversation => Ok(id.position()),
        Err(refused) if refused.code != ErrorCode::NotFound => Err(refused),
        _ => Err(Refused::invalid(pointer, outside)),
    }
}

/// An account id as a client wrote it.
///
/// # Errors
/// No UUID.
pub fn account_id(text: &str, pointer: &str) -> Outcome<AccountId> {
    text.parse().map_err(|_| Refused::invalid(pointer, "an account id is a UUID"))
}

/// A message that `account` may see, and the conversation around it.
pub(super) struct Target {
    pub view: View,
    pub member: Member,
    pub stored: StoredMessage,
}

/// Reads the message that a command is about, as new as this edge knows it. Counts as a read, whatever becomes of the
/// command.
///
/// # Errors
/// Not there for this account, or it cannot be read now.
pub(super) async fn target(edge: &Edge, account: AccountId, id: MessageId) -> Outcome<Target> {
    edge.admission.read(account, edge.clock.now()).await?;
    let conversation = id.key();
    let view = edge.member_view(account, conversation).await?;
    let member = *view.member(account)?;
    if id.position() < member.joined {
        return Err(Refused::not_found());
    }
    edge.place_stored(conversation, id.position()).await?;
    edge.caught_up(conversation).await?;
    let stored = edge.store.message(conversation, id.position()).await?.ok_or_else(Refused::not_found)?;
    Ok(Target { view, member, stored })
}

impl Edge {
    /// Waits until everything of a conversation that this edge acknowledged or told is stored.
    ///
    /// # Errors
    /// The store has not caught up in time.
    pub async fn caught_up(&self, conversation: ConversationKey) -> Outcome<()> {
        let newest = self.newest.of_conversation(conversation);
        Ok(self.watermarks.passed(conversation.shard(), newest).await?)
    }

    /// The record of an event that `actor` makes in the conversation of `view`.
    pub(super) fn record(
        &self,
        view: &View,
        actor: AccountId,
        stamp: Timestamp,
        digest: RequestDigest,
        body: Body,
    ) -> Record {
        Record {
            conversation: view.conversation,
            kind: view.state.kind,
            actor,
            stamp,
            digest,
            audience: view.audience(),
            body,
        }
    }

    /// Publishes an event of `actor` in the conversation of `view`.
    pub(super) async fn publish(&self, view: &View, actor: AccountId, body: Body) -> Outcome<Timestamp> {
        self.admission.event(actor, view.conversation, self.clock.now()).await?;
        let digest = RequestDigest([0; 16]);
        let record = |stamp| self.record(view, actor, stamp, digest, body.clone());
        let (position, stamp) = self.appender.event(view.conversation, record).await?;
        self.newest.tell(view.conversation, position, &[actor]);
        Ok(stamp)
    }
}

/// Turns a deletion, an end of a window and the like into a refusal with its reason.
pub(super) fn refuse<T>(code: ErrorCode, detail: &str) -> Outcome<T> {
    Err(Refused::new(code, detail))
}
