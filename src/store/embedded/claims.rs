//! What stands once in the embedded store: conversations, watermarks, epochs, preferences, accounts.

use super::transaction::Transaction;
use super::value::{
    AccountValue, BlockValue, DayValue, DirectValue, EpochValue, GroupValue, HeadValue, Held, MuteValue,
    SettingsValue, StateValue, Stored, UsernameValue, WatermarkValue,
};
use super::{EmbeddedStore, keys};
use crate::domain::conversation::ConversationState;
use crate::domain::retention::{DAYS_TTL_S, day_of};
use crate::store::{
    Accounts, Claimed, Conversations, EpochRow, Epochs, Order, OwnAccount, Preferences, StoreResult,
    Watermarks,
};
use reedi_protocol::resource::Settings;
use reedi_protocol::text::Username;
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Shard, Timestamp};

/// Puts `value` unless one stands.
fn claim<T: Stored>(tx: &mut Transaction<'_>, key: keys::Key, value: T) -> StoreResult<Claimed<T>> {
    if let Some(stands) = tx.get::<T>(&key)? {
        return Ok(Claimed::Stood(stands.value));
    }
    tx.put(key, &Held::for_ever(value))?;
    Ok(Claimed::New)
}

impl Conversations for EmbeddedStore {
    async fn state(
        &self,
        conversation: ConversationKey,
    ) -> StoreResult<Option<(Position, ConversationState)>> {
        let value: Option<StateValue> = self.reader().get(&keys::state(conversation))?;
        Ok(value.map(|StateValue { at, state }| (at, state)))
    }

    async fn heads(
        &self,
        conversations: &[ConversationKey],
    ) -> StoreResult<Vec<Option<(Position, Timestamp)>>> {
        let reader = self.reader();
        let head = |conversation: &ConversationKey| {
            let value: Option<HeadValue> = reader.get(&keys::head(*conversation))?;
            Ok(value.map(|HeadValue { head, head_time }| (head, head_time)))
        };
        conversations.iter().map(head).collect()
    }

    async fn claim_direct(
        &self,
        a: AccountId,
        b: AccountId,
        key: ConversationKey,
    ) -> StoreResult<Claimed<ConversationKey>> {
        let claimed = self.change(move |tx| claim(tx, keys::direct(a, b), DirectValue(key))).await?;
        Ok(match claimed {
            Claimed::New => Claimed::New,
            Claimed::Stood(DirectValue(stands)) => Claimed::Stood(stands),
        })
    }

    async fn claim_group(&self, key: ConversationKey) -> StoreResult<Claimed<()>> {
        let claimed = self.change(move |tx| claim(tx, keys::group(key), GroupValue)).await?;
        Ok(match claimed {
            Claimed::New => Claimed::New,
            Claimed::Stood(GroupValue) => Claimed::Stood(()),
        })
    }

    async fn mute(
        &self,
        account: AccountId,
        conversation: ConversationKey,
        until: Option<Timestamp>,
    ) -> StoreResult<()> {
        let key = keys::mute(account, conversation);
        self.change(move |tx| match until {
            Some(until) => tx.put(key, &Held::for_ever(MuteValue(until))),
            None => {
                tx.delete(key);
                Ok(())
            }
        })
        .await
    }
}

impl Watermarks for EmbeddedStore {
    async fn watermarks(&self) -> StoreResult<Vec<(Shard, Position)>> {
        // Key by key: each is written with every batch of its shard, and a scan goes over all that it was before, until
        // the tree is written out: milliseconds after some thousand batches.
        let reader = self.reader();
        let watermark = |shard| {
            let stored: Option<WatermarkValue> = reader.get(&keys::watermark(shard))?;
            Ok(stored.map(|to| (shard, to.0)))
        };
        Shard::all().filter_map(|shard| watermark(shard).transpose()).collect()
    }

    async fn advance(&self, watermarks: &[(Shard, Position)]) -> StoreResult<()> {
        if watermarks.is_empty() {
            return Ok(());
        }
        let watermarks = watermarks.to_vec();
        self.change(move |tx| watermarks.into_iter().try_for_each(|(shard, to)| advance(tx, shard, to))).await
    }

    async fn first_of_days(&self, shard: Shard) -> StoreResult<Vec<(Position, Timestamp)>> {
        let pick = |_: &[u8], DayValue { first, log_time }| Ok(Some((first, log_time)));
        self.reader().list(&keys::days(shard), Order::OldestFirst, usize::MAX, pick)
    }
}

/// Of a day the lowest position stands.
pub fn first_of_day(
    tx: &mut Transaction<'_>,
    shard: Shard,
    first: Position,
    log_time: Timestamp,
) -> StoreResult<()> {
    let ends = log_time.plus_millis(u64::from(DAYS_TTL_S) * 1_000);
    if ends <= tx.now() {
        return Ok(());
    }
    tx.update(keys::day(shard, day_of(log_time)), |old: Option<&Held<DayValue>>| match old {
        Some(old) if old.value.first <= first => old.clone(),
        _ => Held::until(ends, DayValue { first, log_time }),
    })
}

/// How far a shard has been stored.
pub fn watermark(tx: &Transaction<'_>, shard: Shard) -> StoreResult<Position> {
    let held: Option<Held<WatermarkValue>> = tx.get(&keys::watermark(shard))?;
    Ok(held.map_or(Position::START, |held| held.value.0))
}

/// Moves a watermark forward.
pub fn advance(tx: &mut Transaction<'_>, shard: Shard, to: Position) -> StoreResult<()> {
    tx.update(keys::watermark(shard), |old: Option<&Held<WatermarkValue>>| {
        Held::for_ever(WatermarkValue(old.map_or(to, |old| old.value.0.max(to))))
    })
}

fn epoch_row(epoch: Epoch, value: EpochValue) -> EpochRow {
    EpochRow { epoch, incarnations: value.incarnations, sealed: value.sealed }
}

impl Epochs for EmbeddedStore {
    async fn epochs(&self) -> StoreResult<Vec<EpochRow>> {
        let most = usize::from(Epoch::LAST.number());
        self.reader().list(&keys::epochs(), Order::OldestFirst, most, |key, value: EpochValue| {
            Ok(Some(epoch_row(keys::epoch_of(key)?, value)))
        })
    }

    async fn claim_epoch(&self, row: &EpochRow) -> StoreResult<Claimed<EpochRow>> {
        let EpochRow { epoch, incarnations, sealed } = row.clone();
        let value = EpochValue { incarnations, sealed };
        let claimed = self.change(move |tx| claim(tx, keys::epoch(epoch), value)).await?;
        Ok(match claimed {
            Claimed::New => Claimed::New,
            Claimed::Stood(value) => Claimed::Stood(epoch_row(epoch, value)),
        })
    }

    /// Sealing what was never claimed does nothing.
    async fn seal_epoch(&self, epoch: Epoch) -> StoreResult<()> {
        self.change(move |tx| {
            let key = keys::epoch(epoch);
            match tx.get::<EpochValue>(&key)? {
                Some(Held { value, .. }) if !value.sealed => {
                    tx.put(key, &Held::for_ever(EpochValue { sealed: true, ..value }))
                }
                _ => Ok(()),
            }
        })
        .await
    }
}

impl Preferences for EmbeddedStore {
    async fn settings(&self, account: AccountId) -> StoreResult<Settings> {
        let value: Option<SettingsValue> = self.reader().get(&keys::settings(account))?;
        Ok(value.map(|value| value.0).unwrap_or_default())
    }

    async fn put_settings(&self, account: AccountId, settings: Settings) -> StoreResult<()> {
        let held = Held::for_ever(SettingsValue(settings));
        self.change(move |tx| tx.put(keys::settings(account), &held)).await
    }

    async fn is_blocked(&self, by: AccountId, account: AccountId) -> StoreResult<bool> {
        let block: Option<BlockValue> = self.reader().get(&keys::block(by, account))?;
        Ok(block.is_some())
    }

    async fn blocks(&self, by: AccountId, limit: usize) -> StoreResult<Vec<AccountId>> {
        let pick = |key: &[u8], _: BlockValue| keys::account_of_block(key).map(Some);
        self.reader().list(&keys::blocks(by), Order::OldestFirst, limit, pick)
    }

    async fn set_block(&self, by: AccountId, account: AccountId, blocked: bool) -> StoreResult<()> {
        let key = keys::block(by, account);
        self.change(move |tx| {
            if blocked {
                tx.put(key, &Held::for_ever(BlockValue))
            } else {
                tx.delete(key);
                Ok(())
            }
        })
        .await
    }
}

impl Accounts for EmbeddedStore {
    async fn create_account(&self, own: &OwnAccount) -> StoreResult<Claimed<AccountId>> {
        let (account, username, value) = (own.account, own.username.clone(), AccountValue::from(own));
        self.change(move |tx| match claim(tx, keys::username(&username), UsernameValue(account))? {
            Claimed::Stood(UsernameValue(stands)) => Ok(Claimed::Stood(stands)),
            Claimed::New => {
                tx.put(keys::account(account), &Held::for_ever(value))?;
                Ok(Claimed::New)
            }
        })
        .await
    }

    async fn account_by_username(&self, username: &Username) -> StoreResult<Option<OwnAccount>> {
        match self.reader().get(&keys::username(username))? {
            Some(UsernameValue(account)) => self.account(account).await,
            None => Ok(None),
        }
    }

    async fn account(&self, account: AccountId) -> StoreResult<Option<OwnAccount>> {
        let value: Option<AccountValue> = self.reader().get(&keys::account(account))?;
        Ok(value.map(|value| value.into_own(account)))
    }

    async fn search_accounts(&self, prefix: &str, limit: usize) -> StoreResult<Vec<OwnAccount>> {
        let reader = self.reader();
        let pick = |_: &[u8], UsernameValue(account)| Ok(Some(account));
        let accounts = reader.list(&keys::usernames(prefix), Order::OldestFirst, limit, pick)?;
        let mut found = Vec::with_capacity(accounts.len());
        for account in accounts {
            let value: Option<AccountValue> = reader.get(&keys::account(account))?;
            found.extend(value.map(|value| value.into_own(account)));
        }
        Ok(found)
    }
}
