//! A service to send bad input to, and accounts with tokens for it.

use crate::http::Client;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use reedi::role::single;
use reedi::runtime::config::{Inputs, LogFormat, LogLevel, Value as _};
use reedi::runtime::shutdown::Shutdown;
use reedi::runtime::telemetry;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub const SECRET: &str = "a secret of the tests with bad input, long enough";

/// Services outlive the test that started them, so that others may use them too.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime for the service")
});
static SHARED: OnceCell<Service> = OnceCell::const_new();

/// What all services of this process logged, at the level that says most of their own doing.
pub static LOGGED: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let level = LogLevel::parse("debug").expect("a level");
    let writer = lines.clone();
    let subscriber = telemetry::subscriber(LogFormat::Json, &level, false, move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.expect("a subscriber")).expect("the only one");
    lines
});

/// Log lines, kept.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Those that `needle` stands in.
    pub fn with(&self, needle: &str) -> Vec<String> {
        let bytes = self.0.lock();
        let lines = bytes.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
        lines.filter(|line| line.contains(needle)).map(std::borrow::Cow::into_owned).collect()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A service that runs.
#[derive(Clone)]
pub struct Service {
    pub address: SocketAddr,
    pub shared: reedi::role::Shared,
}

/// The service that tests share which need no settings of their own.
pub async fn shared() -> &'static Service {
    let tries = [("sign_in_rate", "1000"), ("sign_in_burst", "1000")];
    SHARED.get_or_init(|| start("shared", &tries)).await
}

/// A service with settings of its own.
pub async fn start(name: &str, settings: &[(&str, &str)]) -> Service {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("badinput-{name}"));
    // What an earlier run left.
    let _ = std::fs::remove_dir_all(&folder);
    let mut flags = vec![
        ("listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("admin_listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("data_dir".to_owned(), folder.display().to_string()),
        ("auth_hs256_secret".to_owned(), SECRET.to_owned()),
    ];
    flags.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    LazyLock::force(&LOGGED);
    let config = Inputs { flags, ..Inputs::default() }.resolve().expect("settings").config;
    let started = RUNTIME.spawn(async move {
        let single = single::start(config, Shutdown::new()).await.expect("the service starts");
        single.shared.readiness.until_ready().await;
        Service { address: single.address.expect("an edge"), shared: single.shared.clone() }
    });
    started.await.expect("the service starts")
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token of `claims`, signed by `secret`.
pub fn signed(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

/// A token of `account` that expires at `exp`, in seconds since 1970.
pub fn token_until(account: Uuid, exp: u64) -> String {
    signed(&json!({ "sub": account, "exp": exp }), SECRET)
}

/// Somebody who uses a service.
#[derive(Clone)]
pub struct Person {
    pub account: Uuid,
    pub token: String,
    pub client: Client,
}

impl Service {
    pub fn person(&self) -> Person {
        let account = Uuid::new_v4();
        let token = token_until(account, now_s() + 3_600);
        let client = Client::new(self.address, Some(&token));
        Person { account, token, client }
    }

    pub fn stranger(&self) -> Client {
        Client::new(self.address, None)
    }

    /// Two people and their conversation.
    pub async fn pair(&self) -> (Person, Person, String) {
        let (one, other) = (self.person(), self.person());
        let body = json!({ "participantId": other.account });
        let made = one.client.post("/api/messages/conversations/direct", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let conversation = made.json()["conversationId"].as_str().expect("an id").to_owned();
        (one, other, conversation)
    }
}

impl Person {
    /// Sends a message; gives its id.
    pub async fn says(&self, conversation: &str, content: &str) -> String {
        let body = json!({ "content": content, "messageType": "text" });
        let sent = self.client.post(&messages(conversation), &body).await;
        assert_eq!(sent.status, 201, "{sent:?}");
        sent.json()["messageId"].as_str().expect("an id").to_owned()
    }

    /// The contents of a conversation, newest first.
    pub async fn reads(&self, conversation: &str) -> Vec<String> {
        let page = self.client.get(&messages(conversation)).await;
        assert_eq!(page.status, 200, "{page:?}");
        let texts = page.json()["messages"].as_array().expect("messages").clone();
        texts.iter().filter_map(|m| m["content"].as_str().map(str::to_owned)).collect()
    }
}

pub fn messages(conversation: &str) -> String {
    format!("/api/messages/conversations/{conversation}/messages")
}
