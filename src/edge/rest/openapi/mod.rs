//! OpenAPI 3.1, made of the handlers' annotations and of the types they take and give: what is
//! routed is documented, and the other way round. `docs/openapi.json` is a copy for reading without a server.

mod examples;
mod refusals;
#[cfg(test)]
mod tests;

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use reedi_protocol::limits;
use std::sync::LazyLock;
use utoipa::openapi::schema::{ObjectBuilder, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{IntoParams, OpenApi as _};

/// The conversation that a path names.
#[derive(IntoParams)]
#[into_params(names("conversationId"), parameter_in = Path)]
pub struct ConversationPath(
    /// The conversation.
    #[allow(dead_code)]
    uuid::Uuid,
);

/// The message that a path names.
#[derive(IntoParams)]
#[into_params(names("messageId"), parameter_in = Path)]
pub struct MessagePath(
    /// The message.
    #[allow(dead_code)]
    uuid::Uuid,
);

/// The account that a path names.
#[derive(IntoParams)]
#[into_params(names("userId"), parameter_in = Path)]
pub struct UserPath(
    /// The account.
    #[allow(dead_code)]
    uuid::Uuid,
);

/// How long a page may be.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LimitQuery {
    /// Most entries of the page.
    #[param(minimum = 1, maximum = 100, default = 50)]
    #[allow(dead_code)]
    limit: Option<u8>,
}

const ABOUT: &str = "\
Direct and group messages over REST. What happens is told on the socket (`docs/events.md`); the same
commands can be given there.

**Requests** are JSON of at most 256 KiB, nested at most 32 deep, in `application/json` or a `+json` type.
Unknown fields are ignored. A missing field and one of another type are 400 `malformed`; a value that has
the right type and cannot be accepted, an unknown word of an enumeration too, is 422 `invalid_value`. Both
name the place in `errors`: a JSON pointer into the body, `?name` for a query parameter (`?` where one is
given twice), or the bare name of a path parameter or header. A query parameter without a value is as one
that is absent, but for `scope`. The head of a request has at most 16 KiB, a token 8 KiB, a body 30 s to arrive.

**Tokens** are JSON Web Tokens (HS256, or RS256, ES256 and EdDSA by the server's key set) whose `sub` is the
account's UUID. `exp` is needed; it and `nbf` have 30 s of leeway. `device_id` (1 to 127) is optional.

**Answers** are JSON: a single thing is the body itself, a list stands under its plural name with
`nextCursor`. Times are RFC 3339 in UTC with milliseconds. Identifiers are UUIDs; those of one
conversation's messages sort as texts in their order. Positions are integers below 2^53.

**Errors** are problem details (RFC 9457, `application/problem+json`) with a stable `code`, by which
programs decide; `title` and `detail` are for people and may change. What one may not see is 404, as if it
did not exist. 408, 429 and 503 come with `Retry-After` in seconds; with 409 `conflict` and 500 `retryAfter`
stands in the body alone. An unknown path is 404 `not_found`, a wrong method of a known one 405
`method_not_allowed` with `Allow`. `log_unavailable` means: surely not done. `outcome_unknown` means:
perhaps done, send the same again. `store_unavailable` means: not readable yet, ask again. What is no
HTTP request at all, or has a head of more than 16 KiB, is 400 or 431 without a body, and the connection ends.

**Reading one's own writes**: history, lists and events wait up to 2 s until the store has everything that
this server acknowledged or told the account, and are refused with `store_unavailable` beyond.

**Rates** (as configured; by default 10 events a second for an account with a burst of 600, 20 for a
conversation with a burst of 1,000) are refused with 429 `rate_limited`.";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Reedi Messaging",
        license(name = "AGPL-3.0-only", identifier = "AGPL-3.0-only"),
    ),
    servers((url = "/", description = "This server")),
    security(("bearer" = [])),
    components(schemas(reedi_protocol::resource::Problem)),
    tags(
        (name = "conversations", description = "Direct conversations and groups."),
        (name = "participants", description = "Who is in a group, and as what."),
        (name = "messages", description = "Messages, what became of them, and what happened meanwhile."),
        (name = "preferences", description = "Settings and blocks."),
        (name = "people", description = "Finding people."),
        (name = "accounts", description = "Accounts of this service's own."),
        (name = "socket", description = "Real time."),
        (name = "about", description = "This description."),
    ),
)]
struct Frame;

/// The whole document: every path that this code can serve.
#[must_use]
pub fn build() -> OpenApi {
    let (_, paths) = super::paths(true).split_for_parts();
    let mut document = Frame::openapi();
    document.info.description = Some(ABOUT.to_owned());
    document.merge(paths);
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let activity = components.schemas.get("Activity").cloned();
    for (name, schema) in &mut components.schemas {
        if name == "Conversation" {
            flatten(schema, activity.as_ref());
        }
        examples::add(name, schema);
        bound(name, schema);
    }
    refusals::add(&mut document);
    document
}

/// What lists add to a conversation stands among its own fields, and elsewhere is absent: the generated schema says that
/// it is either all there or that the conversation is null.
fn flatten(schema: &mut RefOr<Schema>, added: Option<&RefOr<Schema>>) {
    let RefOr::T(Schema::AllOf(all)) = schema else { return };
    let Some(RefOr::T(Schema::Object(added))) = added else { return };
    let own = all.items.iter().find_map(|item| match item {
        RefOr::T(Schema::Object(object)) => Some(object.clone()),
        _ => None,
    });
    let Some(mut own) = own else { return };
    own.description.clone_from(&all.description);
    own.properties.extend(added.properties.clone());
    *schema = RefOr::T(Schema::Object(own));
}

/// Writes the limits of texts into their schemas, from the table that enforces them.
fn bound(name: &str, schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    let (property, least, most) = match name {
        "SendMessage" | "EditMessage" => ("content", 1, limits::CONTENT_BYTES),
        "CreateGroup" | "UpdateConversation" => ("name", 1, limits::NAME_CHARS),
        "React" => ("reaction", 1, limits::REACTION_BYTES),
        "SignUp" => ("username", *limits::USERNAME_CHARS.start(), *limits::USERNAME_CHARS.end()),
        _ => return,
    };
    if let Some(RefOr::T(Schema::Object(text))) = object.properties.get_mut(property) {
        let bounded = ObjectBuilder::from(std::mem::take(text));
        *text = bounded.min_length(Some(least)).max_length(Some(most)).build();
    }
}

/// The document as `docs/openapi.json` has it.
#[must_use]
pub fn json() -> String {
    // It serializes: maps have text keys and numbers are finite.
    let mut text = build().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

static JSON: LazyLock<String> = LazyLock::new(json);
const PAGE: &str = include_str!("page.html");
/// The page runs what is in it and talks to this server alone.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "about",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json", body = Object)),
)]
pub async fn document() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=300")];
    (headers, JSON.as_str())
}

/// A page to read this document.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocs",
    tag = "about",
    security(()),
    responses((status = 200, description = "The page.", content_type = "text/html", body = String)),
)]
pub async fn page() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    (headers, PAGE)
}
