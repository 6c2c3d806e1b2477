//! Creating conversations: claim, then `created` (rule P7). Whoever finds a bare claim completes it.

use super::{account_id, refuse};
use crate::domain::conversation::{ConversationState, Member};
use crate::domain::record::{Body, Change, Record, RequestDigest};
use crate::edge::Edge;
use crate::edge::refused::{Outcome, Refused};
use crate::edge::view::View;
use crate::edge::watermarks::WAIT;
use crate::log::AppendError;
use crate::runtime::random;
use crate::store::{Claimed, Conversations as _};
use rand::RngCore;
use reedi_protocol::command::{CreateDirect, CreateGroup};
use reedi_protocol::resource::{ConversationType, Role};
use reedi_protocol::text::{AvatarUrl, Name};
use reedi_protocol::{AccountId, ConversationKey, ErrorCode, Position, Timestamp};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Random keys tried for a group before giving up: one collision in 2^64 / conversations is news.
const KEY_TRIES: usize = 8;

/// A conversation, and whether it was made just now.
pub struct Created {
    pub view: View,
    pub new: bool,
}

/// The direct conversation with another account: the same pair always yields the same one.
///
/// # Errors
/// With oneself, or the other takes no messages of this account.
pub async fn direct(edge: &Edge, actor: AccountId, command: &CreateDirect) -> Outcome<Created> {
    let peer = account_id(&command.participant_id, "/participantId")?;
    if peer == actor {
        return Err(Refused::invalid("/participantId", "this is you: name another account"));
    }
    edge.admission.command(actor, edge.clock.now()).await?;
    let may = edge.may_message(actor, peer).await?;
    let fresh = fresh_key();
    let key = match edge.store.claim_direct(actor, peer, fresh).await? {
        Claimed::Stood(key) => key,
        Claimed::New => fresh,
    };
    complete_direct(edge, actor, peer, key, may).await
}

async fn complete_direct(
    edge: &Edge,
    actor: AccountId,
    peer: AccountId,
    key: ConversationKey,
    may: bool,
) -> Outcome<Created> {
    match edge.views.get(key).await {
        Ok(view) => return Ok(Created { view, new: false }),
        Err(refused) if refused.code == ErrorCode::NotFound => {}
        Err(refused) => return Err(refused),
    }
    if !may {
        return Err(Refused::recipient_unavailable());
    }
    let members = vec![(actor, Role::Member), (peer, Role::Member)];
    create(edge, key, actor, state(edge.clock.now(), ConversationType::Direct, members)).await
}

/// A new group; its creator is admin.
///
/// # Errors
/// A value out of its limits, or somebody in it takes no messages of this account.
pub async fn group(edge: &Edge, actor: AccountId, command: &CreateGroup) -> Outcome<Created> {
    let name = Name::parse(&command.name).map_err(|e| Refused::invalid("/name", e))?;
    let avatar_url = command.avatar_url.as_deref().map(AvatarUrl::parse).transpose();
    let avatar_url = avatar_url.map_err(|e| Refused::invalid("/avatarUrl", e))?;
    let others = named(actor, &command.participant_ids)?;
    edge.admission.command(actor, edge.clock.now()).await?;
    if others.len() >= edge.limits.group_members {
        return Err(group_full(edge.limits.group_members));
    }
    edge.may_message_all(actor, &others).await?;
    let mut members = vec![(actor, Role::Admin)];
    members.extend(others.into_iter().map(|account| (account, Role::Member)));
    let state = ConversationState {
        name: Some(name),
        avatar_url,
        ..state(edge.clock.now(), ConversationType::Group, members)
    };
    for _ in 0..KEY_TRIES {
        let key = fresh_key();
        if edge.store.claim_group(key).await? == Claimed::New {
            return create(edge, key, actor, state).await;
        }
    }
    Err(Refused::new(ErrorCode::Internal, "No key was free for the group."))
}

/// The other accounts that a client names as participants, each once.
pub(super) fn named(actor: AccountId, ids: &[String]) -> Outcome<Vec<AccountId>> {
    let (mut accounts, mut seen) = (Vec::with_capacity(ids.len()), HashSet::from([actor]));
    for (i, text) in ids.iter().enumerate() {
        let account = account_id(text, &format!("/participantIds/{i}"))?;
        if seen.insert(account) {
            accounts.push(account);
        }
    }
    Ok(accounts)
}

/// Those that a client names are more than the group has room for.
pub(super) fn group_full(members_most: usize) -> Refused {
    let detail = format!("A group has at most {members_most} members.");
    Refused::new(ErrorCode::GroupFull, detail).at("/participantIds")
}

fn fresh_key() -> ConversationKey {
    loop {
        let key = random::rng().next_u64();
        // All zeros below the shard is the shard's own, for ticks.
        if key << 8 != 0 {
            return ConversationKey::from_u64(key);
        }
    }
}

fn state(now: Timestamp, kind: ConversationType, members: Vec<(AccountId, Role)>) -> ConversationState {
    let member = |(account, role)| Member { account, role, joined: Position::START, joined_at: now };
    ConversationState {
        kind,
        name: None,
        avatar_url: None,
        expires_after_s: None,
        created_at: now,
        members: members.into_iter().map(member).collect(),
    }
}

async fn create(
    edge: &Edge,
    key: ConversationKey,
    actor: AccountId,
    state: ConversationState,
) -> Outcome<Created> {
    let record = Record {
        conversation: key,
        kind: state.kind,
        actor,
        stamp: edge.clock.now(),
        digest: RequestDigest([0; 16]),
        audience: None,
        body: Body::Control { change: Change::Created, after: state.clone() },
    };
    match edge.appender.control(Position::START, record).await {
        Ok(position) => {
            edge.newest.tell(key, position, &state.accounts());
            let view = edge.views.learn(key, position, position, Arc::new(state.placed_at(position)));
            edge.shown_by_all(key, position).await;
            Ok(Created { view, new: true })
        }
        // Somebody else completed it meanwhile: it will be stored.
        Err(AppendError::ControlMoved(_)) => {
            let found = tokio::time::timeout(WAIT, async {
                loop {
                    if let Ok(Some(view)) = edge.views.load(key).await {
                        return view;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            match found.await {
                Ok(view) => Ok(Created { view, new: false }),
                Err(_) => {
                    refuse(ErrorCode::StoreUnavailable, "The conversation is not stored yet. Try again.")
                }
            }
        }
        Err(error) => Err(error.into()),
    }
}
