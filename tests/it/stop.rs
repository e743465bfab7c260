//! Stopping: streams end whole, what was asked is answered, and nothing waits for a client.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Connection, Server, Stream};

/// From the signal to the exit.
const STOP_MAX: Duration = Duration::from_secs(10);

fn stop(mut server: Server, signal: &str) -> Server {
    let begin = Instant::now();
    server.process.signal(signal);
    assert_eq!(server.process.exit_code(), Some(0), "SIG{signal}");
    assert!(begin.elapsed() < STOP_MAX, "SIG{signal} took {:?}", begin.elapsed());
    server
}

#[test]
fn both_signals_stop_gracefully() {
    for signal in ["TERM", "INT"] {
        let server = Server::start();
        server.set("a", &["v"]);
        let mut idle = server.connect();
        assert_eq!(idle.get("/get?id=a").status, 200);
        let mut half = server.connect();
        half.send("GET /get?id=a HT");
        stop(server, signal);
        assert_eq!(idle.until_close(), Ok(vec![]), "an idle connection gets nothing more");
    }
}

#[test]
fn streams_end_whole() {
    let server = Server::start();
    for number in 0..20 {
        server.set("a", &[&"x".repeat(10_000 + number)]);
    }
    let mut streams: Vec<Stream> = (0..10).map(|_| server.stream("/get?id=a")).collect();
    let mut old = server.connect();
    old.send("GET /get?id=a HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n");
    streams.push(Stream::begin(old));
    for stream in &mut streams {
        assert_eq!(stream.until_synced().0.len(), 20);
    }
    let _server = stop(server, "TERM");
    for stream in &mut streams {
        assert_eq!(stream.until_end(), [], "nothing but the farewell");
        let retry = *stream.decoder.retries.last().expect("a stream begins with retry");
        assert!(stream.decoder.retries.len() == 2 && retry > 2000, "{:?}", stream.decoder.retries);
        assert_eq!(stream.wire.last(), Some(&b'\n'), "no half a line");
        assert_eq!(stream.until_close(), Ok(vec![]));
    }
}

#[test]
fn a_stream_that_is_behind_ends_between_two_events() {
    let server = Server::start();
    let mut behind =
        Stream::open_over(Connection::open_narrow(server.address(), 4096), "/get?id=a", &[]);
    behind.until_synced();
    for number in 0..100 {
        server.set("a", &[&format!("{number} {}", "x".repeat(200_000))]);
    }
    let address = server.address();
    let reader = thread::spawn(move || {
        let mut messages = 0;
        let end = loop {
            match behind.try_next() {
                Ok(Some(message)) => {
                    let value = message.json()["value"].take();
                    assert!(value.as_str().is_some_and(|v| v.starts_with(&format!("{messages} "))));
                    messages += 1;
                }
                Ok(None) => break Ok(()),
                Err(fault) => break Err((fault, address)),
            }
        };
        assert_eq!(end, Ok(()), "after {messages} messages");
        assert!(behind.decoder.next().is_none());
    });
    stop(server, "TERM");
    reader.join().expect("the stream ends whole");
}

#[test]
fn a_client_that_does_not_read_holds_nothing_up() {
    let server = Server::start();
    for number in 0..40 {
        server.set("a", &[&format!("{number} {}", "x".repeat(500_000))]);
    }
    let mut stuck: Vec<Connection> =
        (0..4).map(|_| Connection::open_narrow(server.address(), 4096)).collect();
    for (number, connection) in stuck.iter_mut().enumerate() {
        let fields: &[&str] = if number < 2 { &["Accept: text/event-stream"] } else { &[] };
        connection.send_request("GET", "/get?id=a", fields, b"");
        assert!(connection.try_head(false).is_ok());
    }
    stop(server, "TERM");
}

#[test]
fn appends_that_were_received_are_acknowledged() {
    let server = Server::start();
    let mut connections: Vec<Connection> = (0..32).map(|_| server.connect()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let values: Vec<String> = (0..500).map(|value| format!("{number}.{value}")).collect();
        let body = json!({ "values": values }).to_string();
        connection.send_request("POST", "/set/a", &[], body.as_bytes());
    }
    assert_eq!(server.get("/healthz").status, 200, "the loop turned after all of it was sent");
    let mut server = server;
    server.process.signal("TERM");
    let mut seqs = Vec::new();
    for connection in &mut connections {
        let reply = connection.reply();
        assert_eq!(reply.status, 201, "{}", reply.text());
        let events = reply.json();
        let events = events["events"].as_array().expect("an append names its events").clone();
        seqs.extend(events.iter().map(|event| event["seq"].as_u64().expect("a number")));
    }
    let server = server.stopped().start();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=16_000).collect::<Vec<u64>>());
    assert_eq!(server.read("/get?id=a&last=0")["items"][0]["count"], 16_000);
}

#[test]
fn what_is_acknowledged_while_stopping_is_stored() {
    let mut server = Server::start();
    for round in 0..3 {
        let address = server.address();
        let appenders: Vec<_> = (0..8)
            .map(|appender| thread::spawn(move || append_until_closed(address, round, appender)))
            .collect();
        let mut witness = server.stream("/get?id=a&last=0");
        for _ in 0..50 {
            witness.next();
        }
        server = server.stop().start();
        let read = server.read("/get?id=a");
        let events = read["items"][0]["events"].as_array().expect("an item has events");
        for appender in appenders {
            for (seq, value) in appender.join().expect("replies are whole") {
                assert_eq!(events[seq as usize - 1], json!({ "seq": seq, "value": value }));
            }
        }
    }
}

/// Every reply is an acknowledgement or says that the server cannot; then comes the close.
fn append_until_closed(address: SocketAddr, round: usize, appender: usize) -> Vec<(u64, String)> {
    let mut acknowledged = Vec::new();
    let mut connection = Connection::open(address);
    for number in 0.. {
        let value = format!("{round}.{appender}.{number}");
        let body = json!({ "value": value }).to_string();
        connection.send_request("POST", "/set/a", &[], body.as_bytes());
        let Ok(reply) = connection.try_reply(false) else {
            break;
        };
        match reply.status {
            201 => {
                let seq = reply.json()["seq"].as_u64().expect("a seq is a number");
                acknowledged.push((seq, value));
            }
            503 => break,
            status => panic!("a {status} while stopping: {}", reply.text()),
        }
        if reply.field("connection").eq_ignore_ascii_case("close") {
            break;
        }
    }
    acknowledged
}
