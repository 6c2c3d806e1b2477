//! The REST API, typed. No call is repeated by itself: whoever calls knows whether it may be.

mod accounts;
mod conversations;
mod messages;

pub use messages::Page;

use crate::credentials::Token;
use crate::endpoint::Endpoint;
use crate::error::RestError;
use parking_lot::Mutex;
use reedi_protocol::resource::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one answer that are read before it is refused: a page of 100 messages of 64 KiB, each
/// byte of which JSON may escape into six, and room for the fields around them.
const ANSWER_BYTES: usize = 48 * 1024 * 1024;

/// Limits of REST calls.
#[derive(Clone, Copy, Debug)]
pub struct RestOptions {
    pub connect_within: Duration,
    /// For a whole call, the body included. Longer than the 2 s that a server may wait for its store.
    pub answer_within: Duration,
    /// Idle connections kept per server.
    pub idle_connections: usize,
}

impl Default for RestOptions {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(15),
            idle_connections: 4,
        }
    }
}

/// Typed REST calls. Clones share connections and token.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    endpoint: Endpoint,
    token: Arc<Mutex<Option<Token>>>,
}

impl Rest {
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(endpoint: Endpoint, options: RestOptions) -> Result<Self, RestError> {
        let http = reqwest::Client::builder()
            .connect_timeout(options.connect_within)
            .timeout(options.answer_within)
            .pool_max_idle_per_host(options.idle_connections)
            // The socket takes no proxy from the environment; REST must meet the same server.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| RestError::Request(e.to_string()))?;
        Ok(Self { http, endpoint, token: Arc::default() })
    }

    /// The same connections for another account: ten thousand clients need not ten thousand pools.
    #[must_use]
    pub fn for_token(&self, token: Token) -> Self {
        Self {
            http: self.http.clone(),
            endpoint: self.endpoint.clone(),
            token: Arc::new(Mutex::new(Some(token))),
        }
    }

    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The token that calls are made with.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.token.lock().clone()
    }

    pub fn set_token(&self, token: Token) {
        *self.token.lock() = Some(token);
    }

    /// A call of the messaging API; `parts` follow `/api/messages`.
    fn messages(&self, method: Method, parts: &[&str]) -> Call {
        self.at(method, &[&["api", "messages"], parts].concat())
    }

    fn at(&self, method: Method, parts: &[&str]) -> Call {
        let mut request = self.http.request(method, self.endpoint.resource(parts));
        if let Some(token) = self.token() {
            request = request.bearer_auth(token.expose());
        }
        Call { request, server: self.endpoint.to_string() }
    }
}

/// One call being put together.
struct Call {
    request: RequestBuilder,
    server: String,
}

impl Call {
    fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        Self { request: self.request.query(query), ..self }
    }

    fn body<T: Serialize>(self, body: &T) -> Self {
        Self { request: self.request.json(body), ..self }
    }

    /// For an answer with a body.
    async fn json<T: DeserializeOwned>(self) -> Result<T, RestError> {
        Ok(self.json_and_status().await?.0)
    }

    /// For an answer whose status tells what was made (201) from what stood already (200).
    async fn json_and_made<T: DeserializeOwned>(self) -> Result<(T, bool), RestError> {
        let (value, status) = self.json_and_status().await?;
        Ok((value, status == StatusCode::CREATED))
    }

    /// For an answer of which only the success matters.
    async fn done(self) -> Result<(), RestError> {
        self.answer().await.map(drop)
    }

    async fn json_and_status<T: DeserializeOwned>(self) -> Result<(T, StatusCode), RestError> {
        let (status, body) = self.answer().await?;
        let value = serde_json::from_slice(&body)
            .map_err(|e| RestError::NotOurs { status: status.as_u16(), why: e.to_string() })?;
        Ok((value, status))
    }

    async fn answer(self) -> Result<(StatusCode, Vec<u8>), RestError> {
        let server = self.server;
        let response = self.request.send().await.map_err(|e| failed(&server, e))?;
        let (status, retry_after) = (response.status(), retry_after_header(&response));
        let body = read_bounded(&server, response).await?;
        if status.is_success() {
            return Ok((status, body));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(mut problem) => {
                problem.retry_after = problem.retry_after.or(retry_after);
                Err(RestError::Refused(Box::new(problem)))
            }
            Err(_) => Err(RestError::NotOurs { status: status.as_u16(), why: "no problem document".into() }),
        }
    }
}

fn failed(server: &str, source: reqwest::Error) -> RestError {
    if source.is_builder() {
        return RestError::Request(source.to_string());
    }
    // The URL within carries no secret, yet says nothing that `server` does not.
    RestError::Unreachable { server: server.to_owned(), source: source.without_url() }
}

fn retry_after_header(response: &Response) -> Option<u64> {
    response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

async fn read_bounded(server: &str, mut response: Response) -> Result<Vec<u8>, RestError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(server, e))? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(RestError::NotOurs {
                status: response.status().as_u16(),
                why: format!("more than {ANSWER_BYTES} bytes"),
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
