//! People of a test: an account, its token, and what they ask of any edge.

use super::backend::SECRET;
use super::cluster::{Cluster, WITHIN};
use super::session::Session;
use jsonwebtoken::{EncodingKey, Header};
use reedi_client::Token;
use reedi_protocol::AccountId;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One test's view of a cluster.
pub struct Scene {
    pub cluster: &'static Cluster,
    pub urls: Vec<String>,
    http: Client,
}

impl Scene {
    pub fn on(cluster: &'static Cluster) -> Self {
        Self { cluster, urls: cluster.urls(), http: http() }
    }

    /// Somebody new.
    pub fn person(&self) -> Person {
        let account = AccountId::new(uuid::Uuid::new_v4());
        let (urls, cluster, http) = (self.urls.clone(), self.cluster, self.http.clone());
        Person { account, token: token(account, None, 3_600), urls, cluster, http }
    }

    pub fn people<const N: usize>(&self) -> [Person; N] {
        std::array::from_fn(|_| self.person())
    }

    /// Whoever asks without a token.
    pub fn nobody(&self, url: &str) -> Caller {
        Caller { url: url.to_owned(), token: None, http: self.http.clone() }
    }
}

/// Less than the ten seconds after which a server closes a connection on which nothing comes: a request that
/// goes out in that moment is answered by nobody.
const KEPT_FOR: Duration = Duration::from_secs(4);

/// A client of this test's runtime; connections are not kept for others.
pub fn http() -> Client {
    Client::builder().no_proxy().pool_idle_timeout(KEPT_FOR).timeout(WITHIN).build().expect("a client")
}

/// A token that is valid for `seconds` from now; it may lie in the past.
pub fn token(account: AccountId, device: Option<u8>, seconds: i64) -> String {
    let mut claims = json!({ "sub": account, "exp": now_ms() as i64 / 1_000 + seconds });
    if let Some(device) = device {
        claims["device_id"] = device.into();
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it signs")
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

#[derive(Clone)]
pub struct Person {
    pub account: AccountId,
    pub token: String,
    urls: Vec<String>,
    cluster: &'static Cluster,
    http: Client,
}

impl Person {
    pub fn id(&self) -> String {
        self.account.to_string()
    }

    /// REST at one of the edges.
    pub fn at(&self, edge: usize) -> Caller {
        self.at_url(&self.urls[edge % self.urls.len()])
    }

    pub fn at_url(&self, url: &str) -> Caller {
        Caller { url: url.to_owned(), token: Some(self.token.clone()), http: self.http.clone() }
    }

    /// A socket to one of the edges.
    pub async fn socket(&self, edge: usize) -> Session {
        Session::open(&self.urls[edge % self.urls.len()], &self.token).await
    }

    pub async fn socket_with(&self, edge: usize, token: &str) -> Session {
        Session::open(&self.urls[edge % self.urls.len()], token).await
    }

    pub fn token(&self) -> Token {
        Token::new(&self.token)
    }

    /// The direct conversation with somebody.
    pub async fn direct(&self, with: &Self) -> String {
        let body = json!({ "participantId": with.id() });
        let made = self.at(0).post("/conversations/direct", &body).await;
        assert!(matches!(made.status, 200 | 201), "{made:?}");
        made.text("conversationId")
    }

    /// A new group, of which this one is admin.
    pub async fn group(&self, others: &[&Self]) -> String {
        let ids: Vec<String> = others.iter().map(|other| other.id()).collect();
        let body = json!({ "name": "A group", "participantIds": ids });
        self.at(0).post("/conversations/group", &body).await.expect(201).text("conversationId")
    }

    /// Sends a text by REST; gives the message, once any edge finds it in the store.
    pub async fn send(&self, edge: usize, conversation: &str, text: &str) -> Value {
        let body = json!({ "content": text, "messageType": "text" });
        let path = format!("/conversations/{conversation}/messages");
        let sent = self.at(edge).post(&path, &body).await.expect(201).body;
        self.cluster.stored(conversation).await;
        sent
    }
}

/// REST as one account, or nobody, at one edge. Paths follow `/api/messages`, unless they begin with `/api/`.
pub struct Caller {
    url: String,
    token: Option<String>,
    http: Client,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Caller {
    pub fn new(url: &str, token: &str) -> Self {
        Self { url: url.to_owned(), token: Some(token.to_owned()), http: http() }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = if path.starts_with("/api/") { path.to_owned() } else { format!("/api/messages{path}") };
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// As [`Self::post`], or how the connection failed.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        Answer::or_failure(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// The texts of a conversation's newest page, oldest first; null where the content is gone.
    pub async fn texts(&self, conversation: &str) -> Vec<Value> {
        let page = self.get(&format!("/conversations/{conversation}/messages?limit=100")).await.expect(200);
        let mut texts: Vec<Value> =
            page.list("messages").into_iter().map(|message| message["content"].clone()).collect();
        texts.reverse();
        texts
    }
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        Self::or_failure(request).await.expect("an answer")
    }

    async fn or_failure(request: reqwest::RequestBuilder) -> Result<Self, reqwest::Error> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await?;
        let body =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or_default() };
        Ok(Self { status, headers, body })
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }

    /// A problem document of this status and code (RFC 9457).
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{:?}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(self.body[field].is_string(), "{field} is missing in {:?}", self.body);
        }
        if matches!(status, 429 | 503) {
            assert!(self.headers.contains_key("retry-after"), "{:?}", self.headers);
        }
        self
    }

    /// A 422 that points at `pointer`.
    #[track_caller]
    pub fn invalid(self, pointer: &str) -> Self {
        let answer = self.refused(422, "invalid_value");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{:?}", answer.body);
        answer
    }

    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {:?}", self.body)).to_owned()
    }

    #[track_caller]
    pub fn list(&self, field: &str) -> Vec<Value> {
        self.body[field].as_array().unwrap_or_else(|| panic!("no {field} in {:?}", self.body)).clone()
    }
}
