//! Stands between a process and one server, and can be cut.

use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    /// Where it listens.
    pub address: String,
    /// Cut, it takes no connection, and none stands.
    pub open: watch::Sender<bool>,
}

impl Proxy {
    /// Open, to the server at `address`.
    pub async fn to(address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it binds");
        let own = listener.local_addr().expect("it is bound").to_string();
        let (open, is_open) = watch::channel(true);
        let server = Arc::new(address);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut is_open) = (Arc::clone(&server), is_open.clone());
                tokio::spawn(async move {
                    if !*is_open.borrow() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(server.as_str()).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address: own, open }
    }
}
