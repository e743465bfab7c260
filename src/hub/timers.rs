//! Owns when each connection is to be looked at again: one entry a connection at most. The hub
//! derives a connection's deadline from its state; an entry that comes too early is set again, so
//! that an active connection costs nothing here.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(u64, u32)>,
}

impl Timers {
    /// Makes sure that the connection is looked at by `deadline`. `scheduled` is its entry.
    pub(super) fn arm(&mut self, key: u32, scheduled: &mut Option<u64>, deadline: u64) {
        if scheduled.is_some_and(|at| at <= deadline) {
            return;
        }
        self.disarm(key, scheduled);
        self.entries.insert((deadline, key));
        *scheduled = Some(deadline);
    }

    pub(super) fn disarm(&mut self, key: u32, scheduled: &mut Option<u64>) {
        if let Some(at) = scheduled.take() {
            let removed = self.entries.remove(&(at, key));
            assert!(removed, "a connection knows its entry");
        }
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// The next connection whose time has come. Its entry is gone.
    pub(super) fn pop(&mut self, now: u64) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, key)| key)
    }
}
