//! Memory that does not grow: not with a history's length, not with a subscriber's slowness.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Connection, Server, Stream};

const MIB: u64 = 1 << 20;
/// What a server may need for any one thing a client does.
const GROWTH_BYTES_MAX: u64 = 16 * MIB;
/// And for a history, however long.
const HISTORY_GROWTH_BYTES_MAX: u64 = 8 * MIB;

fn fill(server: &Server, id: &str, events: usize, value_bytes: usize) {
    let mut connection = server.connect();
    let padding = "x".repeat(value_bytes.saturating_sub(10));
    let numbers: Vec<usize> = (0..events).collect();
    for batch in numbers.chunks((MIB as usize / value_bytes.max(1)).clamp(1, 5_000)) {
        let values: Vec<String> = batch.iter().map(|n| format!("{n:010}{padding}")).collect();
        let reply =
            connection.post(&format!("/set/{id}"), &json!({ "values": values }).to_string());
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

/// Runs something and expects that the server's memory had no peak far above where it began.
fn check_growth<T>(server: &Server, what: &str, run: impl FnOnce() -> T) -> T {
    check_growth_to(GROWTH_BYTES_MAX, server, what, run)
}

fn check_growth_to<T>(most: u64, server: &Server, what: &str, run: impl FnOnce() -> T) -> T {
    server.reset_peak();
    let before = server.status_bytes("VmRSS:");
    let result = run();
    let growth = server.status_bytes("VmHWM:").saturating_sub(before);
    println!("{what}: {} KiB over {} KiB", growth / 1024, before / 1024);
    assert!(growth < most, "{what} took {} KiB", growth / 1024);
    result
}

/// Each way to read it by a server that has not read it before.
fn check_large_storage(events: usize) {
    let server = Server::start();
    fill(&server, "large", events, 200);
    let server = begin(server);
    let reply = check_history(&server, "one reply", || server.get("/get?id=large"));
    let text = reply.text();
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("the reply is JSON");
    let head = format!(r#"{{"items":[{{"id":"large","count":{events},"events":["#);
    assert!(text.starts_with(&head), "{:?}", &text[..head.len()]);
    let read = text[head.len()..].split(r#"{"seq":"#).skip(1).zip(1..);
    let in_order = read.filter(|(event, seq)| event.starts_with(&format!("{seq},"))).count();
    assert_eq!(in_order, events);
    let server = begin(server);
    check_history(&server, "one stream", || {
        let mut stream = server.stream("/get?id=large");
        stream.forget_wire();
        for seq in 1..=events as u64 {
            assert_eq!(stream.next().seq(), seq);
        }
        assert_eq!(stream.next().event, "synced");
    });
    let server = begin(server);
    check_history(&server, "one stream that is read fast", || read_fast(&server, "/get?id=large"));
}

/// A server that has read little.
fn begin(server: Server) -> Server {
    let server = server.stop().start();
    assert_eq!(server.get("/get?id=large&limit=10").status, 200);
    let newest = check_history(&server, "the newest", || server.get("/get?id=large&last=10"));
    assert_eq!(newest.json()["items"][0]["events"].as_array().map(Vec::len), Some(10));
    server
}

fn check_history<T>(server: &Server, what: &str, run: impl FnOnce() -> T) -> T {
    check_growth_to(HISTORY_GROWTH_BYTES_MAX, server, what, run)
}

/// Reads a stream until it is live, faster than one who looks at all of it.
fn read_fast(server: &Server, target: &str) {
    const SYNCED: &[u8] = b"event: synced";
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a request is sent");
    let mut buffer = vec![0; MIB as usize];
    let mut newest = Vec::new();
    while !newest.windows(SYNCED.len()).any(|window| window == SYNCED) {
        let length = stream.read(&mut buffer).expect("the stream goes on");
        assert!(length > 0, "the stream ended");
        // `synced` is the last that comes.
        newest.extend_from_slice(&buffer[length.saturating_sub(500)..length]);
        newest.drain(..newest.len().saturating_sub(500));
    }
}

#[test]
fn a_large_storage_is_read_in_little_memory() {
    check_large_storage(100_000);
}

#[test]
#[ignore = "takes a minute"]
fn a_million_events_are_read_in_little_memory() {
    check_large_storage(1_000_000);
}

#[test]
fn a_subscriber_that_stops_reading_costs_its_outbox() {
    const EVENTS: usize = 1_024;
    let server = Server::start();
    fill(&server, "warm", 256, 65_536);
    let mut stream =
        Stream::open_over(Connection::open_narrow(server.address(), 65_536), "/get?id=a", &[]);
    stream.forget_wire();
    stream.until_synced();
    check_growth(&server, "64 MiB unread", || fill(&server, "a", EVENTS, 65_536));
    check_growth(&server, "64 MiB read late", || {
        for number in 0..EVENTS {
            let value = stream.next().json()["value"].take();
            assert!(value.as_str().is_some_and(|v| v.starts_with(&format!("{number:010}x"))));
        }
    });
    server.set("a", &["and live again"]);
    assert_eq!(stream.next().json()["value"], "and live again");
}

#[test]
fn a_reply_that_is_not_read_costs_its_outbox() {
    let server = Server::start();
    fill(&server, "a", 512, 65_536);
    assert_eq!(server.get("/get?id=a&limit=1").status, 200);
    let mut readers: Vec<Connection> =
        (0..16).map(|_| Connection::open_narrow(server.address(), 65_536)).collect();
    let mut bodies: Vec<_> = check_growth(&server, "16 replies of 32 MiB unread", || {
        readers.iter_mut().for_each(|reader| reader.send_request("GET", "/get?id=a", &[], b""));
        let heads = readers.iter_mut().map(|reader| reader.try_head(false).expect("a head").1);
        let bodies = heads.collect();
        assert_eq!(server.get("/get?id=a&limit=100").status, 200, "others are served");
        bodies
    });
    let (reader, body) = (&mut readers[7], &mut bodies[7]);
    let mut received = Vec::new();
    while let Some(piece) = reader.try_piece(body).expect("the body goes on") {
        received.extend(piece);
    }
    let reply: serde_json::Value = serde_json::from_slice(&received).expect("a whole reply");
    assert_eq!(reply["items"][0]["events"].as_array().map(Vec::len), Some(512));
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let server = Server::start();
    let round = |first: usize| {
        for number in first..first + 300 {
            let mut stream = server.stream(&format!("/get?items=a&items=once-{number}"));
            stream.until_synced();
        }
    };
    round(0);
    check_growth(&server, "600 short streams", || {
        round(300);
        round(600);
    });
}
