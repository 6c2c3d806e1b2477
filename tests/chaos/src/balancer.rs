//! What stands before the edges: takes connections and passes each to an edge that says it is ready,
//! as a service of Kubernetes does. A connection stays where it is, whatever becomes of its edge.

use crate::ready::is_ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Between looks at an edge's readiness.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For an edge to take a connection: a process that is held still has a backlog that takes it.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

struct Backend {
    address: SocketAddr,
    is_ready: AtomicBool,
}

/// Listens until the runtime ends, and gives the address.
pub async fn start(edges: &[(SocketAddr, SocketAddr)]) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?;
    let mut backends = Vec::new();
    for (address, admin) in edges {
        let backend = Arc::new(Backend { address: *address, is_ready: AtomicBool::new(false) });
        tokio::spawn(look(Arc::clone(&backend), *admin));
        backends.push(backend);
    }
    tokio::spawn(accept(listener, Arc::new(backends)));
    Ok(here)
}

async fn look(backend: Arc<Backend>, admin: SocketAddr) {
    loop {
        let ready = is_ready(admin).await.is_ok();
        backend.is_ready.store(ready, Ordering::Relaxed);
        sleep(LOOK_EVERY).await;
    }
}

async fn accept(listener: TcpListener, backends: Arc<Vec<Arc<Backend>>>) {
    let turn = AtomicUsize::new(0);
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (backends, first) = (Arc::clone(&backends), turn.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            let in_turn = (0..backends.len()).map(|step| &backends[(first + step) % backends.len()]);
            for backend in in_turn.filter(|backend| backend.is_ready.load(Ordering::Relaxed)) {
                let connecting = timeout(CONNECT_WITHIN, TcpStream::connect(backend.address));
                if let Ok(Ok(server)) = connecting.await {
                    carry(client, server).await;
                    return;
                }
            }
        });
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // However it ends, both sides see their connection end.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
