//! Views: conversations as this edge knows them, so that a send reads no store.

use super::refused::{Outcome, Refused};
use super::watermarks::Watermarks;
use crate::domain::conversation::{AUDIENCE_MOST, ConversationState, Member};
use crate::domain::record::Audience;
use crate::store::{Conversations as _, Store, StoreError};
use parking_lot::Mutex;
use reedi_protocol::{AccountId, ConversationKey, ErrorCode, Position};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A view is read anew after this time (rule P7). With the store away an older one serves on.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Views kept in one of [`PARTS`]; about 1 KiB each for a small conversation.
const VIEWS_PER_PART: usize = 8_192;
const PARTS: usize = 16;

/// A conversation as of one control event.
#[derive(Clone, Debug)]
pub struct View {
    pub conversation: ConversationKey,
    pub state: Arc<ConversationState>,
    /// The control event it comes from.
    pub control: Position,
    /// Every control event of this conversation up to here had been seen.
    pub known_through: Position,
    loaded: Instant,
}

impl View {
    /// Who gets an event now; `None` where they are too many to name.
    #[must_use]
    pub fn audience(&self) -> Option<Audience> {
        let small = self.state.members.len() <= AUDIENCE_MOST;
        small.then(|| Audience {
            control: self.control,
            known_through: self.known_through,
            accounts: self.state.accounts(),
        })
    }

    /// The membership of `account`.
    ///
    /// # Errors
    /// Not a member: the same as if the conversation did not exist.
    pub fn member(&self, account: AccountId) -> Outcome<&Member> {
        self.state.member(account).ok_or_else(Refused::not_found)
    }
}

/// Cheap to clone; clones share the views.
#[derive(Clone)]
pub struct Views {
    store: Store,
    watermarks: Watermarks,
    parts: Arc<[Mutex<HashMap<ConversationKey, View>>]>,
}

impl Views {
    #[must_use]
    pub fn new(store: Store, watermarks: Watermarks) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { store, watermarks, parts }
    }

    fn part(&self, conversation: ConversationKey) -> &Mutex<HashMap<ConversationKey, View>> {
        &self.parts[(conversation.as_u64() % PARTS as u64) as usize]
    }

    /// The view of a conversation, read from the store where it is not known or old.
    ///
    /// # Errors
    /// There is none, or the store is away and it was never read.
    pub async fn get(&self, conversation: ConversationKey) -> Outcome<View> {
        let held = self.part(conversation).lock().get(&conversation).cloned();
        match held {
            Some(view) if view.loaded.elapsed() < FRESH_FOR => Ok(view),
            held => match self.load(conversation).await {
                Ok(Some(view)) => Ok(view),
                // The view may be of a control event that is not stored yet.
                Ok(None) => held.ok_or_else(Refused::not_found),
                Err(error) => held.ok_or_else(|| error.into()),
            },
        }
    }

    /// A view that knows of every control event up to `position`, which is stored: reads are exact where
    /// sends go by what is at most [`FRESH_FOR`] old (rule P7).
    ///
    /// # Errors
    /// There is none, or the store is away.
    pub async fn as_of(&self, conversation: ConversationKey, position: Position) -> Outcome<View> {
        let held = self.part(conversation).lock().get(&conversation).cloned();
        match held {
            Some(view) if view.known_through >= position => Ok(view),
            _ => self.load(conversation).await?.ok_or_else(Refused::not_found),
        }
    }

    /// Reads the view from the store, which is asked for nothing that is known better already.
    ///
    /// # Errors
    /// The store is away.
    pub async fn load(&self, conversation: ConversationKey) -> Result<Option<View>, StoreError> {
        // Read before the state, so that the state has seen everything up to it.
        let known_through = self.watermarks.known(conversation.shard());
        let Some((control, state)) = self.store.state(conversation).await? else { return Ok(None) };
        Ok(Some(self.learn(conversation, control, known_through.max(control), Arc::new(state))))
    }

    /// Takes in what a control event left; what is older than the known is ignored. Gives the newest.
    pub fn learn(
        &self,
        conversation: ConversationKey,
        control: Position,
        known_through: Position,
        state: Arc<ConversationState>,
    ) -> View {
        let fresh = View { conversation, state, control, known_through, loaded: Instant::now() };
        let mut part = self.part(conversation).lock();
        if part.len() >= VIEWS_PER_PART && !part.contains_key(&conversation) {
            // Any will do: what is in use comes back with one read.
            let surplus: Vec<ConversationKey> = part.keys().take(VIEWS_PER_PART / 8).copied().collect();
            surplus.iter().for_each(|key| drop(part.remove(key)));
        }
        let view = part.entry(conversation).or_insert_with(|| fresh.clone());
        if fresh.control > view.control {
            *view = fresh;
        } else if fresh.control == view.control {
            view.known_through = view.known_through.max(fresh.known_through);
            view.loaded = fresh.loaded;
        }
        view.clone()
    }

    /// Forgets a view, so that the next look reads the store.
    pub fn forget(&self, conversation: ConversationKey) {
        self.part(conversation).lock().remove(&conversation);
    }
}

impl super::Edge {
    /// The view of a conversation that `account` is a member of, to judge a command by. What this edge
    /// holds may be old, and what the store has may be behind: before anybody is told that there is
    /// nothing, everything that the log had by then has been looked at. That costs reads and an append, so
    /// it counts against the account.
    ///
    /// # Errors
    /// There is nothing that this account can see, or it cannot be told now.
    pub async fn member_view(&self, account: AccountId, conversation: ConversationKey) -> Outcome<View> {
        let is_member = |view: &View| view.state.member(account).is_some();
        match self.views.get(conversation).await {
            Ok(view) if is_member(&view) => return Ok(view),
            Err(refused) if refused.code != ErrorCode::NotFound => return Err(refused),
            Ok(_) | Err(_) => {}
        }
        self.admission.command(account, self.clock.now()).await?;
        if let Some(view) = self.views.load(conversation).await?.filter(is_member) {
            return Ok(view);
        }
        self.appender.stored_up_to_now(conversation.shard()).await?;
        self.views.load(conversation).await?.filter(is_member).ok_or_else(Refused::not_found)
    }

    /// The same to read by: with every control event that the store has.
    ///
    /// # Errors
    /// As for [`Self::member_view`].
    pub async fn reader_view(&self, account: AccountId, conversation: ConversationKey) -> Outcome<View> {
        match self.views.load(conversation).await? {
            Some(view) if view.state.member(account).is_some() => Ok(view),
            _ => self.member_view(account, conversation).await,
        }
    }

    /// Waits until a control event is stored, so that its author, who may come to any edge next, finds what
    /// it left. It stands whether it is stored in time or not.
    pub async fn shown_by_all(&self, conversation: ConversationKey, position: Position) {
        if self.watermarks.passed(conversation.shard(), position).await.is_err() {
            tracing::debug!("a control event is not stored yet");
        }
    }

    /// Waits until the event at a place that a client named is stored (rule P6).
    ///
    /// # Errors
    /// The log has no such place, or the store has not caught up.
    pub async fn place_stored(&self, conversation: ConversationKey, position: Position) -> Outcome<()> {
        let shard = conversation.shard();
        let Err(behind) = self.watermarks.passed(shard, position).await else { return Ok(()) };
        match self.appender.has_reached(shard, position).await? {
            true => Err(behind.into()),
            false => Err(Refused::not_found()),
        }
    }
}
