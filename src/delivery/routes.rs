//! Routes: which edge holds which account, as the edges told (rule P5).

use crate::edge_link::EdgeId;
use reedi_protocol::{AccountId, Position, Shard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// An edge that said nothing for this long is gone; it says something every second.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// One edge, as this worker knows it.
pub struct EdgeRoutes {
    pub version: u64,
    accounts: BTreeSet<AccountId>,
    /// Up to where every shard was sent to it.
    pub sent: HashMap<Shard, Position>,
    heard: Instant,
    /// When it last heard of all shards, also of those in which nothing happens.
    pub told_all: Instant,
    /// It waits to hear that its routes are applied: send soon, for all shards.
    pub prompt: bool,
}

impl EdgeRoutes {
    /// The shard is served by somebody else now.
    pub fn forget_shard(&mut self, shard: Shard) {
        self.sent.remove(&shard);
    }
}

/// What a frame about routes calls for.
#[derive(Debug, PartialEq, Eq)]
pub enum Learnt {
    Applied,
    /// A delta is missing: ask for a snapshot.
    Gap,
}

#[derive(Default)]
pub struct Routes {
    /// Few, and gone through in order, so that what happens here follows from what was heard.
    edges: BTreeMap<EdgeId, EdgeRoutes>,
    by_account: HashMap<AccountId, Vec<EdgeId>>,
}

impl Routes {
    pub fn delta(
        &mut self,
        edge: EdgeId,
        (from, to): (u64, u64),
        came: &[AccountId],
        left: &[AccountId],
    ) -> Learnt {
        let Some(known) = self.edges.get_mut(&edge) else { return Learnt::Gap };
        known.heard = Instant::now();
        if to <= known.version {
            return Learnt::Applied;
        }
        if from != known.version {
            return Learnt::Gap;
        }
        known.version = to;
        known.prompt = true;
        known.accounts.extend(came);
        for account in left {
            known.accounts.remove(account);
        }
        for account in came {
            let edges = self.by_account.entry(*account).or_default();
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        left.iter().for_each(|account| self.unlink(*account, edge));
        Learnt::Applied
    }

    /// Takes in all of an edge's accounts. `sent` is where each shard begins for it. One that was overtaken by
    /// what it does not know yet says nothing: to go back would leave out accounts that have come since, over
    /// events that are claimed to be all.
    pub fn snapshot(
        &mut self,
        edge: EdgeId,
        version: u64,
        accounts: Vec<AccountId>,
        sent: HashMap<Shard, Position>,
    ) {
        if let Some(known) = self.edges.get_mut(&edge).filter(|known| known.version > version) {
            known.heard = Instant::now();
            return;
        }
        let known_sent = self.forget(edge).map(|known| known.sent).unwrap_or_default();
        for account in &accounts {
            self.by_account.entry(*account).or_default().push(edge);
        }
        let mut sent = sent;
        // What was sent while the snapshot was on its way counts.
        for (shard, position) in known_sent {
            sent.insert(shard, position);
        }
        let now = Instant::now();
        let routes = EdgeRoutes {
            version,
            accounts: accounts.into_iter().collect(),
            sent,
            heard: now,
            told_all: now,
            prompt: true,
        };
        self.edges.insert(edge, routes);
    }

    pub fn forget(&mut self, edge: EdgeId) -> Option<EdgeRoutes> {
        let known = self.edges.remove(&edge)?;
        known.accounts.iter().for_each(|account| self.unlink(*account, edge));
        Some(known)
    }

    fn unlink(&mut self, account: AccountId, edge: EdgeId) {
        if let Some(edges) = self.by_account.get_mut(&account) {
            edges.retain(|e| *e != edge);
            if edges.is_empty() {
                self.by_account.remove(&account);
            }
        }
    }

    /// Forgets edges that fell silent.
    pub fn forget_silent(&mut self) {
        let silent: Vec<EdgeId> =
            self.edges.iter().filter(|(_, e)| e.heard.elapsed() > GONE_AFTER).map(|(id, _)| *id).collect();
        for edge in silent {
            tracing::info!(%edge, "an edge fell silent");
            self.forget(edge);
        }
    }

    /// The edges that hold `account`.
    #[must_use]
    pub fn of(&self, account: AccountId) -> &[EdgeId] {
        self.by_account.get(&account).map_or(&[], Vec::as_slice)
    }

    pub fn edges(&mut self) -> impl Iterator<Item = (EdgeId, &mut EdgeRoutes)> {
        self.edges.iter_mut().map(|(id, routes)| (*id, routes))
    }

    pub fn edge(&mut self, edge: EdgeId) -> Option<&mut EdgeRoutes> {
        self.edges.get_mut(&edge)
    }

    /// Whether `edge` holds `account`.
    #[must_use]
    pub fn holds(&self, edge: EdgeId, account: AccountId) -> bool {
        self.of(account).contains(&edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: u128) -> AccountId {
        AccountId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_snapshot_that_was_overtaken_takes_nobody_away() {
        let (mut routes, edge) = (Routes::default(), EdgeId(7));
        routes.snapshot(edge, 1, vec![account(1)], HashMap::new());
        assert_eq!(routes.delta(edge, (1, 2), &[account(2)], &[]), Learnt::Applied);
        routes.snapshot(edge, 1, vec![account(1)], HashMap::new());
        assert!(routes.holds(edge, account(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_delta_is_noticed_and_a_snapshot_heals_it() {
        let (mut routes, edge) = (Routes::default(), EdgeId(7));
        assert_eq!(routes.delta(edge, (0, 1), &[account(1)], &[]), Learnt::Gap, "an edge that is not known");
        routes.snapshot(edge, 1, vec![account(1)], HashMap::new());
        assert_eq!(routes.delta(edge, (1, 2), &[account(2)], &[account(1)]), Learnt::Applied);
        assert!(routes.of(account(1)).is_empty());
        assert_eq!(routes.of(account(2)), [edge]);
        assert_eq!(routes.delta(edge, (3, 4), &[account(3)], &[]), Learnt::Gap);
        routes.snapshot(edge, 4, vec![account(3)], HashMap::new());
        assert!(routes.of(account(2)).is_empty());
        assert_eq!(
            routes.delta(edge, (1, 2), &[account(9)], &[]),
            Learnt::Applied,
            "an old one says nothing new"
        );
        assert!(routes.of(account(9)).is_empty());
        tokio::time::advance(GONE_AFTER + Duration::from_secs(1)).await;
        routes.forget_silent();
        assert!(routes.of(account(3)).is_empty());
    }
}
