//! A bounded cache of answers with their age.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// Keeps at most `capacity` answers. Two halves: new ones enter the young half; when it is full it
/// becomes the old one, and what nobody asked for meanwhile is forgotten. Nothing is scanned.
pub(super) struct AnswerCache<K, V> {
    half: usize,
    halves: Mutex<Halves<K, V>>,
}

struct Halves<K, V> {
    young: HashMap<K, Answer<V>>,
    old: HashMap<K, Answer<V>>,
}

#[derive(Clone)]
struct Answer<V> {
    value: V,
    given: Instant,
}

impl<K: Eq + Hash + Clone, V: Clone> AnswerCache<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        let halves = Halves { young: HashMap::new(), old: HashMap::new() };
        Self { half: (capacity / 2).max(1), halves: Mutex::new(halves) }
    }

    /// The answer, if it is not older than `most`.
    pub(super) fn get(&self, key: &K, most: Duration) -> Option<V> {
        let mut halves = self.halves.lock();
        if let Some(answer) = halves.young.get(key) {
            return (answer.given.elapsed() <= most).then(|| answer.value.clone());
        }
        let answer = halves.old.get(key)?.clone();
        if answer.given.elapsed() > most {
            return None;
        }
        let value = answer.value.clone();
        self.enter(&mut halves, key.clone(), answer);
        Some(value)
    }

    pub(super) fn put(&self, key: K, value: V) {
        let answer = Answer { value, given: Instant::now() };
        self.enter(&mut self.halves.lock(), key, answer);
    }

    fn enter(&self, halves: &mut Halves<K, V>, key: K, answer: Answer<V>) {
        halves.old.remove(&key);
        if halves.young.len() >= self.half && !halves.young.contains_key(&key) {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, answer);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let halves = self.halves.lock();
        halves.young.len() + halves.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_an_age() {
        let cache = AnswerCache::new(4);
        cache.put("a", 1);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(cache.get(&"a", Duration::from_secs(10)), Some(1));
        assert_eq!(cache.get(&"a", Duration::from_secs(9)), None);
        assert_eq!(cache.get(&"b", LONG), None);
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_capacity_nor_answers_wrongly(
            asked in proptest::collection::vec((0u8..40, any::<bool>()), 0..400), capacity in 2usize..20
        ) {
            let cache = AnswerCache::new(capacity);
            let mut latest = HashMap::new();
            for (i, (key, put)) in asked.into_iter().enumerate() {
                if put {
                    cache.put(key, i);
                    latest.insert(key, i);
                } else if let Some(found) = cache.get(&key, LONG) {
                    prop_assert_eq!(Some(&found), latest.get(&key));
                }
                prop_assert!(cache.len() <= capacity, "{} of {capacity}", cache.len());
            }
        }
    }

    #[test]
    fn what_is_asked_for_stays() {
        let cache = AnswerCache::new(10);
        cache.put(0, 0);
        for i in 1..100 {
            cache.put(i, i);
            assert_eq!(cache.get(&0, LONG), Some(0), "after {i}");
        }
    }
}
