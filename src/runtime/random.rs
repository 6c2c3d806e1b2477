//! Where the roles draw from. In a simulation it is the seed alone, so that a run can be replayed.

use rand::RngCore;
use reedi_protocol::Timestamp;
use uuid::Uuid;

/// What to draw from: the operating system's randomness, by way of the thread's generator.
#[cfg(not(feature = "simulation"))]
#[must_use]
pub fn rng() -> impl RngCore {
    rand::rng()
}

#[cfg(feature = "simulation")]
pub use seeded::{rng, seed};

/// A UUIDv7 of the given moment (RFC 9562, section 5.7).
#[must_use]
pub fn uuid_v7(now: Timestamp) -> Uuid {
    let mut random = [0; 10];
    rng().fill_bytes(&mut random);
    uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid()
}

#[cfg(feature = "simulation")]
mod seeded {
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};
    use std::cell::RefCell;

    thread_local! {
        /// A simulation is one thread; several may run beside one another.
        static DRAWN: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From here on everything that this thread draws follows from `seed`.
    pub fn seed(seed: u64) {
        DRAWN.set(Some(StdRng::seed_from_u64(seed)));
    }

    /// What to draw from: the seed's sequence, or the thread's generator where there is no seed.
    #[must_use]
    pub fn rng() -> Drawn {
        Drawn
    }

    pub struct Drawn;

    impl RngCore for Drawn {
        fn next_u32(&mut self) -> u32 {
            self.next_u64() as u32
        }

        fn next_u64(&mut self) -> u64 {
            DRAWN.with_borrow_mut(|drawn| match drawn {
                Some(drawn) => drawn.next_u64(),
                None => rand::rng().next_u64(),
            })
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            DRAWN.with_borrow_mut(|drawn| match drawn {
                Some(drawn) => drawn.fill_bytes(bytes),
                None => rand::rng().fill_bytes(bytes),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_carries_its_moment() {
        let id = uuid_v7(Timestamp::from_millis(1_700_000_000_123));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.as_u128() >> 80, 1_700_000_000_123);
        assert_ne!(id, uuid_v7(Timestamp::from_millis(1_700_000_000_123)));
    }
}
