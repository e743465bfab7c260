//! What happens at a limit: a status that says so, and everybody else is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Connection, PATIENCE, Server, Stream};

const MIB: usize = 1 << 20;

#[test]
fn limits_are_flags() {
    let server = Server::start_with(&["--value-bytes-max", "100", "--body-bytes-max", "1024"]);
    for (length, status) in [(100, 201), (101, 413), (2_000, 413)] {
        let body = json!({ "value": "x".repeat(length) }).to_string();
        assert_eq!(server.connect().post("/set/a", &body).status, status, "{length} bytes");
    }
    let body = format!("{{\"items\":\"a\"}}{}", " ".repeat(1024));
    assert_eq!(server.connect().post("/get", &body).status, 413);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = Server::start_with(&["--connections-max", "3"]);
    let mut kept: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    for connection in &mut kept {
        assert_eq!(connection.get("/get?id=a").status, 200);
    }
    let mut refused = server.connect();
    let reply = refused.post("/set/a", r#"{"value":"v"}"#);
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.field("content-type"), "application/problem+json");
    assert!(reply.field("retry-after").parse::<u32>().is_ok(), "{:?}", reply.fields);
    assert_eq!(refused.until_close(), Ok(vec![]));
    for old in [false, true] {
        let mut connection = server.connect();
        connection.send(format!(
            "GET /get?id=a HTTP/1.{}\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
            if old { 0 } else { 1 }
        ));
        let mut stream = Stream::begin(connection);
        assert_eq!(stream.until_end(), []);
        let [retry] = stream.decoder.retries[..] else { panic!("one retry, or a browser hurries") };
        assert!(retry > 2000, "longer than that of a stream that is served: {retry}");
        assert_eq!(stream.until_close(), Ok(vec![]));
    }
    let knocking = server.connect();
    let read = kept[0].get("/get?id=a");
    assert_eq!(read.status, 200, "who was let in stays, whoever knocks: {}", read.text());
    assert_eq!(read.json()["items"][0]["count"], 0, "nothing was stored");
    drop((refused, knocking));
    let mut leaving = kept.pop().expect("three are kept");
    leaving.request("GET", "/get?id=a", &["Connection: close"], b"");
    assert_eq!(leaving.until_close(), Ok(vec![]));
    drop(leaving);
    let begin = Instant::now();
    while server.get("/get?id=a").status == 503 {
        assert!(begin.elapsed() < PATIENCE, "the place that was left stays taken");
    }
}

#[test]
fn a_request_that_does_not_get_on_is_given_up() {
    let server = Server::start();
    let begin = Instant::now();
    let starts = [
        "GET /get?id=a HTTP/1.1\r\nHost: x\r\n",
        "G",
        "POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"value\"",
        "POST /set/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"v",
    ];
    let mut stalled: Vec<Connection> = starts
        .iter()
        .map(|start| {
            let mut connection = server.connect();
            connection.send(start);
            connection
        })
        .collect();
    for (connection, start) in stalled.iter_mut().zip(starts) {
        let reply = connection.reply();
        assert_eq!(reply.status, 408, "{start:?}");
        assert_eq!(reply.json()["status"], 408, "{start:?}");
        assert_eq!(connection.until_close(), Ok(vec![]), "{start:?}");
        assert!((9..20).contains(&begin.elapsed().as_secs()), "after {:?}", begin.elapsed());
    }
    assert_eq!(server.read("/get?id=a")["items"][0]["count"], 0);
}

#[test]
fn bodies_share_one_limit() {
    const BODIES: usize = 12;
    let server = Server::start();
    let body = json!({ "value": "v", "ignored": "x".repeat(16 * MIB - 100) }).to_string();
    let length = body.len();
    server.reset_peak();
    let before = server.status_bytes("VmRSS:");
    let mut connections: Vec<Connection> = (0..BODIES).map(|_| server.connect()).collect();
    for connection in &mut connections {
        let head = format!("POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        connection.send(head);
        connection.send(&body[..length - 1]);
    }
    server.set("b", &["a small one"]);
    let mut statuses = Vec::new();
    for connection in &mut connections {
        connection.send("}");
        let reply = connection.reply();
        assert!(reply.status != 503 || !reply.field("retry-after").is_empty());
        statuses.push(reply.status);
    }
    let stored = statuses.iter().filter(|status| matches!(status, 200 | 201)).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(stored >= 6 && refused >= 1 && stored + refused == BODIES, "{statuses:?}");
    assert_eq!(server.read("/get?id=a")["items"][0]["count"], 1);
    let growth = server.status_bytes("VmHWM:").saturating_sub(before) as usize;
    println!("{statuses:?}, {} MiB", growth / MIB);
    assert!(growth < (128 + 40) * MIB, "{} MiB", growth / MIB);
    server.set("a", &["and on"]);
}

#[test]
fn who_sends_without_end_takes_no_more_than_a_turns_share() {
    const FLOODS: usize = 4;
    const REPLIES: usize = 20;
    let server = Server::start();
    server.set("a", &[&"x".repeat(50_000)]);
    assert_eq!(server.get("/get?id=a").status, 200, "from now on it is made from the cache");
    let done = AtomicBool::new(false);
    let requests = "HEAD /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000);
    thread::scope(|scope| {
        let flood = |mut socket: TcpStream| {
            while socket.write_all(requests.as_bytes()).is_ok() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            let _ = socket.shutdown(std::net::Shutdown::Both);
        };
        let drain = |mut socket: TcpStream| {
            let mut buffer = vec![0; 1 << 18];
            while socket.read(&mut buffer).is_ok_and(|length| length > 0) {}
        };
        for _ in 0..FLOODS {
            let socket = TcpStream::connect(server.address()).expect("the server accepts");
            let other = socket.try_clone().expect("a socket has several handles");
            scope.spawn(move || flood(socket));
            scope.spawn(move || drain(other));
        }
        let mut connection = server.connect();
        connection.set_patience(Duration::from_secs(10));
        let replied = (0..REPLIES)
            .map(|_| {
                connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                connection.try_reply(false).map(|reply| reply.status)
            })
            .take_while(|status| *status == Ok(200))
            .count();
        done.store(true, Ordering::Relaxed);
        assert_eq!(replied, REPLIES, "requests of somebody else were answered");
    });
}
