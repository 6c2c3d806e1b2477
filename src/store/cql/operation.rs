//! One statement with what it binds, and how many of them go to the servers at once: merged by row,
//! grouped by partition, bounded in size and in number.

use super::CqlStore;
use super::cell::{Cell, micros};
use super::query::Query;
use crate::store::{StoreError, StoreResult};
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::Position;
use scylla::statement::batch::{Batch, BatchType};
use std::collections::HashMap;

/// Requests of one `apply` on their way at the same time. A connection takes 32,768; this many keep two
/// cores of a server busy, and more only wait there.
const PARTITIONS_AT_ONCE: usize = 128;
/// Statements in one batch, all of one partition.
const BATCH_STATEMENTS: usize = 100;
/// Bytes in one batch, about: half of what ScyllaDB warns at. Cassandra does not count a batch of one
/// partition.
const BATCH_BYTES: usize = 64 * 1024;

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

impl CqlStore {
    /// Makes all of them durable, or says that perhaps not all are.
    pub(super) async fn write(&self, operations: Vec<Operation>) -> StoreResult<()> {
        futures_util::stream::iter(grouped(merged(operations)))
            .map(|group| self.write_group(group))
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn write_group(&self, mut group: Vec<Operation>) -> StoreResult<()> {
        let sent = if group.len() == 1
            && let Some(operation) = group.pop()
        {
            let statement = self.query(operation.query);
            self.session().execute_unpaged(statement, operation.bound()).await
        } else {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            let mut values = Vec::with_capacity(group.len());
            for operation in group {
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
