//! Owns an SSE client: a stream that feeds the decoder from a connection. Keeps the bytes for tests
//! of the wire form.

use std::net::SocketAddr;

use super::decoder::{Decoder, Message};
use super::http::{Body, Connection, Fault, Reply};

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
    pub(crate) fn begin(connection: Connection) -> Stream {
        Stream::try_begin(connection)
            .unwrap_or_else(|fault| panic!("no head of a stream: {fault:?}"))
    }

    pub(crate) fn try_begin(mut connection: Connection) -> Result<Stream, Fault> {
        let (head, body) = connection.try_head(false)?;
        assert_eq!(head.status, 200, "{:?}", head.fields);
        assert_eq!(head.field("content-type"), "text/event-stream");
        let (decoder, wire) = (Decoder::default(), Vec::new());
        Ok(Stream { head, decoder, connection, body, wire, keep: true })
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
