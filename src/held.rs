//! Owns a count of something that is held in several places and threads at once, such as the memory
//! of filters: whoever holds a part gives it back by being dropped. The hub limits by it, and the
//! writer knows by it whether all was told.

use crate::sync::{Arc, AtomicUsize, Ordering};

/// What is held by all.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicUsize>);

/// A part of it.
#[derive(Debug)]
pub struct Held {
    counter: Counter,
    amount: usize,
}

impl Counter {
    /// Only one thread adds, so that what it has read can only have become less. Whatever was done
    /// before a part was given back was done before it is seen to be.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    pub fn hold(&self, amount: usize) -> Held {
        self.0.fetch_add(amount, Ordering::Relaxed);
        Held { counter: self.clone(), amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counter.0.fetch_sub(self.amount, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let counter = Counter::default();
        let (two, three) = (counter.hold(2), counter.hold(3));
        assert_eq!(counter.get(), 5);
        drop(two);
        assert_eq!(counter.get(), 3);
        drop(three);
        assert_eq!(counter.get(), 0);
    }
}
