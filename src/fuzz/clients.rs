//! What clients write: frames, bodies, ids, checkpoints, tokens; and what an operator does.

use super::{Edit, JSON, edited};
use crate::edge::authenticate::Verifier;
use crate::edge::command::socket::from_json;
use crate::edge::refused::Outcome;
use crate::runtime::clock::LogClock;
use crate::runtime::config::{Inputs, SETTINGS};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use reedi_protocol::command::{
    AddParticipants, Authenticate, CreateDirect, CreateGroup, DeleteMessage, EditMessage, InConversation,
    Login, OfMessage, React, Resume, SendMessage, SetRole, SignUp, UpdateConversation,
};
use reedi_protocol::frame::{CommandFrame, ServerFrame, depth_is_bounded, encode_answer, encode_event};
use reedi_protocol::resource::Settings;
use reedi_protocol::text::{AvatarUrl, ClientMessageId, Content, Name, Reaction, Username};
use reedi_protocol::{AccountId, Checkpoint, ConversationId, EventId, limits};
use std::fmt::{Debug, Display};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::str::FromStr;

const COMMANDS: &[&str] = &[
    r#"{"event":"send_message","data":{"conversationId":"0192f0c1-2345-8abc-8def-0123456789ab","content":"hello","messageType":"text"},"ack":1}"#,
    r#"{"event":"resume","data":{"checkpoint":"AQD_AAAAAAAAAAAA","cursors":{"0192f0c1-2345-8abc-8def-0123456789ab":17592186044417}}}"#,
    r#"{"event":"authenticate","data":{"token":"a.b.c"}}"#,
    r#"{"event":"typing_start"}"#,
];

const BODIES: &[&str] = &[
    r#"{"participantId":"0192f0c1-2345-7abc-8def-0123456789ab"}"#,
    r#"{"name":"us","participantIds":["0192f0c1-2345-7abc-8def-0123456789ab"],"avatarUrl":"https://a.example/b"}"#,
    r#"{"name":"us","avatarUrl":null,"expiresAfter":3600,"mutedUntil":"2026-01-01T00:00:00.000Z"}"#,
    r#"{"content":"hello \u00e9","messageType":"text","replyToId":"0192f0c1-2345-8abc-9c00-100000000003","clientMessageId":"key"}"#,
    r#"{"reaction":"👍","scope":"me","role":"admin","messageId":"x","conversationId":"x"}"#,
    r#"{"username":"somebody","password":"correct horse","displayName":"Somebody"}"#,
    r#"{"messagesFrom":"everyone","readReceipts":true,"presence":"nobody"}"#,
    r#"{"checkpoint":"AQD_AAAAAAAAAAAA","cursors":{"0192f0c1-2345-8abc-8def-0123456789ab":1},"token":"a.b.c"}"#,
];

const EVENTS: &[&str] = &[
    r#"{"event":"new_message","data":{"messageId":"0192f0c1-2345-8abc-9c00-100000000003","conversationId":"0192f0c1-2345-8abc-9c00-000000000000","senderId":"0192f0c1-2345-7abc-8def-0123456789ab","content":"a","messageType":"text","timestamp":"2026-01-01T00:00:00.000Z","position":17592186044419,"reactions":[]}}"#,
    r#"{"event":"user_typing","data":{"conversationId":"0192f0c1-2345-8abc-9c00-000000000000","userId":"0192f0c1-2345-7abc-8def-0123456789ab","typing":true}}"#,
    r#"{"event":"checkpoint","data":{"checkpoint":"AQD_AAAAAAAAAAAA"}}"#,
    r#"{"ack":1,"data":{"ok":false,"error":{"code":"rate_limited","message":"Slow down","retryAfter":1}}}"#,
    r#"{"ack":1,"data":{"ok":true,"messageId":"x"}}"#,
];

fn one_of<'a>(all: &[&'a str], which: u8) -> &'a str {
    all[usize::from(which) % all.len()]
}

#[test]
fn frames_of_clients() {
    bolero::check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let text = edited(one_of(COMMANDS, *which).as_bytes(), edits, JSON);
        let text = String::from_utf8_lossy(&text);
        if let Ok(frame) = CommandFrame::decode(&text) {
            assert!(depth_is_bounded(text.as_bytes()), "nested without end");
            if let Some(data) = frame.data {
                assert!(text.contains(data.get()), "not the client's own words");
                every_body(data.get().as_bytes());
            }
        }
    });
}

#[test]
fn frames_of_servers() {
    bolero::check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let text = edited(one_of(EVENTS, *which).as_bytes(), edits, JSON);
        match ServerFrame::decode(&String::from_utf8_lossy(&text)) {
            Ok(ServerFrame::Event(event)) => {
                let again = ServerFrame::decode(&encode_event(&event)).expect("what was written is read");
                assert_eq!(again, ServerFrame::Event(event));
            }
            Ok(ServerFrame::Answer { ack, answer }) => {
                let again =
                    ServerFrame::decode(&encode_answer(ack, &answer)).expect("what was written is read");
                assert_eq!(again, ServerFrame::Answer { ack, answer });
            }
            Err(_) => {}
        }
    });
}

#[test]
fn bodies() {
    bolero::check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        every_body(&edited(one_of(BODIES, *which).as_bytes(), edits, JSON));
    });
}

/// Reads `json` as everything that a client may send.
fn every_body(json: &[u8]) {
    fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Option<T> {
        judged(from_json(json))
    }
    if !depth_is_bounded(json) {
        return;
    }
    read::<CreateDirect>(json).map(|c| AccountId::from_str(&c.participant_id).is_ok());
    read::<CreateGroup>(json).map(|c| Name::parse(&c.name).is_ok());
    read::<AddParticipants>(json);
    read::<UpdateConversation>(json).and_then(|c| c.avatar_url?.map(|url| AvatarUrl::parse(&url).is_ok()));
    read::<SetRole>(json);
    read::<DeleteMessage>(json);
    read::<EditMessage>(json);
    read::<InConversation>(json).map(|c| ConversationId::from_str(&c.conversation_id).is_ok());
    read::<OfMessage>(json).map(|c| EventId::from_str(&c.message_id).is_ok());
    read::<Resume>(json).and_then(|c| c.checkpoint.map(|text| text.parse::<Checkpoint>().is_ok()));
    read::<Login>(json);
    read::<Settings>(json);
    read::<Authenticate>(json).map(|c| c.token.len());
    if let Some(command) = read::<SignUp>(json)
        && let Ok(name) = Username::parse(&command.username)
    {
        assert!(Name::parse(Name::from(&name).as_str()).is_ok(), "every user name is a name");
    }
    if let Some(reaction) = read::<React>(json)
        && let Ok(reaction) = Reaction::parse(&reaction.reaction)
    {
        assert!(reaction.as_str().len() <= limits::REACTION_BYTES);
    }
    if let Some(command) = read::<SendMessage>(json) {
        let written = command.content.clone();
        if let Ok(content) = Content::parse(command.content) {
            assert!(content.as_str() == written, "content changed");
        }
        command.client_message_id.map(|id| ClientMessageId::parse(&id).map(|id| id.minted_at_ms()));
    }
}

/// A refusal must be tellable: a document with a detail, and pointers as RFC 6901 writes them.
fn judged<T>(read: Outcome<T>) -> Option<T> {
    let refused = match read {
        Ok(value) => return Some(value),
        Err(refused) => refused,
    };
    let problem = refused.problem();
    // What has its type and cannot be accepted is pointed at.
    let is_pointed_at = problem.status == 422 && !problem.errors.is_empty();
    assert!((problem.status == 400 || is_pointed_at) && !problem.detail.is_empty(), "{problem:?}");
    assert!(problem.errors.iter().all(|error| error.pointer.starts_with('/')), "{problem:?}");
    assert!(serde_json::to_vec(&problem).is_ok() && serde_json::to_vec(&refused.refusal()).is_ok());
    None
}

fn comes_back<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
    }
}

#[test]
fn ids() {
    const ID: &[u8] = b"0192f0c1-2345-8abc-9c00-100000000003";
    const WORDS: &[&[u8]] = &[b"-", b"{", b"}", b"urn:uuid:", b"0", b"f", b"8", b"\xc3\xa9", b"\0"];
    bolero::check!().with_type::<(u128, Vec<Edit>)>().for_each(|(number, edits)| {
        let text = edited(ID, edits, WORDS);
        let texts = [String::from_utf8_lossy(&text).into_owned(), uuid::Uuid::from_u128(*number).to_string()];
        for text in &texts {
            comes_back::<AccountId>(text);
            comes_back::<ConversationId>(text);
            comes_back::<EventId>(text);
            if let Ok(id) = text.parse::<EventId>() {
                assert_eq!(id.conversation_id().shard(), id.key().shard());
                assert!(!id.position().is_start());
            }
        }
    });
}

#[test]
fn checkpoints() {
    bolero::check!().with_type::<(Vec<(u8, u64)>, Vec<Edit>)>().for_each(|(runs, edits)| {
        let mut bytes = vec![1];
        for (more, position) in runs {
            bytes.push(*more);
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        comes_back::<Checkpoint>(&URL_SAFE_NO_PAD.encode(edited(&bytes, edits, &[])));
        let whole = edited(Checkpoint::default().to_string().as_bytes(), edits, &[b"=", b"_", b"-", b"+"]);
        comes_back::<Checkpoint>(&String::from_utf8_lossy(&whole));
    });
}

#[test]
fn tokens() {
    const SECRET: &str = "a secret of more than thirty-two bytes";
    let flags = vec![("auth_hs256_secret".to_owned(), SECRET.to_owned())];
    let config = Inputs { flags, ..Inputs::default() }.resolve().unwrap().config;
    // It locks nothing across a look at a token.
    let verifier = &AssertUnwindSafe(Verifier::new(&config.auth, LogClock::from_system()).unwrap());
    let signer = crate::edge::authenticate::Signer::new(&config.auth, LogClock::from_system()).unwrap();
    let (token, _) = signer.sign(AccountId::new(uuid::Uuid::from_u128(7)), None).unwrap();
    const WORDS: &[&[u8]] = &[b".", b"=", b"eyJhbGciOiJub25lIn0", b"e30", b"-", b"_", b"\0"];
    bolero::check!().with_type::<Vec<Edit>>().for_each(|edits| {
        let changed = edited(token.as_bytes(), edits, WORDS);
        let changed = String::from_utf8_lossy(&changed);
        let verified = verifier.verify(&changed).now_or_never().expect("no key is fetched");
        assert!(verified.is_err() || changed == token, "another token is accepted: {changed}");
    });
}

#[test]
fn configuration_files() {
    const FILE: &str = "listen = \"127.0.0.1:8080\"\nlog_level = \"info\"\n[nats]\nurl = [\"nats://a:4222\"]\nreplicas = 3\n[auth]\nhs256_secret = \"a secret of more than thirty-two bytes\"\n";
    const WORDS: &[&[u8]] =
        &[b"=", b"[", b"]", b"\"", b"\n", b"#", b"'''", b".", b"1e9", b"true", b"1979-05-27", b"redis_url"];
    bolero::check!().with_type::<Vec<Edit>>().for_each(|edits| {
        let text = edited(FILE.as_bytes(), edits, WORDS);
        let file = Some((PathBuf::from("reedi.toml"), String::from_utf8_lossy(&text).into_owned()));
        if let Err(errors) = (Inputs { file, ..Inputs::default() }).resolve() {
            let told = errors.to_string();
            assert!(!told.is_empty());
            for line in told.lines().filter(|line| line.contains("a secret of more")) {
                // It was given to a setting that is no secret: what one is set to may be told.
                let plain = SETTINGS.iter().filter(|setting| !setting.secret).map(|s| s.name);
                let mut given = plain.map(|name| format!("configuration: {name} (file reedi.toml) wants "));
                assert!(given.any(|words| line.starts_with(&words)), "{told}");
            }
        }
    });
}
