//! What the embedded store takes for now, when it judges whether something has expired.

use crate::runtime::clock::LogClock;
use reedi_protocol::Timestamp;
use std::sync::Arc;

/// Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Whatever `now` says: a simulation's.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// The log's, which everything is stamped by.
impl From<LogClock> for Clock {
    fn from(clock: LogClock) -> Self {
        Self::from_fn(move || clock.now())
    }
}
