//! Taking connections, whatever becomes of single ones.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long nothing is taken after what could not be.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection, and from where. What cannot be taken is told to the operator.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, say: the connection stays in the backlog meanwhile.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
