//! `add_reaction` and `remove_reaction`: one emoji each, several of one account allowed.

use super::{refuse, target};
use crate::domain::record::Body;
use crate::edge::Edge;
use crate::edge::refused::{Outcome, Refused};
use crate::store::{Messages as _, Range, StoredReaction};
use reedi_protocol::resource::MessageReaction;
use reedi_protocol::text::Reaction;
use reedi_protocol::{AccountId, ErrorCode, MessageId, Position, limits};

/// A reaction that stands, and whether it stood before.
pub struct Reacted {
    pub reaction: MessageReaction,
    pub stood: bool,
}

/// Adds a reaction.
///
/// # Errors
/// Not one emoji, or the message has too many, or is deleted.
pub async fn add(edge: &Edge, actor: AccountId, id: MessageId, reaction: &str) -> Outcome<Reacted> {
    let reaction = Reaction::parse(reaction).map_err(|e| Refused::invalid("/reaction", e))?;
    let target = target(edge, actor, id).await?;
    if target.stored.deleted.is_some() {
        return refuse(ErrorCode::Gone, "This message has been deleted.");
    }
    let standing = edge.reactions_of(id).await?;
    let resource = MessageReaction { user_id: actor, reaction: reaction.as_str().to_owned() };
    if standing.iter().any(|stored| is_this(stored, actor, &reaction)) {
        return Ok(Reacted { reaction: resource, stood: true });
    }
    if standing.len() >= limits::REACTIONS_PER_MESSAGE {
        return Err(Refused::invalid("/reaction", "this message has as many reactions as it can have"));
    }
    edge.may_reach_peer(&target.view, actor).await?;
    let expires_at = target.stored.row.expires_at;
    edge.publish(&target.view, actor, Body::React { target: id.position(), reaction, expires_at }).await?;
    Ok(Reacted { reaction: resource, stood: false })
}

/// Takes one's own reaction away.
///
/// # Errors
/// It is not there.
pub async fn remove(edge: &Edge, actor: AccountId, id: MessageId, reaction: &str) -> Outcome<()> {
    let reaction = Reaction::parse(reaction).map_err(|e| Refused::invalid("/reaction", e))?;
    let target = target(edge, actor, id).await?;
    let mut standing = edge.reactions_of(id).await?;
    standing.retain(|stored| is_this(stored, actor, &reaction));
    if standing.is_empty() {
        return Err(Refused::not_found());
    }
    // In all spellings in which it stands.
    for stored in standing {
        let reaction = Reaction::from_stored(stored.reaction);
        edge.publish(&target.view, actor, Body::Unreact { target: id.position(), reaction }).await?;
    }
    Ok(())
}

/// Whether what stands is this reaction of `actor`'s, in whatever spelling it was stored.
fn is_this(stored: &StoredReaction, actor: AccountId, reaction: &Reaction) -> bool {
    stored.account == actor && Reaction::parse(&stored.reaction).is_ok_and(|stored| stored == *reaction)
}

impl Edge {
    /// The reactions to one message.
    pub(super) async fn reactions_of(&self, id: MessageId) -> Outcome<Vec<StoredReaction>> {
        let at = id.position().as_u64();
        let neighbour = |raw| Position::from_u64(raw).unwrap_or_default();
        let range = Range { after: neighbour(at - 1), before: neighbour(at + 1) };
        Ok(self.store.reactions(id.key(), range).await?)
    }
}
