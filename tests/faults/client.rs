//! Owns a client that meets faults: it appends, reads and follows a server whose calls fail, notes
//! what it is told, and tells a refusal from a server that is gone. Judges what it sees at once:
//! a failure is a problem reply that says so, and what comes is whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Connection, Fault, Reply, Stream};
use crate::told::{Event, Told};

/// A fault that happens once is over when what met it is tried again; a page may meet one in each
/// of the store's threads.
const TRIES: usize = 4;

/// The server ended: nobody accepts, or a connection was closed without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// How one append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Stored,
    /// 507: nothing was stored.
    Full,
    /// 500: whether it was stored is not known.
    Failed,
}

pub(crate) struct Client {
    address: SocketAddr,
    storages: Vec<String>,
    pub(crate) told: Told,
    stream: Option<Stream>,
    last_event_id: String,
    /// The `seq`s the stream showed, in the order they came.
    followed: Vec<u64>,
}

impl Client {
    /// Over these storages, of which nothing was read yet.
    pub(crate) fn new(address: SocketAddr, storages: &[&str]) -> Client {
        Client {
            address,
            storages: storages.iter().map(|&id| id.to_owned()).collect(),
            told: Told::default(),
            stream: None,
            last_event_id: "0".to_owned(),
            followed: Vec::new(),
        }
    }

    fn target(&self) -> String {
        let items: Vec<String> = self.storages.iter().map(|id| format!("items={id}")).collect();
        format!("/get?{}", items.join("&"))
    }

    /// What was told of the storages that are read and followed.
    fn selected(&self) -> impl DoubleEndedIterator<Item = (&u64, &Event)> {
        self.told.events.iter().filter(|(_, (id, _))| self.storages.contains(id))
    }

    pub(crate) fn connect(&self) -> Result<Connection, Gone> {
        Connection::try_open(self.address).ok_or(Gone)
    }

    pub(crate) fn append(&mut self, id: &str, values: &[String]) -> Result<Answer, Gone> {
        let body = json!({ "values": values }).to_string();
        let mut connection = self.connect()?;
        connection.send_request("POST", &format!("/set/{id}"), &[], body.as_bytes());
        let reply = match connection.try_reply(false) {
            Ok(reply) => reply,
            Err(Fault::Closed) => return Err(Gone),
            Err(fault) => panic!("an append was answered with {fault:?}"),
        };
        if ![200, 201].contains(&reply.status) {
            check_problem(&reply);
            if reply.status == 500 {
                return Ok(Answer::Failed);
            }
            let refused = values.iter().map(|value| (id.to_owned(), value.clone()));
            self.told.refused.extend(refused);
            return Ok(Answer::Full);
        }
        let reply = reply.json();
        let events = reply["events"].as_array().expect("an append names its events");
        assert_eq!(events.len(), values.len());
        for (event, value) in events.iter().zip(values) {
            self.told.tell(event["seq"].as_u64().expect("a number"), id, value);
        }
        Ok(Answer::Stored)
    }

    /// Appends until it is stored.
    pub(crate) fn append_at_last(&mut self, id: &str, values: &[String]) -> Result<(), Gone> {
        let mut answers = Vec::new();
        for _ in 0..TRIES {
            answers.push(self.append(id, values)?);
            if answers.ends_with(&[Answer::Stored]) {
                return Ok(());
            }
        }
        panic!("a fault that was over was met again: {answers:?}");
    }

    /// Reads all storages; `None` where the read failed, and said so.
    pub(crate) fn try_read(&mut self) -> Result<Option<Value>, Gone> {
        let mut connection = self.connect()?;
        connection.send_request("GET", &self.target(), &[], b"");
        let (mut reply, mut body) = match connection.try_head(false) {
            Ok(head) => head,
            Err(Fault::Closed) => return Err(Gone),
            Err(fault) => panic!("a read was answered with {fault:?}"),
        };
        loop {
            match connection.try_piece(&mut body) {
                Ok(Some(piece)) => reply.body.extend(piece),
                Ok(None) => break,
                // The store failed after the head was sent, or the server is gone.
                Err(Fault::Closed) => return Ok(None),
                Err(fault) => panic!("a read broke off with {fault:?}"),
            }
        }
        if reply.status != 200 {
            check_problem(&reply);
            return Ok(None);
        }
        Ok(Some(reply.json()))
    }

    /// Reads until a read succeeds, which must show everything that was told before.
    pub(crate) fn read_at_last(&mut self) -> Result<(), Gone> {
        for _ in 0..TRIES {
            if let Some(reply) = self.try_read()? {
                self.check_read(&reply);
                return Ok(());
            }
        }
        panic!("a fault that was over was met again");
    }

    fn check_read(&mut self, reply: &Value) {
        assert_eq!(reply["more"], false);
        let cursor = reply["cursor"].as_str().expect("a string");
        self.told.tell_cursor(cursor);
        let mut read = BTreeMap::new();
        for item in reply["items"].as_array().expect("a reply has items") {
            let events = item["events"].as_array().expect("an item has events");
            assert_eq!(item["count"], events.len());
            for event in events {
                let text = |value: &Value| value.as_str().expect("a string").to_owned();
                let seq = event["seq"].as_u64().expect("a number");
                let event = (text(&item["id"]), text(&event["value"]));
                assert!(read.insert(seq, event).is_none(), "{seq} came twice");
            }
        }
        for (seq, event) in self.selected() {
            assert!(read.get(seq) == Some(event), "{seq} was told, and not read");
        }
        for (seq, (id, value)) in read {
            self.told.tell(seq, &id, &value);
        }
    }

    /// Opens the stream where it was left.
    fn follow(&mut self) -> Result<&mut Stream, Gone> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let mut connection = self.connect()?;
                let after = format!("Last-Event-ID: {}", self.last_event_id);
                let fields = ["Accept: text/event-stream", &after];
                connection.send_request("GET", &self.target(), &fields, b"");
                match Stream::try_begin(connection) {
                    Ok(stream) => stream,
                    Err(Fault::Closed) => return Err(Gone),
                    Err(fault) => panic!("a stream was answered with {fault:?}"),
                }
            }
        };
        Ok(self.stream.insert(stream))
    }

    /// Takes the stream's next event; a stream that breaks off is opened again.
    fn follow_one(&mut self) -> Result<(), Gone> {
        let mut breaks = 0;
        loop {
            let message = match self.follow()?.try_next() {
                Ok(Some(message)) => message,
                Ok(None) | Err(Fault::Closed) => {
                    breaks += 1;
                    assert!(breaks < TRIES, "a fault that was over was met again");
                    self.stream = None;
                    continue;
                }
                Err(fault) => panic!("a stream broke off with {fault:?}"),
            };
            assert_ne!(message.event, "reset");
            self.told.tell_cursor(&message.id);
            self.last_event_id.clone_from(&message.id);
            if message.event == "message" {
                let event = message.json();
                let text = |key: &str| event[key].as_str().expect("a string");
                self.told.tell(message.seq(), text("id"), text("value"));
                self.followed.push(message.seq());
                return Ok(());
            }
        }
    }

    /// Follows until the stream showed so many events.
    pub(crate) fn follow_events(&mut self, events: usize) -> Result<(), Gone> {
        while self.followed.len() < events {
            self.follow_one()?;
        }
        assert!(self.followed.is_sorted_by(|a, b| a < b), "each event once, in order");
        Ok(())
    }

    /// Follows until everything that was told was shown, once and in order.
    pub(crate) fn follow_to_the_last(&mut self) -> Result<(), Gone> {
        let last = self.selected().last().map_or(0, |(seq, _)| *seq);
        while self.followed.last().copied().unwrap_or(0) < last {
            self.follow_one()?;
        }
        let told: Vec<u64> = self.selected().map(|(seq, _)| *seq).collect();
        assert_eq!(self.followed, told, "each event once, in order");
        Ok(())
    }

    /// Asks for a metric until it is as it should be; whether it came to be, as a fault may put off
    /// the work that it shows. Meanwhile appends go on, without which some work is not looked for.
    pub(crate) fn append_until(
        &mut self,
        id: &str,
        bytes: usize,
        metric: &str,
        is: impl Fn(f64) -> bool,
    ) -> Result<bool, Gone> {
        const APPENDS: usize = 500;
        for number in 0..APPENDS {
            let value = format!("{number:06} ").repeat(bytes / 7 + 1);
            self.append_at_last(id, &[value])?;
            let mut connection = self.connect()?;
            connection.send_request("GET", "/metrics", &[], b"");
            let Ok(reply) = connection.try_reply(false) else { return Err(Gone) };
            let mut samples = reply.text().lines().filter_map(|line| line.rsplit_once(' '));
            let sample = samples.find(|sample| sample.0 == metric).expect("there is such a metric");
            if is(sample.1.parse().expect("a sample is a number")) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stops following: a server that stops waits a while for those who do not.
    pub(crate) fn leave(&mut self) {
        self.stream = None;
    }
}

fn check_problem(reply: &Reply) {
    assert!([500, 507].contains(&reply.status), "{}: {}", reply.status, reply.text());
    assert_eq!(reply.field("content-type"), "application/problem+json");
    assert_eq!(reply.json()["status"], reply.status);
    assert!(reply.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}
