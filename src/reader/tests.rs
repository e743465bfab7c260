//! A reader over a log in memory: what its pages hold, and what they cost.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::VALUE_BYTES_MAX;
use crate::event::Hash;
use crate::filter::InverseBloom;
use crate::message::Token;
use crate::plan::{ItemFilter, ReadItem};
use crate::store::Survey;

const TOKEN: Token = Token { connection: 0, exchange: 0 };

/// Events in order: of which storage, and the value.
#[derive(Default)]
struct Log {
    events: Vec<(Id, String)>,
    found: Arc<AtomicUsize>,
}

impl Log {
    fn of(&self, id: &Id, to: Seq) -> Vec<Seq> {
        let placed = (1..).zip(&self.events).take(to as usize);
        placed.filter(|(_, event)| event.0 == *id).map(|(seq, _)| seq).collect()
    }
}

impl ReadLog for Log {
    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn end(&mut self) {}

    fn survey(&mut self, id: &Id, to: Seq) -> Result<Survey, StoreError> {
        let seqs = self.of(id, to);
        Ok(Survey { count: seqs.len() as u64, last: seqs.last().copied().unwrap_or(0) })
    }

    fn find(
        &mut self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        assert_eq!(direction, Direction::OldestFirst);
        let found = sources.iter().enumerate().flat_map(|(source, wanted)| {
            let seqs = self.of(wanted.id, to).into_iter().filter(|seq| *seq > wanted.after);
            seqs.map(move |seq| (seq, source))
        });
        let mut found: Vec<(Seq, usize)> = found.collect();
        found.sort_unstable();
        for (seq, source) in found {
            self.found.fetch_add(1, Ordering::Relaxed);
            let hash = Hash::of(&self.events[seq as usize - 1].1);
            if visit(Found { source, seq, hash }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        _: Seq,
        _: Seq,
        _: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        unreachable!("no page scans the whole log")
    }

    fn values(
        &mut self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        for (place, seq) in seqs.iter().enumerate() {
            let value = &self.events[*seq as usize - 1].1;
            if value.len() > bytes_max || visit(place, value).is_break() {
                return Ok(place);
            }
        }
        Ok(seqs.len())
    }
}

fn id(name: &str) -> Id {
    Id::new(name).expect("a short name")
}

fn reader(log: Log) -> Reader {
    let limits = Limits { value_bytes_max: VALUE_BYTES_MAX };
    Reader::new(Box::new(log), Epoch(7), limits, Box::new(|| 7))
}

fn plan(items: Vec<ReadItem>) -> Arc<ReadPlan> {
    let (window, reset, after) = (Window::All, false, 0);
    Arc::new(ReadPlan { items, window, reset, after, held: None, selection_held: None })
}

fn whole(name: &str) -> ReadItem {
    ReadItem { id: id(name), after: 0, filter: None }
}

/// The pages of a JSON reply.
fn reply(reader: &mut Reader, plan: &Arc<ReadPlan>, to: Seq) -> Vec<String> {
    let (plan, unless) = (Arc::clone(plan), Vec::new());
    let first = ToReader::Open { token: TOKEN, plan, to, unless, end: None };
    let Read::Opened { page, .. } = reader.step(first).answer else { panic!("it is opened") };
    let (mut pages, mut next) = (vec![page.body], page.next);
    while let Some(page) = next {
        let answer = reader.step(ToReader::Page { token: TOKEN, page }).answer;
        let Read::Paged { body, next: after, .. } = answer else { panic!("it goes on") };
        pages.push(body);
        next = after;
    }
    pages.into_iter().map(|page| String::from_utf8(page).expect("JSON is UTF-8")).collect()
}

/// The pages of a stream, from its plan on or after it has synced.
fn frames(reader: &mut Reader, reading: &Reading, to: Seq) -> Vec<String> {
    let mut pages = Vec::new();
    let mut from = match reading {
        Reading::Opening(_) => From::Plan,
        Reading::Following(_) => From::Live(0),
    };
    loop {
        let reading = reading.clone();
        let request = ToReader::Follow { slot: 0, reading, from, to };
        let Read::Followed { frames, cursor, .. } = reader.step(request).answer else {
            panic!("it is followed")
        };
        pages.push(String::from_utf8(frames).expect("frames are UTF-8"));
        if cursor == to {
            return pages;
        }
        from = match from {
            From::Plan | From::Opening(_) => From::Opening(cursor),
            From::Live(_) | From::Behind(_) => From::Behind(cursor),
        };
    }
}

#[test]
fn a_first_page_ends_before_an_event_that_is_longer_than_a_page() {
    const FITS: usize = PAGE_BYTES - 1_000;
    const LONG: usize = PAGE_BYTES + 1;
    // The sizes of values, and which of them each page has.
    let cases: [(&[usize], &[&[usize]]); 6] = [
        (&[10, 10], &[&[0, 1]]),
        (&[FITS, 10], &[&[0, 1]]),
        (&[10, LONG, 10], &[&[0], &[1], &[2]]),
        (&[LONG, LONG], &[&[], &[0], &[1]]),
        (&[10, FITS, 10], &[&[0, 1, 2]]),
        (&[FITS, FITS], &[&[0], &[1]]),
    ];
    for (sizes, expected) in cases {
        let value = |(place, size): (usize, &usize)| {
            let letter = char::from(b'p' + place as u8).to_string();
            (id("a"), letter.repeat(*size))
        };
        let events: Vec<(Id, String)> = sizes.iter().enumerate().map(value).collect();
        let to = events.len() as Seq;
        let mut reader = reader(Log { events, ..Log::default() });
        let plan = plan(vec![whole("a")]);
        let follows = [Reading::Opening(Arc::clone(&plan)), Reading::Following(plan.ids())];
        let mut all = vec![reply(&mut reader, &plan, to)];
        all.extend(follows.iter().map(|reading| frames(&mut reader, reading, to)));
        for pages in all {
            let values = |page: &String| {
                let letter = |place: usize| char::from(b'p' + place as u8).to_string();
                let there = |place: &usize| page.contains(&format!("\":\"{}", letter(*place)));
                (0..sizes.len()).filter(there).collect::<Vec<_>>()
            };
            let shown: Vec<Vec<usize>> = pages.iter().map(values).collect();
            let full = shown.iter().position(|page| page.contains(&(sizes.len() - 1)));
            let shown = &shown[..=full.expect("the last event is there")];
            assert_eq!(shown, expected, "{sizes:?}: {}", pages[0].get(..60).unwrap_or(&pages[0]));
        }
    }
}

#[test]
fn what_a_page_looks_at_is_bounded_over_all_its_items() {
    const ITEMS: usize = 5;
    let name = |item: usize| format!("s{item}");
    let placed = (0..ITEMS * SCAN_EVENTS / 2).map(|n| (id(&name(n % ITEMS)), n.to_string()));
    let log = Log { events: placed.collect(), ..Log::default() };
    let (found, to) = (Arc::clone(&log.found), log.events.len() as Seq);
    let left_out = |item: usize| {
        let events = log.events.iter().filter(|event| event.0 == id(&name(item)));
        let hashes: Vec<Hash> = events.map(|(_, value)| Hash::of(value)).collect();
        let filter = InverseBloom::build(&hashes, hashes.len() as u64, || 7);
        let filter = Some(ItemFilter::InverseBloom(Arc::new(filter)));
        ReadItem { id: id(&name(item)), after: 0, filter }
    };
    let plan = plan((0..ITEMS).map(left_out).collect());
    let pages = reply(&mut reader(log), &plan, to);
    assert_eq!(found.load(Ordering::Relaxed), to as usize, "each event is looked at once");
    assert_eq!(pages.len(), 1 + to as usize / SCAN_EVENTS, "a slice of them for each page");
    assert!(!pages.concat().contains("value"), "the client has them all");
}

#[test]
fn a_page_takes_no_more_memory_than_what_is_in_it() {
    let sizes = [10, 3 * PAGE_BYTES, PAGE_BYTES / 2, 5 * PAGE_BYTES];
    let events = sizes.map(|size| (id("a"), "\u{1}".repeat(size)));
    let mut reader = reader(Log { events: events.into(), ..Log::default() });
    let plan = plan(vec![whole("a")]);
    let mut pages = reply(&mut reader, &plan, 4);
    pages.extend(frames(&mut reader, &Reading::Opening(plan), 4));
    for page in pages {
        assert_eq!(page.capacity(), page.len());
    }
}
