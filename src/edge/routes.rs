//! Routes: which accounts are connected here. This edge is the truth about its own; workers learn by
//! numbered deltas and ask for a snapshot when they miss one (rule P5).

use super::session::Session;
use crate::edge_link::{DeviceCame, EdgeId, ToWorkers};
use parking_lot::Mutex;
use reedi_protocol::{AccountId, Position, Shard};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

struct Connected {
    sessions: Vec<Arc<Session>>,
    /// The version with which workers learn of this account.
    since: u64,
}

#[derive(Default)]
struct Table {
    accounts: BTreeMap<AccountId, Connected>,
    /// Accounts that came or left since the last delta.
    changed: BTreeMap<AccountId, bool>,
    /// The version of the last delta.
    version: u64,
    /// Devices that came since other edges were last told.
    devices: Vec<DeviceCame>,
}

/// The sessions of one edge, by account.
pub struct Routes {
    edge: EdgeId,
    table: Mutex<Table>,
    changed: Notify,
}

/// What became of a session that came.
pub struct Came {
    /// The version of the routes that must be applied before it gets everything.
    pub version: u64,
    /// The same device's earlier session, to be closed.
    pub replaced: Option<Arc<Session>>,
    pub first_of_account: bool,
}

impl Routes {
    #[must_use]
    pub fn new(edge: EdgeId) -> Self {
        Self { edge, table: Mutex::default(), changed: Notify::new() }
    }

    /// Adds a session. `None` where the account has `most` already.
    pub fn come(&self, session: Arc<Session>, most: usize) -> Option<Came> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let next = table.version + 1;
        let mut first_of_account = false;
        let connected = table.accounts.entry(session.account).or_insert_with(|| {
            first_of_account = true;
            table.changed.insert(session.account, true);
            Connected { sessions: Vec::with_capacity(1), since: next }
        });
        let same_device = |other: &Arc<Session>| session.device.is_some() && other.device == session.device;
        let replaced =
            connected.sessions.iter().position(same_device).map(|i| connected.sessions.swap_remove(i));
        if connected.sessions.len() >= most {
            return None;
        }
        if let Some(device) = session.device {
            table.devices.push(DeviceCame { account: session.account, device, at: session.came_at() });
            self.changed.notify_one();
        }
        connected.sessions.push(session);
        if first_of_account {
            self.changed.notify_one();
        }
        Some(Came { version: connected.since, replaced, first_of_account })
    }

    /// Takes a session away. True if it was the last of its account.
    pub fn leave(&self, session: &Session) -> bool {
        let mut table = self.table.lock();
        let Some(connected) = table.accounts.get_mut(&session.account) else { return false };
        connected.sessions.retain(|other| other.id != session.id);
        if !connected.sessions.is_empty() {
            return false;
        }
        table.accounts.remove(&session.account);
        table.changed.insert(session.account, false);
        self.changed.notify_one();
        true
    }

    /// Gives every session of `account` to `each`.
    pub fn each_session(&self, account: AccountId, mut each: impl FnMut(&Arc<Session>)) {
        if let Some(connected) = self.table.lock().accounts.get(&account) {
            connected.sessions.iter().for_each(&mut each);
        }
    }

    /// All sessions now.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.table.lock().accounts.values().flat_map(|c| c.sessions.iter().cloned()).collect()
    }

    #[must_use]
    pub fn accounts(&self) -> Vec<AccountId> {
        self.table.lock().accounts.keys().copied().collect()
    }

    #[must_use]
    pub fn has(&self, account: AccountId) -> bool {
        self.table.lock().accounts.contains_key(&account)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.lock().accounts.is_empty()
    }

    /// Waits until some account came or left.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The next delta; with nothing changed it says that this edge is there.
    #[must_use]
    pub fn delta(&self) -> ToWorkers {
        let mut table = self.table.lock();
        let from = table.version;
        let changed = std::mem::take(&mut table.changed);
        if !changed.is_empty() {
            table.version += 1;
        }
        let (came, left): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(_, here)| *here);
        let accounts = |list: Vec<(AccountId, bool)>| list.into_iter().map(|(account, _)| account).collect();
        ToWorkers::Routes {
            edge: self.edge,
            from,
            to: table.version,
            came: accounts(came),
            left: accounts(left),
        }
    }

    /// Devices that came since this was last asked.
    #[must_use]
    pub fn take_devices(&self) -> Vec<DeviceCame> {
        std::mem::take(&mut self.table.lock().devices)
    }

    /// All accounts. What has not gone out as a delta yet is in it and goes out once more.
    #[must_use]
    pub fn snapshot(&self, through: Vec<(Shard, Position)>) -> ToWorkers {
        let table = self.table.lock();
        let accounts = table.accounts.keys().copied().collect();
        ToWorkers::Snapshot { edge: self.edge, version: table.version, accounts, through }
    }
}
