//! Randomness: ChaCha20, seeded by the host through the boot page.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The random number generator of the instance.
pub(crate) struct Random {
    generator: ChaCha20Rng,
    /// Bytes that programs were given.
    pub(crate) given_bytes: u64,
}

impl Random {
    /// A generator with this seed.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            generator: ChaCha20Rng::from_seed(seed),
            given_bytes: 0,
        }
    }

    /// Fills `bytes`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.generator.fill_bytes(bytes);
    }
}
