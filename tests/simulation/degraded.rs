//! What clients and operators are told while the log or the store is away.

use crate::cluster::{Cluster, EdgeProcess, Shape};
use crate::seed::{account, simulate};
use crate::wire::Line;
use reedi::log::Append;
use reedi::log::tick::tick;
use reedi::ownership::ShardedRole;
use reedi::runtime::clock::LogClock;
use reedi::runtime::fault::{Faults, Lines};
use reedi_protocol::Shard;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Longer than it takes to notice.
const NOTICED: Duration = Duration::from_secs(20);

async fn cluster() -> Cluster {
    let cluster = Cluster::start(Shape::default(), Lines::Kept).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster
}

async fn connect(cluster: &Cluster, edge: &EdgeProcess) -> Line {
    let until = cluster.now().plus_millis(3_600_000);
    Line::open(edge, account(), until).await.expect("it is let in")
}

/// The next `degraded` frame.
async fn told(line: &mut Line) -> Value {
    let waiting = async {
        loop {
            let text = line.next().await.expect("the line holds");
            let frame: Value = serde_json::from_str(&text).expect("a frame");
            if frame["event"] == "degraded" {
                return frame["data"].clone();
            }
        }
    };
    timeout(NOTICED, waiting).await.expect("it is told")
}

/// That nothing of the kind comes.
async fn nothing_told(line: &mut Line) {
    let waiting = async {
        loop {
            match line.next().await {
                Ok(text) if text.contains("degraded") => return text,
                Ok(_) => {}
                Err(code) => panic!("closed with {code:?}"),
            }
        }
    };
    let told = timeout(NOTICED, waiting).await;
    assert!(told.is_err(), "{told:?}");
}

fn lacks(what: &[&str]) -> Value {
    json!({ "degraded": !what.is_empty(), "lacks": what })
}

#[test]
fn clients_are_told_what_does_not_work_and_that_it_works_again() {
    for (away, lack) in [
        ((|faults: &mut Faults| faults.log.away = true) as fn(&mut Faults), "sends"),
        (|faults| faults.store.away = true, "history"),
    ] {
        simulate(1, || async {
            let cluster = cluster().await;
            let edge = cluster.edges()[0].clone();
            let mut connected = connect(&cluster, &edge).await;
            edge.process.set_faults(away);
            assert_eq!(told(&mut connected).await, lacks(&[lack]));
            // Whoever comes meanwhile is told at once, and nobody twice.
            let mut later = connect(&cluster, &edge).await;
            assert_eq!(told(&mut later).await, lacks(&[lack]));
            nothing_told(&mut connected).await;
            edge.process.set_faults(|faults| *faults = Faults::default());
            assert_eq!(told(&mut connected).await, lacks(&[]));
            assert_eq!(told(&mut later).await, lacks(&[]));
            let mut last = connect(&cluster, &edge).await;
            nothing_told(&mut last).await;
        });
    }
}

#[test]
fn what_is_away_for_a_moment_is_not_told() {
    simulate(2, || async {
        let cluster = cluster().await;
        let edge = cluster.edges()[0].clone();
        let mut line = connect(&cluster, &edge).await;
        for _ in 0..5 {
            edge.process.set_faults(|faults| faults.store.away = true);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            edge.process.set_faults(|faults| faults.store.away = false);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        nothing_told(&mut line).await;
    });
}

/// The value of the first series whose line begins so; `None` while there is none.
fn shown(metrics: &reedi::runtime::metrics::Metrics, begins: &str) -> Option<f64> {
    let page = metrics.encode();
    let line = page.lines().find(|line| line.starts_with(begins))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_writer_without_a_store_falls_behind_and_catches_up() {
    simulate(3, || async {
        let shape = Shape { writers: 1, deliveries: 1, ..Shape::default() };
        let cluster = Cluster::start(shape, Lines::Kept).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let writer = cluster.workers(ShardedRole::Writer)[0].clone();
        let clock = LogClock::starting_at(cluster.now());
        let some = async || {
            for _ in 0..10 {
                let record: Append = tick(Shard(9), &clock);
                cluster.disks().take(record).await.expect("the log takes it");
            }
        };
        let lag = || shown(&writer.metrics, "reedi_lag{role=\"writer\",shard=\"9\"}");
        let age = || shown(&writer.metrics, "reedi_watermark_age_seconds{shard=\"9\"}");
        some().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((lag(), age()), (Some(0.0), Some(0.0)));
        writer.process.set_faults(|faults| faults.store.away = true);
        some().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(lag(), Some(10.0));
        assert!(age().is_some_and(|age| (25.0..35.0).contains(&age)), "{:?}", age());
        let retries = shown(&writer.metrics, "reedi_retries_total{part=\"store\"}");
        assert!(retries.is_some_and(|retries| retries > 0.0), "{retries:?}");
        writer.process.set_faults(|faults| faults.store.away = false);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((lag(), age()), (Some(0.0), Some(0.0)));
    });
}

#[test]
fn a_worker_that_was_paused_counts_the_leases_that_it_lost() {
    simulate(4, || async {
        let cluster = Cluster::start(Shape { writers: 2, ..Shape::default() }, Lines::Kept).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let paused = cluster.workers(ShardedRole::Writer)[0].clone();
        paused.process.pause();
        tokio::time::sleep(Duration::from_secs(40)).await;
        paused.process.wake();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let lost = shown(&paused.metrics, "reedi_leases_lost_total{role=\"writer\"}");
        assert!(lost.is_some_and(|lost| lost > 0.0), "{lost:?}");
    });
}
