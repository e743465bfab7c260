//! Owns the simulated clients: what each sends, and what it makes of the bytes that come back. A
//! client checks what it alone can see: an order, a repeat, a reply that nobody asked for.

use rill::event::Seq;

use super::Random;

pub(crate) const STORAGES: u64 = 5;

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
    /// The storages that the request under way names, and the newest event noticed before it.
    asked: Option<(Vec<u64>, Seq)>,
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

    /// A reader without a request under way begins one.
    pub(crate) fn begin_read(&mut self, noticed: Seq, random: &mut Random) {
        let Role::Reader(reader) = &mut self.role else { return };
        if reader.asked.is_some() || self.connection.is_none() {
            return;
        }
        let first = random.below(STORAGES);
        let storages =
            if random.one_in(3) { vec![first, (first + 1) % STORAGES] } else { vec![first] };
        let items: Vec<String> = storages.iter().map(|s| format!("items=s{s}")).collect();
        let request = format!("GET /get?{} HTTP/1.1\r\nHost: x\r\n\r\n", items.join("&"));
        self.outgoing.extend_from_slice(request.as_bytes());
        reader.asked = Some((storages, noticed));
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
        Client { role, connection: None, outgoing: Vec::new(), incoming: Vec::new() }
    }

    /// A connection was made: a subscriber asks at once.
    pub(crate) fn connected(&mut self, key: u32) {
        self.connection = Some(key);
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
            reader.asked = None;
        }
    }

    /// An appender without a request under way begins one.
    pub(crate) fn begin_append(&mut self, number: usize, random: &mut Random) {
        let Role::Appender(appender) = &mut self.role else { return };
        if appender.asked.is_some() || self.connection.is_none() {
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
                let padding = if random.one_in(20) { 3_000 } else { random.below(30) as usize };
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
        let Some(head) = incoming.windows(4).position(|w| w == b"\r\n\r\n") else { return };
        let text = String::from_utf8(incoming[..head].to_vec()).expect("heads are ASCII");
        let (body, used) = match text.lines().find_map(|l| l.strip_prefix("Content-Length: ")) {
            Some(length) => {
                let end = head + 4 + length.parse::<usize>().unwrap();
                let Some(body) = incoming.get(head + 4..end) else { return };
                (body.to_vec(), end)
            }
            None => {
                let (mut body, mut used) = (Vec::new(), head + 4);
                loop {
                    let Some((chunk, length)) = whole_chunk(&incoming[used..]) else { return };
                    used += length;
                    if chunk.is_empty() {
                        break (body, used);
                    }
                    body.extend_from_slice(&chunk);
                }
            }
        };
        incoming.drain(..used);
        let Some((storages, noticed_before)) = self.asked.take() else {
            return assert!(text.starts_with("HTTP/1.1 408 "), "nobody asked: {text}");
        };
        match &text[9..12] {
            "200" => {
                let body = serde_json::from_slice(&body).expect("a reply is JSON");
                self.replies.push(Reply { storages, noticed_before, body });
            }
            "408" | "500" | "503" => {}
            status => panic!("a read was answered {status}"),
        }
    }
}

impl Subscriber {
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
