//! Reading conversations: messages, events, reactions, what is hidden, sends and receipts.

use super::bucket::{Bucket, BucketList, MessagePlace, UNPLACED, page_ends};
use super::cell::{Cell, decode_deletion, decode_header, decode_mark, decode_send, position, time};
use super::query::Query;
use super::{CqlStore, READS_AT_ONCE, unread_page, unread_row, unreadable};
use crate::domain::record::{Record, Sealed};
use crate::domain::write::event_ends;
use crate::store::{
    Messages, Order, Outline, Range, StoreResult, StoredEvent, StoredMessage, StoredReaction, StoredReceipt,
    StoredSend,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::text::ClientMessageId;
use reedi_protocol::{AccountId, ConversationKey, Position, Timestamp};
use scylla::DeserializeRow;
use scylla::deserialize::row::DeserializeRow as Row;
use std::collections::HashMap;
use std::future::Future;
use uuid::Uuid;

/// Rows in one answer: with content of 64 KiB each well below the 16 MiB of a frame.
const ROWS_AT_ONCE: usize = 100;
/// Buckets read at the same time, at most; a page begins with one and doubles.
const BUCKETS_AT_ONCE: usize = 16;

/// A row of `messages`, of which each part may be absent.
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct MessageCells {
    position: i64,
    header: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    edited_at: Option<i64>,
    /// The position of the edit: what `edited_at` was written with.
    edited_by: Option<i64>,
    deletion: Option<Vec<u8>>,
}

impl MessageCells {
    /// Puts in what was stored before the message was.
    fn with(mut self, change: &Self) -> Self {
        if change.edited_by > self.edited_by {
            self.content.clone_from(&change.content);
            (self.edited_at, self.edited_by) = (change.edited_at, change.edited_by);
        }
        // Of two deletions the first stands; their bytes begin with the time.
        self.deletion = match (self.deletion.take(), &change.deletion) {
            (Some(own), Some(other)) => Some(own.min(other.clone())),
            (own, other) => own.or_else(|| other.clone()),
        };
        self
    }

    /// `None` for what is left of a message that has gone.
    fn into_message(self, now: Timestamp) -> StoreResult<Option<StoredMessage>> {
        let Some(header) = self.header else { return Ok(None) };
        let row = decode_header(&header)?;
        if row.expires_at.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        let deleted = self.deletion.as_deref().map(decode_deletion).transpose()?;
        let edited_at = self.edited_at.map(time).transpose()?;
        // The content of a deleted message is gone already; should it be there, it is still not shown.
        let stands = deleted.is_none();
        Ok(Some(StoredMessage {
            row,
            content: self.content.filter(|_| stands).map(|bytes| Sealed(Bytes::from(bytes))),
            edited_at: edited_at.filter(|_| stands),
            deleted,
        }))
    }
}

/// A row of `messages` without what it is about.
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct OutlineCells {
    position: i64,
    header: Option<Vec<u8>>,
    deletion: Option<Vec<u8>>,
}

impl From<OutlineCells> for MessageCells {
    fn from(OutlineCells { position, header, deletion }: OutlineCells) -> Self {
        Self { position, header, content: None, edited_at: None, edited_by: None, deletion }
    }
}

/// How much of messages is read, and from which end.
#[derive(Clone, Copy)]
enum Look {
    Whole(Order),
    /// Without content, oldest first.
    Outline,
}

impl Look {
    fn order(self) -> Order {
        match self {
            Self::Whole(order) => order,
            Self::Outline => Order::OldestFirst,
        }
    }
}

/// Something with a place in a conversation.
trait Placed {
    fn position(&self) -> Position;
}

impl Placed for StoredMessage {
    fn position(&self) -> Position {
        self.row.position
    }
}

impl Placed for StoredEvent {
    fn position(&self) -> Position {
        self.position
    }
}

impl CqlStore {
    /// At most `limit` entries within `range`, from as few buckets as it takes.
    async fn page<T, F, A>(
        &self,
        list: &BucketList,
        range: Range,
        order: Order,
        limit: usize,
        read: F,
    ) -> StoreResult<Vec<T>>
    where
        T: Placed,
        F: Fn(Bucket) -> A,
        A: Future<Output = StoreResult<Vec<T>>>,
    {
        let mut page: Vec<T> = Vec::new();
        if limit == 0 {
            return Ok(page);
        }
        let buckets = list.within(range, order);
        let mut unread: &[Bucket] = &buckets;
        let mut at_once = 1;
        while let (now, later) = unread.split_at(at_once.min(unread.len()))
            && let Some(last) = now.last().copied()
        {
            unread = later;
            let found: Vec<Vec<T>> = futures_util::stream::iter(now.to_vec())
                .map(&read)
                .buffered(BUCKETS_AT_ONCE)
                .try_collect()
                .await?;
            page.extend(found.into_iter().flatten());
            page.sort_by_key(Placed::position);
            if order == Order::NewestFirst {
                page.reverse();
            }
            page.truncate(limit);
            if page.len() == limit
                && page.last().is_some_and(|entry| page_ends(order, entry.position(), last, unread))
            {
                break;
            }
            at_once = (at_once * 2).min(BUCKETS_AT_ONCE);
        }
        Ok(page)
    }

    /// The rows of `messages` in one bucket.
    async fn message_cells(
        &self,
        (conversation, bucket, range): (ConversationKey, i32, Range),
        look: Look,
        limit: usize,
    ) -> StoreResult<Vec<MessageCells>> {
        let bound = within(conversation, bucket, range, limit);
        match look {
            Look::Whole(Order::NewestFirst) => self.rows(Query::NewestMessages, bound).await,
            Look::Whole(Order::OldestFirst) => self.rows(Query::OldestMessages, bound).await,
            Look::Outline => {
                let rows: Vec<OutlineCells> = self.rows(Query::OldestOutlines, bound).await?;
                Ok(rows.into_iter().map(MessageCells::from).collect())
            }
        }
    }

    /// Messages within `range`, from as few buckets as it takes.
    async fn read_messages(
        &self,
        conversation: ConversationKey,
        range: Range,
        look: Look,
        limit: usize,
    ) -> StoreResult<Vec<StoredMessage>> {
        let list = self.bucket_list(conversation, range.before).await?;
        let (order, unplaced) = (look.order(), list.unplaced);
        let read = |bucket: Bucket| {
            let of = (conversation, bucket.number, unplaced);
            let read = move |part, limit| self.bucket_messages(of, part, look, limit);
            self.in_parts((conversation, bucket), (range, order), limit, read)
        };
        self.page(&list, range, order, limit, read).await
    }

    /// Messages of one bucket, read on where rows turn out to be no messages any more.
    async fn bucket_messages(
        &self,
        (conversation, bucket, unplaced): (ConversationKey, i32, bool),
        mut range: Range,
        look: Look,
        limit: usize,
    ) -> StoreResult<Vec<StoredMessage>> {
        let order = look.order();
        let mut messages = Vec::new();
        loop {
            let wanted = (limit - messages.len()).min(ROWS_AT_ONCE);
            let rows = self.message_cells((conversation, bucket, range), look, wanted).await?;
            let complete = rows.len() < wanted;
            if let Some(last) = rows.last() {
                match order {
                    Order::NewestFirst => range.before = position(last.position)?,
                    Order::OldestFirst => range.after = position(last.position)?,
                }
            }
            let rows = if unplaced { self.with_unplaced(conversation, rows).await? } else { rows };
            for row in rows {
                messages.extend(row.into_message(self.now())?);
            }
            if complete || messages.len() >= limit {
                return Ok(messages);
            }
        }
    }

    /// Adds what was stored before the messages were.
    async fn with_unplaced(
        &self,
        conversation: ConversationKey,
        rows: Vec<MessageCells>,
    ) -> StoreResult<Vec<MessageCells>> {
        futures_util::stream::iter(rows.into_iter().map(|row| async move {
            let (after, before) = (Cell::Big(row.position - 1), Cell::Big(row.position + 1));
            let one = [conversation.into(), Cell::Int(UNPLACED), after, before, Cell::Int(1)];
            let change: Option<MessageCells> = self.first(Query::NewestMessages, one.as_slice()).await?;
            Ok(match change {
                Some(change) => row.with(&change),
                None => row,
            })
        }))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await
    }

    async fn bucket_events(
        &self,
        conversation: ConversationKey,
        bucket: i32,
        mut range: Range,
        limit: usize,
    ) -> StoreResult<Vec<StoredEvent>> {
        let mut events = Vec::new();
        loop {
            let wanted = (limit - events.len()).min(ROWS_AT_ONCE);
            let bound = within(conversation, bucket, range, wanted);
            let rows: Vec<(i64, Option<i64>, Option<Vec<u8>>)> = self.rows(Query::Events, bound).await?;
            let complete = rows.len() < wanted;
            for (at, log_time, record) in rows {
                range.after = position(at)?;
                let (Some(log_time), Some(record)) = (log_time, record) else { continue };
                let log_time = time(log_time)?;
                let record = Record::decode(&record).map_err(unreadable)?;
                if event_ends(log_time, &record) <= self.now() {
                    continue;
                }
                events.push(StoredEvent { position: range.after, log_time, record });
            }
            if complete || events.len() >= limit {
                return Ok(events);
            }
        }
    }

    async fn bucket_reactions(
        &self,
        conversation: ConversationKey,
        bucket: i32,
        range: Range,
    ) -> StoreResult<Vec<ReactionCells>> {
        let bound = [conversation.into(), Cell::Int(bucket), range.after.into(), range.before.into()];
        self.all_rows(Query::Reactions, &bound).await
    }

    /// All rows of a partition that may have many, page by page.
    pub(super) async fn all_rows<R>(&self, query: Query, bound: &[Cell]) -> StoreResult<Vec<R>>
    where
        R: for<'f, 'm> Row<'f, 'm> + Send + 'static,
    {
        let pager =
            self.session().execute_iter(self.query(query).clone(), bound).await.map_err(unread_page)?;
        pager.rows_stream::<R>().map_err(unreadable)?.map_err(unread_row).try_collect().await
    }
}

fn within(conversation: ConversationKey, bucket: i32, range: Range, limit: usize) -> Vec<Cell> {
    let limit = Cell::Int(i32::try_from(limit).unwrap_or(i32::MAX));
    vec![conversation.into(), Cell::Int(bucket), range.after.into(), range.before.into(), limit]
}

/// Target, account, reaction, and the position at which it was added, or minus that of its removal.
type ReactionCells = (i64, Uuid, String, Option<i64>);

/// Of an account's same reaction in two buckets the later stands, were it a removal.
fn reactions_in_order(found: impl Iterator<Item = ReactionCells>) -> StoreResult<Vec<StoredReaction>> {
    let mut latest: HashMap<(i64, Uuid, String), i64> = HashMap::new();
    for (target, account, reaction, at) in found {
        // A row without a place is what a TTL has half taken.
        let Some(at) = at else { continue };
        let known = latest.entry((target, account, reaction)).or_insert(at);
        if at.unsigned_abs() > known.unsigned_abs() {
            *known = at;
        }
    }
    let mut reactions = Vec::with_capacity(latest.len());
    for ((target, account, reaction), at) in latest {
        if at >= 0 {
            let (target, at) = (position(target)?, position(at)?);
            reactions.push(StoredReaction { target, account: AccountId::new(account), reaction, at });
        }
    }
    reactions.sort_unstable_by_key(|reaction| (reaction.target, reaction.at));
    Ok(reactions)
}

impl Messages for CqlStore {
    async fn message(
        &self,
        conversation: ConversationKey,
        at: Position,
    ) -> StoreResult<Option<StoredMessage>> {
        let Some(MessagePlace { bucket, .. }) = self.find(conversation, at).await? else { return Ok(None) };
        let unplaced = self.remembered_bucket_list(conversation).await?.0.unplaced;
        let (after, before) =
            (Cell::Big(super::cell::micros(at) - 1), Cell::Big(super::cell::micros(at) + 1));
        let one = [conversation.into(), Cell::Int(bucket), after, before, Cell::Int(1)];
        let rows: Vec<MessageCells> = self.rows(Query::NewestMessages, one.as_slice()).await?;
        let rows = if unplaced { self.with_unplaced(conversation, rows).await? } else { rows };
        match rows.into_iter().next() {
            Some(row) => row.into_message(self.now()),
            None => Ok(None),
        }
    }

    async fn messages(
        &self,
        conversation: ConversationKey,
        range: Range,
        order: Order,
        limit: usize,
    ) -> StoreResult<Vec<StoredMessage>> {
        self.read_messages(conversation, range, Look::Whole(order), limit).await
    }

    async fn outlines(
        &self,
        conversation: ConversationKey,
        range: Range,
        limit: usize,
    ) -> StoreResult<Vec<Outline>> {
        let found = self.read_messages(conversation, range, Look::Outline, limit).await?;
        Ok(found.iter().map(Outline::of).collect())
    }

    async fn events(
        &self,
        conversation: ConversationKey,
        range: Range,
        limit: usize,
    ) -> StoreResult<Vec<StoredEvent>> {
        let list = self.bucket_list(conversation, range.before).await?;
        let read = |bucket: Bucket| {
            let read = move |part, limit| self.bucket_events(conversation, bucket.number, part, limit);
            self.in_parts((conversation, bucket), (range, Order::OldestFirst), limit, read)
        };
        self.page(&list, range, Order::OldestFirst, limit, read).await
    }

    async fn reactions(
        &self,
        conversation: ConversationKey,
        range: Range,
    ) -> StoreResult<Vec<StoredReaction>> {
        let list = self.bucket_list(conversation, range.before).await?;
        let beside = list.unplaced.then_some(Bucket { number: UNPLACED, first: range.after });
        let buckets = list.within(range, Order::OldestFirst).into_iter().chain(beside);
        let found: Vec<Vec<ReactionCells>> = futures_util::stream::iter(buckets)
            .map(|bucket| {
                let read = move |part, _| self.bucket_reactions(conversation, bucket.number, part);
                self.in_parts((conversation, bucket), (range, Order::OldestFirst), usize::MAX, read)
            })
            .buffered(BUCKETS_AT_ONCE)
            .try_collect()
            .await?;
        reactions_in_order(found.into_iter().flatten())
    }

    async fn hidden(
        &self,
        conversation: ConversationKey,
        account: AccountId,
        range: Range,
    ) -> StoreResult<Vec<Position>> {
        let bound = [conversation.into(), account.into(), range.after.into(), range.before.into()];
        let rows: Vec<(i64,)> = self.all_rows(Query::HiddenMessages, &bound).await?;
        rows.into_iter().map(|(target,)| position(target)).collect()
    }

    async fn sent(
        &self,
        conversation: ConversationKey,
        sender: AccountId,
        id: &ClientMessageId,
    ) -> StoreResult<Option<StoredSend>> {
        let key = [conversation.into(), sender.into(), Cell::Text(id.as_str().to_owned())];
        match self.first::<(Option<Vec<u8>>,)>(Query::Sent, key.as_slice()).await? {
            Some((Some(sent),)) => decode_send(&sent).map(Some),
            _ => Ok(None),
        }
    }

    async fn receipts(&self, conversation: ConversationKey) -> StoreResult<Vec<StoredReceipt>> {
        type Marks = (Uuid, Option<Vec<u8>>, Option<Vec<u8>>);
        let rows: Vec<Marks> = self.all_rows(Query::Receipts, &[conversation.into()]).await?;
        let mark = |cell: Option<Vec<u8>>| cell.as_deref().map(decode_mark).transpose();
        rows.into_iter()
            .map(|(account, delivered, read)| {
                let account = AccountId::new(account);
                Ok(StoredReceipt { account, delivered: mark(delivered)?, read: mark(read)? })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(content: Option<&[u8]>, edited: Option<(i64, i64)>, deletion: Option<Vec<u8>>) -> MessageCells {
        MessageCells {
            position: 1,
            header: None,
            content: content.map(<[u8]>::to_vec),
            edited_at: edited.map(|(_, at)| at),
            edited_by: edited.map(|(by, _)| by),
            deletion,
        }
    }

    #[test]
    fn the_later_edit_stands_wherever_it_was_stored() {
        let early = cells(Some(b"second"), Some((5, 50)), None);
        let got = cells(Some(b"first"), None, None).with(&early);
        assert_eq!((got.content.as_deref(), got.edited_at), (Some(&b"second"[..]), Some(50)));
        let got = cells(Some(b"third"), Some((6, 60)), None).with(&early);
        assert_eq!((got.content.as_deref(), got.edited_at), (Some(&b"third"[..]), Some(60)));
        let gone = cells(None, None, Some(vec![0; 24]));
        assert!(cells(Some(b"first"), None, None).with(&gone).deletion.is_some());
    }

    #[test]
    fn a_removal_beside_the_bucket_counts() {
        let at = |n: i64| (1 << 44) | n;
        let row = |at| ((1 << 44) | 1, Uuid::nil(), "x".to_owned(), Some(at));
        let left = |rows: Vec<i64>| reactions_in_order(rows.into_iter().map(row)).unwrap().len();
        assert_eq!(left(vec![at(5), -at(6)]), 0);
        assert_eq!(left(vec![-at(6), at(5)]), 0);
        assert_eq!(left(vec![-at(6), at(7)]), 1);
    }
}
