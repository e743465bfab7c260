//! Owns the choice of storages: numbers that are the same in every run. Called by `run` and `read`.

/// xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        const START: u64 = 0x2545_f491_4f6c_dd1d;
        // From zero it would never get away.
        Random((START ^ seed).max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// All numbers below `count`, in disorder (Fisher-Yates).
    pub(crate) fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for left in (2..=count).rev() {
            numbers.swap(left - 1, (self.next() % left as u64) as usize);
        }
        numbers
    }
}
