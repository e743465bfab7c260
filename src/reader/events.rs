//! Owns the walk over the events of a page with their values. Pages, and what is made for the hot cache, are
//! written by it. Writes nothing itself, and knows no form of a reply.

use std::ops::ControlFlow;

use super::{Page, Reader, Room};
use crate::config::VALUES_TOGETHER;
use crate::event::Seq;
use crate::store::{Direction, Found, Source, StoreError};

/// Takes an event's place among the sources, its `seq` and its value; it breaks where the event is too
/// much.
pub(super) type VisitEvent<'a> = dyn FnMut(usize, Seq, &str) -> ControlFlow<()> + 'a;

impl Reader {
    /// Visits the events of `sources` up to `to`, less those that are left out, oldest first: up to the
    /// first that is too much, or as many as there is room to look at.
    pub(super) fn visit(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        leaves_out: &dyn Fn(&Found) -> bool,
        room: &mut Room,
        visit: &mut VisitEvent<'_>,
    ) -> Result<Page, StoreError> {
        let mut found = FoundEvents::after(sources);
        let mut page = Ok(Page::Whole);
        self.log.find(sources, to, Direction::OldestFirst, &mut |event| {
            if !leaves_out(&event) {
                found.push(&event);
            }
            room.events -= 1;
            if room.events == 0 {
                page = Ok(Page::Cut(event.seq));
                return ControlFlow::Break(());
            }
            if found.seqs.len() == VALUES_TOGETHER {
                page = self.visit_found(&mut found, room.bytes, visit);
            }
            match page {
                Ok(Page::Whole) => ControlFlow::Continue(()),
                Ok(Page::Cut(_)) | Err(_) => ControlFlow::Break(()),
            }
        })?;
        let page = page?;
        match self.visit_found(&mut found, room.bytes, visit)? {
            Page::Whole => Ok(page),
            cut @ Page::Cut(_) => Ok(cut),
        }
    }

    /// Looks up the values of what was found, of which none is left then.
    fn visit_found(
        &self,
        found: &mut FoundEvents,
        bytes_max: usize,
        visit: &mut VisitEvent<'_>,
    ) -> Result<Page, StoreError> {
        let FoundEvents { sources, seqs, visited } = found;
        let count = self.log.values(seqs, bytes_max, &mut |place, value| {
            visit(sources[place], seqs[place], value)
        })?;
        *visited = count.checked_sub(1).map_or(*visited, |last| seqs[last]);
        let page = if count == seqs.len() { Page::Whole } else { Page::Cut(*visited) };
        sources.clear();
        seqs.clear();
        Ok(page)
    }
}

/// Events whose values are looked up together: their sources' places, and their `seq`s.
struct FoundEvents {
    sources: Vec<usize>,
    seqs: Vec<Seq>,
    /// The last event before them that was visited, or where the walk starts.
    visited: Seq,
}

impl FoundEvents {
    fn after(sources: &[Source<'_>]) -> FoundEvents {
        let start = sources.iter().map(|source| source.after).min().unwrap_or(0);
        FoundEvents { sources: Vec::new(), seqs: Vec::new(), visited: start }
    }

    fn push(&mut self, event: &Found) {
        self.sources.push(event.source);
        self.seqs.push(event.seq);
    }
}
