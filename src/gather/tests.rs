//! What is gathered against a naive search of the same events, and what it costs.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::*;
use crate::event::Hash;
use crate::id::Id;
use crate::store::Survey;

/// The storage of each event, from `seq` 1 on; its hash is of its `seq`.
struct Log {
    events: Vec<u32>,
    ids: Vec<Id>,
    scanned: Cell<usize>,
    scanned_at_once_max: Cell<usize>,
    looked_up: Cell<usize>,
}

fn hash(seq: Seq) -> Hash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&seq.to_le_bytes());
    Hash(hash)
}

impl Log {
    fn new(storages: u32, events: Vec<u32>) -> Log {
        let ids = (0..storages).map(|n| Id::new(&format!("s{n}")).unwrap()).collect();
        let (scanned, scanned_at_once_max, looked_up) = Default::default();
        Log { events, ids, scanned, scanned_at_once_max, looked_up }
    }

    /// Counts anew.
    fn reset(&self) {
        for count in [&self.scanned, &self.scanned_at_once_max, &self.looked_up] {
            count.set(0);
        }
    }

    fn last(&self) -> Seq {
        self.events.len() as Seq
    }

    fn between(&self, after: Seq, to: Seq, direction: Direction) -> Vec<(Seq, u32)> {
        let to = to.min(self.last());
        let mut between: Vec<_> =
            (after + 1..=to).map(|seq| (seq, self.events[seq as usize - 1])).collect();
        if direction == Direction::NewestFirst {
            between.reverse();
        }
        between
    }
}

impl ReadLog for Log {
    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn end(&mut self) {}

    fn survey(&self, _: &Id, _: Seq) -> Result<Survey, StoreError> {
        unreachable!("a gathering counts nothing")
    }

    fn find(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.looked_up.update(|count| count + sources.len());
        let places: HashMap<&Id, usize> = sources.iter().map(|s| s.id).zip(0..).collect();
        for (seq, storage) in self.between(0, to, direction) {
            if let Some(&source) = places.get(&self.ids[storage as usize])
                && sources[source].after < seq
                && visit(Found { source, seq, hash: hash(seq) }).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn scan(
        &self,
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let before = self.scanned.get();
        for (seq, storage) in self.between(after, to, direction) {
            self.scanned.update(|count| count + 1);
            if visit(seq, self.ids[storage as usize].as_str(), hash(seq)).is_break() {
                break;
            }
        }
        self.scanned_at_once_max.update(|most| most.max(self.scanned.get() - before));
        Ok(())
    }

    fn values(
        &self,
        _: &[Seq],
        _: usize,
        _: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        unreachable!("a gathering reads no values")
    }
}

#[test]
fn a_scan_that_found_nearly_all_does_not_look_for_the_last_through_the_whole_log() {
    const NEAR: usize = 1_000;
    const LAST: usize = 100_000;
    let selected = 1_000;
    for direction in [Direction::OldestFirst, Direction::NewestFirst] {
        let mut events = vec![selected as u32; LAST];
        let near = match direction {
            Direction::OldestFirst => 0..NEAR,
            Direction::NewestFirst => LAST - NEAR..LAST,
        };
        events[near].fill(0);
        let log = Log::new(selected as u32 + 1, events);
        for most in [NEAR + 1, 2 * NEAR] {
            log.reset();
            let gathering = Gathering::new(direction, most, LAST as Seq);
            gather(&log, &vec![0; selected], &|_| false, gathering);
            let walk = selected * LOOK_UP_EVENTS;
            let scanned = log.scanned.get();
            assert!(scanned <= 2 * walk + SCANNED_EVENTS, "{scanned} were scanned");
            assert!(log.looked_up.get() > 0);
        }
    }
}

/// Of the storages `0..afters.len()`, each past its own event; what `leaves_out` names is left out.
fn gather(
    log: &Log,
    afters: &[Seq],
    leaves_out: &dyn Fn(&Hash) -> bool,
    mut gathering: Gathering,
) -> Gathering {
    let ids = log.ids.clone();
    let storages = Storages {
        count: afters.len(),
        source: &|place| Source { id: &ids[place], after: afters[place] },
        leaves_out: &|found| leaves_out(&found.hash),
    };
    while gathering.step(log, &storages).unwrap() {}
    gathering
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[test]
fn what_is_gathered_is_what_a_naive_search_finds() {
    let mut random = Random(1);
    let (mut scans, mut walks, mut both) = (0, 0, 0);
    for round in 0..200 {
        let selected = 1 + random.below(400) as usize;
        let others = [0, 10, 1_000, 100_000][random.below(4) as usize];
        let storages = selected as u64 + others;
        let last = random.below(12_000);
        let events = (0..last).map(|_| random.below(storages) as u32).collect();
        let log = Log::new(storages as u32, events);
        let start = random.below(last + 1);
        let afters: Vec<Seq> = (0..selected)
            .map(|_| if random.below(3) == 0 { random.below(last + 1) } else { start })
            .collect();
        let kept_of = random.below(4);
        let leaves_out =
            |hash: &Hash| kept_of > 0 && u64::from(hash.0[0]).is_multiple_of(kept_of + 1);
        let to = last - random.below(last / 10 + 1);
        let most_max = [3, 100, 3_000][random.below(3) as usize];
        let most = 1 + random.below(most_max) as usize;
        for direction in [Direction::OldestFirst, Direction::NewestFirst] {
            let looked_at: Vec<(Seq, usize)> = log
                .between(0, to, direction)
                .into_iter()
                .map(|(seq, storage)| (seq, storage as usize))
                .filter(|(seq, storage)| afters.get(*storage).is_some_and(|after| after < seq))
                .collect();
            let mut expected = looked_at.clone();
            expected.retain(|(seq, _)| !leaves_out(&hash(*seq)));
            expected.truncate(most);

            log.reset();
            let gathering = Gathering::new(direction, most, to);
            let gathering = gather(&log, &afters, &leaves_out, gathering);
            let what = format!("round {round}, {direction:?}");
            assert_eq!(gathering.is_full(), expected.len() == most, "{what}");
            if direction == Direction::NewestFirst || !gathering.is_full() {
                let newest = looked_at.iter().map(|(seq, _)| *seq).max().unwrap_or(0);
                assert_eq!(gathering.newest(), newest, "{what}");
            }
            assert_eq!(gathering.into_found(), expected, "{what}");
            assert!(log.scanned_at_once_max.get() <= SCANNED_EVENTS, "{what}");
            match (log.scanned.get() > 0, log.looked_up.get() > 0) {
                (true, true) => both += 1,
                (false, true) => walks += 1,
                (_, false) => scans += 1,
            }
        }
    }
    assert!(scans > 50 && both > 50, "{scans} scans, {walks} walks, {both} of both");
}

#[test]
fn the_log_is_scanned_where_that_is_less() {
    const LAST: u64 = 40_000;
    const SELECTED: u64 = 1_000;
    let walk = SELECTED as usize * LOOK_UP_EVENTS;
    // How many other storages there are, past which event, how many are wanted: how much is scanned at
    // most, and whether storages are looked up.
    let cases: [(u64, Seq, usize, usize, bool); 6] = [
        // All of the log is wanted.
        (0, 0, 1_024, 1_024, false),
        // A tenth of it.
        (9 * SELECTED, 0, 100, 2_000, false),
        // So little of it that much would have to be scanned.
        (9 * SELECTED, 0, 1_024, walk / 8 + 1, true),
        (1_000 * SELECTED, 0, 100, walk / 8 + 1, true),
        // There is little.
        (1_000 * SELECTED, LAST - 100, 1_024, 100, false),
        (1_000 * SELECTED, LAST, 1_024, 0, false),
    ];
    for (others, after, most, scanned_max, looked_up) in cases {
        for direction in [Direction::OldestFirst, Direction::NewestFirst] {
            let mut random = Random(2);
            let storages = SELECTED + others;
            let events = (0..LAST).map(|_| random.below(storages) as u32).collect();
            let log = Log::new(storages as u32, events);
            let gathering = Gathering::new(direction, most, LAST);
            gather(&log, &[after; SELECTED as usize], &|_| false, gathering);
            let what = format!("{most} of {others} others past {after}, {direction:?}");
            let scanned = log.scanned.get();
            assert!(scanned <= scanned_max, "{what}: {scanned} were scanned");
            assert_eq!(log.looked_up.get() > 0, looked_up, "{what}");
        }
    }
}
