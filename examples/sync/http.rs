//! Owns HTTP/1.1 over std's `TcpStream`, as much as a client of rill needs: POST a JSON body, read
//! a reply of either framing, and count what it costs. No TLS, no redirects.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server that is silent for longer has gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes as they were on the wire, heads and framing included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) up_bytes: u64,
    pub(crate) down_bytes: u64,
    pub(crate) round_trips: u64,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Http {
    authority: String,
    /// Kept from request to request, for as long as the server keeps it.
    connection: Option<BufReader<TcpStream>>,
    pub(crate) traffic: Traffic,
}

impl Http {
    /// `http://HOST[:PORT]`, and no path. Connects when there is something to ask.
    pub(crate) fn new(url: &str) -> io::Result<Http> {
        let wrong = || io::Error::new(ErrorKind::InvalidInput, format!("{url}: not http://HOST"));
        let host = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(wrong());
        }
        let bracket = host.rfind(']').unwrap_or(0);
        let has_port = host[bracket..].contains(':');
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Http { authority, connection: None, traffic: Traffic::default() })
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> io::Result<Reply> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        // The server closes a connection that was idle for long. Every request may be repeated.
        if let Some(kept) = self.connection.take()
            && let Ok(reply) = self.exchange(kept, &request)
        {
            return Ok(reply);
        }
        self.exchange(connect(&self.authority)?, &request)
    }

    fn exchange(
        &mut self,
        mut connection: BufReader<TcpStream>,
        request: &str,
    ) -> io::Result<Reply> {
        self.traffic.up_bytes += request.len() as u64;
        self.traffic.round_trips += 1;
        connection.get_mut().write_all(request.as_bytes())?;
        let mut reading = Reading { connection: &mut connection, bytes: 0 };
        let (reply, keep) = reading.reply()?;
        self.traffic.down_bytes += reading.bytes;
        if keep {
            self.connection = Some(connection);
        }
        Ok(reply)
    }
}

fn connect(authority: &str) -> io::Result<BufReader<TcpStream>> {
    let socket = TcpStream::connect(authority)
        .map_err(|error| io::Error::new(error.kind(), format!("{authority}: {error}")))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(socket))
}

/// How a head says that its body ends.
enum Framing {
    Sized(u64),
    Chunked,
}

/// One reply, while it is read.
struct Reading<'a> {
    connection: &'a mut BufReader<TcpStream>,
    bytes: u64,
}

impl Reading<'_> {
    /// The reply, and whether the connection can be used again.
    fn reply(&mut self) -> io::Result<(Reply, bool)> {
        let line = self.line()?;
        let mut words = line.split(' ');
        let (version, status) = (words.next(), words.next().and_then(|word| word.parse().ok()));
        let (Some("HTTP/1.1"), Some(status)) = (version, status) else {
            return Err(malformed(&line));
        };
        let (mut framing, mut keep) = (None, true);
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            match (name.to_ascii_lowercase().as_str(), value.trim()) {
                ("content-length", digits) => framing = digits.parse().ok().map(Framing::Sized),
                ("transfer-encoding", "chunked") => framing = Some(Framing::Chunked),
                ("connection", value) => keep = !value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        let mut body = Vec::new();
        match framing.ok_or_else(|| malformed("a head that does not say where its body ends"))? {
            Framing::Sized(bytes) => self.take(bytes, &mut body)?,
            Framing::Chunked => self.chunks(&mut body)?,
        }
        Ok((Reply { status, body }, keep))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let bytes = u64::from_str_radix(digits, 16).map_err(|_| malformed(&line))?;
            if bytes > 0 {
                self.take(bytes, body)?;
            }
            let end = self.line()?;
            if !end.is_empty() {
                return Err(malformed(&end));
            }
            if bytes == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let taken = self.connection.by_ref().take(bytes).read_to_end(body)? as u64;
        self.bytes += taken;
        if taken < bytes { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.bytes += self.connection.read_line(&mut line)? as u64;
        let line = line.strip_suffix("\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        Ok(line.to_owned())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not an HTTP reply: {what}"))
}
