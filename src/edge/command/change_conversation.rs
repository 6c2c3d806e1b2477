//! Changing a conversation: judge by the newest control event, publish on that condition, and judge
//! again where another came first (rule P7).

use super::create_conversation::{group_full, named};
use super::refuse;
use crate::domain::permission::{Verdict, Wish, judge};
use crate::domain::record::{Body, Change, RequestDigest};
use crate::edge::Edge;
use crate::edge::refused::{Outcome, Refused};
use crate::edge::view::View;
use crate::log::AppendError;
use crate::store::Conversations as _;
use reedi_protocol::command::{AddParticipants, UpdateConversation};
use reedi_protocol::text::{AvatarUrl, Name};
use reedi_protocol::{AccountId, ConversationKey, ErrorCode, Position, Timestamp, limits};
use std::sync::Arc;

/// How often a change is judged anew before the client is told to (rule P7).
const TRIES: usize = 5;

/// Does what `actor` wishes; gives the conversation as it then stands.
///
/// # Errors
/// Not allowed, or too many others changed it at the same time.
pub async fn run(edge: &Edge, actor: AccountId, conversation: ConversationKey, wish: &Wish) -> Outcome<View> {
    // Before it counts: who is no member uses up nothing of the conversation.
    let view = edge.member_view(actor, conversation).await?;
    edge.admission.event(actor, conversation, edge.clock.now()).await?;
    change(edge, actor, view, wish).await
}

/// The same, once it is counted, for a member of the conversation of `view`.
async fn change(edge: &Edge, actor: AccountId, mut view: View, wish: &Wish) -> Outcome<View> {
    let conversation = view.conversation;
    let mut expected = view.control;
    let mut is_newest = false;
    for _ in 0..TRIES {
        let (change, after) = match verdict(edge, &view, actor, wish).await {
            Ok(Verdict::Append(change, after)) => (change, after),
            // The log judges what is appended; what is not, is judged by the newest that is stored.
            Ok(Verdict::Nothing) | Err(_) if !is_newest => {
                view = edge.reader_view(actor, conversation).await?;
                (expected, is_newest) = (view.control, true);
                continue;
            }
            Ok(Verdict::Nothing) => return Ok(view),
            Err(refused) => return Err(refused),
        };
        let body = Body::Control { change, after: after.clone() };
        let record = edge.record(&view, actor, edge.clock.now(), RequestDigest([0; 16]), body);
        match edge.appender.control(expected, record).await {
            Ok(position) => {
                edge.newest.tell(conversation, position, &[actor]);
                let state = Arc::new(after.placed_at(position));
                let view = edge.views.learn(conversation, position, position, state);
                edge.shown_by_all(conversation, position).await;
                return Ok(view);
            }
            Err(AppendError::ControlMoved(stands)) => {
                (view, expected) = judged_by(edge, conversation, stands, expected).await?;
                is_newest = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
    refuse(ErrorCode::Conflict, "Others changed this conversation at the same time. Try again.")
}

/// What a wish comes to by a view. Who may not have it is told so, whomever it names; and only those it would add are
/// asked about.
async fn verdict(edge: &Edge, view: &View, actor: AccountId, wish: &Wish) -> Outcome<Verdict> {
    let (now, most) = (edge.clock.now(), edge.limits.group_members);
    let verdict = judge(&view.state, actor, wish, now, most).map_err(|code| match code {
        ErrorCode::GroupFull => group_full(most),
        code => code.into(),
    })?;
    if let Verdict::Append(Change::Added { accounts }, _) = &verdict {
        edge.may_message_all(actor, accounts).await?;
    }
    Ok(verdict)
}

/// The newest state, once the control event that came first is stored, and what to expect next. A
/// void control event moves the log's position and changes nothing.
async fn judged_by(
    edge: &Edge,
    conversation: ConversationKey,
    stands: Option<Position>,
    expected: Position,
) -> Outcome<(View, Position)> {
    if let Some(stands) = stands {
        edge.watermarks.passed(conversation.shard(), stands).await?;
    }
    let view = edge.views.load(conversation).await?.ok_or_else(Refused::not_found)?;
    let next = match stands {
        // All trimmed: what the store says after this answer is the newest.
        Some(Position::START) => Position::START,
        Some(stands) => stands.max(view.control),
        None => view.control.max(expected),
    };
    Ok((view, next))
}

/// `PUT /conversations/:id`: a group's settings, and one's own mute.
///
/// # Errors
/// A value out of its limits, or not allowed.
pub async fn update(
    edge: &Edge,
    actor: AccountId,
    conversation: ConversationKey,
    command: &UpdateConversation,
) -> Outcome<View> {
    let name =
        command.name.as_deref().map(Name::parse).transpose().map_err(|e| Refused::invalid("/name", e))?;
    let avatar_url = match &command.avatar_url {
        Some(Some(text)) => {
            Some(Some(AvatarUrl::parse(text).map_err(|e| Refused::invalid("/avatarUrl", e))?))
        }
        Some(None) => Some(None),
        None => None,
    };
    if let Some(Some(seconds)) = command.expires_after
        && !limits::EXPIRES_AFTER_S.contains(&seconds)
    {
        return Err(Refused::invalid(
            "/expiresAfter",
            "3600 (an hour) to 31536000 (a year) seconds, or null",
        ));
    }
    let muted_until = match &command.muted_until {
        Some(Some(text)) => {
            let until: Timestamp = text.parse().map_err(|e| Refused::invalid("/mutedUntil", e))?;
            Some(Some(until))
        }
        Some(None) => Some(None),
        None => None,
    };
    let is_for_all = name.is_some() || avatar_url.is_some() || command.expires_after.is_some();
    let view = edge.member_view(actor, conversation).await?;
    match is_for_all {
        true => edge.admission.event(actor, conversation, edge.clock.now()).await?,
        false => edge.admission.command(actor, edge.clock.now()).await?,
    }
    if let Some(until) = muted_until {
        edge.store.mute(actor, conversation, until.filter(|until| *until > edge.clock.now())).await?;
    }
    if !is_for_all {
        return Ok(view);
    }
    let wish = Wish::Settings { name, avatar_url, expires_after_s: command.expires_after };
    change(edge, actor, view, &wish).await
}

/// `POST /conversations/:id/participants`.
///
/// # Errors
/// Not an admin, the group is full, or somebody takes no messages of this account.
pub async fn add(
    edge: &Edge,
    actor: AccountId,
    conversation: ConversationKey,
    command: &AddParticipants,
) -> Outcome<View> {
    if command.participant_ids.is_empty() {
        return Err(Refused::invalid("/participantIds", "name at least one account"));
    }
    let accounts = named(actor, &command.participant_ids)?;
    run(edge, actor, conversation, &Wish::Add(accounts)).await
}
