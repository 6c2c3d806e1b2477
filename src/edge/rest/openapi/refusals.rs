//! Which refusals each operation can meet. One response component for each status and set of codes,
//! with an example of each code as the server says it.

use crate::edge::refused::Refused;
use reedi_protocol::{ErrorCode, ErrorCode::*, Timestamp};
use std::collections::BTreeMap;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

/// Whoever needs a token.
const TOKEN: &[ErrorCode] = &[Unauthenticated, InvalidToken, TokenExpired, Unavailable];
/// Whatever takes a JSON body.
const BODY: &[ErrorCode] = &[Malformed, NotUnicode, RequestTimeout, TooLarge, UnsupportedMediaType];
/// Whatever reads the store, or waits until it has caught up.
const STORE: &[ErrorCode] = &[StoreUnavailable];
/// Whatever only reads; `Unavailable` also where as much is answered as there is memory for.
const READ: &[ErrorCode] = &[RateLimited, Unavailable];
/// Whatever makes an event.
const LOG: &[ErrorCode] = &[RateLimited, LogUnavailable, OutcomeUnknown, StoreUnavailable];
/// Whatever names something in its path.
const NAMED: &[ErrorCode] = &[NotUnicode, InvalidValue, NotFound];
/// Whatever changes a group.
const GROUP: &[ErrorCode] = &[Forbidden, NotAGroup, Conflict];

/// `None` for an operation that is not in the table.
pub(super) fn of(operation: &str) -> Option<Vec<ErrorCode>> {
    let parts: &[&[ErrorCode]] = match operation {
        "signUp" => &[BODY, &[InvalidValue, UsernameTaken, RateLimited, Unavailable], STORE],
        "logIn" => &[BODY, &[WrongCredentials, RateLimited, Unavailable], STORE],
        "searchPeople" => &[TOKEN, &[RateLimited]],
        "getPerson" => &[TOKEN, NAMED, READ],
        "getSettings" => &[TOKEN, READ, STORE],
        "putSettings" => &[TOKEN, BODY, &[InvalidValue, RateLimited], STORE],
        "listBlocks" => &[TOKEN, READ, STORE],
        "getBlock" | "deleteBlock" => &[TOKEN, NAMED, READ, STORE],
        "putBlock" => &[TOKEN, &[NotUnicode, InvalidValue, RateLimited], STORE],
        "listConversations" => &[TOKEN, &[InvalidValue], READ, STORE],
        "createDirectConversation" => &[TOKEN, BODY, &[InvalidValue, RecipientUnavailable], LOG],
        "createGroup" => &[TOKEN, BODY, &[InvalidValue, RecipientUnavailable, GroupFull], LOG],
        "getConversation" | "getReceipts" | "getHistory" | "getEvents" => &[TOKEN, NAMED, READ, STORE],
        "updateConversation" => &[TOKEN, BODY, NAMED, GROUP, LOG],
        "addParticipants" => &[TOKEN, BODY, NAMED, GROUP, &[GroupFull, RecipientUnavailable], LOG],
        "leaveGroup" => &[TOKEN, NAMED, &[NotAGroup, Conflict], LOG],
        "removeParticipant" => &[TOKEN, NAMED, GROUP, LOG],
        "setRole" => &[TOKEN, BODY, NAMED, GROUP, &[LastAdmin], LOG],
        "sendMessage" => {
            const OWN: &[ErrorCode] = &[RecipientUnavailable, IdempotencyKeyReused, ClientMessageIdTime];
            &[TOKEN, BODY, NAMED, OWN, LOG]
        }
        "editMessage" => &[TOKEN, BODY, NAMED, &[Forbidden, EditWindowOver, RecipientUnavailable, Gone], LOG],
        "deleteMessage" => &[TOKEN, NAMED, &[Forbidden, EditWindowOver], LOG],
        "addReaction" => &[TOKEN, BODY, NAMED, &[RecipientUnavailable, Gone], LOG],
        "removeReaction" => &[TOKEN, NAMED, LOG],
        "openWebSocket" => &[&[Malformed, InvalidToken, TokenExpired, RateLimited, Unavailable]],
        "getOpenApi" | "getDocs" => return Some(Vec::new()),
        _ => return None,
    };
    let mut codes = parts.concat();
    codes.push(Internal);
    codes.sort_unstable_by_key(|code| (code.status(), code.code()));
    codes.dedup();
    Some(codes)
}

/// Adds them to every operation of the document.
pub(super) fn add(document: &mut OpenApi) {
    let mut responses = BTreeMap::new();
    for operation in operations(document) {
        let codes = operation.operation_id.as_deref().and_then(of).unwrap_or_default();
        for same_status in codes.chunk_by(|a, b| a.status() == b.status()) {
            let status = same_status[0].status().to_string();
            let names: Vec<&str> = same_status.iter().map(|code| code.code()).collect();
            let name = format!("{status}.{}", names.join("."));
            responses.entry(name.clone()).or_insert_with(|| response(same_status));
            operation.responses.responses.insert(status, RefOr::Ref(Ref::from_response_name(name)));
        }
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(responses.into_iter().map(|(name, response)| (name, RefOr::T(response))));
}

/// All operations of the document.
pub(super) fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
    })
}

fn response(codes: &[ErrorCode]) -> Response {
    let lines = codes.iter().map(|code| format!("`{}`: {}.", code.code(), code.title()));
    let description = lines.collect::<Vec<_>>().join(" ");
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    for code in codes {
        let problem = serde_json::to_value(example(*code).problem()).ok();
        let example = ExampleBuilder::new().summary(code.title()).value(problem).build();
        content = content.examples_from_iter([(code.code(), example)]);
    }
    let mut response =
        ResponseBuilder::new().description(description).content("application/problem+json", content.build());
    let header = |of: Type, what: &str| {
        let schema = ObjectBuilder::new().schema_type(of).build();
        HeaderBuilder::new().schema(schema).description(Some(what)).build()
    };
    match codes[0].status() {
        408 | 429 | 503 => {
            let when = header(Type::Integer, "Seconds after which the same request may be tried again.");
            response = response.header("Retry-After", when);
        }
        401 => response = response.header("WWW-Authenticate", header(Type::String, "`Bearer`.")),
        _ => {}
    }
    response.build()
}

/// What the server might say.
fn example(code: ErrorCode) -> Refused {
    match code {
        InvalidValue => Refused::invalid("/participantId", "this is you: name another account"),
        RateLimited => Refused::rate_limited(1_400),
        ClientMessageIdTime => Refused {
            server_time: Some(Timestamp::from_millis(super::examples::NOW_MS)),
            ..Refused::from(code).at("/clientMessageId")
        },
        GroupFull => Refused::from(code).at("/participantIds"),
        OutcomeUnknown => Refused::outcome_unknown(),
        RecipientUnavailable => Refused::recipient_unavailable(),
        code => Refused::from(code),
    }
}
