//! Accounts about which something has changed, to be gone by together: each once, however often it changed.

use parking_lot::Mutex;
use reedi_protocol::AccountId;
use std::collections::BTreeSet;
use tokio::sync::Notify;

/// Filled by many, emptied by one.
#[derive(Default)]
pub struct Touched {
    accounts: Mutex<BTreeSet<AccountId>>,
    some: Notify,
}

impl Touched {
    /// Wakes whoever waits in [`Touched::some`].
    pub fn touch(&self, account: AccountId) {
        self.accounts.lock().insert(account);
        self.some.notify_one();
    }

    /// Ends when some were touched since it ended last.
    pub async fn some(&self) {
        self.some.notified().await;
    }

    /// All of them, and leaves none.
    #[must_use]
    pub fn take(&self) -> BTreeSet<AccountId> {
        std::mem::take(&mut *self.accounts.lock())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.lock().is_empty()
    }
}
