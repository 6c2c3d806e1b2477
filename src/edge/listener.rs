//! The listener: takes connections, speaks HTTP/1.1 on them, and lets go of them when leaving.

use super::answer_room::OnItsWay;
use super::body_room::BodyRoom;
use super::client_address::ClientAddress;
use super::fair_share::FairShare;
use crate::runtime::accept::accept;
use crate::runtime::config::Networks;
use crate::runtime::metrics::Metrics;
use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How long a client may take to send the head of its first request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may lie idle after a request, and take for the head of the next one. Longer than proxies
/// keep connections that they do not use (60 s as nginx and ALB come): who closes first must not be the one that
/// cannot know whether a request is on its way.
const NEXT_HEAD_WITHIN: Duration = Duration::from_secs(75);
/// Largest head of a request, in bytes; a token is the largest part of it.
const HEAD_BYTES: usize = 16 * 1_024;
/// How long requests that were begun may take once this server leaves.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may leave what it was sent unacknowledged, or its window shut: longer than any
/// write of ours waits, and short of a phone's way through a tunnel.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);

/// How long a client may take over an answer to a read: so long in any case, and a second more for so many bytes. Slower
/// is a phone at the edge of its network with a page of pictures' texts; what does not come through then is asked for
/// again in smaller pages.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_BYTES_PER_S: usize = 32 * 1_024;
/// What the system may hold of what is written to one connection, in bytes; it keeps as much again for itself. Left alone
/// it grows to megabytes for who reads fast and then stops, and no limit of ours counts that.
const SEND_BUFFER_BYTES: usize = 256 * 1_024;

/// Who may connect, and how many.
pub struct Doorway {
    /// Whose word about clients' addresses is believed.
    pub proxies: Networks,
    /// Connections that are not sockets, or not yet.
    pub connections: FairShare,
    /// Where what they send finds room.
    pub bodies: BodyRoom,
    pub metrics: Metrics,
}

/// What is known of one connection besides its requests.
#[derive(Default)]
struct Connection {
    /// A first request came.
    asked: AtomicBool,
    answering: Mutex<Option<OnItsWay>>,
    answers: Notify,
}

/// Serves `router` until `stop`, then finishes what was begun.
pub async fn serve(listener: TcpListener, router: Router, doorway: Doorway, stop: impl Future<Output = ()>) {
    let doorway = Arc::new(doorway);
    let (leaving, connections) = (CancellationToken::new(), TaskTracker::new());
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, from) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stop => break,
        };
        let client = ClientAddress::of_peer(from.ip()).site();
        let is_proxy = doorway.proxies.contain(from.ip());
        let Some(place) = doorway.connections.take((!is_proxy).then_some(client)) else {
            doorway.metrics.limit_hit("http_connections");
            continue;
        };
        // Small frames go out at once: they are what people wait for.
        let _ = stream.set_nodelay(true);
        bound(&stream);
        let router = router.clone();
        let about = Arc::new(Connection::default());
        let (told, at) = (about.clone(), doorway.clone());
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            told.asked.store(true, Ordering::Relaxed);
            let client = ClientAddress::of(from.ip(), request.headers(), &at.proxies);
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(at.bodies.clone());
            let (answering, told) =
                (router.clone().oneshot(request.map(axum::body::Body::new)), told.clone());
            async move { answering.await.inspect(|response| told.answers(response)) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let leaving = leaving.clone();
        connections.spawn(async move {
            let _place = place;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = leaving.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = about.asks_nothing() => return,
                () = about.takes_nothing() => return,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
    drop(listener);
    leaving.cancel();
    connections.close();
    let _ = tokio::time::timeout(FINISH_WITHIN, connections.wait()).await;
}

impl Connection {
    fn answers(&self, response: &Response) {
        if let Some(on_its_way) = response.extensions().get::<OnItsWay>() {
            *self.answering.lock() = Some(on_its_way.clone());
            self.answers.notify_one();
        }
    }

    /// Ends once the first head should have come and has not.
    async fn asks_nothing(&self) {
        tokio::time::sleep(HEAD_WITHIN).await;
        if self.asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// Ends once an answer should have been taken and has not: it takes memory for as long.
    async fn takes_nothing(&self) {
        loop {
            self.answers.notified().await;
            let answering = self.answering.lock().take();
            let Some(on_its_way) = answering else { continue };
            let more = Duration::from_secs((on_its_way.bytes / ANSWER_BYTES_PER_S) as u64);
            let done = on_its_way.done.cancelled();
            if tokio::time::timeout(ANSWER_WITHIN + more, done).await.is_err() {
                tracing::debug!(bytes = on_its_way.bytes, "a client did not take its answer in time");
                return;
            }
        }
    }
}

/// Bounds what the system does for a connection: how much it holds of what is written, and how long for a client that
/// stopped reading or is gone, since not every writer has a time limit of its own.
fn bound(stream: &tokio::net::TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let bounded = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
    #[cfg(target_os = "linux")]
    let bounded = bounded.and_then(|()| socket.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN)));
    if let Err(error) = bounded {
        tracing::debug!(%error, "a connection cannot be bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    fn answer(bytes: usize) -> (Response, CancellationToken) {
        let done = CancellationToken::new();
        let mut response = ().into_response();
        response.extensions_mut().insert(OnItsWay { done: done.clone(), bytes });
        (response, done)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_ends_its_connection() {
        let connection = Connection::default();
        let began = Instant::now();
        let (response, _done) = answer(10 * ANSWER_BYTES_PER_S);
        connection.answers(&response);
        connection.takes_nothing().await;
        assert_eq!(began.elapsed(), ANSWER_WITHIN + Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_taken_ends_nothing() {
        let connection = Arc::new(Connection::default());
        let watching = tokio::spawn({
            let connection = connection.clone();
            async move { connection.takes_nothing().await }
        });
        for _ in 0..3 {
            let (response, done) = answer(10 * ANSWER_BYTES_PER_S);
            connection.answers(&response);
            // sleeps: paused time, in which nothing may end it
            tokio::time::sleep(ANSWER_WITHIN).await;
            done.cancel();
            // sleeps: paused time, in which nothing may end it
            tokio::time::sleep(10 * ANSWER_WITHIN).await;
            assert!(!watching.is_finished());
        }
    }
}
