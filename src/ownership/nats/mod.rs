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
        let holders = entries.iter().filter_map(|entry| {
            let unit = entry.key.rsplit('.').next()?.parse().ok()?;
            Some((unit, held_by(entry)?.worker))
        });
        Ok(holders.collect())
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
        let units = entry.value.map_or(Ok(BTreeMap::new()), |value| serde_json::from_slice(&value));
        let units = units.map_err(|error| OwnershipError::Unavailable(format!("the plan: {error}")))?;
        Ok(Plan { units, revision: entry.revision })
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
