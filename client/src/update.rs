//! What the client tells the application.

use crate::checkpoint_store::CheckpointStore;
use crate::credentials::Token;
use crate::error::SendError;
use crate::timeline::Saved;
use reedi_protocol::ConversationId;
use reedi_protocol::event::{Lack, ServerEvent};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;

/// The state of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected and authenticated; what was missed is on its way.
    Connected,
    /// Everything up to now has been told.
    CaughtUp,
    /// The server cannot read its store now, so what was missed comes later.
    Behind { reason: String },
    /// Not connected; the next try comes by itself.
    Lost { reason: String, retry_in: Duration },
}

/// Why a client will not connect again by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("closed by the application")]
    Closed,
    #[error("the server refuses the token or password: {0}")]
    SignInAgain(String),
    #[error("the same device connected elsewhere")]
    Replaced,
    #[error("the server found a violation of the protocol: {0}")]
    ProtocolViolation(String),
}

/// One thing that the application learns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// Durable events come once and in the order of their conversation.
    Event(Box<ServerEvent>),
    /// What happened in this conversation up to now is not told event by event: load its newest page
    /// again. A server that answers 404 says that this account takes part no more.
    Reset(ConversationId),
    /// The server does not know how far this client had got, after its data was restored, say: of every
    /// conversation anything may be missing. Load the list of conversations and what is shown of them again.
    ResetAll,
    Link(Link),
    /// What does not work at the server for now; empty once all does again. Whoever sends meanwhile need
    /// do nothing: messages wait in the outbox.
    Lacks(Vec<Lack>),
    /// A message will not be sent, and nobody waits for its ticket: it came from an earlier process,
    /// or its ticket was dropped.
    NotSent {
        conversation: ConversationId,
        client_message_id: String,
        error: SendError,
    },
    /// Logged in again; whoever keeps the token somewhere keeps this one.
    TokenRenewed(Token),
    /// The last update.
    Ended(Ended),
}

pub(crate) enum Item {
    Update(Update),
    /// All updates before it reach this far.
    Saved(u64, Saved),
}

/// The updates of one client, in order.
#[derive(Debug)]
pub struct Updates {
    items: mpsc::Receiver<Item>,
    store: Option<CheckpointStore>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

impl Updates {
    pub(crate) const fn new(items: mpsc::Receiver<Item>, store: Option<CheckpointStore>) -> Self {
        Self { items, store }
    }

    /// The next update; `None` after the last one. May be dropped before it is ready.
    ///
    /// With a state folder, asking for the next update says that the ones before it are dealt with:
    /// only then is progress saved, so that a process that is killed meets them again.
    pub async fn recv(&mut self) -> Option<Update> {
        loop {
            match self.items.recv().await? {
                Item::Update(update) => return Some(update),
                Item::Saved(number, saved) => self.save(number, saved).await,
            }
        }
    }

    /// Progress that cannot be saved is told again later; that is no reason to stop.
    async fn save(&self, number: u64, saved: Saved) {
        let Some(store) = self.store.clone() else { return };
        match tokio::task::spawn_blocking(move || store.save(number, &saved)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "progress cannot be saved"),
            Err(error) => tracing::warn!(%error, "progress was not saved"),
        }
    }
}

/// The sending end: never waits, since the connection must be served while the application is slow.
/// What it keeps is bounded, because the session reads no more frames while anything is kept.
pub(crate) struct Outlet {
    items: mpsc::Sender<Item>,
    kept: VecDeque<Item>,
    saves: u64,
    saving: bool,
}

impl Outlet {
    pub(crate) const fn new(items: mpsc::Sender<Item>, saving: bool) -> Self {
        Self { items, kept: VecDeque::new(), saves: 0, saving }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn tell(&mut self, update: Update) {
        // Of a connection that comes and goes, only the last state is news.
        if let (Update::Link(_), Some(Item::Update(Update::Link(_)))) = (&update, self.kept.back()) {
            self.kept.pop_back();
        }
        self.push(Item::Update(update));
    }

    pub(crate) fn save(&mut self, saved: impl FnOnce() -> Saved) {
        if self.saving {
            self.saves += 1;
            self.push(Item::Saved(self.saves, saved()));
        }
    }

    fn push(&mut self, item: Item) {
        if !self.kept.is_empty() {
            self.kept.push_back(item);
        } else if let Err(mpsc::error::TrySendError::Full(item)) = self.items.try_send(item) {
            self.kept.push_back(item);
        }
    }

    /// Passes one kept item on, once there is room. May be dropped before it is ready.
    pub(crate) async fn pass_on(&mut self) {
        match self.items.reserve().await {
            Ok(permit) => {
                if let Some(item) = self.kept.pop_front() {
                    permit.send(item);
                }
            }
            // Nobody listens any more.
            Err(_) => self.kept.clear(),
        }
    }

    /// Passes everything on, as long as somebody listens.
    pub(crate) async fn finish(mut self) {
        while !self.is_empty() {
            self.pass_on().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(number: u64) -> Update {
        Update::Reset(reedi_protocol::ConversationKey::from_u64(number).conversation_id())
    }

    fn lost(reason: &str) -> Update {
        Update::Link(Link::Lost { reason: reason.into(), retry_in: Duration::ZERO })
    }

    #[tokio::test]
    async fn a_slow_application_gets_all_updates_in_order() {
        let (sender, receiver) = mpsc::channel(1);
        let mut updates = Updates::new(receiver, None);
        let mut outlet = Outlet::new(sender, false);
        (0..3).for_each(|number| outlet.tell(reset(number)));
        let mut seen = vec![updates.recv().await.unwrap()];
        // There is room again, and still what waits comes first.
        outlet.tell(reset(3));
        outlet.tell(lost("first"));
        outlet.tell(lost("second"));
        let passing = tokio::spawn(outlet.finish());
        while let Some(update) = updates.recv().await {
            seen.push(update);
        }
        passing.await.unwrap();
        let expected: Vec<_> = (0..4).map(reset).chain([lost("second")]).collect();
        assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
    }

    #[tokio::test]
    async fn nobody_listening_is_no_reason_to_wait() {
        let (sender, receiver) = mpsc::channel(1);
        let mut outlet = Outlet::new(sender, false);
        (0..3).for_each(|number| outlet.tell(reset(number)));
        drop(receiver);
        outlet.finish().await;
    }
}
