//! What runs in the background: as long as something is unwell, asks who has which slots, and probes
//! the servers that are away.

use super::Shared;
use futures_util::future::join_all;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds, in milliseconds, give or take a fifth: so long at most do edges go without Redis
/// after it is back, or its replica has taken over.
const ROUND_MS: u64 = 500;

/// Runs as long as it is polled.
pub(super) async fn heal(shared: Arc<Shared>) {
    loop {
        shared.unwell.notified().await;
        let was_well = shared.is_well();
        loop {
            shared.heal_once().await;
            let well = shared.is_well();
            // Also after the last: slots on their way cause a round each time they are met.
            let jitter_ms = rand::rng().random_range(ROUND_MS * 4 / 5..=ROUND_MS * 6 / 5);
            tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
            if well {
                break;
            }
        }
        if !was_well {
            tracing::info!("Redis is back");
        }
    }
}

impl Shared {
    pub fn is_well(&self) -> bool {
        self.topology.load().is_well()
    }

    /// One round.
    pub async fn heal_once(&self) {
        match self.seeds.discover(&self.topology.load_full()).await {
            Ok(topology) => self.topology.store(Arc::new(topology)),
            Err(error) => tracing::debug!(%error, "no server of Redis tells who has which slots"),
        }
        let topology = self.topology.load_full();
        let away = topology.nodes().filter(|node| !node.is_well());
        let probes = away.filter_map(|node| Some((node, topology.probe_of(node)?)));
        let revived = probes.map(|(node, probe)| async move {
            if let Err(error) = node.revive(&probe).await {
                tracing::debug!(%error, node = node.address(), "a server of Redis is still away");
            }
        });
        join_all(revived).await;
    }
}
