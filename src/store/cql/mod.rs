//! The store on a CQL cluster: ScyllaDB or Apache Cassandra 5.
//!
//! Three kinds of tables (rule P8), each named in its migration under `cql/`: those of kind position
//! take the position of an event as the timestamp of a write, so that the writer may repeat itself;
//! those of kind lwt decide who was first; those of kind clock hold what an account chooses.

mod accounts;
mod bucket;
mod cell;
mod config;
mod conversations;
mod epochs;
mod messages;
mod migrate;
mod operation;
mod parts;
mod preferences;
mod query;
mod write;

pub use config::{ConfigError, CqlConfig};
pub use migrate::{MIGRATIONS, MigrateError, Migration, migrate, migrate_back, migrate_with};

use crate::runtime::clock::LogClock;
use crate::store::{StoreError, StorePort, StoreResult, Watermarks};
use bucket::BucketCache;
use config::Backoff;
use query::{Queries, Query};
use reedi_protocol::Timestamp;
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{
    DbError, ExecutionError, NextPageError, NextRowError, PagerExecutionError, RequestAttemptError,
};
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use std::sync::Arc;

/// Partitions that one call reads at the same time.
const READS_AT_ONCE: usize = 32;

/// A connected store. Cloning shares the connections.
#[derive(Clone)]
pub struct CqlStore(Arc<Inner>);

struct Inner {
    session: Session,
    queries: Queries,
    buckets: BucketCache,
    clock: LogClock,
}

impl CqlStore {
    /// Connects, and waits as long as it takes for the cluster and for `reedi migrate`; tells `waits` and the log why
    /// it waits. Drop the future to give up. Later the driver connects again by itself. What has ended is judged by
    /// `clock`.
    ///
    /// # Errors
    /// The configuration can never work.
    pub async fn connect(
        config: &CqlConfig,
        clock: LogClock,
        waits: impl Fn(&str),
    ) -> Result<Self, ConfigError> {
        let session = config.await_session(&waits).await?;
        let mut wait = Backoff::new();
        loop {
            let why = match migrate::pending(&session, &config.keyspace).await {
                Ok(0) => match Queries::prepare(&session, &config.keyspace).await {
                    Ok(queries) => {
                        let buckets = BucketCache::new();
                        return Ok(Self(Arc::new(Inner { session, queries, buckets, clock })));
                    }
                    Err(error) => format!("the CQL cluster does not take the statements: {error}"),
                },
                Ok(pending) => {
                    format!("keyspace {} lacks {pending} migrations: run `reedi migrate`", config.keyspace)
                }
                Err(error) => {
                    format!(
                        "keyspace {} cannot be read; has `reedi migrate` been run? ({error})",
                        config.keyspace
                    )
                }
            };
            waits(&why);
            wait.after(&why).await;
        }
    }

    fn session(&self) -> &Session {
        &self.0.session
    }

    fn query(&self, query: Query) -> &PreparedStatement {
        self.0.queries.get(query)
    }

    fn buckets(&self) -> &BucketCache {
        &self.0.buckets
    }

    /// What ends is judged by the log's clock, as what is stamped is: not by this machine's.
    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// All rows of one partition that is known to be small.
    async fn rows<R>(&self, query: Query, values: impl SerializeRow + Send) -> StoreResult<Vec<R>>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let answer = self.session().execute_unpaged(self.query(query), values).await.map_err(unread)?;
        let rows = answer.into_rows_result().map_err(unreadable)?;
        rows.rows::<R>().map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)
    }

    async fn first<R>(&self, query: Query, values: impl SerializeRow + Send) -> StoreResult<Option<R>>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let answer = self.session().execute_unpaged(self.query(query), values).await.map_err(unread)?;
        answer.into_rows_result().map_err(unreadable)?.maybe_first_row::<R>().map_err(unreadable)
    }

    /// A write to a table of kind clock.
    async fn put(&self, query: Query, values: impl SerializeRow + Send) -> StoreResult<()> {
        self.session().execute_unpaged(self.query(query), values).await.map_err(away).map(|_| ())
    }

    /// A conditional write: whether it was applied. The other columns of the answer differ between
    /// servers and between yes and no; what stands is read afterwards.
    async fn conditional(&self, query: Query, values: impl SerializeRow + Send) -> StoreResult<bool> {
        let answer = self.session().execute_unpaged(self.query(query), values).await.map_err(away)?;
        applied(answer)
    }
}

fn applied(answer: scylla::response::query_result::QueryResult) -> StoreResult<bool> {
    let rows = answer.into_rows_result().map_err(unreadable)?;
    let row = rows.first_row::<scylla::value::Row>().map_err(unreadable)?;
    row.columns
        .first()
        .and_then(|column| column.as_ref()?.as_boolean())
        .ok_or_else(|| StoreError::Corrupt("a conditional write was answered without [applied]".to_owned()))
}

fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// What a read comes to that failed. Where servers tried and could not, it is about these rows; whoever is late or away
/// may be so for all.
fn unread(error: ExecutionError) -> StoreError {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::ReadFailure { .. }, why)) => {
            StoreError::GaveUp(why)
        }
        other => away(other),
    }
}

/// The same of the first page of many.
fn unread_page(error: PagerExecutionError) -> StoreError {
    match error {
        PagerExecutionError::NextPageError(NextPageError::RequestFailure(failed)) => {
            unread(failed.into_execution_error())
        }
        other => away(other),
    }
}

/// The same of a later page.
fn unread_row(error: NextRowError) -> StoreError {
    match error {
        NextRowError::NextPageError(NextPageError::RequestFailure(failed)) => {
            unread(failed.into_execution_error())
        }
        other => away(other),
    }
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

impl StorePort for CqlStore {
    /// Reads at the consistency that everything needs: a cluster without a quorum does not answer.
    async fn ping(&self) -> StoreResult<()> {
        self.watermarks().await.map(|_| ())
    }
}
