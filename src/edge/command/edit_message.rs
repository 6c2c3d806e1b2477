//! `edit_message`: new content, by the sender, within the window.

use super::{refuse, target};
use crate::domain::record::Body;
use crate::domain::retention::CHANGE_WINDOW_MS;
use crate::edge::Edge;
use crate::edge::append::seal::Belonging;
use crate::edge::refused::{Outcome, Refused};
use crate::edge::wire;
use reedi_protocol::command::EditMessage;
use reedi_protocol::resource::{Message, MessageType};
use reedi_protocol::text::Content;
use reedi_protocol::{AccountId, ErrorCode, MessageId};

/// Edits a message; gives it as it then stands.
///
/// # Errors
/// Not one's own, too late, or deleted.
pub async fn run(edge: &Edge, actor: AccountId, id: MessageId, command: EditMessage) -> Outcome<Message> {
    let content = Content::parse(command.content).map_err(|e| Refused::invalid("/content", e))?;
    let target = target(edge, actor, id).await?;
    let row = &target.stored.row;
    if row.sender != actor || row.message_type == MessageType::System {
        return refuse(ErrorCode::Forbidden, "Only its sender can edit a message.");
    }
    if target.stored.deleted.is_some() {
        return refuse(ErrorCode::Gone, "This message has been deleted.");
    }
    if row.timestamp.plus_millis(CHANGE_WINDOW_MS) < edge.clock.now() {
        return refuse(ErrorCode::EditWindowOver, "A message can be edited for 24 hours.");
    }
    edge.may_reach_peer(&target.view, actor).await?;
    let sealed = edge.key_ring.seal(&content, Belonging::Edit(id));
    let body = Body::Edit { target: id.position(), content: Some(sealed), expires_at: row.expires_at };
    let edited_at = edge.publish(&target.view, actor, body).await?;
    let mut message = wire::message(id.key(), row, Some(content.into_string()), actor);
    message.edited_at = Some(edited_at);
    let reactions = edge.reactions_of(id).await?;
    wire::with_reactions(&mut message, &reactions);
    Ok(message)
}
