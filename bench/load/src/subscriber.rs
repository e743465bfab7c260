//! Owns one event stream: reads it, finds the marks in it, and remembers what came in which order.
//! Called by `run`.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use memchr::{memchr, memmem};
use mio::net::TcpStream;

use crate::dialect::{Dialect, MARK_DIGITS};

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) stream: TcpStream,
    pub(crate) storage: usize,
    state: State,
    /// Messages received.
    pub(crate) count: u64,
    /// Folds the numbers received in their order: two streams of one storage that got the same
    /// messages in the same order have the same.
    pub(crate) order: u64,
}

#[derive(Debug)]
enum State {
    /// Head and history, until the stream says that it is live.
    Opening(Vec<u8>),
    Between,
    InMark {
        number: u64,
        digits: usize,
    },
}

impl Subscriber {
    pub(crate) fn open(
        dialect: Dialect,
        address: SocketAddr,
        storage: usize,
        name: &str,
    ) -> Result<Subscriber, String> {
        let failed = |error| format!("a subscriber: {error}");
        let mut stream = std::net::TcpStream::connect(address).map_err(failed)?;
        stream.write_all(&dialect.subscribe(name)).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = TcpStream::from_std(stream);
        Ok(Subscriber { stream, storage, state: State::Opening(Vec::new()), count: 0, order: 0 })
    }

    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.state, State::Opening(_))
    }

    /// Reads what is there and gives every number found to `received`.
    pub(crate) fn read(
        &mut self,
        dialect: Dialect,
        buffer: &mut [u8],
        mut received: impl FnMut(u64),
    ) -> Result<(), String> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err("a stream was closed".to_owned()),
                Ok(bytes) => {
                    self.take(dialect, &buffer[..bytes], &mut received)?;
                    // The rest of the socket is empty: more of it is a new readiness.
                    if bytes < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a stream: {error}")),
            }
        }
    }

    fn take(
        &mut self,
        dialect: Dialect,
        bytes: &[u8],
        received: &mut impl FnMut(u64),
    ) -> Result<(), String> {
        let State::Opening(start) = &mut self.state else {
            return self.scan(bytes, received);
        };
        start.extend_from_slice(bytes);
        if start.len() >= 12 && &start[9..12] != b"200" {
            return Err(format!("a stream was answered {}", String::from_utf8_lossy(start)));
        }
        if let Some(found) = memmem::find(start, dialect.ready()) {
            let rest = start.split_off(found + dialect.ready().len());
            self.state = State::Between;
            self.scan(&rest, received)?;
        }
        Ok(())
    }

    fn scan(&mut self, mut bytes: &[u8], received: &mut impl FnMut(u64)) -> Result<(), String> {
        loop {
            match self.state {
                State::Opening(_) => unreachable!("only a live stream is scanned"),
                State::Between => {
                    let Some(at) = memchr(b'~', bytes) else { return Ok(()) };
                    bytes = &bytes[at + 1..];
                    self.state = State::InMark { number: 0, digits: 0 };
                }
                State::InMark { number, digits } => {
                    let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
                    bytes = rest;
                    self.state = match byte {
                        b'0'..=b'9' if digits < MARK_DIGITS => State::InMark {
                            number: number * 10 + u64::from(byte - b'0'),
                            digits: digits + 1,
                        },
                        b'~' if digits == MARK_DIGITS => {
                            self.count += 1;
                            self.order = self.order.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
                            received(number);
                            State::Between
                        }
                        _ => return Err("a mark was torn".to_owned()),
                    };
                }
            }
        }
    }
}
