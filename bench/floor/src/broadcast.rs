//! Owns the floor under a broadcast: one bare `write` a subscriber. A GET makes a connection a
//! subscriber, a POST goes to all of them. It takes a request for what one read brings, which is
//! right for `load` on one machine and for nothing else. Called by `main`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: floor\n\n";
const STORED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

#[derive(Debug)]
struct Server {
    poll: Poll,
    connections: Vec<Option<TcpStream>>,
    subscribers: Vec<usize>,
    buffer: Vec<u8>,
}

pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    let mut server = Server {
        poll: Poll::new()?,
        connections: Vec::new(),
        subscribers: Vec::new(),
        buffer: vec![0; 64 * 1024],
    };
    let mut listener = TcpListener::bind(address)?;
    server.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    loop {
        server.poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener)?,
                Token(place) => server.read(place)?,
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let token = Token(self.connections.len());
                    self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    self.connections.push(Some(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self, place: usize) -> io::Result<()> {
        let Some(stream) = &mut self.connections[place] else { return Ok(()) };
        match stream.read(&mut self.buffer) {
            Ok(0) => self.close(place),
            Ok(bytes) if self.buffer[0] == b'P' => {
                self.publish(bytes)?;
                let publisher = self.connections[place].as_mut().expect("it was read from");
                publisher.write_all(STORED)?;
            }
            Ok(_) => {
                stream.write_all(STREAM_HEAD)?;
                self.subscribers.push(place);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.close(place),
        }
        Ok(())
    }

    fn close(&mut self, place: usize) {
        self.connections[place] = None;
        self.subscribers.retain(|subscriber| *subscriber != place);
    }

    /// Fails where a subscriber's socket is full: a floor has no queues.
    fn publish(&mut self, bytes: usize) -> io::Result<()> {
        let request = &self.buffer[..bytes];
        let head = memmem::find(request, b"\r\n\r\n").ok_or(ErrorKind::InvalidData)?;
        let message = [b"data: ", &request[head + 4..], b"\n\n"].concat();
        for subscriber in &self.subscribers {
            let stream = self.connections[*subscriber].as_mut().expect("closed ones were removed");
            stream.write_all(&message)?;
        }
        Ok(())
    }
}
