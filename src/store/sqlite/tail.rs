//! Owns the events that no segment holds yet, on the reading side, by storage. Each reader has its
//! own, and trails the log with it: every row is read once.

use std::collections::{HashMap, VecDeque};

use crate::event::{Hash, Seq};
use crate::id::StorageKey;

/// Consecutive events from `first` on.
#[derive(Debug)]
pub(super) struct Tail {
    first: Seq,
    /// The storage of each event.
    order: VecDeque<StorageKey>,
    storages: HashMap<StorageKey, VecDeque<(Seq, Hash)>>,
}

impl Tail {
    /// Nothing past the mark.
    pub(super) fn after(mark: Seq) -> Tail {
        Tail { first: mark + 1, order: VecDeque::new(), storages: HashMap::new() }
    }

    /// The newest event, or the mark.
    pub(super) fn last(&self) -> Seq {
        self.first + self.order.len() as Seq - 1
    }

    /// Adds the next event and returns its `seq`.
    pub(super) fn push(&mut self, storage: StorageKey, hash: Hash) -> Seq {
        let seq = self.last() + 1;
        self.order.push_back(storage);
        self.storages.entry(storage).or_default().push_back((seq, hash));
        seq
    }

    /// Lets go of every event up to the mark: segments hold them.
    pub(super) fn forget(&mut self, mark: Seq) {
        if self.last() <= mark {
            *self = Tail::after(mark);
            return;
        }
        while self.first <= mark {
            let storage = self.order.pop_front().expect("events up to the last are here");
            let events = self.storages.get_mut(&storage).expect("an event's storage is here");
            events.pop_front();
            if events.is_empty() {
                self.storages.remove(&storage);
            }
            self.first += 1;
        }
    }

    /// A storage's events, in order.
    pub(super) fn events(&self, storage: StorageKey) -> Option<&VecDeque<(Seq, Hash)>> {
        self.storages.get(&storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_until_they_are_forgotten() {
        let storage = |n| StorageKey([n; 16]);
        let seqs = |tail: &Tail, n| -> Vec<Seq> {
            tail.events(storage(n)).into_iter().flatten().map(|(seq, _)| *seq).collect()
        };
        let mut tail = Tail::after(10);
        for (name, expected) in [(1, 11), (2, 12), (1, 13)] {
            assert_eq!(tail.push(storage(name), Hash([name; 32])), expected);
        }
        assert_eq!(
            (seqs(&tail, 1), seqs(&tail, 2), seqs(&tail, 3)),
            (vec![11, 13], vec![12], vec![])
        );
        tail.forget(12);
        assert_eq!((seqs(&tail, 1), seqs(&tail, 2), tail.last()), (vec![13], vec![], 13));
        assert_eq!(tail.storages.len(), 1);
        tail.forget(20);
        assert_eq!((tail.last(), tail.storages.len()), (20, 0));
        assert_eq!(tail.push(storage(1), Hash([1; 32])), 21);
    }
}
