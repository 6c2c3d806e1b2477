//! The storm: one fault after the other, each watched until everything works again.

use crate::book::Book;
use crate::cluster::{Cluster, ClusterError};
use crate::fault::{Class, Deck, Fault};
use crate::inject;
use crate::probe::Probe;
use crate::report::{Counts, FaultReport};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A service that does not work again so long after a fault has ended is broken.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// Quiet between faults, so that each meets a service that works.
const QUIET: Duration = Duration::from_secs(2);

/// Lets faults happen until `until`, and writes each into `reports`.
///
/// # Errors
/// What did not recover, at which the storm ends.
pub async fn run(
    cluster: &mut Cluster,
    probe: &Probe,
    book: &Book,
    deck: &mut Deck,
    until: Instant,
    reports: &mut Vec<FaultReport>,
) -> Result<(), String> {
    let begun = Instant::now();
    while Instant::now() < until {
        let faults = deck.deal();
        if faults.is_empty() {
            return Err("no fault is of the kind that was asked for".to_owned());
        }
        book.take_silence();
        let at = begun.elapsed();
        let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
        println!("     {:>6.1} s  {} begins", at.as_secs_f64(), names.join(" + "));
        let (during, after) = once(cluster, probe, &faults).await.map_err(|error| error.to_string())?;
        let report = FaultReport { faults, at, during, after, silence: book.take_silence() };
        println!("{}", report.line(reports.len() + 1));
        let broken = report.after.clone().err();
        reports.push(report);
        if let Some(why) = broken {
            return Err(format!("not recovered within {RECOVERS_WITHIN:?}: {why}"));
        }
        let last = reports.last().map(|report| report.faults.clone()).unwrap_or_default();
        inject::steady(cluster, &last).await.map_err(|error| error.to_string())?;
        sleep(QUIET).await;
        println!("                {}", book.read(Counts::of).progress());
    }
    Ok(())
}

type Recovery = (Option<Duration>, Result<Duration, String>);

async fn once(cluster: &mut Cluster, probe: &Probe, faults: &[Fault]) -> Result<Recovery, ClusterError> {
    for fault in faults {
        inject::begin(cluster, fault).await?;
    }
    let length = faults.iter().map(|fault| fault.length).max().unwrap_or_default();
    let ends = Instant::now() + length;
    let hit: Vec<String> = faults.iter().filter(|f| f.class == Class::Edge).map(Fault::target).collect();
    let during = probe.run(&hit, length).await.ok();
    sleep_until(ends).await;
    // Starting a component again may take longer than the service takes to work again.
    let (ended, after) = tokio::join!(
        async {
            for fault in faults {
                inject::end(cluster, fault).await?;
            }
            Ok::<_, ClusterError>(())
        },
        probe.run(&[], RECOVERS_WITHIN)
    );
    ended?;
    Ok((during, after))
}
