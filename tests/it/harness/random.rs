//! Owns the random numbers of the tests: SplitMix64, so that one printed seed replays a run.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct Random(u64);

impl Random {
    /// From `RILL_TEST_SEED`, or from the clock. Printed, which shows when the test fails.
    pub(crate) fn from_environment() -> Random {
        let seed = match std::env::var("RILL_TEST_SEED") {
            Ok(text) => text.parse().expect("RILL_TEST_SEED is a number"),
            Err(_) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                since.expect("the clock is past 1970").as_micros() as u64
            }
        };
        println!("RILL_TEST_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`.
    pub(crate) fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// A generator of its own, for a thread of its own.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// `count` different numbers below `below`.
    pub(crate) fn choose(&mut self, count: usize, below: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..below).collect();
        for place in 0..count {
            let other = self.range(place, below - 1);
            all.swap(place, other);
        }
        all.truncate(count);
        all
    }
}
