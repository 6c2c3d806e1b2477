//! Who may do what, judged from the state that control events left.

use super::conversation::{ConversationState, Member};
use super::record::Change;
use reedi_protocol::resource::{ConversationType, Role};
use reedi_protocol::text::{AvatarUrl, Name};
use reedi_protocol::{AccountId, ErrorCode, Position, Timestamp};

/// What an account wants to change about a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Add(Vec<AccountId>),
    Remove(AccountId),
    Leave,
    SetRole(AccountId, Role),
    Settings {
        name: Option<Name>,
        /// The inner `None` takes the picture away.
        avatar_url: Option<Option<AvatarUrl>>,
        expires_after_s: Option<Option<u64>>,
    },
}

/// What a wish comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append this control event.
    Append(Change, ConversationState),
    /// It stands like that already.
    Nothing,
}

/// Judges a wish against the state it would change. What comes out is valid exactly where this state
/// is the newest, which the log checks when it is appended (rule P7): so the last admin, and two
/// admins at once, need no lock.
///
/// # Errors
/// The refusal as clients are told.
pub fn judge(
    state: &ConversationState,
    actor: AccountId,
    wish: &Wish,
    now: Timestamp,
    members_most: usize,
) -> Result<Verdict, ErrorCode> {
    let me = state.member(actor).ok_or(ErrorCode::NotFound)?;
    if state.kind != ConversationType::Group {
        return match wish {
            // Either of two may make their messages disappear.
            Wish::Settings { name: None, avatar_url: None, expires_after_s } => {
                Ok(settings(state, None, None, *expires_after_s))
            }
            _ => Err(ErrorCode::NotAGroup),
        };
    }
    if me.role != Role::Admin && *wish != Wish::Leave {
        return Err(ErrorCode::Forbidden);
    }
    match wish {
        Wish::Add(accounts) => add(state, accounts, now, members_most),
        Wish::Remove(account) if *account == actor => Ok(leave(state, actor)),
        Wish::Remove(account) => {
            state.member(*account).ok_or(ErrorCode::NotFound)?;
            Ok(Verdict::Append(Change::Removed { account: *account }, without(state, *account)))
        }
        Wish::Leave => Ok(leave(state, actor)),
        Wish::SetRole(account, role) => set_role(state, *account, *role),
        Wish::Settings { name, avatar_url, expires_after_s } => {
            Ok(settings(state, name.clone(), avatar_url.clone(), *expires_after_s))
        }
    }
}

fn add(
    state: &ConversationState,
    accounts: &[AccountId],
    now: Timestamp,
    members_most: usize,
) -> Result<Verdict, ErrorCode> {
    let mut after = state.clone();
    let mut added = Vec::new();
    for account in accounts {
        if after.member(*account).is_none() {
            after.members.push(Member {
                account: *account,
                role: Role::Member,
                joined: Position::START,
                joined_at: now,
            });
            added.push(*account);
            // At once: each is looked for among all, and a request may name thousands.
            if after.members.len() > members_most {
                return Err(ErrorCode::GroupFull);
            }
        }
    }
    if added.is_empty() {
        return Ok(Verdict::Nothing);
    }
    Ok(Verdict::Append(Change::Added { accounts: added }, after))
}

fn without(state: &ConversationState, account: AccountId) -> ConversationState {
    let mut after = state.clone();
    after.members.retain(|m| m.account != account);
    after
}

fn has_admin(state: &ConversationState) -> bool {
    state.members.iter().any(|m| m.role == Role::Admin)
}

/// The last admin's leaving promotes the longest-standing member.
fn leave(state: &ConversationState, actor: AccountId) -> Verdict {
    let mut after = without(state, actor);
    let mut promoted = None;
    if !has_admin(&after)
        && let Some(heir) = after.members.first_mut()
    {
        heir.role = Role::Admin;
        promoted = Some(heir.account);
    }
    Verdict::Append(Change::Left { promoted }, after)
}

fn set_role(state: &ConversationState, account: AccountId, role: Role) -> Result<Verdict, ErrorCode> {
    let mut after = state.clone();
    let member = after.members.iter_mut().find(|m| m.account == account).ok_or(ErrorCode::NotFound)?;
    if member.role == role {
        return Ok(Verdict::Nothing);
    }
    member.role = role;
    if !has_admin(&after) {
        return Err(ErrorCode::LastAdmin);
    }
    Ok(Verdict::Append(Change::RoleSet { account, role }, after))
}

fn settings(
    state: &ConversationState,
    name: Option<Name>,
    avatar_url: Option<Option<AvatarUrl>>,
    expires_after_s: Option<Option<u64>>,
) -> Verdict {
    let mut after = state.clone();
    if let Some(name) = name {
        after.name = Some(name);
    }
    if let Some(avatar_url) = avatar_url {
        after.avatar_url = avatar_url;
    }
    if let Some(expires_after_s) = expires_after_s {
        after.expires_after_s = expires_after_s;
    }
    if after == *state {
        return Verdict::Nothing;
    }
    let change = Change::Settings {
        name_changed: after.name != state.name,
        avatar_changed: after.avatar_url != state.avatar_url,
        expiry_changed: after.expires_after_s != state.expires_after_s,
    };
    Verdict::Append(change, after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(n: u128) -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(n))
    }

    fn group(roles: &[Role]) -> ConversationState {
        let members = roles
            .iter()
            .enumerate()
            .map(|(i, role)| Member {
                account: account(i as u128),
                role: *role,
                joined: Position::START,
                joined_at: Timestamp::default(),
            })
            .collect();
        ConversationState {
            kind: ConversationType::Group,
            name: None,
            avatar_url: None,
            expires_after_s: None,
            created_at: Timestamp::default(),
            members,
        }
    }

    fn any_wish() -> impl Strategy<Value = (u128, Wish)> {
        let who = 0u128..6;
        let role = prop_oneof![Just(Role::Admin), Just(Role::Member)];
        let wish = prop_oneof![
            prop::collection::vec(0u128..6, 0..4)
                .prop_map(|v| Wish::Add(v.into_iter().map(account).collect())),
            (0u128..6).prop_map(|n| Wish::Remove(account(n))),
            Just(Wish::Leave),
            (0u128..6, role).prop_map(|(n, r)| Wish::SetRole(account(n), r)),
        ];
        (who, wish)
    }

    proptest! {
        /// Whatever is allowed, in whatever order: while anybody is left, somebody is admin, nobody
        /// is a member twice, and the group is within its bound.
        #[test]
        fn a_group_is_never_without_admin(wishes in prop::collection::vec(any_wish(), 0..60)) {
            let mut state = group(&[Role::Admin, Role::Member]);
            for (who, wish) in wishes {
                if let Ok(Verdict::Append(_, after)) = judge(&state, account(who), &wish, Timestamp::default(), 5) {
                    state = after;
                }
                prop_assert!(state.members.is_empty() || has_admin(&state));
                prop_assert!(state.members.len() <= 5);
                let mut accounts = state.accounts();
                accounts.sort();
                accounts.dedup();
                prop_assert_eq!(accounts.len(), state.members.len());
            }
        }
    }

    #[test]
    fn members_may_only_leave() {
        let state = group(&[Role::Admin, Role::Member]);
        let wish = Wish::Remove(account(0));
        let now = Timestamp::default();
        assert_eq!(judge(&state, account(1), &wish, now, 9), Err(ErrorCode::Forbidden));
        assert!(judge(&state, account(1), &Wish::Leave, now, 9).is_ok());
        assert_eq!(judge(&state, account(7), &wish, now, 9), Err(ErrorCode::NotFound));
        let demote = Wish::SetRole(account(0), Role::Member);
        assert_eq!(judge(&state, account(0), &demote, now, 9), Err(ErrorCode::LastAdmin));
    }
}
