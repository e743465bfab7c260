//! Owns the readers: each answers requests for pages from a read-only view of the log, one short
//! read transaction a page, or for the first pages that wait together; encoded for the wire. And
//! parses bodies too large for the loop. `Reader::step` is the whole of it; `run` is the loop around
//! it. Knows no connection, and keeps nothing from one page to the next.

use std::ops::ControlFlow;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::config::{
    GATHERED_PAGE_BYTES, HOT_ENTRY_BYTES_MAX, PAGE_BYTES, PAGE_ITEMS_MAX, SCAN_EVENTS,
    SYNCED_ITEMS_MAX, VIEW_PAGES_MAX,
};
use crate::event::{Cursor, Epoch, Seq};
use crate::gather::Gathering;
use crate::hot::Encoded;
use crate::json;
use crate::message::{
    Filling, FirstPage, From, FromReader, Lane, NextPage, Position, Read, Reading, ToReader,
};
use crate::plan::ReadPlan;
use crate::route::Limits;
use crate::selection::Window;
use crate::sse;
use crate::store::{Direction, Found, ReadLog, Source, StoreError, Survey};

mod events;
mod large;

pub struct Reader {
    log: Box<dyn ReadLog>,
    epoch: Epoch,
    limits: Limits,
    /// For the seeds of the server's own filters.
    random: Box<dyn FnMut() -> u64 + Send>,
}

impl Reader {
    pub fn new(
        log: Box<dyn ReadLog>,
        epoch: Epoch,
        limits: Limits,
        random: Box<dyn FnMut() -> u64 + Send>,
    ) -> Reader {
        Reader { log, epoch, limits, random }
    }

    /// Whether a request is answered with these, which wait: first pages are, as to begin and end a
    /// view is a quarter of what a reader does for most of them.
    pub fn joins(together: &[ToReader], request: &ToReader) -> bool {
        together.is_empty() || (takes_more(together) && is_first(request))
    }

    /// Answers requests that join each other, in order. Their view begins after the last of them was
    /// asked for, so that it holds what each may read.
    pub fn step(&mut self, together: Vec<ToReader>, answered: &mut dyn FnMut(FromReader)) {
        let mut view = None;
        let mut bytes = 0;
        for request in together {
            let lane = request.lane();
            let answer = match request {
                ToReader::Parse { token, route, query, body } => {
                    let answer = route.answer(true, &query, &body, &self.limits);
                    Read::Parsed { token, body_bytes: query.len() + body.len(), answer }
                }
                request => {
                    let begun = view.get_or_insert_with(|| self.log.begin()).clone();
                    self.answer(begun, request)
                }
            };
            let answer = FromReader { lane, answer };
            bytes += answer.bytes();
            // No view lasts much longer than a page takes, and one that failed may be over already.
            if bytes >= PAGE_BYTES || answer.is_failure() {
                self.log.end();
                (view, bytes) = (None, 0);
            }
            answered(answer);
        }
        self.log.end();
    }

    /// Every request has its own way to fail; a view that could not begin is one reason.
    fn answer(&mut self, begun: Result<(), StoreError>, request: ToReader) -> Read {
        match request {
            ToReader::Parse { .. } => unreachable!("parsing needs no view of the log"),
            ToReader::Open { token, plan, to, unless, end } => {
                match begun.and_then(|()| self.open(plan, to, &unless, end, &Encoded::default())) {
                    Ok(page) => Read::Opened { token, page },
                    Err(error) => Read::Failed { token, error },
                }
            }
            ToReader::Fill { token, plan, to, unless } => {
                let id = plan.items[0].id.clone();
                Read::Filled {
                    token,
                    id,
                    filling: begun.and_then(|()| self.fill(plan, to, &unless)),
                }
            }
            ToReader::Page { token, page } => match begun.and_then(|()| self.next_page(page)) {
                Ok((body, next)) => Read::Paged { token, body: fitted(body), next },
                Err(error) => Read::Failed { token, error },
            },
            ToReader::Prepare { asker, preparing } => {
                let prepared = begun.and_then(|()| preparing.step(&*self.log));
                Read::Prepared { asker, prepared }
            }
            ToReader::Follow { slot, reading, from, to, gathering } => {
                let large = reading.is_large();
                let mut frames = new_page(if large { GATHERED_PAGE_BYTES } else { PAGE_BYTES });
                let page = match begun {
                    Ok(()) if large => {
                        self.large_frames_page(&reading, from, to, gathering, &mut frames)
                    }
                    Ok(()) => self.frames_page(&reading, from, to, &mut frames),
                    Err(error) => Err(error),
                };
                match page {
                    Ok(Followed::Page { cursor, synced }) => {
                        Read::Followed { slot, frames: fitted(frames), cursor, synced }
                    }
                    Ok(Followed::Slice(gathering)) => {
                        let gathering = Some(gathering);
                        let rest = ToReader::Follow { slot, reading, from, to, gathering };
                        Read::Gathered { slot, rest: Box::new(rest) }
                    }
                    Err(error) => Read::FollowFailed { slot, error },
                }
            }
        }
    }

    fn open(
        &self,
        plan: Arc<ReadPlan>,
        to: Seq,
        unless: &[Seq],
        end: Option<Seq>,
        read: &Encoded,
    ) -> Result<FirstPage, StoreError> {
        let surveys = match plan.last {
            Some(_) => Vec::new(),
            None => self.surveys(&plan, to)?,
        };
        let newest = || surveys.iter().map(|survey| survey.last).max().unwrap_or(0);
        let last = plan.last.unwrap_or_else(newest);
        if unless.contains(&last) {
            return Ok(FirstPage { last, body: Vec::new(), next: None });
        }
        let start = self.start(&plan, to, last, end)?;
        let mut body = Vec::with_capacity(1024);
        json::write_reply_start(&mut body, plan.reset);
        let start = write_read(&plan, start, &surveys, read, &mut body);
        let room = Room::first(PAGE_BYTES);
        let next = self.json_page(&plan, start, &surveys, room, &mut body)?;
        let next = next.map(|position| NextPage::Read { plan, position });
        Ok(FirstPage { last, body: fitted(body), next })
    }

    fn next_page(&mut self, page: NextPage) -> Result<(Vec<u8>, Option<NextPage>), StoreError> {
        let mut body = new_page(PAGE_BYTES);
        match page {
            NextPage::Read { plan, position } => {
                let next = self.json_page(&plan, position, &[], Room::further(), &mut body)?;
                Ok((body, next.map(|position| NextPage::Read { plan, position })))
            }
            NextPage::Compare(mut comparing) => {
                let more = comparing.step(&*self.log, self.epoch, &mut *self.random, &mut body)?;
                Ok((body, more.then_some(NextPage::Compare(comparing))))
            }
        }
    }

    /// A storage's events for the hot cache; where they are more than an entry may take, a page with those
    /// that were read.
    fn fill(&self, plan: Arc<ReadPlan>, to: Seq, unless: &[Seq]) -> Result<Filling, StoreError> {
        let source = [Source { id: &plan.items[0].id, after: 0 }];
        let mut room = Room { events: usize::MAX, bytes: HOT_ENTRY_BYTES_MAX };
        let mut events = Encoded::default();
        let page = self.visit(&source, to, &|_| false, &mut room, &mut |_, seq, value| {
            // An event that is too much for an entry may be too much for a first page, too.
            if events.bytes() + value.len() > HOT_ENTRY_BYTES_MAX {
                return ControlFlow::Break(());
            }
            events.push(seq, value);
            let full = events.bytes() > HOT_ENTRY_BYTES_MAX;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match page {
            Page::Whole => Ok(Filling::Whole(events)),
            Page::Cut(_) => self.open(plan, to, unless, None, &events).map(Filling::Large),
        }
    }

    fn surveys(&self, plan: &ReadPlan, to: Seq) -> Result<Vec<Survey>, StoreError> {
        plan.items.iter().map(|item| self.log.survey(&item.id, to)).collect()
    }

    /// Where a JSON reply starts, and what it will end with.
    fn start(
        &self,
        plan: &ReadPlan,
        to: Seq,
        last: Seq,
        end: Option<Seq>,
    ) -> Result<Position, StoreError> {
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
        let ending = |end: Option<Seq>| match end {
            Some(seq) => Position { to: seq, cursor: seq, more: true, ..all },
            None => all,
        };
        Ok(match plan.window {
            Window::All => ending(end),
            Window::Oldest(limit) => ending(self.oldest(plan, to, limit)?),
            Window::Newest(limit) => Position { floor: self.floor(plan, to, limit)?, ..all },
        })
    }

    /// The `seq` of the event that `limit` ends at; `None` when no event stands past that.
    fn oldest(&self, plan: &ReadPlan, to: Seq, limit: u32) -> Result<Option<Seq>, StoreError> {
        let mut left = limit;
        let mut ends_at = 0;
        let mut more = false;
        self.log.find(&plan.sources(0), to, Direction::OldestFirst, &mut |found| {
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
    fn floor(&self, plan: &ReadPlan, to: Seq, limit: u32) -> Result<Seq, StoreError> {
        if limit == 0 {
            return Ok(to);
        }
        let mut left = limit;
        let mut floor = 0;
        self.log.find(&plan.sources(0), to, Direction::NewestFirst, &mut |found| {
            left -= 1;
            if left == 0 {
                floor = found.seq - 1;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(floor)
    }

    /// Writes items from `position` on until the page is full or the reply complete. `surveys` are those
    /// of the first items.
    fn json_page(
        &self,
        plan: &ReadPlan,
        mut position: Position,
        surveys: &[Survey],
        mut room: Room,
        out: &mut Vec<u8>,
    ) -> Result<Option<Position>, StoreError> {
        let items_end = position.item + PAGE_ITEMS_MAX;
        while let Some(item) = plan.items.get(position.item) {
            if position.item == items_end || out.len() >= PAGE_BYTES {
                return Ok(Some(position));
            }
            if !position.begun {
                let survey = match surveys.get(position.item) {
                    Some(survey) => *survey,
                    None => self.log.survey(&item.id, position.visible)?,
                };
                json::write_item_start(out, position.item, item.id.as_str(), survey.count);
                position = Position { begun: true, comma: false, after: 0, ..position };
            }
            let after = item.after.max(position.floor).max(position.after);
            let source = [Source { id: &item.id, after }];
            let leaves_out = |found: &Found| item.leaves_out(&found.hash);
            let to = position.to;
            let mut write = |out: &mut Vec<u8>, _, seq, value: &str| {
                if position.comma {
                    out.push(b',');
                }
                position.comma = true;
                json::write_event(out, seq, value);
            };
            match self.page(&source, to, &leaves_out, &mut room, out, &mut write)? {
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

    /// Writes a stream's events, and `synced` where it ends them.
    fn frames_page(
        &self,
        reading: &Reading,
        from: From,
        to: Seq,
        out: &mut Vec<u8>,
    ) -> Result<Followed, StoreError> {
        let (floor, room) = (from.floor(), Room::of(from, PAGE_BYTES));
        match reading {
            Reading::Following(ids) => {
                let source = |id| Source { id, after: floor };
                let sources: Vec<Source<'_>> = ids.iter().map(source).collect();
                let page = self.frames(&sources, to, &|_| false, room, out)?;
                Ok(Followed::Page { cursor: page.end(to), synced: false })
            }
            Reading::Opening(plan) => {
                let floor = match plan.window {
                    Window::Newest(limit) if from == From::Plan => self.floor(plan, to, limit)?,
                    _ => floor,
                };
                let leaves_out = |found: &Found| plan.items[found.source].leaves_out(&found.hash);
                let page = self.frames(&plan.sources(floor), to, &leaves_out, room, out)?;
                let synced = matches!(page, Page::Whole);
                if synced {
                    self.write_synced(plan, to, out)?;
                }
                Ok(Followed::Page { cursor: page.end(to), synced })
            }
        }
    }

    fn frames(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        leaves_out: &dyn Fn(&Found) -> bool,
        mut room: Room,
        out: &mut Vec<u8>,
    ) -> Result<Page, StoreError> {
        let epoch = self.epoch;
        // The usual stream has one storage, whose name is encoded once.
        let only = match sources {
            [source] => Some(json::string(source.id.as_str())),
            _ => None,
        };
        let mut write = |out: &mut Vec<u8>, source: usize, seq, value: &str| match &only {
            Some(name) => sse::write_event(out, epoch, name, seq, value),
            None => {
                let name = json::string(sources[source].id.as_str());
                sse::write_event(out, epoch, &name, seq, value);
            }
        };
        self.page(sources, to, leaves_out, &mut room, out, &mut write)
    }

    fn write_synced(&self, plan: &ReadPlan, to: Seq, out: &mut Vec<u8>) -> Result<(), StoreError> {
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

    /// Writes events, less those that are left out, until the page is full.
    fn page(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        leaves_out: &dyn Fn(&Found) -> bool,
        room: &mut Room,
        out: &mut Vec<u8>,
        write: &mut WriteEvent<'_>,
    ) -> Result<Page, StoreError> {
        let bytes_max = room.bytes;
        self.visit(sources, to, leaves_out, room, &mut |source, seq, value| {
            if out.len() >= PAGE_BYTES || out.len() + value.len() > bytes_max {
                return ControlFlow::Break(());
            }
            write(out, source, seq, value);
            ControlFlow::Continue(())
        })
    }

    fn cursor(&self, seq: Seq) -> Cursor {
        Cursor { seq, epoch: Some(self.epoch) }
    }
}

/// Begins the only item with those of its events that were read already, its oldest.
fn write_read(
    plan: &ReadPlan,
    start: Position,
    surveys: &[Survey],
    read: &Encoded,
    out: &mut Vec<u8>,
) -> Position {
    let ([item], [survey]) = (&*plan.items, surveys) else { return start };
    let first = read.after(item.after.max(start.floor)).start;
    let places = first..read.after(start.to).start.max(first);
    if places.is_empty() {
        return start;
    }
    json::write_item_start(out, 0, item.id.as_str(), survey.count);
    out.extend_from_slice(read.slice(places.clone()));
    Position { begun: true, comma: true, after: read.seq(places.end - 1), ..start }
}

/// Most pages fit: one that doubles instead, and is then fitted, leaves holes that no other fits into,
/// 20 MiB of them after a million events.
fn new_page(bytes: usize) -> Vec<u8> {
    Vec::with_capacity(bytes + bytes / 8)
}

/// What waits for the loop, or in an outbox, counts by what is in it: a page that grew takes no more.
fn fitted(mut page: Vec<u8>) -> Vec<u8> {
    page.shrink_to_fit();
    page
}

/// Writes the event of a source: its place among the sources, its `seq`, its value.
type WriteEvent<'a> = dyn FnMut(&mut Vec<u8>, usize, Seq, &str) + 'a;

/// What came of a request for a stream's page.
enum Followed {
    /// Everything up to `cursor` was written.
    Page { cursor: Seq, synced: bool },
    /// Its events are still being looked for.
    Slice(Box<Gathering>),
}

/// What a page may take.
struct Room {
    /// Events that may still be looked at, of all its items.
    events: usize,
    /// An event that would make it longer than this is left to the next page.
    bytes: usize,
}

impl Room {
    /// What a stream's page of so many bytes may.
    fn of(from: From, bytes: usize) -> Room {
        match from {
            From::Plan | From::Live(_) => Room::first(bytes),
            From::Opening(_) | From::Behind(_) => Room::further(),
        }
    }

    /// A first page costs little, whatever it is of: others wait for theirs.
    fn first(bytes: usize) -> Room {
        Room { events: SCAN_EVENTS, bytes }
    }

    /// A further page has an event, however long that is.
    fn further() -> Room {
        Room { events: SCAN_EVENTS, bytes: usize::MAX }
    }
}

/// Whether a page reached its end, or after which event it was cut.
enum Page {
    Whole,
    Cut(Seq),
}

impl Page {
    /// Up to where everything was looked at, on the way to `to`.
    fn end(&self, to: Seq) -> Seq {
        match self {
            Page::Whole => to,
            Page::Cut(seq) => *seq,
        }
    }
}

/// A reader's thread: until the hub is gone. The loop takes answers only when it is awake: it is
/// woken before a full queue is waited for.
pub fn run(
    mut reader: Reader,
    requests: Receiver<ToReader>,
    answers: Sender<FromReader>,
    wake: Box<dyn Fn() + Send>,
) {
    let mut left = None;
    while let Some(request) = left.take().or_else(|| requests.recv().ok()) {
        let together;
        (together, left) = gather(&requests, request);
        // Without the hub there is nobody to answer, and no further request.
        reader.step(together, &mut |answer| {
            if let Err(TrySendError::Full(answer)) = answers.try_send(answer) {
                wake();
                let _ = answers.send(answer);
            }
        });
        wake();
    }
}

/// Takes what joins the request, up to the first that does not, which is left for the next step. Beside
/// what may take long nothing is taken: another reader may be idle.
fn gather(requests: &Receiver<ToReader>, request: ToReader) -> (Vec<ToReader>, Option<ToReader>) {
    let mut together = vec![request];
    while takes_more(&together)
        && let Ok(request) = requests.try_recv()
    {
        if !Reader::joins(&together, &request) {
            return (together, Some(request));
        }
        together.push(request);
    }
    (together, None)
}

fn takes_more(together: &[ToReader]) -> bool {
    together.len() < VIEW_PAGES_MAX && together.first().is_none_or(is_first)
}

fn is_first(request: &ToReader) -> bool {
    request.lane() == Lane::First
}

#[cfg(test)]
mod tests;
