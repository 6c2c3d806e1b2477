//! Every name that the adapters use at NATS: subjects, streams, buckets. Nothing else makes one.

use crate::log::{ShardSet, Slice};
use reedi_protocol::{ConversationKey, Epoch, Shard};

/// What all names begin with, so that installations can share one NATS account. `reedi` unless told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Default for Namespace {
    fn default() -> Self {
        Self("reedi".to_owned())
    }
}

impl Namespace {
    /// The longest namespace, in bytes: NATS keeps file names of streams below 255.
    pub const BYTES_MOST: usize = 64;

    /// `None` unless 1 to 64 of a-z, 0-9, `-` and `_`.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= Self::BYTES_MOST;
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        (fits && name.bytes().all(plain)).then(|| Self(name.to_owned()))
    }

    pub(crate) fn stream(&self, epoch: Epoch, slice: Slice) -> String {
        format!("{}-{}-{}", self.0, epoch.number(), slice.index)
    }

    pub(crate) fn record(&self, conversation: ConversationKey, is_control: bool) -> String {
        let end = if is_control { ".c" } else { "" };
        format!("{}.log.{}.{:016x}{end}", self.0, conversation.shard(), conversation.as_u64())
    }

    /// What the stream of `slice` takes.
    pub(crate) fn records_of_slice(&self, slice: Slice) -> Vec<String> {
        if slice.count == 1 {
            return vec![format!("{}.log.>", self.0)];
        }
        slice.shards().iter().map(|shard| self.records_of_shard(shard)).collect()
    }

    /// What a reader of `shards` wants of the stream of `slice`; empty for all.
    pub(crate) fn filters(&self, slice: Slice, shards: ShardSet) -> Vec<String> {
        if shards == slice.shards() {
            return Vec::new();
        }
        shards.iter().map(|shard| self.records_of_shard(shard)).collect()
    }

    fn records_of_shard(&self, shard: Shard) -> String {
        format!("{}.log.{shard}.>", self.0)
    }

    /// Whose record stands under `subject`, and whether it is a control event.
    pub(crate) fn conversation(&self, subject: &str) -> Option<(ConversationKey, bool)> {
        let mut parts = subject.strip_prefix(self.0.as_str())?.strip_prefix(".log.")?.split('.');
        let shard: u8 = parts.next()?.parse().ok()?;
        let key = ConversationKey::from_u64(u64::from_str_radix(parts.next()?, 16).ok()?);
        let is_control = match (parts.next(), parts.next()) {
            (None, None) => false,
            (Some("c"), None) => true,
            _ => return None,
        };
        (key.shard() == Shard(shard)).then_some((key, is_control))
    }

    /// The subject that one edge listens on.
    pub(crate) fn edge(&self, id: u64) -> String {
        format!("{}.link.edge.{id:016x}", self.0)
    }

    /// The subject that every edge listens on.
    pub(crate) fn edges(&self) -> String {
        format!("{}.link.edges", self.0)
    }

    /// The subject that every worker listens on.
    pub(crate) fn workers(&self) -> String {
        format!("{}.link.workers", self.0)
    }

    /// The subject that every edge hears of presence on.
    pub(crate) fn presence(&self) -> String {
        format!("{}.link.presence", self.0)
    }

    pub(crate) fn leases(&self) -> Bucket {
        Bucket(format!("{}-leases", self.0))
    }

    pub(crate) fn plans(&self) -> Bucket {
        Bucket(format!("{}-plans", self.0))
    }
}

/// A key-value bucket, named as every NATS client names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket(String);

impl Bucket {
    pub(crate) fn stream(&self) -> String {
        format!("KV_{}", self.0)
    }

    pub(crate) fn all_keys(&self) -> String {
        format!("$KV.{}.>", self.0)
    }

    pub(crate) fn key(&self, parts: &[&str]) -> String {
        let mut key = format!("$KV.{}", self.0);
        for part in parts {
            key.push('.');
            push_token(&mut key, part);
        }
        key
    }

    /// All keys that have one part more than `parts`.
    pub(crate) fn keys_below(&self, parts: &[&str]) -> String {
        self.key(parts) + ".*"
    }
}

/// Writes `text` as one token of a subject: what a key may not hold becomes `=` and its code.
fn push_token(subject: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            subject.push(char::from(byte));
        } else {
            subject.push_str(&format!("={byte:02x}"));
        }
    }
}

/// The subjects of the JetStream API that are used.
pub(crate) mod api {
    pub(crate) fn stream_create(stream: &str) -> String {
        format!("$JS.API.STREAM.CREATE.{stream}")
    }

    pub(crate) fn stream_update(stream: &str) -> String {
        format!("$JS.API.STREAM.UPDATE.{stream}")
    }

    pub(crate) fn stream_info(stream: &str) -> String {
        format!("$JS.API.STREAM.INFO.{stream}")
    }

    pub(crate) fn stream_purge(stream: &str) -> String {
        format!("$JS.API.STREAM.PURGE.{stream}")
    }

    pub(crate) fn message_get(stream: &str) -> String {
        format!("$JS.API.STREAM.MSG.GET.{stream}")
    }

    pub(crate) fn message_delete(stream: &str) -> String {
        format!("$JS.API.STREAM.MSG.DELETE.{stream}")
    }

    pub(crate) fn direct_get(stream: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}")
    }

    pub(crate) fn consumer_create(stream: &str, consumer: &str) -> String {
        format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}")
    }

    pub(crate) fn consumer_next(stream: &str, consumer: &str) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
    }

    /// Where a stream's change of leader is told.
    pub(crate) fn leader_elected(stream: &str) -> String {
        format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}")
    }

    /// What the reply subject of a delivered record says.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Delivered {
        pub(crate) stream_sequence: u64,
        /// Counts what this consumer has delivered, from 1.
        pub(crate) consumer_sequence: u64,
        pub(crate) log_time_ns: u64,
        /// Records that the consumer had still to deliver.
        pub(crate) pending: u64,
    }

    /// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<times>.<stream>.<consumer>.<time>.<pending>`
    pub(crate) fn delivered(reply: &str) -> Option<Delivered> {
        let parts: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match parts.len() {
            7 => parts.get(3..7)?,
            9.. => parts.get(5..9)?,
            _ => return None,
        };
        let number = |at: usize| numbers.get(at).and_then(|part: &&str| part.parse().ok());
        Some(Delivered {
            stream_sequence: number(0)?,
            consumer_sequence: number(1)?,
            log_time_ns: number(2)?,
            pending: number(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_subject_names_the_conversation(key: u64, is_control: bool) {
            let (namespace, key) = (Namespace::default(), ConversationKey::from_u64(key));
            let subject = namespace.record(key, is_control);
            prop_assert_eq!(namespace.conversation(&subject), Some((key, is_control)));
        }

        #[test]
        fn no_subject_panics(subject: String) {
            let _ = Namespace::default().conversation(&subject);
            let _ = api::delivered(&subject);
        }
    }

    #[test]
    fn every_record_falls_into_its_slice_alone() {
        let namespace = Namespace::default();
        for index in 0..4 {
            let slice = Slice { index, count: 4 };
            let subjects = namespace.records_of_slice(slice);
            assert_eq!(subjects.len(), 64);
            for shard in Shard::all() {
                let taken = subjects.contains(&format!("reedi.log.{shard}.>"));
                assert_eq!(taken, slice.holds(shard));
            }
        }
    }

    #[test]
    fn both_forms_of_a_reply_are_read() {
        let expected =
            api::Delivered { stream_sequence: 7, consumer_sequence: 3, log_time_ns: 1_700, pending: 5 };
        assert_eq!(api::delivered("$JS.ACK.reedi-1-0.c.1.7.3.1700.5"), Some(expected));
        assert_eq!(api::delivered("$JS.ACK._.hash.reedi-1-0.c.1.7.3.1700.5.random"), Some(expected));
        assert_eq!(api::delivered("$JS.ACK.reedi-1-0.c.1"), None);
    }

    #[test]
    fn a_worker_may_be_named_anything() {
        let bucket = Namespace::default().leases();
        assert_eq!(bucket.key(&["worker", "a.b c*"]), "$KV.reedi-leases.worker.a=2eb=20c=2a");
    }
}
