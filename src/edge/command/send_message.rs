//! `send_message`: parse, permit, seal, publish exactly once.

use super::refuse;
use crate::domain::record::{Body, NewMessage, RequestDigest};
use crate::edge::Edge;
use crate::edge::append::seal::Belonging;
use crate::edge::append::{Accepted, Send};
use crate::edge::refused::{Outcome, Refused};
use crate::edge::view::View;
use crate::edge::{watermarks, wire};
use crate::runtime::random;
use crate::store::{Inboxes as _, Messages as _};
use reedi_protocol::command::SendMessage;
use reedi_protocol::resource::{ConversationType, Message, MessageType};
use reedi_protocol::text::{ClientMessageId, Content};
use reedi_protocol::{AccountId, ConversationKey, ErrorCode, Position, Timestamp};
use tokio::time::Instant;

/// Why a message cannot be replied to.
const NOT_HERE: &str = "there is no such message in this conversation";

/// What was sent, or had been before.
pub struct Sent {
    pub message: Message,
    pub duplicate: bool,
}

/// A send within its limits.
struct Parsed {
    content: Content,
    message_type: MessageType,
    reply_to: Option<Position>,
    client_message_id: ClientMessageId,
    keyed_by_client: bool,
    /// The key came in the body, and its time must be right.
    is_timed: bool,
    digest: RequestDigest,
}

impl Parsed {
    fn as_send(&self, sender: AccountId, conversation: ConversationKey) -> Send<'_> {
        Send {
            sender,
            conversation,
            client_message_id: &self.client_message_id,
            keyed_by_client: self.keyed_by_client,
            is_timed: self.is_timed,
            digest: self.digest,
        }
    }
}

/// Sends a message; gives one that was sent before as it is by now. `key` is an `Idempotency-Key` that came beside the
/// body.
///
/// # Errors
/// Not sent, or outcome unknown: the code says which.
pub async fn run(
    edge: &Edge,
    sender: AccountId,
    conversation: ConversationKey,
    command: SendMessage,
    key: Option<&str>,
) -> Outcome<Sent> {
    let sent = acknowledge(edge, sender, conversation, command, key).await?;
    if !sent.duplicate {
        return Ok(sent);
    }
    // Boxed, since it is rare.
    let message = Box::pin(as_it_is(edge, sent.message)).await;
    Ok(Sent { message, duplicate: true })
}

/// The same for who is told where the message stands and not what it is: waits for no store to say what became of it.
///
/// # Errors
/// As for [`run`].
pub async fn acknowledge(
    edge: &Edge,
    sender: AccountId,
    conversation: ConversationKey,
    command: SendMessage,
    key: Option<&str>,
) -> Outcome<Sent> {
    let arrived = Instant::now();
    let outcome = send(edge, sender, conversation, command, key).await;
    match &outcome {
        Ok(_) => {
            edge.metrics.messages_acknowledged.inc();
            edge.metrics.send_to_ack.observe(arrived.elapsed().as_secs_f64());
        }
        Err(refused) => edge.metrics.failed(refused.code),
    }
    outcome
}

async fn send(
    edge: &Edge,
    sender: AccountId,
    conversation: ConversationKey,
    command: SendMessage,
    key: Option<&str>,
) -> Outcome<Sent> {
    let parsed = parse(conversation, command, key, edge.clock.now())?;
    let view = match edge.member_view(sender, conversation).await {
        Ok(view) => view,
        Err(refused) => return sent_before_leaving(edge, parsed, sender, conversation, refused).await,
    };
    edge.admission.event(sender, conversation, edge.clock.now()).await?;
    let accepted = match may_send(edge, &view, sender, &parsed).await {
        Ok(()) => {
            edge.metrics.messages_accepted.inc();
            publish(edge, &view, sender, &parsed).await?
        }
        Err(refused) => sent_before(edge, &parsed, sender, conversation).await.ok_or(refused)?,
    };
    Ok(sent(edge, conversation, view.state.kind, sender, parsed, accepted))
}

fn sent(
    edge: &Edge,
    conversation: ConversationKey,
    kind: ConversationType,
    sender: AccountId,
    parsed: Parsed,
    accepted: Accepted,
) -> Sent {
    edge.newest.tell(conversation, accepted.position, &[sender]);
    if accepted.duplicate {
        edge.metrics.messages_duplicate.inc();
    }
    let message = as_sent(conversation, kind, sender, parsed, accepted);
    Sent { message, duplicate: accepted.duplicate }
}

/// Whether this message may be sent now.
async fn may_send(edge: &Edge, view: &View, sender: AccountId, parsed: &Parsed) -> Outcome<()> {
    edge.may_reach_peer(view, sender).await?;
    match parsed.reply_to {
        Some(reply_to) => check_reply(edge, view, sender, reply_to).await,
        None => Ok(()),
    }
}

/// What may not be sent now may have been sent before it was so, and its sender not have heard of it.
async fn sent_before(
    edge: &Edge,
    parsed: &Parsed,
    sender: AccountId,
    conversation: ConversationKey,
) -> Option<Accepted> {
    if !parsed.keyed_by_client {
        return None;
    }
    edge.appender.earlier(&parsed.as_send(sender, conversation)).await.ok().flatten()
}

/// Who has left may have sent this before, and not have heard of it. Of a conversation that the sender was never in
/// nothing is looked for.
async fn sent_before_leaving(
    edge: &Edge,
    parsed: Parsed,
    sender: AccountId,
    conversation: ConversationKey,
    refused: Refused,
) -> Outcome<Sent> {
    if refused.code != ErrorCode::NotFound || !parsed.keyed_by_client {
        return Err(refused);
    }
    // The sender's rate is counted already; the conversation's is its members'.
    let Some(row) = edge.store.inbox_row(sender, conversation).await? else { return Err(refused) };
    let earlier = edge.appender.earlier(&parsed.as_send(sender, conversation)).await?;
    Ok(sent(edge, conversation, row.kind, sender, parsed, earlier.ok_or(refused)?))
}

fn parse(
    conversation: ConversationKey,
    command: SendMessage,
    key: Option<&str>,
    now: Timestamp,
) -> Outcome<Parsed> {
    if command.message_type == MessageType::System {
        return Err(Refused::invalid("/messageType", "`system` messages are made by the server alone"));
    }
    let content = Content::parse(command.content).map_err(|e| Refused::invalid("/content", e))?;
    let reply_to = command.reply_to_id.as_deref();
    let reply_to =
        reply_to.map(|text| super::place_in(conversation, text, "/replyToId", NOT_HERE)).transpose()?;
    let given = command.client_message_id.as_deref().or(key);
    let pointer = if command.client_message_id.is_some() { "/clientMessageId" } else { "Idempotency-Key" };
    let client_message_id = match given {
        Some(text) => ClientMessageId::parse(text),
        None => ClientMessageId::parse(&random::uuid_v7(now).to_string()),
    };
    let digest = RequestDigest::of(&[
        content.as_str().as_bytes(),
        &[command.message_type as u8],
        &reply_to.unwrap_or_default().as_u64().to_be_bytes(),
    ]);
    Ok(Parsed {
        content,
        message_type: command.message_type,
        reply_to,
        client_message_id: client_message_id.map_err(|e| Refused::invalid(pointer, e))?,
        keyed_by_client: given.is_some(),
        is_timed: command.client_message_id.is_some(),
        digest,
    })
}

async fn check_reply(edge: &Edge, view: &View, sender: AccountId, reply_to: Position) -> Outcome<()> {
    let outside = || Refused::invalid("/replyToId", NOT_HERE);
    if reply_to < view.member(sender)?.joined {
        return Err(outside());
    }
    edge.caught_up(view.conversation).await?;
    edge.store.message(view.conversation, reply_to).await?.map(drop).ok_or_else(outside)
}

async fn publish(edge: &Edge, view: &View, sender: AccountId, parsed: &Parsed) -> Outcome<Accepted> {
    let conversation = view.conversation;
    let client_message_id = &parsed.client_message_id;
    let belonging = Belonging::Sent { conversation, sender, client_message_id };
    let message = NewMessage {
        client_message_id: client_message_id.clone(),
        keyed_by_client: parsed.keyed_by_client,
        message_type: parsed.message_type,
        content: Some(edge.key_ring.seal(&parsed.content, belonging)),
        reply_to: parsed.reply_to,
        expires_after_s: view.state.expires_after_s,
    };
    edge.appender
        .send(parsed.as_send(sender, conversation), |stamp| {
            edge.record(view, sender, stamp, parsed.digest, Body::Message(message.clone()))
        })
        .await
}

fn as_sent(
    conversation: ConversationKey,
    kind: ConversationType,
    sender: AccountId,
    parsed: Parsed,
    accepted: Accepted,
) -> Message {
    let row = crate::domain::write::MessageRow {
        position: accepted.position,
        kind,
        sender,
        message_type: parsed.message_type,
        timestamp: accepted.stamp,
        log_time: accepted.stamp,
        reply_to: parsed.reply_to,
        client_message_id: Some(parsed.client_message_id),
        // Told back even where the server made it.
        keyed_by_client: true,
        expires_at: accepted.expires_at,
        system: None,
        system_name: None,
    };
    wire::message(conversation, &row, Some(parsed.content.into_string()), sender)
}

/// What was sent before, as it is by now. Where that cannot be read in time it is given as it was sent: nobody who repeats
/// a send is refused because the store is late, or has given up on these rows.
async fn as_it_is(edge: &Edge, first: Message) -> Message {
    let read = tokio::time::timeout(watermarks::WAIT, as_stored(edge, &first)).await;
    if !matches!(read, Ok(Ok(_))) {
        tracing::debug!(id = %first.message_id, "what became of a repeated message cannot be read");
    }
    read.ok().and_then(Result::ok).flatten().unwrap_or(first)
}

/// The message as the store has it, hidden from its sender or not. `None` where it has disappeared, and for a sender who
/// has left since: what came after is told to participants alone (invariant `members_only`).
async fn as_stored(edge: &Edge, first: &Message) -> Outcome<Option<Message>> {
    let (id, sender) = (first.message_id, first.sender_id);
    let conversation = id.key();
    edge.caught_up(conversation).await?;
    let Some(stored) = edge.store.message(conversation, id.position()).await? else { return Ok(None) };
    let reactions = edge.reactions_of(id).await?;
    // Asked after reading, as for history.
    let view = edge.views.load(conversation).await?;
    let member = view.as_ref().and_then(|view| view.state.member(sender));
    if member.is_none_or(|member| member.joined > id.position()) {
        return Ok(None);
    }
    let mut message = wire::stored_message(&edge.key_ring, conversation, &stored, sender);
    wire::with_reactions(&mut message, &reactions);
    // As in the first answer, which has it also where the server made it.
    message.client_message_id.clone_from(&first.client_message_id);
    Ok(Some(message))
}

impl Edge {
    /// In a direct conversation: whether the other one takes messages of `sender`.
    ///
    /// # Errors
    /// Blocked, or the other accepts nobody like this; the same for both.
    pub(in crate::edge) async fn may_reach_peer(&self, view: &View, sender: AccountId) -> Outcome<()> {
        match view.state.peer_of(sender) {
            Some(peer) if !self.may_message(sender, peer).await? => {
                refuse(ErrorCode::RecipientUnavailable, "This account cannot be messaged.")
            }
            _ => Ok(()),
        }
    }
}
