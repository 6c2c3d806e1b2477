//! Well-formed HTTP with bad things in it, and what every refusal must be.

use reedi_protocol::ErrorCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::net::SocketAddr;

#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A request that may be wrong in any part.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { base: format!("http://{address}"), token: token.map(str::to_owned), http }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub async fn send(&self, request: Request<'_>) -> Reply {
        let method = Method::from_bytes(request.method.as_bytes()).expect("a method");
        let mut sent = self.http.request(method, format!("{}{}", self.base, request.path));
        if let Some(token) = &self.token {
            sent = sent.bearer_auth(token);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers {
            let name: HeaderName = name.parse().expect("a header's name");
            headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        let answer = sent.headers(headers).body(request.body).send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        Reply { status, headers, body: answer.bytes().await.expect("a whole answer").to_vec() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request { method: "GET", path, headers: Vec::new(), body: Vec::new() }).await
    }

    pub async fn json(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Reply {
        let headers = vec![("content-type", "application/json")];
        self.send(Request { method, path, headers, body: body.into() }).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.json("POST", path, body.to_string()).await
    }
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Checks that this is a refusal as the contract describes them (RFC 9457), of one of `codes`.
    #[track_caller]
    pub fn refuses(&self, what: &str, codes: &[ErrorCode]) {
        let text = String::from_utf8_lossy(&self.body);
        let seen = format!("{what}: {} {text}", self.status);
        assert!(self.status.is_client_error() || self.status == 503, "no refusal of the client: {seen}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{seen}");
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {seen}"));
        let code = ErrorCode::ALL.iter().find(|code| problem["code"] == code.code());
        let code = code.unwrap_or_else(|| panic!("not a code of the contract: {seen}"));
        assert!(codes.contains(code), "{code} is none of {codes:?}: {seen}");
        assert_eq!(problem["status"], self.status.as_u16(), "{seen}");
        assert_eq!(problem["type"], format!("urn:reedi:error:{code}"), "{seen}");
        assert_eq!(problem["title"], code.title(), "{seen}");
        assert!(problem["detail"].as_str().is_some_and(|d| d.len() > 3), "says nothing: {seen}");
        match self.status.as_u16() {
            401 => assert_eq!(self.header("www-authenticate"), Some("Bearer"), "{seen}"),
            405 => assert!(self.header("allow").is_some_and(|a| !a.is_empty()), "no Allow: {seen}"),
            429 | 503 => {
                let seconds = self.header("retry-after").and_then(|s| s.parse::<u64>().ok());
                assert!(seconds.is_some_and(|s| s >= 1), "no Retry-After: {seen}");
            }
            422 => assert!(!problem["errors"].as_array().is_none_or(Vec::is_empty), "no pointer: {seen}"),
            _ => {}
        }
    }

    /// The pointers to what is wrong.
    #[track_caller]
    pub fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(|e| e["pointer"].as_str().map(str::to_owned)).collect()
    }
}
