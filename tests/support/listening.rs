//! Clients of the `client` crate that listen.

use super::cluster::WITHIN;
use reedi_client::{Client, ClientBuilder, Link, Update, Updates};
use tokio::time::timeout;

/// A client that is told whatever happens from here on. One that has only begun to connect may come after what is
/// sent next: that is history then, and no event.
pub async fn listening(builder: ClientBuilder) -> (Client, Updates) {
    let (client, mut updates) = builder.connect().await.expect("it begins");
    let caught_up =
        async { while !matches!(updates.recv().await.expect("it goes on"), Update::Link(Link::CaughtUp)) {} };
    timeout(WITHIN, caught_up).await.expect("it listens in time");
    (client, updates)
}
