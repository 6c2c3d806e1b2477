//! What requests bring: who calls, and a JSON body, refused with what is wrong with it.

use super::Api;
use crate::edge::answer_room::ReadUnderWay;
use crate::edge::authenticate::Identity;
use crate::edge::body_room::{BodyRoom, SMALL_BODY};
use crate::edge::command::socket::from_json;
use crate::edge::fair_share::TakenPlace;
use crate::edge::refused::{Outcome, Refused};
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body_util::BodyExt;
use reedi_protocol::{ErrorCode, frame, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::error::Error as _;
use std::time::Duration;

/// What of a body that is too large is read and thrown away, in bytes: a connection closed over unread
/// bytes is reset, and the client would never see why.
const DISCARD_MOST: usize = 16 << 20;
/// Query parameters that are as good as absent where they are empty. Not `scope`: what was deleted for everyone by mistake
/// does not come back.
const MAY_BE_EMPTY: [&str; 5] = ["limit", "cursor", "before", "after", "around"];
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The account that a request comes from.
pub struct Caller(pub Identity);

/// A header that means something only if it comes once: of two, a proxy in front may have judged by the
/// other. `None` where it is absent or no text.
///
/// # Errors
/// It comes twice.
pub fn once<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => {
            Err(Refused::new(ErrorCode::Malformed, format!("The header {name} comes twice: send it once.")))
        }
        (value, None) => Ok(value.and_then(|value| value.to_str().ok())),
    }
}

/// The bearer token of a request, if it brings one.
///
/// # Errors
/// It brings two.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let header = once(headers, AUTHORIZATION.as_str())?;
    let token = header.and_then(|header| header.split_once(' '));
    Ok(token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim()))
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let token = bearer(&parts.headers)?.ok_or_else(|| {
            Refused::new(ErrorCode::Unauthenticated, "Give a token: `Authorization: Bearer <token>`.")
        })?;
        Ok(Self(api.edge.verifier.verify(token).await?))
    }
}

/// The account that a request to read comes from, counted.
pub struct Reader(pub Identity);

impl FromRequestParts<Api> for Reader {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let Caller(identity) = Caller::from_request_parts(parts, api).await?;
        api.edge.admission.read(identity.account, api.edge.clock.now()).await?;
        Ok(Self(identity))
    }
}

/// A JSON body of at most [`limits::FRAME_BYTES`]. Unknown fields are ignored.
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let kind = once(request.headers(), CONTENT_TYPE.as_str())?.unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") && !kind.to_ascii_lowercase().ends_with("+json") {
            return Err(Refused::new(
                ErrorCode::UnsupportedMediaType,
                "Send JSON, with Content-Type: application/json.",
            ));
        }
        let (bytes, _place) = read(request).await?;
        if std::str::from_utf8(&bytes).is_err() {
            return Err(Refused::new(ErrorCode::NotUnicode, "The body is not UTF-8."));
        }
        if !frame::depth_is_bounded(&bytes) {
            let detail = format!("The body nests deeper than {} levels.", limits::JSON_DEPTH);
            return Err(Refused::new(ErrorCode::Malformed, detail));
        }
        Ok(Self(from_json(&bytes)?))
    }
}

/// The whole body, and its place where it is large.
async fn read(request: Request) -> Outcome<(Bytes, Option<TakenPlace>)> {
    let told = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let waits = request.headers().contains_key(EXPECT);
    if waits && told.is_some_and(|bytes| bytes > limits::FRAME_BYTES as u64) {
        // It has not sent it yet.
        return Err(too_large());
    }
    let (room, from) = (request.extensions().get().cloned(), request.extensions().get().copied());
    let place = move || match (room, from) {
        (Some(room), Some(from)) => BodyRoom::take(&room, from).map(Some),
        // Not through our listener.
        _ => Ok(None),
    };
    let read = tokio::time::timeout(BODY_WITHIN, collect(request.into_body(), place)).await;
    read.unwrap_or_else(|_| Err(Refused::new(ErrorCode::RequestTimeout, "The body took too long to arrive.")))
}

/// The same, with `place` to take one by. What is refused is read on and thrown away, so that its client sees why.
async fn collect(
    mut body: Body,
    place: impl FnOnce() -> Outcome<Option<TakenPlace>>,
) -> Outcome<(Bytes, Option<TakenPlace>)> {
    let (mut whole, mut seen) = (BytesMut::new(), 0);
    let (mut place, mut taken, mut refused) = (Some(place), None, None);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Refused::new(ErrorCode::Malformed, "The body did not arrive whole."))?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen > DISCARD_MOST {
            break;
        }
        if seen > SMALL_BODY
            && let Some(place) = place.take()
        {
            match place() {
                Ok(place) => taken = place,
                Err(error) => refused = Some(error),
            }
        }
        if seen > limits::FRAME_BYTES {
            refused = Some(too_large());
        }
        if refused.is_none() {
            whole.extend_from_slice(&data);
        } else {
            (whole, taken) = (BytesMut::new(), None);
        }
    }
    match refused {
        Some(refused) => Err(refused),
        None => Ok((whole.freeze(), taken)),
    }
}

fn too_large() -> Refused {
    Refused::new(ErrorCode::TooLarge, "A body has at most 256 KiB.")
}

/// A query string, refused with what is wrong with it. A parameter without a value is as one that is absent.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned + 'static> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let is_given = |pair: &&str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            !value.is_empty() || !MAY_BE_EMPTY.contains(&name)
        };
        let query = parts.uri.query().unwrap_or_default();
        let given = query.split('&').filter(is_given).collect::<Vec<_>>().join("&");
        // Some of the pairs of a URI make one.
        let given = Uri::try_from(format!("/?{given}")).unwrap_or_default();
        axum::extract::Query::try_from_uri(&given)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| Refused::invalid(&format!("?{}", parameter(&error)), error.body_text()))
    }
}

/// The parameter that cannot be read; nothing where it is no single one.
fn parameter(error: &QueryRejection) -> &str {
    type AtPath = serde_path_to_error::Error<serde::de::value::Error>;
    let mut cause = error.source();
    let at = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
    .find_map(|error| error.downcast_ref::<AtPath>());
    match at.and_then(|at| at.path().iter().next()) {
        Some(Segment::Map { key }) => key.as_str(),
        _ => "",
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

/// The answer to a read that had to have room.
pub struct Page<T>(pub ReadUnderWay, pub T);

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let Self(reading, value) = self;
        let json = match serde_json::to_vec(&value) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                return Refused::from(ErrorCode::Internal).into_response();
            }
        };
        drop(value);
        match reading.answer(json) {
            Ok((bytes, on_its_way)) => {
                let mut response = ([(CONTENT_TYPE, "application/json")], bytes).into_response();
                response.extensions_mut().insert(on_its_way);
                response
            }
            Err(refused) => refused.into_response(),
        }
    }
}

/// Taken away.
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        axum::http::StatusCode::NO_CONTENT.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::client_address::ClientAddress;
    use crate::runtime::metrics::Metrics;
    use futures_util::stream;
    use reedi_protocol::command::{DeleteMessage, DeleteScope, EditMessage};
    use std::convert::Infallible;

    fn request(body: Body) -> Request {
        Request::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
    }

    async fn refusal(body: Body) -> ErrorCode {
        Json::<EditMessage>::from_request(request(body), &()).await.err().unwrap().code
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let begun = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{\"content\":"))]);
        let never = futures_util::StreamExt::chain(begun, stream::pending());
        let asked = tokio::time::Instant::now();
        assert_eq!(refusal(Body::from_stream(never)).await, ErrorCode::RequestTimeout);
        assert_eq!(asked.elapsed().as_secs(), BODY_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let drips = stream::unfold((), |()| async {
            tokio::time::advance(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        });
        assert_eq!(refusal(Body::from_stream(drips)).await, ErrorCode::RequestTimeout);
    }

    #[tokio::test]
    async fn a_large_body_takes_a_place_and_a_small_one_none() {
        let room = BodyRoom::new(Metrics::new());
        let client = ClientAddress::of_peer("192.0.2.1".parse().unwrap());
        let asks = async |bytes: usize| {
            let mut asks = request(Body::from(format!(r#"{{"content":"{}"}}"#, "x".repeat(bytes))));
            asks.extensions_mut().insert(room.clone());
            asks.extensions_mut().insert(client);
            Json::<EditMessage>::from_request(asks, &()).await.err()
        };
        let taken: Vec<_> = std::iter::from_fn(|| room.take(client).ok()).collect();
        assert!(!taken.is_empty());
        let refused = asks(SMALL_BODY).await.expect("none is left");
        assert_eq!((refused.code, refused.retry_after), (ErrorCode::RateLimited, Some(1)));
        assert_eq!(asks(limits::FRAME_BYTES).await.map(|refused| refused.code), Some(ErrorCode::TooLarge));
        assert_eq!(asks(SMALL_BODY / 2).await, None);
        drop(taken);
        for _ in 0..1_000 {
            assert_eq!(asks(SMALL_BODY).await, None, "each place is given back");
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_too_large() {
        let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b' '; 65_536])));
        assert_eq!(refusal(Body::from_stream(endless)).await, ErrorCode::TooLarge);
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Asked {
        after: Option<u64>,
        limit: Option<usize>,
        cursor: Option<String>,
    }

    async fn queried<T: DeserializeOwned + 'static>(query: &str) -> Result<T, Refused> {
        let request = Request::builder().uri(format!("/events?{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        Query::from_request_parts(&mut parts, &()).await.map(|Query(asked)| asked)
    }

    #[tokio::test]
    async fn a_parameter_without_a_value_is_absent() {
        let nothing = Asked { after: None, limit: None, cursor: None };
        for query in ["", "after=&limit=&cursor=", "after&limit&cursor", "&&=&", "other=1"] {
            assert_eq!(queried::<Asked>(query).await.as_ref(), Ok(&nothing), "{query}");
        }
        let some = queried::<Asked>("cursor=a%3D%26b=&limit=&after=7").await;
        assert_eq!(some, Ok(Asked { after: Some(7), limit: None, cursor: Some("a=&b=".into()) }));
        let everyone = queried::<DeleteMessage>("").await.map(|asked| asked.scope);
        assert_eq!(everyone, Ok(DeleteScope::Everyone));
        let refused = queried::<DeleteMessage>("scope=").await.unwrap_err();
        assert_eq!(refused.fields[0].pointer, "?scope", "for everyone only where that is said, or nothing");
    }

    #[tokio::test]
    async fn a_parameter_that_cannot_be_read_is_named() {
        let pointers = |refused: Refused| refused.fields.into_iter().map(|field| field.pointer);
        for (query, pointer) in
            [("limit=abc", "?limit"), ("limit=5&after=-1", "?after"), ("limit=5&limit=6", "?")]
        {
            let refused = queried::<Asked>(query).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidValue);
            assert_eq!(pointers(refused).collect::<Vec<_>>(), [pointer], "{query}");
        }
        let refused = queried::<DeleteMessage>("scope=all").await.unwrap_err();
        assert_eq!(pointers(refused).collect::<Vec<_>>(), ["?scope"]);
    }

    #[tokio::test]
    async fn who_asks_first_is_told_before_sending() {
        let mut asks = request(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()));
        asks.headers_mut().insert(EXPECT, "100-continue".parse().unwrap());
        asks.headers_mut().insert(CONTENT_LENGTH, "300000".parse().unwrap());
        let refused = Json::<EditMessage>::from_request(asks, &()).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::TooLarge);
    }
}
