//! The listener: takes connections, speaks HTTP/1.1 on them, and lets go of them when leaving.

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
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

/// Serves `router` until `stop`, then finishes what was begun.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let (leaving, connections) = (CancellationToken::new(), TaskTracker::new());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, say: the connection stays in the backlog meanwhile.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Small frames go out at once: they are what people wait for.
        let _ = stream.set_nodelay(true);
        give_up_on_deaf(&stream);
        let router = router.clone();
        let asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&asked);
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            asks.store(true, Ordering::Relaxed);
            request.extensions_mut().insert::<ConnectInfo<SocketAddr>>(ConnectInfo(from));
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let leaving = leaving.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = leaving.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = asks_nothing(&asked) => return,
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

/// Ends once the first head should have come and has not.
async fn asks_nothing(asked: &AtomicBool) {
    tokio::time::sleep(HEAD_WITHIN).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Lets the system end a connection whose client stopped reading or is gone: not every writer has a
/// time limit of its own.
fn give_up_on_deaf(stream: &tokio::net::TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN)) {
        tracing::debug!(%error, "a connection cannot be given a time limit");
    }
}
