//! One of each command and event, made of the contract's types.

use reedi_protocol::command::{
    Authenticate, DeleteMessage, DeleteScope, EditMessage, InConversation, OfMessage, React, Resume,
    SendMessage, name,
};
use reedi_protocol::event::{Lack, Place, PresenceStatus, ServerEvent};
use reedi_protocol::frame::Refusal;
use reedi_protocol::resource::{Conversation, ConversationType, Message, MessageType, Participant, Role};
use reedi_protocol::{
    AccountId, Checkpoint, ConversationKey, Epoch, ErrorCode, MessageId, Position, Timestamp,
};
use serde::Serialize;
use serde_json::{Value, json};

pub struct Command {
    pub name: &'static str,
    pub says: &'static str,
    pub data: Value,
    pub answer: Value,
}

const KEY: ConversationKey = ConversationKey::from_u64(0x5eed_0123_4567_89ab);
const CLIENT_MESSAGE_ID: &str = "019b7cc9-b92e-7000-8000-9f1c2d3e4f50";

fn account(name: u128) -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(name << 96 | 0x4000_8000_0000_0000_0000))
}

fn alice() -> AccountId {
    account(0x0a11_ce00)
}

fn bob() -> AccountId {
    account(0x0b0b_0000)
}

fn at(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).unwrap()
}

fn time(second: u64) -> Timestamp {
    Timestamp::from_millis(1_767_323_045_000 + second * 1_000)
}

fn id() -> MessageId {
    KEY.event_id(at(42))
}

fn place(sequence: u64) -> Place {
    Place { position: at(sequence), previous_position: Some(at(sequence - 1)) }
}

fn message() -> Message {
    Message {
        message_id: id(),
        conversation_id: KEY.conversation_id(),
        sender_id: alice(),
        content: Some("Hello, Bob".into()),
        message_type: MessageType::Text,
        timestamp: time(0),
        position: at(42),
        previous_position: Some(at(41)),
        reply_to_id: None,
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        expires_at: None,
        system: None,
        reactions: Vec::new(),
    }
}

fn conversation() -> Conversation {
    let participant = |user_id| Participant { user_id, role: Role::Member, joined_at: time(0) };
    Conversation {
        conversation_id: KEY.conversation_id(),
        kind: ConversationType::Direct,
        name: None,
        avatar_url: None,
        expires_after: None,
        created_at: time(0),
        my_role: Role::Member,
        participants: vec![participant(alice()), participant(bob())],
        activity: None,
    }
}

/// The fields of two payloads as one, as they stand in a frame.
fn with(subject: impl Serialize, command: impl Serialize) -> Value {
    let mut subject = serde_json::to_value(subject).unwrap();
    let Value::Object(fields) = serde_json::to_value(command).unwrap() else { return subject };
    subject.as_object_mut().unwrap().extend(fields);
    subject
}

fn of_conversation() -> InConversation {
    InConversation { conversation_id: KEY.conversation_id().to_string() }
}

fn of_message() -> OfMessage {
    OfMessage { message_id: id().to_string() }
}

/// All commands, in the order in which the contract names them.
pub fn commands() -> Vec<Command> {
    let fleeting = fleeting_commands();
    let message = message_commands();
    let resume = Command {
        name: name::RESUME,
        says: "Tells what happened since `checkpoint`, then what happens. Best the first command of a connection. `cursors` \
               names conversations of which the client has more than the checkpoint says. Without `checkpoint` nothing is \
               replayed and the answer tells where the connection begins. Missed events come first, then \
               `resume_complete` (or `resume_pending`: ask again in a moment; live events go on meanwhile), then what \
               happened in between, each once. Runs beside other commands.",
        data: serde_json::to_value(Resume {
            checkpoint: Some(Checkpoint::default().to_string()),
            cursors: [(KEY.conversation_id().to_string(), at(42).as_u64())].into(),
        })
        .unwrap(),
        answer: json!({}),
    };
    fleeting.into_iter().chain(message).chain([resume]).collect()
}

fn fleeting_commands() -> Vec<Command> {
    let command =
        |name, says, answer| Command { name, says, data: with(of_conversation(), json!({})), answer };
    let authenticate = Command {
        name: name::AUTHENTICATE,
        says: "As the first frame: who I am, where the request that opened the WebSocket had no token. Later: a new token of the \
               same account and device, before the old one runs out.",
        data: serde_json::to_value(Authenticate { token: "eyJhbGciOiJIUzI1NiJ9…".into() }).unwrap(),
        answer: json!({ "userId": alice(), "expiresAt": time(3_600) }),
    };
    let join = command(
        name::JOIN_CONVERSATION,
        "Opens a conversation: from here on this connection is told of typing and presence in it. Answers with the others' \
         presence; empty in groups beyond the limit, and without those who show it to nobody or take no messages from me. Messages come for \
         every conversation of mine, joined or not.",
        json!({ "participants": [{ "userId": bob(), "status": PresenceStatus::Online, "lastSeen": null }] }),
    );
    let leave = command(
        name::LEAVE_CONVERSATION,
        "Closes it again. I stay a participant: leaving a group is REST.",
        json!({}),
    );
    vec![authenticate, join, leave, send(), typing(true), typing(false)]
}

fn send() -> Command {
    let command = SendMessage {
        content: "Hello, Bob".into(),
        message_type: MessageType::Text,
        reply_to_id: None,
        client_message_id: Some(CLIENT_MESSAGE_ID.into()),
    };
    Command {
        name: name::SEND_MESSAGE,
        says: "As in REST. Answered once the log has it; `duplicate: true` is added where it had been sent before with the same \
               `clientMessageId`. `replyToId` is optional. The message also comes as `new_message`, to this connection too: \
               that is how it learns its place among others.",
        data: with(of_conversation(), command),
        answer: json!({
            "messageId": id(), "conversationId": KEY.conversation_id(), "timestamp": time(0), "position": at(42),
            "clientMessageId": CLIENT_MESSAGE_ID,
        }),
    }
}

fn typing(begins: bool) -> Command {
    let (name, says) = if begins {
        (
            name::TYPING_START,
            "Tells those who joined the conversation that I am typing. Nothing ends it by itself: stop, or let clients forget it.",
        )
    } else {
        (name::TYPING_STOP, "Tells them that I am not any more.")
    };
    Command { name, says, data: with(of_conversation(), json!({})), answer: json!({}) }
}

fn message_commands() -> Vec<Command> {
    let command =
        |name, says, data: Value, answer| Command { name, says, data: with(of_message(), data), answer };
    let edited = Message {
        content: Some("Hello, Bob!".into()),
        edited_at: Some(time(9)),
        previous_position: None,
        ..message()
    };
    let react = || serde_json::to_value(React { reaction: "👍".into() }).unwrap();
    vec![
        command(
            name::MARK_READ,
            "I have read this message and all before it. Answered once it is durable: marks of one conversation within two \
             seconds go together, so that may take as long. Runs beside other commands.",
            json!({}),
            json!({}),
        ),
        command(
            name::MARK_DELIVERED,
            "This device has this message and all before it. Answered as `mark_read` is.",
            json!({}),
            json!({}),
        ),
        command(
            name::EDIT_MESSAGE,
            "As in REST; the answer has the message's fields.",
            serde_json::to_value(EditMessage { content: "Hello, Bob!".into() }).unwrap(),
            serde_json::to_value(edited).unwrap(),
        ),
        command(
            name::DELETE_MESSAGE,
            "As in REST; `scope` is `everyone` unless it is `me`.",
            serde_json::to_value(DeleteMessage { scope: DeleteScope::Everyone }).unwrap(),
            json!({}),
        ),
        command(
            name::ADD_REACTION,
            "As in REST. A reaction that stands already is answered in the same way.",
            react(),
            json!({ "userId": alice(), "reaction": "👍" }),
        ),
        command(
            name::REMOVE_REACTION,
            "As in REST; `not_found` where it does not stand.",
            react(),
            json!({}),
        ),
    ]
}

/// All events, and what each says.
pub fn events() -> Vec<(ServerEvent, &'static str)> {
    let events =
        [durable_events(), reaction_events(), receipt_events(), control_events(), other_events()].concat();
    let mut seen = [false; EVENTS];
    events.iter().for_each(|(event, _)| seen[number(event)] = true);
    assert!(seen.iter().all(|seen| *seen), "an event is not described");
    events
}

const EVENTS: usize = 19;

/// Numbers the events, so that a new one that is not described does not compile, or fails.
fn number(event: &ServerEvent) -> usize {
    match event {
        ServerEvent::NewMessage(_) => 0,
        ServerEvent::MessageEdited { .. } => 1,
        ServerEvent::MessageDeleted { .. } => 2,
        ServerEvent::ReactionAdded { .. } => 3,
        ServerEvent::ReactionRemoved { .. } => 4,
        ServerEvent::MessageDelivered { .. } => 5,
        ServerEvent::MessageRead { .. } => 6,
        ServerEvent::ConversationCreated { .. } => 7,
        ServerEvent::ConversationUpdated { .. } => 8,
        ServerEvent::ParticipantAdded { .. } => 9,
        ServerEvent::ParticipantRemoved { .. } => 10,
        ServerEvent::UserTyping { .. } => 11,
        ServerEvent::UserStatusChange { .. } => 12,
        ServerEvent::ResumeComplete { .. } => 13,
        ServerEvent::ResumePending { .. } => 14,
        ServerEvent::ConversationReset { .. } => 15,
        ServerEvent::Checkpoint { .. } => 16,
        ServerEvent::Degraded { .. } => 17,
        ServerEvent::Error { .. } => 18,
    }
}

fn durable_events() -> Vec<(ServerEvent, &'static str)> {
    let (message_id, conversation_id) = (id(), KEY.conversation_id());
    vec![
        (
            ServerEvent::NewMessage(Box::new(message())),
            "To every connection of every participant, the sender's own too (which alone are told the `clientMessageId`). \
             Messages of type `system` have a null `content` and say in `system` what happened.",
        ),
        (
            ServerEvent::MessageEdited {
                message_id,
                conversation_id,
                content: Some("Hello, Bob!".into()),
                edited_at: time(9),
                place: place(43),
            },
            "The content as it now is. Replayed, the newest content stands in every edit.",
        ),
        (
            ServerEvent::MessageDeleted {
                message_id,
                conversation_id,
                scope: DeleteScope::Everyone,
                deleted_by: alice(),
                deleted_at: time(10),
                place: place(44),
            },
            "To everyone, with `scope` `everyone`: the message stays as a tombstone. Deleted only for myself, to my own connections \
             alone, with `scope` `me`: the message leaves my history.",
        ),
    ]
}

fn reaction_events() -> Vec<(ServerEvent, &'static str)> {
    let (message_id, conversation_id, user_id) = (id(), KEY.conversation_id(), bob());
    let reaction = || "👍".to_owned();
    vec![
        (
            ServerEvent::ReactionAdded {
                message_id,
                conversation_id,
                user_id,
                reaction: reaction(),
                place: place(45),
            },
            "Somebody reacted.",
        ),
        (
            ServerEvent::ReactionRemoved {
                message_id,
                conversation_id,
                user_id,
                reaction: reaction(),
                place: place(46),
            },
            "And took it away.",
        ),
    ]
}

fn receipt_events() -> Vec<(ServerEvent, &'static str)> {
    let (message_id, conversation_id, user_id) = (id(), KEY.conversation_id(), bob());
    vec![
        (
            ServerEvent::MessageDelivered {
                message_id,
                conversation_id,
                user_id,
                delivered_at: time(1),
                place: Place { position: at(47), previous_position: None },
            },
            "To the senders of the messages that it newly covers: this one and all before it. Not in conversations of more than 32 \
             participants; there `GET …/receipts` tells.",
        ),
        (
            ServerEvent::MessageRead {
                message_id,
                conversation_id,
                user_id,
                read_at: time(2),
                place: Place { position: at(48), previous_position: None },
            },
            "Likewise, and to the reader's own connections. What is read has been delivered: one event stands for both.",
        ),
    ]
}

fn control_events() -> Vec<(ServerEvent, &'static str)> {
    let (conversation_id, user_id, by, position) = (KEY.conversation_id(), bob(), alice(), at(49));
    vec![
        (
            ServerEvent::ConversationCreated {
                conversation: Box::new(conversation()),
                place: Place { position: at(41), previous_position: None },
            },
            "To everybody in a new conversation, and to who is added to one: before anything else of it.",
        ),
        (
            ServerEvent::ConversationUpdated {
                conversation_id,
                by,
                name: Some("Saturday".into()),
                avatar_url: None,
                expires_after: None,
                position,
            },
            "The settings as they now stand. This and the next two go before the `system` message of the same position and say the \
             same for programs.",
        ),
        (
            ServerEvent::ParticipantAdded { conversation_id, user_id, role: Role::Member, by, position },
            "Somebody was added, or has another role: as they now stand.",
        ),
        (
            ServerEvent::ParticipantRemoved { conversation_id, user_id, by, position },
            "Somebody was removed or left (then `by` is themselves). The last that they are told of it.",
        ),
    ]
}

fn other_events() -> Vec<(ServerEvent, &'static str)> {
    let conversation_id = KEY.conversation_id();
    let checkpoint = Checkpoint::default();
    vec![
        (
            ServerEvent::UserTyping { conversation_id, user_id: bob(), typing: true },
            "To those who joined the conversation; never stored. The typist's own connections are not told.",
        ),
        (
            ServerEvent::UserStatusChange {
                user_id: bob(),
                status: PresenceStatus::Offline,
                last_seen: Some(time(60)),
            },
            "To those who joined a conversation with that account; never stored.",
        ),
        (
            ServerEvent::ResumeComplete { checkpoint: checkpoint.clone() },
            "Everything up to this checkpoint has been told. Keep it: it is what the next `resume` begins from.",
        ),
        (
            ServerEvent::ResumePending {
                reason: "Stored data has not caught up with what was sent. Try again.".into(),
                retry_after: 1,
            },
            "Nothing was replayed and nothing is claimed. Send the same `resume` again after `retryAfter` seconds, until \
             `resume_complete` comes: the server does not do it by itself. Live events go on meanwhile.",
        ),
        (
            ServerEvent::ConversationReset { conversation_id },
            "Too much was missed in this conversation, or too long ago: forget what you have of it and load the newest page.",
        ),
        (
            ServerEvent::Checkpoint { checkpoint },
            "Now and then, after events: everything up to here has been put on this connection before.",
        ),
        (
            ServerEvent::Degraded { degraded: true, lacks: vec![Lack::History] },
            "What does not work at this server for now; `false` and an empty list once all does again. `sends`: the log is \
             away, sends and changes are refused and nothing new is told. `history`: the store is away, messages come and \
             go, history, lists and resumes do not. Told when that changes, at most every two seconds, and to whoever \
             connects meanwhile; it ends with the connection.",
        ),
        (
            Refusal {
                code: ErrorCode::RateLimited,
                message: "Slow down and try again later.".into(),
                retry_after: Some(2),
                server_time: None,
                pointer: None,
            }
            .into_event(Some(name::SEND_MESSAGE)),
            "A frame that could not be read, or a command without `ack` that was refused, which it names. It says what the \
             `error` of an answer would.",
        ),
    ]
}
