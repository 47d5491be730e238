//! Random numbers that are the same everywhere and always: SplitMix64 (Steele, Lea and Flood, 2014).

/// A source of them.
pub(super) struct Draw(u64);

impl Draw {
    /// The source of an episode: those of two episodes or seeds have nothing to do with each other.
    pub(super) fn new(seed: u64, episode: u64) -> Self {
        let mut draw = Self(seed);
        let first = draw.next();
        Self(first ^ episode.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `from` … `to`.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// True so many times in a hundred.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    /// One of them.
    pub(super) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize].clone()
    }
}
