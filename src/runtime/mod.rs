//! What every role needs of its process: metrics, back-off, leaving, the log's clock.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod metrics;
pub mod shutdown;
