//! Places that clients name: one that the log has not come to is a mistake that no waiting mends.

use super::Edge;
use super::refused::{Outcome, Refused};
use crate::log::LogPort;
use reedi_protocol::{AccountId, Position, Shard};
use std::borrow::Cow;

const BEYOND: &str = "The log has not come so far: no such place was ever told.";

/// A place as a client named it.
#[derive(Clone, Debug)]
pub struct Named {
    pub shard: Shard,
    pub position: Position,
    /// Where it stands in the request.
    pub pointer: Cow<'static, str>,
}

impl Edge {
    /// Refuses places that the log has not come to. Another edge may have appended there just now, so the
    /// log itself is asked, unless this edge knows that it is further; and before anything is refused, by
    /// an append, which a leader that was deposed cannot do. That counts against the account.
    ///
    /// # Errors
    /// A place that cannot be.
    pub async fn check_places(&self, account: AccountId, named: impl Iterator<Item = Named>) -> Outcome<()> {
        // Nearly always none is left.
        let named: Vec<Named> = {
            let book = self.coverage.lock();
            let known = |shard| book.through_of(shard).max(self.watermarks.known(shard));
            named.filter(|named| named.position > known(named.shard)).collect()
        };
        if named.is_empty() {
            return Ok(());
        }
        for slice in self.appender.log.slices() {
            let furthest = named.iter().filter(|n| slice.holds(n.shard)).max_by_key(|n| n.position);
            let Some(furthest) = furthest else { continue };
            // What the log cannot be asked about is not refused: whoever waits for it is told to come back.
            match self.appender.log.state(slice).await {
                Ok(state) if state.last < furthest.position => {}
                Ok(_) | Err(_) => continue,
            }
            self.admission.command(account, self.clock.now()).await?;
            match self.appender.end(furthest.shard).await {
                Ok(end) if end < furthest.position => {
                    return Err(Refused::invalid(&furthest.pointer, BEYOND));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The same for one place.
    ///
    /// # Errors
    /// It cannot be.
    pub async fn check_place(
        &self,
        account: AccountId,
        shard: Shard,
        position: Position,
        pointer: &'static str,
    ) -> Outcome<()> {
        let named = Named { shard, position, pointer: pointer.into() };
        self.check_places(account, std::iter::once(named)).await
    }
}
