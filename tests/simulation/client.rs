//! Owns the simulated clients: what each sends, and what it makes of the bytes that come back. A
//! client checks what it alone can see: an order, a repeat, a reply that nobody asked for.

use std::collections::VecDeque;

use rill::event::Seq;

use super::Random;

pub(crate) const STORAGES: u64 = 5;
/// Requests that a reader sends before it has the reply to the first.
const PIPELINED_MAX: usize = 4;

/// What a client does over its connections.
#[derive(Debug)]
pub(crate) enum Role {
    Appender(Appender),
    Subscriber(Subscriber),
    Reader(Reader),
}

/// One client and its connection, if it has one.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) role: Role,
    pub(crate) connection: Option<u32>,
    /// Bytes on their way to the server.
    pub(crate) outgoing: Vec<u8>,
    /// It ended its side, to read on.
    pub(crate) sending_ended: bool,
    /// When it last took what there was.
    pub(crate) read_at: u64,
    incoming: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Appender {
    /// What the request that is under way asks for: storage and values.
    pub(crate) asked: Option<(u64, Vec<String>)>,
    /// What was acknowledged: storage, value, `seq`.
    pub(crate) acknowledged: Vec<(u64, String, Seq)>,
    pub(crate) refused: u64,
    values: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Subscriber {
    pub(crate) storages: Vec<u64>,
    /// What came, in order: `seq`, storage, value.
    pub(crate) events: Vec<(Seq, String, String)>,
    pub(crate) last_event_id: String,
    pub(crate) synced: u32,
    body: Vec<u8>,
    head_seen: bool,
    pub(crate) ended: bool,
    event: (String, String, String),
}

/// Reads storages as JSON, again and again.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Of each request under way the storages that it names, and the newest event noticed before.
    asked: VecDeque<(Vec<u64>, Seq)>,
    /// Replies that nobody has checked yet.
    pub(crate) replies: Vec<Reply>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) storages: Vec<u64>,
    pub(crate) noticed_before: Seq,
    pub(crate) body: serde_json::Value,
}

impl Client {
    pub(crate) fn reader() -> Client {
        Client::new(Role::Reader(Reader::default()))
    }

    /// Whether it waits for a reply and has sent all that it takes.
    pub(crate) fn waits(&self) -> bool {
        let asked = match &self.role {
            Role::Appender(appender) => appender.asked.is_some(),
            Role::Reader(reader) => !reader.asked.is_empty(),
            Role::Subscriber(_) => false,
        };
        asked && self.outgoing.is_empty() && self.connection.is_some()
    }

    /// A reader begins a request, also behind others.
    pub(crate) fn begin_read(&mut self, noticed: Seq, random: &mut Random) {
        let Role::Reader(reader) = &mut self.role else { return };
        let busy = reader.asked.len() == PIPELINED_MAX || self.sending_ended;
        if busy || self.connection.is_none() {
            return;
        }
        let first = random.below(STORAGES);
        let storages =
            if random.one_in(3) { vec![first, (first + 1) % STORAGES] } else { vec![first] };
        let items: Vec<String> = storages.iter().map(|s| format!("items=s{s}")).collect();
        let request = format!("GET /get?{} HTTP/1.1\r\nHost: x\r\n\r\n", items.join("&"));
        self.outgoing.extend_from_slice(request.as_bytes());
        reader.asked.push_back((storages, noticed));
    }

    pub(crate) fn appender() -> Client {
        Client::new(Role::Appender(Appender::default()))
    }

    pub(crate) fn subscriber(random: &mut Random) -> Client {
        let storages: Vec<u64> = (0..STORAGES).filter(|_| random.one_in(2)).collect();
        let storages = if storages.is_empty() { vec![0] } else { storages };
        Client::new(Role::Subscriber(Subscriber { storages, ..Subscriber::default() }))
    }

    fn new(role: Role) -> Client {
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        Client { role, connection: None, outgoing, sending_ended: false, read_at: 0, incoming }
    }

    /// A connection was made: a subscriber asks at once.
    pub(crate) fn connected(&mut self, key: u32) {
        self.connection = Some(key);
        self.sending_ended = false;
        self.outgoing.clear();
        self.incoming.clear();
        if let Role::Subscriber(subscriber) = &mut self.role {
            subscriber.body.clear();
            subscriber.head_seen = false;
            subscriber.ended = false;
            subscriber.synced = 0;
            subscriber.event = Default::default();
            let items: Vec<String> =
                subscriber.storages.iter().map(|s| format!("items=s{s}")).collect();
            self.outgoing = format!(
                "GET /get?{} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\
                 Last-Event-ID: {}\r\n\r\n",
                items.join("&"),
                subscriber.last_event_id
            )
            .into_bytes();
        }
    }

    /// The connection is gone, and with it what was on its way.
    pub(crate) fn disconnected(&mut self) {
        self.connection = None;
        if let Role::Appender(appender) = &mut self.role {
            // Whether it was stored is not known: the values are asked for again later, or never.
            appender.asked = None;
        }
        if let Role::Reader(reader) = &mut self.role {
            reader.asked.clear();
        }
    }

    /// An appender without a request under way begins one.
    pub(crate) fn begin_append(&mut self, number: usize, random: &mut Random) {
        let Role::Appender(appender) = &mut self.role else { return };
        let busy = appender.asked.is_some() || self.sending_ended;
        if busy || self.connection.is_none() {
            return;
        }
        let storage = random.below(STORAGES);
        let count = if random.one_in(4) { 1 + random.below(6) } else { 1 };
        let values: Vec<String> = (0..count)
            .map(|_| {
                // Sometimes a value that was sent before.
                if !random.one_in(5) {
                    appender.values += 1;
                }
                let padding = match random.below(200) {
                    // More than is parsed on the loop, or than an entry of the hot cache takes.
                    0 => 70_000,
                    1..10 => 3_000,
                    _ => random.below(30) as usize,
                };
                format!("v{number}.{}{}", appender.values, "x".repeat(padding))
            })
            .collect();
        let body = if values.len() == 1 {
            serde_json::json!({ "value": values[0] })
        } else {
            serde_json::json!({ "values": values })
        }
        .to_string();
        self.outgoing.extend_from_slice(
            format!(
                "POST /set/s{storage} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        appender.asked = Some((storage, values));
    }

    /// Bytes came from the server.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        match &mut self.role {
            Role::Appender(appender) => appender.replies(&mut self.incoming),
            Role::Subscriber(subscriber) => subscriber.stream(&mut self.incoming),
            Role::Reader(reader) => reader.replies(&mut self.incoming),
        }
    }
}

impl Appender {
    fn replies(&mut self, incoming: &mut Vec<u8>) {
        let text = String::from_utf8(incoming.clone()).expect("replies are UTF-8");
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { return };
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .expect("every reply to an append has a length")
            .parse()
            .unwrap();
        if rest.len() < length {
            return;
        }
        let reply: serde_json::Value = serde_json::from_str(&rest[..length]).unwrap();
        incoming.drain(..head.len() + 4 + length);
        let (storage, values) = self.asked.take().expect("a reply follows a request");
        match &head[9..12] {
            "200" | "201" => {
                let places: Vec<Seq> = match reply["events"].as_array() {
                    Some(events) => events.iter().map(|e| e["seq"].as_u64().unwrap()).collect(),
                    None => vec![reply["seq"].as_u64().unwrap()],
                };
                assert_eq!(places.len(), values.len());
                let placed = values.into_iter().zip(places);
                self.acknowledged.extend(placed.map(|(value, seq)| (storage, value, seq)));
            }
            "408" | "503" | "507" => self.refused += 1,
            status => panic!("an append was answered {status}: {reply}"),
        }
    }
}

impl Reader {
    fn replies(&mut self, incoming: &mut Vec<u8>) {
        while self.reply(incoming) {}
    }

    /// Takes a reply, if it is whole.
    fn reply(&mut self, incoming: &mut Vec<u8>) -> bool {
        let Some(head) = incoming.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
        let text = String::from_utf8(incoming[..head].to_vec()).expect("heads are ASCII");
        let (body, used) = match text.lines().find_map(|l| l.strip_prefix("Content-Length: ")) {
            Some(length) => {
                let end = head + 4 + length.parse::<usize>().unwrap();
                let Some(body) = incoming.get(head + 4..end) else { return false };
                (body.to_vec(), end)
            }
            None => {
                let (mut body, mut used) = (Vec::new(), head + 4);
                loop {
                    let Some((chunk, length)) = whole_chunk(&incoming[used..]) else {
                        return false;
                    };
                    used += length;
                    if chunk.is_empty() {
                        break (body, used);
                    }
                    body.extend_from_slice(&chunk);
                }
            }
        };
        incoming.drain(..used);
        let Some((storages, noticed_before)) = self.asked.pop_front() else {
            assert!(text.starts_with("HTTP/1.1 408 "), "nobody asked: {text}");
            return false;
        };
        match &text[9..12] {
            "200" => {
                let body = serde_json::from_slice(&body).expect("a reply is JSON");
                self.replies.push(Reply { storages, noticed_before, body });
            }
            // The connection ends, and nothing behind it is answered.
            "408" => self.asked.clear(),
            "500" | "503" => {}
            status => panic!("a read was answered {status}"),
        }
        true
    }
}

impl Subscriber {
    /// Whether what came over the connection is a stream to its end, or nothing of one.
    pub(crate) fn is_whole(&self) -> bool {
        !self.head_seen || self.ended
    }

    fn stream(&mut self, incoming: &mut Vec<u8>) {
        if !self.head_seen {
            let Some(end) = incoming.windows(4).position(|w| w == b"\r\n\r\n") else { return };
            if incoming.starts_with(b"HTTP/1.1 408 ") {
                // The clock jumped while the request was on its way; the connection ends.
                return incoming.clear();
            }
            assert!(incoming.starts_with(b"HTTP/1.1 200 OK\r\n"));
            incoming.drain(..end + 4);
            self.head_seen = true;
        }
        while let Some((chunk, used)) = whole_chunk(incoming) {
            assert!(!self.ended, "nothing follows the last chunk");
            self.ended = chunk.is_empty();
            assert!(chunk.is_empty() || chunk.ends_with(b"\n"), "whole lines only");
            self.body.extend_from_slice(&chunk);
            incoming.drain(..used);
        }
        while let Some(end) = self.body.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.body.drain(..=end).collect();
            let line = String::from_utf8(line).expect("streams are UTF-8");
            self.line(line.trim_end_matches('\n'));
        }
    }

    fn line(&mut self, line: &str) {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name {
            "" => self.dispatch(),
            "event" => self.event.0 = value.to_owned(),
            "id" => self.event.1 = value.to_owned(),
            "data" => self.event.2 = value.to_owned(),
            ":" | "retry" => {}
            _ => panic!("a line that no stream has: {line:?}"),
        }
    }

    fn dispatch(&mut self) {
        let (name, id, data) = std::mem::take(&mut self.event);
        let data: serde_json::Value = serde_json::from_str(&data).expect("data is JSON");
        match name.as_str() {
            "" => {
                let seq = data["seq"].as_u64().unwrap();
                let last = self.events.last().map_or(0, |(seq, ..)| *seq);
                assert!(seq > last, "{seq} came after {last}");
                let text = |key: &str| data[key].as_str().unwrap().to_owned();
                self.events.push((seq, text("id"), text("value")));
            }
            "synced" => self.synced += 1,
            "reset" => panic!("this server gave every cursor out"),
            _ => panic!("an event of a name that no stream has: {name}"),
        }
        assert!(self.synced <= 1, "synced comes once a connection");
        self.last_event_id = id;
    }
}

/// The first chunk and its length with framing, if it is whole.
fn whole_chunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = bytes.windows(2).position(|w| w == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..line]).expect("a chunk size");
    let size = usize::from_str_radix(size, 16).expect("a chunk size");
    let end = line + 2 + size;
    let chunk = bytes.get(line + 2..end)?;
    assert_eq!(bytes.get(end..end + 2)?, b"\r\n", "a chunk ends with CRLF");
    Some((chunk.to_vec(), end + 2))
}
