//! What the OpenAPI document says is what a running server does: every path is there with every
//! method that is named and no other, tokens are asked for where it says so, and each refusal that a
//! careless request meets is among those it names.

use reedi::edge::rest::openapi;
use reedi::role::single;
use reedi::runtime::config::Inputs;
use reedi::runtime::shutdown::Shutdown;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

const METHODS: [(&str, Method); 5] = [
    ("get", Method::GET),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("delete", Method::DELETE),
    ("patch", Method::PATCH),
];
/// A UUID that is a conversation's or message's nowhere.
const NOTHING: &str = "0b0b0000-0000-4000-8000-000000000002";

struct Server {
    address: String,
    client: Client,
    document: Value,
    shutdown: Shutdown,
    folder: std::path::PathBuf,
}

impl Server {
    async fn start(name: &str) -> Self {
        let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("openapi-{name}-{}", std::process::id()));
        let settings = [
            ("REEDI_LISTEN", "127.0.0.1:0".to_owned()),
            ("REEDI_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("REEDI_DATA_DIR", folder.display().to_string()),
        ];
        let inputs = Inputs {
            environment: settings.map(|(name, value)| (name.into(), value.into())).into(),
            ..Inputs::default()
        };
        let shutdown = Shutdown::new();
        let single = single::start(inputs.resolve().unwrap().config, shutdown.clone()).await.unwrap();
        single.shared.readiness.until_ready().await;
        let address = format!("http://{}", single.address.expect("an edge listens"));
        tokio::spawn(single.ended());
        let document = serde_json::from_str(&openapi::json()).unwrap();
        Self { address, client: Client::new(), document, shutdown, folder }
    }

    async fn token(&self) -> String {
        let body = r#"{"username":"alice","password":"correct horse"}"#;
        let request = self.client.post(format!("{}/api/auth/signup", self.address));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let session: Value = answer.json().await.unwrap();
        session["token"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: Option<&str>) -> Response {
        let path = path.replace("{reaction}", "%F0%9F%91%8D");
        let path = path.split('/').map(|part| if part.starts_with('{') { NOTHING } else { part });
        let url = format!("{}{}", self.address, path.collect::<Vec<_>>().join("/"));
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        request.send().await.unwrap()
    }

    fn operations(&self) -> Vec<(String, &'static str, Method, Option<Value>)> {
        let mut operations = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (name, method) in METHODS {
                operations.push((path.clone(), name, method, item.get(name).cloned()));
            }
        }
        operations
    }

    /// The codes that an operation is documented to refuse `status` with.
    fn codes(&self, operation: &Value, status: StatusCode) -> Vec<String> {
        let response = &operation["responses"][status.as_str()];
        let response = match response["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
            Some(name) => &self.document["components"]["responses"][name],
            None => response,
        };
        let examples = &response["content"]["application/problem+json"]["examples"];
        examples.as_object().into_iter().flatten().map(|(code, _)| code.clone()).collect()
    }

    fn stop(self) {
        self.shutdown.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn every_path_and_method_is_documented_and_every_documented_one_is_there() {
    let server = Server::start("methods").await;
    for (path, name, method, operation) in server.operations() {
        let answer = server.ask(method, &path, None, None).await;
        let (status, allow) = (answer.status(), answer.headers().get("allow").cloned());
        if operation.is_some() {
            assert_ne!(status, 405, "{name} {path} is documented and not there");
            let text = answer.text().await.unwrap();
            assert!(!text.contains("There is no such path"), "{name} {path} is documented and not there");
        } else {
            assert_eq!(status, 405, "{name} {path} is there and not documented");
            let allow = allow.expect("405 says what is allowed");
            let documented = server.document["paths"][&path].as_object().unwrap();
            for method in documented.keys() {
                assert!(allow.to_str().unwrap().contains(&method.to_uppercase()), "{path}: {allow:?}");
            }
        }
    }
    server.stop();
}

#[tokio::test]
async fn careless_requests_are_refused_as_documented() {
    let server = Server::start("refusals").await;
    let token = server.token().await;
    let bodies = [None, Some("{"), Some("{}"), Some("\"\\ud800\""), Some("[[]]")];
    for (path, name, method, operation) in server.operations() {
        let Some(operation) = operation else { continue };
        let open = operation["security"].as_array().is_some_and(|s| s.contains(&serde_json::json!({})));
        for token in [None, Some("nonsense"), Some(token.as_str())] {
            for body in bodies {
                let answer = server.ask(method.clone(), &path, token, body).await;
                let status = answer.status();
                let case = format!("{name} {path} with {token:?} and {body:?} is {status}");
                assert!(
                    !operation["responses"][status.as_str()].is_null(),
                    "{case}, which is not documented"
                );
                if token.is_none() && !open {
                    assert_eq!(status, 401, "{case}");
                }
                if status.is_client_error() || status.is_server_error() {
                    let kind = answer.headers()["content-type"].clone();
                    assert_eq!(kind, "application/problem+json", "{case}");
                    let problem: Value = answer.json().await.unwrap();
                    let code = problem["code"].as_str().unwrap().to_owned();
                    let documented = server.codes(&operation, status);
                    assert!(documented.contains(&code), "{case} {code}, and documented are {documented:?}");
                }
            }
        }
    }
    server.stop();
}

#[tokio::test]
async fn a_path_that_is_no_unicode_is_told_as_a_problem() {
    let server = Server::start("unicode").await;
    let token = server.token().await;
    let answer = server.ask(Method::PUT, "/api/messages/blocks/%FF", Some(&token), None).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "not_unicode");
    server.stop();
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let server = Server::start("served").await;
    let served = server.ask(Method::GET, "/api/messages/openapi.json", None, None).await;
    assert_eq!(served.text().await.unwrap(), openapi::json());
    let page = server.ask(Method::GET, "/api/messages/docs", None, None).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(page.text().await.unwrap().contains("fetch('openapi.json')"));
    server.stop();
}
