//! Whether a process is alive and ready, told on the admin listener.

use super::metrics::Metrics;
use super::shutdown::Shutdown;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::limit::ConcurrencyLimitLayer;

/// Requests that the admin listener works on at once: probes, scrapers, a person or two.
const ADMIN_REQUESTS: usize = 32;
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
/// scrapers see it.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: Metrics) -> std::io::Result<()> {
    let shutdown = readiness.shutdown.clone();
    let stopping = {
        let shutdown = shutdown.clone();
        async move { shutdown.stopping().await }
    };
    let served = axum::serve(listener, router(readiness, metrics)).with_graceful_shutdown(stopping);
    tokio::select! {
        result = served.into_future() => result,
        () = ended(shutdown) => Ok(()),
    }
}

/// A peer that holds an answer half read does not keep the process.
async fn ended(shutdown: Shutdown) {
    shutdown.stopping().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
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
        server.await.unwrap().unwrap();
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
