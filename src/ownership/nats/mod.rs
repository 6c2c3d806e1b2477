//! Ownership in NATS key-value buckets. Leases, announcements and the leaders of a role lie in one
//! bucket whose values age out after [`LEASE_MS`]; plans in another that keeps them.
//!
//! Everything that decides is a publish on condition of the key's revision, or read at the stream's
//! leader. Only lists (holders, workers) may come from a replica that lags: they are advice.

mod bucket;

use super::{LEASE_MS, Lease, OwnershipError, OwnershipPort, Plan, ShardedRole};
use crate::edge_link::Generation;
use crate::log::nats::connection::NatsConnection;
use crate::log::nats::{Namespace, NatsConfig, NatsConfigError};
use bucket::{BucketStore, Entry, Put};
use reedi_protocol::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Bits of a generation that hold the revision; above them is the log's epoch.
const REVISION_BITS: u32 = 44;

/// How often a held lease is written at most: with its token, with the revision of a renewal that only the
/// server heard of, and once more where that was overwritten while it was looked at.
const WRITES_MOST: usize = 3;

/// Where ownership is kept.
#[derive(Clone, Debug)]
pub struct NatsOwnershipConfig {
    pub nats: NatsConfig,
    pub namespace: Namespace,
    /// Copies of every lease: 3, or 1 where there is one server.
    pub replicas: u8,
    /// The log's epoch, which leads every generation.
    pub epoch: Epoch,
}

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct NatsOwnership {
    shared: Arc<Shared>,
}

struct Shared {
    leases: BucketStore,
    plans: BucketStore,
    epoch: Epoch,
}

/// What stands under a key of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HeldBy {
    worker: String,
    /// The revision at which it was acquired; `None` in the value that acquired it.
    acquired: Option<u64>,
}

impl HeldBy {
    fn acquired_at(&self, revision: u64) -> u64 {
        self.acquired.unwrap_or(revision)
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, OwnershipError> {
    serde_json::to_vec(value).map_err(|error| OwnershipError::Unavailable(error.to_string()))
}

impl NatsOwnership {
    /// Waits for NATS and makes the buckets that are missing.
    ///
    /// # Errors
    /// For a configuration that no waiting can mend.
    pub async fn connect(config: &NatsOwnershipConfig) -> Result<Self, NatsConfigError> {
        let connection = NatsConnection::open(&config.nats, "ownership").await?;
        let life = Duration::from_millis(LEASE_MS);
        let leases =
            BucketStore::new(connection.clone(), config.namespace.leases(), config.replicas, Some(life));
        let plans = BucketStore::new(connection, config.namespace.plans(), config.replicas, None);
        leases.open().await;
        plans.open().await;
        Ok(Self { shared: Arc::new(Shared { leases, plans, epoch: config.epoch }) })
    }

    fn lease_key(&self, role: ShardedRole, unit: u16) -> String {
        self.shared.leases.key(&["lease", role.name(), &unit.to_string()])
    }

    fn generation(&self, revision: u64) -> Generation {
        let revision = revision & ((1 << REVISION_BITS) - 1);
        Generation((u64::from(self.shared.epoch.number()) << REVISION_BITS) | revision)
    }

    /// Whether `entry` is `lease` at some renewal.
    fn is_of(&self, entry: &Entry, lease: &Lease, worker: &str) -> bool {
        held_by(entry).is_some_and(|held| {
            held.worker == worker && self.generation(held.acquired_at(entry.revision)) == lease.generation
        })
    }

    /// Writes `value` (nothing: deletes) under the key of a lease that is held.
    async fn write_held(
        &self,
        lease: &Lease,
        worker: &str,
        value: Option<&HeldBy>,
    ) -> Result<u64, OwnershipError> {
        let key = self.lease_key(lease.role, lease.unit);
        let content = value.map(encode).transpose()?;
        let mut expected = lease.token;
        for _ in 0..WRITES_MOST {
            match self.shared.leases.put(&key, content.clone(), Some(expected)).await? {
                Put::Done(revision) => return Ok(revision),
                Put::Stands(0) => return Err(OwnershipError::Lost),
                // Something is being put there, perhaps the last try of this very lease: the next look tells.
                Put::Contended => {
                    return Err(OwnershipError::Unavailable("another write is on its way".to_owned()));
                }
                // An earlier renewal, the answer to which was lost, or somebody else.
                Put::Stands(told) => match self.shared.leases.at(told).await? {
                    Some(entry) if self.is_of(&entry, lease, worker) => expected = told,
                    Some(_) => return Err(OwnershipError::Lost),
                    // Overwritten meanwhile, by another try or by somebody else, or run out: what stands now is told.
                    None => {}
                },
            }
        }
        Err(OwnershipError::Unavailable("it is written faster than it can be read".to_owned()))
    }
}

fn held_by(entry: &Entry) -> Option<HeldBy> {
    serde_json::from_slice(entry.value.as_ref()?).ok()
}

/// Which unit a lease is of, and who holds it.
fn holder(entry: &Entry) -> Option<(u16, String)> {
    let unit = entry.key.rsplit('.').next()?.parse().ok()?;
    Some((unit, held_by(entry)?.worker))
}

/// What a plan says; nothing where it was deleted.
fn units_of(entry: &Entry) -> Result<BTreeMap<u16, String>, OwnershipError> {
    let Some(value) = &entry.value else { return Ok(BTreeMap::new()) };
    serde_json::from_slice(value).map_err(|error| OwnershipError::Unavailable(format!("the plan: {error}")))
}

impl OwnershipPort for NatsOwnership {
    async fn acquire(
        &self,
        role: ShardedRole,
        unit: u16,
        worker: &str,
    ) -> Result<Option<Lease>, OwnershipError> {
        let (key, leases) = (self.lease_key(role, unit), &self.shared.leases);
        let content = encode(&HeldBy { worker: worker.to_owned(), acquired: None })?;
        // Free, unless a revision stands: released, or held.
        let mut expected = 0;
        for _ in 0..2 {
            match leases.put(&key, Some(content.clone()), Some(expected)).await? {
                Put::Done(token) => {
                    return Ok(Some(Lease { role, unit, generation: self.generation(token), token }));
                }
                Put::Contended => return Ok(None),
                Put::Stands(told) => {
                    let entry = leases.at(told).await?;
                    let held = entry.as_ref().and_then(held_by);
                    if held.is_some_and(|held| held.worker != worker) {
                        return Ok(None);
                    }
                    // Expired while being looked at, if nothing is there.
                    expected = if entry.is_some() { told } else { 0 };
                }
            }
        }
        Ok(None)
    }

    async fn renew(&self, lease: &Lease, worker: &str) -> Result<Lease, OwnershipError> {
        let acquired = lease.generation.0 & ((1 << REVISION_BITS) - 1);
        let value = HeldBy { worker: worker.to_owned(), acquired: Some(acquired) };
        if self.generation(acquired) != lease.generation {
            return Err(OwnershipError::Lost);
        }
        let token = self.write_held(lease, worker, Some(&value)).await?;
        Ok(Lease { token, ..*lease })
    }

    async fn release(&self, lease: &Lease, worker: &str) -> Result<(), OwnershipError> {
        self.write_held(lease, worker, None).await.map(drop)
    }

    async fn holders(&self, role: ShardedRole) -> Result<BTreeMap<u16, String>, OwnershipError> {
        let entries = self.shared.leases.below(&["lease", role.name()]).await?;
        Ok(entries.iter().filter_map(holder).collect())
    }

    async fn announce(&self, role: ShardedRole, worker: &str) -> Result<(), OwnershipError> {
        let key = self.shared.leases.key(&["worker", role.name(), worker]);
        self.shared.leases.put(&key, Some(worker.as_bytes().to_vec()), None).await.map(drop)
    }

    async fn withdraw(&self, role: ShardedRole, worker: &str) -> Result<(), OwnershipError> {
        let leases = &self.shared.leases;
        leases.put(&leases.key(&["worker", role.name(), worker]), None, None).await?;
        // A leader leaves its place free.
        let key = leases.key(&["leader", role.name()]);
        if let Put::Stands(told) = leases.put(&key, None, Some(0)).await? {
            let leader = leases.at(told).await?.and_then(|entry| entry.value);
            if leader.is_some_and(|leader| leader == worker.as_bytes()) {
                leases.put(&key, None, Some(told)).await?;
            }
        }
        Ok(())
    }

    async fn workers(&self, role: ShardedRole) -> Result<Vec<String>, OwnershipError> {
        let entries = self.shared.leases.below(&["worker", role.name()]).await?;
        let values = entries.into_iter().filter_map(|entry| entry.value);
        Ok(values.filter_map(|value| String::from_utf8(value.into()).ok()).collect())
    }

    async fn lead(&self, role: ShardedRole, candidate: &str) -> Result<bool, OwnershipError> {
        let leases = &self.shared.leases;
        let key = leases.key(&["leader", role.name()]);
        let content = candidate.as_bytes().to_vec();
        let mut expected = 0;
        for _ in 0..2 {
            match leases.put(&key, Some(content.clone()), Some(expected)).await? {
                Put::Done(_) => return Ok(true),
                Put::Contended => return Ok(false),
                Put::Stands(told) => match leases.at(told).await? {
                    Some(entry) if entry.value.as_deref().is_some_and(|leader| leader != content) => {
                        return Ok(false);
                    }
                    Some(_) => expected = told,
                    None => expected = 0,
                },
            }
        }
        Ok(false)
    }

    async fn plan(&self, role: ShardedRole) -> Result<Plan, OwnershipError> {
        let key = self.shared.plans.key(&[role.name()]);
        let Some(entry) = self.shared.plans.newest(&key).await? else { return Ok(Plan::default()) };
        Ok(Plan { units: units_of(&entry)?, revision: entry.revision })
    }

    async fn put_plan(
        &self,
        role: ShardedRole,
        units: &BTreeMap<u16, String>,
        over: u64,
    ) -> Result<bool, OwnershipError> {
        let key = self.shared.plans.key(&[role.name()]);
        match self.shared.plans.put(&key, Some(encode(units)?), Some(over)).await? {
            Put::Done(_) => Ok(true),
            Put::Stands(_) | Put::Contended => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn entry(key: String, value: Vec<u8>) -> Entry {
        Entry { key, revision: 7, value: Some(value.into()) }
    }

    proptest! {
        #[test]
        fn a_lease_is_read_as_it_was_written(unit: u16, worker: String, acquired: Option<u64>) {
            let unit_name = unit.to_string();
            let key = Namespace::default().leases().key(&["lease", ShardedRole::Writer.name(), &unit_name]);
            let held = HeldBy { worker, acquired };
            let entry = entry(key, encode(&held).unwrap());
            prop_assert_eq!(holder(&entry), Some((unit, held.worker.clone())));
            prop_assert_eq!(held_by(&entry), Some(held));
        }

        #[test]
        fn a_plan_is_read_as_it_was_written(units: BTreeMap<u16, String>) {
            let entry = entry("plan".to_owned(), encode(&units).unwrap());
            prop_assert_eq!(units_of(&entry), Ok(units));
            prop_assert_eq!(units_of(&Entry { value: None, ..entry }), Ok(BTreeMap::new()));
        }

        /// Another client of NATS may have put anything there: bytes of its own, or ours with one changed.
        #[test]
        fn any_lease_or_plan_is_read_or_refused(
            key: String, bytes: Vec<u8>, worker: String, unit: u16, at: Index, byte: u8
        ) {
            let lease = encode(&HeldBy { worker: worker.clone(), acquired: Some(1) }).unwrap();
            let plan = encode(&BTreeMap::from([(unit, worker)])).unwrap();
            let changed = [lease, plan].map(|mut value| {
                let at = at.index(value.len());
                value[at] = byte;
                value
            });
            for value in [bytes].into_iter().chain(changed) {
                let found = entry(key.clone(), value);
                if let Some(held) = held_by(&found) {
                    prop_assert_eq!(held_by(&entry(key.clone(), encode(&held).unwrap())), Some(held));
                }
                let _ = holder(&found);
                match units_of(&found) {
                    Ok(units) => {
                        prop_assert_eq!(units_of(&entry(key.clone(), encode(&units).unwrap())), Ok(units));
                    }
                    Err(error) => prop_assert!(matches!(error, OwnershipError::Unavailable(_))),
                }
            }
        }
    }
}
