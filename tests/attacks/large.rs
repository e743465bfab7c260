//! Size: heads, bodies, selections and filters as large as they may be, and larger.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rill::config;
use serde_json::json;

use crate::crowd::{Crowd, every};
use crate::harness::{Connection, PATIENCE, Server, Stream, filter, set_over};
use crate::scene::{Scene, is_whole, seconds, size};

const MIB: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 16 * MIB;
const HEAD_BYTES_MAX: usize = 80 * 1024;

/// The one reader of a debug build parses and compares for seconds.
fn debug_reader() -> &'static [&'static str] {
    size(&["cold read"], &[])
}

/// Its one writer takes tens of milliseconds for 10,000 values or storages: appends that are due more
/// often than that fall further and further behind.
fn debug_reader_and_writer() -> &'static [&'static str] {
    size(&["append", "event", "cold read"], &[])
}

type Statuses = BTreeMap<u16, usize>;

fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Where this stands in a request, eight digits take its place that no request had before.
const NEW: &str = "########";

/// Sends the requests in turn over so many connections, each as soon as the one before it was
/// answered, and counts the answers.
fn hammer(server: &Server, connections: usize, time: Duration, requests: &[Vec<u8>]) -> Statuses {
    let statuses = Mutex::new(Statuses::new());
    let places: Vec<Vec<usize>> = requests.iter().map(|request| places_of_new(request)).collect();
    let next = AtomicUsize::new(0);
    let (address, begin) = (server.address(), Instant::now());
    thread::scope(|scope| {
        for number in 0..connections {
            let (statuses, places, next) = (&statuses, &places, &next);
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                for (request, places) in requests.iter().zip(places).cycle().skip(number) {
                    if begin.elapsed() >= time {
                        return;
                    }
                    let digits = format!("{:08}", next.fetch_add(1, Ordering::Relaxed));
                    let mut request = Cow::Borrowed(request.as_slice());
                    for &place in places {
                        request.to_mut()[place..][..digits.len()]
                            .copy_from_slice(digits.as_bytes());
                    }
                    connection.send(&*request);
                    let reply = connection.reply();
                    *statuses.lock().expect("no holder panics").entry(reply.status).or_default() +=
                        1;
                    if reply.field("connection") == "close" {
                        connection = Connection::open(address);
                    }
                }
            });
        }
    });
    statuses.into_inner().expect("no holder panics")
}

fn places_of_new(request: &[u8]) -> Vec<usize> {
    let windows = request.windows(NEW.len()).enumerate();
    windows.filter(|(_, window)| *window == NEW.as_bytes()).map(|(place, _)| place).collect()
}

fn head_of(bytes: usize) -> Vec<u8> {
    let mut head = b"GET /get?id=a HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    head.resize(bytes - 4, b'x');
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// As many heads as come that lack their last byte, and then whole ones and such as are too large.
#[test]
fn heads_at_their_limit() {
    let connections = size(300, 3_000);
    let scene = Scene::new(connections + 20);
    let unfinished = &head_of(HEAD_BYTES_MAX)[..HEAD_BYTES_MAX - 1];
    scene.attack("heads at their limit, unfinished", |server| {
        let mut crowd = Crowd::connect(server.address(), connections);
        let mut sent = vec![0; connections];
        every(Duration::from_millis(20), seconds(2, 5), |_| {
            for (member, sent) in crowd.members().iter_mut().zip(&mut sent) {
                *sent += member.send(&unfinished[*sent..]);
            }
        });
        let whole = sent.iter().filter(|sent| **sent == unfinished.len()).count();
        let (kept, ended) = (server.metric("rill_inputs_bytes"), crowd.ended());
        println!(
            "{whole} heads of {connections} were sent whole, {ended} refused; {kept} bytes kept"
        );
        assert!(kept <= config::INPUTS_BYTES_MAX as f64, "{kept} bytes of heads are in memory");
        let sent: usize = sent.iter().sum();
        let full = sent.min(config::INPUTS_BYTES_MAX) as f64;
        assert!(kept > 0.9 * full || ended > 0, "of {sent} bytes {kept} were kept");
    });
    let (statuses, _) = scene.attack("heads at and over their limit", |server| {
        let requests = [head_of(HEAD_BYTES_MAX), head_of(HEAD_BYTES_MAX + 1)];
        hammer(server, 10, seconds(1, 5), &requests)
    });
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200, &431], "{statuses:?}");
}

#[test]
fn bodies_at_and_over_their_limit() {
    let scene = Scene::new(50);
    let padded = |bytes: usize| {
        let start = "{\"value\":\"v\",\"ignored\":\"";
        post("/set/a", format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2)).as_bytes())
    };
    let large = |n: usize| format!("{n}{NEW}{}", "x".repeat(MIB - 20));
    let values = |values: Vec<String>| json!({ "values": values }).to_string();
    let requests = [
        padded(BODY_BYTES_MAX),
        padded(BODY_BYTES_MAX + 1),
        post("/set/b", values((0..15).map(large).collect()).as_bytes()),
        post("/set/c", values((0..10_000).map(|n| n.to_string()).collect()).as_bytes()),
        post("/set/d", values((0..10_000).map(|n| format!("{n}{NEW}")).collect()).as_bytes()),
    ];
    let shared = debug_reader_and_writer();
    let (statuses, _) = scene.attack_on(shared, "bodies at and over their limit", |server| {
        hammer(server, 16, seconds(3, 8), &requests)
    });
    println!("{statuses:?}");
    assert!(statuses.contains_key(&200) && statuses.contains_key(&413), "{statuses:?}");
    assert!(statuses.keys().all(|status| [200, 201, 413, 503].contains(status)), "{statuses:?}");
}

#[test]
fn deeply_nested_json() {
    let scene = Scene::new(50);
    let bytes = size(MIB, BODY_BYTES_MAX - 100);
    let requests = [
        post("/get", "[".repeat(bytes).as_bytes()),
        post("/get", format!("{{\"items\":{}", "[".repeat(bytes)).as_bytes()),
        post("/get", format!("{{\"x\":{}", "[".repeat(bytes)).as_bytes()),
        post("/set/a", format!("{{\"x\":{}", "{\"x\":".repeat(bytes / 5)).as_bytes()),
        post("/bloom", "{\"items\":".repeat(bytes / 9).as_bytes()),
    ];
    let (statuses, _) = scene.attack_on(debug_reader(), "JSON nested deeply", |server| {
        hammer(server, 8, seconds(2, 5), &requests)
    });
    println!("{statuses:?}");
    assert!(statuses.contains_key(&400), "{statuses:?}");
    assert!(statuses.keys().all(|status| [400, 503].contains(status)), "{statuses:?}");
}

/// So many bytes of JSON that say little and take long to read.
fn filled(target: &str, bytes: usize, start: &str, unit: &str, end: &str) -> Vec<u8> {
    let units = (bytes - start.len() - end.len()) / unit.len();
    post(target, format!("{start}{}{end}", unit.repeat(units)).as_bytes())
}

#[test]
fn bodies_that_take_long_to_parse() {
    let scene = Scene::new(100);
    let parse = |name, connections, bytes| {
        let requests = [
            filled("/set/a", bytes, "{\"value\":\"v\",\"ignored\":\"", "\\u0001", "\"}"),
            filled("/get", bytes, "{\"items\":[", "\"a\",", "\"a\"]}"),
            filled("/set/a", bytes, "{\"value\":\"v\",\"ignored\":[", "0,", "0]}"),
            filled("/set/a", bytes, "{\"value\":\"v\"", ",\"b\":{}", "}"),
        ];
        let (statuses, _) = scene.attack_on(debug_reader(), name, |server| {
            hammer(server, connections, seconds(2, 8), &requests)
        });
        println!("{statuses:?}");
        assert!(statuses.contains_key(&200), "{statuses:?}");
        assert!(statuses.keys().all(|s| [200, 201, 400, 503].contains(s)), "{statuses:?}");
    };
    parse("bodies that a reader parses for long", size(4, 16), size(MIB, BODY_BYTES_MAX));
    parse("bodies that the loop parses for long", size(4, 64), config::PARSE_ON_LOOP_BYTES_MAX);
}

/// As much of them as may be in memory, again and again.
#[test]
fn large_bodies_that_end_at_once() {
    let bodies = size(4, 10);
    let scene = Scene::new(bodies + 20);
    let bytes = size(MIB, config::BODIES_BYTES_LARGE_MAX / 11);
    let request = filled("/set/a", bytes, "{\"value\":\"v\",\"ignored\":\"", "\\u0001", "\"}");
    scene.attack_on(debug_reader(), "large bodies that end at once", |server| {
        let (begin, time) = (Instant::now(), seconds(2, 8));
        let mut connections: Vec<Connection> = (0..bodies).map(|_| server.connect()).collect();
        while begin.elapsed() < time {
            for connection in &mut connections {
                connection.send(&request[..request.len() - 1]);
            }
            connections.iter_mut().for_each(|connection| connection.send(b"}"));
            for connection in &mut connections {
                let status = connection.reply().status;
                assert!([200, 201].contains(&status), "{status}: there is room for these");
            }
        }
    });
}

fn selection(storages: usize, id_bytes: usize, first: usize) -> String {
    let id = |n: usize| format!("{:0width$}", first + n, width = id_bytes);
    json!({ "items": (0..storages).map(id).collect::<Vec<_>>() }).to_string()
}

/// Appends to each of so many storages, again and again: so each has a part in every segment of the
/// index. Returns the last event's `seq`.
fn fill(server: &Server, storages: usize, rounds: usize) -> u64 {
    const THREADS: usize = 8;
    let address = server.address();
    let append = &|round: usize, share: usize| {
        let mut connection = Connection::open(address);
        for storage in (share..storages).step_by(THREADS) {
            let values = [0, 1].map(|n| format!("{storage} {round} {n}"));
            set_over(&mut connection, &format!("{storage:05}"), &[&values[0], &values[1]]);
        }
    };
    for round in 0..rounds {
        thread::scope(|scope| {
            for share in 0..THREADS {
                scope.spawn(move || append(round, share));
            }
        });
    }
    server.set("00000", &["the last"])[0]
}

fn selection_past(cursor: u64, rest: &str) -> String {
    let selection = selection(10_000, 5, 0);
    format!("{{\"after\":{cursor},{rest}{}", &selection[1..])
}

#[test]
fn ten_thousand_storages_a_request() {
    let scene = Scene::new(50);
    let last = fill(&scene.server, size(200, 10_000), size(4, 12));
    let requests = [
        post("/get", selection_past(0, "").as_bytes()),
        post("/get", selection_past(last, "").as_bytes()),
        post("/get", selection_past(0, "\"limit\":100,").as_bytes()),
        post("/get", selection(10_000, 512, 0).as_bytes()),
        post("/get", selection(10_001, 5, 0).as_bytes()),
    ];
    let (statuses, _) = scene.attack_on(debug_reader(), "10,000 storages a request", |server| {
        hammer(server, 8, seconds(2, 8), &requests)
    });
    println!("{statuses:?}");
    assert!(statuses.contains_key(&200) && statuses.contains_key(&400), "{statuses:?}");
    assert!(statuses.keys().all(|status| [200, 400, 503].contains(status)), "{statuses:?}");
}

/// Streams that lack nothing, or all, of many storages, and leave when they were told so.
#[test]
fn ten_thousand_storages_a_stream_that_resumes() {
    let scene = Scene::new(50);
    let last = fill(&scene.server, size(200, 10_000), size(4, 12));
    let served = AtomicUsize::new(0);
    scene.attack_on(debug_reader_and_writer(), "10,000 storages a stream that resumes", |server| {
        let (address, begin, time) = (server.address(), Instant::now(), seconds(2, 8));
        let resume = &|after: u64| {
            while begin.elapsed() < time {
                let mut connection = Connection::open(address);
                let body = selection_past(after, "");
                connection.send_request(
                    "POST",
                    "/get",
                    &["Accept: text/event-stream"],
                    body.as_bytes(),
                );
                let first = Stream::begin(connection).try_next().expect("it is served");
                let first = first.expect("it is not sent away");
                assert_eq!(first.event == "synced", after == last, "{first:?}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            for after in [0, last, last, last] {
                scope.spawn(move || resume(after));
            }
        });
    });
    println!("{} streams were served", served.load(Ordering::Relaxed));
    assert!(served.load(Ordering::Relaxed) >= 8);
}

/// Streams of many storages that all join at once, and again and again.
#[test]
fn ten_thousand_storages_a_stream_at_once() {
    let streams = size(2, 40);
    let scene = Scene::new(streams + 20);
    let requests: Vec<Vec<u8>> = (0..streams)
        .map(|number| {
            let body = selection(10_000, 8, number * 10_000);
            let post = post("/get", body.as_bytes());
            [
                b"POST /get HTTP/1.1\r\nAccept: text/event-stream",
                &post["POST /get HTTP/1.1".len()..],
            ]
            .concat()
        })
        .collect();
    scene.attack_on(debug_reader_and_writer(), "10,000 storages a stream, all at once", |server| {
        let (begin, time, mut served) = (Instant::now(), seconds(2, 8), 0);
        while begin.elapsed() < time {
            let all_but_the_end = |request: &Vec<u8>| {
                let mut connection = server.connect();
                connection.send(&request[..request.len() - 1]);
                connection
            };
            let mut joining: Vec<Connection> = requests.iter().map(all_but_the_end).collect();
            joining.iter_mut().for_each(|connection| connection.send(b"}"));
            for connection in joining {
                // Or is sent away, where those of the time before have not left yet.
                if let Some(message) = Stream::begin(connection).try_next().expect("one of both") {
                    assert_eq!(message.event, "synced");
                    served += 1;
                }
            }
        }
        println!("{served} streams were served");
        assert!(served >= 2 * streams);
    });
}

/// Streams that stay, of as much as one may select.
#[test]
fn ten_thousand_storages_a_stream() {
    let streams = size(10, 150);
    let scene = Scene::new(streams + 20);
    let (mut kept, _) =
        scene.attack_on(debug_reader(), "10,000 long storages a stream", |server| {
            let open = |number: usize| {
                let mut connection = server.connect();
                let body = selection(10_000, 512, number * 10_000);
                let accept = ["Accept: text/event-stream", "Content-Type: application/json"];
                connection.send_request("POST", "/get", &accept, body.as_bytes());
                Stream::begin(connection)
            };
            let mut kept: Vec<Stream> = (0..streams).map(open).collect();
            kept.retain_mut(|stream| match stream.try_next() {
                Ok(Some(message)) if message.event == "synced" => true,
                // Sent away, with 200 and a last chunk, as a browser wants it.
                Ok(None) => false,
                other => panic!("a stream is served or sent away whole: {other:?}"),
            });
            kept
        });
    println!("{} of {streams} streams were served", kept.len());
    assert!(kept.len() >= streams.min(10));
    assert_eq!(kept.len() < streams, is_whole(), "of more than fit, the others are sent away");
    let id = format!("{:0512}", 9_999);
    scene.server.set(&id, &["an event"]);
    assert_eq!(kept[0].next().json()["value"], "an event");
}

/// Events of the largest size, to streams that take them as they come: each has room for megabytes in
/// the kernel.
#[test]
fn largest_events_to_many_streams() {
    let streams = size(20, 150);
    let scene = Scene::new(streams + 20);
    // A control character is six bytes as JSON.
    let characters = size(1 << 15, MIB - 10);
    scene.attack_on(debug_reader(), "largest events to many streams", |server| {
        let mut crowd = Crowd::connect(server.address(), streams);
        crowd.send(b"GET /get?id=large HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
        let (begin, time, mut events) = (Instant::now(), seconds(2, 10), 0);
        while begin.elapsed() < time {
            let value = format!("{events}{}", "\u{1}".repeat(characters));
            let body = json!({ "value": value }).to_string();
            assert_eq!(server.connect().post("/set/large", &body).status, 201);
            events += 1;
            let taken = 6 * characters * events;
            let all = crowd.take(1 << 18, PATIENCE, |crowd| crowd.received_by_all() >= taken);
            assert!(all, "event {events} came to all");
        }
        println!("{events} events to {streams} streams each");
    });
}

#[test]
fn huge_filters() {
    let scene = Scene::new(50);
    let append = |id: &str, part: usize| {
        let values: Vec<String> =
            (part * 10_000..(part + 1) * 10_000).map(|n| format!("value {n}")).collect();
        scene.server.set(id, &values.iter().map(String::as_str).collect::<Vec<_>>());
        values
    };
    let values = append("s0", 0);
    (1..size(1, 10)).for_each(|n| drop(append(&format!("s{n}"), 0)));
    // It is looked through for long enough for a scan in one piece to be noticed.
    (1..size(1, 50)).for_each(|part| drop(append("s0", part)));
    let digests: Vec<filter::Digest> =
        values[..1_000].iter().map(|value| filter::digest(value.as_bytes())).collect();
    let sketch = |cells| filter::sketch(&digests, cells, 7);
    let (large, medium) = (sketch(32_768), sketch(16_000));
    let most = filter::Bloom::new(1_048_576, 7).encode();
    let items = |filter: &str, count: u64, number: usize| {
        let item = |n| json!({ "id": format!("s{n}"), "bloomFilter": filter, "count": count });
        json!({ "items": (0..number).map(item).collect::<Vec<_>>() }).to_string()
    };
    let bodies = [items(&most, 1_048_576, 1), items(&large, 1_000, 31), items(&medium, 1_000, 64)];
    let requests: Vec<Vec<u8>> = bodies
        .iter()
        .flat_map(|body| [post("/bloom", body.as_bytes()), post("/get", body.as_bytes())])
        .collect();
    let (statuses, _) = scene.attack_on(debug_reader(), "huge filters", |server| {
        hammer(server, 8, seconds(3, 10), &requests)
    });
    println!("{statuses:?}");
    assert!(statuses.contains_key(&200), "{statuses:?}");
    assert!(statuses.keys().all(|status| [200, 409, 503].contains(status)), "{statuses:?}");
}
