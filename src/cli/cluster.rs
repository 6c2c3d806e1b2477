//! `reedi edge`, `delivery`, `writer` and `migrate`: the roles of a cluster.

use clap::ArgMatches;
use reedi::role::cluster::{cql_config, start};
use reedi::role::process::Roles;
use reedi::runtime::shutdown::Shutdown;
use reedi::runtime::telemetry;
use reedi::store::cql;
use std::time::Duration;

pub fn run(role: &str, matches: &ArgMatches) -> Result<(), String> {
    let config = super::effective(matches)?.config;
    telemetry::start(config.process.log_format, &config.process.log_level).map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    let roles = Roles { edge: role == "edge", delivery: role == "delivery", writer: role == "writer" };
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let drain = Duration::from_secs(config.process.drain_seconds);
        shutdown.on_signals(drain).map_err(|e| e.to_string())?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let member = tokio::select! {
            member = start(config, roles, shutdown.clone()) => member.map_err(|e| e.to_string())?,
            // Asked to leave while it waits for a part.
            () = shutdown.draining() => return super::ended(&shutdown),
        };
        tracing::info!(role, address = ?member.address, admin = %member.admin_address, "running");
        member.ended().await;
        super::ended(&shutdown)
    })
}

pub fn migrate(matches: &ArgMatches) -> Result<(), String> {
    let config = super::effective(matches)?.config;
    config.check_store().map_err(|error| error.to_string())?;
    telemetry::start(config.process.log_format, &config.process.log_level).map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let (cql_config, tell) = (cql_config(&config), |line: &str| println!("{line}"));
    runtime.block_on(async {
        if matches.get_flag("back") {
            cql::migrate_back(&cql_config, tell).await.map_err(|e| e.to_string())
        } else {
            cql::migrate(&cql_config, tell).await.map_err(|e| e.to_string())
        }
    })
}
