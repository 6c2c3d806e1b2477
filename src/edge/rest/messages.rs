//! Messages, events, receipts and reactions.

use super::Api;
use super::body::{Answer, Caller, Json, NoContent, Page, Path, Query, Reader, once};
use super::openapi::{ConversationPath, LimitQuery, MessagePath};
use crate::edge::answer_room::participants_bytes;
use crate::edge::command::{conversation_id, delete_message, edit_message, message_id, react, send_message};
use crate::edge::query::{events as event_query, history as history_query};
use crate::edge::refused::{Outcome, Refused};
use axum::extract::State;
use axum::http::HeaderMap;
use reedi_protocol::Position;
use reedi_protocol::command::{DeleteMessage, DeleteScope, EditMessage, React, SendMessage};
use reedi_protocol::resource::{Events, History, Message, MessageReaction, Receipts};

/// Sends a message.
///
/// Answered once a majority of the log's disks has it. Whoever repeats a call, because the answer did
/// not come or was 503 `outcome_unknown`, gives the same `clientMessageId` again and gets the first
/// message with 200: exactly one is made.
///
/// `clientMessageId` is best a UUIDv7 made when the message is first sent. Its time may be 5 s ahead of
/// the server and 48 h behind; outside, the answer is 422 `client_message_id_time` with `serverTime`.
/// Any other text of 1 to 255 bytes works too and takes longer, because the store is asked first. The
/// header `Idempotency-Key` is the same thing outside the body; where both are given, `clientMessageId`
/// counts. Without either, the server makes an id and promises nothing about repeats.
///
/// Two sends are the same if `content`, `messageType` and `replyToId` are; else it is 409
/// `idempotency_key_reused`. `content` comes back byte for byte, control characters and NUL included.
/// `system` messages cannot be sent. `replyToId` names a message of this conversation that I can see; a
/// deleted one may be replied to.
#[utoipa::path(
    post,
    path = "/conversations/{conversationId}/messages",
    operation_id = "sendMessage",
    tag = "messages",
    params(
        ConversationPath,
        ("Idempotency-Key" = Option<String>, Header, description = "As `clientMessageId`; visible ASCII."),
        ("traceparent" = Option<String>, Header, description = "W3C trace context; the message's way is traced under it."),
    ),
    request_body = SendMessage,
    responses(
        (status = 201, description = "Sent.", body = Message),
        (status = 200, description = "It had been sent before with the same id: the first message.", body = Message),
    ),
)]
pub async fn send(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(command): Json<SendMessage>,
) -> Outcome<Answer<Message>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let key = once(&headers, "idempotency-key")?;
    if key.is_none() && headers.contains_key("idempotency-key") {
        return Err(Refused::invalid("Idempotency-Key", "visible ASCII characters only"));
    }
    let sent = send_message::run(&api.edge, me.account, conversation, command, key).await?;
    Ok(Answer(if sent.duplicate { 200 } else { 201 }, sent.message))
}

/// Reads messages, newest first.
///
/// `before`, `after` and `around` take a message id of this conversation, one of them at most. `before`
/// gives what is older; `after` the oldest of what is newer; `around` the message itself, half a page
/// of older and half a page of newer ones. In every mode the newest is first and `nextCursor` is the id
/// to give as `before` for what is older, null where there is nothing older. A page may be shorter than
/// `limit`, because what I deleted for myself is left out. A deleted message stands there with a null
/// `content` and `deletedAt`. History begins where I joined.
#[utoipa::path(
    get,
    path = "/conversations/{conversationId}/messages",
    operation_id = "getHistory",
    tag = "messages",
    params(
        ConversationPath,
        LimitQuery,
        ("before" = Option<String>, Query, description = "Messages older than this one."),
        ("after" = Option<String>, Query, description = "The first messages newer than this one."),
        ("around" = Option<String>, Query, description = "This message and its neighbours."),
    ),
    responses((status = 200, description = "A page.", body = History)),
)]
pub async fn history(
    State(api): State<Api>,
    Reader(me): Reader,
    Path(id): Path<String>,
    Query(query): Query<history_query::Query>,
) -> Outcome<Page<History>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let (reading, page) = history_query::get(&api.edge, me.account, conversation, &query).await?;
    Ok(Page(reading, page))
}

/// Where a page of events begins.
#[derive(Debug, serde::Deserialize)]
pub struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// Reads everything that changed since a position, in order.
///
/// What a client calls that finds a gap in what the socket told it. Each entry is what the socket would
/// have sent: new messages, edits, deletions, reactions, receipts, control events. Edits show the
/// newest content. Entries other than messages are kept for 30 days. `completeTo` is the position to
/// ask from next, and moves also when nothing came; ask again at once while `hasMore`. Positions below
/// the one where I joined give nothing. Where I left and joined again after `after`, the first entry is
/// `conversation_reset`: load the newest page, and go on with what follows. Entries of one position are never torn apart, so that a page
/// may have more entries than `limit`.
#[utoipa::path(
    get,
    path = "/conversations/{conversationId}/events",
    operation_id = "getEvents",
    tag = "messages",
    params(
        ConversationPath,
        ("after" = Option<u64>, Query, description = "A position that this server gave; 0, the default, is before everything.", example = 17592186044421_u64),
        LimitQuery,
    ),
    responses((status = 200, description = "A page, oldest first.", body = Events)),
)]
pub async fn events(
    State(api): State<Api>,
    Reader(me): Reader,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Outcome<Page<Events>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let after = Position::from_u64(query.after.unwrap_or(0));
    let after = after.ok_or_else(|| Refused::invalid("?after", "a position that this server gave"))?;
    let limit = history_query::page_size(query.limit)?;
    let (reading, page) = event_query::get(&api.edge, me.account, conversation, after, limit).await?;
    Ok(Page(reading, page))
}

/// Edits a message.
///
/// By its sender, within 24 hours of sending, while it is not deleted. Every edit makes a new
/// `editedAt`; the content before is gone.
#[utoipa::path(
    put,
    path = "/messages/{messageId}",
    operation_id = "editMessage",
    tag = "messages",
    params(MessagePath),
    request_body = EditMessage,
    responses((status = 200, description = "The message as it now stands.", body = Message)),
)]
pub async fn edit(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
    Json(command): Json<EditMessage>,
) -> Outcome<Answer<Message>> {
    let id = message_id(&id, "messageId")?;
    Ok(Answer(200, edit_message::run(&api.edge, me.account, id, command).await?))
}

/// Deletes a message, for everyone or out of my own sight.
///
/// For everyone: by its sender within 24 hours, or by a group's admin at any time. The content is
/// erased from the store, and then from the log; the row stays, so that replies and order hold. What is
/// deleted already is 204 again. For myself: any message that I can see, at any time, on all my
/// devices; this cannot be undone. `system` messages can be deleted only for myself.
#[utoipa::path(
    delete,
    path = "/messages/{messageId}",
    operation_id = "deleteMessage",
    tag = "messages",
    params(
        MessagePath,
        ("scope" = inline(Option<DeleteScope>), Query, description = "`everyone`, the default, or `me`."),
    ),
    responses((status = 204, description = "Deleted.")),
)]
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

/// Tells who has received and read a message.
///
/// All participants who were in the conversation when it was sent and still are, but its sender. Who
/// does not tell receipts (`readReceipts: false`) has nulls, except to themselves. The times are those
/// of the mark that covered the message, which may have been set on a later one.
#[utoipa::path(
    get,
    path = "/messages/{messageId}/receipts",
    operation_id = "getReceipts",
    tag = "messages",
    params(MessagePath),
    responses((status = 200, description = "One entry for each participant.", body = Receipts)),
)]
pub async fn receipts(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(id): Path<String>,
) -> Outcome<Page<Receipts>> {
    let id = message_id(&id, "messageId")?;
    let members = api.edge.limits.group_members;
    let reading = api.edge.answer_room.take(me.account, participants_bytes(members)).await?;
    Ok(Page(reading, history_query::receipts(&api.edge, me.account, id).await?))
}

/// Adds a reaction.
///
/// One emoji, with its modifiers, of at most 64 bytes. Several different ones by one account are
/// allowed, 200 for one message over all accounts. It ends with its message.
#[utoipa::path(
    post,
    path = "/messages/{messageId}/reactions",
    operation_id = "addReaction",
    tag = "messages",
    params(MessagePath),
    request_body = React,
    responses(
        (status = 201, description = "Added.", body = MessageReaction),
        (status = 200, description = "It stood already.", body = MessageReaction),
    ),
)]
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

/// Takes one of my reactions away.
#[utoipa::path(
    delete,
    path = "/messages/{messageId}/reactions/{reaction}",
    operation_id = "removeReaction",
    tag = "messages",
    params(
        MessagePath,
        ("reaction" = String, Path, description = "The emoji, percent-encoded.", example = "👍"),
    ),
    responses((status = 204, description = "It is gone; 404 where it was not there.")),
)]
pub async fn unreact(
    State(api): State<Api>,
    Caller(me): Caller,
    Path((id, reaction)): Path<(String, String)>,
) -> Outcome<NoContent> {
    let id = message_id(&id, "messageId")?;
    react::remove(&api.edge, me.account, id, &reaction).await?;
    Ok(NoContent)
}
