//! Messages, events, receipts and reactions.

use super::Api;
use super::body::{Answer, Caller, Json, NoContent, Path, Query};
use crate::edge::command::{conversation_id, delete_message, edit_message, message_id, react, send_message};
use crate::edge::query::{events as event_query, history as history_query};
use crate::edge::refused::{Outcome, Refused};
use axum::extract::State;
use axum::http::HeaderMap;
use reedi_protocol::Position;
use reedi_protocol::command::{DeleteMessage, EditMessage, React, SendMessage};
use reedi_protocol::resource::{Events, History, Message, MessageReaction, Receipts};

pub async fn send(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(command): Json<SendMessage>,
) -> Outcome<Answer<Message>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let text = |name: &str| headers.get(name).map(|value| value.to_str().map(str::to_owned));
    let key = text("idempotency-key").transpose();
    let key = key.map_err(|_| Refused::invalid("Idempotency-Key", "visible ASCII characters only"))?;
    let traceparent = text("traceparent").and_then(Result::ok);
    let sent =
        send_message::run(&api.edge, me.account, conversation, command, key.as_deref(), traceparent).await?;
    Ok(Answer(if sent.duplicate { 200 } else { 201 }, sent.message))
}

pub async fn history(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Query(query): Query<history_query::Query>,
) -> Outcome<Answer<History>> {
    let conversation = conversation_id(&id, "conversationId")?;
    Ok(Answer(200, history_query::get(&api.edge, me.account, conversation, &query).await?))
}

/// Where a page of events begins.
#[derive(Debug, serde::Deserialize)]
pub struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

pub async fn events(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Outcome<Answer<Events>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let after = Position::from_u64(query.after.unwrap_or(0));
    let after = after.ok_or_else(|| Refused::invalid("?after", "a position that this server gave"))?;
    let limit = history_query::page_size(query.limit)?;
    Ok(Answer(200, event_query::get(&api.edge, me.account, conversation, after, limit).await?))
}

pub async fn edit(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Json(command): Json<EditMessage>,
) -> Outcome<Answer<Message>> {
    let id = message_id(&id, "messageId")?;
    Ok(Answer(200, edit_message::run(&api.edge, me.account, id, command).await?))
}

pub async fn delete(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Query(query): Query<DeleteMessage>,
) -> Outcome<NoContent> {
    let id = message_id(&id, "messageId")?;
    delete_message::run(&api.edge, me.account, id, query.scope).await?;
    Ok(NoContent)
}

pub async fn receipts(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
) -> Outcome<Answer<Receipts>> {
    let id = message_id(&id, "messageId")?;
    Ok(Answer(200, history_query::receipts(&api.edge, me.account, id).await?))
}

pub async fn react(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Json(command): Json<React>,
) -> Outcome<Answer<MessageReaction>> {
    let id = message_id(&id, "messageId")?;
    let reacted = react::add(&api.edge, me.account, id, &command.reaction).await?;
    Ok(Answer(if reacted.stood { 200 } else { 201 }, reacted.reaction))
}

pub async fn unreact(
    State(api): State<Api>,
    Caller(me): Caller,
    Path((id, reaction)): Path<(String, String)>,
) -> Outcome<NoContent> {
    let id = message_id(&id, "messageId")?;
    react::remove(&api.edge, me.account, id, &reaction).await?;
    Ok(NoContent)
}
