//! Values are read back as they were written, and whatever else stands there is read or refused.

use super::*;
use crate::domain::conversation::Member;
use proptest::prelude::*;
use reedi_protocol::Epoch;
use reedi_protocol::resource::{MessageType, Role};
use reedi_protocol::text::ClientMessageId;
use std::any::type_name;

/// Before everything that ends.
const BEFORE: Timestamp = Timestamp::from_millis(0);

fn is_read_back<T: Stored>(value: T, end: Option<Timestamp>) {
    let held = Held { value, expires_at: end };
    let bytes = encode(&held).unwrap();
    assert_eq!(expires_at(&bytes), Ok(end));
    assert!(decode::<T>(&bytes, BEFORE) == Ok(Some(held)), "{}", type_name::<T>());
    if let Some(end) = end {
        assert!(decode::<T>(&bytes, end) == Ok(None), "{} has ended", type_name::<T>());
    }
}

/// What is read of `bytes` is the same once it is written and read again.
fn is_read_or_refused<T: Stored>(bytes: &[u8]) {
    match decode::<T>(bytes, BEFORE) {
        Ok(Some(held)) => {
            let again = encode(&held).unwrap();
            assert!(decode::<T>(&again, BEFORE) == Ok(Some(held)), "{}", type_name::<T>());
        }
        Ok(None) => assert_eq!(expires_at(bytes), Ok(Some(BEFORE))),
        Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "{error}"),
    }
}

fn every_value_is_read_or_refused(bytes: &[u8]) {
    is_read_or_refused::<MessageValue>(bytes);
    is_read_or_refused::<EventValue>(bytes);
    is_read_or_refused::<ReactionValue>(bytes);
    is_read_or_refused::<HiddenValue>(bytes);
    is_read_or_refused::<SentValue>(bytes);
    is_read_or_refused::<ReceiptValue>(bytes);
    is_read_or_refused::<StateValue>(bytes);
    is_read_or_refused::<HeadValue>(bytes);
    is_read_or_refused::<InboxValue>(bytes);
    is_read_or_refused::<MuteValue>(bytes);
    is_read_or_refused::<DirectValue>(bytes);
    is_read_or_refused::<GroupValue>(bytes);
    is_read_or_refused::<WatermarkValue>(bytes);
    is_read_or_refused::<DayValue>(bytes);
    is_read_or_refused::<EpochValue>(bytes);
    is_read_or_refused::<SettingsValue>(bytes);
    is_read_or_refused::<BlockValue>(bytes);
    is_read_or_refused::<AccountValue>(bytes);
    is_read_or_refused::<UsernameValue>(bytes);
}

/// An outline is of the value that stands there, or neither is read.
fn outline_is_of_the_message(bytes: &[u8]) {
    let message = decode::<MessageValue>(bytes, BEFORE).map(|held| held.map(|held| held.value));
    let outline = decode::<MessageOutline<'_>>(bytes, BEFORE).map(|held| held.map(|held| held.value));
    match (message, outline) {
        (Ok(Some(message)), Ok(Some(outline))) => {
            assert_eq!((message.row, message.deleted), (outline.row, outline.deleted));
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (message, outline) => panic!("{message:?}, and an outline: {}", outline.is_ok()),
    }
}

/// Bytes behind a whole header; small ones are most lengths, variants and numbers.
fn with_header() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![Just(u64::MAX), any::<u64>()];
    let body = prop::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..80);
    (end, body).prop_map(|(end, body)| [&[VERSION][..], &end.to_be_bytes(), &body].concat())
}

fn place() -> impl Strategy<Value = Position> {
    (1u64..1 << 44).prop_map(|sequence| Position::new(Epoch::FIRST, sequence).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    (1u64..1 << 45).prop_map(Timestamp::from_millis)
}

fn account() -> impl Strategy<Value = AccountId> {
    any::<u128>().prop_map(|number| AccountId::new(uuid::Uuid::from_u128(number)))
}

fn message(
    at: Position,
    sender: AccountId,
    (sent, changed): (Timestamp, Option<Timestamp>),
    content: Option<Vec<u8>>,
    key: &str,
) -> MessageValue {
    let row = MessageRow {
        position: at,
        kind: ConversationType::Group,
        sender,
        message_type: MessageType::Text,
        timestamp: sent,
        log_time: sent,
        reply_to: changed.map(|_| at),
        client_message_id: ClientMessageId::parse(key).ok(),
        keyed_by_client: content.is_some(),
        expires_at: changed,
        system: None,
        system_name: Some(key.to_owned()),
    };
    let deleted = changed.map(|at| (at, sender));
    let content = content.map(|bytes| Sealed(bytes.into()));
    let content = ContentCell { timestamp: at.as_u64(), content, edited_at: changed };
    MessageValue { row: Some(row), content, deleted }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, with_header in with_header()) {
        for bytes in [bytes, with_header] {
            every_value_is_read_or_refused(&bytes);
            outline_is_of_the_message(&bytes);
            let is_ours = bytes.first() == Some(&VERSION) && bytes.len() >= HEADER_BYTES;
            prop_assert_eq!(expires_at(&bytes).is_ok(), is_ours);
        }
    }

    /// As a disk may bring it back: with one byte changed, or cut off.
    #[test]
    fn a_damaged_message_is_decoded_or_refused(
        at in place(), sender in account(), sent in time(), content: Option<Vec<u8>>,
        place: prop::sample::Index, byte: u8
    ) {
        let message = message(at, sender, (sent, Some(sent)), content, "key");
        let mut bytes = encode(&Held::for_ever(message)).unwrap();
        let place = place.index(bytes.len());
        every_value_is_read_or_refused(&bytes[..place]);
        outline_is_of_the_message(&bytes[..place]);
        bytes[place] = byte;
        every_value_is_read_or_refused(&bytes);
        outline_is_of_the_message(&bytes);
    }

    #[test]
    fn what_is_of_a_conversation_is_read_back(
        at in place(), other in prop::option::of(place()), account in account(), sent in time(),
        end in prop::option::of(time()), content: Option<Vec<u8>>, key: String
    ) {
        let conversation = ConversationKey::from_u64(at.as_u64());
        let message = message(at, account, (sent, end), content, &key);
        outline_is_of_the_message(&encode(&Held::for_ever(message.clone())).unwrap());
        is_read_back(message, end);
        is_read_back(MessageValue::default(), end);
        is_read_back(EventValue { log_time: sent, record: key.clone().into() }, end);
        is_read_back(ReactionValue { at, present: other.is_some() }, end);
        is_read_back(HiddenValue, end);
        is_read_back(SentValue { position: at, digest: RequestDigest(*account.as_bytes()) }, end);
        let mark = other.map(|up_to| Mark { up_to, at: sent, private: end.is_some() });
        is_read_back(ReceiptValue { delivered: mark, read: None }, end);
        let state = ConversationState {
            kind: ConversationType::Group,
            name: Name::parse(&key).ok(),
            avatar_url: None,
            expires_after_s: end.map(Timestamp::as_millis),
            created_at: sent,
            members: vec![Member { account, role: Role::Admin, joined: at, joined_at: sent }],
        };
        is_read_back(StateValue { at, state }, end);
        let head = HeadValue { head: at, head_time: sent };
        is_read_back(head, end);
        let joined = Some(Joined { at, kind: ConversationType::Direct });
        is_read_back(InboxValue { joined, left: other, head: Some(head), touched: other, read: at }, end);
        is_read_back(MuteValue(sent), end);
        is_read_back(DirectValue(conversation), end);
        is_read_back(GroupValue, end);
    }

    #[test]
    fn what_is_of_the_store_or_of_an_account_is_read_back(
        at in place(), account in account(), sent in time(), end in prop::option::of(time()),
        incarnations: Vec<String>, username in "[a-z][a-z0-9._-]{2,31}", password_hash: String
    ) {
        is_read_back(WatermarkValue(at), end);
        is_read_back(DayValue { first: at, log_time: sent }, end);
        is_read_back(EpochValue { sealed: incarnations.is_empty(), incarnations }, end);
        is_read_back(SettingsValue(Settings::default()), end);
        is_read_back(BlockValue, end);
        let username = Username::parse(&username).unwrap();
        let display_name = Name::from(&username);
        is_read_back(AccountValue { username, display_name, password_hash, created_at: sent }, end);
        is_read_back(UsernameValue(account), end);
    }
}
