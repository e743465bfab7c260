//! Owns the subscriber index: which feeds a storage's events go to. The writer changes it through
//! `shadow`; the hub reads a published copy. `apply` is the only way it changes, and the same
//! operations in the same order make the same index, so that two copies stay equal.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::id::Id;
use crate::message::Slot;

mod shadow;
mod slots;

pub use shadow::{Published, Shadow, Snapshot};

use slots::Slots;

/// The array of identifiers that somebody subscribes to, with their subscribers. Everything else
/// that names an identifier holds its place here.
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Vec<Option<Entry>>,
    /// Places in `entries`, by their identifier.
    numbers: HashTable<Numbered>,
    hasher: RandomState,
    /// Places whose identifier nobody subscribes to any more, to be used again, last first.
    free: Vec<u32>,
}

/// Two copies hash differently, and are equal all the same.
impl PartialEq for Index {
    fn eq(&self, other: &Index) -> bool {
        self.entries == other.entries && self.free == other.free
    }
}

/// An identifier's place, with the hash of the identifier: when the table grows, no name is hashed
/// again, which takes a tenth of a second for some hundred thousand long ones.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    hash: u32,
    number: u32,
}

impl Numbered {
    /// For the table, which looks at both ends of 64 bits.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    id: Id,
    slots: Slots,
}

/// A change of the index. A feed leaves what it subscribed to, and all of it.
#[derive(Clone, Debug)]
pub enum Operation {
    Subscribe { slot: Slot, ids: Arc<[Id]> },
    Unsubscribe { slot: Slot, ids: Arc<[Id]> },
}

impl Operation {
    /// What it costs.
    fn storages(&self) -> usize {
        match self {
            Operation::Subscribe { ids, .. } | Operation::Unsubscribe { ids, .. } => ids.len(),
        }
    }
}

impl Index {
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Subscribe { slot, ids } => {
                for id in ids.iter() {
                    let number = self.intern(id);
                    self.entry(number).slots.insert(*slot);
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
    pub fn subscribers(&self, id: &Id) -> Option<impl Iterator<Item = Slot> + '_> {
        let number = self.number(id)?;
        self.entries[number as usize].as_ref().map(|entry| entry.slots.iter())
    }

    pub fn identifiers(&self) -> usize {
        self.numbers.len()
    }

    fn number(&self, id: &Id) -> Option<u32> {
        self.number_of(id, self.hash(id))
    }

    fn number_of(&self, id: &Id, hash: u32) -> Option<u32> {
        let is_named = |it: &Numbered| it.hash == hash && self.id(it.number) == Some(id);
        self.numbers.find(Numbered::spread(hash), is_named).map(|found| found.number)
    }

    fn hash(&self, id: &Id) -> u32 {
        self.hasher.hash_one(id) as u32
    }

    fn id(&self, number: u32) -> Option<&Id> {
        self.entries[number as usize].as_ref().map(|entry| &entry.id)
    }

    fn entry(&mut self, number: u32) -> &mut Entry {
        self.entries[number as usize].as_mut().expect("a number in use has an entry")
    }

    fn intern(&mut self, id: &Id) -> u32 {
        let hash = self.hash(id);
        if let Some(number) = self.number_of(id, hash) {
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("fewer identifiers than 2^32")
        });
        self.entries[number as usize] = Some(Entry { id: id.clone(), slots: Slots::None });
        let numbered = Numbered { hash, number };
        self.numbers
            .insert_unique(Numbered::spread(hash), numbered, |it| Numbered::spread(it.hash));
        number
    }

    /// Identifiers that nobody subscribes to are pruned here, as routine.
    fn remove(&mut self, id: &Id, slot: Slot) {
        let hash = self.hash(id);
        let number = self.number_of(id, hash).expect("only a subscriber unsubscribes");
        let entry = self.entry(number);
        entry.slots.remove(slot);
        if entry.slots.is_empty() {
            self.entries[number as usize] = None;
            let hash = Numbered::spread(hash);
            let found = self.numbers.find_entry(hash, |other| other.number == number);
            found.expect("a number in use is found by its name").remove();
            self.free.push(number);
        }
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
        let subscribers = |index: &Index, name: &str| -> Vec<Slot> {
            let id = Id::new(name).unwrap();
            index.subscribers(&id).map_or(Vec::new(), Iterator::collect)
        };
        let both = ids(&["a", "b"]);
        index.apply(&Operation::Subscribe { slot: 7, ids: Arc::clone(&both) });
        index.apply(&Operation::Subscribe { slot: 3, ids: ids(&["b"]) });
        assert_eq!(subscribers(&index, "a"), [7]);
        assert_eq!(subscribers(&index, "b"), [3, 7]);
        index.apply(&Operation::Unsubscribe { slot: 7, ids: both });
        assert_eq!(subscribers(&index, "a"), [] as [Slot; 0]);
        assert_eq!(subscribers(&index, "b"), [3]);
        assert_eq!(index.identifiers(), 1);
        index.apply(&Operation::Subscribe { slot: 1, ids: ids(&["c"]) });
        assert_eq!(index.entries.len(), 2, "a's place was used again");
    }
}
