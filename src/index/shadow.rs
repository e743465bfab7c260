//! Owns the double buffer: two copies of the index, one published, one spare (left-right). The
//! writer applies changes to the spare, swaps it in with one atomic store, and replays them on the
//! other copy before its next publish, once the reader let go of it. The cost is the operations,
//! never the index's size. Reads no messages and wakes nobody.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use super::{Index, Operation};
use crate::config;
use crate::id::Id;
use crate::message::Slot;
use crate::sync::{Loaded, Swap, Twin};

/// The writer's side.
#[derive(Debug, Default)]
pub struct Shadow {
    published: Swap<Index>,
    /// The copy that is not published; until the reader lets go of it, it may not be touched.
    spare: Twin<Index>,
    /// What the published copy holds and the spare does not.
    behind: Vec<Operation>,
    /// What neither holds, in order.
    pending: VecDeque<Change>,
    /// What each feed subscribed to, by slot: needed only to unsubscribe it. The feed has the same
    /// list, so that it takes no memory here.
    subscriptions: Vec<Option<Arc<[Id]>>>,
}

/// What is asked for. What a feed leaves is known once it has joined.
#[derive(Debug)]
enum Change {
    Subscribe { slot: Slot, ids: Arc<[Id]> },
    Unsubscribe { slot: Slot },
}

/// The reader's side.
#[derive(Clone, Debug)]
pub struct Published(Swap<Index>);

/// The index as it was when `load` was called, for one turn of the loop: it borrows the turn's
/// `Published`, and holding it for longer would hold the writer's spare.
#[derive(Debug)]
pub struct Snapshot<'turn> {
    index: Loaded<Index>,
    turn: PhantomData<&'turn Published>,
}

impl Published {
    pub fn load(&self) -> Snapshot<'_> {
        Snapshot { index: self.0.load(), turn: PhantomData }
    }
}

impl Deref for Snapshot<'_> {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

impl Shadow {
    pub fn published(&self) -> Published {
        Published(self.published.clone())
    }

    pub fn subscribe(&mut self, slot: Slot, ids: Arc<[Id]>) {
        self.pending.push_back(Change::Subscribe { slot, ids });
    }

    pub fn unsubscribe(&mut self, slot: Slot) {
        self.pending.push_back(Change::Unsubscribe { slot });
    }

    /// Whether there are changes that no published index holds.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Publishes pending changes from the first on, of `PUBLISH_STORAGES` or of one feed, and returns
    /// how many. 0 when the reader still holds the spare: try again later.
    pub fn publish(&mut self) -> usize {
        let Some(spare) = self.spare.get_mut() else {
            return 0;
        };
        for operation in self.behind.drain(..) {
            spare.apply(&operation);
        }
        // Comparing costs the index's size, which is why release builds do not.
        debug_assert!(*spare == *self.published.load(), "both copies hold the same");
        let mut storages = 0;
        while storages < config::PUBLISH_STORAGES
            && let Some(change) = self.pending.pop_front()
        {
            let operation = operation(&mut self.subscriptions, change);
            spare.apply(&operation);
            storages += operation.storages();
            self.behind.push(operation);
        }
        let next = std::mem::take(&mut self.spare);
        self.spare = self.published.swap(next);
        self.behind.len()
    }
}

/// What the change is to both copies.
fn operation(subscriptions: &mut Vec<Option<Arc<[Id]>>>, change: Change) -> Operation {
    match change {
        Change::Subscribe { slot, ids } => {
            let place = slot as usize;
            if subscriptions.len() <= place {
                subscriptions.resize_with(place + 1, || None);
            }
            let former = subscriptions[place].replace(Arc::clone(&ids));
            assert!(former.is_none(), "a slot is used again only after it was given back");
            Operation::Subscribe { slot, ids }
        }
        Change::Unsubscribe { slot } => {
            let ids = subscriptions[slot as usize].take();
            Operation::Unsubscribe { slot, ids: ids.expect("a feed subscribes before it leaves") }
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
    fn a_snapshot_that_is_held_delays_the_publish_after_next() {
        let mut shadow = Shadow::default();
        let published = shadow.published();
        let a = Id::new("a").unwrap();

        let subscribers = |snapshot: Snapshot<'_>| -> Vec<Slot> {
            snapshot.subscribers(&a).map_or(Vec::new(), Iterator::collect)
        };
        let before = published.load();
        shadow.subscribe(1, ids(&["a"]));
        assert_eq!(shadow.publish(), 1, "the spare was nobody's");
        assert!(before.subscribers(&a).is_none());
        assert_eq!(subscribers(published.load()), [1]);

        shadow.subscribe(2, ids(&["a"]));
        assert_eq!(shadow.publish(), 0, "the snapshot holds what is now the spare");
        assert!(shadow.is_behind());
        drop(before);
        assert_eq!(shadow.publish(), 1);
        assert_eq!(subscribers(published.load()), [1, 2]);

        shadow.unsubscribe(1);
        shadow.unsubscribe(2);
        assert_eq!(shadow.publish(), 2);
        assert_eq!(published.load().identifiers(), 0);
        assert!(!shadow.is_behind());
    }
}
