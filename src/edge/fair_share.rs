//! Places for those who have not signed in, shared so that one address cannot take them all.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    taken: Arc<Mutex<TakenPlaces>>,
}

#[derive(Default)]
struct TakenPlaces {
    all: usize,
    /// By client: [`super::client_address::ClientAddress::site`].
    of: HashMap<u128, usize>,
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
        let own = client.and_then(|client| taken.of.get(&client).copied()).unwrap_or(0);
        let crowded = taken.all >= self.most / 2;
        let most = if crowded { (self.most / PART_WHEN_CROWDED).max(SHARE_LEAST) } else { self.most };
        if taken.all >= self.most || own >= most {
            return None;
        }
        taken.all += 1;
        if let Some(client) = client {
            *taken.of.entry(client).or_default() += 1;
        }
        Some(TakenPlace { client, taken: self.taken.clone() })
    }
}

/// A place, free again when this is dropped.
pub struct TakenPlace {
    client: Option<u128>,
    taken: Arc<Mutex<TakenPlaces>>,
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        let own = self.client.map(|client| taken.of.entry(client));
        if let Some(Entry::Occupied(mut own)) = own {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
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
