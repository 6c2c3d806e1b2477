//! The whole service: a cluster of seven processes' roles within this one, through HTTP and WebSocket,
//! with clients spread over its edges. Every test runs on the embedded parts (`embedded::`) and on
//! NATS, CQL and Redis (`real::`), whose addresses REEDI_TEST_NATS_URL, REEDI_TEST_CQL and
//! REEDI_TEST_REDIS_URL name.

/// Makes two tests of each of these functions: one on each kind of parts.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::person::Scene::on($crate::support::cluster::embedded().await)).await;
            })*
        }
        mod real {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::person::Scene::on($crate::support::cluster::real().await)).await;
            })*
        }
    };
}

#[path = "../support/mod.rs"]
mod support;

mod beyond;
mod bytes;
mod changes;
mod connection;
mod conversations;
mod erasure;
mod faults;
mod history;
mod membership;
mod messages;
mod metrics;
mod once;
mod preferences;
mod realtime;
mod receipts;
mod resume;
mod socketio;
mod starting;
mod stored_rows;
