//! What stands before the edges: passes connections on to one of those that are said to be there.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Balancer {
    pub url: String,
    edges: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Balancer {
    pub async fn before(urls: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let edges: Arc<Mutex<Vec<String>>> = Arc::default();
        let (list, turn) = (edges.clone(), AtomicUsize::new(0));
        let serving = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let edge = {
                    let list = list.lock();
                    list[turn.fetch_add(1, Ordering::Relaxed) % list.len()].clone()
                };
                tokio::spawn(async move {
                    // An edge that is gone is a connection that ends, as it is for a client.
                    if let Ok(mut edge) = TcpStream::connect(edge).await {
                        let _ = copy_bidirectional(&mut client, &mut edge).await;
                    }
                });
            }
        });
        let balancer = Self { url, edges, serving };
        balancer.set(urls);
        balancer
    }

    /// From now on these take new connections.
    pub fn set(&self, urls: &[String]) {
        *self.edges.lock() = urls.iter().map(|url| url.trim_start_matches("http://").to_owned()).collect();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
