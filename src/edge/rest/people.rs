//! `/api/users`: finding people.

use super::Api;
use super::body::{Answer, Caller, Path, Query, Reader};
use super::openapi::UserPath;
use crate::edge::command::account_id;
use crate::edge::refused::{Outcome, Refused};
use crate::people::PeoplePort;
use axum::extract::State;
use reedi_protocol::resource::{Profile, Profiles};

/// People shown for one search.
const FOUND_MOST: usize = 20;

/// Whom to look for.
#[derive(Debug, serde::Deserialize)]
pub struct Search {
    #[serde(default)]
    query: String,
}

/// Finds people by the beginning of their user name.
///
/// At most 20. A leading `@` and the case of letters do not count; an empty query, and one longer than
/// 64 characters, finds nobody. There is no next page: a longer query narrows it.
#[utoipa::path(
    get,
    path = "/api/users",
    operation_id = "searchPeople",
    tag = "people",
    params(("query" = Option<String>, Query, description = "The beginning of a user name.", example = "al")),
    responses((status = 200, description = "Who was found.", body = Profiles)),
)]
pub async fn search(
    State(api): State<Api>,
    Caller(me): Caller,
    Query(search): Query<Search>,
) -> Outcome<Answer<Profiles>> {
    api.edge.admission.command(me.account, api.edge.clock.now()).await?;
    let users = api.edge.people.search(&search.query, FOUND_MOST).await?;
    Ok(Answer(200, Profiles { users, next_cursor: None }))
}

/// Shows one person.
#[utoipa::path(
    get,
    path = "/api/users/{userId}",
    operation_id = "getPerson",
    tag = "people",
    params(UserPath),
    responses((status = 200, description = "The person.", body = Profile)),
)]
pub async fn profile(
    State(api): State<Api>,
    Reader(_): Reader,
    Path(user): Path<String>,
) -> Outcome<Answer<Profile>> {
    let profile = api.edge.people.profile(account_id(&user, "userId")?).await?;
    Ok(Answer(200, profile.ok_or_else(Refused::not_found)?))
}
