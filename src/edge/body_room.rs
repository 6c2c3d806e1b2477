//! Room for large bodies: what all who send one at the same time may hold of an edge, most of which know nobody yet.

use super::client_address::ClientAddress;
use super::fair_share::{FairShare, TakenPlace};
use super::refused::{Outcome, Refused};
use crate::runtime::metrics::Metrics;
use reedi_protocol::ErrorCode;

/// What a body may have without a place, in bytes: a message as people write them has a hundredth of it.
pub const SMALL_BODY: usize = 16 * 1_024;
/// Larger ones read at the same time: 64 MiB at the most.
const PLACES: usize = 256;
/// When to try again, in seconds: a body that is sent arrives within that time.
const AGAIN_S: u64 = 1;

/// Shared by all connections of an edge; cheap to clone.
#[derive(Clone)]
pub struct BodyRoom {
    places: FairShare,
    metrics: Metrics,
}

impl BodyRoom {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { places: FairShare::new(PLACES), metrics }
    }

    /// A place for a body that is larger than [`SMALL_BODY`], until it is dropped.
    ///
    /// # Errors
    /// All are taken, or too many from this address while they run short.
    pub fn take(&self, from: ClientAddress) -> Outcome<TakenPlace> {
        self.places.take(Some(from.site())).ok_or_else(|| {
            self.metrics.limit_hit("large_bodies");
            let detail = "Too many large bodies are being read. Send it again.";
            Refused::new(ErrorCode::RateLimited, detail).again_after(AGAIN_S)
        })
    }
}
