//! What the log and the link hold: records, sealed content, coverage.

use super::{Edit, edited};
use crate::domain::conversation::{ConversationState, Member};
use crate::domain::record::{
    Audience, Body, Change, Entry, NewMessage, ReceiptMark, Record, RequestDigest, Sealed,
};
use crate::domain::write::writes_of;
use crate::edge::append::seal::{Belonging, KeyRing};
use crate::edge::coverage::CoverageBook;
use crate::edge::wire;
use crate::edge_link::{Coverage, EdgeId, Generation, LinkEvent, WorkerId};
use crate::runtime::config::{SealKeys, Value as _};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reedi_protocol::resource::{ConversationType, MessageType, Role};
use reedi_protocol::text::{ClientMessageId, Content, Name, Reaction};
use reedi_protocol::{AccountId, ConversationKey, Epoch, Position, Shard, Timestamp};

const KEY: ConversationKey = ConversationKey::from_u64(0x1234_5678_9abc_def0);

fn at(sequence: u64) -> Position {
    Position::new(Epoch::FIRST, sequence).unwrap()
}

fn account(number: u128) -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(number))
}

fn ring() -> KeyRing {
    let keys = format!("one:{}", STANDARD.encode([7; 32]));
    KeyRing::new(&SealKeys::parse(&keys).unwrap())
}

fn bodies() -> Vec<Body> {
    let member =
        |n, role| Member { account: account(n), role, joined: at(1), joined_at: Timestamp::from_millis(1) };
    let after = ConversationState {
        kind: ConversationType::Group,
        name: Some(Name::parse("us").unwrap()),
        avatar_url: None,
        expires_after_s: Some(3_600),
        created_at: Timestamp::from_millis(1),
        members: vec![member(1, Role::Admin), member(2, Role::Member)],
    };
    let reaction = Reaction::parse("👍").unwrap();
    vec![
        Body::Message(NewMessage {
            client_message_id: ClientMessageId::parse("key").unwrap(),
            keyed_by_client: true,
            message_type: MessageType::Text,
            content: Some(Sealed(Bytes::from_static(b"sealed"))),
            reply_to: Some(at(2)),
            expires_after_s: Some(3_600),
        }),
        Body::Edit { target: at(3), content: Some(Sealed(Bytes::from_static(b"sealed"))), expires_at: None },
        Body::Delete { target: at(3) },
        Body::Hide { target: at(3) },
        Body::React { target: at(3), reaction: reaction.clone(), expires_at: None },
        Body::Unreact { target: at(3), reaction },
        Body::Receipt(ReceiptMark { delivered: Some(at(3)), read: None, tell: vec![account(1)] }),
        Body::Control { change: Change::Left { promoted: Some(account(2)) }, after },
        Body::Tick,
    ]
}

fn records() -> Vec<Bytes> {
    let record = |body| Record {
        conversation: KEY,
        kind: ConversationType::Group,
        actor: account(1),
        stamp: Timestamp::from_millis(1_700_000_000_000),
        digest: RequestDigest([9; 16]),
        audience: Some(Audience {
            control: at(1),
            known_through: at(2),
            accounts: vec![account(1), account(2)],
        }),
        body,
    };
    bodies().into_iter().map(|body| record(body).encode()).collect()
}

#[test]
fn records_of_the_log() {
    let (records, ring) = (records(), ring());
    type Input = (u8, Vec<Edit>, u64, u64);
    bolero::check!().with_type::<Input>().for_each(|(which, edits, place, time)| {
        let bytes = edited(&records[usize::from(*which) % records.len()], edits, &[&[0xff; 9], &[0; 8]]);
        let Ok(record) = Record::decode(&bytes) else { return };
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record), "what was written is read");
        let position = Position::from_u64(*place).unwrap_or(at(9));
        let Ok(entry) = Entry::decode(position, Timestamp::from_millis(*time), &bytes) else { return };
        // Whatever it says, whoever reads it goes on.
        let _ = writes_of(&entry);
        for (_, event) in wire::events_of(&ring, &entry, None) {
            assert!(!wire::encode(&event).text.is_empty());
        }
    });
}

#[test]
fn sealed_content() {
    let ring = ring();
    let id = ClientMessageId::parse("key").unwrap();
    let here = Belonging::Sent { conversation: KEY, sender: account(1), client_message_id: &id };
    let elsewhere = Belonging::Edit(KEY.event_id(at(3)));
    let sealed = ring.seal(&Content::parse("what nobody else may read".into()).unwrap(), here);
    bolero::check!().with_type::<Vec<Edit>>().for_each(|edits| {
        let changed = Sealed(Bytes::from(edited(&sealed.0, edits, &[b"one", &[1, 3]])));
        assert_eq!(ring.open(&changed, here).is_ok(), changed == sealed);
        assert!(ring.open(&changed, elsewhere).is_err());
    });
}

#[test]
fn batches_of_the_link() {
    // Shard, generation, after, through, and the sequence of an event.
    type Range = (u8, u8, u8, u8, u8);
    bolero::check!().with_type::<Vec<Vec<Range>>>().for_each(|batches| {
        let mut book = CoverageBook::new(EdgeId(1));
        let mut told: [u64; 4] = [0; 4];
        let position = |n: u8| if n == 0 { Position::START } else { at(n.into()) };
        for batch in batches {
            let coverage = batch.iter().map(|(shard, generation, after, through, _)| Coverage {
                shard: Shard(shard % 4),
                generation: Generation(u64::from(generation % 3)),
                after: position(*after),
                through: position(*through),
            });
            let mut events: Vec<LinkEvent> = batch.iter().map(|range| event(range.0 % 4, range.4)).collect();
            events.sort_by_key(|event| event.position);
            let before = book.through();
            let coverage: Vec<Coverage> = coverage.collect();
            for event in book.take(WorkerId(1), 1, &coverage, events).events {
                let shard = event.conversation.shard();
                assert!(event.position.sequence() >= told[shard.index()], "told out of order");
                told[shard.index()] = event.position.sequence();
                assert!(event.position > before.get(shard), "told twice");
            }
            let now = book.through();
            assert!(Shard::all().all(|shard| now.get(shard) >= before.get(shard)), "coverage went back");
        }
    });
}

fn event(shard: u8, sequence: u8) -> LinkEvent {
    LinkEvent {
        position: at(u64::from(sequence).max(1)),
        log_time: Timestamp::default(),
        conversation: ConversationKey::from_u64(u64::from(shard) << 56 | 1),
        previous: None,
        recipients: Vec::new(),
        payload: Bytes::new(),
        traceparent: None,
    }
}
