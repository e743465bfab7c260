//! Owns the set of slots that subscribe to one identifier: close to four bytes a slot at any size,
//! and a subscriber that goes costs no walk through those that stay. Called by `index` alone.

use crate::message::Slot;

/// A place of a table that nobody has. No slot has this number.
const EMPTY: Slot = Slot::MAX;
/// A sorted list beyond this becomes a table: moving its tail begins to cost more than probing.
const SORTED_MAX: usize = 1_024;
/// A table below this becomes a list again; far enough below that it does not happen in turns.
const TABLE_MIN: usize = 512;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slots {
    None,
    One(Slot),
    Sorted(Vec<Slot>),
    Table(Box<Table>),
}

impl Slots {
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let places: &[Slot] = match self {
            Slots::None => &[],
            Slots::One(slot) => std::slice::from_ref(slot),
            Slots::Sorted(slots) => slots,
            Slots::Table(table) => &table.places,
        };
        places.iter().copied().filter(|slot| *slot != EMPTY)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Slots::None)
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        assert_ne!(slot, EMPTY, "slots count connections, of which there are fewer");
        match self {
            Slots::None => *self = Slots::One(slot),
            Slots::One(other) => {
                assert_ne!(*other, slot, "a feed names a storage once");
                *self = Slots::Sorted(vec![slot.min(*other), slot.max(*other)]);
            }
            Slots::Sorted(slots) => {
                let place = slots.binary_search(&slot).expect_err("a feed names a storage once");
                if slots.len() == slots.capacity() {
                    // An eighth, not as much again: most of the memory is these lists.
                    slots.reserve_exact(slots.len() / 8 + 1);
                }
                slots.insert(place, slot);
                if slots.len() > SORTED_MAX {
                    *self = Slots::Table(Box::new(Table::of(slots)));
                }
            }
            Slots::Table(table) => table.insert(slot),
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match self {
            Slots::One(other) if *other == slot => *self = Slots::None,
            Slots::None | Slots::One(_) => panic!("only a subscriber unsubscribes"),
            Slots::Sorted(slots) => {
                let place = slots.binary_search(&slot).expect("only a subscriber unsubscribes");
                slots.remove(place);
                match slots[..] {
                    [last] => *self = Slots::One(last),
                    _ if slots.capacity() > 2 * slots.len() => slots.shrink_to_fit(),
                    _ => {}
                }
            }
            Slots::Table(table) => {
                table.remove(slot);
                if table.slots < TABLE_MIN {
                    let mut slots: Vec<Slot> = self.iter().collect();
                    slots.sort_unstable();
                    *self = Slots::Sorted(slots);
                }
            }
        }
    }
}

/// Open addressing with linear probing, between 5/8 and 7/8 full after it grew and before it does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    places: Vec<Slot>,
    slots: usize,
}

impl Table {
    fn of(slots: &[Slot]) -> Table {
        let mut table = Table { places: vec![EMPTY; slots.len() * 8 / 5], slots: 0 };
        for &slot in slots {
            table.put(slot);
        }
        table
    }

    fn insert(&mut self, slot: Slot) {
        if (self.slots + 1) * 8 > self.places.len() * 7 {
            self.rebuild();
        }
        self.put(slot);
    }

    fn remove(&mut self, slot: Slot) {
        let mut gap = self.place_of(slot);
        assert_eq!(self.places[gap], slot, "only a subscriber unsubscribes");
        // Those behind the gap move up, unless they would stand before where they belong.
        let mut at = gap;
        loop {
            at = self.next(at);
            let moving = self.places[at];
            if moving == EMPTY {
                break;
            }
            let (home, length) = (self.home(moving), self.places.len());
            let from_home = (at + length - home) % length;
            let from_gap = (at + length - gap) % length;
            if from_home >= from_gap {
                self.places[gap] = moving;
                gap = at;
            }
        }
        self.places[gap] = EMPTY;
        self.slots -= 1;
        if self.slots * 4 < self.places.len() {
            self.rebuild();
        }
    }

    fn put(&mut self, slot: Slot) {
        let place = self.place_of(slot);
        assert_eq!(self.places[place], EMPTY, "a feed names a storage once");
        self.places[place] = slot;
        self.slots += 1;
    }

    fn rebuild(&mut self) {
        let slots: Vec<Slot> = self.places.iter().copied().filter(|slot| *slot != EMPTY).collect();
        *self = Table::of(&slots);
    }

    /// Where the slot stands, or the empty place where it would.
    fn place_of(&self, slot: Slot) -> usize {
        let mut at = self.home(slot);
        while self.places[at] != EMPTY && self.places[at] != slot {
            at = self.next(at);
        }
        at
    }

    /// Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4): slots are small numbers, one
    /// after the other.
    fn home(&self, slot: Slot) -> usize {
        let hash = u64::from(slot.wrapping_mul(0x9e37_79b9));
        ((hash * self.places.len() as u64) >> 32) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.places.len() { 0 } else { at + 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Grows and shrinks a set through all its forms, beside one that is known to be right.
    #[test]
    fn whatever_its_form_it_is_the_set() {
        let mut random = 1_u64;
        let mut draw = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % bound
        };
        let (mut slots, mut expected) = (Slots::None, BTreeSet::new());
        for round in 0..40_000_u64 {
            // Mostly in for the first half, mostly out for the second.
            let grow = draw(10) < if round < 20_000 { 7 } else { 3 };
            let slot = draw(10_000) as Slot;
            if grow && expected.insert(slot) {
                slots.insert(slot);
            } else if !grow && let Some(&slot) = expected.range(slot..).next() {
                expected.remove(&slot);
                slots.remove(slot);
            }
            if round % 500 == 0 || expected.len() < 5 {
                let held: BTreeSet<Slot> = slots.iter().collect();
                assert_eq!((held.len(), &held), (slots.iter().count(), &expected));
                assert_eq!(slots.is_empty(), expected.is_empty());
            }
        }
        for slot in expected {
            slots.remove(slot);
        }
        assert_eq!(slots, Slots::None);
    }

    #[test]
    fn a_slot_costs_little_more_than_its_number() {
        for count in [100, 1_000, 1_025, 2_000, 10_000, 100_000] {
            let mut slots = Slots::None;
            (0..count).for_each(|slot| slots.insert(slot * 3));
            let bytes = 4 * match &slots {
                Slots::Sorted(slots) => slots.capacity(),
                Slots::Table(table) => table.places.capacity(),
                Slots::None | Slots::One(_) => unreachable!("there are many"),
            };
            assert!(bytes <= 7 * count as usize, "{count} slots take {bytes} bytes");
        }
    }
}
