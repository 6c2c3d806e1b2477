//! What clients do to groups.

use crate::client::pick;
use crate::cluster::EdgeProcess;
use crate::wire::ask;
use rand::Rng;
use reedi::domain::permission::Wish;
use reedi::edge::command::{change_conversation, create_conversation};
use reedi::runtime::random;
use reedi_protocol::command::{CreateDirect, CreateGroup};
use reedi_protocol::resource::Role;
use reedi_protocol::{AccountId, ConversationKey};

/// Changes something about a group, or makes another; says how it went.
pub async fn change(
    edge: &EdgeProcess,
    actor: AccountId,
    conversation: ConversationKey,
    others: &[AccountId],
) -> String {
    let Some(other) = pick(others) else { return "alone".to_owned() };
    let wish = match random::rng().random_range(0..12) {
        0 => return format!("{:?}", group(edge, actor, others).await.is_some()),
        1..4 => Wish::Add(vec![other]),
        4..7 => Wish::Remove(other),
        7 => Wish::Leave,
        8..10 => Wish::SetRole(other, Role::Admin),
        _ => Wish::SetRole(other, Role::Member),
    };
    let reached = edge.edge.clone();
    let asked = wish.clone();
    let done =
        ask(edge, async move { change_conversation::run(&reached, actor, conversation, &asked).await });
    match done.await {
        Some(Ok(view)) => format!("{wish:?} stands at {}", view.control),
        Some(Err(refused)) => format!("{wish:?} refused: {}", refused.code),
        None => format!("{wish:?} not answered"),
    }
}

/// Makes a group of `actor` and the others.
pub async fn group(edge: &EdgeProcess, actor: AccountId, others: &[AccountId]) -> Option<ConversationKey> {
    let participant_ids = others.iter().map(ToString::to_string).collect();
    let command = CreateGroup { name: "a group".to_owned(), participant_ids, avatar_url: None };
    let reached = edge.edge.clone();
    let made = ask(edge, async move { create_conversation::group(&reached, actor, &command).await }).await?;
    made.ok().map(|created| created.view.conversation)
}

/// The direct conversation of two.
pub async fn direct(edge: &EdgeProcess, actor: AccountId, other: AccountId) -> Option<ConversationKey> {
    let command = CreateDirect { participant_id: other.to_string() };
    let reached = edge.edge.clone();
    let made = ask(edge, async move { create_conversation::direct(&reached, actor, &command).await }).await?;
    made.ok().map(|created| created.view.conversation)
}
