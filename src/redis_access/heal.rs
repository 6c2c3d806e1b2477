//! What runs in the background: while a breaker is open, probes, and new connections.

use super::Shared;
use super::key::Key;
use futures_util::future::join_all;
use rand::Rng;
use redis::RedisResult;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds of probes, in milliseconds, give or take a fifth: so long at most do edges go
/// without Redis after it is back, or its replica has taken over.
const PROBE_MS: u64 = 500;
/// A cluster's client finds new servers by itself, mostly. It is made anew after 1, 2, 4 .. rounds of
/// failed probes, and then every so many, in case all servers have other addresses now.
const ROUNDS_BETWEEN_NEW_CLIENTS: u32 = 64;
/// How long a probe's own key lives, in milliseconds.
const PROBE_LIVES_MS: u64 = 10_000;

/// Runs as long as it is polled.
pub(super) async fn heal(shared: Arc<Shared>) {
    loop {
        shared.opened.notified().await;
        let mut round = 0;
        while shared.breakers.any_open() {
            round += 1;
            if !probe_all(&shared).await && shared.wants_new_client(round) {
                match shared.reconnect().await {
                    Ok(()) => {
                        probe_all(&shared).await;
                    }
                    Err(error) => tracing::debug!(%error, round, "Redis is still away"),
                }
            }
            if shared.breakers.any_open() {
                let jitter = rand::rng().random_range(PROBE_MS * 4 / 5..=PROBE_MS * 6 / 5);
                tokio::time::sleep(Duration::from_millis(jitter)).await;
            }
        }
        if round > 0 {
            tracing::info!(round, "Redis is back");
        }
    }
}

/// Probes each open tag, and closes those that answer. Whether all did.
async fn probe_all(shared: &Shared) -> bool {
    let probes = shared.breakers.open_tags().into_iter().map(|tag| async move {
        let well = probe(shared, tag).await.is_ok();
        if well {
            shared.breakers.close(tag);
        }
        well
    });
    join_all(probes).await.into_iter().all(|well| well)
}

/// Writes: a server that is full, or a replica that was a master, still reads.
async fn probe(shared: &Shared, tag: u8) -> RedisResult<()> {
    let Some(connection) = shared.connection.load_full() else {
        return Err((redis::ErrorKind::Io, "not connected").into());
    };
    let mut set = redis::cmd("SET");
    set.arg(Key::probe(tag)).arg(1).arg("PX").arg(PROBE_LIVES_MS);
    set.query_async(&mut connection.as_ref().clone()).await
}

impl Shared {
    fn wants_new_client(&self, round: u32) -> bool {
        match self.connection.load().as_deref() {
            Some(connection) if connection.finds_new_servers() => {
                round.is_power_of_two() || round.is_multiple_of(ROUNDS_BETWEEN_NEW_CLIENTS)
            }
            _ => true,
        }
    }
}
