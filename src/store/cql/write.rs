//! The write side: what each [`Write`] is in tables.

use super::CqlStore;
use super::bucket::{MessagePlace, UNPLACED, bucket_at};
use super::cell::{
    Cell, decode_header, encode_deletion, encode_header, encode_mark, encode_send, encode_state, kind_number,
    micros,
};
use super::operation::{ABOVE_EVERY_POSITION, Operation};
use super::query::Query;
use crate::domain::record::Sealed;
use crate::domain::retention::{DAYS_TTL_S, SENDS_TTL_S, day_of};
use crate::domain::write::{MessageRow, Write, event_ends};
use crate::store::{StoreResult, Writes};
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::{ConversationKey, Position, Timestamp};
use std::collections::HashMap;

/// The longest TTL that servers take: 20 years.
const LONGEST_TTL_S: u64 = 20 * 365 * 24 * 3_600;
/// For ever, as a TTL.
const FOR_EVER: i32 = 0;
/// Messages that are looked for at the same time.
const LOOKUPS_AT_ONCE: usize = 64;

/// Where a message is that a batch changes.
#[derive(Clone, Copy)]
struct Place {
    /// Its bucket, or [`UNPLACED`] where the message is not there.
    bucket: i32,
    /// When it ends, where that is known: what marks it ends with it.
    ends: Option<Timestamp>,
    /// Whether its conversation has changes that were stored before their messages.
    beside: bool,
}

type Places = HashMap<(ConversationKey, Position), Place>;

/// Seconds from now until then; `None` when that has passed, [`FOR_EVER`] without an end. One more than
/// are left, because servers count from the second that has begun: nothing may end before its time.
fn ttl_s(expires_at: Option<Timestamp>, now_ms: u64) -> Option<i32> {
    let Some(expires_at) = expires_at else { return Some(FOR_EVER) };
    match expires_at.as_millis().saturating_sub(now_ms).div_ceil(1_000) {
        0 => None,
        seconds => i32::try_from((seconds + 1).min(LONGEST_TTL_S)).ok(),
    }
}

/// The message that a write changes without saying when it was sent.
fn target_of(write: &Write) -> Option<(ConversationKey, Position)> {
    match write {
        Write::EditContent { conversation, target, .. }
        | Write::DeleteContent { conversation, target, .. }
        | Write::Reaction { conversation, target, .. } => Some((*conversation, *target)),
        _ => None,
    }
}

fn place_of(row: &MessageRow) -> MessagePlace {
    MessagePlace { bucket: bucket_at(row.kind, row.log_time), ends: row.expires_at }
}

/// Operations of one batch, as they come together.
struct Plan<'a> {
    store: &'a CqlStore,
    places: Places,
    now_ms: u64,
    operations: Vec<Operation>,
    /// Buckets that the store may not have yet, with the lowest position seen in them.
    new_buckets: HashMap<(ConversationKey, i32), Position>,
}

impl Plan<'_> {
    fn in_bucket(&mut self, conversation: ConversationKey, bucket: i32, position: Position) {
        if !self.store.buckets().is_stored(conversation, bucket, position) {
            let first = self.new_buckets.entry((conversation, bucket)).or_insert(position);
            *first = (*first).min(position);
        }
    }

    fn message(
        &mut self,
        conversation: ConversationKey,
        row: &MessageRow,
        content: Option<&Sealed>,
    ) -> StoreResult<()> {
        let bucket = bucket_at(row.kind, row.log_time);
        let key = vec![conversation.into(), Cell::Int(bucket), row.position.into()];
        self.in_bucket(conversation, bucket, row.position);
        self.operations.push(match ttl_s(row.expires_at, self.now_ms) {
            Some(ttl) => {
                let content = content.map_or(Cell::Unset, |sealed| Cell::Blob(sealed.0.clone()));
                let values = vec![Cell::Blob(encode_header(row)?), content];
                Operation::at(Query::PutMessage, key, values, row.position).expiring(ttl)
            }
            None => Operation::delete(Query::ExpireMessage, key, micros(row.position)),
        });
        Ok(())
    }

    fn change(&mut self, write: &Write) {
        let Some((conversation, target)) = target_of(write) else { return };
        let unknown = Place { bucket: UNPLACED, ends: None, beside: true };
        let place = self.places.get(&(conversation, target)).copied().unwrap_or(unknown);
        if place.bucket == UNPLACED {
            self.in_bucket(conversation, UNPLACED, target);
        }
        let row: Vec<Cell> = vec![conversation.into(), Cell::Int(place.bucket), target.into()];
        match write {
            Write::EditContent { at, content, edited_at, expires_at, .. } => {
                self.operations.push(match ttl_s(*expires_at, self.now_ms) {
                    Some(ttl) => {
                        let values = vec![Cell::Blob(content.0.clone()), (*edited_at).into()];
                        Operation::at(Query::PutEdit, row, values, *at).expiring(ttl)
                    }
                    None => Operation::delete(Query::ClearContent, row, micros(*at)),
                });
            }
            Write::DeleteContent { deleted_at, deleted_by, .. } => {
                let deletion = vec![Cell::Blob(encode_deletion(*deleted_at, *deleted_by))];
                let first_wins = -deleted_at.as_millis().cast_signed();
                self.operations.push(Operation::delete(
                    Query::ClearContent,
                    row.clone(),
                    ABOVE_EVERY_POSITION,
                ));
                // Where the message has ended nothing is left to mark.
                if let Some(ttl) = ttl_s(place.ends, self.now_ms) {
                    let mark = Operation::insert(Query::PutDeletion, row, deletion, first_wins);
                    self.operations.push(mark.expiring(ttl));
                }
            }
            Write::Reaction { account, reaction, at, present, expires_at, .. } => {
                let rest = [(*account).into(), Cell::Text(reaction.as_str().to_owned())];
                let ttl = if *present { ttl_s(*expires_at, self.now_ms) } else { None };
                self.reaction(row, &rest, *at, ttl, place);
            }
            _ => {}
        }
    }

    /// `ttl` is `None` for a removal. Where a reaction may stand in two places its removal must be seen
    /// in both, and a tombstone in one cannot be seen from the other: so beside the buckets a removal is
    /// a row, with minus its position.
    fn reaction(&mut self, row: Vec<Cell>, rest: &[Cell], at: Position, ttl: Option<i32>, place: Place) {
        let mut beside = row.clone();
        let mut key = row;
        key.extend_from_slice(rest);
        if let Some(ttl) = ttl {
            self.operations.push(Operation::at(Query::PutReaction, key, vec![at.into()], at).expiring(ttl));
            return;
        }
        if place.bucket != UNPLACED {
            self.operations.push(Operation::delete(Query::RemoveReaction, key, micros(at)));
        }
        if place.beside {
            if let Some(bucket) = beside.get_mut(1) {
                *bucket = Cell::Int(UNPLACED);
            }
            beside.extend_from_slice(rest);
            let removed = vec![Cell::Big(-micros(at))];
            self.operations.push(Operation::at(Query::PutReaction, beside, removed, at).expiring(FOR_EVER));
        }
    }

    fn add(&mut self, write: &Write) -> StoreResult<()> {
        match write {
            Write::Message { conversation, row, content } => {
                self.message(*conversation, row, content.as_ref())?;
            }
            Write::EditContent { .. } | Write::DeleteContent { .. } | Write::Reaction { .. } => {
                self.change(write)
            }
            Write::Event { conversation, kind, position, log_time, record } => {
                // Where it has passed already nothing is written: an earlier write of it ends then, too.
                let Some(ttl) = ttl_s(Some(event_ends(*log_time, record)), self.now_ms) else {
                    return Ok(());
                };
                let bucket = bucket_at(*kind, *log_time);
                self.in_bucket(*conversation, bucket, *position);
                let key = vec![(*conversation).into(), Cell::Int(bucket), (*position).into()];
                let values = vec![(*log_time).into(), Cell::Blob(record.encode())];
                self.operations.push(Operation::at(Query::PutEvent, key, values, *position).expiring(ttl));
            }
            Write::State { conversation, at, state } => {
                let values = vec![(*at).into(), Cell::Blob(encode_state(state)?)];
                self.operations.push(Operation::at(
                    Query::PutState,
                    vec![(*conversation).into()],
                    values,
                    *at,
                ));
            }
            Write::FirstOfDay { shard, position, log_time } => {
                let ends = log_time.plus_millis(u64::from(DAYS_TTL_S) * 1_000);
                let Some(ttl) = ttl_s(Some(ends), self.now_ms) else { return Ok(()) };
                let key = vec![Cell::Int(shard.0.into()), Cell::Int(day_of(*log_time))];
                let first = vec![(*position).into(), (*log_time).into()];
                let lowest_wins = -micros(*position);
                self.operations
                    .push(Operation::insert(Query::PutFirstOfDay, key, first, lowest_wins).expiring(ttl));
            }
            _ => self.operations.extend(plain(write)),
        }
        Ok(())
    }

    /// New buckets are written with minus their first position, so that the lowest stands.
    fn finish(&mut self) {
        for ((conversation, bucket), first) in &self.new_buckets {
            let key = vec![(*conversation).into(), Cell::Int(*bucket)];
            self.operations.push(Operation::insert(
                Query::PutBucket,
                key,
                vec![(*first).into()],
                -micros(*first),
            ));
        }
    }
}

/// Writes that are one row of one table, whose place they say themselves.
fn plain(write: &Write) -> Option<Operation> {
    let operation = match write {
        Write::Delivered { conversation, account, up_to, at, private } => {
            let mark = Cell::Blob(encode_mark(*up_to, *at, *private));
            let key = vec![(*conversation).into(), (*account).into()];
            Operation::at(Query::PutDelivered, key, vec![mark], *up_to)
        }
        Write::Read { conversation, account, up_to, at, private } => {
            let mark = Cell::Blob(encode_mark(*up_to, *at, *private));
            let key = vec![(*conversation).into(), (*account).into()];
            Operation::at(Query::PutRead, key, vec![mark], *up_to)
        }
        Write::Sent { conversation, sender, client_message_id, position, digest } => {
            let id = Cell::Text(client_message_id.as_str().to_owned());
            let key = vec![(*conversation).into(), (*sender).into(), id];
            let ttl = i32::try_from(SENDS_TTL_S).unwrap_or(i32::MAX);
            let sent = vec![Cell::Blob(encode_send(*position, *digest))];
            Operation::at(Query::PutSend, key, sent, *position).expiring(ttl)
        }
        Write::InboxJoined { account, conversation, kind, at } => {
            let key = vec![(*account).into(), (*conversation).into()];
            let values = vec![(*at).into(), Cell::Int(kind_number(*kind))];
            Operation::at(Query::PutJoined, key, values, *at)
        }
        Write::InboxLeft { account, conversation, at } => {
            let key = vec![(*account).into(), (*conversation).into()];
            Operation::at(Query::PutDeparted, key, vec![(*at).into()], *at)
        }
        Write::InboxHead { account, conversation, head, head_time } => {
            let key = vec![(*account).into(), (*conversation).into()];
            Operation::at(Query::PutInboxHead, key, vec![(*head).into(), (*head_time).into()], *head)
        }
        Write::InboxTouched { account, conversation, at } => {
            let key = vec![(*account).into(), (*conversation).into()];
            Operation::at(Query::PutInboxTouched, key, vec![(*at).into()], *at)
        }
        Write::InboxRead { account, conversation, up_to } => {
            let key = vec![(*account).into(), (*conversation).into()];
            Operation::at(Query::PutInboxRead, key, vec![(*up_to).into()], *up_to)
        }
        Write::Head { conversation, head, head_time } => {
            let values = vec![(*head).into(), (*head_time).into()];
            Operation::at(Query::PutHead, vec![(*conversation).into()], values, *head)
        }
        Write::Hidden { conversation, account, target, at } => {
            let key = vec![(*conversation).into(), (*account).into(), (*target).into()];
            Operation::at(Query::PutHidden, key, vec![(*at).into()], *at)
        }
        _ => return None,
    };
    Some(operation)
}

impl CqlStore {
    /// Where the message at `target` stands, if it stands.
    pub(super) async fn find(
        &self,
        conversation: ConversationKey,
        target: Position,
    ) -> StoreResult<Option<MessagePlace>> {
        if let Some(place) = self.buckets().place(conversation, target) {
            return Ok(Some(place));
        }
        let (mut list, mut remembered) = self.remembered_bucket_list(conversation).await?;
        loop {
            for bucket in list.candidates(target) {
                let row = (Cell::from(conversation), Cell::Int(bucket), Cell::from(target));
                let header = self.first::<(Option<Vec<u8>>,)>(Query::HasMessage, row).await?;
                if let Some((Some(header),)) = header {
                    let place = MessagePlace { bucket, ends: decode_header(&header)?.expires_at };
                    self.buckets().note_place(conversation, target, place);
                    return Ok(Some(place));
                }
            }
            if !remembered {
                return Ok(None);
            }
            (list, remembered) = (self.read_bucket_list(conversation).await?, false);
        }
    }

    /// Where each message is that `writes` change: as the batch itself says, else as the store has it.
    async fn places(&self, writes: &[Write]) -> StoreResult<Places> {
        let mut in_batch = HashMap::new();
        for write in writes {
            if let Write::Message { conversation, row, .. } = write {
                in_batch.insert((*conversation, row.position), place_of(row));
            }
        }
        let mut wanted: Vec<_> = writes.iter().filter_map(target_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let wanted: Vec<_> =
            wanted.into_iter().map(|target| (target, in_batch.get(&target).copied())).collect();
        futures_util::stream::iter(wanted)
            .map(|((conversation, target), known)| async move {
                let found = match known {
                    Some(place) => Some(place),
                    None => self.find(conversation, target).await?,
                };
                let beside = found.is_none() || self.remembered_bucket_list(conversation).await?.0.unplaced;
                let (bucket, ends) = found.map_or((UNPLACED, None), |place| (place.bucket, place.ends));
                Ok(((conversation, target), Place { bucket, ends, beside }))
            })
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await
    }
}

impl Writes for CqlStore {
    async fn apply(&self, writes: &[Write]) -> StoreResult<()> {
        let places = self.places(writes).await?;
        let (operations, new_buckets) = {
            let mut plan = Plan {
                store: self,
                places,
                now_ms: self.now().as_millis(),
                operations: Vec::with_capacity(writes.len()),
                new_buckets: HashMap::new(),
            };
            for write in writes {
                plan.add(write)?;
            }
            plan.finish();
            (plan.operations, plan.new_buckets)
        };
        self.write(operations).await?;
        for ((conversation, bucket), first) in new_buckets {
            self.buckets().note_stored(conversation, bucket, first);
        }
        for write in writes {
            if let Write::Message { conversation, row, .. } = write {
                self.buckets().note_place(*conversation, row.position, place_of(row));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_never_ends_before_its_time() {
        let at = |ms| Some(Timestamp::from_millis(ms));
        assert_eq!(ttl_s(None, 5), Some(FOR_EVER));
        assert_eq!(ttl_s(at(5_000), 5_000), None);
        assert_eq!(ttl_s(at(5_001), 5_000), Some(2));
        assert_eq!(ttl_s(at(6_001), 5_000), Some(3));
        assert_eq!(ttl_s(at(u64::MAX), 0), Some(LONGEST_TTL_S as i32));
    }
}
