//! Owns the subscriber index: which feeds a storage's events go to. The writer changes it through
//! `shadow`; the hub reads a published copy. `apply` is the only way it changes, and the same
//! operations in the same order make the same index, so that two copies stay equal.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::Id;
use crate::message::Slot;

mod shadow;

pub use shadow::{Published, Shadow, Snapshot};

/// The array of identifiers that somebody subscribes to, with their subscribers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// A name's place in `subscribers`.
    numbers: HashMap<Id, u32>,
    subscribers: Vec<Subscribers>,
    /// Places whose identifier nobody subscribes to any more, to be used again, last first.
    free: Vec<u32>,
}

/// A change of the index.
#[derive(Clone, Debug)]
pub enum Operation {
    Subscribe { slot: Slot, ids: Arc<[Id]> },
    Unsubscribe { slot: Slot, ids: Arc<[Id]> },
}

impl Index {
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Subscribe { slot, ids } => {
                for id in ids.iter() {
                    let number = self.intern(id);
                    self.subscribers[number as usize].insert(*slot);
                }
            }
            Operation::Unsubscribe { slot, ids } => {
                for id in ids.iter() {
                    self.remove(id, *slot);
                }
            }
        }
    }

    /// The feeds that an event of this storage goes to.
    pub fn subscribers(&self, id: &Id) -> &[Slot] {
        match self.numbers.get(id) {
            Some(&number) => &self.subscribers[number as usize].slots,
            None => &[],
        }
    }

    pub fn identifiers(&self) -> usize {
        self.numbers.len()
    }

    fn intern(&mut self, id: &Id) -> u32 {
        if let Some(&number) = self.numbers.get(id) {
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.subscribers.push(Subscribers::default());
            u32::try_from(self.subscribers.len() - 1).expect("fewer identifiers than 2^32")
        });
        self.numbers.insert(id.clone(), number);
        number
    }

    /// Identifiers that nobody subscribes to are pruned here, as routine.
    fn remove(&mut self, id: &Id, slot: Slot) {
        let number = *self.numbers.get(id).expect("only what was subscribed is unsubscribed");
        let subscribers = &mut self.subscribers[number as usize];
        subscribers.remove(slot);
        if subscribers.slots.is_empty() {
            *subscribers = Subscribers::default();
            self.numbers.remove(id);
            self.free.push(number);
        }
    }
}

/// A sorted set of slots.
#[derive(Clone, Debug, Default, PartialEq)]
struct Subscribers {
    slots: Vec<Slot>,
}

impl Subscribers {
    fn insert(&mut self, slot: Slot) {
        let place = self.slots.binary_search(&slot).expect_err("a feed names a storage once");
        if self.slots.len() == self.slots.capacity() {
            // An eighth, not a half: both copies of every list stay close to four bytes a slot.
            self.slots.reserve_exact(self.slots.len() / 8 + 1);
        }
        self.slots.insert(place, slot);
    }

    fn remove(&mut self, slot: Slot) {
        let place = self.slots.binary_search(&slot).expect("only a subscriber unsubscribes");
        self.slots.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Arc<[Id]> {
        names.iter().map(|name| Id::new(name).unwrap()).collect()
    }

    #[test]
    fn subscribers_come_and_go_and_their_identifiers_with_them() {
        let mut index = Index::default();
        let (a, b) = (Id::new("a").unwrap(), Id::new("b").unwrap());
        index.apply(&Operation::Subscribe { slot: 7, ids: ids(&["a", "b"]) });
        index.apply(&Operation::Subscribe { slot: 3, ids: ids(&["b"]) });
        assert_eq!(index.subscribers(&a), [7]);
        assert_eq!(index.subscribers(&b), [3, 7]);
        index.apply(&Operation::Unsubscribe { slot: 7, ids: ids(&["a", "b"]) });
        assert_eq!(index.subscribers(&a), [] as [Slot; 0]);
        assert_eq!(index.subscribers(&b), [3]);
        assert_eq!(index.identifiers(), 1);
        index.apply(&Operation::Subscribe { slot: 1, ids: ids(&["c"]) });
        assert_eq!(index.subscribers.len(), 2, "a's place was used again");
    }
}
