//! Owns the plan of a read: a selection whose cursors were resolved, and what its filters leave
//! out. `Preparing` is the work, in slices, that some filters need before the first page: decoding
//! sketches, and counting `limit` and `last` after filtering. The hub makes plans; readers prepare
//! and carry them out. Writes no reply.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::config::SCAN_EVENTS;
use crate::event::{Hash, Seq};
use crate::filter::{Difference, Filter, InverseBloom, Peeled, Sketch, next_cells};
use crate::held::Held;
use crate::id::Id;
use crate::selection::Window;
use crate::store::{Direction, Found, ReadLog, Source, StoreError};

#[derive(Debug)]
pub struct ReadPlan {
    pub items: Vec<ReadItem>,
    pub window: Window,
    /// The request's cursor, or one of its items', was not valid: everything from the start.
    pub reset: bool,
    /// What the request's own cursor was; a reply's `cursor` is never below it.
    pub after: Seq,
    /// What the filters take of the memory for them.
    pub held: Option<Held>,
    /// What its storages take of the memory for them.
    pub selection_held: Option<Held>,
}

#[derive(Clone, Debug)]
pub struct ReadItem {
    pub id: Id,
    /// Only events past this: the larger of the request's cursor and the item's own.
    pub after: Seq,
    pub filter: Option<ItemFilter>,
}

/// What an item leaves out.
#[derive(Clone, Debug)]
pub enum ItemFilter {
    InverseBloom(Arc<InverseBloom>),
    /// Leaves out nothing before it was decoded.
    Sketch(Arc<Sketch>),
    Peeled(Arc<Peeled>),
}

impl ItemFilter {
    pub fn new(filter: Filter) -> ItemFilter {
        match filter {
            Filter::InverseBloom(filter) => ItemFilter::InverseBloom(Arc::new(filter)),
            Filter::Sketch(sketch) => ItemFilter::Sketch(Arc::new(sketch)),
        }
    }
}

impl ReadItem {
    /// Whether the client has the event already, as far as its filter says.
    pub fn leaves_out(&self, hash: &Hash) -> bool {
        match &self.filter {
            None | Some(ItemFilter::Sketch(_)) => false,
            Some(ItemFilter::InverseBloom(filter)) => filter.contains(hash),
            Some(ItemFilter::Peeled(peeled)) => !peeled.contains(hash),
        }
    }

    fn sketch(&self) -> Option<&Arc<Sketch>> {
        match &self.filter {
            Some(ItemFilter::Sketch(sketch)) => Some(sketch),
            _ => None,
        }
    }
}

impl ReadPlan {
    pub fn has_filters(&self) -> bool {
        self.items.iter().any(|item| item.filter.is_some())
    }

    /// Whether the first page has to wait for `Preparing`.
    pub fn needs_preparing(&self) -> bool {
        let sketches = self.items.iter().any(|item| item.sketch().is_some());
        sketches || (self.window != Window::All && self.has_filters())
    }

    pub fn ids(&self) -> Arc<[Id]> {
        self.items.iter().map(|item| item.id.clone()).collect()
    }

    /// Every storage past the later of its own cursor and `floor`.
    pub fn sources(&self, floor: Seq) -> Vec<Source<'_>> {
        let items = self.items.iter();
        items.map(|item| Source { id: &item.id, after: item.after.max(floor) }).collect()
    }
}

/// What a plan is made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A sketch that does not decode is an answer of its own.
    Reply,
    /// A sketch that does not decode filters nothing.
    Stream,
}

/// A plan that is being made ready.
#[derive(Debug)]
pub struct Preparing {
    plan: ReadPlan,
    purpose: Purpose,
    to: Seq,
    step: Step,
    undecoded: Vec<Undecoded>,
    /// One of so many that may be under way.
    _permit: Held,
}

#[derive(Debug)]
enum Step {
    /// Up to this item, sketches are decoded.
    Item(usize),
    /// The item's events past `after` are still to be added.
    Adding {
        item: usize,
        after: Seq,
        difference: Box<Difference>,
    },
    /// So many events are still to be counted, from past `at` or below it.
    Oldest {
        left: u32,
        at: Seq,
        ends_at: Seq,
    },
    Newest {
        left: u32,
        below: Seq,
    },
}

/// A sketch that was too small for the difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    pub id: Id,
    /// The size to try next, if there is one.
    pub next_cells: Option<u32>,
}

#[derive(Debug)]
pub enum Prepared {
    More(Box<Preparing>),
    /// All of the plan's events up to `to` are of the reply; or up to `end`, and others follow.
    Ready {
        plan: ReadPlan,
        to: Seq,
        end: Option<Seq>,
    },
    Undecoded(Vec<Undecoded>),
}

/// Whether a slice went through all that there was.
#[derive(PartialEq)]
enum Scan {
    Whole,
    Cut(Seq),
}

impl Preparing {
    pub fn new(plan: ReadPlan, purpose: Purpose, to: Seq, permit: Held) -> Preparing {
        let (step, undecoded) = (Step::Item(0), Vec::new());
        Preparing { plan, purpose, to, step, undecoded, _permit: permit }
    }

    /// One slice of the work.
    pub fn step(mut self: Box<Self>, log: &mut dyn ReadLog) -> Result<Prepared, StoreError> {
        match std::mem::replace(&mut self.step, Step::Item(0)) {
            Step::Item(item) => Ok(self.next_item(item)),
            Step::Adding { item, after, difference } => self.add(log, item, after, difference),
            Step::Oldest { left, at, ends_at } => self.count_oldest(log, left, at, ends_at),
            Step::Newest { left, below } => self.count_newest(log, left, below),
        }
    }

    fn add(
        mut self: Box<Self>,
        log: &mut dyn ReadLog,
        item: usize,
        after: Seq,
        mut difference: Box<Difference>,
    ) -> Result<Prepared, StoreError> {
        let source = [Source { id: &self.plan.items[item].id, after }];
        let scan = scan(log, &source, self.to, Direction::OldestFirst, &mut |found| {
            difference.add(&found.hash);
            ControlFlow::Continue(())
        })?;
        self.step = match scan {
            Scan::Cut(after) => Step::Adding { item, after, difference },
            Scan::Whole => {
                self.decoded(item, difference.peel());
                Step::Item(item + 1)
            }
        };
        Ok(Prepared::More(self))
    }

    /// `limit`: where the events end that the filters do not leave out, if any stand past that.
    fn count_oldest(
        mut self: Box<Self>,
        log: &mut dyn ReadLog,
        mut left: u32,
        at: Seq,
        mut ends_at: Seq,
    ) -> Result<Prepared, StoreError> {
        let items = &self.plan.items;
        let mut more = false;
        let sources = self.plan.sources(at);
        let scan = scan(log, &sources, self.to, Direction::OldestFirst, &mut |found| {
            if left == 0 {
                more = true;
                return ControlFlow::Break(());
            }
            if !items[found.source].leaves_out(&found.hash) {
                left -= 1;
                ends_at = found.seq;
            }
            ControlFlow::Continue(())
        })?;
        match scan {
            _ if more => Ok(self.ready(0, Some(ends_at))),
            Scan::Whole => Ok(self.ready(0, None)),
            Scan::Cut(at) => {
                self.step = Step::Oldest { left, at, ends_at };
                Ok(Prepared::More(self))
            }
        }
    }

    /// `last`: past which event those stand that the filters do not leave out.
    fn count_newest(
        mut self: Box<Self>,
        log: &mut dyn ReadLog,
        mut left: u32,
        below: Seq,
    ) -> Result<Prepared, StoreError> {
        let items = &self.plan.items;
        let mut floor = None;
        let sources = self.plan.sources(0);
        let scan = scan(log, &sources, below, Direction::NewestFirst, &mut |found| {
            left -= u32::from(!items[found.source].leaves_out(&found.hash));
            if left == 0 {
                floor = Some(found.seq - 1);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        match (floor, scan) {
            (Some(floor), _) => Ok(self.ready(floor, None)),
            (None, Scan::Whole) => Ok(self.ready(0, None)),
            (None, Scan::Cut(at)) => {
                self.step = Step::Newest { left, below: at - 1 };
                Ok(Prepared::More(self))
            }
        }
    }

    /// Goes on to the next sketch, or to what comes after them.
    fn next_item(mut self: Box<Self>, from: usize) -> Prepared {
        let mut rest = self.plan.items.iter().enumerate().skip(from);
        let next = rest.find_map(|(item, read)| Some((item, Arc::clone(read.sketch()?))));
        self.step = match (next, self.plan.window) {
            (Some((item, sketch)), _) => {
                let difference = Box::new(Arc::unwrap_or_clone(sketch).into_difference());
                Step::Adding { item, after: 0, difference }
            }
            (None, _) if !self.undecoded.is_empty() => return Prepared::Undecoded(self.undecoded),
            (None, Window::Oldest(left)) if self.purpose == Purpose::Reply => {
                Step::Oldest { left, at: 0, ends_at: 0 }
            }
            (None, Window::Newest(0)) => {
                let floor = self.to;
                return self.ready(floor, None);
            }
            (None, Window::Newest(left)) => Step::Newest { left, below: self.to },
            (None, Window::All | Window::Oldest(_)) => return self.ready(0, None),
        };
        Prepared::More(self)
    }

    fn decoded(&mut self, item: usize, peeled: Option<Peeled>) {
        let read = &mut self.plan.items[item];
        let size = read.sketch().map_or(0, |sketch| sketch.size());
        let undecoded = peeled.is_none() && self.purpose == Purpose::Reply;
        if undecoded {
            let (id, next_cells) = (read.id.clone(), next_cells(size));
            self.undecoded.push(Undecoded { id, next_cells });
        }
        read.filter = peeled.map(|peeled| ItemFilter::Peeled(Arc::new(peeled)));
    }

    /// The window is resolved: the events of the plan are those past `floor`.
    fn ready(mut self, floor: Seq, end: Option<Seq>) -> Prepared {
        for item in &mut self.plan.items {
            item.after = item.after.max(floor);
        }
        self.plan.window = Window::All;
        Prepared::Ready { plan: self.plan, to: self.to, end }
    }
}

/// Visits up to a slice of events.
fn scan(
    log: &mut dyn ReadLog,
    sources: &[Source<'_>],
    to: Seq,
    direction: Direction,
    visit: &mut dyn FnMut(&Found) -> ControlFlow<()>,
) -> Result<Scan, StoreError> {
    let mut left = SCAN_EVENTS;
    let mut cut = Scan::Whole;
    log.find(sources, to, direction, &mut |found| {
        left -= 1;
        if left == 0 {
            cut = Scan::Cut(found.seq);
        }
        visit(&found)?;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(cut)
}
