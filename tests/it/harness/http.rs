//! Owns a raw HTTP/1.1 client: sends any bytes, reads replies by RFC 9112, one connection each.
//! Judges nothing but the framing; says precisely what is wrong with it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// Why there is no reply, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The peer closed the connection, or reset it.
    Closed,
    /// Nothing came within the time given, and the connection is open.
    Silent,
    /// What came is not HTTP.
    Malformed(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The field's value, or "" without one; no field of ours comes twice.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        let value = values.next().map_or("", |(_, value)| value);
        assert!(values.next().is_none(), "{name} came twice: {:?}", self.fields);
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| {
            panic!("{error} in the body of {}: {:?}", self.status, self.text())
        })
    }
}

/// Where a reply's body ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes more.
    Sized(usize),
    /// So many bytes more of this chunk; its CRLF follows where `ending`.
    Chunked {
        left: usize,
        ending: bool,
    },
    UntilClose,
    Ended,
}

pub(crate) struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    /// Bytes of `received` that were taken.
    taken: usize,
    patience: Duration,
    read_bytes_max: usize,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).expect("the server accepts")
    }

    /// `None` where nobody accepts.
    pub(crate) fn try_open(address: SocketAddr) -> Option<Connection> {
        TcpStream::connect(address).ok().map(Connection::over)
    }

    /// One whose kernel takes little in advance.
    pub(crate) fn open_narrow(address: SocketAddr, receive_bytes: usize) -> Connection {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None);
        let socket = socket.expect("the system has sockets");
        socket.set_recv_buffer_size(receive_bytes).expect("a receive buffer can be set");
        socket.connect(&address.into()).expect("the server accepts");
        Connection::over(socket.into())
    }

    fn over(socket: TcpStream) -> Connection {
        socket.set_nodelay(true).expect("TCP has TCP_NODELAY");
        socket.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
        let (received, taken) = (Vec::new(), 0);
        Connection { socket, received, taken, patience: PATIENCE, read_bytes_max: 256 * 1024 }
    }

    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(crate) fn set_read_bytes_max(&mut self, bytes: usize) {
        self.read_bytes_max = bytes;
    }

    /// Sends bytes; those the peer no longer wants are lost, as on any connection that it closed.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    pub(crate) fn end_sending(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    pub(crate) fn send_request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[&str],
        body: &[u8],
    ) {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for field in fields {
            request.push_str(field);
            request.push_str("\r\n");
        }
        if !body.is_empty() || method == "POST" {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        self.send([request.as_bytes(), body].concat());
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[&str],
        body: &[u8],
    ) -> Reply {
        self.send_request(method, target, fields, body);
        match self.try_reply(method == "HEAD") {
            Ok(reply) => reply,
            Err(fault) => panic!("{method} {target} {fields:?}: {fault:?}"),
        }
    }

    pub(crate) fn get(&mut self, target: &str) -> Reply {
        self.request("GET", target, &[], b"")
    }

    pub(crate) fn post(&mut self, target: &str, body: &str) -> Reply {
        self.request("POST", target, &["Content-Type: application/json"], body.as_bytes())
    }

    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply(false).unwrap_or_else(|fault| panic!("no whole reply: {fault:?}"))
    }

    pub(crate) fn try_reply(&mut self, to_head: bool) -> Result<Reply, Fault> {
        let (mut reply, mut body) = self.try_head(to_head)?;
        while let Some(piece) = self.try_piece(&mut body)? {
            reply.body.extend_from_slice(&piece);
        }
        Ok(reply)
    }

    /// The head of a reply, and how its body is to be read.
    pub(crate) fn try_head(&mut self, to_head: bool) -> Result<(Reply, Body), Fault> {
        let mut scanned = 0;
        let end = loop {
            let unread = &self.received[self.taken..];
            if let Some(at) = find(&unread[scanned..], b"\r\n\r\n") {
                break scanned + at;
            }
            scanned = unread.len().saturating_sub(3);
            self.fill()?;
        };
        let head = self.received[self.taken..self.taken + end].to_vec();
        self.taken += end + 4;
        let reply = parse_head(&head)?;
        let body = if to_head { Body::Ended } else { framing(&reply)? };
        Ok((reply, body))
    }

    /// More of a body, as soon as it is there; `None` at its end.
    pub(crate) fn try_piece(&mut self, body: &mut Body) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            match *body {
                Body::Ended | Body::Sized(0) => {
                    *body = Body::Ended;
                    return Ok(None);
                }
                Body::Sized(left) => {
                    let piece = self.take(left)?;
                    *body = Body::Sized(left - piece.len());
                    return Ok(Some(piece));
                }
                Body::Chunked { left: 0, ending } => *body = self.next_chunk(ending)?,
                Body::Chunked { left, .. } => {
                    let piece = self.take(left)?;
                    *body = Body::Chunked { left: left - piece.len(), ending: true };
                    return Ok(Some(piece));
                }
                Body::UntilClose => match self.take(usize::MAX) {
                    Ok(piece) => return Ok(Some(piece)),
                    Err(Fault::Closed) => *body = Body::Ended,
                    Err(fault) => return Err(fault),
                },
            }
        }
    }

    /// The size line of the next chunk; the last one has no trailers of ours.
    fn next_chunk(&mut self, ending: bool) -> Result<Body, Fault> {
        if ending {
            self.expect_line("")?;
        }
        let line = self.line()?;
        let size = usize::from_str_radix(&line, 16)
            .map_err(|_| Fault::Malformed(format!("chunk size {line:?}")))?;
        if size == 0 {
            self.expect_line("")?;
            return Ok(Body::Ended);
        }
        Ok(Body::Chunked { left: size, ending: true })
    }

    fn expect_line(&mut self, expected: &str) -> Result<(), Fault> {
        let line = self.line()?;
        if line == expected { Ok(()) } else { Err(Fault::Malformed(format!("line {line:?}"))) }
    }

    fn line(&mut self) -> Result<String, Fault> {
        loop {
            let unread = &self.received[self.taken..];
            if let Some(end) = find(unread, b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.taken += end + 2;
                return Ok(line);
            }
            if unread.len() > 1024 {
                return Err(Fault::Malformed("a line without end".to_owned()));
            }
            self.fill()?;
        }
    }

    /// 1 to `most` bytes.
    fn take(&mut self, most: usize) -> Result<Vec<u8>, Fault> {
        while self.received.len() == self.taken {
            self.fill()?;
        }
        let unread = &self.received[self.taken..];
        let bytes = unread[..most.min(unread.len())].to_vec();
        self.taken += bytes.len();
        Ok(bytes)
    }

    fn fill(&mut self) -> Result<(), Fault> {
        self.received.drain(..self.taken);
        self.taken = 0;
        let before = self.received.len();
        self.socket.set_read_timeout(Some(self.patience)).expect("the time is not zero");
        self.received.resize(before + self.read_bytes_max, 0);
        let read = self.socket.read(&mut self.received[before..]);
        self.received.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Fault::Closed),
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Fault::Silent),
                ErrorKind::Interrupted => Ok(()),
                _ => Err(Fault::Closed),
            },
        }
    }

    /// Waits for the peer's close; what came before it.
    pub(crate) fn until_close(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(Fault::Closed) => return Ok(self.received[self.taken..].to_vec()),
                Err(fault) => return Err(fault),
            }
        }
    }
}

pub(crate) fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

fn parse_head(head: &[u8]) -> Result<Reply, Fault> {
    let malformed = |line: &str| Fault::Malformed(format!("head line {line:?}"));
    let head = std::str::from_utf8(head).map_err(|_| malformed("not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let (version, rest) = first.split_once(' ').ok_or_else(|| malformed(first))?;
    let digits = rest.split(' ').next().unwrap_or_default();
    let status = digits.parse().map_err(|_| malformed(first))?;
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") || digits.len() != 3 {
        return Err(malformed(first));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(line))?;
        if name.is_empty() || name.contains([' ', '\t']) || line.contains(['\r', '\n']) {
            return Err(malformed(line));
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Ok(Reply { status, fields, body: Vec::new() })
}

fn framing(reply: &Reply) -> Result<Body, Fault> {
    let coding = reply.field("transfer-encoding");
    let length = reply.field("content-length");
    if reply.status < 200 || matches!(reply.status, 204 | 304) {
        return match (coding, length) {
            ("", "") | ("", _) => Ok(Body::Ended),
            _ => Err(Fault::Malformed(format!("a {} with {coding:?}", reply.status))),
        };
    }
    match (coding, length) {
        ("chunked", "") => Ok(Body::Chunked { left: 0, ending: false }),
        ("", "") => Ok(Body::UntilClose),
        ("", digits) => digits
            .parse()
            .map(Body::Sized)
            .map_err(|_| Fault::Malformed(format!("Content-Length {digits:?}"))),
        _ => Err(Fault::Malformed(format!("length {length:?} with coding {coding:?}"))),
    }
}
