//! `/settings` and `/blocks`.

use super::Api;
use super::body::{Answer, Caller, Json, NoContent, Page, Path, Reader};
use super::openapi::UserPath;
use crate::edge::answer_room::participants_bytes;
use crate::edge::command::account_id;
use crate::edge::refused::{Outcome, Refused};
use crate::store::Preferences as _;
use axum::extract::State;
use reedi_protocol::AccountId;
use reedi_protocol::resource::Settings;
use serde::Serialize;
use utoipa::ToSchema;

/// Blocks that are listed.
const BLOCKS_MOST: usize = 10_000;

/// Reads my settings.
///
/// Who never set any has the defaults: messages from everyone, receipts told, presence shown to
/// everyone.
#[utoipa::path(
    get,
    path = "/settings",
    operation_id = "getSettings",
    tag = "preferences",
    responses((status = 200, description = "The settings as they stand.", body = Settings)),
)]
pub async fn settings(State(api): State<Api>, Reader(me): Reader) -> Outcome<Answer<Settings>> {
    Ok(Answer(200, api.edge.settings(me.account).await?))
}

/// Replaces my settings.
///
/// All three fields are wanted. Other servers of a cluster go by it at once, and after at most 30 seconds where
/// they could not be told.
#[utoipa::path(
    put,
    path = "/settings",
    operation_id = "putSettings",
    tag = "preferences",
    request_body = Settings,
    responses((status = 200, description = "The settings as they now stand.", body = Settings)),
)]
pub async fn put_settings(
    State(api): State<Api>,
    Caller(me): Caller,
    Json(settings): Json<Settings>,
) -> Outcome<Answer<Settings>> {
    api.edge.admission.command(me.account, api.edge.clock.now()).await?;
    api.edge.put_settings(me.account, settings).await?;
    Ok(Answer(200, settings))
}

/// One account that is blocked.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    user_id: AccountId,
}

/// All of them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocks {
    blocks: Vec<Block>,
    next_cursor: Option<String>,
}

/// Lists whom I have blocked.
///
/// All on one page: `nextCursor` is always null. 10,000 are shown at most.
#[utoipa::path(
    get,
    path = "/blocks",
    operation_id = "listBlocks",
    tag = "preferences",
    responses((status = 200, description = "Whom I have blocked.", body = Blocks)),
)]
pub async fn blocks(State(api): State<Api>, Reader(me): Reader) -> Outcome<Page<Blocks>> {
    let reading = api.edge.answer_room.take(me.account, participants_bytes(BLOCKS_MOST)).await?;
    let blocked = api.edge.store.blocks(me.account, BLOCKS_MOST).await?;
    let blocks = blocked.into_iter().map(|user_id| Block { user_id }).collect();
    Ok(Page(reading, Blocks { blocks, next_cursor: None }))
}

/// Tells whether I have blocked an account.
#[utoipa::path(
    get,
    path = "/blocks/{userId}",
    operation_id = "getBlock",
    tag = "preferences",
    params(UserPath),
    responses((status = 200, description = "I have; 404 where I have not.", body = Block)),
)]
pub async fn is_blocked(
    State(api): State<Api>,
    Reader(me): Reader,
    Path(user): Path<String>,
) -> Outcome<Answer<Block>> {
    let user_id = account_id(&user, "userId")?;
    if api.edge.store.is_blocked(me.account, user_id).await? {
        Ok(Answer(200, Block { user_id }))
    } else {
        Err(Refused::not_found())
    }
}

/// Blocks an account.
///
/// Its direct messages, edits and reactions to me are refused with `recipient_unavailable`, as if I
/// accepted nobody, and it cannot add me to a group. In our conversation it
/// is not told when I am there, nor am I when it types; the same goes for whoever I do not take messages from. Groups that both are in already go on. Other servers of a
/// cluster go by it at once, and after at most 30 seconds where they could not be told. That the account exists
/// is not checked.
#[utoipa::path(
    put,
    path = "/blocks/{userId}",
    operation_id = "putBlock",
    tag = "preferences",
    params(UserPath),
    responses(
        (status = 201, description = "Blocked now.", body = Block),
        (status = 200, description = "It was blocked before.", body = Block),
    ),
)]
pub async fn block(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(user): Path<String>,
) -> Outcome<Answer<Block>> {
    let user_id = account_id(&user, "userId")?;
    if user_id == me.account {
        return Err(Refused::invalid("userId", "this is you"));
    }
    api.edge.admission.command(me.account, api.edge.clock.now()).await?;
    let stood = api.edge.store.is_blocked(me.account, user_id).await?;
    api.edge.set_block(me.account, user_id, true).await?;
    Ok(Answer(if stood { 200 } else { 201 }, Block { user_id }))
}

/// Takes a block away.
#[utoipa::path(
    delete,
    path = "/blocks/{userId}",
    operation_id = "deleteBlock",
    tag = "preferences",
    params(UserPath),
    responses((status = 204, description = "No longer blocked; 404 where it was not.")),
)]
pub async fn unblock(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(user): Path<String>,
) -> Outcome<NoContent> {
    let user_id = account_id(&user, "userId")?;
    api.edge.admission.command(me.account, api.edge.clock.now()).await?;
    if !api.edge.store.is_blocked(me.account, user_id).await? {
        return Err(Refused::not_found());
    }
    api.edge.set_block(me.account, user_id, false).await?;
    Ok(NoContent)
}
