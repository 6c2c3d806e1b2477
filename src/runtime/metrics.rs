//! What a process counts. Every series is declared once, in the table below; its name in `/metrics`
//! is its field's with the prefix `reedi_`, its unit and, for counters, `_total`.
//!
//! A plain counter or gauge is one atomic. One with labels takes a read lock and one atomic, a
//! histogram a short write lock; none of them allocates once its labels have been seen. Labels are
//! of closed sets (codes, queues, limits, roles, the 256 shards,
//! slices), so that no client can add series.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use reedi_protocol::{CloseCode, ErrorCode, Shard};
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The shortest bucket of every histogram, in seconds: half a millisecond, a sixth of the budget
/// for the median of send to delivered.
const BUCKET_FIRST_S: f64 = 0.0005;
/// Doubling buckets from [`BUCKET_FIRST_S`] that reach past a minute (65.5 s), by when every wait of
/// the protocol is over.
const BUCKETS: u16 = 18;

/// The role that watermarks are of.
const WRITER: &str = "writer";

/// A gauge of a real number.
pub type RealGauge = Gauge<f64, AtomicU64>;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(pub $field: $type),* }
    };
}

label! { /// Why something was refused.
ReasonLabel { reason: &'static str } }
label! { /// Which queue overflowed.
QueueLabel { queue: &'static str } }
label! { /// Which limit was hit.
LimitLabel { limit: &'static str } }
label! { /// Which outside part is meant.
PartLabel { part: &'static str } }
label! { /// A role of the data plane.
RoleLabel { role: &'static str } }
label! { /// One shard, as a role has it.
RoleShardLabel { role: &'static str, shard: u32 } }
label! { /// One slice of the log.
SliceLabel { slice: u32 } }
label! { /// One shard.
ShardLabel { shard: u32 } }
label! { /// With which close code.
CodeLabel { code: u32 } }

#[derive(Clone)]
struct Doubling;

impl MetricConstructor<Histogram> for Doubling {
    fn new_metric(&self) -> Histogram {
        Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
            BUCKET_FIRST_S,
            2.0,
            BUCKETS,
        ))
    }
}

/// How each kind of series is made, registered and named.
trait Series: Sized {
    fn made() -> Self;
    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str);
}

impl Series for Counter {
    fn made() -> Self {
        Self::default()
    }

    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register(name, help, self.clone());
    }
}

impl Series for Gauge {
    fn made() -> Self {
        Self::default()
    }

    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register(name, help, self.clone());
    }
}

impl Series for Histogram {
    fn made() -> Self {
        Doubling.new_metric()
    }

    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register_with_unit(name, help, Unit::Seconds, self.clone());
    }
}

impl<S> Series for Family<S, Counter>
where
    S: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
{
    fn made() -> Self {
        Self::default()
    }

    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register(name, help, self.clone());
    }
}

impl<S> Series for Family<S, Gauge>
where
    S: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
{
    fn made() -> Self {
        Self::default()
    }

    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register(name, help, self.clone());
    }
}

impl<S> Series for Family<S, RealGauge>
where
    S: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
{
    fn made() -> Self {
        Self::default()
    }

    fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register_with_unit(name, help, Unit::Seconds, self.clone());
    }
}

macro_rules! series {
    ($($name:ident: $type:ty = $help:literal;)*) => {
        /// All series of a process; reached through [`Metrics`].
        pub struct AllSeries {
            $(#[doc = $help] pub $name: $type,)*
            registry: Registry,
        }

        impl AllSeries {
            fn new() -> Self {
                let mut registry = Registry::with_prefix("reedi");
                $(
                    let $name = <$type as Series>::made();
                    $name.register(&mut registry, stringify!($name), $help);
                )*
                let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                registry.register("build", "Which build this is", build);
                Self { $($name,)* registry }
            }
        }

        /// The name of every series in the table, without prefix and suffix.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

series! {
    messages_accepted: Counter = "Messages that passed every check of an edge and were offered to the log";
    messages_acknowledged: Counter = "Messages whose sender was told that the log has them";
    messages_duplicate: Counter = "Repeated sends that were answered with the first message";
    messages_delivered: Counter = "Messages put into the outbox of a connection, once for each";
    messages_failed: Family<ReasonLabel, Counter> = "Messages refused, by error code";
    commands_refused: Family<ReasonLabel, Counter> = "Commands and requests refused, by error code";
    frames_dropped: Family<QueueLabel, Counter> = "Frames that a full queue did not take; numbers in the frames let the receiver notice";
    limits_hit: Family<LimitLabel, Counter> = "Times a limit of the configuration or the contract was hit";
    sockets_closed: Family<CodeLabel, Counter> = "Sockets closed by the server, by close code";
    link_repeats: Counter = "Times an edge asked for a shard's events again because some were missing";
    link_stale: Counter = "Batches an edge dropped because a newer owner or newer events had come first";
    records_read: Family<RoleLabel, Counter> = "Records of the log processed, by role";
    records_stored: Counter = "Records whose writes the store has";
    records_void: Counter = "Records skipped because they landed too late to count";
    records_unreadable: Counter = "Records skipped because this binary cannot read them";
    conversations_unreadable: Counter = "Conversations that a list or a resume went on without, since the store gave up on their rows";
    retries: Family<PartLabel, Counter> = "Requests to an outside part that were tried again";
    log_unreadable: Family<RoleLabel, Gauge> = "1 while a worker cannot read the log and leaves its shards to others";
    leases_lost: Family<RoleLabel, Counter> = "Leases that ran out or went to another worker before they were released";
    send_to_ack: Histogram = "From a send's arrival at the edge to its acknowledgement";
    send_to_delivered: Histogram = "From a message's stamp to its place in the outbox of a recipient";
    append_to_stored: Histogram = "From a record's time in the log to its being stored";
    resume: Histogram = "From a resume command to its completion";
    connections: Gauge = "Authenticated sockets";
    sockets_unauthenticated: Gauge = "Sockets that have not authenticated yet";
    answer_bytes: Gauge = "Memory that answers to reads take or may take, until their clients have them";
    outbox_frames: Gauge = "Frames that wait in all outboxes";
    active_accounts: Gauge = "Accounts with at least one connection";
    lag: Family<RoleShardLabel, Gauge> = "Positions of the log between what is done of a shard and the end; 0 where nothing waits";
    watermark_age: Family<ShardLabel, RealGauge> = "Age of the oldest record of a shard that may not be stored yet; 0 where all is";
    leases: Family<RoleLabel, Gauge> = "Leases held, by role";
    log_fill_percent: Family<SliceLabel, Gauge> = "How full a stream of the log is, by slice; told by every writer";
    clock_offset_ms: Gauge = "How far the system clock is behind the log's, in milliseconds";
    degraded: Family<PartLabel, Gauge> = "1 while an outside part is away and the process goes on without it";
    ready: Gauge = "1 while the process is ready";
}

/// The metrics of a process; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<AllSeries>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Metrics {
    type Target = AllSeries;

    fn deref(&self) -> &AllSeries {
        &self.0
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AllSeries::new()))
    }

    /// All series in the OpenMetrics text format 1.0.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail; a half-written page would be refused by the reader.
        match text::encode(&mut out, &self.0.registry) {
            Ok(()) => out,
            Err(std::fmt::Error) => String::new(),
        }
    }

    pub fn failed(&self, reason: ErrorCode) {
        self.messages_failed.get_or_create_owned(&ReasonLabel { reason: reason.code() }).inc();
    }

    pub fn refused(&self, reason: ErrorCode) {
        self.commands_refused.get_or_create_owned(&ReasonLabel { reason: reason.code() }).inc();
    }

    pub fn dropped(&self, queue: &'static str, frames: u64) {
        self.frames_dropped.get_or_create_owned(&QueueLabel { queue }).inc_by(frames);
    }

    pub fn limit_hit(&self, limit: &'static str) {
        self.limits_hit.get_or_create_owned(&LimitLabel { limit }).inc();
    }

    pub fn closed(&self, code: CloseCode) {
        self.sockets_closed.get_or_create_owned(&CodeLabel { code: code.code().into() }).inc();
    }

    pub fn read(&self, role: &'static str, records: u64) {
        self.records_read.get_or_create_owned(&RoleLabel { role }).inc_by(records);
    }

    pub fn retried(&self, part: &'static str) {
        self.retries.get_or_create_owned(&PartLabel { part }).inc();
    }

    pub fn set_degraded(&self, part: &'static str, degraded: bool) {
        self.degraded.get_or_create_owned(&PartLabel { part }).set(degraded.into());
    }

    pub fn set_leases(&self, role: &'static str, held: usize) {
        self.leases.get_or_create_owned(&RoleLabel { role }).set(saturated(held as u64));
    }

    pub fn set_log_unreadable(&self, role: &'static str, unreadable: bool) {
        self.log_unreadable.get_or_create_owned(&RoleLabel { role }).set(unreadable.into());
    }

    pub fn lease_lost(&self, role: &'static str) {
        self.leases_lost.get_or_create_owned(&RoleLabel { role }).inc();
    }

    pub fn set_lag(&self, role: &'static str, shard: Shard, positions: u64) {
        self.lag
            .get_or_create_owned(&RoleShardLabel { role, shard: shard.0.into() })
            .set(saturated(positions));
    }

    pub fn set_log_fill(&self, slice: u8, percent: u8) {
        self.log_fill_percent.get_or_create_owned(&SliceLabel { slice: slice.into() }).set(percent.into());
    }

    pub fn set_watermark_age(&self, shard: Shard, age: Duration) {
        self.watermark_age.get_or_create_owned(&ShardLabel { shard: shard.0.into() }).set(age.as_secs_f64());
    }

    /// Takes a shard's series of one role away when its lease goes, lest their last values stand for ever.
    pub fn forget_shard(&self, role: &'static str, shard: Shard) {
        let shard = shard.0.into();
        self.lag.remove(&RoleShardLabel { role, shard });
        if role == WRITER {
            self.watermark_age.remove(&ShardLabel { shard });
        }
    }

    /// Counts one up in a gauge until the answer is dropped.
    #[must_use]
    pub fn hold(gauge: &Gauge) -> Held {
        gauge.inc();
        Held(gauge.clone())
    }
}

/// One in a gauge; gone when dropped.
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn saturated(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Touches every series with labels, since one never touched shows no value.
    fn touched() -> Metrics {
        let metrics = Metrics::new();
        metrics.failed(ErrorCode::RateLimited);
        metrics.refused(ErrorCode::Malformed);
        metrics.dropped("edge_link", 3);
        metrics.limit_hit("account_rate");
        metrics.closed(CloseCode::SlowConsumer);
        metrics.read("writer", 7);
        metrics.retried("store");
        metrics.set_degraded("redis", true);
        metrics.set_leases("delivery", 64);
        metrics.set_log_unreadable("delivery", true);
        metrics.lease_lost("writer");
        metrics.set_lag(WRITER, Shard(5), u64::MAX);
        metrics.set_watermark_age(Shard(5), Duration::from_millis(1500));
        metrics.set_log_fill(0, 12);
        metrics.send_to_ack.observe(0.003);
        metrics
    }

    #[test]
    fn every_series_has_its_help_and_type_once() {
        let page = touched().encode();
        for name in NAMES {
            for kind in ["# HELP", "# TYPE"] {
                let heads = page.lines().filter(|line| {
                    let named = line.strip_prefix(kind).and_then(|l| l.split_whitespace().next());
                    named == Some(&format!("reedi_{name}")) || named == Some(&format!("reedi_{name}_seconds"))
                });
                assert_eq!(heads.count(), 1, "{kind} of {name} in\n{page}");
            }
        }
        for line in [
            "reedi_messages_failed_total{reason=\"rate_limited\"} 1",
            "reedi_frames_dropped_total{queue=\"edge_link\"} 3",
            "reedi_sockets_closed_total{code=\"4408\"} 1",
            "reedi_lag{role=\"writer\",shard=\"5\"} 9223372036854775807",
            "reedi_watermark_age_seconds{shard=\"5\"} 1.5",
            "reedi_send_to_ack_seconds_bucket{le=\"0.004\"} 1",
            "reedi_send_to_ack_seconds_bucket{le=\"0.002\"} 0",
            "# EOF",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn the_buckets_reach_past_a_minute() {
        let last = BUCKET_FIRST_S * 2f64.powi(i32::from(BUCKETS) - 1);
        assert!((60.0..90.0).contains(&last), "{last}");
    }

    #[test]
    fn a_released_shard_shows_nothing_and_a_dropped_hold_counts_no_more() {
        let metrics = touched();
        metrics.forget_shard("delivery", Shard(5));
        assert!(metrics.encode().contains("reedi_watermark_age_seconds{shard=\"5\"}"), "it is the writer's");
        metrics.forget_shard(WRITER, Shard(5));
        assert!(!metrics.encode().contains("shard=\"5\""));
        let held = Metrics::hold(&metrics.connections);
        assert_eq!(metrics.connections.get(), 1);
        drop(held);
        assert_eq!(metrics.connections.get(), 0);
    }
}
