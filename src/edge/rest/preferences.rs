//! `/settings` and `/blocks`.

use super::Api;
use super::body::{Answer, Caller, Json, NoContent, Path};
use crate::edge::command::account_id;
use crate::edge::refused::{Outcome, Refused};
use crate::store::Preferences as _;
use axum::extract::State;
use reedi_protocol::AccountId;
use reedi_protocol::resource::Settings;
use serde::Serialize;

/// Blocks that are listed.
const BLOCKS_MOST: usize = 10_000;

pub async fn settings(State(api): State<Api>, Caller(me): Caller) -> Outcome<Answer<Settings>> {
    Ok(Answer(200, api.edge.settings(me.account).await?))
}

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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    user_id: AccountId,
}

/// All of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocks {
    blocks: Vec<Block>,
    next_cursor: Option<String>,
}

pub async fn blocks(State(api): State<Api>, Caller(me): Caller) -> Outcome<Answer<Blocks>> {
    let blocked = api.edge.store.blocks(me.account, BLOCKS_MOST).await?;
    let blocks = blocked.into_iter().map(|user_id| Block { user_id }).collect();
    Ok(Answer(200, Blocks { blocks, next_cursor: None }))
}

pub async fn is_blocked(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(user): Path<String>,
) -> Outcome<Answer<Block>> {
    let user_id = account_id(&user, "userId")?;
    if api.edge.store.is_blocked(me.account, user_id).await? {
        Ok(Answer(200, Block { user_id }))
    } else {
        Err(Refused::not_found())
    }
}

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

pub async fn unblock(
    State(api): State<Api>,
    Caller(me): Caller,
    Path(user): Path<String>,
) -> Outcome<NoContent> {
    let user_id = account_id(&user, "userId")?;
    if !api.edge.store.is_blocked(me.account, user_id).await? {
        return Err(Refused::not_found());
    }
    api.edge.set_block(me.account, user_id, false).await?;
    Ok(NoContent)
}
