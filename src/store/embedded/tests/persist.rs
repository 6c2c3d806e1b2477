//! Batches with their watermarks come to the same as their writes alone, however often a batch comes again.

use super::{Hand, dump};
use crate::store::Writes;
use crate::store::conformance::fresh::{self, position};
use crate::store::conformance::replay;
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::keys;
use proptest::prelude::*;
use reedi_protocol::AccountId;

/// What was written, without the notes of when it ends and without watermarks: those are what differs.
fn written(store: &EmbeddedStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = dump(store);
    all.retain(|(key, _)| !keys::is_of_the_store_alone(key));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_is_its_writes(seed: u64, size in 1usize..20, again in proptest::collection::vec(any::<bool>(), 90)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let hand = Hand::at(fresh::now().as_millis());
            let (whole, alone) = (EmbeddedStore::in_memory(hand.clock()), EmbeddedStore::in_memory(hand.clock()));
            let conversation = fresh::conversation();
            let accounts: Vec<AccountId> = (0..replay::ACCOUNTS).map(|_| fresh::account()).collect();
            let steps = replay::random_steps(seed, 80);
            let writes = replay::writes_of(&steps, conversation, &accounts, fresh::ago(fresh::HOUR_MS));
            let mut last = 0;
            for (batch, again) in writes.chunks(size).zip(again) {
                last += batch.len() as u64;
                for _ in 0..=usize::from(again) {
                    let moved = vec![(conversation.shard(), position(last))];
                    whole.persist(batch.to_vec(), moved).await.unwrap();
                }
                alone.apply(batch).await.unwrap();
            }
            // Long after it was stored, as a worker that was held for long does: without the changes that came after.
            let first = &writes[..size];
            whole.persist(first.to_vec(), vec![(conversation.shard(), position(size as u64))]).await.unwrap();
            assert_eq!(written(&whole), written(&alone));
        });
    }
}
