//! Resume: what happened since a client's checkpoint, then live (rule P6).

use super::answer::Answer;
use super::place::Named;
use super::query::events::{Page, page, was_elsewhere};
use super::refused::{Outcome, Refused};
use super::session::{OutFrame, Session};
use super::{Edge, wire};
use crate::domain::retention::{EVENTS_TTL_S, RESUME_BYTES_MOST, RESUME_EVENTS_MOST};
use crate::store::{Conversations as _, InboxRow, Inboxes as _};
use futures_util::{StreamExt, stream};
use reedi_protocol::command::Resume;
use reedi_protocol::event::ServerEvent;
use reedi_protocol::{Checkpoint, ConversationKey, ErrorCode, Position, Shard, limits};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Conversations read at once for one resume.
const AT_ONCE: usize = 8;
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
        Err(refused) => ServerEvent::ResumePending { reason: refused.detail },
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
    missed.sort_by_key(|(row, ..)| row.conversation);
    let oldest_ms = edge.clock.now().as_millis().saturating_sub(u64::from(EVENTS_TTL_S) * 1_000);
    let mut read = stream::iter(missed.into_iter().map(|(row, after, head_ms)| async move {
        let too_old = head_ms.is_some_and(|ms| ms < oldest_ms);
        let frames = if too_old || was_elsewhere(&row, after) {
            None
        } else {
            all_of(edge, session, &row, after, up_to).await?
        };
        Ok::<_, Refused>((row.conversation, frames))
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
/// a resume replays.
async fn all_of(
    edge: &Edge,
    session: &Session,
    row: &InboxRow,
    mut after: Position,
    up_to: &Checkpoint,
) -> Outcome<Option<(Vec<OutFrame>, usize)>> {
    let up_to = up_to.get(row.conversation.shard());
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

type Missed = (InboxRow, Position, Option<u64>);

/// The account's conversations in which something happened, and from where: all of them after a checkpoint,
/// without one those that have a cursor.
async fn missed(
    edge: &Edge,
    session: &Session,
    checkpoint: Option<&Checkpoint>,
    cursors: &HashMap<ConversationKey, Position>,
    up_to: &Checkpoint,
) -> Outcome<Vec<Missed>> {
    let rows = edge.store.inbox(session.account, super::query::lists::INBOX_MOST).await?;
    let large: Vec<ConversationKey> =
        rows.iter().filter(|r| super::query::lists::has_shared_head(r)).map(|r| r.conversation).collect();
    let heads = edge.store.heads(&large).await?;
    let heads: HashMap<ConversationKey, _> = large.into_iter().zip(heads).collect();
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let shard = row.conversation.shard();
            let after = checkpoint.map(|c| c.get(shard)).max(cursors.get(&row.conversation).copied())?;
            let head = row.head.max(heads.get(&row.conversation).copied().flatten());
            let newest =
                head.map(|(p, _)| p).max(row.left).max(Some(row.joined)).max(row.touched).unwrap_or_default();
            let happened = newest > after && after < up_to.get(shard);
            happened.then_some((row, after, head.map(|(_, time)| time.as_millis())))
        })
        .collect())
}
