//! Membership: who is a participant at a position (invariant `members_only`), without asking the
//! store for what records themselves prove.

use crate::domain::record::{Body, Entry};
use crate::store::{Conversations as _, Messages as _, Range, Store, StoreError};
use reedi_protocol::{AccountId, ConversationKey, Position, Shard};
use std::collections::HashMap;
use std::sync::Arc;

/// Conversations remembered; beyond, some are forgotten and what they proved with them.
const MOST: usize = 100_000;
/// Events read at once from the store.
const EVENTS_AT_ONCE: usize = 100;

/// Earlier control events of a conversation whose members are remembered, for repeats: a repeat goes back
/// a minute at most.
const EARLIER_MOST: usize = 8;

struct Known {
    control: Position,
    members: Arc<[AccountId]>,
    /// The control events before, the latest last, without a gap.
    earlier: Vec<(Position, Arc<[AccountId]>)>,
}

/// The members that this worker knows of.
#[derive(Default)]
pub struct Membership {
    conversations: HashMap<ConversationKey, Known>,
    /// For every owned shard: all control events after this have been seen and are remembered.
    since: HashMap<Shard, Position>,
}

impl Membership {
    /// From `since` on every control event of `shard` will be shown.
    pub fn begin(&mut self, shard: Shard, since: Position) {
        self.since.insert(shard, since);
        self.conversations.retain(|conversation, _| conversation.shard() != shard);
    }

    pub fn end(&mut self, shard: Shard) {
        self.since.remove(&shard);
        self.conversations.retain(|conversation, _| conversation.shard() != shard);
    }

    /// Takes in a control event.
    pub fn learn(&mut self, entry: &Entry) {
        if let Body::Control { after, .. } = &entry.record.body {
            let members = after.accounts().into();
            let mut earlier = Vec::new();
            if let Some(known) = self.conversations.remove(&entry.record.conversation) {
                earlier = known.earlier;
                earlier.push((known.control, known.members));
                earlier.drain(..earlier.len().saturating_sub(EARLIER_MOST));
            }
            self.remember(entry.record.conversation, Known { control: entry.position, members, earlier });
        }
    }

    fn remember(&mut self, conversation: ConversationKey, known: Known) {
        if self.conversations.len() >= MOST && !self.conversations.contains_key(&conversation) {
            let surplus: Vec<ConversationKey> = self.conversations.keys().take(MOST / 8).copied().collect();
            for key in surplus {
                // What it proved is forgotten: nothing before it is known any more.
                if let Some(gone) = self.conversations.remove(&key) {
                    let since = self.since.entry(key.shard()).or_default();
                    *since = (*since).max(gone.control);
                }
            }
        }
        self.conversations.insert(conversation, known);
    }

    /// Who gets `entry`.
    ///
    /// # Errors
    /// Only the store knows, and it is away.
    pub async fn recipients(&mut self, entry: &Entry, store: &Store) -> Result<Arc<[AccountId]>, StoreError> {
        let record = &entry.record;
        match &record.body {
            Body::Tick => return Ok(Arc::from([])),
            // Who acted may have gone before this came to stand, by an edge that did not know it yet.
            Body::Hide { .. } => {
                let members = self.members(entry, store).await?;
                return Ok(members.iter().copied().filter(|account| *account == record.actor).collect());
            }
            Body::Receipt(mark) => {
                let members = self.members(entry, store).await?;
                let told = |account: &AccountId| mark.tell.contains(account) || *account == record.actor;
                return Ok(members.iter().copied().filter(told).collect());
            }
            Body::Control { change, after } => {
                return Ok(after.accounts().into_iter().chain(change.gone(record.actor)).collect());
            }
            _ => {}
        }
        self.members(entry, store).await
    }

    async fn members(&mut self, entry: &Entry, store: &Store) -> Result<Arc<[AccountId]>, StoreError> {
        let conversation = entry.record.conversation;
        let audience = entry.record.audience.as_ref();
        if let Some(known) = self.conversations.get(&conversation) {
            if known.control > entry.position {
                // A repeat of what was before that control event. As the edge saw it then is not enough:
                // it may not have known who had just left.
                let then = known.earlier.iter().rev().find(|(control, _)| *control <= entry.position);
                return match then {
                    Some((_, members)) => Ok(members.clone()),
                    None => members_before(conversation, entry.position, store).await,
                };
            } else if audience.is_none_or(|audience| audience.control <= known.control) {
                return Ok(known.members.clone());
            }
        }
        let since = self.since.get(&conversation.shard()).copied().unwrap_or(Position::START);
        if let Some(audience) = audience {
            // No control event that this audience does not know can have passed unseen.
            let newer_than_known = self.conversations.contains_key(&conversation);
            if newer_than_known || audience.known_through >= since {
                return Ok(audience.accounts.iter().copied().collect());
            }
        }
        let Some((control, state)) = store.state(conversation).await? else { return Ok(Arc::from([])) };
        if control > entry.position {
            return members_before(conversation, entry.position, store).await;
        }
        let members: Arc<[AccountId]> = state.accounts().into();
        self.remember(conversation, Known { control, members: members.clone(), earlier: Vec::new() });
        Ok(members)
    }
}

/// Who took part at `position`, where there is a later control event: who joined later does not get what
/// stands there, and who left later does. The first one behind it says who came or went with it.
async fn members_before(
    conversation: ConversationKey,
    position: Position,
    store: &Store,
) -> Result<Arc<[AccountId]>, StoreError> {
    let mut range = Range::after(position);
    loop {
        let events = store.events(conversation, range, EVENTS_AT_ONCE).await?;
        for event in &events {
            if let Body::Control { change, after } = &event.record.body {
                let came = change.came(after);
                let stayed = after.accounts().into_iter().filter(|account| !came.contains(account));
                return Ok(stayed.chain(change.gone(event.record.actor)).collect());
            }
        }
        match events.last() {
            Some(last) if events.len() == EVENTS_AT_ONCE => range = Range::after(last.position),
            // It is in the log, so it will be there.
            _ => return Err(StoreError::Unavailable("a control event is not stored yet".to_owned())),
        }
    }
}
