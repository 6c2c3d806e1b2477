//! The newest position that this edge has acknowledged or told, so that whoever reads next reads at
//! least that (rule P6, "read your own writes").

use super::watermarks::Watermarks;
use parking_lot::Mutex;
use reedi_protocol::{AccountId, Checkpoint, ConversationKey, Position, Shard};
use std::collections::HashMap;

/// Conversations and accounts remembered, each. What is stored need not be: it goes when there are so many.
const MOST: usize = 65_536;
/// Shards remembered for one account: an account reads its list after at most so many were told.
const SHARDS_PER_ACCOUNT: usize = 8;

/// Told positions, or that of their shard which is not lower: forgetting makes readers wait for more, never for less.
pub struct Newest {
    watermarks: Watermarks,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    conversations: HashMap<ConversationKey, Position>,
    /// The last position of each shard that an account was told.
    accounts: HashMap<AccountId, Vec<(Shard, Position)>>,
    /// The highest position of each shard that is remembered for nobody any more and may not be stored.
    forgotten: Checkpoint,
}

impl Newest {
    #[must_use]
    pub fn new(watermarks: Watermarks) -> Self {
        Self { watermarks, told: Mutex::default() }
    }

    /// `accounts` were told of `position`.
    pub fn tell(&self, conversation: ConversationKey, position: Position, accounts: &[AccountId]) {
        let mut told = self.told.lock();
        if told.conversations.len() >= MOST || told.accounts.len() >= MOST {
            told.make_room(&self.watermarks.all(), MOST);
        }
        let newest = told.conversations.entry(conversation).or_default();
        *newest = (*newest).max(position);
        let is_stored = |(shard, position): &(Shard, Position)| *position <= self.watermarks.known(*shard);
        for account in accounts {
            told.tell(*account, (conversation.shard(), position), is_stored);
        }
    }

    #[must_use]
    pub fn of_conversation(&self, conversation: ConversationKey) -> Position {
        let told = self.told.lock();
        let known = told.conversations.get(&conversation).copied();
        known.unwrap_or_else(|| told.forgotten.get(conversation.shard()))
    }

    /// What must be stored before `account` reads a list over all its conversations.
    #[must_use]
    pub fn of_account(&self, account: AccountId) -> Checkpoint {
        let told = self.told.lock();
        let mut checkpoint = told.forgotten.clone();
        if let Some(shards) = told.accounts.get(&account) {
            shards.iter().for_each(|(shard, position)| checkpoint.advance(*shard, *position));
        }
        checkpoint
    }
}

impl Told {
    fn tell(
        &mut self,
        account: AccountId,
        (shard, position): (Shard, Position),
        is_stored: impl Fn(&(Shard, Position)) -> bool,
    ) {
        let shards = self.accounts.entry(account).or_default();
        if let Some((_, newest)) = shards.iter_mut().find(|(of, _)| *of == shard) {
            *newest = (*newest).max(position);
            return;
        }
        if shards.len() >= SHARDS_PER_ACCOUNT {
            let (shard, position) = shards.remove(shards.iter().position(&is_stored).unwrap_or(0));
            if !is_stored(&(shard, position)) {
                self.forgotten.advance(shard, position);
            }
        }
        shards.push((shard, position));
    }

    /// Drops what is stored, and where that leaves `most` of either, everything, at the price that all wait for it.
    fn make_room(&mut self, stored: &Checkpoint, most: usize) {
        self.conversations.retain(|conversation, position| *position > stored.get(conversation.shard()));
        self.accounts.retain(|_, shards| {
            shards.retain(|(shard, position)| *position > stored.get(*shard));
            !shards.is_empty()
        });
        if self.conversations.len() >= most {
            for (conversation, position) in self.conversations.drain() {
                self.forgotten.advance(conversation.shard(), position);
            }
        }
        if self.accounts.len() >= most {
            for (shard, position) in self.accounts.drain().flat_map(|(_, shards)| shards) {
                self.forgotten.advance(shard, position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::LogClock;
    use crate::store::Store;
    use crate::store::embedded::EmbeddedStore;
    use reedi_protocol::Epoch;

    fn place(sequence: u64) -> Position {
        Position::new(Epoch::FIRST, sequence).unwrap()
    }

    fn newest() -> Newest {
        Newest::new(Watermarks::new(Store::Embedded(EmbeddedStore::in_memory(LogClock::from_system()))))
    }

    fn account(n: u128) -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(n))
    }

    fn conversation(shard: u64, n: u64) -> ConversationKey {
        ConversationKey::from_u64(shard << 56 | n)
    }

    #[test]
    fn who_was_told_is_never_forgotten_before_it_is_stored() {
        let newest = newest();
        newest.tell(conversation(7, 0), place(9), &[account(0)]);
        for n in 1..=MOST as u64 {
            newest.tell(conversation(8, n), place(100 + n), &[account(n.into())]);
        }
        assert!(newest.told.lock().conversations.len() <= MOST);
        assert!(newest.of_conversation(conversation(7, 0)) >= place(9));
        assert!(newest.of_account(account(0)).get(Shard(7)) >= place(9));
        assert!(newest.of_conversation(conversation(8, 1)) >= place(101));
    }

    #[test]
    fn of_many_shards_none_is_forgotten() {
        let newest = newest();
        let shards = 3 * SHARDS_PER_ACCOUNT as u64;
        (1..=shards).for_each(|n| newest.tell(conversation(n, 1), place(n), &[account(1)]));
        let waits = newest.of_account(account(1));
        assert!((1..=shards).all(|n| waits.get(Shard(n as u8)) >= place(n)));
    }

    #[test]
    fn nobody_waits_for_what_is_stored() {
        let mut told = Told::default();
        told.conversations.extend([(conversation(1, 1), place(5)), (conversation(2, 1), place(6))]);
        told.accounts.insert(account(1), vec![(Shard(1), place(5)), (Shard(2), place(6))]);
        let mut stored = Checkpoint::default();
        stored.advance(Shard(1), place(5));
        told.make_room(&stored, 2);
        assert_eq!(told.conversations, [(conversation(2, 1), place(6))].into());
        assert_eq!(told.accounts, [(account(1), vec![(Shard(2), place(6))])].into());
        assert_eq!(told.forgotten, Checkpoint::default());
        told.make_room(&stored, 1);
        assert_eq!(told.forgotten.get(Shard(2)), place(6));
    }
}
