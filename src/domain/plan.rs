//! Who should own what: pure, sticky and even.

use std::collections::BTreeMap;

/// Assigns `units` (lease units, numbered from 0) to `workers`, changing as little as possible from
/// `current`: each worker gets floor or ceil of the even share, a lost worker's units alone move, and
/// one more worker moves floor(units / (n + 1)). Ties go by rendezvous hashing, so that whoever
/// computes it comes to the same.
#[must_use]
pub fn assign(units: u16, workers: &[String], current: &BTreeMap<u16, String>) -> BTreeMap<u16, String> {
    let mut workers: Vec<&String> = workers.iter().collect();
    workers.sort();
    workers.dedup();
    if workers.is_empty() {
        return BTreeMap::new();
    }
    let share = usize::from(units) / workers.len();
    let mut extra = usize::from(units) % workers.len();

    let mut held: BTreeMap<&String, Vec<u16>> = workers.iter().map(|w| (*w, Vec::new())).collect();
    let mut free = Vec::new();
    for unit in 0..units {
        match current.get(&unit).and_then(|w| held.get_mut(w)) {
            Some(mine) => mine.push(unit),
            None => free.push(unit),
        }
    }
    // The fullest keep the odd ones: fewer units move.
    let mut by_load: Vec<&String> = workers.clone();
    by_load.sort_by_key(|w| (std::cmp::Reverse(held[*w].len()), (*w).clone()));
    let mut quota: BTreeMap<&String, usize> = BTreeMap::new();
    for worker in by_load {
        let odd = usize::from(extra > 0);
        extra -= odd;
        quota.insert(worker, share + odd);
    }
    for (worker, mine) in &mut held {
        mine.sort_by_key(|unit| std::cmp::Reverse(weight(*unit, worker)));
        let keep = quota[*worker].min(mine.len());
        free.extend(mine.drain(keep..));
    }
    free.sort_unstable();
    let mut plan: BTreeMap<u16, String> = BTreeMap::new();
    for unit in free {
        let taker = held
            .iter()
            .filter(|(worker, mine)| mine.len() < quota[**worker])
            .max_by_key(|(worker, _)| weight(unit, worker))
            .map(|(worker, _)| *worker);
        if let Some(worker) = taker {
            held.entry(worker).or_default().push(unit);
        }
    }
    for (worker, mine) in held {
        plan.extend(mine.into_iter().map(|unit| (unit, worker.clone())));
    }
    plan
}

fn weight(unit: u16, worker: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&unit.to_be_bytes());
    hasher.update(worker.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("worker-{i}")).collect()
    }

    fn moved(before: &BTreeMap<u16, String>, after: &BTreeMap<u16, String>) -> usize {
        before.iter().filter(|(unit, worker)| after.get(unit) != Some(worker)).count()
    }

    proptest! {
        #[test]
        fn every_unit_has_an_owner_and_loads_differ_by_one(units in 1u16..=256, n in 1usize..20, odd: u64) {
            // Whatever the plan was before, sane or not.
            let current = (0..units).filter(|u| odd >> (u % 64) & 1 == 1)
                .map(|u| (u, format!("worker-{}", u % 23))).collect();
            let plan = assign(units, &names(n), &current);
            prop_assert_eq!(plan.len(), usize::from(units));
            let mut loads: BTreeMap<&String, usize> = BTreeMap::new();
            for worker in plan.values() { *loads.entry(worker).or_default() += 1; }
            let most = loads.values().max().copied().unwrap_or(0);
            let least = if loads.len() < n { 0 } else { loads.values().min().copied().unwrap_or(0) };
            prop_assert!(most - least <= 1);
        }

        #[test]
        fn one_more_worker_moves_only_its_share(units in 1u16..=256, n in 1usize..16) {
            let before = assign(units, &names(n), &BTreeMap::new());
            let after = assign(units, &names(n + 1), &before);
            prop_assert_eq!(moved(&before, &after), usize::from(units) / (n + 1));
        }

        #[test]
        fn a_lost_worker_moves_only_its_own(units in 1u16..=256, n in 2usize..16, lost in 0usize..16) {
            let lost = format!("worker-{}", lost % n);
            let before = assign(units, &names(n), &BTreeMap::new());
            let left: Vec<String> = names(n).into_iter().filter(|w| *w != lost).collect();
            let after = assign(units, &left, &before);
            let own = before.values().filter(|w| **w == lost).count();
            prop_assert_eq!(moved(&before, &after), own);
            prop_assert_eq!(assign(units, &left, &after), after);
        }
    }
}
