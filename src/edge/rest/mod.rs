//! REST: one file a resource, all of them thin: parse, call the command or query, answer.

pub mod accounts;
pub mod body;
pub mod conversations;
pub mod messages;
pub mod people;
pub mod preferences;
pub mod socket;

use super::Edge;
use super::authenticate::Signer;
use super::refused::Refused;
use crate::runtime::config::Origins;
use axum::Router;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use reedi_protocol::ErrorCode;
use std::sync::Arc;
use tower_http::cors::CorsLayer;

/// What handlers share.
#[derive(Clone)]
pub struct Api {
    pub edge: Arc<Edge>,
    /// Where accounts are our own: who signs their tokens.
    pub signer: Option<Signer>,
}

/// All paths of the contract that this server has; any other is 404.
pub fn router(api: Api) -> Router {
    let messages = Router::new()
        .route("/conversations", get(conversations::list))
        .route("/conversations/direct", post(conversations::create_direct))
        .route("/conversations/group", post(conversations::create_group))
        .route("/conversations/{conversation_id}", get(conversations::one).put(conversations::update))
        .route("/conversations/{conversation_id}/participants", post(conversations::add_participants))
        .route("/conversations/{conversation_id}/participants/me", delete(conversations::leave))
        .route(
            "/conversations/{conversation_id}/participants/{user_id}",
            put(conversations::set_role).delete(conversations::remove_participant),
        )
        .route("/conversations/{conversation_id}/messages", get(messages::history).post(messages::send))
        .route("/conversations/{conversation_id}/events", get(messages::events))
        .route("/messages/{message_id}", put(messages::edit).delete(messages::delete))
        .route("/messages/{message_id}/receipts", get(messages::receipts))
        .route("/messages/{message_id}/reactions", post(messages::react))
        .route("/messages/{message_id}/reactions/{reaction}", delete(messages::unreact))
        .route("/settings", get(preferences::settings).put(preferences::put_settings))
        .route("/blocks", get(preferences::blocks))
        .route(
            "/blocks/{user_id}",
            get(preferences::is_blocked).put(preferences::block).delete(preferences::unblock),
        )
        .route("/ws", get(socket::upgrade));
    let mut router = Router::new()
        .nest("/api/messages", messages)
        .route("/api/users", get(people::search))
        .route("/api/users/{user_id}", get(people::profile));
    if api.signer.is_some() {
        router = router
            .route("/api/auth/signup", post(accounts::sign_up))
            .route("/api/auth/login", post(accounts::log_in));
    }
    router.fallback(nothing_here).method_not_allowed_fallback(wrong_method).with_state(api)
}

/// Which web pages may call this service from a browser.
pub fn cors(origins: &Origins) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("idempotency-key")])
        .max_age(std::time::Duration::from_secs(3_600));
    match origins {
        Origins::Any => layer.allow_origin(tower_http::cors::Any),
        Origins::These(list) => {
            layer.allow_origin(list.iter().filter_map(|o| HeaderValue::from_str(o).ok()).collect::<Vec<_>>())
        }
    }
}

async fn nothing_here() -> Refused {
    Refused::new(ErrorCode::NotFound, "There is no such path.")
}

async fn wrong_method(request: Request) -> Refused {
    Refused::new(ErrorCode::MethodNotAllowed, format!("This path does not take {}.", request.method()))
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [("content-type", "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after.filter(|_| matches!(problem.status, 408 | 429 | 503)) {
            headers.insert("retry-after", seconds.into());
        }
        if problem.status == 401 {
            headers.insert("www-authenticate", axum::http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
