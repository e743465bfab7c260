//! Owns the split-block Bloom filter that spares the writer a look at a segment's digests. Built and
//! asked by the segments; knows nothing of tables. It may claim a key that was never put in, and
//! never denies one that was.
//!
//! The block of a key is chosen by the key's high half and its bits by the low half, so keys that
//! come in order fill the blocks in order: a filter is written out while it is built.

/// One bit in each lane for a key: a look-up touches one cache line.
type Block = [u32; 8];

const BLOCK_BYTES: usize = size_of::<Block>();
const BITS_PER_KEY: usize = crate::config::FILTER_BITS_PER_EVENT;
/// As filters were made before; those are stored still.
const FORMER_BITS_PER_KEY: usize = 12;
/// Blocks stored as one row.
const PART_BLOCKS: usize = 1_024;

/// Odd multipliers that spread the low half of a key over the lanes, as in Apache Parquet.
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// What filters are asked about: a key, and its bits, which are the same in all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    key: u64,
    masks: Block,
}

impl Probe {
    pub(super) fn new(key: u64) -> Probe {
        Probe { key, masks: masks(key) }
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bloom {
    blocks: Vec<Block>,
}

impl Bloom {
    pub(super) fn for_keys(keys: usize) -> Bloom {
        Bloom::of_blocks(blocks_for(keys, BITS_PER_KEY))
    }

    /// An empty one for so many keys, of this size; `None` where there is none.
    pub(super) fn stored(keys: usize, bytes: usize) -> Option<Bloom> {
        [BITS_PER_KEY, FORMER_BITS_PER_KEY]
            .map(|bits_per_key| blocks_for(keys, bits_per_key))
            .into_iter()
            .find(|blocks| blocks * BLOCK_BYTES == bytes)
            .map(Bloom::of_blocks)
    }

    fn of_blocks(blocks: usize) -> Bloom {
        Bloom { blocks: vec![Block::default(); blocks] }
    }

    pub(super) fn bytes_for_keys(keys: usize) -> usize {
        blocks_for(keys, BITS_PER_KEY) * BLOCK_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    fn place(&self, key: u64) -> usize {
        (((key >> 32) * self.blocks.len() as u64) >> 32) as usize
    }

    pub(super) fn insert(&mut self, key: u64) {
        let at = self.place(key);
        for (lane, mask) in self.blocks[at].iter_mut().zip(masks(key)) {
            *lane |= mask;
        }
    }

    pub(super) fn may_contain(&self, probe: &Probe) -> bool {
        let block = &self.blocks[self.place(probe.key)];
        // Without a branch a lane, so that the compiler does several at once.
        let lanes = block.iter().zip(&probe.masks);
        lanes.fold(0, |missing, (lane, mask)| missing | (mask & !lane)) == 0
    }

    pub(super) fn parts(&self) -> usize {
        self.blocks.len().div_ceil(PART_BLOCKS)
    }

    /// The part that a key falls into; it rises with the key.
    pub(super) fn part_of(&self, key: u64) -> usize {
        self.place(key) / PART_BLOCKS
    }

    pub(super) fn part_bytes(&self, part: usize) -> Vec<u8> {
        let end = self.blocks.len().min((part + 1) * PART_BLOCKS);
        self.blocks[part * PART_BLOCKS..end]
            .iter()
            .flatten()
            .flat_map(|lane| lane.to_le_bytes())
            .collect()
    }

    /// Takes a part as `part_bytes` gave it; false if it is not of the part's size.
    pub(super) fn set_part(&mut self, part: usize, bytes: &[u8]) -> bool {
        let end = self.blocks.len().min((part + 1) * PART_BLOCKS);
        let Some(blocks) = self.blocks.get_mut(part * PART_BLOCKS..end) else { return false };
        if bytes.len() != blocks.len() * BLOCK_BYTES {
            return false;
        }
        let lanes = blocks.iter_mut().flatten();
        for (lane, bytes) in lanes.zip(bytes.chunks_exact(4)) {
            *lane = u32::from_le_bytes(bytes.try_into().expect("chunks of 4 bytes"));
        }
        true
    }
}

fn blocks_for(keys: usize, bits_per_key: usize) -> usize {
    (keys * bits_per_key).div_ceil(BLOCK_BYTES * 8).max(1)
}

fn masks(key: u64) -> Block {
    SALTS.map(|salt| 1 << ((key as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(from: u64, count: u64) -> impl Iterator<Item = u64> {
        (from..from + count).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()))
    }

    #[test]
    fn denies_no_key_put_in_and_claims_few_others() {
        let mut bloom = Bloom::for_keys(20_000);
        keys(0, 20_000).for_each(|key| bloom.insert(key));
        assert!(keys(0, 20_000).all(|key| bloom.may_contain(&Probe::new(key))));
        let others = keys(1 << 32, 20_000);
        let claimed = others.filter(|&key| bloom.may_contain(&Probe::new(key))).count();
        assert!(claimed < 20_000 / 200, "{claimed} of 20000 claimed");
    }

    #[test]
    fn parts_carry_the_whole_filter() {
        let formerly = |count| Bloom::of_blocks(blocks_for(count, FORMER_BITS_PER_KEY));
        let counts = [0, 1, 21, 30_000, 100_000].into_iter();
        for (count, mut bloom) in
            counts.flat_map(|count| [(count, Bloom::for_keys(count)), (count, formerly(count))])
        {
            keys(0, count as u64).for_each(|key| bloom.insert(key));
            let mut copy = Bloom::stored(count, bloom.bytes()).unwrap();
            for part in 0..bloom.parts() {
                assert!(copy.set_part(part, &bloom.part_bytes(part)));
            }
            assert_eq!(copy, bloom);
            assert!(!copy.set_part(bloom.parts(), &bloom.part_bytes(0)));
            assert!(!copy.set_part(0, &[0; 31]));
        }
        let bytes = Bloom::bytes_for_keys(100_000);
        assert_eq!(Bloom::stored(100_000, bytes), Some(Bloom::for_keys(100_000)));
        for other in [0, bytes - BLOCK_BYTES, bytes - 1, bytes + BLOCK_BYTES] {
            assert_eq!(Bloom::stored(100_000, other), None, "{other}");
        }
    }

    #[test]
    fn parts_rise_with_the_keys() {
        let bloom = Bloom::for_keys(100_000);
        let mut sorted: Vec<u64> = keys(0, 1_000).collect();
        sorted.sort_unstable();
        assert!(sorted.is_sorted_by_key(|&key| bloom.part_of(key)));
        assert_eq!(bloom.part_of(u64::MAX), bloom.parts() - 1);
    }
}
