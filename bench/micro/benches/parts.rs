//! What rill's parts cost, each alone: those that run for every request, every append or every
//! event. Owns their inputs, which are as `scripts/bench` sends them. Numbers are for comparing a
//! change with what was before it; what a server does with them, `scripts/bench` says.

use std::hint::black_box;
use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};

use rill::config::{BODY_BYTES_MAX, VALUE_BYTES_MAX};
use rill::event::{Epoch, Hash};
use rill::filter::{InverseBloom, Sketch};
use rill::hot::{Encoded, Hot, Lookup};
use rill::http::{Method, parse_head};
use rill::id::Id;
use rill::index::Shadow;
use rill::route::{self, Limits};
use rill::sse::Frame;

const LIMITS: Limits = Limits { value_bytes_max: VALUE_BYTES_MAX };

fn main() {
    divan::main();
}

fn id(name: &str) -> Id {
    Id::new(name).expect("the names here follow the rules")
}

fn value(number: usize) -> String {
    format!("{number:0200}")
}

fn hashes(count: usize) -> Vec<Hash> {
    (0..count).map(|number| Hash::of(&value(number))).collect()
}

const WRK: &str = "GET /get?id=a HTTP/1.1\r\nHost: 127.0.0.1:7400\r\n\r\n";
const BROWSER: &str = "GET /get?id=a HTTP/1.1\r\nHost: rill.example.org\r\n\
    Connection: keep-alive\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Referer: https://rill.example.org/\r\nSec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nLast-Event-ID: 17.9f3a2c1d\r\n\r\n";

#[divan::bench(args = ["wrk", "browser"])]
fn head(bencher: Bencher, client: &str) {
    let bytes = if client == "wrk" { WRK } else { BROWSER };
    bencher.bench(|| {
        parse_head(black_box(bytes.as_bytes()), &mut 0, BODY_BYTES_MAX)
            .expect("the head is well-formed")
            .expect("the head is whole")
    });
}

#[divan::bench]
fn route_get(bencher: Bencher) {
    bencher.bench(|| {
        let route = route::find(Method::Get, black_box("/get")).expect("there is such a route");
        route.answer(false, black_box("id=a"), b"", &LIMITS).expect("it is well-formed")
    });
}

/// JSON and SHA-256 included.
#[divan::bench(args = [200, 60_000])]
fn route_set(bencher: Bencher, value_bytes: usize) {
    let body = format!("{{\"value\":\"{}\"}}", "x".repeat(value_bytes));
    bencher.bench(|| {
        let route = route::find(Method::Post, black_box("/set/a")).expect("there is such a route");
        route.answer(true, "", black_box(body.as_bytes()), &LIMITS).expect("it is well-formed")
    });
}

/// One feed comes and one goes while so many stay: applied to both copies, and published.
#[divan::bench(args = [0, 1_000, 100_000])]
fn index_publish(bencher: Bencher, subscribers: u32) {
    let mut shadow = Shadow::default();
    for slot in 0..subscribers {
        shadow.subscribe(slot, Arc::new([id(&format!("s{slot}"))]));
    }
    publish_all(&mut shadow);
    // The other copy is brought up to date with the next, which publishes nothing.
    shadow.publish();
    let ids: Arc<[Id]> = Arc::new([id("another")]);
    bencher.bench_local(|| {
        shadow.subscribe(subscribers, Arc::clone(&ids));
        publish_all(&mut shadow);
        shadow.unsubscribe(subscribers);
        publish_all(&mut shadow);
    });
}

fn publish_all(shadow: &mut Shadow) {
    while shadow.is_behind() {
        assert_ne!(shadow.publish(), 0, "nobody holds the spare");
    }
}

/// Who gets an event: a look-up, and a walk over all of its subscribers.
#[divan::bench(args = [1, 9_000])]
fn index_subscribers(bencher: Bencher, subscribers: u32) {
    let mut shadow = Shadow::default();
    for slot in 0..subscribers {
        shadow.subscribe(slot, Arc::new([id("a")]));
    }
    publish_all(&mut shadow);
    let (published, wanted) = (shadow.published(), id("a"));
    bencher.counter(ItemsCount::new(subscribers)).bench_local(|| {
        let index = published.load();
        index.subscribers(&wanted).into_iter().flatten().map(u64::from).map(black_box).sum::<u64>()
    });
}

/// One event for all its subscribers.
#[divan::bench(args = [20, 200, 60_000])]
fn frame(bencher: Bencher, value_bytes: usize) {
    let value = "x".repeat(value_bytes);
    bencher.bench(|| {
        let mut events = [(17, black_box(value.as_str()))].into_iter().peekable();
        Frame::next(Epoch(0x9f3a_2c1d), b"\"a\"", &mut events).expect("there is an event")
    });
}

#[divan::bench(args = [100, 10_000, 1_000_000])]
fn filter_contains(bencher: Bencher, events: usize) {
    let hashes = hashes(events);
    let mut random = 1;
    let filter = InverseBloom::build(&hashes, events as u64, || {
        random += 0x9e37_79b9;
        random
    });
    let mut next = hashes.iter().cycle();
    bencher
        .with_inputs(|| next.next().expect("a cycle does not end"))
        .bench_local_values(|hash| filter.contains(hash));
}

#[divan::bench(args = [64, 1_024, 32_768])]
fn sketch_add(bencher: Bencher, cells: u32) {
    let hashes = hashes(1_000);
    let mut sketch = Sketch::new(cells, 1);
    bencher.counter(ItemsCount::new(hashes.len())).bench_local(|| {
        for hash in &hashes {
            sketch.add(black_box(hash));
        }
    });
}

/// A read of a storage that is in memory, among so many others.
#[divan::bench(args = [1, 10_000])]
fn hot_hit(bencher: Bencher, storages: usize) {
    let mut hot = Hot::default();
    for number in 0..storages {
        let id = id(&format!("s{number}"));
        let mut events = Encoded::default();
        events.push(number as u64 + 1, "twenty-eight bytes of value.");
        hot.begin(&id);
        hot.filled(&id, Some(events));
    }
    let wanted = id("s0");
    bencher.bench_local(|| match hot.lookup(black_box(&wanted)) {
        Lookup::Ready(events) => black_box(events.slice(events.after(0))).len(),
        other => unreachable!("it was put in, but {other:?}"),
    });
}
