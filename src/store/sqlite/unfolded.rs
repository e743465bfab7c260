//! Owns the events that no segment holds yet, on the writing side: enough of each to know a value
//! again, and to fold it. Called by the writer and by folds; rebuilt from the log at start.

use std::collections::{HashMap, VecDeque};

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

/// Consecutive events from `first` on.
#[derive(Debug)]
pub(super) struct Unfolded {
    first: Seq,
    entries: VecDeque<Entry>,
    /// The newest event of each digest.
    newest: HashMap<u64, Seq>,
}

impl Unfolded {
    /// Nothing past the mark.
    pub(super) fn after(mark: Seq) -> Unfolded {
        Unfolded { first: mark + 1, entries: VecDeque::new(), newest: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn first(&self) -> Seq {
        self.first
    }

    /// The newest event, or the mark.
    pub(super) fn last(&self) -> Seq {
        self.first + self.entries.len() as Seq - 1
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn find(&self, storage: StorageKey, digest: u64, hash: &Hash) -> Option<Seq> {
        let mut seq = *self.newest.get(&digest)?;
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
        seq
    }

    /// Takes back every event past `last`: they were not committed.
    pub(super) fn truncate(&mut self, last: Seq) {
        while self.last() > last {
            let Some(entry) = self.entries.pop_back() else { return };
            if self.get(entry.previous).is_some() {
                self.newest.insert(entry.digest, entry.previous);
            } else {
                self.newest.remove(&entry.digest);
            }
        }
    }

    /// Lets go of every event up to `last`: a segment holds them.
    pub(super) fn forget(&mut self, last: Seq) {
        while self.first <= last {
            let Some(entry) = self.entries.pop_front() else { return };
            if self.newest.get(&entry.digest) == Some(&self.first) {
                self.newest.remove(&entry.digest);
            }
            self.first += 1;
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
        assert_eq!(found(&unfolded), [None, Some(12), None, None]);
        assert_eq!((unfolded.first(), unfolded.len()), (12, 1));
        unfolded.truncate(11);
        assert_eq!(unfolded.push(storage(2), 7, hash(2)), 12);
        assert_eq!(found(&unfolded), [None, None, None, Some(12)]);
        unfolded.forget(12);
        assert_eq!((unfolded.newest.len(), unfolded.first(), unfolded.len()), (0, 13, 0));
    }
}
