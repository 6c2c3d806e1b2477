//! Conversations, who claimed them, and each account's list of them.

use super::cell::{Cell, corrupt, decode_state, key, kind, position, time};
use super::query::Query;
use super::{CqlStore, READS_AT_ONCE};
use crate::domain::conversation::ConversationState;
use crate::store::{Claimed, Conversations, InboxRow, Inboxes, StoreResult};
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};
use scylla::DeserializeRow;
use std::collections::HashMap;

/// A row of `inbox`, of which each part may be absent.
#[derive(DeserializeRow)]
struct InboxCells {
    conversation: i64,
    joined: Option<i64>,
    kind: Option<i32>,
    departed: Option<i64>,
    head: Option<i64>,
    head_time: Option<i64>,
    touched: Option<i64>,
    read_to: Option<i64>,
}

impl InboxCells {
    /// `None` for what was stored of a conversation before the account joined it.
    fn into_row(self, muted_until: Option<Timestamp>) -> StoreResult<Option<InboxRow>> {
        let (Some(joined), Some(number)) = (self.joined, self.kind) else { return Ok(None) };
        let joined = position(joined)?;
        let departed = self.departed.map(position).transpose()?;
        let head = match (self.head, self.head_time) {
            (Some(head), Some(at)) => Some((position(head)?, time(at)?)),
            _ => None,
        };
        Ok(Some(InboxRow {
            conversation: key(self.conversation),
            kind: kind(number)?,
            joined,
            // Who joined again has not left.
            left: departed.filter(|left| *left > joined),
            left_before: departed.filter(|left| *left < joined),
            head,
            touched: self.touched.map(position).transpose()?,
            read: self.read_to.map(position).transpose()?.unwrap_or(Position::START),
            muted_until,
        }))
    }
}

impl CqlStore {
    async fn head(&self, conversation: ConversationKey) -> StoreResult<Option<(Position, Timestamp)>> {
        let row: Option<(Option<i64>, Option<i64>)> =
            self.first(Query::Head, (Cell::from(conversation),)).await?;
        match row {
            Some((Some(head), Some(at))) => Ok(Some((position(head)?, time(at)?))),
            _ => Ok(None),
        }
    }

    /// At most `limit` rows of an inbox from `begin` on, without those that are of no conversation that was joined; and
    /// the last that was looked at, unless there are no more.
    async fn inbox_rows(
        &self,
        account: AccountId,
        begin: i64,
        limit: usize,
    ) -> StoreResult<(Vec<InboxRow>, Option<i64>)> {
        let most = Cell::Int(i32::try_from(limit).unwrap_or(i32::MAX));
        let bound = [Cell::from(account), Cell::Big(begin), most];
        let cells: Vec<InboxCells> = self.rows(Query::Inbox, bound.as_slice()).await?;
        let Some(last) = cells.last().map(|row| row.conversation) else { return Ok((Vec::new(), None)) };
        let bound = [Cell::from(account), Cell::Big(begin), Cell::Big(last)];
        let mutes: Vec<(i64, Option<i64>)> = self.all_rows(Query::Mutes, &bound).await?;
        let mutes: HashMap<i64, Option<i64>> = mutes.into_iter().collect();
        let read_to = (cells.len() >= limit).then_some(last);
        let mut rows = Vec::with_capacity(cells.len());
        for row in cells {
            let muted_until = mutes.get(&row.conversation).copied().flatten().map(time).transpose()?;
            rows.extend(row.into_row(muted_until)?);
        }
        Ok((rows, read_to))
    }
}

impl Conversations for CqlStore {
    async fn state(
        &self,
        conversation: ConversationKey,
    ) -> StoreResult<Option<(Position, ConversationState)>> {
        let row: Option<(Option<i64>, Option<Vec<u8>>)> =
            self.first(Query::State, (Cell::from(conversation),)).await?;
        match row {
            Some((Some(at), Some(state))) => Ok(Some((position(at)?, decode_state(&state)?))),
            _ => Ok(None),
        }
    }

    async fn heads(
        &self,
        conversations: &[ConversationKey],
    ) -> StoreResult<Vec<Option<(Position, Timestamp)>>> {
        futures_util::stream::iter(conversations.to_vec())
            .map(|conversation| self.head(conversation))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn claim_direct(
        &self,
        a: AccountId,
        b: AccountId,
        key: ConversationKey,
    ) -> StoreResult<Claimed<ConversationKey>> {
        let (low, high) = (Cell::from(a.min(b)), Cell::from(a.max(b)));
        let claim = [low.clone(), high.clone(), key.into()];
        if self.conditional(Query::ClaimDirect, claim.as_slice()).await? {
            return Ok(Claimed::New);
        }
        match self.first::<(Option<i64>,)>(Query::Direct, [low, high].as_slice()).await? {
            Some((Some(stands),)) => Ok(Claimed::Stood(super::cell::key(stands))),
            _ => Err(corrupt("a direct conversation that stands and is not there")),
        }
    }

    async fn claim_group(&self, key: ConversationKey) -> StoreResult<Claimed<()>> {
        let new = self.conditional(Query::ClaimKey, (Cell::from(key),)).await?;
        Ok(if new { Claimed::New } else { Claimed::Stood(()) })
    }

    async fn mute(
        &self,
        account: AccountId,
        conversation: ConversationKey,
        until: Option<Timestamp>,
    ) -> StoreResult<()> {
        let row = [Cell::from(account), conversation.into()];
        match until {
            Some(until) => {
                let [account, conversation] = row;
                self.put(Query::Mute, [account, conversation, until.into()].as_slice()).await
            }
            None => self.put(Query::Unmute, row.as_slice()).await,
        }
    }
}

impl Inboxes for CqlStore {
    async fn inbox(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
        limit: usize,
    ) -> StoreResult<Vec<InboxRow>> {
        let mut from = match after.map(|key| key.as_u64().cast_signed()) {
            None => Some(i64::MIN),
            Some(key) => key.checked_add(1),
        };
        let mut inbox = Vec::new();
        while let Some(begin) = from.filter(|_| inbox.len() < limit) {
            let wanted = limit - inbox.len();
            let (rows, read_to) = self.inbox_rows(account, begin, wanted).await?;
            inbox.extend(rows);
            from = read_to.and_then(|last| last.checked_add(1));
        }
        Ok(inbox)
    }

    async fn inbox_row(
        &self,
        account: AccountId,
        conversation: ConversationKey,
    ) -> StoreResult<Option<InboxRow>> {
        let one = [Cell::from(account), conversation.into()];
        let (muted, row) = tokio::try_join!(
            self.first::<(Option<i64>,)>(Query::MuteOne, one.as_slice()),
            self.first::<InboxCells>(Query::InboxOne, one.as_slice()),
        )?;
        let muted_until = muted.and_then(|(at,)| at).map(time).transpose()?;
        match row {
            Some(row) => row.into_row(muted_until),
            None => Ok(None),
        }
    }
}
