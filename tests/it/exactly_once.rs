//! The promise that matters: whatever happens to connections, every subscriber sees every event of
//! its storages once, in `seq` order. Random appends, slow and broken subscribers, one seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::json;

use crate::harness::{Connection, Message, PATIENCE, Random, Server, Stream};

const STORAGES: usize = 40;
const APPENDERS: usize = 4;
const APPENDS_EACH: usize = 450;
const SUBSCRIBERS: usize = 16;
/// Appended to once, when all else was.
const END: &str = "end";

/// seq → storage, value.
type Log = BTreeMap<u64, (String, String)>;

/// What was acknowledged so far; the clock of the whole test.
#[derive(Default)]
struct Progress {
    log: Mutex<Log>,
    grown: Condvar,
}

impl Progress {
    fn add(&self, events: impl Iterator<Item = (u64, (String, String))>) {
        let mut log = self.log.lock().expect("no holder panics");
        for (seq, event) in events {
            assert!(log.insert(seq, event).is_none(), "seq {seq} was given out twice");
        }
        self.grown.notify_all();
    }

    fn len(&self) -> usize {
        self.log.lock().expect("no holder panics").len()
    }

    /// Waits until so many events are acknowledged, or the last one is.
    fn wait_for(&self, events: usize) {
        let log = self.log.lock().expect("no holder panics");
        let waiting = |log: &mut Log| {
            log.len() < events && log.values().next_back().is_none_or(|e| e.0 != END)
        };
        let (_log, timeout) =
            self.grown.wait_timeout_while(log, PATIENCE, waiting).expect("no holder panics");
        assert!(!timeout.timed_out(), "appends do not get on: {events} events never came");
    }
}

#[test]
fn every_event_once_in_order_whatever_happens() {
    let mut random = Random::from_environment();
    let server = Server::start();
    let progress = Arc::new(Progress::default());
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|number| {
            let (address, progress, random) = (server.address(), progress.clone(), random.fork());
            thread::spawn(move || append(number, address, &progress, random))
        })
        .collect();
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let (address, progress, random) = (server.address(), progress.clone(), random.fork());
            thread::spawn(move || Subscriber::new(address, random).run(&progress))
        })
        .collect();
    for appender in appenders {
        appender.join().expect("every append is answered");
    }
    let seqs = server.set(END, &["end"]);
    progress.add(seqs.into_iter().map(|seq| (seq, (END.to_owned(), "end".to_owned()))));
    let log = progress.log.lock().expect("no holder panics").clone();
    assert_eq!(log.keys().copied().collect::<Vec<_>>(), (1..=log.len() as u64).collect::<Vec<_>>());
    let pages = server.metric("rill_stream_pages_total");
    let delivered = server.metric("rill_events_delivered_total");
    let (mut connections, mut seen) = (0, 0);
    for (number, subscriber) in subscribers.into_iter().enumerate() {
        let subscriber = subscriber.join().expect("every subscriber gets to the end");
        let expected: Log =
            log.clone().into_iter().filter(|(_, e)| subscriber.ids.contains(&e.0)).collect();
        let got: Vec<u64> = subscriber.events.iter().map(|(seq, _)| *seq).collect();
        let wanted: Vec<u64> = expected.keys().copied().collect();
        assert_eq!(got, wanted, "subscriber {number} to {:?}", subscriber.ids);
        assert!(subscriber.events == expected.into_iter().collect::<Vec<_>>(), "values differ");
        connections += subscriber.connections;
        seen += got.len();
    }
    println!("{} events, {seen} seen over {connections} connections", log.len());
    println!("{pages} pages, {delivered} queued live");
}

fn append(appender: usize, address: SocketAddr, progress: &Progress, mut random: Random) {
    let mut connection = Connection::open(address);
    for round in 0..APPENDS_EACH {
        let id = format!("s{}", random.range(0, STORAGES - 1));
        let count = random.range(1, 20);
        let bytes = if random.one_in(8) { 30_000 } else { 300 };
        let values: Vec<String> = (0..count)
            .map(|n| format!("{appender}.{round}.{n}\n{}", "x".repeat(random.range(0, bytes))))
            .collect();
        let reply =
            connection.post(&format!("/set/{id}"), &json!({ "values": values }).to_string());
        assert_eq!(reply.status, 201, "{}", reply.text());
        let events = reply.json();
        let events = events["events"].as_array().expect("an append names its events");
        assert_eq!(events.len(), count);
        let seqs = events.iter().map(|event| event["seq"].as_u64().expect("a seq is a number"));
        progress.add(seqs.zip(values.into_iter().map(|value| (id.clone(), value))));
    }
}

struct Subscriber {
    address: SocketAddr,
    random: Random,
    ids: Vec<String>,
    events: Vec<(u64, (String, String))>,
    cursor: Option<String>,
    connections: usize,
}

impl Subscriber {
    fn new(address: SocketAddr, mut random: Random) -> Subscriber {
        let count = random.range(1, 12);
        let mut ids: Vec<String> =
            random.choose(count, STORAGES).iter().map(|number| format!("s{number}")).collect();
        ids.insert(random.range(0, count), END.to_owned());
        Subscriber { address, random, ids, events: vec![], cursor: None, connections: 0 }
    }

    /// Connects, reads, breaks off, resumes, until the end was seen.
    fn run(mut self, progress: &Progress) -> Subscriber {
        progress.wait_for(self.random.range(0, APPENDERS * APPENDS_EACH * 10));
        while self.events.last().is_none_or(|(_, (id, _))| id != END) {
            let mut stream = self.connect();
            self.connections += 1;
            self.read(&mut stream, progress);
        }
        self
    }

    fn connect(&mut self) -> Stream {
        let mut connection = match self.random.one_in(2) {
            true => Connection::open_narrow(self.address, 4096),
            false => Connection::open(self.address),
        };
        connection.set_read_bytes_max(self.random.range(1, 30_000));
        let mut target = format!("/get?items={}", self.ids.join("&items="));
        let cursor = self.cursor.clone().unwrap_or_default();
        let field = format!("Last-Event-ID: {cursor}");
        let mut stream = match self.random.range(0, 3) {
            0 => Stream::open_over(connection, &target, &[&field]),
            1 => {
                target.push_str(&format!("&lastEventId={cursor}"));
                Stream::open_over(connection, &target, &[])
            }
            2 => {
                target.push_str(&format!("&after={cursor}"));
                Stream::open_over(connection, &target, &[])
            }
            _ => {
                let body = json!({ "items": self.ids }).to_string();
                Stream::post_over(connection, &body, &[&field])
            }
        };
        stream.forget_wire();
        stream
    }

    /// Reads until the end, or until it breaks off in the middle; pauses while others append.
    fn read(&mut self, stream: &mut Stream, progress: &Progress) {
        let break_off_after = match self.random.one_in(12) {
            true => usize::MAX,
            false => self.random.range(0, 120),
        };
        let pause_every = self.random.range(1, 100);
        let mut synced = 0;
        for read in 1.. {
            if read > break_off_after {
                return;
            }
            let message = stream.next();
            match message.event.as_str() {
                "message" => self.take(&message),
                "synced" => synced += 1,
                other => panic!("an event of the name {other:?}: {message:?}"),
            }
            assert!(synced <= 1, "synced came twice on one connection");
            self.cursor = Some(message.id);
            if self.events.last().is_some_and(|(_, (id, _))| id == END) {
                return;
            }
            if read % pause_every == 0 {
                progress.wait_for(progress.len() + self.random.range(0, 200));
            }
        }
    }

    fn take(&mut self, message: &Message) {
        let json = message.json();
        let text = |key: &str| json[key].as_str().expect("a string").to_owned();
        let seq = message.seq();
        let last = self.events.last().map_or(0, |(seq, _)| *seq);
        assert!(seq > last, "{seq} came after {last}; the stream resumed at {:?}", self.cursor);
        self.events.push((seq, (text("id"), text("value"))));
    }
}
