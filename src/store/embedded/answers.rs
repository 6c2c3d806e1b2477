//! What the embedded store reads for others: conversations' messages and events, and inboxes.

use super::value::{
    self, EventValue, HiddenValue, InboxValue, Mark, MessageOutline, MessageValue, MuteValue, ReactionValue,
    ReceiptValue, SentValue,
};
use super::{EmbeddedStore, keys};
use crate::domain::record::Record;
use crate::store::{
    InboxRow, Inboxes, Messages, Order, Outline, Range, StoreError, StoreResult, StoredEvent, StoredMessage,
    StoredReaction, StoredReceipt, StoredSend,
};
use reedi_protocol::text::ClientMessageId;
use reedi_protocol::{AccountId, ConversationKey, Position};
use std::ops::ControlFlow;

impl Messages for EmbeddedStore {
    async fn message(
        &self,
        conversation: ConversationKey,
        position: Position,
    ) -> StoreResult<Option<StoredMessage>> {
        let value: Option<MessageValue> = self.reader().get(&keys::message(conversation, position))?;
        Ok(value.and_then(MessageValue::into_stored))
    }

    async fn messages(
        &self,
        conversation: ConversationKey,
        range: Range,
        order: Order,
        limit: usize,
    ) -> StoreResult<Vec<StoredMessage>> {
        let span = keys::messages(conversation, range);
        self.reader().list(&span, order, limit, |_, value: MessageValue| Ok(value.into_stored()))
    }

    async fn outlines(
        &self,
        conversation: ConversationKey,
        range: Range,
        limit: usize,
    ) -> StoreResult<Vec<Outline>> {
        let reader = self.reader();
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        reader.engine.scan(&keys::messages(conversation, range), Order::OldestFirst, &mut |_, bytes| {
            if let Some(held) = value::decode::<MessageOutline<'_>>(bytes, reader.now)? {
                found.extend(held.value.into_outline());
            }
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    async fn events(
        &self,
        conversation: ConversationKey,
        range: Range,
        limit: usize,
    ) -> StoreResult<Vec<StoredEvent>> {
        let span = keys::events(conversation, range);
        self.reader().list(&span, Order::OldestFirst, limit, |key, value: EventValue| {
            let record = Record::decode(&value.record).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            Ok(Some(StoredEvent {
                position: keys::position_of_event(key)?,
                log_time: value.log_time,
                record,
            }))
        })
    }

    async fn reactions(
        &self,
        conversation: ConversationKey,
        range: Range,
    ) -> StoreResult<Vec<StoredReaction>> {
        let span = keys::reactions(conversation, range);
        // As many as `limits::REACTIONS_PER_MESSAGE` and the caller's range let there be.
        let pick = |key: &[u8], value: ReactionValue| {
            let (target, account, reaction) = keys::parts_of_reaction(key)?;
            let stored = StoredReaction { target, account, reaction, at: value.at };
            Ok(value.present.then_some(stored))
        };
        let mut found = self.reader().list(&span, Order::OldestFirst, usize::MAX, pick)?;
        found.sort_by_key(|reaction| (reaction.target, reaction.at));
        Ok(found)
    }

    async fn hidden(
        &self,
        conversation: ConversationKey,
        account: AccountId,
        range: Range,
    ) -> StoreResult<Vec<Position>> {
        let span = keys::all_hidden(conversation, account, range);
        let pick = |key: &[u8], _: HiddenValue| keys::target_of_hidden(key).map(Some);
        self.reader().list(&span, Order::OldestFirst, usize::MAX, pick)
    }

    async fn sent(
        &self,
        conversation: ConversationKey,
        sender: AccountId,
        id: &ClientMessageId,
    ) -> StoreResult<Option<StoredSend>> {
        let reader = self.reader();
        let value: Option<SentValue> = match reader.get(&keys::sent(conversation, sender, id))? {
            None => reader.get(&keys::sent_by_conversation(conversation, sender, id))?,
            known => known,
        };
        Ok(value.map(|SentValue { position, digest }| StoredSend { position, digest }))
    }

    async fn receipts(&self, conversation: ConversationKey) -> StoreResult<Vec<StoredReceipt>> {
        let span = keys::receipts(conversation);
        // As many as a conversation has had members.
        self.reader().list(&span, Order::OldestFirst, usize::MAX, |key, value: ReceiptValue| {
            let account = keys::account_of_receipt(key)?;
            let (delivered, read) = (value.delivered.map(Mark::as_parts), value.read.map(Mark::as_parts));
            Ok(Some(StoredReceipt { account, delivered, read }))
        })
    }
}

impl Inboxes for EmbeddedStore {
    async fn inbox(
        &self,
        account: AccountId,
        after: Option<ConversationKey>,
        limit: usize,
    ) -> StoreResult<Vec<InboxRow>> {
        let reader = self.reader();
        let span = keys::inbox_after(account, after);
        let mut rows = reader.list(&span, Order::OldestFirst, limit, |key, value: InboxValue| {
            Ok(value.as_row(keys::conversation_of_inbox(key)?, None))
        })?;
        for row in &mut rows {
            let mute: Option<MuteValue> = reader.get(&keys::mute(account, row.conversation))?;
            row.muted_until = mute.map(|mute| mute.0);
        }
        Ok(rows)
    }

    async fn inbox_row(
        &self,
        account: AccountId,
        conversation: ConversationKey,
    ) -> StoreResult<Option<InboxRow>> {
        let reader = self.reader();
        let value: Option<InboxValue> = reader.get(&keys::inbox_row(account, conversation))?;
        let mute: Option<MuteValue> = reader.get(&keys::mute(account, conversation))?;
        Ok(value.and_then(|value| value.as_row(conversation, mute.map(|mute| mute.0))))
    }
}
