//! Against a small platform that speaks the contract over real HTTP and can be made to fail.

use super::super::conformance::{self, World};
use super::*;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What it does instead of answering.
#[derive(Clone)]
enum Fault {
    None,
    Status(u16),
    Body(String),
    Silence,
}

struct Shared {
    world: World,
    fault: Mutex<Fault>,
    asked: AtomicUsize,
}

struct TestPlatform {
    shared: Arc<Shared>,
    url: Url,
    task: JoinHandle<()>,
}

impl Drop for TestPlatform {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn profile(username: &str) -> Profile {
    let display_name = format!("{username} \u{1f642}");
    Profile { user_id: AccountId::new(Uuid::new_v4()), username: username.into(), display_name }
}

fn json(value: &impl serde::Serialize) -> (u16, String) {
    (200, serde_json::to_string(value).unwrap())
}

impl Shared {
    fn answer(&self, path: &str, query: &str) -> (u16, String) {
        let known = &self.world.known;
        let find = |id: &str| known.iter().find(|p| p.user_id.to_string() == id);
        let segments: Vec<_> = path.trim_start_matches("/base/").split('/').collect();
        match segments.as_slice() {
            ["users"] => {
                let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
                let value = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_string());
                let (query, limit) = (value("query").unwrap(), value("limit").unwrap().parse().unwrap());
                let found = known.iter().filter(|p| p.username.starts_with(&query)).take(limit);
                json(&Profiles { users: found.cloned().collect(), next_cursor: None })
            }
            ["users", id] => find(id).map_or((404, "{}".into()), json),
            ["users", a, "follows", b] => match (find(a), find(b)) {
                (Some(a), Some(b)) => {
                    let follows = self.world.follows.contains(&(a.user_id, b.user_id));
                    json(&serde_json::json!({ "follows": follows, "since": 7 }))
                }
                _ => (404, "no such person".into()),
            },
            _ => (500, format!("no such path: {path}")),
        }
    }

    async fn respond(&self, request: &Request<Incoming>) -> (u16, String) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fault = self.fault.lock().clone();
        match fault {
            Fault::None => self.answer(request.uri().path(), request.uri().query().unwrap_or_default()),
            Fault::Status(status) => (status, String::new()),
            Fault::Body(body) => (200, body),
            Fault::Silence => std::future::pending().await,
        }
    }
}

impl TestPlatform {
    async fn start(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap()).parse().unwrap();
        let shared = Arc::new(Shared { world, fault: Mutex::new(Fault::None), asked: AtomicUsize::new(0) });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move {
                        let (status, body) = shared.respond(&request).await;
                        let response = Response::builder().status(status).body(Full::new(Bytes::from(body)));
                        Ok::<_, Infallible>(response.unwrap())
                    }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(served);
            }
        });
        Self { shared, url, task }
    }

    async fn of_the_suite() -> Self {
        let known: Vec<_> = conformance::USERNAMES.iter().map(|name| profile(name)).collect();
        let id = |i: usize| known[i].user_id;
        let follows = vec![(id(0), id(1)), (id(1), id(0)), (id(2), id(3))];
        Self::start(World { known, follows }).await
    }

    fn known(&self, i: usize) -> Profile {
        self.shared.world.known[i].clone()
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    fn set(&self, fault: Fault) {
        *self.shared.fault.lock() = fault;
    }

    fn client(&self) -> Platform {
        Platform::new(self.url.clone()).unwrap()
    }
}

/// Lets time pass for the cache and for nothing else: a paused clock would run requests into their
/// time-outs.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn the_platforms_people_are_people() {
    let platform = TestPlatform::of_the_suite().await;
    conformance::all(&platform.client(), &platform.shared.world).await;
}

#[tokio::test]
async fn an_answer_serves_until_it_is_old() {
    let platform = TestPlatform::of_the_suite().await;
    let (client, ann) = (platform.client(), platform.known(0));
    for _ in 0..3 {
        assert_eq!(client.profile(ann.user_id).await, Ok(Some(ann.clone())));
        assert_eq!(client.search("ann", 1).await, Ok(vec![ann.clone()]));
        assert_eq!(client.follows(ann.user_id, ann.user_id).await, Ok(false));
    }
    assert_eq!(platform.asked(), 3);
    pass(FOLLOW_FRESH + Duration::from_secs(1)).await;
    assert_eq!(client.follows(ann.user_id, ann.user_id).await, Ok(false));
    assert_eq!(client.profile(ann.user_id).await, Ok(Some(ann.clone())));
    assert_eq!(platform.asked(), 4);
    pass(PROFILE_FRESH).await;
    assert_eq!(client.profile(ann.user_id).await, Ok(Some(ann)));
    assert_eq!(platform.asked(), 5);
}

#[tokio::test]
async fn while_it_is_away_old_answers_serve_and_it_is_left_alone() {
    let platform = TestPlatform::of_the_suite().await;
    let (ann, anna) = (platform.known(0), platform.known(1));
    let another = serde_json::to_string(&profile("ann")).unwrap();
    for fault in [
        Fault::Status(500),
        Fault::Status(401),
        Fault::Status(302),
        Fault::Body("<html>".into()),
        Fault::Body("x".repeat(ANSWER_BYTES + 1)),
        Fault::Body(another),
    ] {
        platform.set(Fault::None);
        let client = platform.client();
        assert_eq!(client.profile(ann.user_id).await, Ok(Some(ann.clone())));
        platform.set(fault);
        pass(PROFILE_FRESH + Duration::from_secs(1)).await;
        assert_eq!(client.profile(ann.user_id).await, Ok(Some(ann.clone())), "a stale answer");
        assert!(client.profile(anna.user_id).await.is_err(), "never asked before");
        platform.set(Fault::None);
        pass(PAUSE).await;
        assert_eq!(client.profile(anna.user_id).await, Ok(Some(anna.clone())), "it is back");
        platform.set(Fault::Status(503));
        pass(STALE + Duration::from_secs(1)).await;
        assert!(client.profile(ann.user_id).await.is_err(), "too old");
    }
    let client = platform.client();
    let before = platform.asked();
    for _ in 0..10 {
        assert!(client.follows(ann.user_id, anna.user_id).await.is_err());
    }
    assert_eq!(platform.asked(), before + 1, "it is left alone after a failure");
}

#[tokio::test]
async fn what_it_refuses_to_this_server_is_told_and_stops_others_only_where_they_would_fare_no_better() {
    let platform = TestPlatform::of_the_suite().await;
    let (ann, anna) = (platform.known(0), platform.known(1));
    for (status, is_told, stops) in [
        (401, true, true),
        (429, true, true),
        // Perhaps a firewall's answer to what somebody has searched for.
        (403, true, false),
        (408, true, false),
        (400, false, false),
        (422, false, false),
    ] {
        let client = platform.client();
        platform.set(Fault::Status(status));
        let before = platform.asked();
        for _ in 0..3 {
            assert!(client.follows(ann.user_id, anna.user_id).await.is_err());
        }
        assert_eq!(platform.asked() - before, if stops { 1 } else { 3 }, "{status}");
        assert_eq!(client.is_away(), is_told, "{status}");
        platform.set(Fault::None);
        pass(PAUSE).await;
        assert!(client.follows(ann.user_id, anna.user_id).await.is_ok());
        assert!(!client.is_away(), "it answers again");
    }
}

#[tokio::test]
async fn silence_ends_in_time_and_a_closed_port_at_once() {
    let platform = TestPlatform::of_the_suite().await;
    let ann = platform.known(0);
    platform.set(Fault::Silence);
    let begun = std::time::Instant::now();
    assert!(platform.client().profile(ann.user_id).await.is_err());
    assert!(begun.elapsed() < ANSWER_WITHIN * 4, "{:?}", begun.elapsed());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed: Url = format!("http://me:s3cret@{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = Platform::new(closed).unwrap().profile(ann.user_id).await.unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
