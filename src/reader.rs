//! Owns the readers: each answers requests for pages from a read-only view of the log, one short
//! read transaction a page, encoded for the wire; and parses bodies too large for the loop.
//! `Reader::step` is the whole of it; `run` is the loop around it. Knows no connection, and keeps
//! nothing from one page to the next.

use std::ops::ControlFlow;

use crossbeam_channel::{Receiver, Sender};

use crate::config::{
    HOT_ENTRY_BYTES_MAX, PAGE_BYTES, PAGE_EVENTS_MAX, PAGE_ITEMS_MAX, SYNCED_ITEMS_MAX,
};
use crate::event::{Cursor, Epoch, Seq};
use crate::hot::Encoded;
use crate::id::Id;
use crate::json;
use crate::message::{FirstPage, From, FromReader, Position, ReadPlan, ToReader};
use crate::route::Limits;
use crate::selection::Window;
use crate::sse;
use crate::store::{Direction, Found, ReadLog, Source, StoreError};

/// The shortest event as JSON, with the comma after it.
const EVENT_BYTES_MIN: usize = r#"{"seq":1,"value":""},"#.len();

pub struct Reader {
    log: Box<dyn ReadLog>,
    epoch: Epoch,
    limits: Limits,
}

impl Reader {
    pub fn new(log: Box<dyn ReadLog>, epoch: Epoch, limits: Limits) -> Reader {
        Reader { log, epoch, limits }
    }

    pub fn step(&mut self, request: ToReader) -> FromReader {
        if let ToReader::Parse { token, route, query, body } = request {
            let answer = route.answer(true, &query, &body, &self.limits);
            return FromReader::Parsed { token, body_bytes: body.len(), answer };
        }
        let answer = match self.log.begin() {
            Ok(()) => self.read(&request),
            Err(error) => Err(error),
        };
        self.log.end();
        answer.unwrap_or_else(|error| match request {
            ToReader::Follow { slot, .. } => FromReader::FollowFailed { slot, error },
            ToReader::Fill { token, id, .. } => {
                FromReader::Filled { token, id, events: Err(error) }
            }
            ToReader::Open { token, .. }
            | ToReader::Page { token, .. }
            | ToReader::Parse { token, .. } => FromReader::Failed { token, error },
        })
    }

    fn read(&mut self, request: &ToReader) -> Result<FromReader, StoreError> {
        match request {
            ToReader::Parse { .. } => unreachable!("parsing needs no view of the log"),
            ToReader::Open { token, plan, to, unless } => {
                let last = self.last(plan, *to)?;
                if unless.contains(&last) {
                    let page = FirstPage { last, body: Vec::new(), next: None };
                    return Ok(FromReader::Opened { token: *token, page });
                }
                let start = self.start(plan, *to, last)?;
                let mut body = Vec::with_capacity(1024);
                json::write_reply_start(&mut body, plan.reset);
                let next = self.json_page(plan, start, &mut body)?;
                Ok(FromReader::Opened { token: *token, page: FirstPage { last, body, next } })
            }
            ToReader::Fill { token, id, to } => {
                let events = Ok(self.whole(id, *to)?);
                Ok(FromReader::Filled { token: *token, id: id.clone(), events })
            }
            ToReader::Page { token, plan, position } => {
                let mut body = Vec::with_capacity(PAGE_BYTES + PAGE_BYTES / 8);
                let next = self.json_page(plan, *position, &mut body)?;
                Ok(FromReader::Paged { token: *token, body, next })
            }
            ToReader::Follow { slot, plan, from, to } => {
                let mut frames = Vec::with_capacity(1024);
                let (cursor, synced) = self.frames_page(plan, *from, *to, &mut frames)?;
                Ok(FromReader::Followed { slot: *slot, frames, cursor, synced })
            }
        }
    }

    /// A storage's events, unless they are more than an entry of the hot cache may take.
    fn whole(&mut self, id: &Id, to: Seq) -> Result<Option<Encoded>, StoreError> {
        const EVENTS_MAX: usize = HOT_ENTRY_BYTES_MAX / EVENT_BYTES_MIN;
        let mut seqs = Vec::new();
        let source = [Source { id, after: 0 }];
        self.log.find(&source, to, Direction::OldestFirst, &mut |found| {
            seqs.push(found.seq);
            if seqs.len() > EVENTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if seqs.len() > EVENTS_MAX {
            return Ok(None);
        }
        let mut events = Encoded::default();
        self.log.values(&seqs, &mut |place, value| {
            events.push(seqs[place], value);
            let full = events.bytes() > HOT_ENTRY_BYTES_MAX;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((events.bytes() <= HOT_ENTRY_BYTES_MAX).then_some(events))
    }

    /// The last `seq` among all events of the plan's storages.
    fn last(&mut self, plan: &ReadPlan, to: Seq) -> Result<Seq, StoreError> {
        let mut last = 0;
        for item in &plan.items {
            last = last.max(self.log.survey(&item.id, to)?.last);
        }
        Ok(last)
    }

    /// Where a JSON reply starts, and what it will end with.
    fn start(&mut self, plan: &ReadPlan, to: Seq, last: Seq) -> Result<Position, StoreError> {
        let all = Position {
            item: 0,
            after: 0,
            begun: false,
            comma: false,
            floor: 0,
            to,
            visible: to,
            cursor: last.max(plan.after),
            more: false,
        };
        Ok(match plan.window {
            Window::All => all,
            Window::Oldest(limit) => match self.oldest(plan, to, limit)? {
                Some(seq) => Position { to: seq, cursor: seq, more: true, ..all },
                None => all,
            },
            Window::Newest(limit) => Position { floor: self.floor(plan, to, limit)?, ..all },
        })
    }

    /// The `seq` of the event that `limit` ends at; `None` when no event stands past that.
    fn oldest(&mut self, plan: &ReadPlan, to: Seq, limit: u32) -> Result<Option<Seq>, StoreError> {
        let mut left = limit;
        let mut ends_at = 0;
        let mut more = false;
        self.log.find(&sources(plan, 0), to, Direction::OldestFirst, &mut |found| {
            if left == 0 {
                more = true;
                return ControlFlow::Break(());
            }
            left -= 1;
            ends_at = found.seq;
            ControlFlow::Continue(())
        })?;
        Ok(more.then_some(ends_at))
    }

    /// The newest `limit` events are those past this.
    fn floor(&mut self, plan: &ReadPlan, to: Seq, limit: u32) -> Result<Seq, StoreError> {
        if limit == 0 {
            return Ok(to);
        }
        let mut left = limit;
        let mut floor = 0;
        self.log.find(&sources(plan, 0), to, Direction::NewestFirst, &mut |found| {
            left -= 1;
            if left == 0 {
                floor = found.seq - 1;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(floor)
    }

    /// Writes items from `position` on until the page is full or the reply complete.
    fn json_page(
        &mut self,
        plan: &ReadPlan,
        mut position: Position,
        out: &mut Vec<u8>,
    ) -> Result<Option<Position>, StoreError> {
        let items_end = position.item + PAGE_ITEMS_MAX;
        while let Some(item) = plan.items.get(position.item) {
            if position.item == items_end || out.len() >= PAGE_BYTES {
                return Ok(Some(position));
            }
            if !position.begun {
                let count = self.log.survey(&item.id, position.visible)?.count;
                json::write_item_start(out, position.item, item.id.as_str(), count);
                position = Position { begun: true, comma: false, after: 0, ..position };
            }
            let after = item.after.max(position.floor).max(position.after);
            let source = [Source { id: &item.id, after }];
            let page = self.page(&source, position.to, out, &mut |out, _, seq, value| {
                if position.comma {
                    out.push(b',');
                }
                position.comma = true;
                json::write_event(out, seq, value);
            })?;
            match page {
                Page::Cut(seq) => return Ok(Some(Position { after: seq, ..position })),
                Page::Whole => {
                    json::write_item_end(out);
                    position = Position { item: position.item + 1, begun: false, ..position };
                }
            }
        }
        json::write_reply_end(out, self.cursor(position.cursor), position.more);
        Ok(None)
    }

    /// Writes a stream's events; returns up to where, and whether `synced` ends them.
    fn frames_page(
        &mut self,
        plan: &ReadPlan,
        from: From,
        to: Seq,
        out: &mut Vec<u8>,
    ) -> Result<(Seq, bool), StoreError> {
        let (opening, sources) = match (from, plan.window) {
            (From::Plan, Window::Newest(limit)) => {
                (true, sources(plan, self.floor(plan, to, limit)?))
            }
            (From::Plan, _) => (true, sources(plan, 0)),
            (From::Opening(cursor), _) => (true, sources(plan, cursor)),
            (From::Live(cursor), _) => {
                (false, plan.items.iter().map(|i| Source { id: &i.id, after: cursor }).collect())
            }
        };
        let epoch = self.epoch;
        let names: Vec<Vec<u8>> = match plan.items.len() {
            1 => vec![json::string(plan.items[0].id.as_str())],
            _ => Vec::new(),
        };
        let page =
            self.page(&sources, to, out, &mut |out, source, seq, value| match names.first() {
                Some(name) => sse::write_event(out, epoch, name, seq, value),
                None => {
                    let name = json::string(plan.items[source].id.as_str());
                    sse::write_event(out, epoch, &name, seq, value);
                }
            })?;
        match page {
            Page::Cut(seq) => Ok((seq, false)),
            Page::Whole if opening => {
                self.write_synced(plan, to, out)?;
                Ok((to, true))
            }
            Page::Whole => Ok((to, false)),
        }
    }

    fn write_synced(
        &mut self,
        plan: &ReadPlan,
        to: Seq,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let listed = plan.items.len() <= SYNCED_ITEMS_MAX;
        let mut items = Vec::new();
        let mut last = plan.after;
        for item in &plan.items {
            let survey = self.log.survey(&item.id, to)?;
            last = last.max(survey.last);
            if listed {
                items.push((json::string(item.id.as_str()), survey.count));
            }
        }
        sse::write_synced(out, &self.cursor(last).to_string(), listed.then_some(&items[..]));
        Ok(())
    }

    /// Finds events and writes them until the page is full.
    fn page(
        &mut self,
        sources: &[Source<'_>],
        to: Seq,
        out: &mut Vec<u8>,
        write: &mut WriteEvent<'_>,
    ) -> Result<Page, StoreError> {
        let mut found: Vec<(usize, Seq)> = Vec::new();
        let mut whole = true;
        self.log.find(
            sources,
            to,
            Direction::OldestFirst,
            &mut |Found { source, seq, .. }| {
                if found.len() == PAGE_EVENTS_MAX {
                    whole = false;
                    return ControlFlow::Break(());
                }
                found.push((source, seq));
                ControlFlow::Continue(())
            },
        )?;
        let seqs: Vec<Seq> = found.iter().map(|(_, seq)| *seq).collect();
        let mut written = 0;
        self.log.values(&seqs, &mut |place, value| {
            if out.len() >= PAGE_BYTES {
                return ControlFlow::Break(());
            }
            let (source, seq) = found[place];
            write(out, source, seq, value);
            written = place + 1;
            ControlFlow::Continue(())
        })?;
        Ok(if whole && written == seqs.len() {
            Page::Whole
        } else {
            let last = written.checked_sub(1).map(|place| seqs[place]);
            Page::Cut(last.unwrap_or_else(|| sources.iter().map(|s| s.after).min().unwrap_or(0)))
        })
    }

    fn cursor(&self, seq: Seq) -> Cursor {
        Cursor { seq, epoch: Some(self.epoch) }
    }
}

/// Writes the event of a source: its place among the sources, its `seq`, its value.
type WriteEvent<'a> = dyn FnMut(&mut Vec<u8>, usize, Seq, &str) + 'a;

/// Whether a page reached its end, or after which event it was cut.
enum Page {
    Whole,
    Cut(Seq),
}

fn sources(plan: &ReadPlan, floor: Seq) -> Vec<Source<'_>> {
    plan.items.iter().map(|item| Source { id: &item.id, after: item.after.max(floor) }).collect()
}

/// A reader's thread: until the hub is gone. The answers' queue has a place for every request.
pub fn run(
    mut reader: Reader,
    requests: Receiver<ToReader>,
    answers: Sender<FromReader>,
    wake: Box<dyn Fn() + Send>,
) {
    while let Ok(request) = requests.recv() {
        if answers.send(reader.step(request)).is_err() {
            return;
        }
        wake();
    }
}
