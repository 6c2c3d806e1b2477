//! `/conversations` and their participants.

use super::Api;
use super::body::{Answer, Caller, Json, NoContent, Path, Query};
use crate::domain::permission::Wish;
use crate::edge::command::{account_id, change_conversation, conversation_id, create_conversation};
use crate::edge::query::lists;
use crate::edge::refused::Outcome;
use axum::extract::State;
use reedi_protocol::command::{AddParticipants, CreateDirect, CreateGroup, SetRole, UpdateConversation};
use reedi_protocol::resource::{Conversation, ConversationList, Participant};

/// Where a page of the list begins.
#[derive(Debug, serde::Deserialize)]
pub struct ListQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub async fn list(
    State(api): State<Api>,
    Caller(me): Caller,
    Query(query): Query<ListQuery>,
) -> Outcome<Answer<ConversationList>> {
    let page = lists::get(&api.edge, me.account, query.cursor.as_deref(), query.limit).await?;
    Ok(Answer(200, page))
}

pub async fn create_direct(
    State(api): State<Api>,
    Caller(me): Caller,
    Json(command): Json<CreateDirect>,
) -> Outcome<Answer<Conversation>> {
    let created = create_conversation::direct(&api.edge, me.account, &command).await?;
    Ok(Answer(if created.new { 201 } else { 200 }, lists::resource(&created.view, me.account)?))
}

pub async fn create_group(
    State(api): State<Api>,
    Caller(me): Caller,
    Json(command): Json<CreateGroup>,
) -> Outcome<Answer<Conversation>> {
    let created = create_conversation::group(&api.edge, me.account, &command).await?;
    Ok(Answer(201, lists::resource(&created.view, me.account)?))
}

pub async fn one(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
) -> Outcome<Answer<Conversation>> {
    let conversation = conversation_id(&id, "conversationId")?;
    Ok(Answer(200, lists::one(&api.edge, me.account, conversation).await?))
}

pub async fn update(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Json(command): Json<UpdateConversation>,
) -> Outcome<Answer<Conversation>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let view = change_conversation::update(&api.edge, me.account, conversation, &command).await?;
    Ok(Answer(200, lists::resource(&view, me.account)?))
}

pub async fn add_participants(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Json(command): Json<AddParticipants>,
) -> Outcome<Answer<Conversation>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let view = change_conversation::add(&api.edge, me.account, conversation, &command).await?;
    Ok(Answer(200, lists::resource(&view, me.account)?))
}

pub async fn leave(State(api): State<Api>, Caller(me): Caller, Path(id): Path<String>) -> Outcome<NoContent> {
    let conversation = conversation_id(&id, "conversationId")?;
    change_conversation::run(&api.edge, me.account, conversation, &Wish::Leave).await?;
    Ok(NoContent)
}

pub async fn remove_participant(
    State(api): State<Api>,
    Caller(me): Caller,
    Path((id, user)): Path<(String, String)>,
) -> Outcome<NoContent> {
    let conversation = conversation_id(&id, "conversationId")?;
    let wish = Wish::Remove(account_id(&user, "userId")?);
    change_conversation::run(&api.edge, me.account, conversation, &wish).await?;
    Ok(NoContent)
}

pub async fn set_role(
    State(api): State<Api>,
    Caller(me): Caller,
    Path((id, user)): Path<(String, String)>,
    Json(command): Json<SetRole>,
) -> Outcome<Answer<Participant>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let account = account_id(&user, "userId")?;
    let wish = Wish::SetRole(account, command.role);
    let view = change_conversation::run(&api.edge, me.account, conversation, &wish).await?;
    let member = view.member(account)?;
    Ok(Answer(200, Participant { user_id: account, role: member.role, joined_at: member.joined_at }))
}
