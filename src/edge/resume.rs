//! Resume: what happened since a client's checkpoint, then live (rule P6).

use super::answer::Answer;
use super::place::Named;
use super::query::events::{Page, missing_before, page, was_elsewhere};
use super::query::lists::{INBOX_PAGE, with_heads};
use super::refused::{Outcome, Refused};
use super::session::{OutFrame, Session};
use super::{Edge, wire};
use crate::domain::retention::{RESUME_BYTES_MOST, RESUME_EVENTS_MOST};
use crate::store::{InboxRow, Inboxes as _, StoreResult};
use futures_util::{StreamExt, stream};
use reedi_protocol::command::Resume;
use reedi_protocol::event::ServerEvent;
use reedi_protocol::{Checkpoint, ConversationKey, ErrorCode, Position, Shard, limits};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Conversations read at once for one resume.
const AT_ONCE: usize = 8;
/// After what could not be read by waiting a client asks again after this time, in seconds.
const ASK_AGAIN_S: u64 = 60;
/// Events read at once: what they hold in memory, with content of 64 KiB each, is bounded by this.
const PAGE: usize = 100;

/// Replays what was missed and lets live frames follow.
///
/// # Errors
/// The checkpoint or a cursor is not one of ours, or beyond the log.
pub async fn run(edge: &Arc<Edge>, session: &Arc<Session>, command: &Resume) -> Outcome<Answer> {
    let begun = Instant::now();
    let checkpoint: Option<Checkpoint> = match &command.checkpoint {
        Some(text) => Some(text.parse().map_err(|e| Refused::invalid("/checkpoint", e))?),
        None => None,
    };
    let cursors = cursors(command)?;
    check(edge, session, checkpoint.as_ref(), &cursors).await?;
    let Some(up_to) = session.begin_resume() else {
        return Err(Refused::new(ErrorCode::Conflict, "An earlier resume is going on, or not yet read."));
    };
    let mut told_to = up_to.clone();
    if let Some(checkpoint) = &checkpoint {
        // Another edge may have told this client more than this one has been told: its place does not go back,
        // and what comes here up to there it has.
        Shard::all().for_each(|shard| told_to.advance(shard, checkpoint.get(shard)));
        if told_to != up_to {
            session.begin_ahead(told_to.clone());
        }
    }
    let replayed = replay(edge, session, checkpoint, &cursors, &up_to).await;
    session.owes(replayed.is_err());
    let end = match replayed {
        Ok(frames) => {
            for frame in frames {
                session.push_replayed(frame);
            }
            ServerEvent::ResumeComplete { checkpoint: told_to }
        }
        // Nothing is claimed: the client asks again, and live events go on meanwhile.
        Err(Refused { detail: reason, retry_after, .. }) => {
            ServerEvent::ResumePending { reason, retry_after: retry_after.unwrap_or(ASK_AGAIN_S) }
        }
    };
    session.push_replayed(wire::encode(&end));
    session.release();
    edge.metrics.resume.observe(begun.elapsed().as_secs_f64());
    Ok(Answer::done())
}

/// Refuses places that the log has not come to: nothing could be told from there, and all be missed.
async fn check(
    edge: &Edge,
    session: &Session,
    checkpoint: Option<&Checkpoint>,
    cursors: &HashMap<ConversationKey, Position>,
) -> Outcome<()> {
    let in_cursors = cursors.iter().map(|(key, position)| Named {
        shard: key.shard(),
        position: *position,
        pointer: format!("/cursors/{}", key.conversation_id()).into(),
    });
    let in_checkpoint = checkpoint.into_iter().flat_map(|checkpoint| {
        Shard::all().map(|shard| Named {
            shard,
            position: checkpoint.get(shard),
            pointer: "/checkpoint".into(),
        })
    });
    edge.check_places(session.account, in_cursors.chain(in_checkpoint)).await
}

fn cursors(command: &Resume) -> Outcome<HashMap<ConversationKey, Position>> {
    if command.cursors.len() > limits::RESUME_CURSORS {
        return Err(Refused::invalid("/cursors", format!("at most {} cursors", limits::RESUME_CURSORS)));
    }
    let mut cursors = HashMap::with_capacity(command.cursors.len());
    for (id, position) in &command.cursors {
        let pointer = format!("/cursors/{id}");
        let position =
            Position::from_u64(*position).ok_or_else(|| Refused::invalid(&pointer, "not a position"))?;
        // A conversation that is none of ours was never told of.
        if let Ok(key) = super::command::conversation_id(id, &pointer) {
            cursors.insert(key, position);
        }
    }
    Ok(cursors)
}

/// The frames of everything between the client's place and `up_to`, conversation by conversation.
async fn replay(
    edge: &Arc<Edge>,
    session: &Session,
    checkpoint: Option<Checkpoint>,
    cursors: &HashMap<ConversationKey, Position>,
    up_to: &Checkpoint,
) -> Outcome<Vec<OutFrame>> {
    if checkpoint.is_none() && cursors.is_empty() {
        return Ok(Vec::new());
    }
    edge.watermarks.passed_all(up_to).await?;
    let mut missed = missed(edge, session, checkpoint.as_ref(), cursors, up_to).await?;
    missed.sort_by_key(|(row, _)| row.conversation);
    let mut read = stream::iter(missed.into_iter().map(|(row, after)| async move {
        let frames = edge.if_readable(row.conversation, all_of(edge, session, &row, after, up_to).await)?;
        if frames.is_none() {
            edge.metrics.conversations_unreadable.inc();
        }
        Ok::<_, Refused>((row.conversation, frames.flatten()))
    }))
    .buffered(AT_ONCE);
    let mut told = Vec::new();
    let (mut events, mut bytes) = (0, 0);
    while let Some(conversation) = read.next().await {
        let (conversation, frames) = conversation?;
        match frames.filter(|(frames, more)| is_replayed(events + frames.len(), bytes + more)) {
            Some((frames, more)) => {
                (events, bytes) = (events + frames.len(), bytes + more);
                told.extend(frames);
            }
            None => {
                let conversation_id = conversation.conversation_id();
                told.push(wire::encode(&ServerEvent::ConversationReset { conversation_id }));
            }
        }
    }
    Ok(told)
}

/// Whether a resume replays so much, rather than to say "load it anew".
const fn is_replayed(events: usize, bytes: usize) -> bool {
    events <= RESUME_EVENTS_MOST && bytes <= RESUME_BYTES_MOST
}

/// Every event of one conversation after `after`, and the bytes of all of them; `None` where that is more than
/// a resume replays, or is not known to be all there was.
async fn all_of(
    edge: &Edge,
    session: &Session,
    row: &InboxRow,
    mut after: Position,
    up_to: &Checkpoint,
) -> StoreResult<Option<(Vec<OutFrame>, usize)>> {
    let up_to = up_to.get(row.conversation.shard());
    if was_elsewhere(row, after) || missing_before(edge, row, after, up_to).await?.is_some() {
        return Ok(None);
    }
    let (mut frames, mut bytes) = (Vec::new(), 0);
    loop {
        let caught = page(edge, session.account, row, Page { after, up_to, limit: PAGE }).await?;
        for (_, event) in &caught.told {
            let frame = wire::encode(event);
            bytes += frame.text.len();
            frames.push(frame);
        }
        if !is_replayed(frames.len(), bytes) {
            return Ok(None);
        }
        if !caught.has_more {
            return Ok(Some((frames, bytes)));
        }
        after = caught.complete_to;
    }
}

type Missed = (InboxRow, Position);

/// The account's conversations in which something happened, and from where: all of them after a checkpoint,
/// without one those that have a cursor.
async fn missed(
    edge: &Edge,
    session: &Session,
    checkpoint: Option<&Checkpoint>,
    cursors: &HashMap<ConversationKey, Position>,
    up_to: &Checkpoint,
) -> StoreResult<Vec<Missed>> {
    let happened = |row: InboxRow| {
        let shard = row.conversation.shard();
        let after = checkpoint.map(|c| c.get(shard)).max(cursors.get(&row.conversation).copied())?;
        let head = row.head.map(|(position, _)| position);
        let newest = head.max(row.left).max(Some(row.joined)).max(row.touched).unwrap_or_default();
        (newest > after && after < up_to.get(shard)).then_some((row, after))
    };
    let (mut missed, mut behind) = (Vec::new(), None);
    loop {
        let page = edge.store.inbox(session.account, behind, INBOX_PAGE).await?;
        behind = page.last().filter(|_| page.len() >= INBOX_PAGE).map(|row| row.conversation);
        missed.extend(with_heads(edge, page).await?.into_iter().filter_map(happened));
        if behind.is_none() {
            return Ok(missed);
        }
    }
}
