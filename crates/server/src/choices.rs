//! Choices that follow from a seed, for walks and simulations in tests: the algorithm of Steele, Lea and Flood (`SplitMix64`).

/// A source of choices that follow from a seed.
pub struct Choices(pub u64);

impl Choices {
    /// A number below this one.
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}
