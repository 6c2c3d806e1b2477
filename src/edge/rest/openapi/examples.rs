//! Examples, made of the types themselves, so that they cannot differ from what is sent.

use reedi_protocol::command::{
    AddParticipants, CreateDirect, CreateGroup, EditMessage, Login, React, SendMessage, SetRole, SignUp,
    UpdateConversation,
};
use reedi_protocol::resource::{
    Activity, Conversation, ConversationList, ConversationType, Events, History, LoggedEvent, Message,
    MessageReaction, MessageType, Participant, Profile, Profiles, Receipt, Receipts, Role, Session, Settings,
};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Timestamp};
use serde_json::{Value, json, to_value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// When all of this happens: 2026-01-02T03:04:05.678Z.
pub(super) const NOW_MS: u64 = 1_767_323_045_678;
const CLIENT_MESSAGE_ID: &str = "019b7cc9-b92e-7000-8000-9f1c2d3e4f50";
/// Random bits of a conversation that stands for any.
const KEY: u64 = 0x5eed_0123_4567_89ab;
const ALICE: u128 = 0x0a11_ce00_0000_4000_8000_0000_0000_0001;
const BOB: u128 = 0x0b0b_0000_0000_4000_8000_0000_0000_0002;

/// Adds the example of the schema called `name`, where there is one.
pub(super) fn add(name: &str, schema: &mut RefOr<Schema>) {
    let Some(example) = example(name) else { return };
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => object.examples = vec![example],
        Schema::AllOf(all) => all.examples = vec![example],
        Schema::OneOf(one) => one.examples = vec![example],
        _ => {}
    }
}

fn example(name: &str) -> Option<Value> {
    let bob = || account(BOB).to_string();
    let example = match name {
        "SignUp" => to_value(SignUp {
            username: "alice".into(),
            password: "correct horse".into(),
            display_name: Some("Alice".into()),
        }),
        "Login" => to_value(Login { username: "alice".into(), password: "correct horse".into() }),
        "Session" => to_value(Session {
            user_id: account(ALICE),
            token: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl".into(),
            expires_at: now().plus_millis(168 * 3_600 * 1_000),
        }),
        "Profile" => to_value(profile()),
        "Profiles" => to_value(Profiles { users: vec![profile()], next_cursor: None }),
        "Settings" => to_value(Settings::default()),
        "Block" => Ok(json!({ "userId": bob() })),
        "Blocks" => Ok(json!({ "blocks": [{ "userId": bob() }], "nextCursor": null })),
        "CreateDirect" => to_value(CreateDirect { participant_id: bob() }),
        "CreateGroup" => {
            to_value(CreateGroup { name: "Friday".into(), participant_ids: vec![bob()], avatar_url: None })
        }
        "UpdateConversation" => to_value(UpdateConversation {
            name: Some("Saturday".into()),
            expires_after: Some(Some(86_400)),
            ..UpdateConversation::default()
        }),
        "AddParticipants" => to_value(AddParticipants { participant_ids: vec![bob()] }),
        "SetRole" => to_value(SetRole { role: Role::Admin }),
        "Participant" => to_value(participant(ALICE)),
        "Conversation" => to_value(conversation(None)),
        "ConversationList" => {
            let conversations = vec![conversation(Some(activity()))];
            to_value(ConversationList { conversations, next_cursor: None })
        }
        _ => return message_example(name),
    };
    example.ok()
}

fn message_example(name: &str) -> Option<Value> {
    let example = match name {
        "SendMessage" => to_value(SendMessage {
            content: "Hello, Bob".into(),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: Some(CLIENT_MESSAGE_ID.into()),
        }),
        "EditMessage" => to_value(EditMessage { content: "Hello, Bob!".into() }),
        "Message" => to_value(message()),
        "History" => to_value(History { messages: vec![message()], next_cursor: None }),
        "React" => to_value(React { reaction: "👍".into() }),
        "MessageReaction" => to_value(MessageReaction { user_id: account(BOB), reaction: "👍".into() }),
        "Receipts" => to_value(Receipts {
            receipts: vec![Receipt {
                user_id: account(BOB),
                delivered_at: Some(now().plus_millis(120)),
                read_at: None,
            }],
        }),
        "Events" => to_value(Events {
            events: vec![LoggedEvent {
                position: position(),
                event: "new_message".into(),
                data: to_value(message()).ok()?,
            }],
            complete_to: position(),
            has_more: false,
        }),
        _ => return None,
    };
    example.ok()
}

fn now() -> Timestamp {
    Timestamp::from_millis(NOW_MS)
}

fn account(number: u128) -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(number))
}

fn position() -> Position {
    Position::new(Epoch::FIRST, 42).unwrap_or_default()
}

fn profile() -> Profile {
    Profile { user_id: account(BOB), username: "bob".into(), display_name: "Bob".into() }
}

fn participant(number: u128) -> Participant {
    Participant { user_id: account(number), role: Role::Member, joined_at: now() }
}

fn conversation(activity: Option<Activity>) -> Conversation {
    Conversation {
        conversation_id: ConversationKey::from_u64(KEY).conversation_id(),
        kind: ConversationType::Direct,
        name: None,
        avatar_url: None,
        expires_after: None,
        created_at: now(),
        my_role: Role::Member,
        participants: vec![participant(ALICE), participant(BOB)],
        activity,
    }
}

fn activity() -> Activity {
    Activity {
        last_message: Some(message()),
        unread_count: 0,
        partial: false,
        muted_until: None,
        position: position(),
    }
}

fn message() -> Message {
    let key = ConversationKey::from_u64(KEY);
    Message {
        message_id: key.event_id(position()),
        conversation_id: key.conversation_id(),
        sender_id: account(ALICE),
        content: Some("Hello, Bob".into()),
        message_type: MessageType::Text,
        timestamp: now(),
        position: position(),
        previous_position: None,
        reply_to_id: None,
        client_message_id: Some(CLIENT_MESSAGE_ID.into()),
        edited_at: None,
        deleted_at: None,
        expires_at: None,
        system: None,
        reactions: Vec::new(),
    }
}
