//! Owns version 1, the inverse Bloom filter: a cuckoo table of fingerprints. It may fail to know an
//! event that its maker put in, and does not claim one that was not. Called through `filter` by the
//! readers. Does not store whole hashes: the client finds its own events by their entries.

use std::fmt;

use super::{Entry, HEAD_BYTES, Head, Key, Version, field};
use crate::config::FILTER_EVENTS_MAX;
use crate::event::Hash;

const SLOTS: usize = 4;
const SLOT_BYTES: usize = 6;
pub(super) const BUCKET_BYTES: usize = SLOTS * SLOT_BYTES;
const SLOT_MASK: u64 = (1 << (8 * SLOT_BYTES)) - 1;

/// Moves to make room for one event before a seed is given up. With so many a seed fails one time in
/// ten for the smallest tables that are nearly full, and was not seen to from 10,000 events on.
const MOVES_MAX: usize = 2_000;

/// As many buckets as load the table to 95 %. There is always a slot for each of `count` events.
pub(super) fn buckets_for(count: u64) -> u64 {
    count * 21 / 80 + 1
}

/// Fingerprints of a set of events.
#[derive(Clone, PartialEq, Eq)]
pub struct InverseBloom {
    count: u64,
    seed: u64,
    /// Buckets of `SLOTS` fingerprints, as they are sent; 0 is an empty slot.
    table: Box<[u8]>,
}

impl InverseBloom {
    pub(super) fn from_parts(head: &Head, table: Vec<u8>) -> InverseBloom {
        InverseBloom { count: head.count, seed: head.seed, table: table.into() }
    }

    /// A filter for the larger of `count` and the number of hashes, that contains every hash. Seeds
    /// are drawn from `random` until one has room for all: 1.1 of them on average, at the worst count.
    ///
    /// # Panics
    /// When that is more than `FILTER_EVENTS_MAX`: nobody could decode it.
    pub fn build(hashes: &[Hash], count: u64, mut random: impl FnMut() -> u64) -> InverseBloom {
        let count = count.max(hashes.len() as u64);
        assert!(count <= FILTER_EVENTS_MAX, "a filter that nobody could decode is not made");
        loop {
            let mut cuckoo = Cuckoo::new(count, random());
            if hashes.iter().all(|hash| cuckoo.insert(hash)) {
                return cuckoo.finish(count);
            }
        }
    }

    /// What a filter for `count` events has before base64.
    pub fn encoded_bytes(count: u64) -> u64 {
        HEAD_BYTES as u64 + buckets_for(count) * BUCKET_BYTES as u64
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What it holds in memory, near enough.
    pub fn bytes(&self) -> usize {
        self.table.len()
    }

    /// Whether its maker put the event in. Never true by chance (3 × 10⁻¹⁴, and with another seed
    /// not again); false also for events that the maker could not place.
    pub fn contains(&self, hash: &Hash) -> bool {
        let place = Place::of(Key::of(hash, self.seed), self.buckets().len());
        place.buckets.iter().any(|&bucket| self.slots(bucket).contains(&place.fingerprint))
    }

    /// What its maker put in.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.buckets().len())
            .flat_map(|bucket| self.slots(bucket))
            .filter(|&fingerprint| fingerprint != 0)
            .map(Entry)
    }

    pub fn encode(&self) -> String {
        let size = self.buckets().len() as u32;
        Head { version: Version::InverseBloom, size, count: self.count, seed: self.seed }
            .encode_with(&self.table)
    }

    fn buckets(&self) -> &[[u8; BUCKET_BYTES]] {
        let (buckets, rest) = self.table.as_chunks();
        debug_assert!(rest.is_empty(), "a table is whole buckets");
        buckets
    }

    /// Four fingerprints of 6 bytes out of three words of 8.
    fn slots(&self, bucket: usize) -> [u64; SLOTS] {
        let bytes = &self.buckets()[bucket];
        let [x, y, z] = [0, 8, 16].map(|at| u64::from_le_bytes(field(bytes, at)));
        [x, (x >> 48) | (y << 16), (y >> 32) | (z << 32), z >> 16].map(|slot| slot & SLOT_MASK)
    }
}

/// The table is megabytes.
impl fmt::Debug for InverseBloom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InverseBloom {{ count: {}, seed: {:016x}, .. }}", self.count, self.seed)
    }
}

/// What is kept of an event's `a`; 0 means that there is no event.
fn fingerprint(a: u64) -> u64 {
    (a >> 16).max(1)
}

/// Where an event may stand.
struct Place {
    fingerprint: u64,
    buckets: [usize; 2],
}

impl Place {
    fn of(key: Key, buckets: usize) -> Place {
        let scale = |half: u32| ((u64::from(half) * buckets as u64) >> 32) as usize;
        Place {
            fingerprint: fingerprint(key.a),
            buckets: [scale(key.b as u32), scale((key.b >> 32) as u32)],
        }
    }
}

/// A filter, and which of its entries an event was seen for.
#[derive(Clone, Debug)]
pub struct Matching {
    filter: InverseBloom,
    /// For each bucket, one bit a slot.
    matched: Box<[u8]>,
}

impl Matching {
    pub fn new(filter: InverseBloom) -> Matching {
        let matched = vec![0; filter.buckets().len()].into();
        Matching { filter, matched }
    }

    pub fn filter(&self) -> &InverseBloom {
        &self.filter
    }

    /// As `contains` of the filter; the event's entries are matched from now on.
    pub fn contains(&mut self, hash: &Hash) -> bool {
        let place = Place::of(Key::of(hash, self.filter.seed), self.matched.len());
        let mut contained = false;
        for bucket in place.buckets {
            for (slot, fingerprint) in self.filter.slots(bucket).into_iter().enumerate() {
                if fingerprint == place.fingerprint {
                    self.matched[bucket] |= 1 << slot;
                    contained = true;
                }
            }
        }
        contained
    }

    /// The entries that no event matched, from a position on, 0 at first; with each, the position
    /// to carry on from after it.
    pub fn unmatched(&self, from: usize) -> impl Iterator<Item = (usize, Entry)> {
        (from..self.matched.len() * SLOTS).filter_map(|position| {
            let (bucket, slot) = (position / SLOTS, position % SLOTS);
            let fingerprint = self.filter.slots(bucket)[slot];
            let matched = self.matched[bucket] & (1 << slot) != 0;
            (fingerprint != 0 && !matched).then_some((position + 1, Entry(fingerprint)))
        })
    }
}

/// A table in the making. It holds the whole `a` of each event, from which the event's other bucket
/// follows when it has to move. 0 is an empty slot.
struct Cuckoo {
    seed: u64,
    buckets: Vec<[u64; SLOTS]>,
    /// Says which entry moves next: a generator of its own, as draws from a good one cost more than
    /// the moves.
    walk: u64,
}

impl Cuckoo {
    fn new(count: u64, seed: u64) -> Cuckoo {
        Cuckoo { seed, buckets: vec![[0; SLOTS]; buckets_for(count) as usize], walk: seed }
    }

    /// Whether there was room. Events of one `a` share their buckets, and so one entry does for
    /// them wherever it moves; those of one fingerprint only each get their own.
    fn insert(&mut self, hash: &Hash) -> bool {
        let mut key = Key::of(hash, self.seed);
        if key.a == 0 {
            return false;
        }
        let [first, second] = self.places(key);
        if self.buckets[first].contains(&key.a) || self.buckets[second].contains(&key.a) {
            return true;
        }
        if self.put(first, key.a) || self.put(second, key.a) {
            return true;
        }
        let mut bucket = second;
        for _ in 0..MOVES_MAX {
            let slot = self.next_slot();
            let moved = std::mem::replace(&mut self.buckets[bucket][slot], key.a);
            key = Key::from_a(moved, self.seed);
            let [first, second] = self.places(key);
            bucket = if bucket == first { second } else { first };
            if self.put(bucket, moved) {
                return true;
            }
        }
        false
    }

    fn places(&self, key: Key) -> [usize; 2] {
        Place::of(key, self.buckets.len()).buckets
    }

    fn put(&mut self, bucket: usize, a: u64) -> bool {
        let free = self.buckets[bucket].iter_mut().find(|slot| **slot == 0);
        free.map(|slot| *slot = a).is_some()
    }

    /// A linear congruential generator (Knuth's MMIX), of which the highest bits are the best.
    fn next_slot(&mut self) -> usize {
        self.walk = self
            .walk
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.walk >> 62) as usize
    }

    fn finish(self, count: u64) -> InverseBloom {
        let mut table = Vec::with_capacity(self.buckets.len() * BUCKET_BYTES);
        for &a in self.buckets.as_flattened() {
            let fingerprint = if a == 0 { 0 } else { fingerprint(a) };
            table.extend_from_slice(&fingerprint.to_le_bytes()[..SLOT_BYTES]);
        }
        InverseBloom { count, seed: self.seed, table: table.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::tests::Random;
    use super::*;

    fn build(hashes: &[Hash], count: u64, random: &mut Random) -> InverseBloom {
        InverseBloom::build(hashes, count, || random.next())
    }

    fn fingerprints(hashes: &[Hash], seed: u64) -> HashSet<Entry> {
        hashes.iter().map(|hash| Entry(fingerprint(Key::of(hash, seed).a))).collect()
    }

    /// Holds every hash, claims none of the others, and stands for exactly the hashes.
    fn check(hashes: &[Hash], count: u64, random: &mut Random) {
        let filter = build(hashes, count, random);
        let absent = random.hashes(20);
        assert!(hashes.iter().all(|hash| filter.contains(hash)), "{} lost some", hashes.len());
        assert!(!absent.iter().any(|hash| filter.contains(hash)), "{} claims", hashes.len());
        assert_eq!(filter.entries().collect::<HashSet<_>>(), fingerprints(hashes, filter.seed));
        assert_eq!(filter.entries().count(), hashes.len());
        assert_eq!(filter.count(), count.max(hashes.len() as u64));
        let bytes = InverseBloom::encoded_bytes(filter.count());
        assert_eq!(filter.encode().len() as u64, bytes / 3 * 4);
    }

    #[test]
    fn no_event_is_lost_at_any_small_count() {
        let mut random = Random(1);
        for count in 0..=200 {
            for _ in 0..30 {
                let hashes = random.hashes(count);
                check(&hashes, count as u64, &mut random);
            }
        }
    }

    #[test]
    fn no_event_is_lost_among_many() {
        let mut random = Random(2);
        for (events, count) in [(1_000, 1_000), (100_000, 100_000), (100_000, 0), (50, 10_000)] {
            let hashes = random.hashes(events);
            check(&hashes, count, &mut random);
        }
    }

    #[test]
    fn a_seed_without_room_is_replaced() {
        let mut random = Random(3);
        let hashes = random.hashes(19);
        let mut drawn = 0;
        for _ in 0..1_000 {
            InverseBloom::build(&hashes, 19, || {
                drawn += 1;
                random.next()
            });
        }
        assert!((1_020..1_200).contains(&drawn), "{drawn} seeds for 1000 filters");
    }

    #[test]
    fn the_same_event_many_times_takes_one_slot() {
        let mut random = Random(4);
        let one = random.hash();
        let filter = build(&[one; 1_000], 3, &mut random);
        assert!(filter.contains(&one));
        assert_eq!(filter.entries().count(), 1);
        assert_eq!(filter.count(), 1_000);
    }

    #[test]
    #[should_panic(expected = "a filter that nobody could decode")]
    fn a_filter_over_the_limit_is_not_made() {
        InverseBloom::build(&[], FILTER_EVENTS_MAX + 1, || 0);
    }

    /// Both lists of a comparison are exact, in as many pieces as one likes.
    #[test]
    fn two_sets_are_told_apart() {
        let mut random = Random(5);
        for (common, client, server) in
            [(0, 0, 0), (0, 5, 0), (0, 0, 5), (40, 1, 1), (30, 20, 10), (500, 100, 300)]
        {
            let both = random.hashes(common);
            let [only_client, only_server] = [client, server].map(|count| random.hashes(count));
            let at_client = [&both[..], &only_client].concat();
            let filter = build(&at_client, (common + client.max(server)) as u64, &mut random);
            let seed = filter.seed;
            let mut matching = Matching::new(filter);
            assert!(both.iter().all(|hash| matching.contains(hash)));
            assert!(!only_server.iter().any(|hash| matching.contains(hash)));

            let whole: Vec<_> = matching.unmatched(0).collect();
            let entries: HashSet<_> = whole.iter().map(|&(_, entry)| entry).collect();
            assert_eq!(entries, fingerprints(&only_client, seed));
            assert_eq!(whole.len(), only_client.len());
            for (at, &(position, _)) in whole.iter().enumerate() {
                assert!(matching.unmatched(position).eq(whole[at + 1..].iter().copied()));
            }
        }
    }

    #[test]
    fn slots_are_the_six_byte_numbers_of_a_bucket() {
        let table: Vec<u8> = (1..=48).collect();
        let head = Head { version: Version::InverseBloom, size: 2, count: 4, seed: 0 };
        let filter = InverseBloom::from_parts(&head, table);
        let expected = [0x0605_0403_0201, 0x0c0b_0a09_0807, 0x1211_100f_0e0d, 0x1817_1615_1413];
        assert_eq!(filter.slots(0), expected);
        assert_eq!(filter.slots(1), expected.map(|slot| slot + 0x1818_1818_1818));
    }
}
