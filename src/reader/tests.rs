//! A reader over a log in memory: what its pages hold, and what they cost.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use serde_json::Value;

use crate::config::{GATHERED_STORAGES, SCANNED_EVENTS, VALUE_BYTES_MAX, VALUES_TOGETHER};
use crate::event::Hash;
use crate::filter::InverseBloom;
use crate::id::Id;
use crate::message::{Asker, Token};
use crate::plan::{ItemFilter, Prepared, Preparing, Purpose, ReadItem};

const TOKEN: Token = Token { connection: 0, exchange: 0 };

/// Events in order: of which storage, and the value.
#[derive(Default)]
struct Log {
    events: Vec<(Id, String)>,
    of_storages: OnceCell<HashMap<Id, Vec<Seq>>>,
    found: Arc<AtomicUsize>,
    valued: Arc<AtomicUsize>,
    views: Arc<AtomicUsize>,
    /// Views that fail, from the first.
    failing: usize,
}

impl Log {
    fn of(&self, id: &Id, to: Seq) -> Vec<Seq> {
        let of_storages = self.of_storages.get_or_init(|| {
            let mut of_storages: HashMap<Id, Vec<Seq>> = HashMap::new();
            for (seq, (id, _)) in (1..).zip(&self.events) {
                of_storages.entry(id.clone()).or_default().push(seq);
            }
            of_storages
        });
        let seqs = of_storages.get(id).map_or(&[][..], |seqs| seqs);
        seqs.iter().copied().take_while(|seq| *seq <= to).collect()
    }
}

impl ReadLog for Log {
    fn begin(&mut self) -> Result<(), StoreError> {
        let before = self.views.fetch_add(1, Ordering::Relaxed);
        if before < self.failing {
            return Err(StoreError::Failed("it was told to".to_owned()));
        }
        Ok(())
    }

    fn end(&mut self) {}

    fn survey(&self, id: &Id, to: Seq) -> Result<Survey, StoreError> {
        let seqs = self.of(id, to);
        Ok(Survey { count: seqs.len() as u64, last: seqs.last().copied().unwrap_or(0) })
    }

    fn find(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        assert!(sources.len() <= GATHERED_STORAGES, "no step looks at more");
        let found = sources.iter().enumerate().flat_map(|(source, wanted)| {
            let seqs = self.of(wanted.id, to).into_iter().filter(|seq| *seq > wanted.after);
            seqs.map(move |seq| (seq, source))
        });
        let mut found: Vec<(Seq, usize)> = found.collect();
        found.sort_unstable();
        if direction == Direction::NewestFirst {
            found.reverse();
        }
        for (seen, (seq, source)) in found.into_iter().enumerate() {
            assert!(seen < SCAN_EVENTS, "no step looks at more");
            self.found.fetch_add(1, Ordering::Relaxed);
            let hash = Hash::of(&self.events[seq as usize - 1].1);
            if visit(Found { source, seq, hash }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan(
        &self,
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut seqs: Vec<Seq> = (after + 1..=to).collect();
        if direction == Direction::NewestFirst {
            seqs.reverse();
        }
        for (seen, seq) in seqs.into_iter().enumerate() {
            assert!(seen < SCANNED_EVENTS, "no step looks at more");
            let (id, value) = &self.events[seq as usize - 1];
            if visit(seq, id.as_str(), Hash::of(value)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn values(
        &self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        for (place, seq) in seqs.iter().enumerate() {
            self.valued.fetch_add(1, Ordering::Relaxed);
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
    Arc::new(ReadPlan { items, window, reset, after, last: None, held: None, selection_held: None })
}

fn fill(plan: &Arc<ReadPlan>, to: Seq) -> ToReader {
    ToReader::Fill { token: TOKEN, plan: Arc::clone(plan), to, unless: Vec::new() }
}

fn whole(name: &str) -> ReadItem {
    ReadItem { id: id(name), after: 0, filter: None }
}

#[test]
fn first_pages_that_wait_together_share_views_of_about_a_page() {
    let first = |name: &str, to: Seq| fill(&plan(vec![whole(name)]), to);
    let small = ("small", "x".to_owned());
    let large = ("large", "y".repeat(PAGE_BYTES / 3));
    for (values, requests, failing, views) in [
        (&[&small][..], VIEW_PAGES_MAX, 0, 1),
        // Each is a third of a page, and a little.
        (&[&large][..], 7, 0, 3),
        // Whoever asked of a view that failed is told so; the next has another.
        (&[&small][..], 4, 2, 3),
    ] {
        let events: Vec<_> = values.iter().map(|(name, value)| (id(name), value.clone())).collect();
        let log = Log { events, failing, ..Log::default() };
        let begun = Arc::clone(&log.views);
        let mut reader = reader(log);
        let together = (0..requests).map(|_| first(values[0].0, 1)).collect();
        let mut failures = Vec::new();
        reader.step(together, &mut |answer| failures.push(answer.is_failure()));
        let expected: Vec<bool> = (0..requests).map(|request| request < failing).collect();
        assert_eq!((failures, begun.load(Ordering::Relaxed)), (expected, views));
    }
    let further = || ToReader::Parse {
        token: TOKEN,
        route: crate::route::Route::Get,
        query: String::new(),
        body: Vec::new(),
    };
    let firsts = |count| (0..count).map(|_| first("a", 1)).collect::<Vec<_>>();
    for (together, request, joins) in [
        (firsts(0), further(), true),
        (firsts(1), first("a", 1), true),
        (firsts(1), further(), false),
        (vec![further()], first("a", 1), false),
        (vec![further()], further(), false),
        (firsts(VIEW_PAGES_MAX), first("a", 1), false),
    ] {
        assert_eq!(Reader::joins(&together, &request), joins, "{together:?}, then {request:?}");
    }
}

#[test]
fn what_others_could_answer_is_not_taken_beside_what_may_take_long() {
    let first = || fill(&plan(vec![whole("a")]), 1);
    let long = || ToReader::Parse {
        token: TOKEN,
        route: crate::route::Route::Get,
        query: String::new(),
        body: Vec::new(),
    };
    for (request, waiting, together, left, stay) in [
        (long(), vec![first(), long()], 1, false, 2),
        (first(), vec![first(), long(), first()], 2, true, 1),
        (first(), (0..VIEW_PAGES_MAX).map(|_| first()).collect(), VIEW_PAGES_MAX, false, 1),
        (first(), vec![], 1, false, 0),
    ] {
        let (sender, requests) = crossbeam_channel::unbounded();
        waiting.into_iter().for_each(|request| sender.send(request).expect("it is received"));
        let gathered = gather(&requests, request);
        let got = (gathered.0.len(), gathered.1.is_some(), requests.len());
        assert_eq!(got, (together, left, stay));
    }
}

fn one(reader: &mut Reader, request: ToReader) -> Read {
    let mut answers = Vec::new();
    reader.step(vec![request], &mut |answer| answers.push(answer.answer));
    answers.pop().expect("every request is answered")
}

/// The pages of a JSON reply.
fn reply(reader: &mut Reader, plan: &Arc<ReadPlan>, to: Seq, end: Option<Seq>) -> Vec<String> {
    let (plan, unless) = (Arc::clone(plan), Vec::new());
    let first = ToReader::Open { token: TOKEN, plan, to, unless, end };
    let Read::Opened { page, .. } = one(reader, first) else { panic!("it is opened") };
    further(reader, page)
}

/// The first page, and those that follow.
fn further(reader: &mut Reader, first: FirstPage) -> Vec<String> {
    let (mut pages, mut next) = (vec![first.body], first.next);
    while let Some(page) = next {
        let answer = one(reader, ToReader::Page { token: TOKEN, page });
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
        let mut request = ToReader::Follow { slot: 0, reading, from, to, gathering: None };
        let (frames, cursor, synced) = loop {
            match one(reader, request) {
                Read::Followed { frames, cursor, synced, .. } => break (frames, cursor, synced),
                Read::Gathered { rest, .. } => request = *rest,
                other => panic!("{other:?}"),
            }
        };
        pages.push(String::from_utf8(frames).expect("frames are UTF-8"));
        if synced || (cursor == to && matches!(from, From::Live(_) | From::Behind(_))) {
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
        let mut all = vec![reply(&mut reader, &plan, to, None)];
        all.extend(follows.iter().map(|reading| frames(&mut reader, reading, to)));
        match one(&mut reader, fill(&plan, to)) {
            Read::Filled { filling: Ok(Filling::Large(page)), .. } => {
                all.push(further(&mut reader, page));
            }
            _ => assert_eq!(expected.len(), 1, "{sizes:?} are a page, and an entry"),
        }
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
    let pages = reply(&mut reader(log), &plan, to, None);
    assert_eq!(found.load(Ordering::Relaxed), to as usize, "each event is looked at once");
    assert_eq!(pages.len(), 1 + to as usize / SCAN_EVENTS, "a slice of them for each page");
    assert!(!pages.concat().contains("value"), "the client has them all");
}

#[test]
fn a_page_is_looked_for_little_further_than_it_goes() {
    const EVENTS: usize = 2_000;
    let value = "v".repeat(200);
    let log = || Log { events: vec![(id("a"), value.clone()); EVENTS], ..Log::default() };
    let plan = plan(vec![whole("a")]);
    let check = |most: usize, read: &mut dyn FnMut(&mut Reader) -> usize| {
        let log = log();
        let found = Arc::clone(&log.found);
        let pages = read(&mut reader(log));
        let (found, most) = (found.load(Ordering::Relaxed), most + pages * VALUES_TOGETHER);
        assert!(found <= most, "{found} for {pages} pages");
    };
    let to = EVENTS as Seq;
    check(EVENTS, &mut |reader| reply(reader, &plan, to, None).len());
    check(EVENTS, &mut |reader| frames(reader, &Reading::Opening(Arc::clone(&plan)), to).len());
    check(EVENTS, &mut |reader| frames(reader, &Reading::Following(plan.ids()), to).len());
    // What is too large for the hot cache.
    check(HOT_ENTRY_BYTES_MAX / value.len(), &mut |reader| {
        let filled = one(reader, fill(&plan, to));
        assert!(matches!(filled, Read::Filled { filling: Ok(Filling::Large(_)), .. }));
        2
    });
}

#[test]
fn a_large_storage_is_answered_from_what_was_read_of_it() {
    const EVENTS: usize = 2_000;
    let to = EVENTS as Seq;
    let events: Vec<_> = (0..EVENTS).map(|n| (id("a"), format!("{n:0200}"))).collect();
    let mut windows = vec![Window::All];
    for limit in [0, 1, 100, 1_000, EVENTS as u32] {
        windows.extend([Window::Oldest(limit), Window::Newest(limit)]);
    }
    for (window, after) in
        windows.into_iter().flat_map(|window| [0, 100, 1_000].map(|n| (window, n)))
    {
        let item = ReadItem { after, ..whole("a") };
        let plan =
            Arc::new(ReadPlan { window, after, ..Arc::into_inner(plan(vec![item])).unwrap() });
        let log = Log { events: events.clone(), ..Log::default() };
        let valued = Arc::clone(&log.valued);
        let mut reader = reader(log);
        let expected = reply(&mut reader, &plan, to, None).concat();
        let at_once = valued.swap(0, Ordering::Relaxed);
        let filled = one(&mut reader, fill(&plan, to));
        let Read::Filled { filling: Ok(Filling::Large(page)), .. } = filled else {
            panic!("{window:?} past {after}: it is too large")
        };
        assert_eq!(page.last, to);
        assert_eq!(further(&mut reader, page).concat(), expected, "{window:?} past {after}");
        if window == Window::All && after == 0 {
            let valued = valued.load(Ordering::Relaxed);
            assert!(valued <= at_once + VALUES_TOGETHER, "no value is read twice");
        }
    }
}

#[test]
fn a_page_takes_no_more_memory_than_what_is_in_it() {
    let sizes = [10, 3 * PAGE_BYTES, PAGE_BYTES / 2, 5 * PAGE_BYTES];
    let events = sizes.map(|size| (id("a"), "\u{1}".repeat(size)));
    let mut reader = reader(Log { events: events.into(), ..Log::default() });
    let plan = plan(vec![whole("a")]);
    let mut pages = reply(&mut reader, &plan, 4, None);
    pages.extend(frames(&mut reader, &Reading::Opening(plan), 4));
    for page in pages {
        assert_eq!(page.capacity(), page.len());
    }
}

/// Makes a plan ready, as the hub does; with where the reply ends, if it does before the last event.
fn prepared(
    reader: &mut Reader,
    plan: ReadPlan,
    purpose: Purpose,
    to: Seq,
) -> (Arc<ReadPlan>, Option<Seq>) {
    if !plan.needs_preparing(purpose) {
        return (Arc::new(plan), None);
    }
    let mut preparing = Box::new(Preparing::new(plan, purpose, to, None));
    loop {
        let asker = Asker::Reply(TOKEN);
        let answer = one(reader, ToReader::Prepare { asker, preparing });
        let Read::Prepared { prepared: Ok(prepared), .. } = answer else { panic!("it prepares") };
        match prepared {
            Prepared::More(more) => preparing = more,
            Prepared::Ready { plan, end, .. } => return (Arc::new(plan), end),
            Prepared::Undecoded(_) => unreachable!("there are no sketches"),
        }
    }
}

/// What a selection reads as, found the short way: each event with the place of its storage.
struct Expected {
    events: Vec<(Seq, usize)>,
    cursor: Seq,
    more: bool,
}

fn expected(events: &[(Id, String)], plan: &ReadPlan, to: Seq) -> Expected {
    let items = plan.items.iter().enumerate();
    let places: HashMap<&Id, usize> = items.map(|(place, item)| (&item.id, place)).collect();
    let (mut last, mut wanted, mut past) = (plan.after, Vec::new(), 0);
    for (seq, (id, value)) in (1..=to).zip(events) {
        let Some(&place) = places.get(id) else { continue };
        let item = &plan.items[place];
        last = last.max(seq);
        if seq > item.after {
            past = seq;
            if !item.leaves_out(&Hash::of(value)) {
                wanted.push((seq, place));
            }
        }
    }
    match plan.window {
        Window::Newest(most) => {
            wanted = wanted.split_off(wanted.len().saturating_sub(most as usize))
        }
        Window::Oldest(limit) if wanted.len() >= limit as usize => {
            wanted.truncate(limit as usize);
            let cursor = wanted[wanted.len() - 1].0;
            // Those that are left out count, too.
            if cursor < past {
                return Expected { events: wanted, cursor, more: true };
            }
        }
        Window::Oldest(_) | Window::All => {}
    }
    Expected { events: wanted, cursor: last, more: false }
}

fn check_reply(reader: &mut Reader, events: &[(Id, String)], plan: ReadPlan, to: Seq) {
    let expected = expected(events, &plan, to);
    let (plan, end) = prepared(reader, plan, Purpose::Reply, to);
    let reply: Value = serde_json::from_str(&reply(reader, &plan, to, end).concat()).unwrap();
    let mut shown = Vec::new();
    for (place, item) in reply["items"].as_array().unwrap().iter().enumerate() {
        let of_item = item["events"].as_array().unwrap().iter();
        shown.extend(of_item.map(|event| (event["seq"].as_u64().unwrap(), place)));
        let all = events[..to as usize].iter().filter(|(id, _)| *id == plan.items[place].id);
        assert_eq!(item["count"], all.count());
    }
    shown.sort_unstable();
    assert!(shown == expected.events, "{} of {}", shown.len(), expected.events.len());
    assert_eq!(reply["cursor"], format!("{}.00000007", expected.cursor));
    assert_eq!(reply["more"], expected.more);
}

fn check_stream(reader: &mut Reader, events: &[(Id, String)], plan: ReadPlan, to: Seq) {
    let expected = expected(events, &plan, to);
    let (plan, _) = prepared(reader, plan, Purpose::Stream, to);
    let text = frames(reader, &Reading::Opening(Arc::clone(&plan)), to).concat();
    let (history, synced) = text.split_once("event: synced\n").expect("it ends so");
    let data = history.lines().filter_map(|line| line.strip_prefix("data: "));
    let shown = data.map(|data| {
        let event: Value = serde_json::from_str(data).unwrap();
        let place = plan.items.iter().position(|item| event["id"] == item.id.as_str());
        (event["seq"].as_u64().unwrap(), place.expect("it is of the selection"))
    });
    let shown: Vec<(Seq, usize)> = shown.collect();
    let differ = shown.iter().zip(&expected.events).position(|(shown, event)| shown != event);
    let (events, most) = (shown.len(), expected.events.len());
    assert!(shown == expected.events, "{events} of {most}, other from {differ:?}");
    let cursor = expected.cursor;
    let end = format!("id: {cursor}.00000007\ndata: {{\"cursor\":\"{cursor}.00000007\"}}\n\n");
    assert_eq!(synced, end);
}

#[test]
fn a_large_selection_is_looked_through_in_slices_and_reads_as_any_other() {
    const STORAGES: usize = 2 * GATHERED_STORAGES + 30;
    const EVENTS: usize = SCAN_EVENTS + 3_000;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut below = |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % most
    };
    let name = |n: usize| id(&format!("s{n}"));
    // Most events are of few storages, some of none that is selected, and some storages have none.
    let storage = |n: usize| if n.is_multiple_of(50) { below(STORAGES) + 10 } else { below(20) };
    let events: Vec<(Id, String)> =
        (0..EVENTS).map(storage).zip(0..).map(|(s, n)| (name(s), format!("{n}"))).collect();
    let to = EVENTS as Seq - 5;
    let held = events.iter().enumerate().filter(|(n, _)| n % 3 > 0);
    let held: Vec<Hash> = held.map(|(_, (_, value))| Hash::of(value)).collect();
    let filter = Arc::new(InverseBloom::build(&held, held.len() as u64, || 7));
    let all = |after: &dyn Fn(usize) -> Seq, filters: bool| -> Vec<ReadItem> {
        let filter = || Some(ItemFilter::InverseBloom(Arc::clone(&filter))).filter(|_| filters);
        let item = |n| ReadItem { id: name(n), after: after(n), filter: filter() };
        (0..STORAGES).map(item).collect()
    };
    let (none, half) = (|_| 0, to / 2);
    // All but those that most events are of.
    let few: Vec<ReadItem> = (20..STORAGES).map(|n| whole(&format!("s{n}"))).collect();
    let nowhere = (EVENTS..EVENTS + STORAGES).map(|n| whole(&format!("s{n}"))).collect();
    let plan_of = |items, after, window| {
        let (last, held, selection_held) = (None, None, None);
        ReadPlan { items, window, reset: false, after, last, held, selection_held }
    };
    let of_filtered = plan_of(all(&none, true), 0, Window::All);
    let of_filtered = expected(&events, &of_filtered, to).events.len() as u32;
    // The storages, the request's cursor, the window.
    let cases = [
        (all(&none, false), 0, Window::All),
        (all(&none, false), 0, Window::Newest(0)),
        (all(&none, false), 0, Window::Newest(1)),
        (all(&none, false), 0, Window::Newest(9_999)),
        (all(&none, true), 0, Window::All),
        (all(&none, true), 0, Window::Newest(9_000)),
        (all(&|_| half, false), half, Window::All),
        (all(&|_| to, false), to, Window::All),
        (all(&|_| to, false), 0, Window::All),
        (all(&|n| 100 * n as Seq, false), 0, Window::All),
        (nowhere, 0, Window::All),
        (few.clone(), 0, Window::All),
        (few.clone(), 0, Window::Newest(300)),
        (few, 0, Window::Oldest(300)),
        (all(&none, false), 0, Window::Oldest(1)),
        (all(&none, true), 0, Window::Oldest(7_000)),
        (all(&none, true), 0, Window::Oldest(of_filtered)),
        (all(&none, true), 0, Window::Oldest(of_filtered - 1)),
        (all(&none, true), 0, Window::Oldest(of_filtered + 1)),
        (all(&|_| to - 10, false), 0, Window::Oldest(1_000)),
    ];
    for (items, after, window) in cases {
        let log = Log { events: events.clone(), ..Log::default() };
        let mut reader = reader(log);
        let plan = || plan_of(items.clone(), after, window);
        check_reply(&mut reader, &events, plan(), to);
        if !matches!(window, Window::Oldest(_)) {
            check_stream(&mut reader, &events, plan(), to);
        }
    }
}
