//! Streams: history, `synced`, live events, resuming, and the bytes they are made of.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::json;

use crate::harness::{Connection, Message, Server, Stream, halves};

/// Events 1 to 5, over the storages a and b.
fn prepared() -> Server {
    let server = Server::start();
    for (id, value) in [("a", "a1"), ("b", "b2"), ("a", "a3"), ("b", "b4"), ("a", "a5")] {
        server.set(id, &[value]);
    }
    server
}

fn epoch(server: &Server) -> String {
    let cursor = server.read("/get?id=a")["cursor"].as_str().expect("a string").to_owned();
    halves(&cursor).1.to_owned()
}

fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(Message::seq).collect()
}

/// Opens a stream and expects these events before `synced`, after a reset or not.
fn check(server: &Server, stream: Stream, shown: &str, reset: bool, expected: &[u64]) -> Stream {
    let mut stream = stream;
    let (mut before, synced) = stream.until_synced();
    if reset {
        let first =
            Message { event: "reset".into(), data: r#"{"cursor":"0"}"#.into(), id: "0".into() };
        assert_eq!(before.first(), Some(&first), "{shown}");
        before.remove(0);
    }
    assert_eq!(seqs(&before), expected, "{shown}");
    assert!(before.iter().all(|message| message.event == "message"), "{shown}");
    let epoch = epoch(server);
    for message in &before {
        assert_eq!(message.id, format!("{}.{epoch}", message.seq()), "{shown}");
    }
    assert_eq!(synced.json()["cursor"], synced.id.as_str(), "{shown}");
    stream
}

#[test]
fn the_stream_is_as_written() {
    let server = Server::start();
    server.set("a", &["one"]);
    server.set("b", &["\"two\"\n\r\u{0}\u{2028}é"]);
    server.set("c", &["not selected"]);
    let mut stream = server.stream("/get?items=b&items=a");
    stream.until_synced();
    server.set("a", &["three"]);
    stream.next();
    let e = epoch(&server);
    let two = json!("\"two\"\n\r\u{0}\u{2028}é");
    let expected = format!(
        concat!(
            "retry: 2000\n",
            "id: 1.{e}\ndata: {{\"id\":\"a\",\"seq\":1,\"value\":\"one\"}}\n\n",
            "id: 2.{e}\ndata: {{\"id\":\"b\",\"seq\":2,\"value\":{two}}}\n\n",
            "event: synced\nid: 2.{e}\ndata: {{\"cursor\":\"2.{e}\",\"items\":[",
            "{{\"id\":\"b\",\"count\":1}},{{\"id\":\"a\",\"count\":1}}]}}\n\n",
            "id: 4.{e}\ndata: {{\"id\":\"a\",\"seq\":4,\"value\":\"three\"}}\n\n",
        ),
        e = e,
        two = two
    );
    assert_eq!(String::from_utf8_lossy(&stream.wire), expected);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("vary", "Accept"),
        ("access-control-allow-origin", "*"),
        ("transfer-encoding", "chunked"),
        ("content-encoding", ""),
    ] {
        assert_eq!(stream.head.field(name), value, "{name}");
    }
}

#[test]
fn silence_is_filled_with_comments_that_no_client_takes_for_events() {
    let server = Server::start();
    server.set("a", &["one"]);
    let mut stream = server.stream("/get?id=a");
    stream.until_synced();
    let before = stream.wire.len();
    while stream.decoder.comments == 0 {
        assert!(stream.read_more().expect("a comment comes"), "the stream goes on");
    }
    assert_eq!(&stream.wire[before..], b":\n");
    server.set("a", &["two"]);
    assert_eq!(stream.next().json()["value"], "two");
    assert!(stream.wire[before..].starts_with(b":\nid: 2."), "no blank line of its own");
}

#[test]
fn what_is_accepted_decides() {
    let server = prepared();
    for (fields, streams) in [
        (&[][..], false),
        (&["Accept: */*"], false),
        (&["Accept: text/*"], false),
        (&["Accept: application/json"], false),
        (&["Accept: text/html,application/xhtml+xml,*/*;q=0.8"], false),
        (&["Accept: text/event-stream"], true),
        (&["Accept: TEXT/Event-Stream"], true),
        (&["Accept: event/text-stream"], true),
        (&["Accept: text/event-stream, */*;q=0.1"], true),
        (&["Accept: application/json, text/event-stream"], true),
        (&["Accept: text/event-stream;q=0.5, application/json;q=0.5"], true),
        (&["Accept: text/event-stream;q=0.5,application/json;q=0.6"], false),
        (&["Accept: text/event-stream;q=0.5, */*"], false),
        (&["Accept: application/*;q=0.9, text/event-stream;q=0.8"], false),
        (&["Accept: text/event-stream;q=0.001"], true),
        (&["Accept: text/event-stream;q=0"], false),
        (&["Accept: text/event-stream; Q=0.000"], false),
        (&["Accept: application/json;q=0.1", "Accept: text/event-stream"], true),
        (&["Accept: text/event-streams"], false),
    ] {
        let mut connection = server.connect();
        connection.send_request("GET", "/get?id=a", fields, b"");
        let (head, _) = connection.try_head(false).expect("a head");
        let expected = if streams { "text/event-stream" } else { "application/json" };
        assert_eq!(head.field("content-type"), expected, "{fields:?}");
        assert_eq!(head.field("vary"), "Accept", "{fields:?}");
    }
    let bad =
        server.connect().request("GET", "/get?id=a&after=x", &["Accept: text/event-stream"], b"");
    assert_eq!((bad.status, bad.field("content-type")), (400, "application/problem+json"));
}

#[test]
fn storages_are_merged_in_seq_order() {
    let server = prepared();
    for target in
        ["/get?items=b&items=a", "/get?items=a&items=b", "/get?items=a&items=b&items=none"]
    {
        check(&server, server.stream(target), target, false, &[1, 2, 3, 4, 5]);
    }
    let mut empty = server.stream("/get?id=none");
    let (before, synced) = empty.until_synced();
    assert_eq!((before.len(), synced.json()["items"][0]["count"].as_u64()), (0, Some(0)));
    assert_eq!(halves(&synced.id).0, 0);
    server.set("none", &["first"]);
    assert_eq!(empty.next().seq(), 6, "a storage that did not exist is followed as well");
}

#[test]
fn synced_comes_once_and_says_what_there_is() {
    let server = prepared();
    let mut stream = server.stream("/get?items=b&items=a");
    let (_, synced) = stream.until_synced();
    let items = json!([{ "id": "b", "count": 2 }, { "id": "a", "count": 3 }]);
    assert_eq!(synced.json()["items"], items);
    assert_eq!(synced.id, format!("5.{}", epoch(&server)));
    for number in 6..30 {
        server.set(["a", "b"][number % 2], &[&number.to_string()]);
        let message = stream.next();
        assert_eq!((message.event.as_str(), message.seq()), ("message", number as u64));
    }
    let ids: Vec<String> = (0..101).map(|number| format!("s{number}")).collect();
    for (ids, listed) in [(&ids[..100], true), (&ids[..], false)] {
        let body = json!({ "items": ids }).to_string();
        let (_, synced) = Stream::post_over(server.connect(), &body, &[]).until_synced();
        assert_eq!(synced.json().get("items").is_some(), listed, "{} storages", ids.len());
        assert!(synced.json()["cursor"].is_string());
    }
}

#[test]
fn a_stream_resumes_where_it_is_told() {
    let server = prepared();
    let e = epoch(&server);
    let id = |text: &str| format!("Last-Event-ID: {}", text.replace(".E", &format!(".{e}")));
    let items = "/get?items=a&items=b";
    for (query, field, reset, expected) in [
        ("", id("0"), false, &[1, 2, 3, 4, 5][..]),
        ("", id("2.E"), false, &[3, 4, 5]),
        ("", id("2"), false, &[3, 4, 5]),
        ("", id("5.E"), false, &[]),
        ("", id(""), false, &[1, 2, 3, 4, 5]),
        ("&lastEventId=3.E", "X: x".into(), false, &[4, 5]),
        ("&after=4.E", "X: x".into(), false, &[5]),
        ("&after=4", "X: x".into(), false, &[5]),
        ("&after=1.E&lastEventId=3.E", "X: x".into(), false, &[4, 5]),
        ("&after=1.E&lastEventId=3.E", id("4.E"), false, &[5]),
        ("&after=3.E&lastEventId=", id(""), false, &[4, 5]),
        ("&after=4&lastEventId=3", id("1.E"), false, &[2, 3, 4, 5]),
        ("", id("6.E"), true, &[1, 2, 3, 4, 5]),
        ("", id("6"), true, &[1, 2, 3, 4, 5]),
        ("", id("x"), true, &[1, 2, 3, 4, 5]),
        ("", id("2.E0"), true, &[1, 2, 3, 4, 5]),
        ("", id("99999999999999999999999"), true, &[1, 2, 3, 4, 5]),
        ("&lastEventId=x", "X: x".into(), true, &[1, 2, 3, 4, 5]),
        ("&lastEventId=6.E", "X: x".into(), true, &[1, 2, 3, 4, 5]),
        ("&after=6", "X: x".into(), true, &[1, 2, 3, 4, 5]),
        ("&after=4", id("x"), true, &[1, 2, 3, 4, 5]),
        ("&last=0", "X: x".into(), false, &[]),
        ("&last=2", "X: x".into(), false, &[4, 5]),
        ("&last=9", "X: x".into(), false, &[1, 2, 3, 4, 5]),
        ("&last=2", id("1.E"), false, &[2, 3, 4, 5]),
        ("&last=0", id("2.E"), false, &[3, 4, 5]),
        ("&last=2", id("9.E"), true, &[4, 5]),
        ("&last=2", id("x"), true, &[4, 5]),
    ] {
        let target = format!("{items}{}", query.replace(".E", &format!(".{e}")));
        let shown = format!("{target} {field}");
        let stream = Stream::open(server.address(), &target, &[&field]);
        let mut stream = check(&server, stream, &shown, reset, expected);
        assert_eq!(stream.decoder.retries, [2000], "{shown}");
        assert!(stream.decoder.next().is_none(), "{shown}");
    }
}

#[test]
fn an_unknown_epoch_is_a_reset() {
    let server = prepared();
    let other = if epoch(&server) == "00000000" { "00000001" } else { "00000000" };
    let field = format!("Last-Event-ID: 2.{other}");
    let stream = Stream::open(server.address(), "/get?id=a", &[&field]);
    let mut stream = check(&server, stream, "unknown epoch", true, &[1, 3, 5]);
    server.set("a", &["a6"]);
    assert_eq!(stream.next().seq(), 6);
}

#[test]
fn an_item_may_start_later_than_the_rest() {
    let server = prepared();
    for (body, reset, expected) in [
        (json!({ "items": [{ "id": "a", "after": 3 }, "b"] }), false, &[2, 4, 5][..]),
        (json!({ "items": [{ "id": "a", "after": 1 }, "b"], "after": 3 }), false, &[4, 5]),
        (json!({ "items": [{ "id": "a", "after": "5" }, "b"], "after": 2 }), false, &[4]),
        (json!({ "items": [{ "id": "a", "after": 6 }, "b"], "after": 2 }), true, &[1, 2, 3, 4, 5]),
    ] {
        let body = body.to_string();
        let stream = Stream::post_over(server.connect(), &body, &[]);
        check(&server, stream, &body, reset, expected);
    }
}

#[test]
fn post_streams_as_well() {
    let server = prepared();
    let body = r#"{"items":["b","a"],"after":3}"#;
    let mut stream =
        check(&server, Stream::post_over(server.connect(), body, &[]), body, false, &[4, 5]);
    assert_eq!(stream.head.field("cache-control"), "no-store");
    server.set("b", &["b6"]);
    assert_eq!(stream.next().json(), json!({ "id": "b", "seq": 6, "value": "b6" }));
    let field = "Last-Event-ID: 4";
    check(&server, Stream::post_over(server.connect(), body, &[field]), field, false, &[5, 6]);
}

#[test]
fn head_is_the_head_of_the_stream() {
    let server = prepared();
    let mut connection = server.connect();
    connection.send_request("HEAD", "/get?id=a", &["Accept: text/event-stream"], b"");
    let (head, _) = connection.try_head(true).expect("a head");
    assert_eq!((head.status, head.field("content-type")), (200, "text/event-stream"));
    assert_eq!(head.field("vary"), "Accept");
    connection.end_sending();
    assert_eq!(connection.until_close(), Ok(vec![]), "no body follows");
}

#[test]
fn http_1_0_streams_to_the_close() {
    let server = prepared();
    let mut connection = server.connect();
    connection.send("GET /get?id=a HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n");
    let stream = Stream::begin(connection);
    assert_eq!(stream.head.field("transfer-encoding"), "");
    assert_eq!(stream.head.field("content-length"), "");
    let mut stream = check(&server, stream, "HTTP/1.0", false, &[1, 3, 5]);
    assert!(stream.wire.starts_with(b"retry: 2000\nid: 1."), "the body is the events alone");
    server.set("a", &["a6"]);
    assert_eq!(stream.next().seq(), 6);
}

#[test]
fn a_client_that_ends_sending_is_gone() {
    let server = prepared();
    let mut connection = server.connect();
    connection.send_request("GET", "/get?id=a", &["Accept: text/event-stream"], b"");
    let (head, mut body) = connection.try_head(false).expect("a head");
    assert_eq!(head.status, 200);
    assert!(connection.try_piece(&mut body).expect("a piece").is_some());
    connection.end_sending();
    assert!(connection.until_close().is_ok(), "the server closes");
}

#[test]
fn a_request_behind_a_stream_is_not_answered_into_it() {
    let server = prepared();
    let mut connection = server.connect();
    connection.send(
        "GET /get?id=a HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n\
         GET /get?id=b HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let mut stream = check(&server, Stream::begin(connection), "pipelined", false, &[1, 3, 5]);
    server.set("a", &["a6"]);
    assert_eq!(stream.next().seq(), 6);
    assert_eq!(crate::harness::find(&stream.wire, b"HTTP/1."), None);
}

#[test]
fn every_subscriber_gets_every_event() {
    let server = Server::start();
    let mut streams: Vec<Stream> = (0..60)
        .map(|number| server.stream(&format!("/get?items=all&items=s{number}&last=0")))
        .collect();
    streams.iter_mut().for_each(|stream| drop(stream.until_synced()));
    for round in 0..5u64 {
        server.set("all", &[&round.to_string()]);
        server.set("s7", &[&round.to_string()]);
        server.set("nobody's", &[&round.to_string()]);
        for (number, stream) in streams.iter_mut().enumerate() {
            assert_eq!(stream.next().json()["id"], "all", "subscriber {number}");
            if number == 7 {
                assert_eq!(stream.next().json()["id"], "s7");
            }
        }
    }
    streams.retain_mut(|stream| {
        assert!(stream.decoder.next().is_none());
        false
    });
    let mut heir = server.stream("/get?id=heir");
    heir.until_synced();
    server.set("all", &["of nobody"]);
    server.set("heir", &["mine"]);
    assert_eq!(heir.next().json()["value"], "mine", "a place that was left is not haunted");
}

#[test]
fn the_largest_value_escapes_to_six_times_its_size() {
    let server = Server::start();
    let value = "\u{1}".repeat(1 << 20);
    let mut live = server.stream("/get?id=a");
    live.until_synced();
    server.set("a", &[&value]);
    server.set("a", &["small"]);
    let history = server.stream("/get?id=a").until_synced().0;
    let large = [live.next(), history[0].clone()];
    assert!(large.iter().all(|message| message.json()["value"] == value.as_str()));
    assert_eq!(live.next().json()["value"], "small");
    assert_eq!(history[1].json()["value"], "small");
    assert_eq!(server.read("/get?id=a")["items"][0]["events"][0]["value"], value.as_str());
}

#[test]
fn ten_thousand_storages_are_one_stream() {
    let server = Server::start();
    let ids: Vec<String> = (0..10_000).map(|number| format!("storage {number}")).collect();
    server.set(&ids[9_999], &["old"]);
    let body = json!({ "items": ids }).to_string();
    let mut stream = Stream::post_over(server.connect(), &body, &[]);
    let (before, _) = stream.until_synced();
    assert_eq!(seqs(&before), [1]);
    for number in [0, 5_000, 9_999] {
        server.set(&ids[number], &["new"]);
        assert_eq!(stream.next().json()["id"], ids[number].as_str());
    }
    drop(stream);
    assert_eq!(server.set("storage 0", &["newer"]), [5]);
}

/// Appends to one storage over several connections until told to stop.
fn append_all_the_while(address: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let appender = |number: usize| {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut connection = Connection::open(address);
            for round in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let body = json!({ "value": format!("{number}.{round}") }).to_string();
                assert_eq!(connection.post("/set/a", &body).status, 201);
            }
        })
    };
    (0..8).map(appender).collect()
}

#[test]
fn a_reply_a_history_and_live_events_join_without_a_gap() {
    const STREAMS: usize = 300;
    let server = Server::start();
    let stop = Arc::new(AtomicBool::new(false));
    let appenders = append_all_the_while(server.address(), &stop);
    let mut open = VecDeque::new();
    for number in 0..STREAMS {
        let reply = server.read("/get?id=a&last=0");
        let cursor = reply["cursor"].as_str().expect("a string");
        let mut stream = server.stream(&format!("/get?id=a&after={cursor}"));
        let known = halves(cursor).0;
        let (before, synced) = stream.until_synced();
        let live = (0..5).map(|_| stream.next());
        let messages: Vec<Message> = before.into_iter().chain(live).collect();
        let expected: Vec<u64> = (known + 1..).take(messages.len()).collect();
        assert_eq!(seqs(&messages), expected, "stream {number}, synced at {}", synced.id);
        open.push_back(stream);
        if open.len() > 20 {
            open.pop_front();
        }
    }
    stop.store(true, Ordering::Relaxed);
    appenders.into_iter().for_each(|a| a.join().expect("every append is answered"));
}
