//! Overload: more appends than the store takes. Every one is answered, and the store holds exactly
//! those that were answered with 201. Once without sockets, so that the queue's limit is reached on
//! any machine, and once on the real binary, whose syncs strace makes slow.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rill::config;
use rill::event::Epochs;
use rill::hub::{Effect, Hub, Now, Options};
use rill::route::Limits;
use rill::store::sqlite;
use rill::writer::Writer;

use crate::harness::{Folder, PATIENCE, Process, Server, find};
use crate::scene::Scene;

const STORAGES: usize = 100;

fn append(value: usize) -> String {
    let body = format!("{{\"value\":\"{value}\"}}");
    let storage = value % STORAGES;
    let length = body.len();
    format!("POST /set/o-{storage} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// What was answered to each value.
#[derive(Default)]
struct Answers {
    stored: HashSet<usize>,
    refused: HashSet<usize>,
}

impl Answers {
    fn note(&mut self, value: usize, head: &str) {
        let noted = if head.starts_with("HTTP/1.1 201 ") {
            self.stored.insert(value)
        } else {
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            assert!(head.contains("\r\nRetry-After: "), "{head}");
            self.refused.insert(value)
        };
        assert!(noted, "each value is answered once");
    }

    /// The store holds what was answered with 201, and nothing else.
    fn check(&self, server: &Server) {
        let mut found = HashSet::new();
        for storage in 0..STORAGES {
            let reply = server.read(&format!("/get?id=o-{storage}"));
            let events = reply["items"][0]["events"].as_array().expect("a read has events");
            for event in events {
                let value = event["value"].as_str().expect("a value is a string");
                found.insert(value.parse::<usize>().expect("the values were numbers"));
            }
        }
        assert_eq!(found.len(), self.stored.len());
        assert!(found == self.stored, "other events than those that were acknowledged");
        assert!(found.is_disjoint(&self.refused), "what was refused was stored");
    }
}

/// A whole reply at the start of the bytes: its head, and how long it is.
fn reply(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).expect("heads are text");
    let (_, length) = head.split_once("\r\nContent-Length: ").expect("these replies have one");
    let length: usize = length.split("\r\n").next()?.parse().expect("it is a number");
    (bytes.len() >= end + length).then_some((head, end + length))
}

#[test]
fn a_full_queue_refuses_and_stores_nothing() {
    const CONNECTIONS: usize = config::APPENDS_IN_FLIGHT_MAX + 500;
    let folder = Arc::new(Folder::new());
    let opened = sqlite::open(&folder.file("x.db")).expect("a new database opens");
    let mut writer = Writer::new(opened.log);
    let published = writer.published();
    let now = Now { milliseconds: 1, unix_seconds: 1_700_000_000 };
    let mut hub = Hub::new(Options {
        epochs: Epochs::new(&opened.epochs),
        visible: opened.last,
        limits: Limits { value_bytes_max: config::VALUE_BYTES_MAX },
        body_bytes_max: config::BODY_BYTES_MAX,
        outbox_bytes_max: config::OUTBOX_BYTES_MAX,
        connections_max: CONNECTIONS,
        readers: 1,
        cors_origin: "*".to_owned(),
        access_log: false,
        seed: 1,
    });
    let mut queue = VecDeque::new();
    let mut take = |hub: &mut Hub| {
        while let Some(effect) = hub.next_effect() {
            if let Effect::ToWriter(message) = effect {
                queue.push_back(message);
            }
        }
        std::mem::take(&mut queue)
    };
    let keys: Vec<u32> = (0..CONNECTIONS).map(|_| hub.accept(now, None).expect("room")).collect();
    for (value, key) in keys.iter().enumerate() {
        hub.input(now, *key, append(value).as_bytes());
    }
    let mut waiting = take(&mut hub);
    assert_eq!(waiting.len(), config::APPENDS_IN_FLIGHT_MAX, "the limit was reached");
    while !waiting.is_empty() {
        let mut batch = waiting.drain(..waiting.len().min(config::COMMIT_APPENDS_MAX)).collect();
        let mut notices = Vec::new();
        let step = writer.step(&mut batch, &mut |_| {}, &mut notices, &|| Duration::ZERO);
        step.expect("the disk is not full");
        let index = published.load();
        notices.into_iter().for_each(|notice| hub.from_writer(now, notice, &index));
        waiting.extend(take(&mut hub));
    }
    let mut answers = Answers::default();
    for (value, key) in keys.iter().enumerate() {
        let bytes = hub.outbox(*key).next(&mut [0; 4_096], usize::MAX).to_vec();
        let (head, length) = reply(&bytes).expect("every append is answered");
        assert_eq!(length, bytes.len(), "once");
        answers.note(value, head);
    }
    assert_eq!(answers.refused.len(), 500);
    writer.close().expect("the database closes");
    answers.check(&Server::start_in(folder, &[]));
}

/// A connection with two appends under way, if the server takes them.
struct Offerer {
    socket: TcpStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
    under_way: VecDeque<usize>,
}

impl Offerer {
    fn offer(&mut self, value: usize) {
        self.unsent.extend_from_slice(append(value).as_bytes());
        self.under_way.push_back(value);
    }

    /// Moves what can be moved; returns whether anything came.
    fn turn(&mut self, buffer: &mut [u8], answers: &mut Answers) -> bool {
        if !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        match self.socket.read(buffer) {
            Ok(0) => panic!("a connection was closed"),
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                return false;
            }
        }
        while let Some((head, length)) = reply(&self.received) {
            let value = self.under_way.pop_front().expect("a reply belongs to a request");
            answers.note(value, head);
            self.received.drain(..length);
        }
        true
    }
}

/// The threads that sync what appends wait for.
const SYNCING: [&str; 2] = ["rill-writer", "rill-syncer"];

/// Only these threads, so that nothing else becomes slow.
pub(crate) fn slow_syncs(server: &Server, microseconds: u32) -> Process {
    let tasks = format!("/proc/{}/task", server.process.id());
    let tasks = fs::read_dir(tasks).expect("the process is alive").map(|task| {
        let task = task.expect("its threads can be listed");
        let name = fs::read_to_string(task.path().join("comm")).expect("a thread has a name");
        (name, task.file_name().into_string().expect("a number is text"))
    });
    let syncing = tasks.filter(|(name, _)| SYNCING.contains(&name.trim()));
    let inject = format!("inject=fsync,fdatasync:delay_exit={microseconds}");
    let strace = Process::start(
        Command::new("strace")
            .args(["-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject])
            .args(syncing.flat_map(|(_, task)| ["-p".to_owned(), task])),
    );
    let attached = strace.stderr.wait_for(|lines| {
        let attached = lines.iter().filter(|line| line.contains("attached"));
        (attached.count() == SYNCING.len()).then_some(())
    });
    assert!(attached.is_some(), "{:#?}", strace.stderr.seen());
    strace
}

#[test]
#[ignore = "needs strace, which scripts/attack installs, and most of 20,000 descriptors"]
fn a_slow_disk() {
    const CONNECTIONS: usize = 18_000;
    const SYNC_MICROSECONDS: u32 = 2_000_000;
    const TIME: Duration = Duration::from_secs(30);
    let scene = Scene::new(CONNECTIONS + 50);
    let server = &scene.server;
    let connect = |_| {
        let socket = TcpStream::connect(server.address()).expect("the server accepts");
        socket.set_nonblocking(true).expect("sockets can be nonblocking");
        let (unsent, received, under_way) = (Vec::new(), Vec::new(), VecDeque::new());
        Offerer { socket, unsent, received, under_way }
    };
    let mut offerers: Vec<Offerer> = (0..CONNECTIONS).map(connect).collect();
    let mut strace = slow_syncs(server, SYNC_MICROSECONDS);
    let mut answers = Answers::default();
    let mut in_flight_max = 0.0_f64;
    let ((), cost) = scene.measure(|| {
        let mut metrics = server.connect();
        let mut values = 0..;
        let mut buffer = vec![0; 4_096];
        let begin = Instant::now();
        let mut last_came = begin;
        while begin.elapsed() < TIME || offerers.iter().any(|o| !o.under_way.is_empty()) {
            for offerer in &mut offerers {
                while begin.elapsed() < TIME && offerer.under_way.len() < 2 {
                    offerer.offer(values.next().expect("numbers do not end"));
                }
                if offerer.turn(&mut buffer, &mut answers) {
                    last_came = Instant::now();
                }
            }
            assert!(last_came.elapsed() < PATIENCE, "some are not answered");
            let text = metrics.get("/metrics");
            let gauges: BTreeMap<&str, &str> =
                text.text().lines().filter_map(|line| line.rsplit_once(' ')).collect();
            let in_flight = gauges["rill_appends_in_flight"].parse().expect("a number");
            in_flight_max = in_flight_max.max(in_flight);
        }
    });
    strace.signal("TERM");
    let (stored, refused) = (answers.stored.len(), answers.refused.len());
    println!("a slow disk: {stored} appends stored, {refused} refused, {in_flight_max} in flight");
    assert_eq!(in_flight_max, config::APPENDS_IN_FLIGHT_MAX as f64, "full, and not beyond");
    assert!(refused > stored, "several times was offered what was taken");
    scene.judge_memory("a slow disk", &cost);
    answers.check(server);
}
