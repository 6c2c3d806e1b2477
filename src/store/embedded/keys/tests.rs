//! Keys sort as what they name does, and come apart as they were put together.

use super::*;
use proptest::prelude::*;

fn position(raw: u64) -> Position {
    Position::new(Epoch::FIRST, raw).unwrap()
}

proptest! {
    #[test]
    fn keys_sort_as_positions_do(conversation: u64, a in 1u64..1 << 44, b in 1u64..1 << 44) {
        let conversation = ConversationKey::from_u64(conversation);
        let (p, q) = (position(a), position(b));
        prop_assert_eq!(p.cmp(&q), message(conversation, p).cmp(&message(conversation, q)));
        let span = messages(conversation, Range { after: p, before: q });
        for at in [a - 1, a, a + 1, b - 1, b, b + 1].into_iter().filter(|n| (1..1 << 44).contains(n)) {
            let within = Range { after: p, before: q }.contains(position(at));
            let key = message(conversation, position(at));
            prop_assert_eq!(span.from <= key && key < span.to, within);
        }
    }

    #[test]
    fn parts_come_back(conversation: u64, at in 1u64..1 << 44, account: u128, ms in 0u64..1 << 45) {
        let key = ConversationKey::from_u64(conversation);
        let account = AccountId::new(uuid::Uuid::from_u128(account));
        let emoji = Reaction::parse("👍").unwrap();
        let reaction = reaction(key, position(at), account, &emoji);
        let parts = (position(at), account, "👍".to_owned());
        prop_assert_eq!(parts_of_reaction(reaction.as_bytes()), Ok(parts));
        let hidden = hidden(key, account, position(at));
        prop_assert_eq!(target_of_hidden(hidden.as_bytes()), Ok(position(at)));
        prop_assert_eq!(conversation_of_inbox(inbox_row(account, key).as_bytes()), Ok(key));
        let at = Timestamp::from_millis(ms);
        prop_assert_eq!(parts_of_expiry(expiry(at, &hidden).as_bytes()), Ok((at, Some(hidden.clone()))));
        prop_assert_eq!(parts_of_expiry(expiries_at(at).as_bytes()), Ok((at, None)));
        let mut list = Vec::new();
        append_list(&mut list, std::slice::from_ref(&hidden));
        append_list(&mut list, &[reaction.clone(), hidden.clone()]);
        prop_assert_eq!(parts_of_list(&list), Ok(vec![hidden.clone(), reaction, hidden]));
        list.pop();
        prop_assert!(parts_of_list(&list).is_err());
    }

    #[test]
    fn keys_of_sends_are_of_one_send(a in "[a-c\0]{1,12}", b in "[a-c\0]{1,12}", conversation: u64, sender: u128) {
        let key = |id: &str, conversation| {
            let sender = AccountId::new(uuid::Uuid::from_u128(sender));
            sent(ConversationKey::from_u64(conversation), sender, &ClientMessageId::parse(id).unwrap())
        };
        prop_assert_eq!(key(&a, conversation) == key(&b, conversation), a == b);
        prop_assert!(key(&a, conversation) != key(&b, conversation.wrapping_add(1)));
    }

    #[test]
    fn a_prefix_holds_what_begins_with_it(account: u128, conversation: u64) {
        for n in [account, u128::MAX] {
            let account = AccountId::new(uuid::Uuid::from_u128(n));
            let next = AccountId::new(uuid::Uuid::from_u128(n.wrapping_add(1)));
            let span = inbox_after(account, None);
            let key = inbox_row(account, ConversationKey::from_u64(conversation));
            prop_assert!(span.from <= key && key < span.to);
            let other = inbox_row(next, ConversationKey::from_u64(conversation));
            prop_assert!(other < span.from || span.to <= other);
        }
    }

    #[test]
    fn any_bytes_are_a_key_or_refused(bytes: Vec<u8>) {
        let _ = parts_of_reaction(&bytes);
        let _ = parts_of_expiry(&bytes);
        let _ = parts_of_list(&bytes);
        let _ = epoch_of(&bytes);
    }
}
