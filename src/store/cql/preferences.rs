//! What accounts choose: the last to write wins.

use super::cell::Cell;
use super::query::Query;
use super::{CqlStore, unreadable};
use crate::store::{Preferences, StoreResult};
use reedi_protocol::AccountId;
use reedi_protocol::resource::Settings;
use uuid::Uuid;

impl Preferences for CqlStore {
    async fn settings(&self, account: AccountId) -> StoreResult<Settings> {
        match self.first::<(Option<String>,)>(Query::Settings, (Cell::from(account),)).await? {
            Some((Some(settings),)) => serde_json::from_str(&settings).map_err(unreadable),
            _ => Ok(Settings::default()),
        }
    }

    async fn put_settings(&self, account: AccountId, settings: Settings) -> StoreResult<()> {
        let text = serde_json::to_string(&settings).map_err(unreadable)?;
        self.put(Query::PutSettings, [account.into(), Cell::Text(text)].as_slice()).await
    }

    async fn is_blocked(&self, by: AccountId, account: AccountId) -> StoreResult<bool> {
        let row = [Cell::from(by), account.into()];
        Ok(self.first::<(Uuid,)>(Query::IsBlocked, row.as_slice()).await?.is_some())
    }

    async fn blocks(&self, by: AccountId, limit: usize) -> StoreResult<Vec<AccountId>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let limit = Cell::Int(i32::try_from(limit).unwrap_or(i32::MAX));
        let rows: Vec<(Uuid,)> = self.all_rows(Query::Blocks, &[by.into(), limit]).await?;
        Ok(rows.into_iter().map(|(account,)| AccountId::new(account)).collect())
    }

    async fn set_block(&self, by: AccountId, account: AccountId, blocked: bool) -> StoreResult<()> {
        let query = if blocked { Query::Block } else { Query::Unblock };
        self.put(query, [Cell::from(by), account.into()].as_slice()).await
    }
}
