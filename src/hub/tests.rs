//! Drives the hub alone: bytes and a clock go in, nobody answers its requests.

use std::time::Duration;

use super::*;
use crate::event::{Epoch, Placed};
use crate::hot::Encoded;
use crate::id::Id;
use crate::index::Shadow;
use crate::message::{Append, FirstPage, Lane};
use crate::store::StoreError;

const START: u64 = 1_000;

struct Bench {
    hub: Hub,
    milliseconds: u64,
    to_writer: Vec<ToWriter>,
    to_readers: Vec<ToReader>,
    closed: Vec<u32>,
    /// Those whose next turn was asked for.
    resumed: VecDeque<u32>,
}

impl Bench {
    fn new() -> Bench {
        let hub = Hub::new(Options {
            epochs: Epochs::new(&[(Epoch(7), 0)]),
            visible: 0,
            limits: Limits { value_bytes_max: config::VALUE_BYTES_MAX },
            body_bytes_max: config::BODY_BYTES_MAX,
            outbox_bytes_max: config::OUTBOX_BYTES_MAX,
            connections_max: 1 << 20,
            readers: 1,
            cors_origin: "*".to_owned(),
            access_log: false,
            seed: 1,
        });
        let (to_writer, to_readers, closed) = (Vec::new(), Vec::new(), Vec::new());
        let resumed = VecDeque::new();
        Bench { hub, milliseconds: START, to_writer, to_readers, closed, resumed }
    }

    fn now(&self) -> Now {
        Now { milliseconds: self.milliseconds, unix_seconds: 1_700_000_000 }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.milliseconds += milliseconds;
        self.hub.tick(self.now());
        self.carry_out();
    }

    fn connect(&mut self) -> u32 {
        let key = self.hub.accept(self.now(), None).expect("there is room");
        self.closed.retain(|closed| *closed != key);
        key
    }

    fn send(&mut self, key: u32, bytes: &str) {
        assert!(self.hub.wants_input(key));
        self.hub.input(self.now(), key, bytes.as_bytes());
        self.carry_out();
    }

    /// The turns that connections wait for. Returns how many requests were begun in the longest.
    fn turns(&mut self) -> u32 {
        let mut most = 0;
        while let Some(key) = self.resumed.pop_front() {
            let before = self.hub.exchanges;
            if !self.closed.contains(&key) && self.hub.go_on(self.now(), key) {
                most = most.max(self.hub.exchanges - before);
            }
            self.carry_out();
        }
        most
    }

    fn end_input(&mut self, key: u32) {
        self.hub.input_ended(self.now(), key);
        self.carry_out();
    }

    /// What the peer gets when it takes everything.
    fn take(&mut self, key: u32) -> String {
        let mut taken = Vec::new();
        while !self.closed.contains(&key) && !self.hub.outbox(key).is_empty() {
            let mut buffer = [0; config::GATHERED_BYTES];
            let bytes = self.hub.outbox(key).next(&mut buffer, usize::MAX).to_vec();
            self.hub.flushing(key);
            self.hub.sent(self.now(), key, bytes.len());
            self.carry_out();
            self.turns();
            taken.extend(bytes);
        }
        String::from_utf8(taken).expect("replies are UTF-8")
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.hub.next_effect() {
            match effect {
                Effect::ToWriter(message) => self.to_writer.push(message),
                Effect::ToReader(message) => self.to_readers.push(message),
                Effect::Resume(key) => self.resumed.push_back(key),
                Effect::Close(key) => {
                    self.hub.closed(key);
                    self.closed.push(key);
                }
                _ => {}
            }
        }
    }
}

const PAGE: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const STREAM: &str = "GET /get?id=a HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";

#[test]
fn a_reply_before_a_stream_goes_out_though_the_peer_has_ended_its_side() {
    let mut bench = Bench::new();
    let key = bench.connect();
    bench.send(key, &format!("{PAGE}{STREAM}"));
    bench.end_input(key);
    assert!(bench.take(key).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(bench.closed, [key], "and the stream has nobody");
}

#[test]
fn of_what_one_pipelines_a_turn_takes_a_share_and_none_is_forgotten() {
    const REQUESTS: usize = 3 * config::TURN_REQUESTS_MAX + 1;
    for ends in [false, true] {
        let mut bench = Bench::new();
        let key = bench.connect();
        let health = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        bench.send(key, &format!("{}{health}{}", PAGE.repeat(REQUESTS), PAGE.repeat(REQUESTS)));
        assert_eq!(bench.hub.exchanges, config::TURN_REQUESTS_MAX as u32);
        assert!(!bench.hub.wants_input(key), "not before what came is answered");
        if ends {
            bench.end_input(key);
        }
        assert_eq!(bench.turns(), config::TURN_REQUESTS_MAX as u32, "a share of each turn");
        assert_eq!(bench.hub.exchanges as usize, REQUESTS + 1);
        let Some(ToWriter::Ping { token }) = bench.to_writer.pop() else { panic!("it asks") };
        let pong = FromWriter::Pong { token };
        bench.hub.from_writer(bench.now(), pong, &Index::default());
        bench.carry_out();
        let replies = bench.take(key).matches("HTTP/1.1 200 OK\r\n").count();
        assert_eq!(replies, 2 * REQUESTS + 1);
        assert_eq!(bench.hub.inputs_bytes, 0);
        assert_eq!(bench.closed.contains(&key), ends);
    }
}

#[test]
fn what_is_pipelined_is_bounded_together() {
    let mut bench = Bench::new();
    let append = "POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"value\":\"v\"}";
    let many = append.repeat(config::TURN_BYTES_MAX / append.len());
    let keys: Vec<u32> = (0..2 * config::INPUTS_BYTES_MAX / many.len())
        .map(|_| {
            let key = bench.connect();
            bench.send(key, &many);
            key
        })
        .collect();
    assert!(bench.hub.inputs_bytes <= config::INPUTS_BYTES_MAX);
    assert_eq!(bench.to_writer.len(), keys.len(), "each has its first append stored");
    let last = *keys.last().expect("there are several");
    let Some(ToWriter::Append(append)) = bench.to_writer.pop() else { panic!("it appends") };
    let error = StoreError::Full("no room".to_owned());
    let failed = FromWriter::Failed { appends: vec![append], error };
    bench.hub.from_writer(bench.now(), failed, &Index::default());
    bench.carry_out();
    let reply = bench.take(last);
    assert!(reply.starts_with("HTTP/1.1 507 ") && reply.contains("\r\nConnection: close\r\n"));
    assert_eq!(reply.matches("HTTP/1.1 ").count(), 1, "what followed is not kept");
}

#[test]
fn a_get_is_answered_by_its_query_whatever_body_it_brings() {
    for length in [2, config::PARSE_ON_LOOP_BYTES_MAX + 1] {
        let mut bench = Bench::new();
        let key = bench.connect();
        let body = " ".repeat(length);
        bench.send(
            key,
            &format!("GET /get?limit=0 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"),
        );
        bench.send(key, &body);
        let reply = bench.take(key);
        assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("\"limit: "), "{reply}");
    }
}

#[test]
fn an_empty_line_is_no_beginning_of_a_head() {
    let mut bench = Bench::new();
    let key = bench.connect();
    bench.send(key, "\r\n");
    bench.pass(config::HEAD_TIMEOUT + 1);
    bench.send(key, &PAGE[..9]);
    bench.pass(config::HEAD_TIMEOUT - 1);
    assert_eq!(bench.take(key), "", "its time began with it");
    bench.send(key, &PAGE[9..]);
    assert!(bench.take(key).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn what_is_not_read_while_replies_wait_is_not_slow() {
    let mut bench = Bench::new();
    let key = bench.connect();
    let head = "POST /get HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n";
    let body = r#"{"items":"a"}"#;
    bench.send(key, &format!("{PAGE}{head}{}", &body[..5]));
    bench.pass(config::BODY_STALL_TIMEOUT + 1);
    let page = bench.take(key);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && !page.contains(" 408 "));
    bench.pass(config::BODY_STALL_TIMEOUT - 1);
    assert_eq!(bench.take(key), "", "its time began when the replies were taken");
    bench.pass(1);
    assert!(bench.take(key).starts_with("HTTP/1.1 408 "), "and is over");
}

#[test]
fn a_large_reply_is_not_made_from_the_hot_cache() {
    let mut bench = Bench::new();
    let value = "x".repeat(config::HOT_ENTRY_BYTES_MAX / 2);
    for seq in 1..=config::HOT_ITEMS_MAX as Seq {
        let id = Id::new(&format!("s{seq}")).unwrap();
        let mut events = Encoded::default();
        events.push(seq, &value);
        bench.hub.hot.begin(&id);
        bench.hub.hot.filled(&id, Some(events));
    }
    for (storages, made_at_once) in [(1, true), (3, true), (5, false), (64, false)] {
        let key = bench.connect();
        let items: Vec<String> = (1..=storages).map(|n| format!("items=s{n}")).collect();
        bench.send(key, &format!("GET /get?{} HTTP/1.1\r\nHost: x\r\n\r\n", items.join("&")));
        let queued = bench.hub.outbox(key).bytes();
        assert!(queued < config::HOT_REPLY_BYTES_MAX + 1_024, "{queued} bytes for {storages}");
        assert_eq!(queued > 0, made_at_once, "{storages}");
        let asked = matches!(bench.to_readers.pop(), Some(ToReader::Open { .. }));
        assert_eq!(asked, !made_at_once, "{storages}");
    }
}

#[test]
fn who_comes_after_the_stop_does_not_hold_it_up() {
    let mut bench = Bench::new();
    let key = bench.connect();
    bench.send(key, "POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n");
    bench.hub.stop(bench.now());
    assert_eq!(bench.hub.accept(bench.now(), None), None);
    bench.hub.lost(key);
    bench.carry_out();
    assert_eq!((bench.closed, bench.hub.phase), (vec![key], Phase::Finished));
}

#[test]
fn streams_that_come_and_go_before_anyone_answers_are_bounded() {
    const BEYOND: usize = 100;
    let mut bench = Bench::new();
    let mut away = 0;
    for _ in 0..config::STREAMS_LEAVING_MAX + BEYOND {
        let key = bench.connect();
        bench.send(key, STREAM);
        let reply = bench.take(key);
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "a browser gives up on others");
        away += usize::from(reply.ends_with("\r\n0\r\n\r\n"));
        bench.hub.lost(key);
        bench.carry_out();
    }
    assert!((BEYOND - 1..=BEYOND).contains(&away), "{away} were sent away");
    assert!(bench.hub.tenants.len() <= config::STREAMS_LEAVING_MAX + 1);
    assert!(bench.hub.reads.waiting() <= config::STREAMS_LEAVING_MAX + 1);
    assert!(bench.hub.waiting_subscriptions.len() <= 2 * config::STREAMS_LEAVING_MAX + 2);
}

#[test]
fn heads_that_wait_for_their_bodies_are_bounded_together() {
    let mut bench = Bench::new();
    let (query, body) = ("x".repeat(60 << 10), "{\"items\":\"a\"}");
    let length = body.len();
    let head = format!("POST /get?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let fit = config::INPUTS_BYTES_MAX / query.len();
    let keys: Vec<u32> = (0..fit).map(|_| bench.connect()).collect();
    for key in &keys {
        bench.send(*key, &head);
    }
    let late = bench.connect();
    bench.send(late, &head);
    assert!(bench.take(late).starts_with("HTTP/1.1 503 "));
    let small = bench.connect();
    bench.send(small, PAGE);
    assert!(bench.take(small).starts_with("HTTP/1.1 200 "), "a small one takes nothing");
    for key in keys {
        bench.send(key, body);
    }
    assert_eq!(bench.hub.all_inputs_bytes(), 0, "what a query asked for is known");
}

#[test]
fn heads_that_are_not_whole_are_bounded_together() {
    let mut bench = Bench::new();
    let start = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(79 * 1_024));
    let fit = config::INPUTS_BYTES_MAX / start.len();
    let keys: Vec<u32> = (0..fit).map(|_| bench.connect()).collect();
    for key in &keys {
        bench.send(*key, &start);
    }
    let late = bench.connect();
    bench.send(late, &start);
    assert!(bench.take(late).starts_with("HTTP/1.1 503 "));
    let small = bench.connect();
    bench.send(small, PAGE);
    assert!(bench.take(small).starts_with("HTTP/1.1 200 "), "what comes whole is not kept");
    for key in keys {
        bench.send(key, "\r\n\r\n");
        assert!(bench.take(key).starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(bench.hub.inputs_bytes, 0);
}

#[test]
fn large_bodies_leave_room_for_small_ones() {
    let mut bench = Bench::new();
    let head = |bytes: usize| {
        format!("POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n")
    };
    let send = |bench: &mut Bench, bytes: usize, sent: &str| {
        let key = bench.connect();
        bench.send(key, &head(bytes));
        bench.send(key, sent);
        key
    };
    let begun = "x".repeat(config::BODY_BYTES_MAX - 1);
    let fit = config::BODIES_BYTES_LARGE_MAX / begun.len();
    let large: Vec<u32> =
        (0..fit).map(|_| send(&mut bench, config::BODY_BYTES_MAX, &begun)).collect();
    let late = send(&mut bench, config::BODY_BYTES_MAX, &begun);
    assert!(bench.take(late).starts_with("HTTP/1.1 503 "));
    let append = |bench: &mut Bench| {
        send(bench, 13, r#"{"value":"v"}"#);
        matches!(bench.to_writer.pop(), Some(ToWriter::Append(_)))
    };
    assert!(append(&mut bench), "a small one is taken");
    let filters = bench.hub.filters_bytes.hold(config::BODIES_BYTES_MAX - bench.hub.bodies_bytes);
    let key = send(&mut bench, 13, r#"{"value":"v"}"#);
    assert!(bench.take(key).starts_with("HTTP/1.1 503 "), "until these are too many, too");
    drop(filters);
    assert!(append(&mut bench) && large.iter().all(|key| !bench.closed.contains(key)));
}

#[test]
fn large_selections_are_bounded_together_for_as_long_as_their_streams_last() {
    let mut bench = Bench::new();
    let items: Vec<String> = (1_000..6_000).map(|n| format!("items={n}")).collect();
    let stream = format!("GET /get?{} HTTP/1.1\r\nHost: x\r\n", items.join("&"));
    let stream = format!("{stream}Accept: text/event-stream\r\n\r\n");
    let bytes = items.len() * (4 + config::SELECTED_STORAGE_BYTES);
    let _others = bench.hub.selections_bytes.hold(config::SELECTIONS_BYTES_MAX - bytes);
    let open = |bench: &mut Bench, request: &str| {
        let key = bench.connect();
        bench.send(key, request);
        (key, bench.take(key))
    };
    let away = |reply: &str| reply.ends_with("\r\n0\r\n\r\n");
    let (first, reply) = open(&mut bench, &stream);
    assert!(!away(&reply), "there is room for one");
    let (_, reply) = open(&mut bench, &stream);
    assert!(reply.starts_with("HTTP/1.1 200 ") && away(&reply), "and for no other");
    let (_, reply) = open(&mut bench, &stream.replace("text/event-stream", "*/*"));
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("\r\nRetry-After: "), "{reply}");
    let (_, reply) = open(&mut bench, STREAM);
    assert!(!away(&reply), "small ones are served");
    bench.hub.lost(first);
    bench.carry_out();
    assert!(away(&open(&mut bench, &stream).1), "the writer still holds it");
    let left = FromWriter::Left { slot: 0 };
    bench.hub.from_writer(bench.now(), left, &Index::default());
    let answer = Read::Followed { slot: 0, frames: Vec::new(), cursor: 0, synced: true };
    bench.hub.from_reader(bench.now(), FromReader { lane: Lane::Scan, answer });
    assert!(!away(&open(&mut bench, &stream).1), "there is room again");
}

#[test]
fn outboxes_are_bounded_together() {
    const BYTES: usize = 8 << 20;
    let mut bench = Bench::new();
    let read = |bench: &mut Bench, bytes: usize| {
        let key = bench.connect();
        bench.send(key, "GET /get?items=a&items=b HTTP/1.1\r\nHost: x\r\n\r\n");
        let Some(ToReader::Open { token, .. }) = bench.to_readers.pop() else { panic!("it asks") };
        let page = FirstPage { last: 0, body: vec![b'x'; bytes], next: None };
        let answer = Read::Opened { token, page };
        bench.hub.from_reader(bench.now(), FromReader { lane: Lane::First, answer });
        bench.carry_out();
        key
    };
    let modest = read(&mut bench, 1_000);
    let first = read(&mut bench, BYTES);
    bench.pass(1);
    for _ in 0..config::OUTBOXES_BYTES_MAX / BYTES {
        read(&mut bench, BYTES);
    }
    assert!(bench.hub.outboxes_bytes.get() <= config::OUTBOXES_BYTES_MAX);
    assert!(bench.closed.contains(&first), "who takes nothing for longest goes first");
    assert!(bench.take(modest).ends_with("xxx"), "and who holds little stays");
}

/// A connection whose stream is live, and the index that holds it.
fn follow(bench: &mut Bench) -> (u32, Shadow) {
    let key = bench.connect();
    bench.send(key, STREAM);
    let Some(ToWriter::Subscribe { slot, ids }) = bench.to_writer.pop() else { panic!("it joins") };
    let mut shadow = Shadow::default();
    shadow.subscribe(slot, ids);
    shadow.publish();
    let published = shadow.published();
    let index = published.load();
    bench.hub.from_writer(bench.now(), FromWriter::Joined { slot, last: 0 }, &index);
    let (frames, cursor, synced) = (Vec::new(), 0, true);
    let answer = Read::Followed { slot, frames, cursor, synced };
    bench.to_readers.clear();
    bench.hub.from_reader(bench.now(), FromReader { lane: Lane::First, answer });
    bench.carry_out();
    bench.take(key);
    (key, shadow)
}

/// What is asked of the writer for a body that is sent to `/set/ID`.
fn appends(bench: &mut Bench, id: &str, body: &str) -> Append {
    let appender = bench.connect();
    let length = body.len();
    let head = format!("POST /set/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    bench.send(appender, &(head + body));
    let Some(ToWriter::Append(append)) = bench.to_writer.pop() else { panic!("it appends") };
    append
}

fn commits(bench: &mut Bench, shadow: &Shadow, appended: Vec<Appended>, last: Seq) {
    let (took, store) = (Duration::ZERO, StoreGauges::default());
    let commit = FromWriter::Committed(Commit { appended, last, took, store });
    let published = shadow.published();
    bench.hub.from_writer(bench.now(), commit, &published.load());
    bench.carry_out();
}

#[test]
fn what_follows_each_other_in_a_commit_is_one_chunk() {
    let mut bench = Bench::new();
    let (key, shadow) = follow(&mut bench);
    let ids = ["a", "a", "b", "a"];
    let appended = ids.into_iter().zip(1..).map(|(id, seq)| {
        let append = appends(&mut bench, id, &format!("{{\"value\":\"{seq}\"}}"));
        Appended { append, placed: [Placed { seq, new: true }].into() }
    });
    let appended = appended.collect();
    commits(&mut bench, &shadow, appended, 4);
    let received = bench.take(key);
    let seqs =
        |chunk: &str| chunk.matches("\nid: ").count() + usize::from(chunk.starts_with("id: "));
    let chunks: Vec<usize> =
        received.split("\r\n").map(seqs).filter(|events| *events > 0).collect();
    assert_eq!(chunks, [2, 1], "{received}");
}

#[test]
fn a_commit_that_brings_outboxes_over_their_limit_is_not_sent_on() {
    let mut bench = Bench::new();
    let (key, shadow) = follow(&mut bench);
    // Two are more than a frame, and few enough to be parsed at once.
    let value = |letter: &str| letter.repeat(config::FRAME_BYTES * 3 / 4);
    let body = format!("{{\"values\":[\"{}\",\"{}\"]}}", value("a"), value("b"));
    let append = appends(&mut bench, "a", &body);
    let placed = [1, 2].map(|seq| Placed { seq, new: true }).into();
    let appended = vec![Appended { append, placed }];
    let _others = bench.hub.outboxes_bytes.hold(config::OUTBOXES_BYTES_MAX);
    commits(&mut bench, &shadow, appended, 2);
    assert_eq!(bench.hub.metrics.events_delivered, 1, "one a frame");
    assert!(bench.closed.contains(&key));
}
