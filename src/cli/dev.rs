//! `reedi dev`: the whole service, and what to try next.

use clap::ArgMatches;
use reedi::role::single;
use reedi::runtime::shutdown::Shutdown;
use reedi::runtime::telemetry;
use std::time::Duration;

pub fn run(matches: &ArgMatches) -> Result<(), String> {
    let config = super::effective(matches)?.config;
    telemetry::start(config.process.log_format, &config.process.log_level).map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let drain = Duration::from_secs(config.process.drain_seconds);
        shutdown.on_signals(drain).map_err(|e| e.to_string())?;
        let folder = config.process.data_dir.display().to_string();
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let single = tokio::select! {
            single = single::start(config, shutdown.clone()) => single.map_err(|e| e.to_string())?,
            () = shutdown.draining() => return super::ended(&shutdown),
        };
        tokio::select! {
            () = single.shared.readiness.until_ready() => {}
            // Who leaves takes no leases, and so would never be ready.
            () = shutdown.draining() => {
                single.ended().await;
                return super::ended(&shutdown);
            }
        }
        let Some(address) = single.address else { return Ok(()) };
        println!(
            "Reedi listens on http://{address}, with its data in {folder}.\n\n\
             Talk to each other, in two more terminals:\n\
             \x20 reedi chat --as alice\n\
             \x20 reedi chat --as bob\n\n\
             Or by hand:\n\
             \x20 curl -s http://{address}/api/auth/signup -H 'content-type: application/json' \\\n\
             \x20   -d '{{\"username\":\"carol\",\"password\":\"correct horse\"}}'\n\n\
             Metrics: http://{admin}/metrics. Stop with Ctrl-C.",
            admin = single.admin_address,
        );
        single.ended().await;
        super::ended(&shutdown)
    })
}
