//! The newest position that this edge has acknowledged or told, so that whoever reads next reads at
//! least that (rule P6, "read your own writes").

use parking_lot::Mutex;
use reedi_protocol::{AccountId, Checkpoint, ConversationKey, Position, Shard};
use std::collections::HashMap;

/// Conversations and accounts remembered, each; beyond, the map begins anew. Forgetting is safe once
/// the writer has caught up, which takes it milliseconds.
const MOST: usize = 65_536;

#[derive(Default)]
pub struct Newest {
    conversations: Mutex<HashMap<ConversationKey, Position>>,
    /// One shard and position for each account: the last that it was told.
    accounts: Mutex<HashMap<AccountId, Vec<(Shard, Position)>>>,
}

/// Shards remembered for one account: an account reads its list after at most so many were told.
const SHARDS_PER_ACCOUNT: usize = 8;

impl Newest {
    /// `accounts` were told of `position`.
    pub fn tell(&self, conversation: ConversationKey, position: Position, accounts: &[AccountId]) {
        {
            let mut conversations = self.conversations.lock();
            if conversations.len() >= MOST {
                conversations.clear();
            }
            let newest = conversations.entry(conversation).or_default();
            *newest = (*newest).max(position);
        }
        let mut known = self.accounts.lock();
        if known.len() >= MOST {
            known.clear();
        }
        let shard = conversation.shard();
        for account in accounts {
            let shards = known.entry(*account).or_default();
            match shards.iter_mut().find(|(s, _)| *s == shard) {
                Some((_, newest)) => *newest = (*newest).max(position),
                None => {
                    if shards.len() >= SHARDS_PER_ACCOUNT {
                        shards.remove(0);
                    }
                    shards.push((shard, position));
                }
            }
        }
    }

    #[must_use]
    pub fn of_conversation(&self, conversation: ConversationKey) -> Position {
        self.conversations.lock().get(&conversation).copied().unwrap_or_default()
    }

    /// What must be stored before `account` reads a list over all its conversations.
    #[must_use]
    pub fn of_account(&self, account: AccountId) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        if let Some(shards) = self.accounts.lock().get(&account) {
            shards.iter().for_each(|(shard, position)| checkpoint.advance(*shard, *position));
        }
        checkpoint
    }
}
