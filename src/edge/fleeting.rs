//! Fleeting: typing and presence, told to those who joined a conversation and stored nowhere.

use super::presence::{Held, refresh, status_of};
use super::refused::Outcome;
use super::session::{OutFrame, Session};
use super::view::View;
use super::{Edge, wire};
use crate::domain::conversation::ConversationState;
use crate::edge_link::{EdgeLinkPort, Fleeting, PresenceChange, ToWorkers};
use crate::presence::PresencePort;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use reedi_protocol::event::{PresenceStatus, ServerEvent};
use reedi_protocol::resource::PresenceVisibility;
use reedi_protocol::{AccountId, ConversationKey, ErrorCode};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Changes of presence are told together after this time.
const TOGETHER: Duration = Duration::from_millis(100);

/// Accounts whose settings are asked for at once.
const ASKED_AT_ONCE: usize = 32;

/// Who has joined which conversation here, and whose presence that makes interesting.
#[derive(Default)]
pub struct Interest(Mutex<Interested>);

#[derive(Default)]
struct Interested {
    by_account: HashMap<AccountId, HashSet<(u64, ConversationKey)>>,
    /// Whose presence a session hears of, so that leaving costs what was joined and not what the edge holds. One that was
    /// forgotten may stand here still.
    by_session: HashMap<(u64, ConversationKey), HashSet<AccountId>>,
}

impl Interest {
    fn add(&self, session: u64, conversation: ConversationKey, accounts: &[AccountId]) {
        let interested = &mut *self.0.lock();
        let of = (session, conversation);
        for account in accounts {
            interested.by_account.entry(*account).or_default().insert(of);
        }
        interested.by_session.entry(of).or_default().extend(accounts);
    }

    fn remove(&self, session: u64, conversation: ConversationKey) {
        let interested = &mut *self.0.lock();
        let of = (session, conversation);
        for account in interested.by_session.remove(&of).into_iter().flatten() {
            if let Entry::Occupied(mut sessions) = interested.by_account.entry(account) {
                sessions.get_mut().remove(&of);
                if sessions.get().is_empty() {
                    sessions.remove();
                }
            }
        }
    }

    /// Nobody hears of `account` because of `conversation` any more.
    fn forget(&self, account: AccountId, conversation: ConversationKey) {
        if let Some(sessions) = self.0.lock().by_account.get_mut(&account) {
            sessions.retain(|(_, of)| *of != conversation);
        }
    }

    /// Where `account` is looked at, by whom.
    fn of(&self, account: AccountId) -> Vec<(u64, ConversationKey)> {
        self.0.lock().by_account.get(&account).into_iter().flatten().copied().collect()
    }

    /// One session hears of `account` because of one conversation no more.
    fn forget_one(&self, account: AccountId, of: (u64, ConversationKey)) {
        if let Some(sessions) = self.0.lock().by_account.get_mut(&account) {
            sessions.remove(&of);
        }
    }

    fn is_of_interest(&self, account: AccountId) -> bool {
        self.0.lock().by_account.get(&account).is_some_and(|of| !of.is_empty())
    }

    /// Those somebody looks at.
    fn accounts(&self) -> Vec<AccountId> {
        let interested = self.0.lock();
        let looked_at = interested.by_account.iter().filter(|(_, of)| !of.is_empty());
        looked_at.map(|(account, _)| *account).collect()
    }

    fn sessions(&self, account: AccountId) -> Vec<u64> {
        let interested = self.0.lock();
        let of = interested.by_account.get(&account);
        let mut sessions: Vec<u64> = of.into_iter().flatten().map(|(session, _)| *session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }
}

/// A person's presence, as the answer to joining tells it.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresentStatus {
    pub user_id: AccountId,
    pub status: PresenceStatus,
    pub last_seen: Option<reedi_protocol::Timestamp>,
}

/// Begins to tell `session` of typing and presence in `conversation`; gives who is there now.
///
/// # Errors
/// Not a member, or it has joined too many.
pub async fn join(
    edge: &Edge,
    session: &Session,
    conversation: ConversationKey,
) -> Outcome<Vec<PresentStatus>> {
    let view = edge.member_view(session.account, conversation).await?;
    if !session.join(conversation) {
        let detail = format!(
            "One connection may have {} conversations joined at once: leave one first.",
            super::session::JOINED_MOST
        );
        return Err(super::refused::Refused::invalid("/conversationId", detail));
    }
    if view.state.members.len() > edge.limits.presence_members {
        return Ok(Vec::new());
    }
    let others: Vec<AccountId> =
        view.state.accounts().into_iter().filter(|a| *a != session.account).collect();
    // Interested first and judged after: a block that comes in between finds it, or is found.
    edge.interest.add(session.id, conversation, &others);
    if may_not_see(edge, &view, session.account).await {
        others.iter().for_each(|other| edge.interest.forget_one(*other, (session.id, conversation)));
        return Ok(Vec::new());
    }
    Ok(look(edge, &others).await)
}

pub fn leave(edge: &Edge, session: &Session, conversation: ConversationKey) {
    if session.leave(conversation) {
        edge.interest.remove(session.id, conversation);
    }
}

/// Forgets a session that is gone.
pub fn forget(edge: &Edge, session: &Session) {
    for conversation in session.joined() {
        edge.interest.remove(session.id, conversation);
    }
}

/// Who takes part has changed: who went hears of nobody there any more, nor does anybody there of them; who came is of
/// interest to those who have joined.
pub fn members_changed(
    edge: &Edge,
    conversation: ConversationKey,
    came: &[AccountId],
    gone: Option<AccountId>,
    after: &ConversationState,
) {
    let joined = |account: AccountId| {
        let mut joined = Vec::new();
        edge.routes.each_session(account, |session| {
            if session.has_joined(conversation) {
                joined.push(session.clone());
            }
        });
        joined
    };
    if let Some(gone) = gone {
        joined(gone).iter().for_each(|session| leave(edge, session, conversation));
        edge.interest.forget(gone, conversation);
    }
    if came.is_empty() || after.members.len() > edge.limits.presence_members {
        return;
    }
    for member in after.accounts() {
        let others: Vec<AccountId> = came.iter().copied().filter(|account| *account != member).collect();
        for session in joined(member) {
            edge.interest.add(session.id, conversation, &others);
            // It was told nothing of them yet.
            others
                .iter()
                .for_each(|other| edge.presence_told.answered(*other, Some(PresenceStatus::Offline)));
        }
    }
}

/// Who is here has chosen whether others see that: tells those who look what they see from now on.
pub async fn visibility_changed(edge: &Edge, account: AccountId, visible: PresenceVisibility) {
    let now = edge.clock.now();
    let status = match visible {
        PresenceVisibility::Everyone => PresenceStatus::Online,
        PresenceVisibility::Nobody => PresenceStatus::Offline,
    };
    // Better told once too often that it left than seen although it hides.
    let if_unknown = status == PresenceStatus::Offline;
    let found = edge.presence.look(&[account], now).await;
    if !found.iter().any(|found| found.as_ref().map_or(if_unknown, |presence| presence.online)) {
        return;
    }
    let change = PresenceChange { account, status, last_seen: None };
    if let Err(error) = edge.link.presence(vec![change]).await {
        tracing::debug!(%error, "presence was not passed on");
    }
}

/// Whether the other one of a direct conversation takes no messages of `account`: then neither is shown to it when the other
/// is there, nor told to the other that it types; nobody is told why.
async fn may_not_see(edge: &Edge, view: &View, account: AccountId) -> bool {
    let may = edge.may_reach_peer(view, account).await;
    may.is_err_and(|refused| refused.code == ErrorCode::RecipientUnavailable)
}

/// Goes by changed preferences, one account after the other, however many change them how often.
pub async fn run_preferences(edge: Arc<Edge>) {
    loop {
        edge.preferences_touched.some().await;
        let changed = edge.preferences_touched.take();
        for account in changed {
            preferences_changed(&edge, account).await;
        }
    }
}

/// What `account` allows has changed: who looked at it in a conversation of the two and may not message it any more sees it
/// leave, as by its settings.
async fn preferences_changed(edge: &Edge, account: AccountId) {
    for (session, conversation) in edge.interest.of(account) {
        let mut looking = None;
        edge.sessions_by_id(&[session], |session| looking = Some(session.clone()));
        let (Some(looking), Ok(view)) = (looking, edge.views.get(conversation).await) else { continue };
        if !may_not_see(edge, &view, looking.account).await {
            continue;
        }
        edge.interest.forget_one(account, (session, conversation));
        if !edge.interest.sessions(account).contains(&session) {
            let change = PresenceChange { account, status: PresenceStatus::Offline, last_seen: None };
            looking.push(status_change(&change));
        }
    }
}

async fn look(edge: &Edge, accounts: &[AccountId]) -> Vec<PresentStatus> {
    let found = edge.presence.look(accounts, edge.clock.now()).await;
    let mut present = Vec::with_capacity(accounts.len());
    let mut answers = Vec::with_capacity(accounts.len());
    for (account, found) in accounts.iter().zip(found) {
        let Ok(presence) = found else {
            answers.push((*account, None));
            continue;
        };
        let is_visible = is_visible(edge, *account).await;
        let status = status_of(presence.online && is_visible);
        answers.push((*account, Some(status)));
        if is_visible {
            present.push(PresentStatus { user_id: *account, status, last_seen: presence.last_seen });
        }
    }
    // At the end, so that what was told since it was asked for is seen to differ.
    answers.iter().for_each(|(account, status)| edge.presence_told.answered(*account, *status));
    present
}

/// Whether `account` lets others see when it is there. With the store away nobody is seen.
async fn is_visible(edge: &Edge, account: AccountId) -> bool {
    edge.settings(account).await.is_ok_and(|s| s.presence == PresenceVisibility::Everyone)
}

/// Passes typing on to the members of a conversation who joined it; as if it did where the other has blocked the account.
///
/// # Errors
/// Not a member.
pub async fn typing(
    edge: &Edge,
    session: &Session,
    conversation: ConversationKey,
    typing: bool,
) -> Outcome<()> {
    let view = edge.member_view(session.account, conversation).await?;
    let is_told = view.state.members.len() <= edge.limits.typing_members;
    if is_told && !may_not_see(edge, &view, session.account).await {
        let what = Fleeting::Typing { account: session.account, typing };
        let frame = ToWorkers::Fleeting { conversation, audience: view.state.accounts(), what };
        if let Err(error) = edge.link.to_workers(frame).await {
            tracing::debug!(%error, "typing was not passed on");
        }
    }
    Ok(())
}

fn status_change(change: &PresenceChange) -> OutFrame {
    wire::encode(&ServerEvent::UserStatusChange {
        user_id: change.account,
        status: change.status,
        last_seen: change.last_seen,
    })
}

/// Tells the sessions that are interested.
pub fn tell_presence(edge: &Edge, changes: &[PresenceChange]) {
    for change in changes {
        edge.presence_told.tell(change.account, change.status, || push_presence(edge, change));
    }
}

/// Gives whether anybody is interested.
fn push_presence(edge: &Edge, change: &PresenceChange) -> bool {
    let interested = edge.interest.sessions(change.account);
    if interested.is_empty() {
        return false;
    }
    let frame = status_change(change);
    edge.sessions_by_id(&interested, |session| session.push(frame.clone()));
    true
}

/// Keeps presence: tells who came and left, together, refreshes who is here, and puts right what was told.
pub async fn run(edge: Arc<Edge>) {
    let mut refreshed = tokio::time::Instant::now();
    let mut held = Held::default();
    loop {
        tokio::select! {
            biased;
            () = edge.presence_touched.some() => tokio::time::sleep(TOGETHER).await,
            () = tokio::time::sleep_until(refreshed + Duration::from_millis(crate::presence::REFRESH_MS)) => {}
        }
        let touched = edge.presence_touched.take();
        let now = edge.clock.now();
        let turn = held.turn(&edge.presence, edge.id, touched, |account| edge.routes.has(account), now).await;
        let mut changes = visible_changes(&edge, turn.came, PresenceStatus::Online, None).await;
        changes.extend(visible_changes(&edge, turn.left, PresenceStatus::Offline, Some(now)).await);
        pass_on(&edge, changes).await;
        edge.presence_held.send_replace(held.count());
        if refreshed.elapsed() >= Duration::from_millis(crate::presence::REFRESH_MS) {
            refreshed = tokio::time::Instant::now();
            // Not from before the waiting above: what is held by an old time has run out as soon as it stands.
            let now = edge.clock.now();
            let came = refresh(&edge.presence, edge.id, &edge.routes.accounts(), now).await;
            pass_on(&edge, visible_changes(&edge, came, PresenceStatus::Online, None).await).await;
            let left = held.say_again(&edge.presence, edge.id, now).await;
            pass_on(&edge, visible_changes(&edge, left, PresenceStatus::Offline, Some(now)).await).await;
            edge.presence_held.send_replace(held.count());
            reconcile(&edge).await;
        }
    }
}

async fn pass_on(edge: &Edge, changes: Vec<PresenceChange>) {
    if !changes.is_empty()
        && let Err(error) = edge.link.presence(changes).await
    {
        tracing::debug!(%error, "presence was not passed on");
    }
}

/// Tells those who look here what is not as they were told: of an edge that was killed, or what came late or not at all.
async fn reconcile(edge: &Edge) {
    edge.presence_told.keep(|account| edge.interest.is_of_interest(account));
    let accounts = edge.interest.accounts();
    let visible = |account| is_visible(edge, account);
    let differences =
        edge.presence_told.differences(&edge.presence, &accounts, visible, edge.clock.now()).await;
    for found in differences {
        let change =
            PresenceChange { account: found.account, status: found.status, last_seen: found.last_seen };
        edge.presence_told.tell_difference(&found, || push_presence(edge, &change));
    }
}

async fn visible_changes(
    edge: &Edge,
    accounts: Vec<AccountId>,
    status: PresenceStatus,
    last_seen: Option<reedi_protocol::Timestamp>,
) -> Vec<PresenceChange> {
    let visible = async |account| is_visible(edge, account).await.then_some(account);
    let visible = futures_util::stream::iter(accounts).map(visible).buffered(ASKED_AT_ONCE);
    let change = |account| PresenceChange { account, status, last_seen };
    visible.filter_map(async |account| account.map(change)).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_hears_no_more_and_leaves_nothing() {
        let interest = Interest::default();
        let [ann, ben] = [1, 2].map(|n| AccountId::new(uuid::Uuid::from_u128(n)));
        let [talk, club] = [1, 2].map(ConversationKey::from_u64);
        interest.add(7, talk, &[ann, ben]);
        interest.add(7, talk, &[ann]);
        interest.add(7, club, &[ann]);
        interest.add(8, talk, &[ann]);
        assert_eq!((interest.sessions(ann), interest.sessions(ben)), (vec![7, 8], vec![7]));
        interest.remove(7, talk);
        assert_eq!(
            (interest.sessions(ann), interest.sessions(ben)),
            (vec![7, 8], vec![]),
            "the club is open"
        );
        interest.remove(7, club);
        interest.remove(7, club);
        assert_eq!(interest.sessions(ann), vec![8]);
        interest.forget(ann, talk);
        assert!(interest.sessions(ann).is_empty());
        interest.remove(8, talk);
        let left = interest.0.lock();
        assert!(left.by_account.values().all(HashSet::is_empty) && left.by_session.is_empty());
    }
}
