//! Owns version 2, the rateless sketch: xors of events in cells, from which the difference of two
//! sets can be peeled, at a cost that follows the difference (Yang, Gilad, Alizadeh, "Practical
//! Rateless Set Reconciliation", SIGCOMM 2024). Called through `filter` by the readers. Does not know
//! whose a peeled event is: that party knows its own.

use std::fmt;

use super::{Entry, Head, Key, Version, field};
use crate::config::SKETCH_CELLS_MAX;
use crate::event::Hash;

pub(super) const CELL_BYTES: usize = 12;

/// How many cells to try after a sketch of `size` did not decode; none where that is too many.
pub fn next_cells(size: u32) -> Option<u32> {
    size.checked_mul(4).filter(|&cells| cells <= SKETCH_CELLS_MAX)
}

/// The xor of the events mapped to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    a: u64,
    check: u32,
}

impl Cell {
    fn is_zero(self) -> bool {
        self == Cell::default()
    }
}

/// Cells of events under a seed. Xor is its own inverse: what is toggled twice is not there.
#[derive(Clone, PartialEq, Eq)]
struct Cells {
    seed: u64,
    cells: Box<[Cell]>,
}

impl Cells {
    fn toggle(&mut self, key: Key) {
        for index in Places::of(key, self.cells.len()) {
            let cell = &mut self.cells[index];
            cell.a ^= key.a;
            cell.check ^= (key.b >> 32) as u32;
        }
    }

    /// The event that is alone in a cell. A zero cell holds none, even under a seed that would have
    /// it pass for the event whose `a` is 0.
    fn alone(&self, index: usize) -> Option<Key> {
        let cell = self.cells[index];
        if cell.is_zero() {
            return None;
        }
        let key = Key::from_a(cell.a, self.seed);
        let is_event = (key.b >> 32) as u32 == cell.check
            && Places::of(key, self.cells.len()).any(|place| place == index);
        is_event.then_some(key)
    }
}

/// The cells of an event, the first of them 0, further and further apart. The arithmetic is part of
/// the wire format: IEEE doubles, each operation rounded as written.
struct Places {
    index: f64,
    size: f64,
    r: u64,
}

impl Places {
    fn of(key: Key, size: usize) -> Places {
        Places { index: 0.0, size: size as f64, r: key.b }
    }
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.index >= self.size {
            return None;
        }
        let index = self.index;
        self.r = self.r.wrapping_mul(0xda94_2042_e4dd_58b5);
        self.index = index_after(index, self.r);
        Some(index as usize)
    }
}

/// The next place after `index`, which is what `exact_index_after` says, in half the time: with
/// `index + ceil((index + 1.5) × (q − 1))` = `round((index + 1.5) × q) − 1`, only three roundings
/// stand between one index and the next. Where they could matter, next to a half, they do not count.
fn index_after(index: f64, r: u64) -> f64 {
    /// Added to a small number, it leaves no place for a fraction.
    const ROUNDER: f64 = 1.5 * (1_u64 << 52) as f64;
    /// The results differ by less than 2⁻³⁶ before rounding, below the most cells there are.
    const UNSURE: f64 = 0.5 - 1.0 / (1 << 30) as f64;

    let scaled = (index + 1.5) * quotient(r);
    let rounded = (scaled + ROUNDER) - ROUNDER;
    if (scaled - rounded).abs() > UNSURE {
        return exact_index_after(index, r);
    }
    rounded - 1.0
}

#[cold]
fn exact_index_after(index: f64, r: u64) -> f64 {
    index + ((index + 1.5) * (quotient(r) - 1.0)).ceil().max(1.0)
}

fn quotient(r: u64) -> f64 {
    4_294_967_296.0 / (r as f64 + 1.0).sqrt()
}

/// A set of events, as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Sketch {
    count: u64,
    cells: Cells,
}

impl Sketch {
    /// A sketch of no events.
    ///
    /// # Panics
    /// When `size` is not 1 to `SKETCH_CELLS_MAX`: nobody could decode it.
    pub fn new(size: u32, seed: u64) -> Sketch {
        assert!((1..=SKETCH_CELLS_MAX).contains(&size), "a sketch that nobody could decode");
        let cells = vec![Cell::default(); size as usize].into();
        Sketch { count: 0, cells: Cells { seed, cells } }
    }

    pub(super) fn from_parts(head: &Head, body: &[u8]) -> Sketch {
        let (cells, rest) = body.as_chunks::<CELL_BYTES>();
        debug_assert!(rest.is_empty(), "a body is whole cells");
        let cells = cells.iter().map(|bytes| Cell {
            a: u64::from_le_bytes(field(bytes, 0)),
            check: u32::from_le_bytes(field(bytes, 8)),
        });
        Sketch { count: head.count, cells: Cells { seed: head.seed, cells: cells.collect() } }
    }

    /// Puts in an event that is not in yet.
    pub fn add(&mut self, hash: &Hash) {
        self.count += 1;
        self.cells.toggle(Key::of(hash, self.cells.seed));
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn seed(&self) -> u64 {
        self.cells.seed
    }

    /// The number of its cells.
    pub fn size(&self) -> u32 {
        self.cells.cells.len() as u32
    }

    /// What it holds in memory, near enough.
    pub fn bytes(&self) -> usize {
        size_of_val::<[Cell]>(&self.cells.cells)
    }

    pub fn encode(&self) -> String {
        let mut body = Vec::with_capacity(self.cells.cells.len() * CELL_BYTES);
        for cell in &self.cells.cells {
            body.extend_from_slice(&cell.a.to_le_bytes());
            body.extend_from_slice(&cell.check.to_le_bytes());
        }
        Head { version: Version::Sketch, size: self.size(), count: self.count, seed: self.seed() }
            .encode_with(&body)
    }

    /// The difference to no events at all; the receiver adds its own.
    pub fn into_difference(self) -> Difference {
        Difference { cells: self.cells }
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Sketch {{ count: {}, size: {}, seed: {:016x}, .. }}",
            self.count,
            self.size(),
            self.seed()
        )
    }
}

/// A sketch that the receiver's events are xored into: those of both parties vanish.
#[derive(Clone)]
pub struct Difference {
    cells: Cells,
}

impl Difference {
    /// Adds one of the receiver's events; each once.
    pub fn add(&mut self, hash: &Hash) {
        self.cells.toggle(Key::of(hash, self.cells.seed));
    }

    /// The events that one party has alone, or none if there are too many for the cells. Whatever
    /// the cells hold, no more events are peeled than there are cells.
    pub fn peel(mut self) -> Option<Peeled> {
        let size = self.cells.cells.len();
        let mut peeled = Vec::new();
        let mut waiting: Vec<usize> = (0..size).collect();
        while let Some(index) = waiting.pop() {
            let Some(key) = self.cells.alone(index) else { continue };
            if peeled.len() == size {
                return None;
            }
            peeled.push(key.a);
            self.cells.toggle(key);
            waiting.extend(Places::of(key, size));
        }
        let decoded = self.cells.cells.iter().all(|cell| cell.is_zero());
        decoded.then(|| Peeled::new(self.cells.seed, peeled))
    }
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, seed) = (self.cells.cells.len(), self.cells.seed);
        write!(f, "Difference {{ size: {size}, seed: {seed:016x}, .. }}")
    }
}

/// The events that one party has alone. They are the sender's until the receiver claims its own.
#[derive(Clone, Debug)]
pub struct Peeled {
    seed: u64,
    /// Rising. A search needs no hash table that chosen values could fill unevenly.
    entries: Box<[Entry]>,
    claimed: Box<[bool]>,
}

impl Peeled {
    /// What was peeled twice went in as it came out, so that it is in no difference.
    fn new(seed: u64, mut peeled: Vec<u64>) -> Peeled {
        peeled.sort_unstable();
        let entries: Box<[Entry]> = peeled
            .chunk_by(|x, y| x == y)
            .filter(|same| same.len() % 2 == 1)
            .map(|same| Entry(same[0]))
            .collect();
        let claimed = vec![false; entries.len()].into();
        Peeled { seed, entries, claimed }
    }

    /// Whether an event of the receiver's is one that the sender lacks.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.find(hash).is_some()
    }

    /// As `contains`; the entry is the receiver's from now on.
    pub fn claim(&mut self, hash: &Hash) -> bool {
        let found = self.find(hash);
        if let Some(at) = found {
            self.claimed[at] = true;
        }
        found.is_some()
    }

    /// The entries that were not claimed: once all of the receiver's events were tried, what the
    /// receiver lacks. From a position on, 0 at first; with each, the position to carry on from
    /// after it.
    pub fn unclaimed(&self, from: usize) -> impl Iterator<Item = (usize, Entry)> {
        (from..self.entries.len())
            .filter(|&at| !self.claimed[at])
            .map(|at| (at + 1, self.entries[at]))
    }

    fn find(&self, hash: &Hash) -> Option<usize> {
        let key = Key::of(hash, self.seed);
        self.entries.binary_search(&Entry(key.a)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::tests::Random;
    use super::*;

    /// What peeling says: the receiver's own events that the sender lacks, and the other entries.
    fn compare(theirs: &[Hash], own: &[Hash], size: u32, seed: u64) -> Option<Sides> {
        let mut sketch = Sketch::new(size, seed);
        theirs.iter().for_each(|hash| sketch.add(hash));
        let mut difference = sketch.into_difference();
        own.iter().for_each(|hash| difference.add(hash));
        let mut peeled = difference.peel()?;
        let claimed = own.iter().filter(|hash| peeled.claim(hash)).copied().collect();
        let unclaimed = peeled.unclaimed(0).map(|(_, entry)| entry).collect();
        Some((claimed, unclaimed))
    }

    type Sides = (Vec<Hash>, HashSet<Entry>);

    fn entries(hashes: &[Hash], seed: u64) -> HashSet<Entry> {
        hashes.iter().map(|hash| Entry(Key::of(hash, seed).a)).collect()
    }

    #[test]
    fn a_difference_is_found_with_a_half_more_cells_than_it_has_events() {
        let mut random = Random(1);
        let mut failed = 0;
        for round in 0..200 {
            let both = random.hashes([0, 1, 300, 2_000][round % 4]);
            let limit = [1, 10, 100, 1_000][round / 4 % 4] + 1;
            let [only_theirs, only_own] = [(); 2].map(|()| {
                let count = random.next() % limit;
                random.hashes(count as usize)
            });
            let theirs = [&both[..], &only_theirs].concat();
            let own = [&both[..], &only_own].concat();
            let size = 48 + (only_theirs.len() + only_own.len()) as u32 * 3 / 2;
            let seed = random.next();
            match compare(&theirs, &own, size, seed) {
                Some(sides) => assert_eq!(sides, (only_own, entries(&only_theirs, seed))),
                None => failed += 1,
            }
        }
        assert!(failed <= 2, "{failed} of 200 did not decode");
    }

    #[test]
    fn too_large_a_difference_is_noticed() {
        let mut random = Random(2);
        for size in [1, 2, 10, 100, 1_000] {
            let theirs = random.hashes(size as usize * 2);
            assert_eq!(compare(&theirs, &[], size, random.next()), None, "{size} cells");
        }
    }

    #[test]
    fn no_more_events_are_peeled_than_there_are_cells() {
        let mut random = Random(3);
        let seed = random.next();
        for size in [1, 2, 50] {
            let one = random.hash();
            let sides = compare(&[one], &[], size, seed);
            assert_eq!(sides, Some((vec![], entries(&[one], seed))), "{size} cells");
        }
        // Where all but one of its cells say that the event is alone there, taking it out of them
        // puts it into the one that lacked it, and so on without end.
        let key = Key::of(&random.hash(), seed);
        let cell = Cell { a: key.a, check: (key.b >> 32) as u32 };
        let listed: Vec<usize> = Places::of(key, 64).collect();
        assert!(listed.len() > 2);
        for missing in &listed[1..] {
            let mut cells = vec![Cell::default(); 64];
            listed.iter().filter(|&index| index != missing).for_each(|&index| cells[index] = cell);
            let cells = Cells { seed, cells: cells.into() };
            assert!(Difference { cells }.peel().is_none(), "without cell {missing}");
        }
    }

    #[test]
    fn an_event_counts_only_in_its_own_cells() {
        let mut random = Random(4);
        let seed = random.next();
        let key = Key::of(&random.hash(), seed);
        let listed: Vec<usize> = Places::of(key, 64).collect();
        for index in 0..64 {
            let mut cells = vec![Cell::default(); 64];
            cells[index] = Cell { a: key.a, check: (key.b >> 32) as u32 };
            let cells = Cells { seed, cells: cells.into() };
            assert_eq!(cells.alone(index).is_some(), listed.contains(&index), "cell {index}");
        }
    }

    /// Under this seed, found by trying, a cell of zeros has the check of the event 0.
    #[test]
    fn a_cell_of_zeros_holds_no_event_whatever_the_seed() {
        let seed = 0x1c44_4942;
        assert_eq!(Key::from_a(0, seed).b >> 32, 0);
        let sides = compare(&[], &[], 4, seed);
        assert_eq!(sides, Some((vec![], HashSet::new())));
    }

    #[test]
    fn what_was_peeled_twice_is_in_no_difference() {
        let peeled = Peeled::new(0, vec![5, 3, 5, 9, 9, 9]);
        assert!(peeled.unclaimed(0).eq([(1, Entry(3)), (2, Entry(9))]));
        assert!(peeled.unclaimed(1).eq([(2, Entry(9))]));
    }

    #[test]
    fn any_cells_at_all_are_peeled_to_an_end() {
        let mut random = Random(5);
        let mut decoded = 0;
        for round in 0..2_000 {
            let seed = random.next();
            let size = 1 + random.next() as usize % if round % 2 == 0 { 4 } else { 200 };
            // Few different events, so that many cells pass for one.
            let events: Vec<Key> = (0..3).map(|_| Key::of(&random.hash(), seed)).collect();
            let cells = (0..size).map(|_| {
                let Key { a, b } = events[random.next() as usize % events.len()];
                let noise = if random.next().is_multiple_of(4) { random.next() } else { 0 };
                Cell { a: a ^ noise, check: (b >> 32) as u32 }
            });
            let cells = Cells { seed, cells: cells.collect() };
            if let Some(peeled) = (Difference { cells: cells.clone() }).peel() {
                decoded += 1;
                let mut again = cells;
                for (_, entry) in peeled.unclaimed(0) {
                    again.toggle(Key::from_a(entry.0, seed));
                }
                assert!(again.cells.iter().all(|cell| cell.is_zero()), "round {round}");
            }
        }
        assert!((50..1_000).contains(&decoded), "{decoded} of 2000 decoded");
    }

    #[test]
    fn the_places_of_an_event_are_those_of_the_formula() {
        let mut random = Random(6);
        for b in (0..10_000).map(|_| random.next()).chain([0, 1, u64::MAX]) {
            let (mut r, mut index, mut expected) = (b, 0.0_f64, Vec::new());
            while index < 32_768.0 {
                expected.push(index as usize);
                r = r.wrapping_mul(0xda942042e4dd58b5);
                index += ((index + 1.5) * (2_f64.powi(32) / (r as f64 + 1.0).sqrt() - 1.0))
                    .ceil()
                    .max(1.0);
            }
            assert!(Places::of(Key { a: 0, b }, 32_768).eq(expected), "{b}");
        }
    }

    /// Around every `r` at which a gap grows by one, where a rounding could go either way.
    #[test]
    fn the_next_place_is_exact_where_a_gap_changes() {
        let mut random = Random(7);
        for round in 0..20_000 {
            let index = if round < 1_000 { 0 } else { random.next() % 32_768 } as f64;
            let gap = (random.next() % 40) as f64;
            let q = gap / (index + 1.5) + 1.0;
            let edge = (2_f64.powi(64) / (q * q)) as u64;
            for r in (-20..=20).map(|step: i64| edge.saturating_add_signed(step * step * step)) {
                assert_eq!(index_after(index, r), exact_index_after(index, r), "{index} {r}");
            }
        }
    }

    #[test]
    fn four_times_the_cells_are_tried_next_up_to_the_limit() {
        for (size, next) in
            [(1, Some(4)), (8_192, Some(32_768)), (8_193, None), (32_768, None), (u32::MAX, None)]
        {
            assert_eq!(next_cells(size), next, "{size}");
        }
    }
}
