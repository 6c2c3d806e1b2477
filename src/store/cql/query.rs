//! Every statement that the store prepares, in one place.

use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};

/// Statements prepared at the same time when connecting.
const PREPARE_AT_ONCE: usize = 8;

/// How a statement may be treated by the driver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Gives the same end however often it runs: the driver may repeat it.
    Repeatable,
    /// Conditional: repeated it would find its own doing, so that only its caller may do that.
    Conditional,
    /// A read of a table of kind lwt.
    Serial,
}

macro_rules! queries {
    ($($name:ident, $kind:ident, $text:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Query { $($name),* }
        const QUERIES: &[(Query, Kind, &str)] = &[$((Query::$name, Kind::$kind, $text)),*];
    };
}

// Writes bind key, values, timestamp, TTL (INSERT) or timestamp, key (DELETE): see `operation`.
queries! {
    PutBucket, Repeatable, "INSERT INTO {ks}.buckets (conversation, bucket, first) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutMessage, Repeatable, "INSERT INTO {ks}.messages (conversation, bucket, position, header, content) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    ExpireMessage, Repeatable, "DELETE FROM {ks}.messages USING TIMESTAMP ? WHERE conversation = ? AND bucket = ? AND position = ?";
    PutEdit, Repeatable, "INSERT INTO {ks}.messages (conversation, bucket, position, content, edited_at) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    ClearContent, Repeatable, "DELETE content, edited_at FROM {ks}.messages USING TIMESTAMP ? WHERE conversation = ? AND bucket = ? AND position = ?";
    PutDeletion, Repeatable, "INSERT INTO {ks}.messages (conversation, bucket, position, deletion) VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    PutEvent, Repeatable, "INSERT INTO {ks}.events (conversation, bucket, position, log_time, record) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    PutReaction, Repeatable, "INSERT INTO {ks}.reactions (conversation, bucket, target, account, reaction, at) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    RemoveReaction, Repeatable, "DELETE FROM {ks}.reactions USING TIMESTAMP ? WHERE conversation = ? AND bucket = ? AND target = ? AND account = ? AND reaction = ?";
    PutHidden, Repeatable, "INSERT INTO {ks}.hidden (conversation, account, target, at) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
    PutDelivered, Repeatable, "INSERT INTO {ks}.receipts (conversation, account, delivered) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutRead, Repeatable, "INSERT INTO {ks}.receipts (conversation, account, read) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutSend, Repeatable, "INSERT INTO {ks}.sends (conversation, sender, client_message_id, sent) VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    PutHead, Repeatable, "INSERT INTO {ks}.heads (conversation, head, head_time) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutState, Repeatable, "INSERT INTO {ks}.conversations (conversation, at, state) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutJoined, Repeatable, "INSERT INTO {ks}.inbox (account, conversation, joined, kind) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
    PutDeparted, Repeatable, "INSERT INTO {ks}.inbox (account, conversation, departed) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutInboxHead, Repeatable, "INSERT INTO {ks}.inbox (account, conversation, head, head_time) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
    PutInboxTouched, Repeatable, "INSERT INTO {ks}.inbox (account, conversation, touched) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutInboxRead, Repeatable, "INSERT INTO {ks}.inbox (account, conversation, read_to) VALUES (?, ?, ?) USING TIMESTAMP ?";
    PutFirstOfDay, Repeatable, "INSERT INTO {ks}.days (shard, day, first, log_time) VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    PutWatermark, Repeatable, "INSERT INTO {ks}.watermarks (scope, shard, position) VALUES (?, ?, ?) USING TIMESTAMP ?";

    Buckets, Repeatable, "SELECT bucket, first FROM {ks}.buckets WHERE conversation = ?";
    HasMessage, Repeatable, "SELECT header FROM {ks}.messages WHERE conversation = ? AND bucket = ? AND position = ?";
    NewestMessages, Repeatable, "SELECT position, header, content, edited_at, WRITETIME(edited_at), deletion FROM {ks}.messages WHERE conversation = ? AND bucket = ? AND position > ? AND position < ? ORDER BY position DESC LIMIT ?";
    OldestMessages, Repeatable, "SELECT position, header, content, edited_at, WRITETIME(edited_at), deletion FROM {ks}.messages WHERE conversation = ? AND bucket = ? AND position > ? AND position < ? ORDER BY position ASC LIMIT ?";
    OldestOutlines, Repeatable, "SELECT position, header, deletion FROM {ks}.messages WHERE conversation = ? AND bucket = ? AND position > ? AND position < ? ORDER BY position ASC LIMIT ?";
    Events, Repeatable, "SELECT position, log_time, record FROM {ks}.events WHERE conversation = ? AND bucket = ? AND position > ? AND position < ? LIMIT ?";
    Reactions, Repeatable, "SELECT target, account, reaction, at FROM {ks}.reactions WHERE conversation = ? AND bucket = ? AND target > ? AND target < ?";
    HiddenMessages, Repeatable, "SELECT target FROM {ks}.hidden WHERE conversation = ? AND account = ? AND target > ? AND target < ?";
    Sent, Repeatable, "SELECT sent FROM {ks}.sends WHERE conversation = ? AND sender = ? AND client_message_id = ?";
    Receipts, Repeatable, "SELECT account, delivered, read FROM {ks}.receipts WHERE conversation = ?";
    State, Repeatable, "SELECT at, state FROM {ks}.conversations WHERE conversation = ?";
    Head, Repeatable, "SELECT head, head_time FROM {ks}.heads WHERE conversation = ?";
    Inbox, Repeatable, "SELECT conversation, joined, kind, departed, head, head_time, touched, read_to FROM {ks}.inbox WHERE account = ? AND conversation >= ? LIMIT ?";
    InboxOne, Repeatable, "SELECT conversation, joined, kind, departed, head, head_time, touched, read_to FROM {ks}.inbox WHERE account = ? AND conversation = ?";
    FirstOfDays, Repeatable, "SELECT first, log_time FROM {ks}.days WHERE shard = ?";
    Watermarks, Repeatable, "SELECT shard, position FROM {ks}.watermarks WHERE scope = ?";

    ClaimDirect, Conditional, "INSERT INTO {ks}.direct_conversations (low, high, conversation) VALUES (?, ?, ?) IF NOT EXISTS";
    ClaimKey, Conditional, "INSERT INTO {ks}.conversation_keys (conversation) VALUES (?) IF NOT EXISTS";
    ClaimEpoch, Conditional, "INSERT INTO {ks}.epochs (scope, epoch, incarnations, sealed) VALUES (?, ?, ?, ?) IF NOT EXISTS";
    SealEpoch, Conditional, "UPDATE {ks}.epochs SET sealed = true WHERE scope = ? AND epoch = ? IF EXISTS";
    Direct, Serial, "SELECT conversation FROM {ks}.direct_conversations WHERE low = ? AND high = ?";
    Epochs, Serial, "SELECT epoch, incarnations, sealed FROM {ks}.epochs WHERE scope = ?";
    Epoch, Serial, "SELECT epoch, incarnations, sealed FROM {ks}.epochs WHERE scope = ? AND epoch = ?";

    Mute, Repeatable, "INSERT INTO {ks}.mutes (account, conversation, muted_until) VALUES (?, ?, ?)";
    Unmute, Repeatable, "DELETE FROM {ks}.mutes WHERE account = ? AND conversation = ?";
    Mutes, Repeatable, "SELECT conversation, muted_until FROM {ks}.mutes WHERE account = ? AND conversation >= ? AND conversation <= ?";
    MuteOne, Repeatable, "SELECT muted_until FROM {ks}.mutes WHERE account = ? AND conversation = ?";
    PutSettings, Repeatable, "INSERT INTO {ks}.settings (account, settings) VALUES (?, ?)";
    Settings, Repeatable, "SELECT settings FROM {ks}.settings WHERE account = ?";
    Block, Repeatable, "INSERT INTO {ks}.blocks (by_account, account) VALUES (?, ?)";
    Unblock, Repeatable, "DELETE FROM {ks}.blocks WHERE by_account = ? AND account = ?";
    IsBlocked, Repeatable, "SELECT account FROM {ks}.blocks WHERE by_account = ? AND account = ?";
    Blocks, Repeatable, "SELECT account FROM {ks}.blocks WHERE by_account = ? LIMIT ?";

    ClaimName, Conditional, "INSERT INTO {ks}.account_names (username, account, display_name, password_hash, created_at) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS";
    AccountByName, Serial, "SELECT account, display_name, password_hash, created_at FROM {ks}.account_names WHERE username = ?";
    PutAccount, Repeatable, "INSERT INTO {ks}.accounts (account, username) VALUES (?, ?)";
    AccountName, Repeatable, "SELECT username FROM {ks}.accounts WHERE account = ?";
    PutSearch, Repeatable, "INSERT INTO {ks}.account_search (prefix, username) VALUES (?, ?)";
    Search, Repeatable, "SELECT username FROM {ks}.account_search WHERE prefix = ? AND username >= ? AND username < ?";
}

/// The statements, prepared once per process.
pub(super) struct Queries(Vec<PreparedStatement>);

impl Queries {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, PrepareError> {
        use futures_util::{StreamExt, TryStreamExt};
        let texts: Vec<(Kind, String)> =
            QUERIES.iter().map(|(_, kind, text)| (*kind, text.replace("{ks}", keyspace))).collect();
        let prepared = futures_util::stream::iter(texts)
            .map(|(kind, text)| async move {
                let mut statement = session.prepare(text).await?;
                statement.set_is_idempotent(kind != Kind::Conditional);
                statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
                if kind == Kind::Serial {
                    statement.set_consistency(Consistency::LocalSerial);
                }
                Ok::<_, PrepareError>(statement)
            })
            .buffered(PREPARE_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self(prepared))
    }

    pub(super) fn get(&self, query: Query) -> &PreparedStatement {
        &self.0[query as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_stands_at_its_own_number() {
        for (n, (query, _, _)) in QUERIES.iter().enumerate() {
            assert_eq!(*query as usize, n);
        }
    }

    #[test]
    fn only_a_position_is_a_write_timestamp() {
        let position_tables = concat!(
            include_str!("../../../cql/0001_history.cql"),
            include_str!("../../../cql/0005_days.cql")
        );
        for (query, kind, text) in QUERIES {
            let write =
                text.starts_with("INSERT") || text.starts_with("DELETE") || text.starts_with("UPDATE");
            let table = text.split("{ks}.").nth(1).unwrap().split([' ', '(']).next().unwrap();
            let by_position = position_tables.contains(&format!("EXISTS {table} ("));
            assert_eq!(write && by_position, text.contains("USING TIMESTAMP"), "{query:?}");
            assert_eq!(*kind == Kind::Conditional, text.contains(" IF "), "{query:?}");
        }
    }
}
