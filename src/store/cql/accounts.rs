//! Own accounts. The row of the user name has everything and decides whose it is; the two that lead
//! to it are written before it, so that an account that stands is always found.

use super::cell::{Cell, corrupt, time};
use super::query::Query;
use super::{CqlStore, READS_AT_ONCE, away, unreadable};
use crate::store::{Accounts, Claimed, OwnAccount, StoreResult};
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::AccountId;
use reedi_protocol::text::{Name, Username};
use scylla::DeserializeRow;
use uuid::Uuid;

/// Characters of a user name that make its partition of the search table. User names have three at
/// least; two give some 1,400 partitions.
const PREFIX_CHARS: usize = 2;
/// The characters of a user name, in the order of their bytes.
const CHARACTERS: &str = "-.0123456789_abcdefghijklmnopqrstuvwxyz";
/// After every character of a user name.
const AFTER_ALL: char = '~';

#[derive(DeserializeRow)]
struct NameCells {
    account: Option<Uuid>,
    display_name: Option<String>,
    password_hash: Option<String>,
    created_at: Option<i64>,
}

impl NameCells {
    fn into_account(self, username: Username) -> StoreResult<OwnAccount> {
        let Self { account: Some(account), display_name: Some(name), password_hash: Some(hash), created_at } =
            self
        else {
            return Err(corrupt("an account without all of its parts"));
        };
        Ok(OwnAccount {
            account: AccountId::new(account),
            username,
            display_name: Name::parse(&name).map_err(unreadable)?,
            password_hash: hash,
            created_at: created_at.map(time).transpose()?.unwrap_or_default(),
        })
    }
}

/// The partitions in which names with `prefix` can be, in order.
fn partitions(prefix: &str) -> Vec<String> {
    let mut found = vec![prefix.chars().take(PREFIX_CHARS).collect::<String>()];
    for _ in found[0].chars().count()..PREFIX_CHARS {
        found = found
            .iter()
            .flat_map(|beginning| CHARACTERS.chars().map(move |next| format!("{beginning}{next}")))
            .collect();
    }
    found
}

impl CqlStore {
    /// The names in one partition of the search table that begin with `prefix`, in order.
    async fn names(&self, partition: String, prefix: &str, limit: usize) -> StoreResult<Vec<String>> {
        let end = format!("{prefix}{AFTER_ALL}");
        let bound = [partition, prefix.to_owned(), end].map(Cell::Text);
        let statement = self.query(Query::Search).clone();
        let pager = self.session().execute_iter(statement, bound.as_slice()).await.map_err(away)?;
        let names = pager.rows_stream::<(String,)>().map_err(unreadable)?;
        names.take(limit).map_ok(|(name,)| name).map_err(away).try_collect().await
    }
}

impl Accounts for CqlStore {
    async fn create_account(&self, account: &OwnAccount) -> StoreResult<Claimed<AccountId>> {
        let name = account.username.as_str();
        let text = |text: &str| Cell::Text(text.to_owned());
        let partition: String = name.chars().take(PREFIX_CHARS).collect();
        let (by_id, by_prefix) = ([account.account.into(), text(name)], [text(&partition), text(name)]);
        tokio::try_join!(
            self.put(Query::PutAccount, by_id.as_slice()),
            self.put(Query::PutSearch, by_prefix.as_slice()),
        )?;
        let claim = [
            text(name),
            account.account.into(),
            text(account.display_name.as_str()),
            text(&account.password_hash),
            account.created_at.into(),
        ];
        if self.conditional(Query::ClaimName, claim.as_slice()).await? {
            return Ok(Claimed::New);
        }
        match self.account_by_username(&account.username).await? {
            Some(stands) => Ok(Claimed::Stood(stands.account)),
            None => Err(corrupt("a user name that stands and is not there")),
        }
    }

    async fn account_by_username(&self, username: &Username) -> StoreResult<Option<OwnAccount>> {
        let name = (username.as_str(),);
        let row: Option<NameCells> = self.first(Query::AccountByName, name).await?;
        row.map(|row| row.into_account(username.clone())).transpose()
    }

    async fn account(&self, account: AccountId) -> StoreResult<Option<OwnAccount>> {
        let row: Option<(Option<String>,)> = self.first(Query::AccountName, (Cell::from(account),)).await?;
        let Some((Some(name),)) = row else { return Ok(None) };
        let username = Username::parse(&name).map_err(unreadable)?;
        let found = self.account_by_username(&username).await?;
        // The name may have gone to another: this one only tried.
        Ok(found.filter(|found| found.account == account))
    }

    async fn search_accounts(&self, prefix: &str, limit: usize) -> StoreResult<Vec<OwnAccount>> {
        let mut accounts = Vec::new();
        if limit == 0 {
            return Ok(accounts);
        }
        let mut names = std::pin::pin!(
            futures_util::stream::iter(partitions(prefix))
                .map(|partition| self.names(partition, prefix, limit))
                .buffered(READS_AT_ONCE)
        );
        while accounts.len() < limit {
            let Some(names) = names.next().await else { break };
            let found: Vec<Option<OwnAccount>> = futures_util::stream::iter(names?)
                .map(|name| async move {
                    let username = Username::parse(&name).map_err(unreadable)?;
                    self.account_by_username(&username).await
                })
                .buffered(READS_AT_ONCE)
                .try_collect()
                .await?;
            accounts.extend(found.into_iter().flatten());
        }
        accounts.truncate(limit);
        Ok(accounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_in_the_order_of_names() {
        assert_eq!(partitions("reedi"), ["re"]);
        assert_eq!(partitions("r").len(), CHARACTERS.len());
        assert_eq!(partitions("").len(), CHARACTERS.len() * CHARACTERS.len());
        for prefix in ["", "r"] {
            assert!(partitions(prefix).is_sorted());
        }
        assert!(CHARACTERS.chars().all(|c| c < AFTER_ALL));
    }
}
