//! Owns the check of the hub: whatever connections, bytes, messages and times come, in any order,
//! it does not panic, it comes to rest, nothing is then counted as under way, its reads say what the
//! model of the store says, and a stop ends. Writer and readers are the server's own, one step at a
//! time. Order and completeness of streams are the simulation's to check.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use rill::config;
use rill::event::{Epoch, Epochs};
use rill::hub::{Effect, Hub, Now, Options};
use rill::index::Published;
use rill::message::{FromReader, FromWriter, ToReader, ToWriter};
use rill::reader::Reader;
use rill::route::Limits;
use rill::writer::Writer;
use serde_json::{Value, json};

use super::filter::independent as filter;
use super::input::Input;

mod model;
mod requests;

use model::Model;

/// One client more than are served.
const CLIENTS: usize = 5;
const CONNECTIONS_MAX: usize = CLIENTS - 1;
/// Fewer bytes than a few events take, so that streams lag.
const OUTBOX_BYTES_MAX: usize = 2_000;
/// Far more turns than it takes to come to rest.
const REST_TURNS_MAX: usize = 10_000;
/// What may pass at once: as little as a turn, and just what each deadline is.
const TIMES: [u64; 8] = [
    1,
    config::HEALTH_TIMEOUT,
    config::STOP_TIMEOUT,
    config::HEAD_TIMEOUT,
    config::COMMENT_INTERVAL,
    config::WRITE_STALL_TIMEOUT,
    config::KEEP_ALIVE_TIMEOUT,
    1_000_000,
];

/// Until the end: a client and what happens, then what that takes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    while !input.is_empty() && !world.finished {
        world.step(&mut input);
    }
    world.end();
}

struct World {
    milliseconds: u64,
    model: Model,
    hub: Hub,
    writer: Writer,
    reader: Reader,
    published: Published,
    to_writer: VecDeque<ToWriter>,
    to_reader: VecDeque<ToReader>,
    from_writer: VecDeque<FromWriter>,
    from_reader: VecDeque<FromReader>,
    clients: [Option<Client>; CLIENTS],
    /// Connections whose outbox the hub wants written.
    due: HashSet<u32>,
    /// Connections that the hub wants to have a turn.
    resumed: HashSet<u32>,
    stopping: bool,
    finished: bool,
}

struct Client {
    key: u32,
    /// Bytes on their way to the server.
    outgoing: Vec<u8>,
    sending_ended: bool,
    /// Bytes that came from it.
    incoming: Vec<u8>,
}

impl World {
    fn new() -> World {
        let model = Model::default();
        let epochs = Epochs::new(&[(Epoch(7), 0)]);
        let limits = Limits { value_bytes_max: config::VALUE_BYTES_MAX };
        let mut seed = 0;
        let seeds = Box::new(move || {
            seed += 1;
            seed
        });
        let reader = Reader::new(Box::new(model.reader()), epochs.current(), limits, seeds);
        let writer = Writer::new(Box::new(model.clone()));
        let hub = Hub::new(Options {
            epochs,
            visible: 0,
            limits,
            body_bytes_max: config::BODY_BYTES_MAX,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            connections_max: CONNECTIONS_MAX,
            readers: 1,
            cors_origin: "*".to_owned(),
            access_log: false,
            seed: 1,
        });
        World {
            milliseconds: 0,
            published: writer.published(),
            model,
            hub,
            writer,
            reader,
            to_writer: VecDeque::new(),
            to_reader: VecDeque::new(),
            from_writer: VecDeque::new(),
            from_reader: VecDeque::new(),
            clients: [const { None }; CLIENTS],
            due: HashSet::new(),
            resumed: HashSet::new(),
            stopping: false,
            finished: false,
        }
    }

    fn now(&self) -> Now {
        Now { milliseconds: self.milliseconds, unix_seconds: 1_700_000_000 }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (what, client) = (input.byte(), usize::from(input.byte()) % CLIENTS);
        match what % 16 {
            0..=2 => {
                self.queue(client, &requests::request(input.byte(), input.byte()));
                self.send(client, usize::MAX);
            }
            3 => self.queue(client, &requests::request(input.byte(), input.byte())),
            4 => {
                let bytes = usize::from(input.byte());
                self.queue(client, input.bytes(bytes));
            }
            5 => match input.byte() {
                u8::MAX => self.send(client, usize::MAX),
                most => self.send(client, usize::from(most)),
            },
            6 => self.end_sending(client),
            7 => self.lose(client),
            8 => drop(self.take(client, usize::from(input.byte()) + 1)),
            9 => drop(self.take(client, usize::MAX)),
            10 => self.pass(TIMES[usize::from(input.byte()) % TIMES.len()]),
            11 => self.writer_steps(usize::from(input.byte() % 8), input.byte().is_multiple_of(4)),
            12 => self.reader_steps(),
            13 => self.hub_takes_notices(usize::from(input.byte()) % 4 + 1),
            14 => self.hub_takes_answer(),
            _ => match input.byte() {
                0..=3 => self.model.fail_a_commit(),
                4..=7 => self.model.fail_a_read(),
                8 => self.stop(),
                _ => self.come_to_rest(),
            },
        }
    }

    // --- Clients ------------------------------------------------------------------------------

    fn queue(&mut self, client: usize, bytes: &[u8]) {
        let now = self.now();
        if self.clients[client].is_none() {
            let accepted = self.hub.accept(now, None);
            assert_eq!(accepted.is_none(), self.stopping, "there is room for all, if not to serve");
            let (outgoing, incoming) = (Vec::new(), Vec::new());
            self.clients[client] =
                accepted.map(|key| Client { key, outgoing, sending_ended: false, incoming });
        }
        if let Some(client) = &mut self.clients[client] {
            client.outgoing.extend_from_slice(bytes);
        }
    }

    /// Sends so many bytes, as many in a turn as the reactor reads, while the hub wants them.
    fn send(&mut self, number: usize, most: usize) {
        let mut left = most;
        self.go_on(number);
        while let Some(client) = &mut self.clients[number] {
            let length = client.outgoing.len().min(left).min(config::TURN_BYTES_MAX);
            if length == 0 || client.sending_ended || !self.hub.wants_input(client.key) {
                return;
            }
            left -= length;
            let (key, bytes) = (client.key, client.outgoing.drain(..length).collect::<Vec<u8>>());
            self.hub.input(self.now(), key, &bytes);
            self.carry_out();
            self.go_on(number);
        }
    }

    /// A connection has the turns that the hub asked for. Returns whether it took any.
    fn go_on(&mut self, client: usize) -> bool {
        let mut any = false;
        while let Some(key) = self.clients[client].as_ref().map(|client| client.key)
            && self.resumed.remove(&key)
        {
            any |= self.hub.go_on(self.now(), key);
            self.carry_out();
        }
        any
    }

    /// The hub sees the end of what a client sends where it would read more.
    fn end_sending(&mut self, client: usize) {
        let now = self.now();
        let Some(client) = &mut self.clients[client] else { return };
        if !client.sending_ended && self.hub.wants_input(client.key) {
            client.sending_ended = true;
            self.hub.input_ended(now, client.key);
            self.carry_out();
        }
    }

    fn lose(&mut self, client: usize) {
        if let Some(client) = &self.clients[client] {
            self.hub.lost(client.key);
            self.carry_out();
        }
    }

    /// Whether any bytes were written to the client.
    fn take(&mut self, client: usize, most: usize) -> bool {
        let now = self.now();
        let Some(client) = &mut self.clients[client] else { return false };
        let key = client.key;
        if !self.due.contains(&key) {
            return false;
        }
        self.hub.flushing(key);
        let bytes = self.hub.outbox(key).next(&mut [0; 256], most).to_vec();
        client.incoming.extend_from_slice(&bytes);
        assert!(client.incoming.starts_with(b"HTTP/1.1 ") || client.incoming.len() < 9);
        if self.hub.outbox(key).bytes() == bytes.len() {
            self.due.remove(&key);
        }
        self.hub.sent(now, key, bytes.len());
        self.carry_out();
        !bytes.is_empty()
    }

    // --- The other threads --------------------------------------------------------------------

    fn pass(&mut self, milliseconds: u64) {
        self.milliseconds += milliseconds;
        self.hub.tick(self.now());
        let next = self.hub.deadline();
        assert!(next.is_none_or(|at| at > self.milliseconds), "what was due was done");
        self.carry_out();
    }

    /// `held`: the loop still holds the published index.
    fn writer_steps(&mut self, most: usize, held: bool) {
        let mut batch: Vec<ToWriter> =
            self.to_writer.drain(..most.min(self.to_writer.len())).collect();
        let mut notices = Vec::new();
        let snapshot = held.then(|| self.published.load());
        // Half of what is left comes while it writes.
        let mut late = |batch: &mut Vec<ToWriter>| {
            let most = self.to_writer.len() / 2;
            batch.extend(self.to_writer.drain(..most));
        };
        let step = self.writer.step(&mut batch, &mut late, &mut notices, &|| Duration::ZERO);
        batch.drain(..).rev().for_each(|message| self.to_writer.push_front(message));
        drop(snapshot);
        step.expect("the model's errors are not fatal");
        self.from_writer.extend(notices);
    }

    fn reader_steps(&mut self) {
        let mut together = Vec::new();
        while self.to_reader.front().is_some_and(|request| Reader::joins(&together, request)) {
            together.extend(self.to_reader.pop_front());
        }
        self.reader.step(together, &mut |answer| self.from_reader.push_back(answer));
    }

    fn hub_takes_notices(&mut self, most: usize) {
        let now = self.now();
        let index = self.published.load();
        for notice in self.from_writer.drain(..most.min(self.from_writer.len())) {
            self.hub.from_writer(now, notice, &index);
        }
        drop(index);
        self.carry_out();
    }

    fn hub_takes_answer(&mut self) {
        if let Some(answer) = self.from_reader.pop_front() {
            self.hub.from_reader(self.now(), answer);
            self.carry_out();
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.hub.stop(self.now());
        self.carry_out();
    }

    /// The effects, as a reactor would carry them out; bytes leave only when a client takes them.
    fn carry_out(&mut self) {
        while let Some(effect) = self.hub.next_effect() {
            self.carry_out_one(effect);
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::ToWriter(message) => self.to_writer.push_back(message),
            Effect::ToReader(message) => self.to_reader.push_back(message),
            Effect::Flush(key) | Effect::Deliver(key) => drop(self.due.insert(key)),
            Effect::Close(key) => {
                let ours = |client: &&mut Option<Client>| {
                    client.as_ref().is_some_and(|client| client.key == key)
                };
                let client = self.clients.iter_mut().find(ours);
                *client.expect("a connection is closed once") = None;
                self.due.remove(&key);
                self.resumed.remove(&key);
                self.hub.closed(key);
            }
            Effect::Resume(key) => drop(self.resumed.insert(key)),
            Effect::EndOutput(_) => {}
            Effect::StopAccepting => assert!(self.stopping),
            Effect::Finished => {
                assert!(self.stopping && !self.finished, "a stop ends once");
                self.finished = true;
            }
        }
    }

    // --- The end ------------------------------------------------------------------------------

    /// Everybody does what there is to do, until there is nothing.
    fn come_to_rest(&mut self) {
        let rest = (0..REST_TURNS_MAX).find(|_| !self.turn());
        assert!(rest.is_some(), "it comes to rest");
        for client in self.clients.iter().flatten() {
            assert!(self.hub.outbox(client.key).is_empty(), "what is queued is flushed");
            assert!(!self.hub.goes_on(client.key), "what came is answered");
        }
    }

    /// Whether anything happened.
    fn turn(&mut self) -> bool {
        self.writer_steps(usize::MAX, false);
        while !self.to_reader.is_empty() {
            self.reader_steps();
        }
        let mut active = !self.from_writer.is_empty() || !self.from_reader.is_empty();
        self.hub_takes_notices(usize::MAX);
        while !self.from_reader.is_empty() {
            self.hub_takes_answer();
        }
        for client in 0..CLIENTS {
            active |= self.take(client, usize::MAX);
            active |= self.go_on(client);
        }
        active || !self.to_writer.is_empty() || !self.to_reader.is_empty()
    }

    fn end(mut self) {
        self.model.heal();
        self.come_to_rest();
        if !self.stopping {
            self.check_gauges(&["subscribers_lagging"]);
            (0..CLIENTS).for_each(|client| self.lose(client));
            self.come_to_rest();
            self.check_gauges(&["subscribers", "queued_bytes", "bodies_bytes", "filters_bytes"]);
            (0..requests::STORAGES).for_each(|storage| self.check_storage(storage));
            self.stop();
        }
        if self.milliseconds.is_multiple_of(2) {
            (0..CLIENTS).for_each(|client| self.lose(client));
        } else if !self.finished {
            self.pass(config::STOP_TIMEOUT);
        }
        assert!(self.finished, "a stop comes to its end");
    }

    /// At rest nothing is under way; `others` are gauges that are 0 as well.
    fn check_gauges(&mut self, others: &[&str]) {
        let Some(text) = self.ask("/metrics") else { return };
        const ALWAYS: [&str; 7] = [
            "appends_in_flight",
            "subscriptions_in_flight",
            "streams_leaving",
            "pings_in_flight",
            "reads_in_flight",
            "reads_waiting",
            "scans",
        ];
        for gauge in ALWAYS.iter().chain(others) {
            assert!(text.contains(&format!("\nrill_{gauge} 0\n")), "{gauge} in {text}");
        }
    }

    fn check_storage(&mut self, storage: u8) {
        let id = format!("s{storage}");
        let body = self.ask(&format!("/get?id={id}")).expect("everybody else is gone");
        let reply: Value = serde_json::from_str(&body).expect("a reply is JSON");
        let events = self.model.events();
        let expected: Vec<Value> = events
            .iter()
            .zip(1..)
            .filter(|(event, _)| event.id.as_str() == id)
            .map(|(event, seq)| json!({ "seq": seq, "value": event.value }))
            .collect();
        assert_eq!(reply["items"][0]["events"], json!(expected));
        assert_eq!(reply["items"][0]["count"], expected.len());
    }

    /// The body of a reply, if there is a client who can ask and is served.
    fn ask(&mut self, target: &str) -> Option<String> {
        let client = self.clients.iter().position(|client| client.is_none())?;
        let served = self.clients.iter().flatten().count() < CONNECTIONS_MAX;
        if !served {
            return None;
        }
        // To an HTTP/1.0 client a body is the rest of the connection.
        self.queue(client, format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes());
        self.send(client, usize::MAX);
        self.come_to_rest();
        let asked = self.clients[client].as_ref().expect("a reply lingers");
        let reply = String::from_utf8(asked.incoming.clone()).expect("replies are text");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply has a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let body = body.to_owned();
        self.lose(client);
        Some(body)
    }
}
