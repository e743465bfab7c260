//! Owns the set of slots that subscribe to one identifier: close to four bytes a slot at any size,
//! and a subscriber that comes or goes moves few of the others. Called by `index` alone.
//!
//! In order at any size. Slots that follow each other mostly lie beside each other in memory, and so
//! do their streams, connections and sockets: queueing an event for 9,000 streams takes a third of
//! what it takes in an order of a hash, and the whole delivery a tenth less.

use crate::message::Slot;

/// A list beyond this becomes two: moving its tail begins to cost more than finding one of several.
const LIST_MAX: usize = 1_024;
/// Two that follow each other become one where they hold no more; far enough below that it does not
/// happen in turns.
const JOINED_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slots {
    None,
    One(Slot),
    Sorted(Vec<Slot>),
    /// At least two, none empty, all of one before all of the next. In a box, as it is rare.
    #[expect(clippy::box_collection, reason = "a second Vec would make all of them larger")]
    Lists(Box<Vec<Vec<Slot>>>),
}

impl Slots {
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let (one, several): (&[Slot], &[Vec<Slot>]) = match self {
            Slots::None => (&[], &[]),
            Slots::One(slot) => (std::slice::from_ref(slot), &[]),
            Slots::Sorted(list) => (list, &[]),
            Slots::Lists(lists) => (&[], lists),
        };
        one.iter().chain(several.iter().flatten()).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Slots::None)
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        match self {
            Slots::None => *self = Slots::One(slot),
            Slots::One(other) => {
                assert_ne!(*other, slot, "a feed names a storage once");
                *self = Slots::Sorted(vec![slot.min(*other), slot.max(*other)]);
            }
            Slots::Sorted(list) => {
                if let Some(next) = insert(list, slot) {
                    *self = Slots::Lists(Box::new(vec![std::mem::take(list), next]));
                }
            }
            Slots::Lists(lists) => {
                let place = place_of(lists, slot);
                if let Some(next) = insert(&mut lists[place], slot) {
                    lists.insert(place + 1, next);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match self {
            Slots::One(other) if *other == slot => *self = Slots::None,
            Slots::None | Slots::One(_) => panic!("only a subscriber unsubscribes"),
            Slots::Sorted(list) => {
                remove(list, slot);
                if let [last] = list[..] {
                    *self = Slots::One(last);
                }
            }
            Slots::Lists(lists) => {
                let place = place_of(lists, slot);
                remove(&mut lists[place], slot);
                if place + 1 < lists.len() {
                    join(lists, place);
                }
                if place > 0 {
                    join(lists, place - 1);
                }
                if let [list] = &mut lists[..] {
                    *self = Slots::Sorted(std::mem::take(list));
                }
            }
        }
    }
}

/// The list that holds the slot, or that it belongs to.
fn place_of(lists: &[Vec<Slot>], slot: Slot) -> usize {
    lists.partition_point(|list| list[0] <= slot).saturating_sub(1)
}

/// What did not fit any more, to stand behind the list.
fn insert(list: &mut Vec<Slot>, slot: Slot) -> Option<Vec<Slot>> {
    let place = list.binary_search(&slot).expect_err("a feed names a storage once");
    if list.len() < LIST_MAX {
        if list.len() == list.capacity() {
            // An eighth, not as much again: most of the memory is these lists.
            list.reserve_exact(list.len() / 8 + 1);
        }
        list.insert(place, slot);
        return None;
    }
    let mut next = list.split_off(LIST_MAX / 2);
    list.shrink_to_fit();
    let half = if place <= list.len() { list } else { &mut next };
    let rest = insert(half, slot);
    assert!(rest.is_none(), "half a list has room");
    Some(next)
}

fn remove(list: &mut Vec<Slot>, slot: Slot) {
    let place = list.binary_search(&slot).expect("only a subscriber unsubscribes");
    list.remove(place);
    if list.capacity() > 2 * list.len() {
        list.shrink_to_fit();
    }
}

/// A list and the next one, where they became short.
fn join(lists: &mut Vec<Vec<Slot>>, place: usize) {
    let (list, next) = (lists[place].len(), lists[place + 1].len());
    if list == 0 || next == 0 || list + next <= JOINED_MAX {
        let next = lists.remove(place + 1);
        lists[place].reserve_exact(next.len());
        lists[place].extend(next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Grows and shrinks a set through all its forms, beside one that is known to be right.
    #[test]
    fn whatever_its_form_it_is_the_set_in_order() {
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
                assert!(slots.iter().eq(expected.iter().copied()), "in round {round}");
                assert_eq!(slots.is_empty(), expected.is_empty());
                check_lists(&slots);
            }
        }
        for slot in expected {
            slots.remove(slot);
        }
        assert_eq!(slots, Slots::None);
    }

    /// None long, and few short.
    fn check_lists(slots: &Slots) {
        match slots {
            Slots::None | Slots::One(_) => {}
            Slots::Sorted(list) => assert!((2..=LIST_MAX).contains(&list.len())),
            Slots::Lists(lists) => {
                assert!(lists.len() >= 2);
                assert!(lists.iter().all(|list| (1..=LIST_MAX).contains(&list.len())));
                assert!(lists.windows(2).all(|two| two[0].len() + two[1].len() > JOINED_MAX));
            }
        }
    }

    #[test]
    fn lists_that_became_short_are_joined() {
        let mut slots = Slots::None;
        (0..10_000).for_each(|slot| slots.insert(slot));
        for slot in 0..10_000 {
            if slot % 20 != 0 {
                slots.remove(slot);
                check_lists(&slots);
            }
        }
        assert!(matches!(&slots, Slots::Sorted(list) if list.len() == 500), "{slots:?}");
    }

    #[test]
    fn a_slot_costs_little_more_than_its_number() {
        let bytes = |list: &Vec<Slot>| size_of::<Vec<Slot>>() + size_of::<Slot>() * list.capacity();
        for count in [100, 1_000, 1_025, 2_000, 10_000, 100_000] {
            // In order, and from the middle outwards.
            for in_order in [true, false] {
                let mut slots = Slots::None;
                let half = count / 2;
                for slot in 0..count {
                    let middle = if slot % 2 == 0 { half + slot / 2 } else { half - 1 - slot / 2 };
                    slots.insert(3 * if in_order { slot } else { middle });
                }
                let bytes: usize = match &slots {
                    Slots::Sorted(list) => bytes(list),
                    Slots::Lists(lists) => lists.iter().map(bytes).sum(),
                    Slots::None | Slots::One(_) => unreachable!("there are many"),
                };
                assert!(bytes <= 6 * count as usize, "{count} slots take {bytes} bytes");
            }
        }
    }
}
