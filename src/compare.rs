//! Owns the answer of `/bloom`: what a client's filter and the server's events have that the other
//! lacks, found and written in slices. The hub makes a `Comparing`, a reader carries it on. Knows
//! nothing of HTTP, and keeps no more hashes than the server's own filter needs.

use std::io::Write as _;
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use crate::config::{OWN_FILTER_BYTES_MAX, PAGE_BYTES, SCAN_EVENTS};
use crate::event::{Epoch, Hash, Seq};
use crate::filter::{Difference, Filter, InverseBloom, Matching, Peeled, next_cells};
use crate::held::Held;
use crate::id::Id;
use crate::json;
use crate::selection::CompareItem;
use crate::store::{Direction, ReadLog, Source, StoreError};

/// A comparison under way.
#[derive(Debug)]
pub struct Comparing {
    items: std::vec::IntoIter<CompareItem>,
    /// The item that is being answered; none before the first.
    current: Option<Current>,
    /// How many items were begun.
    begun: usize,
    /// Everything is as it was when this was the newest event.
    to: Seq,
    /// The last `seq` among the storages so far.
    last: Seq,
    /// One of the scans that may be under way, until there is nothing more to scan: a client that
    /// takes its answer slowly keeps nobody else from one.
    permit: Option<Held>,
    _memory: Held,
}

#[derive(Debug)]
struct Current {
    set: Set,
    /// The server's number of events.
    count: u64,
    /// The client's, as it says.
    asked: Option<u64>,
    phase: Phase,
}

/// Whose events are compared.
#[derive(Debug)]
enum Set {
    Storage(Id),
    Server,
}

/// What is being done for an item. Every scan goes through the events past `after`.
#[derive(Debug)]
enum Phase {
    /// Version 1: which of the server's events the filter contains.
    Matching { after: Seq, list: List, matching: Box<Matching>, own: Option<Vec<Hash>> },
    /// Version 2: the server's events are added to the sketch.
    Adding { after: Seq, cells: u32, difference: Box<Difference> },
    /// Which of the server's events the client lacks.
    Claiming { after: Seq, list: List, peeled: Box<Peeled> },
    /// What no event of the server's matched.
    ServerMissing { from: usize, list: List, entries: Entries, own: Option<Vec<Hash>> },
    /// The hashes for the server's own filter.
    Gathering { after: Seq, own: Vec<Hash> },
    /// The lists are written; what is left is the server's own filter.
    Own(Option<Vec<Hash>>),
}

#[derive(Debug)]
enum Entries {
    Matching(Box<Matching>),
    Peeled(Box<Peeled>),
}

/// What beginning an item counts as, in events scanned.
const ITEM_BUDGET: usize = 256;

/// What a slice may use.
struct Slice<'a> {
    log: &'a dyn ReadLog,
    to: Seq,
    /// Events that it may still scan.
    budget: &'a mut usize,
}

/// Whether a list has an element yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Empty,
    Begun,
}

impl List {
    fn push(&mut self, out: &mut Vec<u8>, element: impl std::fmt::Display) {
        if *self == List::Begun {
            out.push(b',');
        }
        *self = List::Begun;
        write!(out, "\"{element}\"").expect("writing to memory does not fail");
    }
}

impl Comparing {
    /// `memory` is given back when the comparison is dropped, `permit` after its last scan.
    pub fn new(items: Vec<CompareItem>, to: Seq, permit: Held, memory: Held) -> Comparing {
        let items = items.into_iter();
        let (permit, _memory) = (Some(permit), memory);
        Comparing { items, current: None, begun: 0, to, last: 0, permit, _memory }
    }

    /// One slice: a scan's worth of events, or a page's worth of output. Returns whether more is to
    /// be written.
    pub fn step(
        &mut self,
        log: &dyn ReadLog,
        epoch: Epoch,
        random: &mut dyn FnMut() -> u64,
        out: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let mut budget = SCAN_EVENTS;
        while budget > 0 && out.len() < PAGE_BYTES {
            let Some(mut current) = self.current.take() else {
                if !self.next_item(log, epoch, out)? {
                    return Ok(false);
                }
                budget = budget.saturating_sub(ITEM_BUDGET);
                continue;
            };
            let mut slice = Slice { log, to: self.to, budget: &mut budget };
            match current.step(&mut slice, random, out)? {
                ControlFlow::Continue(phase) => self.current = Some(Current { phase, ..current }),
                ControlFlow::Break(()) => out.push(b'}'),
            }
            let scans = self.current.as_ref().is_some_and(|current| current.phase.scans());
            if !scans && self.items.len() == 0 {
                self.permit = None;
            }
        }
        Ok(true)
    }

    fn next_item(
        &mut self,
        log: &dyn ReadLog,
        epoch: Epoch,
        out: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        if self.begun == 0 {
            out.extend_from_slice(b"{\"items\":[");
        }
        let Some(item) = self.items.next() else {
            let cursor = crate::event::Cursor { seq: self.last, epoch: Some(epoch) };
            write!(out, "],\"cursor\":\"{cursor}\"}}").expect("writing to memory does not fail");
            return Ok(false);
        };
        if self.begun > 0 {
            out.push(b',');
        }
        self.begun += 1;
        out.push(b'{');
        let (set, count, last) = match item.id {
            Some(id) => {
                out.extend_from_slice(b"\"id\":");
                json::write_string(out, id.as_str());
                out.push(b',');
                let survey = log.survey(&id, self.to)?;
                (Set::Storage(id), survey.count, survey.last)
            }
            None => (Set::Server, self.to, self.to),
        };
        write!(out, "\"count\":{count}").expect("writing to memory does not fail");
        self.last = self.last.max(last);
        let phase = Phase::first(item.filter, item.count, count, out);
        self.current = Some(Current { set, count, asked: item.count, phase });
        Ok(true)
    }
}

impl Phase {
    fn scans(&self) -> bool {
        match self {
            Phase::Matching { .. }
            | Phase::Adding { .. }
            | Phase::Claiming { .. }
            | Phase::Gathering { .. } => true,
            Phase::ServerMissing { .. } | Phase::Own(_) => false,
        }
    }

    fn first(filter: Option<Filter>, asked: Option<u64>, count: u64, out: &mut Vec<u8>) -> Phase {
        let own = own_hashes(asked, count);
        match filter {
            None => match own {
                Some(own) => Phase::Gathering { after: 0, own },
                None => Phase::Own(None),
            },
            Some(Filter::InverseBloom(filter)) => {
                out.extend_from_slice(b",\"clientMissing\":[");
                let matching = Box::new(Matching::new(filter));
                Phase::Matching { after: 0, list: List::Empty, matching, own }
            }
            Some(Filter::Sketch(sketch)) => {
                let cells = sketch.size();
                let difference = Box::new(sketch.into_difference());
                Phase::Adding { after: 0, cells, difference }
            }
        }
    }
}

/// Room for the hashes of the server's own filter, where one is to be made.
fn own_hashes(asked: Option<u64>, count: u64) -> Option<Vec<Hash>> {
    let wanted = asked.is_some_and(|asked| count > asked);
    (wanted && InverseBloom::encoded_bytes(count) <= OWN_FILTER_BYTES_MAX).then(Vec::new)
}

impl Current {
    /// One slice of the item; `Break` when it is answered.
    fn step(
        &mut self,
        slice: &mut Slice<'_>,
        random: &mut dyn FnMut() -> u64,
        out: &mut Vec<u8>,
    ) -> Result<ControlFlow<(), Phase>, StoreError> {
        let phase = std::mem::replace(&mut self.phase, Phase::Own(None));
        let next = match phase {
            Phase::Matching { after, mut list, mut matching, mut own } => {
                let cut = self.set.scan(slice, after, &mut |hash| {
                    if !matching.contains(&hash) {
                        list.push(out, hash);
                    }
                    if let Some(own) = &mut own {
                        own.push(hash);
                    }
                    out.len() < PAGE_BYTES
                })?;
                match cut {
                    Some(after) => Phase::Matching { after, list, matching, own },
                    None => server_missing(Entries::Matching(matching), own, out),
                }
            }
            Phase::Adding { after, cells, mut difference } => {
                let cut = self.set.scan(slice, after, &mut |hash| {
                    difference.add(&hash);
                    true
                })?;
                match (cut, cells) {
                    (Some(after), cells) => Phase::Adding { after, cells, difference },
                    (None, cells) => match difference.peel() {
                        Some(peeled) => {
                            out.extend_from_slice(b",\"clientMissing\":[");
                            let peeled = Box::new(peeled);
                            if peeled.unclaimed(0).next().is_none() {
                                // Equal sets: no event is to be looked for.
                                server_missing(Entries::Peeled(peeled), None, out)
                            } else {
                                Phase::Claiming { after: 0, list: List::Empty, peeled }
                            }
                        }
                        None => {
                            write_undecoded(out, next_cells(cells));
                            return Ok(ControlFlow::Break(()));
                        }
                    },
                }
            }
            Phase::Claiming { after, mut list, mut peeled } => {
                let cut = self.set.scan(slice, after, &mut |hash| {
                    if peeled.claim(&hash) {
                        list.push(out, hash);
                    }
                    out.len() < PAGE_BYTES
                })?;
                match cut {
                    Some(after) => Phase::Claiming { after, list, peeled },
                    None => server_missing(Entries::Peeled(peeled), None, out),
                }
            }
            Phase::ServerMissing { from, mut list, entries, own } => {
                match entries.write(from, &mut list, out) {
                    Some(from) => Phase::ServerMissing { from, list, entries, own },
                    None => {
                        out.push(b']');
                        match entries {
                            Entries::Matching(_) => Phase::Own(own),
                            // The server's own filter answers one of its kind.
                            Entries::Peeled(_) => return Ok(ControlFlow::Break(())),
                        }
                    }
                }
            }
            Phase::Gathering { after, mut own } => {
                let cut = self.set.scan(slice, after, &mut |hash| {
                    own.push(hash);
                    true
                })?;
                match cut {
                    Some(after) => Phase::Gathering { after, own },
                    None => Phase::Own(Some(own)),
                }
            }
            Phase::Own(own) => {
                self.write_own(own, random, out);
                return Ok(ControlFlow::Break(()));
            }
        };
        Ok(ControlFlow::Continue(next))
    }

    fn write_own(
        &self,
        own: Option<Vec<Hash>>,
        random: &mut dyn FnMut() -> u64,
        out: &mut Vec<u8>,
    ) {
        if self.asked.is_none_or(|asked| self.count <= asked) {
            return;
        }
        match own {
            Some(own) => {
                let filter = InverseBloom::build(&own, self.count, random).encode();
                out.extend_from_slice(b",\"bloomFilter\":\"");
                out.extend_from_slice(filter.as_bytes());
                out.push(b'"');
            }
            None => out.extend_from_slice(b",\"bloomFilterOmitted\":true"),
        }
    }
}

fn server_missing(entries: Entries, own: Option<Vec<Hash>>, out: &mut Vec<u8>) -> Phase {
    out.extend_from_slice(b"],\"serverMissing\":[");
    Phase::ServerMissing { from: 0, list: List::Empty, entries, own }
}

fn write_undecoded(out: &mut Vec<u8>, next_cells: Option<u32>) {
    out.extend_from_slice(b",\"undecoded\":true");
    if let Some(cells) = next_cells {
        write!(out, ",\"nextCells\":{cells}").expect("writing to memory does not fail");
    }
}

impl Entries {
    /// Writes a page's worth; where to go on, if there is more.
    fn write(&self, from: usize, list: &mut List, out: &mut Vec<u8>) -> Option<usize> {
        let mut write = |(next, entry)| {
            list.push(out, entry);
            (out.len() >= PAGE_BYTES).then_some(next)
        };
        match self {
            Entries::Matching(matching) => matching.unmatched(from).find_map(&mut write),
            Entries::Peeled(peeled) => peeled.unclaimed(from).find_map(&mut write),
        }
    }
}

impl Set {
    /// Visits the hashes of a slice of events, until the visitor has enough. Returns the last event
    /// visited, unless there are none after it.
    fn scan(
        &self,
        slice: &mut Slice<'_>,
        after: Seq,
        visit: &mut dyn FnMut(Hash) -> bool,
    ) -> Result<Option<Seq>, StoreError> {
        if *slice.budget == 0 {
            return Ok(Some(after));
        }
        let (to, left) = (slice.to, &mut *slice.budget);
        let mut cut = None;
        let mut visit = |seq: Seq, hash: Hash| {
            *left -= 1;
            if visit(hash) && *left > 0 {
                return ControlFlow::Continue(());
            }
            cut = Some(seq);
            ControlFlow::Break(())
        };
        match self {
            Set::Storage(id) => {
                let source = [Source { id, after }];
                slice
                    .log
                    .find(&source, to, Direction::OldestFirst, &mut |f| visit(f.seq, f.hash))?;
            }
            Set::Server => {
                slice.log.scan(after, to, Direction::OldestFirst, &mut |seq, id, hash| {
                    visit(seq, server_hash(id, &hash))
                })?;
            }
        }
        Ok(cut)
    }
}

/// What an event counts as over the whole server: it tells nobody who does not know the identifier
/// anything.
fn server_hash(id: &str, hash: &Hash) -> Hash {
    let mut sha = Sha256::new();
    sha.update(id.as_bytes());
    sha.update([0]);
    sha.update(hash.0);
    Hash(sha.finalize().into())
}
