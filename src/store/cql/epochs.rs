//! How far the store is, and the lives of the log.

use super::CqlStore;
use super::cell::{Cell, corrupt, position, time};
use super::operation::Operation;
use super::query::Query;
use crate::store::{Claimed, EpochRow, Epochs, StoreResult, Watermarks};
use reedi_protocol::{Epoch, Position, Shard, Timestamp};

/// The one partition of a table that has a single one.
const SCOPE: i32 = 0;

type Row = (i32, Option<Vec<String>>, Option<bool>);

fn epoch_row((epoch, incarnations, sealed): Row) -> StoreResult<EpochRow> {
    let number = u16::try_from(epoch).ok().and_then(Epoch::new);
    let epoch = number.ok_or_else(|| corrupt("an epoch out of range"))?;
    Ok(EpochRow { epoch, incarnations: incarnations.unwrap_or_default(), sealed: sealed.unwrap_or_default() })
}

impl Watermarks for CqlStore {
    async fn watermarks(&self) -> StoreResult<Vec<(Shard, Position)>> {
        let rows: Vec<(i32, Option<i64>)> = self.rows(Query::Watermarks, (SCOPE,)).await?;
        let mut watermarks = Vec::with_capacity(rows.len());
        for (shard, at) in rows {
            let shard = u8::try_from(shard).map_err(|_| corrupt("a shard out of range"))?;
            if let Some(at) = at {
                watermarks.push((Shard(shard), position(at)?));
            }
        }
        Ok(watermarks)
    }

    async fn advance(&self, watermarks: &[(Shard, Position)]) -> StoreResult<()> {
        let row = |(shard, at): &(Shard, Position)| {
            let key = vec![Cell::Int(SCOPE), Cell::Int(shard.0.into())];
            Operation::at(Query::PutWatermark, key, vec![(*at).into()], *at)
        };
        self.write(watermarks.iter().map(row).collect()).await
    }

    async fn first_of_days(&self, shard: Shard) -> StoreResult<Vec<(Position, Timestamp)>> {
        let rows: Vec<(Option<i64>, Option<i64>)> =
            self.rows(Query::FirstOfDays, (i32::from(shard.0),)).await?;
        let days = rows.into_iter().filter_map(|(first, log_time)| first.zip(log_time));
        days.map(|(first, log_time)| Ok((position(first)?, time(log_time)?))).collect()
    }
}

impl Epochs for CqlStore {
    async fn epochs(&self) -> StoreResult<Vec<EpochRow>> {
        let rows: Vec<Row> = self.rows(Query::Epochs, (SCOPE,)).await?;
        rows.into_iter().map(epoch_row).collect()
    }

    async fn claim_epoch(&self, row: &EpochRow) -> StoreResult<Claimed<EpochRow>> {
        let number = i32::from(row.epoch.number());
        let claim = (SCOPE, number, &row.incarnations, row.sealed);
        if self.conditional(Query::ClaimEpoch, claim).await? {
            return Ok(Claimed::New);
        }
        match self.first::<Row>(Query::Epoch, (SCOPE, number)).await? {
            Some(stands) => epoch_row(stands).map(Claimed::Stood),
            None => Err(corrupt("an epoch that stands and is not there")),
        }
    }

    async fn seal_epoch(&self, epoch: Epoch) -> StoreResult<()> {
        // Not applied where there is no such epoch: then there is nothing that could take records.
        self.conditional(Query::SealEpoch, (SCOPE, i32::from(epoch.number()))).await.map(|_| ())
    }
}
