//! Every path of the contract, with a body that it takes; and what is wrong with paths and queries.

use crate::http::Request;
use crate::service::{self, Person};
use reedi_protocol::ErrorCode;
use uuid::Uuid;

/// A call. In the path `{c}` stands for a conversation, `{m}` for a message, `{u}` for an account.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub body: Option<&'static str>,
}

const fn call(method: &'static str, path: &'static str, body: Option<&'static str>) -> Route {
    Route { method, path, body }
}

const SEND: Option<&str> = Some(r#"{"content":"hello","messageType":"text"}"#);
const NOBODY: &str = "00000000-0000-4000-8000-000000000001";

/// What needs a token.
pub const ROUTES: &[Route] = &[
    call("GET", "/api/messages/conversations", None),
    call("POST", "/api/messages/conversations/direct", Some(r#"{"participantId":"{u}"}"#)),
    call(
        "POST",
        "/api/messages/conversations/group",
        Some(r#"{"name":"us","participantIds":["{u}"],"avatarUrl":"https://example.org/a"}"#),
    ),
    call("GET", "/api/messages/conversations/{c}", None),
    call("PUT", "/api/messages/conversations/{c}", Some(r#"{"mutedUntil":null}"#)),
    call("POST", "/api/messages/conversations/{c}/participants", Some(r#"{"participantIds":["{u}"]}"#)),
    call("DELETE", "/api/messages/conversations/{c}/participants/me", None),
    call("PUT", "/api/messages/conversations/{c}/participants/{u}", Some(r#"{"role":"member"}"#)),
    call("DELETE", "/api/messages/conversations/{c}/participants/{u}", None),
    call("GET", "/api/messages/conversations/{c}/messages", None),
    call("POST", "/api/messages/conversations/{c}/messages", SEND),
    call("GET", "/api/messages/conversations/{c}/events", None),
    call("PUT", "/api/messages/messages/{m}", Some(r#"{"content":"hello"}"#)),
    call("DELETE", "/api/messages/messages/{m}", None),
    call("GET", "/api/messages/messages/{m}/receipts", None),
    call("POST", "/api/messages/messages/{m}/reactions", Some(r#"{"reaction":"👍"}"#)),
    call("DELETE", "/api/messages/messages/{m}/reactions/%F0%9F%91%8D", None),
    call("GET", "/api/messages/settings", None),
    call(
        "PUT",
        "/api/messages/settings",
        Some(r#"{"messagesFrom":"everyone","readReceipts":true,"presence":"everyone"}"#),
    ),
    call("GET", "/api/messages/blocks", None),
    call("GET", "/api/messages/blocks/{u}", None),
    call("PUT", "/api/messages/blocks/{u}", None),
    call("DELETE", "/api/messages/blocks/{u}", None),
    call("GET", "/api/users?query=a", None),
    call("GET", "/api/users/{u}", None),
];

/// What gives a token.
pub const OPEN_ROUTES: &[Route] = &[
    call("POST", "/api/auth/signup", Some(r#"{"username":"somebody","password":"correct horse"}"#)),
    call("POST", "/api/auth/login", Some(r#"{"username":"somebody","password":"correct horse"}"#)),
];

impl Route {
    /// The path and the body with ids in them.
    pub fn filled(&self, conversation: &str, message: &str, account: &str) -> (String, Option<String>) {
        let fill =
            |text: &str| text.replace("{c}", conversation).replace("{m}", message).replace("{u}", account);
        (fill(self.path), self.body.map(fill))
    }
}

impl Person {
    pub async fn calls(&self, route: &Route, conversation: &str, message: &str) -> crate::http::Reply {
        let (path, body) = route.filled(conversation, message, NOBODY);
        match body {
            Some(body) => self.client.json(route.method, &path, body).await,
            None => {
                let (headers, body) = (Vec::new(), Vec::new());
                self.client.send(Request { method: route.method, path: &path, headers, body }).await
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let service = service::shared().await;
    let person = service.person();
    for route in ROUTES.iter().chain(OPEN_ROUTES) {
        let (path, _) = route.filled(NOBODY, NOBODY, NOBODY);
        for method in ["PATCH", "TRACE", "BREW"] {
            let reply = person.client.json(method, &path, "{}").await;
            reply.refuses(&format!("{method} {path}"), &[ErrorCode::MethodNotAllowed]);
            let allow = reply.headers["allow"].to_str().unwrap_or_default().to_owned();
            assert!(
                allow.split(',').any(|m| m.trim() == route.method),
                "{path} takes {} and says {allow}",
                route.method
            );
        }
    }
}

#[tokio::test]
async fn ids_that_are_none_get_a_pointer_or_nothing_at_all() {
    let service = service::shared().await;
    let person = service.person();
    let not_ids = [
        "x",
        "0",
        "me%20too",
        "%00",
        "%F0%9F%91%8D",
        "00000000-0000-0000-0000-00000000000g",
        "..%2F..%2Fetc",
        "-1",
        "1e9",
        "null",
    ];
    let other = Uuid::new_v4().to_string();
    for route in ROUTES.iter().filter(|route| route.path.contains('{')) {
        let (good, body) = route.filled(&other, &other, &other);
        for id in not_ids {
            let path = route.path.replace("{c}", id).replace("{m}", id).replace("{u}", id);
            let body = body.clone().unwrap_or_default();
            let reply = person.client.json(route.method, &path, body).await;
            reply.refuses(
                &format!("{} {path}", route.method),
                &[ErrorCode::InvalidValue, ErrorCode::NotFound],
            );
        }
        if route.path.contains("{c}") || route.path.contains("{m}") {
            let reply = person.client.json(route.method, &good, body.unwrap_or_default()).await;
            reply.refuses(&format!("{} {good}", route.method), &[ErrorCode::NotFound]);
        }
    }
}

#[tokio::test]
async fn ids_in_bodies_get_a_pointer() {
    let service = service::shared().await;
    let (person, _, conversation) = service.pair().await;
    let group = person
        .client
        .json("POST", "/api/messages/conversations/group", r#"{"name":"us","participantIds":[]}"#)
        .await;
    let group = group.json()["conversationId"].as_str().expect("an id").to_owned();
    let cases = [
        ("/api/messages/conversations/direct".to_owned(), r#"{"participantId":"x"}"#, "/participantId"),
        ("/api/messages/conversations/direct".to_owned(), r#"{"participantId":"\u0000"}"#, "/participantId"),
        (
            "/api/messages/conversations/group".to_owned(),
            r#"{"name":"us","participantIds":["00000000-0000-4000-8000-000000000001","x"]}"#,
            "/participantIds/1",
        ),
        (
            format!("/api/messages/conversations/{group}/participants"),
            r#"{"participantIds":["x"]}"#,
            "/participantIds/0",
        ),
        (
            service::messages(&conversation),
            r#"{"content":"a","messageType":"text","replyToId":"x"}"#,
            "/replyToId",
        ),
        (
            service::messages(&conversation),
            r#"{"content":"a","messageType":"text","clientMessageId":""}"#,
            "/clientMessageId",
        ),
        (service::messages(&conversation), r#"{"content":"a","messageType":"system"}"#, "/messageType"),
        (service::messages(&conversation), r#"{"content":"","messageType":"text"}"#, "/content"),
    ];
    for (path, body, pointer) in cases {
        let reply = person.client.json("POST", &path, body).await;
        reply.refuses(&format!("{path} {body}"), &[ErrorCode::InvalidValue]);
        assert_eq!(reply.pointers(), [pointer], "{path} {body}");
    }
}

#[tokio::test]
async fn paths_that_are_none_are_not_found() {
    let service = service::shared().await;
    let person = service.person();
    for path in [
        "/",
        "/api",
        "/api/messages",
        "/api/messages/",
        "/api/messages/conversations/",
        "/api/messages/keys",
        "/api/messages/media",
        "/api/messages/conversations/%2e%2e/%2e%2e/etc/passwd",
        "/api/messages/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//api/messages/conversations",
        "/api//messages/conversations",
        "/api/messages/conversations/a/b/c/d/e/f",
        "/%00",
        "/%FF%FE",
        "/metrics",
        "/api/messages/CONVERSATIONS",
    ] {
        let reply = person.client.get(path).await;
        reply.refuses(path, &[ErrorCode::NotFound, ErrorCode::InvalidValue]);
    }
    // Bytes that are no UTF-8, where a path has a parameter.
    for path in
        ["/api/messages/conversations/%FF", "/api/messages/messages/%C0%AF/receipts", "/api/users/%ED%A0%80"]
    {
        person.client.get(path).await.refuses(path, &[ErrorCode::NotUnicode]);
    }
}

#[tokio::test]
async fn queries_that_are_wrong_are_refused_with_their_name() {
    let service = service::shared().await;
    let (person, _, conversation) = service.pair().await;
    let message = person.says(&conversation, "hello").await;
    let messages = service::messages(&conversation);
    let events = format!("/api/messages/conversations/{conversation}/events");
    let list = "/api/messages/conversations";
    let elsewhere = service.pair().await;
    let foreign = elsewhere.0.says(&elsewhere.2, "elsewhere").await;
    for (path, query) in [
        (messages.as_str(), "limit=0"),
        (&messages, "limit=101"),
        (&messages, "limit=-1"),
        (&messages, "limit=ten"),
        (&messages, "limit=99999999999999999999999"),
        (&messages, "limit=1&limit=2"),
        (&messages, "before=x"),
        (&messages, "before=%00"),
        (&messages, "before=%FF"),
        (&messages, &format!("before={foreign}")),
        (&messages, &format!("before={message}&after={message}")),
        (&events, "after=-1"),
        (&events, "after=18446744073709551615"),
        (&events, "after=18446744073709551616"),
        (&events, "limit=0"),
        (list, "cursor=%"),
        (list, "cursor=AAAA"),
        (list, "cursor=%00%00"),
        (list, "limit=1000"),
    ] {
        let path = format!("{path}?{query}");
        let reply = person.client.get(&path).await;
        reply.refuses(&path, &[ErrorCode::InvalidValue]);
        // Of two of one name neither is the wrong one.
        let name = if query == "limit=1&limit=2" { "" } else { query.split('=').next().unwrap_or_default() };
        assert_eq!(reply.pointers(), [format!("?{name}")], "{path}");
    }
    for path in [
        format!("{messages}?limit=&before=&after=&around="),
        format!("{messages}?limit"),
        format!("{events}?after=&limit="),
        format!("{list}?cursor=&limit="),
    ] {
        let reply = person.client.get(&path).await;
        assert_eq!(reply.status, 200, "nothing is asked for in {path}: {reply:?}");
    }
    for query in ["", "&&&", "=", "unknown=1", "limit=", "%=%", "a[]=1", "limit=1#f"] {
        let path = format!("{messages}?{query}");
        let reply = person.client.get(&path).await;
        assert!(reply.status == 200 || reply.status == 422, "{path}: {reply:?}");
    }
    let scope = format!("/api/messages/messages/{message}?scope=all");
    let reply = person.client.json("DELETE", &scope, "").await;
    reply.refuses(&scope, &[ErrorCode::InvalidValue]);
    assert_eq!(reply.pointers(), ["?scope"]);
    assert_eq!(person.reads(&conversation).await, ["hello"]);
}
