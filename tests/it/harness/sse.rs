//! Owns an SSE client: the decoder of WHATWG HTML 9.2.6, written from that text, and a stream that
//! feeds it from a connection. Keeps the bytes for tests of the wire form.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;

use super::http::{Body, Connection, Fault, Reply};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// "message" unless the stream names it.
    pub(crate) event: String,
    pub(crate) data: String,
    /// The last event ID as of this message.
    pub(crate) id: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("{error} in the data of {self:?}"))
    }

    pub(crate) fn seq(&self) -> u64 {
        self.json()["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {self:?}"))
    }
}

/// Bytes of any split → messages.
#[derive(Default)]
pub(crate) struct Decoder {
    begun: bool,
    /// The last byte was a CR, so that a LF now belongs to it.
    after_cr: bool,
    line: Vec<u8>,
    event: String,
    data: String,
    last_event_id: String,
    /// Every `retry:` so far, the newest last.
    pub(crate) retries: Vec<u64>,
    pub(crate) comments: usize,
    messages: VecDeque<Message>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let ends_crlf = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            match byte {
                _ if ends_crlf => {}
                b'\r' | b'\n' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let line = if self.begun { &*text } else { text.strip_prefix('\u{feff}').unwrap_or(&text) };
        self.begun = true;
        if line.is_empty() {
            self.dispatch();
        } else if line.starts_with(':') {
            self.comments += 1;
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            self.field(name, value.strip_prefix(' ').unwrap_or(value));
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retries.extend(value.parse::<u64>());
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        self.messages.push_back(Message { event, data, id: self.last_event_id.clone() });
    }

    pub(crate) fn next(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }
}

/// A stream that the server answered with.
pub(crate) struct Stream {
    pub(crate) head: Reply,
    pub(crate) decoder: Decoder,
    connection: Connection,
    body: Body,
    /// Every byte of the body, while `keep`.
    pub(crate) wire: Vec<u8>,
    keep: bool,
}

impl Stream {
    pub(crate) fn open(address: SocketAddr, target: &str, fields: &[&str]) -> Stream {
        Stream::open_over(Connection::open(address), target, fields)
    }

    pub(crate) fn open_over(mut connection: Connection, target: &str, fields: &[&str]) -> Stream {
        let fields = [&["Accept: text/event-stream"], fields].concat();
        connection.send_request("GET", target, &fields, b"");
        Stream::begin(connection)
    }

    pub(crate) fn post_over(mut connection: Connection, body: &str, fields: &[&str]) -> Stream {
        let fields = [&["Accept: text/event-stream"], fields].concat();
        connection.send_request("POST", "/get", &fields, body.as_bytes());
        Stream::begin(connection)
    }

    /// Reads the head of a stream that was asked for.
    pub(crate) fn begin(mut connection: Connection) -> Stream {
        let (head, body) = connection
            .try_head(false)
            .unwrap_or_else(|fault| panic!("no head of a stream: {fault:?}"));
        assert_eq!(head.status, 200, "{:?}", head.fields);
        assert_eq!(head.field("content-type"), "text/event-stream");
        let (decoder, wire) = (Decoder::default(), Vec::new());
        Stream { head, decoder, connection, body, wire, keep: true }
    }

    /// Stops keeping the bytes, for long streams.
    pub(crate) fn forget_wire(&mut self) {
        self.keep = false;
        self.wire = Vec::new();
    }

    /// The next message, `None` where the body ends as its framing says.
    pub(crate) fn try_next(&mut self) -> Result<Option<Message>, Fault> {
        loop {
            if let Some(message) = self.decoder.next() {
                return Ok(Some(message));
            }
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    /// Decodes what comes next; false at the end of the body.
    pub(crate) fn read_more(&mut self) -> Result<bool, Fault> {
        let Some(piece) = self.connection.try_piece(&mut self.body)? else {
            return Ok(false);
        };
        self.decoder.push(&piece);
        if self.keep {
            self.wire.extend_from_slice(&piece);
        }
        Ok(true)
    }

    pub(crate) fn next(&mut self) -> Message {
        match self.try_next() {
            Ok(Some(message)) => message,
            Ok(None) => panic!("the stream ended"),
            Err(fault) => panic!("the stream broke off: {fault:?}"),
        }
    }

    /// Messages up to and with `synced`, which is returned beside those before it.
    pub(crate) fn until_synced(&mut self) -> (Vec<Message>, Message) {
        let mut before = Vec::new();
        loop {
            let message = self.next();
            if message.event == "synced" {
                return (before, message);
            }
            before.push(message);
        }
    }

    /// Every message up to the end, which must be as the framing says.
    pub(crate) fn until_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(fault) => panic!("the stream broke off: {fault:?}"),
            }
        }
    }

    /// Waits for the server's close of the connection.
    pub(crate) fn until_close(&mut self) -> Result<Vec<u8>, Fault> {
        self.connection.until_close()
    }
}

fn check(stream: &[u8], expected: &[(&str, &str, &str)]) {
    let expected: Vec<Message> = expected
        .iter()
        .map(|&(event, data, id)| Message { event: event.into(), data: data.into(), id: id.into() })
        .collect();
    for piece in 1..=stream.len() {
        let mut decoder = Decoder::default();
        stream.chunks(piece).for_each(|piece| decoder.push(piece));
        let messages: Vec<Message> = std::iter::from_fn(|| decoder.next()).collect();
        assert_eq!(messages, expected, "{:?} by {piece}", String::from_utf8_lossy(stream));
    }
}

#[test]
fn the_decoder_does_as_the_standard_says() {
    check(b"data: a\n\n", &[("message", "a", "")]);
    check(b"data:a\r\rdata:  b\r\n\r\n", &[("message", "a", ""), ("message", " b", "")]);
    check("\u{feff}data: a\n\n".as_bytes(), &[("message", "a", "")]);
    check("data: a\n\n\u{feff}data: b\n\n".as_bytes(), &[("message", "a", "")]);
    check(b"data: a\ndata\ndata: b\n\n", &[("message", "a\n\nb", "")]);
    check(b"data\n\ndata\ndata\n\ndata:", &[("message", "", ""), ("message", "\n", "")]);
    check(b"event: x\ndata: a\n\ndata: b\n\n", &[("x", "a", ""), ("message", "b", "")]);
    check(b"event: x\n\ndata: b\n\n", &[("message", "b", "")]);
    check(b"id: 1\ndata: a\n\ndata: b\n\n", &[("message", "a", "1"), ("message", "b", "1")]);
    check(b"id: 1\n\nid\ndata: a\n\n", &[("message", "a", "")]);
    check(b"id: 1\n\ndata: a\n\n", &[("message", "a", "1")]);
    check(b"id: 1\nid: 2\x003\ndata: a\n\n", &[("message", "a", "1")]);
    check(b": c\n:\ndata: a\n:\ndata: b\n\n", &[("message", "a\nb", "")]);
    check(b"retry: 20\nnothing: x\n\ndata: a\n\n", &[("message", "a", "")]);
    check(b"data: not dispatched at the end\n", &[]);
    let mut decoder = Decoder::default();
    decoder.push(b"retry: 20\nretry: 3x\nretry:\n:\n: x\nretry: 40\n");
    assert_eq!((decoder.retries, decoder.comments), (vec![20, 40], 2));
}
