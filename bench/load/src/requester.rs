//! Owns one keep-alive connection that appends: at most one request in flight, every reply checked.
//! Called by `run`.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use crate::dialect::{Append, Dialect};

#[derive(Debug)]
pub(crate) struct Requester {
    pub(crate) stream: TcpStream,
    state: State,
    out: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Waiting { since: Instant, replies: usize },
}

impl Requester {
    pub(crate) fn open(address: SocketAddr) -> Result<Requester, String> {
        let failed = |error| format!("a connection: {error}");
        let stream = std::net::TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = TcpStream::from_std(stream);
        let state = State::Idle;
        Ok(Requester { stream, state, out: Vec::new(), written: 0, inbox: Vec::new() })
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    pub(crate) fn start(
        &mut self,
        dialect: Dialect,
        append: &Append<'_>,
        since: Instant,
    ) -> Result<(), String> {
        assert!(self.is_idle(), "one request at a time");
        self.out.clear();
        self.written = 0;
        dialect.append(&mut self.out, append);
        self.state = State::Waiting { since, replies: dialect.replies(append) };
        self.write()
    }

    pub(crate) fn write(&mut self) -> Result<(), String> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a connection: {error}")),
            }
        }
        Ok(())
    }

    /// Reads what is there; when the request was answered in full, since when it had been waiting.
    pub(crate) fn read(
        &mut self,
        dialect: Dialect,
        buffer: &mut [u8],
    ) -> Result<Option<Instant>, String> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err("a connection was closed".to_owned()),
                Ok(bytes) => {
                    self.inbox.extend_from_slice(&buffer[..bytes]);
                    if bytes < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a connection: {error}")),
            }
        }
        self.answered(dialect)
    }

    fn answered(&mut self, dialect: Dialect) -> Result<Option<Instant>, String> {
        let mut taken = 0;
        while let State::Waiting { since, replies } = self.state {
            let Some(length) = dialect.reply(&self.inbox[taken..])? else { break };
            taken += length;
            if replies > 1 {
                self.state = State::Waiting { since, replies: replies - 1 };
                continue;
            }
            self.state = State::Idle;
            if taken < self.inbox.len() {
                return Err("more than one reply to a request".to_owned());
            }
            self.inbox.clear();
            return Ok(Some(since));
        }
        self.inbox.drain(..taken);
        Ok(None)
    }
}
