//! What requests bring: who calls, and a JSON body, refused with what is wrong with it.

use super::Api;
use crate::edge::authenticate::Identity;
use crate::edge::command::socket::malformed;
use crate::edge::refused::Refused;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use reedi_protocol::{ErrorCode, frame, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The account that a request comes from.
pub struct Caller(pub Identity);

/// The bearer token of a request, if it brings one.
#[must_use]
pub fn bearer(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let token = bearer(parts).ok_or_else(|| {
            Refused::new(ErrorCode::Unauthenticated, "Give a token: `Authorization: Bearer <token>`.")
        })?;
        Ok(Self(api.edge.verifier.verify(token).await?))
    }
}

/// A JSON body of at most [`limits::FRAME_BYTES`]. Unknown fields are ignored.
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") && !kind.to_ascii_lowercase().ends_with("+json") {
            return Err(Refused::new(
                ErrorCode::UnsupportedMediaType,
                "Send JSON, with Content-Type: application/json.",
            ));
        }
        let bytes = read(request).await?;
        if std::str::from_utf8(&bytes).is_err() {
            return Err(Refused::new(ErrorCode::NotUnicode, "The body is not UTF-8."));
        }
        if !frame::depth_is_bounded(&bytes) {
            let detail = format!("The body nests deeper than {} levels.", limits::JSON_DEPTH);
            return Err(Refused::new(ErrorCode::Malformed, detail));
        }
        let deserializer = &mut serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut *deserializer).map_err(|e| malformed(&e))?;
        deserializer.end().map_err(|e| Refused::new(ErrorCode::Malformed, e.to_string()))?;
        Ok(Self(value))
    }
}

async fn read(request: Request) -> Result<Bytes, Refused> {
    let too_large = || Refused::new(ErrorCode::TooLarge, "A body has at most 256 KiB.");
    let read = axum::body::to_bytes(request.into_body(), limits::FRAME_BYTES);
    match tokio::time::timeout(BODY_WITHIN, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(inner) = source {
                if inner.is::<http_body_util::LengthLimitError>() {
                    return Err(too_large());
                }
                source = inner.source();
            }
            Err(Refused::new(ErrorCode::Malformed, "The body did not arrive whole."))
        }
        Err(_) => Err(Refused::new(ErrorCode::RequestTimeout, "The body took too long to arrive.")),
    }
}

/// A query string, refused with what is wrong with it.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned + 'static> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| Refused::invalid("?", error.body_text()))
    }
}

/// The segments of a path. They are texts: what they name is parsed with everything else.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let axum::extract::Path(segments) = axum::extract::Path::from_request_parts(parts, state)
            .await
            .map_err(|error| Refused::new(ErrorCode::NotUnicode, error.body_text()))?;
        Ok(Self(segments))
    }
}

/// An answer with a JSON body.
pub struct Answer<T>(pub u16, pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.0).unwrap_or_default();
        (status, axum::Json(self.1)).into_response()
    }
}

/// Taken away.
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        axum::http::StatusCode::NO_CONTENT.into_response()
    }
}
