//! `/conversations` and their participants.

use super::Api;
use super::body::{Answer, Caller, Json, NoContent, Page, Path, Query, Reader};
use super::openapi::{ConversationPath, LimitQuery, UserPath};
use crate::domain::permission::Wish;
use crate::edge::answer_room::participants_bytes;
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

/// Lists my conversations, by latest activity.
///
/// Each with its last message that I can see, what I have not read, and until when it is muted. Those I
/// left are not in it. The list counts everything that this server acknowledged or told me, so that it
/// shows what I just sent. It looks at the 10,000 conversations that I joined or that changed; the
/// cursor is a place in the order of activity, so that a conversation that became active meanwhile may
/// be missed on later pages and stands on the first one.
#[utoipa::path(
    get,
    path = "/conversations",
    operation_id = "listConversations",
    tag = "conversations",
    params(
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before."),
        LimitQuery,
    ),
    responses((status = 200, description = "A page; each entry with its `lastMessage`, `unreadCount`, `mutedUntil` and `position`.", body = ConversationList)),
)]
pub async fn list(
    State(api): State<Api>,
    Reader(me): Reader,
    Query(query): Query<ListQuery>,
) -> Outcome<Page<ConversationList>> {
    let (reading, page) = lists::get(&api.edge, me.account, query.cursor.as_deref(), query.limit).await?;
    Ok(Page(reading, page))
}

/// Opens the direct conversation with another account.
///
/// The same pair always has the same one, whoever asks and however many ask at once. Where it stands
/// already it is given even if the other has blocked me since. Nobody else can be added to it. Both
/// have the role `member`. That the account exists is not checked.
#[utoipa::path(
    post,
    path = "/conversations/direct",
    operation_id = "createDirectConversation",
    tag = "conversations",
    request_body = CreateDirect,
    responses(
        (status = 201, description = "Made now.", body = Conversation),
        (status = 200, description = "It stood already.", body = Conversation),
    ),
)]
pub async fn create_direct(
    State(api): State<Api>,
    Caller(me): Caller,
    Json(command): Json<CreateDirect>,
) -> Outcome<Answer<Conversation>> {
    let created = create_conversation::direct(&api.edge, me.account, &command).await?;
    Ok(Answer(if created.new { 201 } else { 200 }, lists::resource(&created.view, me.account)?))
}

/// Makes a group.
///
/// I am its admin, the others are members. Accounts named twice, and myself, count once. A group may
/// have nobody else yet. The name is trimmed. Two calls make two groups: nothing here is idempotent.
#[utoipa::path(
    post,
    path = "/conversations/group",
    operation_id = "createGroup",
    tag = "conversations",
    request_body = CreateGroup,
    responses((status = 201, description = "The group.", body = Conversation)),
)]
pub async fn create_group(
    State(api): State<Api>,
    Caller(me): Caller,
    Json(command): Json<CreateGroup>,
) -> Outcome<Answer<Conversation>> {
    let created = create_conversation::group(&api.edge, me.account, &command).await?;
    Ok(Answer(201, lists::resource(&created.view, me.account)?))
}

/// Shows a conversation: its participants and settings.
///
/// 404 also where it exists and I am not in it.
#[utoipa::path(
    get,
    path = "/conversations/{conversationId}",
    operation_id = "getConversation",
    tag = "conversations",
    params(ConversationPath),
    responses((status = 200, description = "The conversation, without what only lists have.", body = Conversation)),
)]
pub async fn one(
    State(api): State<Api>,
    Reader(me): Reader,
    Path(id): Path<String>,
) -> Outcome<Page<Conversation>> {
    let conversation = conversation_id(&id, "conversationId")?;
    let members = api.edge.limits.group_members;
    let reading = api.edge.answer_room.take(me.account, participants_bytes(members)).await?;
    Ok(Page(reading, lists::one(&api.edge, me.account, conversation).await?))
}

/// Changes a conversation's settings, or my mute.
///
/// `name`, `avatarUrl` and `expiresAfter` are for everybody: in groups an admin may change them, in a
/// direct conversation either of the two may change `expiresAfter` and nothing else. `mutedUntil` is
/// mine alone and needs no role; a time in the past unmutes. A field that is absent stays; null takes
/// it away, except that a null `name` leaves it as it is. What makes no difference is done without an
/// event. The mute is kept first: where the rest is refused, it holds. `expiresAfter` counts for
/// messages sent from then on.
#[utoipa::path(
    put,
    path = "/conversations/{conversationId}",
    operation_id = "updateConversation",
    tag = "conversations",
    params(ConversationPath),
    request_body = UpdateConversation,
    responses((status = 200, description = "The conversation as it now stands.", body = Conversation)),
)]
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

/// Adds participants to a group.
///
/// For admins. All are added or none. Who is in it already is passed over. Everybody who takes no
/// messages of mine refuses the whole call with `recipient_unavailable`. Makes one `system` message.
/// Who is added sees what comes after joining.
#[utoipa::path(
    post,
    path = "/conversations/{conversationId}/participants",
    operation_id = "addParticipants",
    tag = "participants",
    params(ConversationPath),
    request_body = AddParticipants,
    responses((status = 200, description = "The group as it now stands.", body = Conversation)),
)]
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

/// Leaves a group.
///
/// If I was its last admin, the longest-standing member becomes one. My messages stay. Leaving a second
/// time is 404.
#[utoipa::path(
    delete,
    path = "/conversations/{conversationId}/participants/me",
    operation_id = "leaveGroup",
    tag = "participants",
    params(ConversationPath),
    responses((status = 204, description = "I am no longer in it.")),
)]
pub async fn leave(State(api): State<Api>, Caller(me): Caller, Path(id): Path<String>) -> Outcome<NoContent> {
    let conversation = conversation_id(&id, "conversationId")?;
    change_conversation::run(&api.edge, me.account, conversation, &Wish::Leave).await?;
    Ok(NoContent)
}

/// Removes a participant from a group.
///
/// For admins. Removing oneself is leaving.
#[utoipa::path(
    delete,
    path = "/conversations/{conversationId}/participants/{userId}",
    operation_id = "removeParticipant",
    tag = "participants",
    params(ConversationPath, UserPath),
    responses((status = 204, description = "No longer in the group.")),
)]
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

/// Makes a participant admin or member.
///
/// For admins, also about themselves; the last admin cannot step down (`last_admin`). The role that
/// stands already is answered with 200 and makes no event.
#[utoipa::path(
    put,
    path = "/conversations/{conversationId}/participants/{userId}",
    operation_id = "setRole",
    tag = "participants",
    params(ConversationPath, UserPath),
    request_body = SetRole,
    responses((status = 200, description = "The participant as they now stand.", body = Participant)),
)]
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
