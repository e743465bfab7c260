//! Owns a stream's page of a large selection: its events are found in slices, and written once they
//! are. `Reader::answer` calls it. How few storages a slice looks at, `gather` knows.

use std::ops::ControlFlow;

use super::{Followed, Reader, Room};
use crate::config::{GATHERED_EVENTS_MAX, GATHERED_PAGE_BYTES};
use crate::event::Seq;
use crate::gather::{Gathering, Storages};
use crate::json;
use crate::message::{From, Reading};
use crate::plan::ReadPlan;
use crate::selection::Window;
use crate::sse;
use crate::store::{Direction, StoreError};

impl Reader {
    /// One slice of the search for the page's events, or for the newest of all, which `synced` names;
    /// and the page, once that is over.
    pub(super) fn large_frames_page(
        &self,
        reading: &Reading,
        from: From,
        to: Seq,
        gathering: Option<Box<Gathering>>,
        out: &mut Vec<u8>,
    ) -> Result<Followed, StoreError> {
        let events = || Box::new(Gathering::new(Direction::OldestFirst, GATHERED_EVENTS_MAX, to));
        let gathering = gathering.unwrap_or_else(events);
        match (gathering.direction(), reading) {
            (Direction::NewestFirst, Reading::Opening(plan)) => {
                self.look_for_newest(plan, to, gathering, out)
            }
            (Direction::NewestFirst | Direction::OldestFirst, _) => {
                self.look_for_events(reading, from, to, gathering, out)
            }
        }
    }

    fn look_for_events(
        &self,
        reading: &Reading,
        from: From,
        to: Seq,
        mut gathering: Box<Gathering>,
        out: &mut Vec<u8>,
    ) -> Result<Followed, StoreError> {
        let floor = match reading {
            Reading::Opening(plan) if plan.window == Window::Newest(0) => to,
            _ => from.floor(),
        };
        let storages = Storages {
            count: reading.storages(),
            source: &|place| reading.source(place, floor),
            leaves_out: &|found| reading.leaves_out(found),
        };
        if gathering.step(&*self.log, &storages)? {
            return Ok(Followed::Slice(gathering));
        }
        let (full, newest) = (gathering.is_full(), gathering.newest());
        let found = gathering.into_found();
        let written =
            self.write_found(reading, &found, Room::of(from, GATHERED_PAGE_BYTES), out)?;
        let whole = written == found.len() && !full;
        let up_to = written.checked_sub(1).map_or(floor, |place| found[place].0);
        match reading {
            Reading::Following(_) if whole => Ok(Followed::Page { cursor: to, synced: false }),
            Reading::Opening(plan) if whole => {
                // What was looked at is the newest there is, if that was all there is.
                let looked_at =
                    if let From::Opening(before) = from { before } else { 0 }.max(newest);
                if looked_at > 0 && plan.has_one_start() {
                    return Ok(self.end_opening(plan, looked_at, to, out));
                }
                if written > 0 {
                    return Ok(Followed::Page { cursor: up_to, synced: false });
                }
                Ok(Followed::Slice(Box::new(Gathering::new(Direction::NewestFirst, 1, to))))
            }
            _ => Ok(Followed::Page { cursor: up_to, synced: false }),
        }
    }

    fn look_for_newest(
        &self,
        plan: &ReadPlan,
        to: Seq,
        mut gathering: Box<Gathering>,
        out: &mut Vec<u8>,
    ) -> Result<Followed, StoreError> {
        if plan.look_past(plan.after, &*self.log, &mut gathering)? {
            return Ok(Followed::Slice(gathering));
        }
        Ok(self.end_opening(plan, gathering.newest(), to, out))
    }

    fn end_opening(&self, plan: &ReadPlan, last: Seq, to: Seq, out: &mut Vec<u8>) -> Followed {
        let cursor = self.cursor(last.max(plan.after)).to_string();
        sse::write_synced(out, &cursor, None);
        Followed::Page { cursor: to, synced: true }
    }

    /// Writes what there is room for, and returns how many events that is.
    fn write_found(
        &self,
        reading: &Reading,
        found: &[(Seq, usize)],
        room: Room,
        out: &mut Vec<u8>,
    ) -> Result<usize, StoreError> {
        let epoch = self.epoch;
        let seqs: Vec<Seq> = found.iter().map(|(seq, _)| *seq).collect();
        self.log.values(&seqs, room.bytes, &mut |place, value| {
            if out.len() >= GATHERED_PAGE_BYTES || out.len() + value.len() > room.bytes {
                return ControlFlow::Break(());
            }
            let (seq, storage) = found[place];
            let name = json::string(reading.source(storage, 0).id.as_str());
            sse::write_event(out, epoch, &name, seq, value);
            ControlFlow::Continue(())
        })
    }
}
