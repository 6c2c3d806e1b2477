//! REST: one file a resource, all of them thin: parse, call the command or query, answer.

pub mod accounts;
pub mod body;
pub mod conversations;
pub mod messages;
pub mod openapi;
pub mod people;
pub mod preferences;
pub mod socket;

use super::Edge;
use super::authenticate::Signer;
use super::refused::Refused;
use crate::runtime::config::Origins;
use crate::runtime::metrics::Metrics;
use crate::runtime::trace_context::TraceContext;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use reedi_protocol::ErrorCode;
use std::sync::Arc;
use tower_http::cors::CorsLayer;
use tracing::Instrument;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What handlers share.
#[derive(Clone)]
pub struct Api {
    pub edge: Arc<Edge>,
    /// Where accounts are our own: who signs their tokens.
    pub signer: Option<Signer>,
}

/// All paths of the contract that this server has, and what is told of them; any other is 404.
fn paths(own_accounts: bool) -> OpenApiRouter<Api> {
    let messages = OpenApiRouter::new()
        .routes(routes!(conversations::list))
        .routes(routes!(conversations::create_direct))
        .routes(routes!(conversations::create_group))
        .routes(routes!(conversations::one, conversations::update))
        .routes(routes!(conversations::add_participants))
        .routes(routes!(conversations::leave))
        .routes(routes!(conversations::set_role, conversations::remove_participant))
        .routes(routes!(messages::history, messages::send))
        .routes(routes!(messages::events))
        .routes(routes!(messages::edit, messages::delete))
        .routes(routes!(messages::receipts))
        .routes(routes!(messages::react))
        .routes(routes!(messages::unreact))
        .routes(routes!(preferences::settings, preferences::put_settings))
        .routes(routes!(preferences::blocks))
        .routes(routes!(preferences::is_blocked, preferences::block, preferences::unblock))
        .routes(routes!(socket::upgrade))
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::page));
    let mut router = OpenApiRouter::new()
        .nest("/api/messages", messages)
        .routes(routes!(people::search))
        .routes(routes!(people::profile));
    if own_accounts {
        router = router.routes(routes!(accounts::sign_up)).routes(routes!(accounts::log_in));
    }
    router
}

pub fn router(api: Api) -> Router {
    let (router, _) = paths(api.signer.is_some()).split_for_parts();
    let router = router.fallback(nothing_here).method_not_allowed_fallback(wrong_method);
    let counting = from_fn_with_state(api.edge.metrics.clone(), counted);
    router.layer(counting).layer(from_fn(traced)).with_state(api)
}

/// Which web pages may call this service from a browser.
pub fn cors(origins: &Origins) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([ALLOW, RETRY_AFTER, WWW_AUTHENTICATE])
        .max_age(std::time::Duration::from_secs(3_600));
    match origins {
        Origins::Any => layer.allow_origin(tower_http::cors::Any),
        Origins::These(list) => {
            layer.allow_origin(list.iter().filter_map(|o| HeaderValue::from_str(o).ok()).collect::<Vec<_>>())
        }
    }
}

/// Puts everything that a request comes to under its trace.
async fn traced(request: Request, next: Next) -> Response {
    let header = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let trace = TraceContext::from_header(header);
    let span = tracing::debug_span!("request", trace_id = %trace.trace_id());
    trace.scope(next.run(request)).instrument(span).await
}

/// With what code a request was refused.
#[derive(Clone, Copy)]
struct RefusedWith(ErrorCode);

async fn counted(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(RefusedWith(code)) = response.extensions().get() {
        metrics.refused(*code);
    }
    response
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
        response.extensions_mut().insert(RefusedWith(self.code));
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
