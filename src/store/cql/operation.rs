//! One statement with what it binds, and how many of them go to the servers at once: merged by row, grouped by
//! partition, small groups packed into one request by who has them, bounded in size and in number (ADR 0026).

use super::CqlStore;
use super::cell::{Cell, micros};
use super::query::Query;
use crate::store::{StoreError, StoreResult};
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::Position;
use scylla::cluster::ClusterState;
use scylla::statement::batch::{Batch, BatchType};
use std::collections::HashMap;
use uuid::Uuid;

/// Requests of one `apply` on their way at the same time. A connection takes 32,768; this many keep two
/// cores of a server busy, and more only wait there.
const REQUESTS_AT_ONCE: usize = 128;
/// Statements in one batch, all of one partition.
const BATCH_STATEMENTS: usize = 100;
/// Bytes in one batch, about: half of what ScyllaDB warns at. Cassandra does not count a batch of one
/// partition.
const BATCH_BYTES: usize = 64 * 1024;
/// Partitions in one request. Cassandra warns of more than ten (`unlogged_batch_across_partitions_warn_threshold`).
const PACK_PARTITIONS: usize = 10;
/// Bytes in one request of several partitions, with [`STATEMENT_BYTES`] for each statement. Cassandra counts these,
/// warns at 5 KiB and refuses 50 (`batch_size_warn_threshold`, `batch_size_fail_threshold`).
const PACK_BYTES: usize = 4 * 1024;
/// What a statement takes there beside its values.
const STATEMENT_BYTES: usize = 64;

/// Above every position, and in the past since November 2026, which ScyllaDB demands: what is deleted
/// at this time stays deleted, whatever edit comes later.
pub(super) const ABOVE_EVERY_POSITION: i64 = 102 << reedi_protocol::position::SEQUENCE_BITS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Binds key, values, timestamp, TTL.
    Insert,
    /// Binds timestamp, key.
    Delete,
}

/// A write to a table of kind position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    query: Query,
    shape: Shape,
    /// The primary key; the partition's columns come first.
    key: Vec<Cell>,
    values: Vec<Cell>,
    timestamp: i64,
    ttl_s: Option<i32>,
}

impl Operation {
    pub(super) fn insert(query: Query, key: Vec<Cell>, values: Vec<Cell>, timestamp: i64) -> Self {
        Self { query, shape: Shape::Insert, key, values, timestamp, ttl_s: None }
    }

    pub(super) fn delete(query: Query, key: Vec<Cell>, timestamp: i64) -> Self {
        Self { query, shape: Shape::Delete, key, values: Vec::new(), timestamp, ttl_s: None }
    }

    /// For statements with a TTL; 0 is for ever.
    pub(super) fn expiring(mut self, ttl_s: i32) -> Self {
        self.ttl_s = Some(ttl_s);
        self
    }

    pub(super) fn at(query: Query, key: Vec<Cell>, values: Vec<Cell>, position: Position) -> Self {
        Self::insert(query, key, values, micros(position))
    }

    fn bound(self) -> Vec<Cell> {
        let mut bound = Vec::with_capacity(self.key.len() + self.values.len() + 2);
        match self.shape {
            Shape::Insert => {
                bound.extend(self.key);
                bound.extend(self.values);
                bound.push(Cell::Big(self.timestamp));
                bound.extend(self.ttl_s.map(Cell::Int));
            }
            Shape::Delete => {
                bound.push(Cell::Big(self.timestamp));
                bound.extend(self.key);
            }
        }
        bound
    }

    fn weight(&self) -> usize {
        self.key.iter().chain(&self.values).map(Cell::weight).sum()
    }
}

/// Which table a write goes to, and how many columns of its key are the partition's.
fn partition_of(query: Query) -> (u8, usize) {
    match query {
        Query::PutBucket => (0, 1),
        Query::PutMessage
        | Query::ExpireMessage
        | Query::PutEdit
        | Query::ClearContent
        | Query::PutDeletion => (1, 2),
        Query::PutEvent => (2, 2),
        Query::PutReaction | Query::RemoveReaction => (3, 2),
        Query::PutHidden => (4, 2),
        Query::PutDelivered | Query::PutRead => (5, 1),
        Query::PutSend => (6, 3),
        Query::PutHead => (7, 1),
        Query::PutState => (8, 1),
        Query::PutJoined
        | Query::PutDeparted
        | Query::PutInboxHead
        | Query::PutInboxTouched
        | Query::PutInboxRead => (9, 1),
        Query::PutWatermark => (10, 1),
        Query::PutFirstOfDay => (11, 1),
        // No write by position.
        _ => (u8::MAX, 0),
    }
}

/// Of writes by one statement to one row only the last by timestamp counts, and of the same write only
/// one. Two that differ at the same timestamp both go: the server decides between them.
fn merged(operations: Vec<Operation>) -> Vec<Operation> {
    let mut kept: Vec<Operation> = Vec::with_capacity(operations.len());
    let mut places: HashMap<(Query, Vec<Cell>), usize> = HashMap::with_capacity(operations.len());
    for operation in operations {
        let row = (operation.query, operation.key.clone());
        match places.get(&row).and_then(|place| kept.get_mut(*place)) {
            Some(other) if operation.timestamp > other.timestamp => *other = operation,
            Some(other) if operation.timestamp < other.timestamp || *other == operation => {}
            _ => {
                places.insert(row, kept.len());
                kept.push(operation);
            }
        }
    }
    kept
}

/// Groups of writes to one partition of one table each, within the limits of a batch.
fn grouped(operations: Vec<Operation>) -> Vec<Vec<Operation>> {
    struct Open {
        group: usize,
        bytes: usize,
    }
    let mut groups: Vec<Vec<Operation>> = Vec::new();
    let mut open: HashMap<(u8, Vec<Cell>), Open> = HashMap::new();
    for operation in operations {
        let (table, columns) = partition_of(operation.query);
        let partition = (table, operation.key.iter().take(columns).cloned().collect());
        let weight = operation.weight();
        match open.get_mut(&partition) {
            Some(Open { group, bytes })
                if *bytes + weight <= BATCH_BYTES && groups[*group].len() < BATCH_STATEMENTS =>
            {
                *bytes += weight;
                groups[*group].push(operation);
            }
            _ => {
                open.insert(partition, Open { group: groups.len(), bytes: weight });
                groups.push(vec![operation]);
            }
        }
    }
    groups
}

/// Joins small groups that are at home on the same server into one request each: a server takes longer over a
/// request than over a write in it.
fn packed(groups: Vec<Vec<Operation>>, home: impl Fn(&Operation) -> Option<Uuid>) -> Vec<Vec<Operation>> {
    struct Open {
        pack: usize,
        partitions: usize,
        bytes: usize,
    }
    let mut packs: Vec<Vec<Operation>> = Vec::new();
    let mut open: HashMap<Option<Uuid>, Open> = HashMap::new();
    for group in groups {
        let bytes: usize = group.iter().map(|operation| operation.weight() + STATEMENT_BYTES).sum();
        let Some(first) = group.first().filter(|_| bytes <= PACK_BYTES) else {
            packs.push(group);
            continue;
        };
        let home = home(first);
        match open.get_mut(&home) {
            Some(open) if open.bytes + bytes <= PACK_BYTES && open.partitions < PACK_PARTITIONS => {
                open.bytes += bytes;
                open.partitions += 1;
                packs[open.pack].extend(group);
            }
            _ => {
                open.insert(home, Open { pack: packs.len(), partitions: 1, bytes });
                packs.push(group);
            }
        }
    }
    packs
}

impl CqlStore {
    /// Makes all of them durable, or says that perhaps not all are.
    pub(super) async fn write(&self, operations: Vec<Operation>) -> StoreResult<()> {
        let cluster = self.session().get_cluster_state();
        let packs = packed(grouped(merged(operations)), |operation| self.home(&cluster, operation));
        futures_util::stream::iter(packs)
            .map(|pack| self.write_pack(pack))
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// The first of the servers that have the row. Only where a request goes depends on it, and the servers pass
    /// on what is not theirs.
    fn home(&self, cluster: &ClusterState, operation: &Operation) -> Option<Uuid> {
        if cluster.get_nodes_info().len() <= 1 {
            return None;
        }
        let table = self.query(operation.query).get_table_spec()?;
        let (_, columns) = partition_of(operation.query);
        let (keyspace, table) = (table.ks_name(), table.table_name());
        let token = cluster.compute_token(keyspace, table, &operation.key.get(..columns)?).ok()?;
        let replicas = cluster.get_token_endpoints(keyspace, table, token);
        replicas.first().map(|(node, _)| node.host_id)
    }

    async fn write_pack(&self, mut pack: Vec<Operation>) -> StoreResult<()> {
        let sent = if pack.len() == 1
            && let Some(operation) = pack.pop()
        {
            let statement = self.query(operation.query);
            self.session().execute_unpaged(statement, operation.bound()).await
        } else {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            let mut values = Vec::with_capacity(pack.len());
            for operation in pack {
                batch.append_statement(self.query(operation.query).clone());
                values.push(operation.bound());
            }
            self.session().batch(&batch, values).await
        };
        sent.map(|_| ()).map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(conversation: i64, at: i64, value: i64) -> Operation {
        Operation::insert(Query::PutHead, vec![Cell::Big(conversation)], vec![Cell::Big(value)], at)
    }

    #[test]
    fn the_timestamp_of_a_deletion_is_above_every_position() {
        let last = reedi_protocol::Epoch::LAST;
        let highest = Position::new(last, (1 << reedi_protocol::position::SEQUENCE_BITS) - 1).unwrap();
        assert_eq!(micros(highest) + 1, ABOVE_EVERY_POSITION);
    }

    #[test]
    fn of_one_row_the_last_write_goes() {
        let kept =
            merged(vec![head(1, 5, 50), head(1, 7, 70), head(1, 6, 60), head(1, 7, 70), head(2, 1, 10)]);
        assert_eq!(kept, [head(1, 7, 70), head(2, 1, 10)]);
        let both = merged(vec![head(1, 5, 50), head(1, 5, 51)]);
        assert_eq!(both.len(), 2, "the server decides between them");
    }

    #[test]
    fn a_batch_is_bounded_in_number_and_in_bytes() {
        let message = |n: i64, bytes: usize| {
            let key = vec![Cell::Big(1), Cell::Int(1), Cell::Big(n)];
            Operation::insert(Query::PutMessage, key, vec![Cell::Blob(vec![0; bytes].into())], n)
        };
        let small = grouped((0..250).map(|n| message(n, 10)).collect());
        assert_eq!(small.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let large = grouped((0..5).map(|n| message(n, 40_000)).collect());
        assert_eq!(large.len(), 5);
    }

    #[test]
    fn a_request_of_several_partitions_is_small_and_of_one_home() {
        let put = |conversation: i64, bytes: usize| {
            let values = vec![Cell::Blob(vec![0; bytes].into())];
            vec![Operation::insert(Query::PutHead, vec![Cell::Big(conversation)], values, 1)]
        };
        let homes = |operation: &Operation| match operation.key[0] {
            Cell::Big(conversation) => Some(Uuid::from_u128((conversation % 2) as u128)),
            _ => None,
        };
        let lengths = |packs: Vec<Vec<Operation>>| packs.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(packed((0..25).map(|n| put(n, 10)).collect(), |_| None)), [10, 10, 5]);
        assert_eq!(lengths(packed((0..25).map(|n| put(n, 10)).collect(), homes)), [10, 10, 3, 2]);
        assert_eq!(lengths(packed((0..5).map(|n| put(n, 1_500)).collect(), |_| None)), [2, 2, 1]);
        assert_eq!(lengths(packed(vec![put(0, 10), put(1, 9_000), put(2, 10)], |_| None)), [2, 1]);
        let one: Vec<Operation> = (0..90).flat_map(|_| put(1, 10)).collect();
        assert_eq!(lengths(packed(vec![one, put(2, 10)], |_| None)), [90, 1], "of one partition they stay");
    }

    proptest! {
        #[test]
        fn no_row_loses_its_last_write(ops: Vec<(u8, u8, u8)>) {
            let ops: Vec<_> = ops.into_iter().map(|(c, t, v)| head(c.into(), t.into(), v.into())).collect();
            let groups = grouped(merged(ops.clone()));
            for op in &ops {
                let sent = groups.iter().flatten().filter(|o| o.key == op.key);
                let last = sent.map(|o| o.timestamp).max();
                prop_assert!(last >= Some(op.timestamp));
            }
            for group in groups {
                prop_assert!(group.iter().all(|o| o.key[0] == group[0].key[0]));
            }
        }
    }
}
