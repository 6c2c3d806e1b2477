//! What was ever written is still read, and what is written is known.

use super::{Hand, dump};
use crate::domain::conversation::{ConversationState, Member};
use crate::domain::record::{Body, Change, Record, RequestDigest};
use crate::domain::write::{MessageRow, Write};
use crate::store::conformance::fresh::{position, reaction, sealed, send_id};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::engine::Changes;
use crate::store::embedded::keys::Key;
use crate::store::{
    Accounts, Conversations, EpochRow, Epochs, Inboxes, Messages, Order, OwnAccount, Preferences, Range,
    Watermarks, Writes,
};
use reedi_protocol::resource::{
    ConversationType, MessageType, MessagesFrom, PresenceVisibility, Role, Settings,
};
use reedi_protocol::text::{AvatarUrl, Name, Username};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Shard, Timestamp};

/// What is written.
const WRITTEN: &str = include_str!("../fixtures/written.txt");
/// What was written before ADR 0030.
const BEFORE_0030: &str = include_str!("../fixtures/before-0030.txt");
const NOW_MS: u64 = 1_700_000_000_000;
const CONVERSATION: ConversationKey = ConversationKey::from_u64(0x1234_5678_9abc_def0);
const ALL: Range = Range { after: Position::START, before: Range::END };

fn account(n: u128) -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(n))
}

fn now() -> Timestamp {
    Timestamp::from_millis(NOW_MS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn messages() -> Vec<Write> {
    let row = MessageRow {
        position: position(1),
        kind: ConversationType::Group,
        sender: account(1),
        message_type: MessageType::Image,
        timestamp: now(),
        log_time: now().plus_millis(3),
        reply_to: Some(position(77)),
        client_message_id: Some(send_id("key")),
        keyed_by_client: true,
        expires_at: Some(now().plus_millis(1_000)),
        system: None,
        system_name: None,
    };
    let system = MessageRow {
        position: position(2),
        message_type: MessageType::System,
        client_message_id: None,
        keyed_by_client: false,
        expires_at: None,
        system: Some(Change::RoleSet { account: account(2), role: Role::Admin }),
        system_name: Some("name".to_owned()),
        ..row.clone()
    };
    let text = MessageRow { position: position(3), expires_at: None, ..row.clone() };
    let gone = MessageRow { position: position(4), expires_at: None, ..row.clone() };
    let conversation = CONVERSATION;
    let message = |row, content: &[u8]| Write::Message { conversation, row, content: Some(sealed(content)) };
    vec![
        message(row, b"image\0"),
        Write::Message { conversation, row: system, content: None },
        message(text, b"first"),
        message(gone, b"gone"),
        Write::EditContent {
            conversation,
            target: position(3),
            at: position(5),
            content: sealed(b"edited"),
            edited_at: now(),
            expires_at: None,
        },
        Write::DeleteContent { conversation, target: position(4), deleted_at: now(), deleted_by: account(1) },
    ]
}

fn others() -> Vec<Write> {
    let (conversation, account_1, at) = (CONVERSATION, account(1), now());
    let kind = ConversationType::Group;
    let react = |text: &str, present| Write::Reaction {
        conversation,
        target: position(1),
        account: account_1,
        reaction: reaction(text),
        at: position(6),
        present,
        expires_at: None,
    };
    let record = Record {
        conversation,
        kind,
        actor: account_1,
        stamp: at,
        digest: RequestDigest([9; 16]),
        audience: None,
        body: Body::Delete { target: position(4) },
    };
    let state = ConversationState {
        kind,
        name: Some(Name::parse("name").unwrap()),
        avatar_url: Some(AvatarUrl::parse("https://a.example/b.png").unwrap()),
        expires_after_s: Some(3_600),
        created_at: at,
        members: vec![Member { account: account_1, role: Role::Admin, joined: position(1), joined_at: at }],
    };
    let client_message_id = send_id("key");
    let (up_to, head, head_time) = (position(3), position(7), at);
    vec![
        react("👍", true),
        react("🎉", false),
        Write::Event { conversation, kind, position: position(7), log_time: at, record },
        Write::Delivered { conversation, account: account_1, up_to, at, private: false },
        Write::Read { conversation, account: account_1, up_to: position(2), at, private: true },
        Write::Sent {
            conversation,
            sender: account_1,
            client_message_id,
            position: position(1),
            digest: RequestDigest([8; 16]),
        },
        Write::State { conversation, at: position(2), state },
        Write::InboxJoined { account: account_1, conversation, kind, at: position(1) },
        Write::InboxLeft { account: account_1, conversation, at: position(9) },
        Write::InboxHead { account: account_1, conversation, head, head_time },
        Write::InboxRead { account: account_1, conversation, up_to },
        Write::Head { conversation, head, head_time },
        Write::Hidden { conversation, account: account_1, target: position(2), at: position(8) },
    ]
}

/// A store with one of everything.
async fn written() -> EmbeddedStore {
    let store = EmbeddedStore::in_memory(Hand::at(NOW_MS).clock());
    store.apply(&messages()).await.unwrap();
    store.apply(&others()).await.unwrap();
    let (a, b) = (account(1), account(2));
    store.mute(a, CONVERSATION, Some(now().plus_millis(9))).await.unwrap();
    store.claim_direct(b, a, CONVERSATION).await.unwrap();
    store.claim_group(CONVERSATION).await.unwrap();
    store.advance(&[(Shard(0x12), position(7))]).await.unwrap();
    let incarnations = vec!["first".to_owned(), "second".to_owned()];
    store.claim_epoch(&EpochRow { epoch: Epoch::FIRST, incarnations, sealed: true }).await.unwrap();
    let settings = Settings {
        messages_from: MessagesFrom::Followers,
        read_receipts: false,
        presence: PresenceVisibility::Nobody,
    };
    store.put_settings(a, settings).await.unwrap();
    store.set_block(a, b, true).await.unwrap();
    let own = OwnAccount {
        account: a,
        username: Username::parse("ada").unwrap(),
        display_name: Name::parse("Ada").unwrap(),
        password_hash: "$argon2id$".to_owned(),
        created_at: now(),
    };
    store.create_account(&own).await.unwrap();
    store
}

/// What every read answers, as text.
async fn shown(store: &EmbeddedStore) -> Vec<String> {
    let (a, b, conversation) = (account(1), account(2), CONVERSATION);
    let own = store.search_accounts("a", 9).await.unwrap();
    let own = own.first().map(|o| (o.account, &o.username, &o.display_name, &o.password_hash, o.created_at));
    vec![
        format!("{:?}", store.messages(conversation, ALL, Order::OldestFirst, 9).await.unwrap()),
        format!("{:?}", store.events(conversation, ALL, 9).await.unwrap()),
        format!("{:?}", store.reactions(conversation, ALL).await.unwrap()),
        format!("{:?}", store.hidden(conversation, a, ALL).await.unwrap()),
        format!("{:?}", store.sent(conversation, a, &send_id("key")).await.unwrap().unwrap()),
        format!("{:?}", store.receipts(conversation).await.unwrap()),
        format!("{:?}", store.state(conversation).await.unwrap().unwrap()),
        format!("{:?}", store.heads(&[conversation]).await.unwrap()),
        format!("{:?}", store.inbox(a, None, 9).await.unwrap()),
        format!("{:?}", store.watermarks().await.unwrap()),
        format!("{:?}", store.epochs().await.unwrap()),
        format!("{:?}", store.settings(a).await.unwrap()),
        format!("{:?}", store.blocks(a, 9).await.unwrap()),
        format!("{:?}", store.claim_direct(a, b, ConversationKey::from_u64(1)).await.unwrap()),
        format!("{:?}", store.claim_group(conversation).await.unwrap()),
        format!("{:?}", own.unwrap()),
    ]
}

#[tokio::test]
async fn what_was_ever_written_is_still_read() {
    for fixture in [WRITTEN, BEFORE_0030] {
        let lines = fixture.lines().map(|line| line.split_once('=').unwrap());
        let changes: Changes = lines.map(|(k, v)| (Key::found(&unhex(k)), Some(unhex(v)))).collect();
        let store = EmbeddedStore::in_memory(Hand::at(NOW_MS).clock());
        store.inner.engine.commit(changes).unwrap();
        assert_eq!(shown(&store).await, shown(&written().await).await);
    }
}

/// Whoever changes what is written keeps the fixture beside a new one, and reads both; for another encoding of values
/// `value::VERSION` is raised.
#[tokio::test]
async fn what_is_written_is_known() {
    let all = dump(&written().await);
    let lines: Vec<String> = all.iter().map(|(k, v)| format!("{}={}", hex(k), hex(v))).collect();
    assert_eq!(lines.join("\n"), WRITTEN.trim_end(), "\n{}", lines.join("\n"));
}
