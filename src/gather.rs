//! Owns the search for the oldest or the newest events of many storages, in slices. Plans and readers
//! call it where a selection is large: a walk over all of its storages at once would begin with a
//! look-up for each, and hold up every other read. Reads no values.
//!
//! It begins with a scan of the log itself, which ends soon where most of what is near is wanted, or
//! where there is little: a client that comes back lacks the newest events, of whatever storage. Where
//! it goes on and finds little, a slice walks a few storages, and no further than the last event that
//! is still among the first.

use std::collections::{BinaryHeap, HashMap};
use std::ops::ControlFlow;

use crate::config::{GATHERED_STORAGES, LOOK_UP_EVENTS, SCAN_EVENTS, SCANNED_EVENTS};
use crate::event::Seq;
use crate::store::{Direction, Found, ReadLog, Source, StoreError};

#[derive(Debug)]
pub struct Gathering {
    direction: Direction,
    most: usize,
    /// What is still to be looked at is past this event...
    after: Seq,
    /// ... and not past this one.
    to: Seq,
    method: Method,
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

#[derive(Clone, Copy, Debug)]
enum Method {
    /// Looks at every event of the log, whatever its storage; at so many so far.
    Scan { looked_at: usize },
    /// Looks only at events of the storages, one storage after the other.
    Walk,
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
        Gathering {
            direction,
            most,
            after: 0,
            to,
            method: Method::Scan { looked_at: 0 },
            kept: BinaryHeap::new(),
            newest: 0,
            order: Box::default(),
            next: 0,
            goes_on_at: None,
        }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// One slice, of the same storages as all the others. Returns whether there is more to do.
    pub fn step(&mut self, log: &dyn ReadLog, storages: &Storages<'_>) -> Result<bool, StoreError> {
        if let Method::Scan { looked_at } = self.method {
            if looked_at == 0 {
                let afters = (0..storages.count).map(|place| (storages.source)(place).after);
                self.after = afters.min().unwrap_or(self.to);
            }
            if self.scan_pays(looked_at, storages.count) {
                return self.scan(log, storages, looked_at);
            }
            self.method = Method::Walk;
        }
        self.walk(log, storages)
    }

    /// Whether the rest of a scan is likely to cost less than a walk, or the scan has cost too little
    /// to say: an eighth of the walk. That there was much says little of what follows: a scan that costs
    /// more than expected, and than a walk, goes on only where its end is near.
    fn scan_pays(&self, looked_at: usize, storages: usize) -> bool {
        let walk = storages * LOOK_UP_EVENTS;
        let rest = self.to.saturating_sub(self.after) as usize;
        let lacking = self.most - self.kept.len();
        let expected = match self.kept.len() {
            0 => rest,
            found => rest.min(lacking * looked_at / found),
        };
        let likely = expected <= walk && (looked_at <= walk || rest <= walk);
        likely || looked_at < walk / 8
    }

    /// Looks at the log itself, from where it ended before.
    fn scan(
        &mut self,
        log: &dyn ReadLog,
        storages: &Storages<'_>,
        looked_at: usize,
    ) -> Result<bool, StoreError> {
        let source = |place| (storages.source)(place);
        let places: HashMap<&str, usize> =
            (0..storages.count).map(|place| (source(place).id.as_str(), place)).collect();
        let slice = match looked_at {
            0 => SCANNED_EVENTS.min(storages.count * LOOK_UP_EVENTS / 8 + 1),
            _ => SCANNED_EVENTS,
        };
        let mut left = slice;
        log.scan(self.after, self.to, self.direction, &mut |seq, id, hash| {
            match self.direction {
                Direction::OldestFirst => self.after = seq,
                Direction::NewestFirst => self.to = seq - 1,
            }
            if let Some(&place) = places.get(id).filter(|place| source(**place).after < seq) {
                self.newest = self.newest.max(seq);
                if !(storages.leaves_out)(&Found { source: place, seq, hash }) {
                    self.kept.push((self.rank(seq), place as u32));
                }
            }
            left -= 1;
            if left == 0 || self.is_full() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        self.method = Method::Scan { looked_at: looked_at + slice - left };
        Ok(left == 0 && !self.is_full() && self.after < self.to)
    }

    /// Looks at a few of the storages, and no further than the last event that would be kept.
    fn walk(&mut self, log: &dyn ReadLog, storages: &Storages<'_>) -> Result<bool, StoreError> {
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
                let after = self.goes_on_at.unwrap_or(self.after);
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

#[cfg(test)]
mod tests;
