//! What runs in the background: as long as something is unwell, asks who has which slots, and probes
//! the servers that are away.

use super::Shared;
use futures_util::future::join_all;
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Between two rounds, in milliseconds, give or take a fifth: so long at most do edges go without Redis
/// after it is back, or its replica has taken over.
const ROUND_MS: u64 = 500;

/// Runs as long as it is polled.
pub(super) async fn heal(shared: Arc<Shared>) {
    loop {
        shared.unwell.notified().await;
        loop {
            let why = shared.heal_once().await;
            let well = shared.is_well();
            if well {
                shared.outage.ends();
            } else {
                shared.outage.is(&why);
            }
            // Also after the last: slots on their way cause a round each time they are met.
            let jitter_ms = rand::rng().random_range(ROUND_MS * 4 / 5..=ROUND_MS * 6 / 5);
            tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
            if well {
                break;
            }
        }
    }
}

/// Says once for each outage why Redis is away, and once that it is back.
#[derive(Default)]
pub(super) struct Outage {
    told: AtomicBool,
}

impl Outage {
    pub fn is(&self, why: &str) {
        if !self.told.swap(true, Relaxed) {
            tracing::warn!(why, "Redis is away, or a part of it");
        }
    }

    /// A server was told to be away, and why.
    pub fn is_told(&self) {
        self.told.store(true, Relaxed);
    }

    pub fn ends(&self) {
        if self.told.swap(false, Relaxed) {
            tracing::info!("Redis is back");
        }
    }
}

impl Shared {
    pub fn is_well(&self) -> bool {
        self.topology.load().is_well()
    }

    /// One round. Gives why what is away then is so.
    pub async fn heal_once(&self) -> String {
        let mut why = "nobody is known to have some of the slots".to_owned();
        match self.seeds.discover(&self.topology.load_full()).await {
            Ok(topology) => self.topology.store(Arc::new(topology)),
            Err(error) => {
                tracing::debug!(%error, "no server of Redis tells who has which slots");
                why = error.to_string();
            }
        }
        let topology = self.topology.load_full();
        let away = topology.nodes().filter(|node| !node.is_well());
        let probes = away.filter_map(|node| Some((node, topology.probe_of(node)?)));
        let revived = probes.map(|(node, probe)| async move {
            let error = node.revive(&probe).await.err()?;
            tracing::debug!(%error, node = node.address(), "a server of Redis is still away");
            Some(format!("{}: {error}", node.address()))
        });
        join_all(revived).await.into_iter().flatten().next().unwrap_or(why)
    }
}

#[cfg(test)]
mod tests {
    use crate::redis_access::{RedisAccess, RedisConfig};
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn why_it_is_away_is_said_once_for_each_outage() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        // A port that was free a moment ago, and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = RedisConfig::new(vec![format!("redis://127.0.0.1:{port}")]);
        let access = RedisAccess::connect(&config).await.unwrap();
        for _ in 0..3 {
            let why = access.shared.heal_once().await;
            access.shared.outage.is(&why);
        }
        access.shared.outage.ends();
        access.shared.outage.ends();
        access.shared.outage.is("another reason");
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("Redis is")).collect();
        let [first, back, second] = ours[..] else { panic!("{text}") };
        assert!(first.contains("WARN") && first.contains("refused"), "{first}");
        assert!(back.contains("Redis is back"), "{back}");
        assert!(second.contains("WARN") && second.contains("another reason"), "{second}");
    }
}
