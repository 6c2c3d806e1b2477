//! What every store does, as checks that every adapter's test runs ([`all`], [`claims::all`] and so
//! on). Each check takes accounts and conversations that nobody had before, so that one keyspace
//! serves all of them, at once and again, without emptying it; only an epoch is used up per run.
//!
//! A check panics where the store falls short: that is what a test wants.

pub mod accounts;
pub mod changes;
pub mod claims;
pub mod expiry;
pub mod fresh;
pub mod inbox;
pub mod marks;
pub mod messages;
pub mod replay;

use super::StorePort;

/// Every check, one after the other.
pub async fn all<S: StorePort>(store: &S) {
    store.ping().await.expect("it answers");
    messages::all(store).await;
    changes::all(store).await;
    marks::all(store).await;
    inbox::all(store).await;
    expiry::all(store).await;
    claims::all(store).await;
    accounts::all(store).await;
    replay::all(store).await;
}
