//! Owns the simulated clients: one connection each at a time, what it sends, and what it makes of
//! the bytes that come back. Each checks every reply and event as it comes, against the record.

use rill::event::Seq;

use crate::random::Random;
use crate::record::Record;

mod appender;
mod http;
mod reader;
mod selects;
mod subscriber;

use appender::Appender;
use reader::Reader;
use subscriber::Subscriber;

/// What a client is judged by when it gets something.
pub(crate) struct View<'a> {
    pub(crate) record: &'a Record,
    /// The largest `seq` that the hub was told of.
    pub(crate) noticed: Seq,
    /// Reads, or commits, failed since the server started.
    pub(crate) reads_failed: bool,
    pub(crate) commits_failed: bool,
    /// There are more clients than connections.
    pub(crate) crowded: bool,
}

pub(crate) struct Client {
    role: Role,
    pub(crate) link: Link,
    /// Bytes on their way to the server.
    pub(crate) outgoing: Vec<u8>,
    /// It ended its side, to read on.
    pub(crate) sending_ended: bool,
    /// The server said that it answers nothing more.
    closing: bool,
    /// It reads nothing for so many of its turns.
    pub(crate) stalled: u32,
    /// Whatever the connection ends with now, it is nobody's fault.
    pub(crate) excused: bool,
    /// Of the server that it is connected to.
    epoch: String,
    incoming: Vec<u8>,
}

/// A client's end of its connection.
#[derive(Debug, PartialEq)]
pub(crate) enum Link {
    None,
    Open(u32),
    /// The server is gone; what it had sent before is still to be read.
    Ended(Vec<u8>),
}

enum Role {
    Appender(Appender),
    Subscriber(Box<Subscriber>),
    Reader(Reader),
}

impl Client {
    pub(crate) fn appender(number: u64) -> Client {
        Client::new(Role::Appender(Appender::new(number)))
    }

    pub(crate) fn subscriber() -> Client {
        Client::new(Role::Subscriber(Box::default()))
    }

    pub(crate) fn reader() -> Client {
        Client::new(Role::Reader(Reader::default()))
    }

    fn new(role: Role) -> Client {
        Client {
            role,
            link: Link::None,
            outgoing: Vec::new(),
            sending_ended: false,
            closing: false,
            stalled: 0,
            excused: false,
            epoch: String::new(),
            incoming: Vec::new(),
        }
    }

    /// A connection was made: a subscriber asks at once.
    pub(crate) fn connected(
        &mut self,
        key: u32,
        epoch: &str,
        view: &View<'_>,
        random: &mut Random,
    ) {
        self.link = Link::Open(key);
        self.sending_ended = false;
        self.closing = false;
        self.excused = false;
        self.epoch = epoch.to_owned();
        self.outgoing.clear();
        self.incoming.clear();
        match &mut self.role {
            Role::Appender(appender) => self.outgoing = appender.again(),
            Role::Subscriber(subscriber) => self.outgoing = subscriber.open(view, random),
            Role::Reader(_) => {}
        }
    }

    /// Whether it waits for a reply and has sent all that it takes.
    pub(crate) fn waits(&self) -> bool {
        let asked = match &self.role {
            Role::Appender(appender) => appender.waits,
            Role::Reader(reader) => reader.is_busy(),
            Role::Subscriber(_) => false,
        };
        asked && self.outgoing.is_empty()
    }

    /// Whether there is something that it asks for.
    pub(crate) fn is_busy(&self) -> bool {
        match &self.role {
            Role::Appender(appender) => appender.is_busy(),
            Role::Reader(reader) => reader.is_busy(),
            Role::Subscriber(_) => false,
        }
    }

    pub(crate) fn is_subscriber(&self) -> bool {
        matches!(self.role, Role::Subscriber(_))
    }

    /// Begins a request, if it makes any and has a place for it.
    pub(crate) fn begin(&mut self, view: &View<'_>, random: &mut Random) {
        if self.sending_ended || self.closing || !matches!(self.link, Link::Open(_)) {
            return;
        }
        let request = match &mut self.role {
            Role::Appender(appender) => appender.begin(random),
            Role::Reader(reader) => reader.begin(view, &self.epoch, random),
            Role::Subscriber(_) => None,
        };
        self.outgoing.extend(request.into_iter().flatten());
    }

    /// Bytes came from the server.
    pub(crate) fn receive(&mut self, bytes: &[u8], view: &View<'_>) {
        self.incoming.extend_from_slice(bytes);
        let incoming = &mut self.incoming;
        self.closing |= match &mut self.role {
            Role::Appender(appender) => appender.replies(incoming, view),
            Role::Reader(reader) => reader.replies(incoming, &self.epoch, view),
            Role::Subscriber(subscriber) => {
                subscriber.stream(incoming, &self.epoch, view);
                false
            }
        };
    }

    /// The connection is over, at its end or within something.
    pub(crate) fn disconnected(&mut self) {
        if !self.excused {
            assert!(!self.waits(), "no request stays unanswered");
            if let Role::Subscriber(subscriber) = &self.role {
                assert!(subscriber.is_whole() && self.incoming.is_empty(), "a stream ends whole");
            }
        }
        self.link = Link::None;
        self.outgoing.clear();
        match &mut self.role {
            Role::Reader(reader) => reader.disconnected(),
            Role::Appender(_) | Role::Subscriber(_) => {}
        }
    }

    /// Whether it has everything that it will ever get while nothing is appended.
    pub(crate) fn is_settled(&self, record: &Record) -> bool {
        match &self.role {
            Role::Subscriber(subscriber) => {
                matches!(self.link, Link::Open(_)) && subscriber.has_all(record)
            }
            Role::Appender(_) | Role::Reader(_) => self.outgoing.is_empty() && !self.is_busy(),
        }
    }

    /// How much it got that was checked.
    pub(crate) fn achieved(&self) -> u64 {
        match &self.role {
            Role::Appender(appender) => appender.acknowledged,
            Role::Reader(reader) => reader.checked,
            Role::Subscriber(subscriber) => subscriber.delivered,
        }
    }
}
