//! What the clients of a run write down.

use parking_lot::Mutex;
use reedi_invariants::{Acked, Seen};
use reedi_protocol::Checkpoint;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One client's whole life, over all its connections.
#[derive(Clone, Debug)]
pub struct Life {
    pub seen: Seen,
    /// Everything after this was to be told; `None` where it never was connected for long enough.
    pub since: Option<Checkpoint>,
}

#[derive(Clone, Default)]
pub struct Observed(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    acked: Vec<Acked>,
    connections: Vec<Seen>,
    lives: Vec<Life>,
    /// Clients that have nothing to do any more.
    settled: BTreeSet<String>,
    sent: u64,
}

impl Observed {
    pub fn acked(&self, acked: Acked) {
        self.0.lock().acked.push(acked);
    }

    pub fn sent(&self) {
        self.0.lock().sent += 1;
    }

    pub fn connection_ended(&self, seen: Seen) {
        self.0.lock().connections.push(seen);
    }

    pub fn life_ended(&self, life: Life) {
        self.0.lock().lives.push(life);
    }

    pub fn settled(&self, client: &str, settled: bool) {
        let mut inner = self.0.lock();
        if settled {
            inner.settled.insert(client.to_owned());
        } else {
            inner.settled.remove(client);
        }
    }

    pub fn settled_clients(&self) -> BTreeSet<String> {
        self.0.lock().settled.clone()
    }

    pub fn all_acked(&self) -> Vec<Acked> {
        self.0.lock().acked.clone()
    }

    pub fn connections(&self) -> Vec<Seen> {
        self.0.lock().connections.clone()
    }

    pub fn lives(&self) -> Vec<Life> {
        self.0.lock().lives.clone()
    }

    pub fn sent_count(&self) -> u64 {
        self.0.lock().sent
    }
}
