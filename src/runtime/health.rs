//! Whether a process is alive and ready, told on the admin listener.

use super::accept::accept;
use super::metrics::Metrics;
use super::shutdown::Shutdown;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tower::limit::ConcurrencyLimitLayer;

/// Requests that the admin listener works on at once: probes, scrapers, a person or two.
const ADMIN_REQUESTS: usize = 32;
/// Connections to the admin listener; who comes when they are taken waits until one ends.
const ADMIN_CONNECTIONS: usize = 128;
/// How long a peer may take for the head of a request, and rest between two: who says nothing gives way to a probe
/// before that has failed twice (every 10 s, as Kubernetes asks unless told otherwise).
const HEAD_WITHIN: Duration = Duration::from_secs(7);
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1_024;
/// How long a connection stands in all: a scraper that never rests and a peer that reads no answer give way too.
const CONNECTED_FOR: Duration = Duration::from_secs(300);
/// How long an answer that was begun may take once its connection's time is up, or the process stops.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// The OpenMetrics text format.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which parts a process needs to do its work, and what each of them lacks. Clones share it.
#[derive(Clone)]
pub struct Readiness {
    parts: Arc<RwLock<BTreeMap<&'static str, Option<String>>>>,
    shutdown: Shutdown,
    metrics: Metrics,
    ready: watch::Sender<bool>,
}

/// One part's say in the readiness of the process.
#[derive(Clone)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Not ready until a part has been named and all named ones are; never again once it drains.
    #[must_use]
    pub fn new(shutdown: Shutdown, metrics: Metrics) -> Self {
        Self { parts: Arc::default(), shutdown, metrics, ready: watch::Sender::new(false) }
    }

    /// Names a part that the process cannot do without. It is not ready yet.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part { name, readiness: self.clone() };
        part.lacks("starting");
        part
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// What is missing, by part.
    #[must_use]
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        let parts = self.parts.read();
        let lacking = |(name, lack): (&&'static str, &Option<String>)| lack.clone().map(|lack| (*name, lack));
        let mut missing: BTreeMap<_, _> = parts.iter().filter_map(lacking).collect();
        if parts.is_empty() {
            missing.insert("process", "starting".into());
        }
        if self.shutdown.is_draining() {
            missing.insert("process", "draining".into());
        }
        missing
    }

    /// Ends when every part is ready. Draining ends no wait.
    pub async fn until_ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives in `self`, so that the wait can only end well.
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn set(&self, name: &'static str, lack: Option<String>) {
        let mut parts = self.parts.write();
        match (parts.get(name), &lack) {
            (Some(Some(before)), Some(lack)) if before == lack => return,
            // What is missing may change many times a second, as while shards move.
            (Some(Some(_)), Some(lack)) => tracing::debug!(part = name, lack, "still not ready"),
            (Some(None), Some(lack)) => tracing::warn!(part = name, lack, "not ready"),
            // Every part begins like this.
            (None, Some(lack)) => tracing::info!(part = name, lack, "not ready yet"),
            (Some(None), None) => {}
            (None | Some(Some(_)), None) => tracing::info!(part = name, "ready"),
        }
        parts.insert(name, lack);
        // Told under the lock, so that two changes cannot be told in the wrong order.
        let all = parts.values().all(Option::is_none);
        self.metrics.ready.set(all.into());
        self.ready.send_replace(all);
    }
}

impl Part {
    pub fn ready(&self) {
        self.readiness.set(self.name, None);
    }

    /// Says what is missing, for people who read `/readyz`: no addresses with passwords.
    pub fn lacks(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, Some(reason.into()));
    }

    pub fn set(&self, state: Result<(), String>) {
        self.readiness.set(self.name, state.err());
    }
}

#[derive(Serialize)]
struct ReadyBody {
    ready: bool,
    missing: BTreeMap<&'static str, String>,
}

async fn readyz(State((readiness, _)): State<(Readiness, Metrics)>) -> Response {
    let missing = readiness.missing();
    let ready = missing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyBody { ready, missing })).into_response()
}

async fn metrics(State((readiness, metrics)): State<(Readiness, Metrics)>) -> Response {
    // Draining is nobody's change of a part, and still not ready.
    metrics.ready.set(readiness.is_ready().into());
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.encode()).into_response()
}

/// The routes of the admin listener.
pub fn router(readiness: Readiness, metrics_of: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(ConcurrencyLimitLayer::new(ADMIN_REQUESTS))
        .with_state((readiness, metrics_of))
}

/// Answers on `listener` until the process stops; through the drain too, so that probes and
/// scrapers see it. Never ends before.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: Metrics) {
    let shutdown = readiness.shutdown.clone();
    let router = router(readiness, metrics);
    let (places, connections) = (Arc::new(Semaphore::new(ADMIN_CONNECTIONS)), TaskTracker::new());
    loop {
        let taken = async {
            // An error would be that somebody closed them, which nobody does.
            let place = places.clone().acquire_owned().await;
            (accept(&listener).await.0, place)
        };
        let (stream, place) = tokio::select! {
            taken = taken => taken,
            () = shutdown.stopping() => break,
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _place = place;
            answer(stream, router, &shutdown).await;
        });
    }
    // At once: who connects from here on is refused instead of left waiting.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers what one peer asks, and lets go of it.
async fn answer(stream: TcpStream, router: Router, shutdown: &Shutdown) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = leaving(shutdown) => {
            connection.as_mut().graceful_shutdown();
            // A peer that holds an answer half read keeps neither its place nor the process.
            tokio::time::timeout(FINISH_WITHIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin listener failed");
    }
}

/// A connection has stood for long enough, or the process stops.
async fn leaving(shutdown: &Shutdown) {
    let _ = tokio::time::timeout(CONNECTED_FOR, shutdown.stopping()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetch(address: std::net::SocketAddr, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_admin_listener_tells_the_truth() {
        let shutdown = Shutdown::new();
        let metrics = Metrics::new();
        let readiness = Readiness::new(shutdown.clone(), metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, readiness.clone(), metrics.clone()));

        assert_eq!(fetch(at, "/healthz").await, (200, "ok\n".into()));
        assert_eq!(fetch(at, "/readyz").await.0, 503, "nobody has said what is needed");
        let (nats, store) = (readiness.part("nats"), readiness.part("store"));
        store.ready();
        nats.lacks("no server answers at 10.0.0.1:4222");
        let (status, body) = fetch(at, "/readyz").await;
        assert_eq!(status, 503);
        assert_eq!(body, r#"{"ready":false,"missing":{"nats":"no server answers at 10.0.0.1:4222"}}"#);
        assert!(fetch(at, "/metrics").await.1.contains("\nreedi_ready 0\n"));

        nats.set(Ok(()));
        readiness.until_ready().await;
        assert_eq!(fetch(at, "/readyz").await, (200, r#"{"ready":true,"missing":{}}"#.into()));
        assert!(fetch(at, "/metrics").await.1.contains("\nreedi_ready 1\n"));

        shutdown.drain();
        assert_eq!(fetch(at, "/readyz").await.0, 503);
        assert!(fetch(at, "/metrics").await.1.contains("\nreedi_ready 0\n"));
        assert_eq!(fetch(at, "/healthz").await.0, 200);
        shutdown.stop();
        server.await.unwrap();
    }

    /// As many as there is room for say nothing and read nothing; a probe comes through once they have had their time.
    #[tokio::test]
    async fn who_says_nothing_gives_way_to_a_probe() {
        let shutdown = Shutdown::new();
        let readiness = Readiness::new(shutdown.clone(), Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, readiness, Metrics::new()));
        let mut silent = Vec::new();
        for _ in 0..ADMIN_CONNECTIONS {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let began = std::time::Instant::now();
        let probe = tokio::time::timeout(HEAD_WITHIN * 3, fetch(at, "/healthz"));
        assert_eq!(probe.await.expect("it comes through"), (200, "ok\n".into()));
        assert!(began.elapsed() >= HEAD_WITHIN / 2, "there was no room before");
        shutdown.stop();
        server.await.unwrap();
    }

    #[test]
    fn a_part_that_is_lost_again_makes_the_process_unready() {
        let readiness = Readiness::new(Shutdown::new(), Metrics::new());
        let log = readiness.part("log");
        log.ready();
        assert!(readiness.is_ready());
        log.lacks("fenced");
        assert_eq!(readiness.missing(), BTreeMap::from([("log", "fenced".to_owned())]));
    }
}
