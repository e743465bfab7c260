//! Owns the plan of a read: a selection whose cursors were resolved, and what its filters leave
//! out. `Preparing` is the work, in slices, that filters and large selections need before the first page:
//! decoding sketches, and finding where `limit`, `last` and the whole end. The hub makes plans; readers prepare
//! and carry them out. Writes no reply.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::config::{PAGE_ITEMS_MAX, SCAN_EVENTS};
use crate::event::{Hash, Seq};
use crate::filter::{Difference, Filter, InverseBloom, Peeled, Sketch, next_cells};
use crate::gather::{Gathering, Storages};
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
    /// The newest event of its storages, 0 where there is none; known beforehand of a large selection.
    pub last: Option<Seq>,
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

    /// Whether there are more storages than one page is made of, let alone one slice.
    pub fn is_large(&self) -> bool {
        self.items.len() > PAGE_ITEMS_MAX
    }

    /// Whether events are put to filters before the first page.
    pub fn needs_scans(&self) -> bool {
        let sketches = self.items.iter().any(|item| item.sketch().is_some());
        sketches || (self.window != Window::All && self.has_filters())
    }

    /// Whether the first page has to wait for `Preparing`.
    pub fn needs_preparing(&self, purpose: Purpose) -> bool {
        let looked_for = match (purpose, self.window) {
            (Purpose::Reply, _) => true,
            (Purpose::Stream, Window::Newest(most)) => most > 0,
            (Purpose::Stream, Window::All | Window::Oldest(_)) => false,
        };
        self.needs_scans() || (self.is_large() && looked_for)
    }

    pub fn ids(&self) -> Arc<[Id]> {
        self.items.iter().map(|item| item.id.clone()).collect()
    }

    /// Whether no storage starts past the request's cursor.
    pub fn has_one_start(&self) -> bool {
        self.items.iter().all(|item| item.after == self.after)
    }

    /// A slice of a search among all events past `floor`, whatever is wanted of them. Returns whether
    /// there is more to do.
    pub fn look_past(
        &self,
        floor: Seq,
        log: &dyn ReadLog,
        gathering: &mut Gathering,
    ) -> Result<bool, StoreError> {
        let storages = Storages {
            count: self.items.len(),
            source: &|place| Source { id: &self.items[place].id, after: floor },
            leaves_out: &|_| false,
        };
        gathering.step(log, &storages)
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
    /// What `Ready` says of it.
    end: Option<Seq>,
    /// One of so many that may put events to filters.
    _permit: Option<Held>,
}

#[derive(Debug)]
enum Step {
    /// Up to this item, sketches are decoded.
    Item(usize),
    /// The item's events past `after` are still to be added.
    Adding { item: usize, after: Seq, difference: Box<Difference> },
    /// Where the events are that `limit` or `last` speaks of.
    Window(Gathering),
    /// Whether there are others past `end`, the last that `limit` allows.
    Beyond { end: Seq, gathering: Gathering },
    /// The newest event, for a large selection.
    Last(Gathering),
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
    pub fn new(plan: ReadPlan, purpose: Purpose, to: Seq, permit: Option<Held>) -> Preparing {
        let (step, undecoded) = (Step::Item(0), Vec::new());
        Preparing { plan, purpose, to, step, undecoded, end: None, _permit: permit }
    }

    pub fn plan(&self) -> &ReadPlan {
        &self.plan
    }

    pub fn is_begun(&self) -> bool {
        !matches!(self.step, Step::Item(0))
    }

    /// One slice of the work.
    pub fn step(mut self: Box<Self>, log: &dyn ReadLog) -> Result<Prepared, StoreError> {
        match std::mem::replace(&mut self.step, Step::Item(0)) {
            Step::Item(item) => Ok(self.next_item(item)),
            Step::Adding { item, after, difference } => self.add(log, item, after, difference),
            Step::Window(gathering) => self.look_for_window(log, gathering),
            Step::Beyond { end, gathering } => self.look_beyond(log, end, gathering),
            Step::Last(gathering) => self.look_for_last(log, gathering),
        }
    }

    fn add(
        mut self: Box<Self>,
        log: &dyn ReadLog,
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

    /// A slice of the search for where `limit` or `last` ends or begins, in what the filters leave.
    fn look_for_window(
        mut self: Box<Self>,
        log: &dyn ReadLog,
        mut gathering: Gathering,
    ) -> Result<Prepared, StoreError> {
        let items = &self.plan.items;
        let storages = Storages {
            count: items.len(),
            source: &|place| Source { id: &items[place].id, after: items[place].after },
            leaves_out: &|found| items[found.source].leaves_out(&found.hash),
        };
        if gathering.step(log, &storages)? {
            self.step = Step::Window(gathering);
            return Ok(Prepared::More(self));
        }
        let (direction, full) = (gathering.direction(), gathering.is_full());
        let found = gathering.into_found();
        let bound = found.last().filter(|_| full).map(|(seq, _)| *seq);
        match (direction, bound) {
            (Direction::OldestFirst, Some(end)) => {
                let beyond = Gathering::new(Direction::NewestFirst, 1, self.to);
                self.step = Step::Beyond { end, gathering: beyond };
                Ok(Prepared::More(self))
            }
            (Direction::NewestFirst, Some(first)) => Ok(self.resolved(first - 1, None)),
            (_, None) => Ok(self.resolved(0, None)),
        }
    }

    /// A slice of the search for any event past the last that `limit` allows, left out or not.
    fn look_beyond(
        mut self: Box<Self>,
        log: &dyn ReadLog,
        end: Seq,
        mut gathering: Gathering,
    ) -> Result<Prepared, StoreError> {
        let items = &self.plan.items;
        let storages = Storages {
            count: items.len(),
            source: &|place| Source { id: &items[place].id, after: items[place].after.max(end) },
            leaves_out: &|_| false,
        };
        let goes_on = gathering.step(log, &storages)?;
        let more = gathering.newest() > 0;
        if goes_on && !more {
            self.step = Step::Beyond { end, gathering };
            return Ok(Prepared::More(self));
        }
        Ok(self.resolved(0, more.then_some(end)))
    }

    /// A slice of the search for the newest event.
    fn look_for_last(
        mut self: Box<Self>,
        log: &dyn ReadLog,
        mut gathering: Gathering,
    ) -> Result<Prepared, StoreError> {
        if self.plan.look_past(0, log, &mut gathering)? {
            self.step = Step::Last(gathering);
            return Ok(Prepared::More(self));
        }
        self.plan.last = Some(gathering.newest());
        Ok(self.ready())
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
            (None, Window::Oldest(limit)) if self.purpose == Purpose::Reply => {
                Step::Window(Gathering::new(Direction::OldestFirst, limit as usize, self.to))
            }
            (None, Window::Newest(0)) => {
                let floor = self.to;
                return self.resolved(floor, None);
            }
            (None, Window::Newest(most)) => {
                Step::Window(Gathering::new(Direction::NewestFirst, most as usize, self.to))
            }
            (None, Window::All | Window::Oldest(_)) => return self.resolved(0, None),
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

    /// The window is resolved: the events of the plan are those past `floor`, and up to `end` if there
    /// are others past that.
    fn resolved(mut self: Box<Self>, floor: Seq, end: Option<Seq>) -> Prepared {
        for item in &mut self.plan.items {
            item.after = item.after.max(floor);
        }
        self.plan.window = Window::All;
        self.end = end;
        if self.purpose == Purpose::Stream || !self.plan.is_large() {
            return self.ready();
        }
        self.step = Step::Last(Gathering::new(Direction::NewestFirst, 1, self.to));
        Prepared::More(self)
    }

    fn ready(self) -> Prepared {
        Prepared::Ready { plan: self.plan, to: self.to, end: self.end }
    }
}

/// Visits up to a slice of events.
fn scan(
    log: &dyn ReadLog,
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
