//! Owns the search for the oldest or the newest events of many storages, in slices: a slice walks a
//! few storages, and no further than the last event that is still among the first. Plans and readers
//! call it where a selection is large: a walk over all of its storages at once would begin with a
//! look-up for each, and hold up every other read. Reads no values.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use crate::config::{GATHERED_STORAGES, SCAN_EVENTS};
use crate::event::Seq;
use crate::store::{Direction, Found, ReadLog, Source, StoreError};

#[derive(Debug)]
pub struct Gathering {
    direction: Direction,
    most: usize,
    to: Seq,
    /// The first `most` so far, in the direction; on top the last of them.
    kept: BinaryHeap<(Rank, u32)>,
    /// The newest of the events that were looked at.
    newest: Seq,
    /// The storages' places in the order of the index, so that a slice's look-ups are near each other.
    order: Box<[u32]>,
    /// Where in it the next slice begins; and after which event, in the direction, if it goes on with
    /// those of the slice before.
    next: usize,
    goes_on_at: Option<Seq>,
}

/// What a gathering goes through: so many storages, where each starts, and what is left out.
pub struct Storages<'a> {
    pub count: usize,
    pub source: &'a dyn Fn(usize) -> Source<'a>,
    pub leaves_out: &'a dyn Fn(&Found) -> bool,
}

/// The smaller, the earlier in the direction.
type Rank = u64;

impl Gathering {
    /// Of the events up to `to` the first `most` in the direction.
    pub fn new(direction: Direction, most: usize, to: Seq) -> Gathering {
        let (kept, order) = (BinaryHeap::new(), Box::default());
        Gathering { direction, most, to, kept, newest: 0, order, next: 0, goes_on_at: None }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// One slice, of the same storages as all the others. Returns whether there is more to do.
    pub fn step(
        &mut self,
        log: &mut dyn ReadLog,
        storages: &Storages<'_>,
    ) -> Result<bool, StoreError> {
        if self.order.len() != storages.count {
            self.order = (0..storages.count as u32).collect();
            self.order.sort_by_cached_key(|place| (storages.source)(*place as usize).id.key());
        }
        let end = storages.count.min(self.next + GATHERED_STORAGES);
        let places = self.order[self.next..end].to_vec();
        let source = |place: &u32| (storages.source)(*place as usize);
        let mut sources: Vec<Source<'_>> = places.iter().map(source).collect();
        let to = self.narrow(&mut sources);
        let mut left = SCAN_EVENTS;
        self.goes_on_at = None;
        log.find(&sources, to, self.direction, &mut |found| {
            let found = Found { source: places[found.source] as usize, ..found };
            if !(storages.leaves_out)(&found) {
                self.keep(found)?;
            }
            self.newest = self.newest.max(found.seq);
            left -= 1;
            if left == 0 {
                self.goes_on_at = Some(found.seq);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if self.goes_on_at.is_none() {
            self.next = end;
        }
        Ok(self.next < storages.count)
    }

    /// Leaves out of the walk what was looked at, and what would not be kept; returns its end.
    fn narrow(&self, sources: &mut [Source<'_>]) -> Seq {
        let full = self.kept.len() == self.most;
        let last = self.kept.peek().filter(|_| full).map(|(rank, _)| self.seq(*rank));
        match self.direction {
            Direction::OldestFirst => {
                let after = self.goes_on_at.unwrap_or(0);
                sources.iter_mut().for_each(|source| source.after = source.after.max(after));
                last.map_or(self.to, |last| last - 1)
            }
            Direction::NewestFirst => {
                let after = last.unwrap_or(0);
                sources.iter_mut().for_each(|source| source.after = source.after.max(after));
                self.goes_on_at.map_or(self.to, |at| at - 1)
            }
        }
    }

    /// Breaks where this event, and so every later one of the walk, comes too late.
    fn keep(&mut self, found: Found) -> ControlFlow<()> {
        let entry = (self.rank(found.seq), found.source as u32);
        if self.kept.len() == self.most {
            if self.kept.peek().is_some_and(|last| *last < entry) {
                return ControlFlow::Break(());
            }
            self.kept.pop();
        }
        self.kept.push(entry);
        ControlFlow::Continue(())
    }

    fn rank(&self, seq: Seq) -> Rank {
        match self.direction {
            Direction::OldestFirst => seq,
            Direction::NewestFirst => !seq,
        }
    }

    fn seq(&self, rank: Rank) -> Seq {
        // The same in both directions.
        self.rank(rank)
    }

    /// Whether there were as many as were asked for.
    pub fn is_full(&self) -> bool {
        self.kept.len() == self.most
    }

    /// The newest event that was looked at, left out or not; 0 where there was none. Of all there are,
    /// unless the oldest were gathered and are as many as were asked for.
    pub fn newest(&self) -> Seq {
        self.newest
    }

    /// Each event's `seq` and the place of its storage, in the direction.
    pub fn into_found(self) -> Vec<(Seq, usize)> {
        let direction = self.direction;
        let seq = |rank: Rank| if direction == Direction::OldestFirst { rank } else { !rank };
        let found = self.kept.into_sorted_vec().into_iter();
        found.map(|(rank, source)| (seq(rank), source as usize)).collect()
    }
}
