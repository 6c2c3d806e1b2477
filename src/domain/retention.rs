//! How long things are kept, and for how long they may be changed.

use reedi_protocol::Timestamp;

/// An edit or a deletion for everyone is the sender's for this long, in milliseconds. Signal allows
/// 24 hours for both; so do we.
pub const CHANGE_WINDOW_MS: u64 = 24 * 3_600 * 1_000;

/// What changed in a conversation can be caught up with for this long, in seconds (rule P6).
pub const EVENTS_TTL_S: u32 = 30 * 24 * 3_600;

/// Where each day began in a shard is known for this long, in seconds: longer than events live, so that it can be said of
/// any place whether all events after it are still there (ADR 0034).
pub const DAYS_TTL_S: u32 = EVENTS_TTL_S + 10 * 24 * 3_600;

/// Which message a `clientMessageId` became is known for this long, in seconds (rule P4.6).
pub const SENDS_TTL_S: u32 = 72 * 3_600;

/// The log keeps what the store has for this long all the same, in milliseconds (rule P2).
pub const LOG_KEEPS_MS: u64 = 24 * 3_600 * 1_000;

/// Missed events of one account beyond which a resume says "load it anew" (rule P6.4).
pub const RESUME_EVENTS_MOST: usize = 1_000;

/// Bytes of frames that one resume replays at the most: a client loads a page sooner than it takes more,
/// and what is replayed waits in the memory of its edge.
pub const RESUME_BYTES_MOST: usize = 4 << 20;

/// The day of a time, counted from 1970.
#[must_use]
pub fn day_of(time: Timestamp) -> i32 {
    // The year 9999 is day 2,932,000.
    i32::try_from(time.as_millis() / (24 * 3_600 * 1_000)).unwrap_or(i32::MAX)
}
