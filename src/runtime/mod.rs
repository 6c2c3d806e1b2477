//! What every role needs of its process: configuration, logs, metrics, health, back-off, leaving, the
//! log's clock.

pub mod accept;
pub mod backoff;
pub mod clock;
pub mod config;
#[cfg(any(test, feature = "simulation"))]
pub mod fault;
pub mod health;
pub mod metrics;
pub mod own_secrets;
pub mod random;
pub mod shutdown;
pub mod telemetry;
pub mod trace_context;
