//! `delete_message`: for everyone, or out of one's own sight.

use super::{refuse, target};
use crate::domain::record::Body;
use crate::domain::retention::CHANGE_WINDOW_MS;
use crate::edge::Edge;
use crate::edge::refused::Outcome;
use reedi_protocol::command::DeleteScope;
use reedi_protocol::resource::{ConversationType, MessageType, Role};
use reedi_protocol::{AccountId, ErrorCode, MessageId};

/// Deletes a message. Deleting again what is deleted is done already.
///
/// # Errors
/// Neither one's own within the window nor, in a group, an admin's.
pub async fn run(edge: &Edge, actor: AccountId, id: MessageId, scope: DeleteScope) -> Outcome<()> {
    let target = target(edge, actor, id).await?;
    let position = id.position();
    if scope == DeleteScope::Me {
        edge.publish(&target.view, actor, Body::Hide { target: position }).await?;
        return Ok(());
    }
    let row = &target.stored.row;
    if row.message_type == MessageType::System {
        return refuse(ErrorCode::Forbidden, "`system` messages cannot be deleted for everyone.");
    }
    let is_admin = target.view.state.kind == ConversationType::Group && target.member.role == Role::Admin;
    if row.sender != actor && !is_admin {
        return refuse(
            ErrorCode::Forbidden,
            "Only its sender or a group's admin can delete a message for everyone.",
        );
    }
    if target.stored.deleted.is_some() {
        return Ok(());
    }
    if !is_admin && row.timestamp.plus_millis(CHANGE_WINDOW_MS) < edge.clock.now() {
        return refuse(ErrorCode::EditWindowOver, "A message can be deleted for everyone for 24 hours.");
    }
    edge.publish(&target.view, actor, Body::Delete { target: position }).await?;
    Ok(())
}
