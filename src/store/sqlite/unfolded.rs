//! Owns the events that no segment holds yet, on the writing side: enough of each to know a value
//! again, and to fold it. Called by the writer and by folds; rebuilt from the log at start. Those that
//! a segment holds by now leave one by one, as others come: thousands at once would keep a commit.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::event::{Hash, Seq};
use crate::id::StorageKey;

/// What a value is looked up by. Two values of one digest are told apart by what they are.
pub(super) fn digest_of(storage: StorageKey, hash: &Hash) -> u64 {
    let seed = storage.0[..8].try_into().expect("8 of 16 bytes");
    xxh3_64_with_seed(&hash.0, u64::from_le_bytes(seed))
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) storage: StorageKey,
    pub(super) hash: Hash,
    pub(super) digest: u64,
    /// The event before it with the same digest; it may be folded already.
    previous: Seq,
}

/// Folded events that leave for one that comes: more than one, so that all do.
const LEAVING: usize = 2;

/// Consecutive events.
#[derive(Debug)]
pub(super) struct Unfolded {
    /// How far the segments reach.
    mark: Seq,
    /// The first of `entries`, of which those up to the mark are leaving.
    oldest: Seq,
    entries: VecDeque<Entry>,
    newest: Newest,
}

/// The newest event of each digest. Clients can know the digests, but not where they stand here:
/// that takes the seed, too.
#[derive(Debug)]
struct Newest {
    seed: u64,
    table: HashTable<(u64, Seq)>,
}

impl Newest {
    fn new() -> Newest {
        Newest { seed: RandomState::new().hash_one(0), table: HashTable::new() }
    }

    fn get(&self, digest: u64) -> Option<Seq> {
        self.table.find(placing(self.seed, digest), |entry| entry.0 == digest).map(|entry| entry.1)
    }

    /// Returns the one that was the newest.
    fn insert(&mut self, digest: u64, seq: Seq) -> Option<Seq> {
        let seed = self.seed;
        let (is, place) =
            (|entry: &(u64, Seq)| entry.0 == digest, |e: &(u64, Seq)| placing(seed, e.0));
        match self.table.entry(placing(seed, digest), is, place) {
            Place::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, seq)),
            Place::Vacant(entry) => {
                entry.insert((digest, seq));
                None
            }
        }
    }

    /// Unless another is the newest.
    fn remove(&mut self, digest: u64, seq: Seq) {
        if let Ok(entry) =
            self.table.find_entry(placing(self.seed, digest), |e| *e == (digest, seq))
        {
            entry.remove();
        }
    }
}

fn placing(seed: u64, digest: u64) -> u64 {
    xxh3_64_with_seed(&digest.to_le_bytes(), seed)
}

impl Unfolded {
    /// Nothing past the mark.
    pub(super) fn after(mark: Seq) -> Unfolded {
        Unfolded { mark, oldest: mark + 1, entries: VecDeque::new(), newest: Newest::new() }
    }

    pub(super) fn len(&self) -> usize {
        (self.last() - self.mark) as usize
    }

    pub(super) fn first(&self) -> Seq {
        self.mark + 1
    }

    /// The newest event, or the mark.
    pub(super) fn last(&self) -> Seq {
        self.oldest + self.entries.len() as Seq - 1
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(self.oldest)?).ok()?)
    }

    pub(super) fn find(&self, storage: StorageKey, digest: u64, hash: &Hash) -> Option<Seq> {
        let mut seq = self.newest.get(digest)?;
        while let Some(entry) = self.get(seq) {
            if entry.storage == storage && entry.hash == *hash {
                return Some(seq);
            }
            seq = entry.previous;
        }
        None
    }

    /// Adds the next event and returns its `seq`.
    pub(super) fn push(&mut self, storage: StorageKey, digest: u64, hash: Hash) -> Seq {
        let seq = self.last() + 1;
        let previous = self.newest.insert(digest, seq).unwrap_or(0);
        self.entries.push_back(Entry { storage, hash, digest, previous });
        self.let_go(LEAVING);
        seq
    }

    /// Takes back every event past `last`: they were not committed.
    pub(super) fn truncate(&mut self, last: Seq) {
        while self.last() > last {
            let Some(entry) = self.entries.pop_back() else { return };
            if self.get(entry.previous).is_some() {
                self.newest.insert(entry.digest, entry.previous);
            } else {
                self.newest.remove(entry.digest, self.last() + 1);
            }
        }
    }

    /// A segment holds every event up to `last`.
    pub(super) fn forget(&mut self, last: Seq) {
        self.mark = self.mark.max(last);
    }

    fn let_go(&mut self, most: usize) {
        for _ in 0..most {
            if self.oldest > self.mark {
                return;
            }
            let Some(entry) = self.entries.pop_front() else { return };
            self.newest.remove(entry.digest, self.oldest);
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_digest_are_told_apart_and_taken_back() {
        let storage = |n| StorageKey([n; 16]);
        let hash = |n: u8| Hash([n; 32]);
        let mut unfolded = Unfolded::after(10);
        assert_eq!(unfolded.push(storage(1), 7, hash(1)), 11);
        assert_eq!(unfolded.push(storage(1), 7, hash(2)), 12);
        assert_eq!(unfolded.push(storage(2), 7, hash(1)), 13);
        let found = |unfolded: &Unfolded| {
            [(1, 1), (1, 2), (2, 1), (2, 2)]
                .map(|(name, value)| unfolded.find(storage(name), 7, &hash(value)))
        };
        assert_eq!(found(&unfolded), [Some(11), Some(12), Some(13), None]);
        unfolded.truncate(12);
        assert_eq!(found(&unfolded), [Some(11), Some(12), None, None]);
        unfolded.forget(11);
        assert_eq!(found(&unfolded), [Some(11), Some(12), None, None], "it leaves later");
        assert_eq!((unfolded.first(), unfolded.len()), (12, 1));
        unfolded.truncate(11);
        assert_eq!(unfolded.push(storage(2), 7, hash(2)), 12);
        assert_eq!(found(&unfolded), [None, None, None, Some(12)]);
        unfolded.forget(12);
        assert_eq!((unfolded.first(), unfolded.len()), (13, 0));
        assert_eq!(unfolded.push(storage(1), 8, hash(1)), 13);
        assert_eq!(found(&unfolded), [None; 4]);
        assert_eq!((unfolded.newest.table.len(), unfolded.entries.len()), (1, 1));
    }

    #[test]
    fn folded_events_leave_faster_than_others_come() {
        let mut unfolded = Unfolded::after(0);
        let push = |unfolded: &mut Unfolded, n| {
            unfolded.push(StorageKey([0; 16]), n, Hash([0; 32]));
            unfolded.entries.len()
        };
        assert_eq!((1..=100).map(|n| push(&mut unfolded, n)).max(), Some(100));
        unfolded.forget(90);
        assert_eq!((101..=145).map(|n| push(&mut unfolded, n)).max(), Some(99));
        assert_eq!((unfolded.len(), unfolded.entries.len()), (55, 55));
    }
}
