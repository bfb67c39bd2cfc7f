//! The only source of randomness, from one seed (xoshiro256** by Blackman and Vigna, seeded with
//! SplitMix64).
//!
//! Invariant: the same seed gives the same numbers on every machine and in every version. That is
//! why no library's generator is used: its output may change between versions.

use engine::owner::Entropy;

#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

/// Makes the seed of [`Random::aside`] differ from that of its source.
const ASIDE: u64 = 0x0C10_C4B9;

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self {
            state: std::array::from_fn(|_| split_mix(&mut state)),
        }
    }

    /// A separate source that takes no number from this one. Parts that were added to the simulator
    /// later draw from it, so that the runs of known seeds stay the same.
    pub fn aside(&self) -> Self {
        Self::new(self.clone().number() ^ ASIDE)
    }

    /// A separate source; drawing from it does not change the numbers of this one.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    pub fn number(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.number()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of 128 bits")
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// An index into a sequence of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// `true` in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

impl Entropy for Random {
    fn bytes(&mut self) -> [u8; 16] {
        let (high, low) = (self.number(), self.number());
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }
}
