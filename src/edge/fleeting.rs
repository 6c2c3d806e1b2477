//! Fleeting: typing and presence, told to those who joined a conversation and stored nowhere.

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
        return Err(super::refused::Refused::new(ErrorCode::InvalidValue, detail));
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
        }
    }
}

/// Who is here has chosen whether others see that: tells those who look what they see from now on.
pub async fn visibility_changed(edge: &Edge, account: AccountId, visible: PresenceVisibility) {
    let now = edge.clock.now();
    let is_here = edge.presence.look(&[account], now).await.is_ok_and(|found| found.iter().any(|p| p.online));
    if !is_here {
        return;
    }
    let status = match visible {
        PresenceVisibility::Everyone => PresenceStatus::Online,
        PresenceVisibility::Nobody => PresenceStatus::Offline,
    };
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
        edge.preferences_changed.notified().await;
        let changed = std::mem::take(&mut *edge.preferences_touched.lock());
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
    let Ok(found) = edge.presence.look(accounts, edge.clock.now()).await else { return Vec::new() };
    let mut present = Vec::with_capacity(accounts.len());
    for (account, presence) in accounts.iter().zip(found) {
        if !is_visible(edge, *account).await {
            continue;
        }
        let status = if presence.online { PresenceStatus::Online } else { PresenceStatus::Offline };
        present.push(PresentStatus { user_id: *account, status, last_seen: presence.last_seen });
    }
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
        let interested = edge.interest.sessions(change.account);
        if interested.is_empty() {
            continue;
        }
        let frame = status_change(change);
        edge.sessions_by_id(&interested, |session| session.push(frame.clone()));
    }
}

/// Keeps presence: tells who came and left, together, and refreshes who is here.
pub async fn run(edge: Arc<Edge>) {
    let mut refreshed = tokio::time::Instant::now();
    // Who was said to be here: nobody else has left.
    let mut held: HashSet<AccountId> = HashSet::new();
    loop {
        tokio::select! {
            biased;
            () = edge.presence_changed.notified() => tokio::time::sleep(TOGETHER).await,
            () = tokio::time::sleep_until(refreshed + Duration::from_millis(crate::presence::REFRESH_MS)) => {}
        }
        let touched = std::mem::take(&mut *edge.presence_touched.lock());
        let (here, gone): (Vec<AccountId>, Vec<AccountId>) =
            touched.into_iter().partition(|account| edge.routes.has(*account));
        held.extend(&here);
        let gone: Vec<_> = gone.into_iter().filter(|account| held.remove(account)).collect();
        let now = edge.clock.now();
        let mut changes = Vec::new();
        if !here.is_empty() {
            let came = edge.presence.hold(edge.id, &here, now).await.unwrap_or_default();
            changes.extend(visible_changes(&edge, came, PresenceStatus::Online, None).await);
        }
        if !gone.is_empty() {
            let left = edge.presence.leave(edge.id, &gone, now).await.unwrap_or_default();
            changes.extend(visible_changes(&edge, left, PresenceStatus::Offline, Some(now)).await);
        }
        if !changes.is_empty()
            && let Err(error) = edge.link.presence(changes).await
        {
            tracing::debug!(%error, "presence was not passed on");
        }
        if refreshed.elapsed() >= Duration::from_millis(crate::presence::REFRESH_MS) {
            refreshed = tokio::time::Instant::now();
            // Not from before the waiting above: what is held by an old time has run out as soon as it stands.
            let now = edge.clock.now();
            for accounts in edge.routes.accounts().chunks(1_000) {
                // What is not refreshed runs out by itself; the next round tries again.
                let _ = edge.presence.hold(edge.id, accounts, now).await;
            }
        }
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
