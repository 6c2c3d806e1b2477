//! Places for those who have not signed in, shared so that one address cannot take them all.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

/// Once half of the places are taken, a client has one of so many of them at most. A flood from one address so leaves
/// half to the others, and while there is room enough an office behind one address is not held up.
const PART_WHEN_CROWDED: usize = 64;
/// Or so many, where that is less.
const SHARE_LEAST: usize = 4;

/// So many places; clones share them.
#[derive(Clone)]
pub struct FairShare {
    most: usize,
    /// By client: [`super::client_address::ClientAddress::site`].
    taken: Arc<Mutex<Taken<u128>>>,
}

/// How much is taken, in all and by whom.
pub struct Taken<K> {
    pub all: usize,
    /// Of those who have any.
    of: HashMap<K, usize>,
}

impl<K> Default for Taken<K> {
    fn default() -> Self {
        Self { all: 0, of: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Taken<K> {
    #[must_use]
    pub fn of(&self, who: K) -> usize {
        self.of.get(&who).copied().unwrap_or(0)
    }

    /// `None` stands for many: it counts only in all.
    pub fn add(&mut self, who: Option<K>, amount: usize) {
        self.all += amount;
        if let Some(who) = who {
            *self.of.entry(who).or_default() += amount;
        }
    }

    pub fn give_back(&mut self, who: Option<K>, amount: usize) {
        self.all -= amount;
        if let Some(Entry::Occupied(mut own)) = who.map(|who| self.of.entry(who)) {
            *own.get_mut() -= amount;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.of.is_empty()
    }
}

impl FairShare {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// A place for `client`, or for somebody who stands for many; `None` where all are taken, or too many by this client
    /// while they run short.
    #[must_use]
    pub fn take(&self, client: Option<u128>) -> Option<TakenPlace> {
        let mut taken = self.taken.lock();
        let own = client.map_or(0, |client| taken.of(client));
        let crowded = taken.all >= self.most / 2;
        let most = if crowded { (self.most / PART_WHEN_CROWDED).max(SHARE_LEAST) } else { self.most };
        if taken.all >= self.most || own >= most {
            return None;
        }
        taken.add(client, 1);
        Some(TakenPlace { client, taken: self.taken.clone() })
    }
}

/// A place, free again when this is dropped.
pub struct TakenPlace {
    client: Option<u128>,
    taken: Arc<Mutex<Taken<u128>>>,
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.taken.lock().give_back(self.client, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &FairShare, client: u128, tries: usize) -> Vec<TakenPlace> {
        (0..tries).filter_map(|_| places.take(Some(client))).collect()
    }

    #[test]
    fn one_address_leaves_half_to_the_others() {
        let places = FairShare::new(256);
        let flood = take(&places, 1, 1_000);
        assert_eq!(flood.len(), 128);
        let others: Vec<_> = (2..100).flat_map(|client| take(&places, client, 5)).collect();
        assert_eq!(others.len(), 128, "four each, until all are taken");
        assert!(places.take(Some(100)).is_none());
        drop(flood);
        assert_eq!(take(&places, 100, 4).len(), 4);
    }

    #[test]
    fn who_stands_for_many_has_what_there_is() {
        let places = FairShare::new(256);
        let taken: Vec<_> = (0..300).filter_map(|_| places.take(None)).collect();
        assert_eq!(taken.len(), 256);
    }

    #[test]
    fn a_place_is_free_again_once_dropped() {
        let places = FairShare::new(1);
        let place = places.take(Some(1)).unwrap();
        assert!(places.take(Some(2)).is_none());
        drop(place);
        assert!(places.take(Some(2)).is_some());
        assert!(places.taken.lock().of.is_empty());
        assert_eq!(places.taken.lock().all, 0);
    }
}
