//! Owns the sockets and the one place where the event loop sleeps: a mio poll around the hub. It
//! moves bytes and messages and carries out the hub's effects; it decides nothing, and touches no
//! disk, no lock and no full queue. Called by `main`.
//!
//! Everything is edge-triggered: a socket is registered once, for both directions, and remembers
//! what it is known to be ready for. A write is tried first; readiness matters only for leftovers.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use signal_hook_mio::v1_0::Signals;

use crate::config;
use crate::hub::{Effect, Hub, Now};
use crate::index::Published;
use crate::message::{FromReader, FromWriter, ToReader, ToWriter};

mod socket;
mod work;

pub use socket::Foundation;
use work::{Connected, Work};

const WAKER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
/// Listeners count down from here, connections up from 0.
const LISTENERS: usize = usize::MAX - 2;
const EVENTS_CAPACITY: usize = 1_024;

/// The channels of the reactor's thread.
pub struct Channels {
    pub to_writer: Sender<ToWriter>,
    pub from_writer: Receiver<FromWriter>,
    pub to_readers: Sender<ToReader>,
    pub from_readers: Receiver<FromReader>,
}

pub struct Reactor {
    poll: Poll,
    listeners: Vec<TcpListener>,
    signals: Signals,
    /// By the hub's number of the connection.
    sockets: Vec<Option<Connected>>,
    hub: Hub,
    published: Published,
    channels: Channels,
    work: Work,
    origin: Instant,
    buffer: Vec<u8>,
    gathered: Vec<u8>,
}

impl Reactor {
    pub fn new(
        foundation: Foundation,
        hub: Hub,
        published: Published,
        channels: Channels,
    ) -> io::Result<Reactor> {
        let Foundation { poll, mut listeners, signals, .. } = foundation;
        for (number, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(LISTENERS - number), Interest::READABLE)?;
        }
        Ok(Reactor {
            poll,
            listeners,
            signals,
            sockets: Vec::new(),
            hub,
            published,
            channels,
            work: Work::default(),
            origin: Instant::now(),
            buffer: vec![0; config::READ_BUFFER_BYTES],
            gathered: vec![0; config::GATHERED_BYTES],
        })
    }

    /// Until the hub has finished after a signal.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_CAPACITY);
        while !self.work.finished {
            self.sleep(&mut events)?;
            let now = self.now();
            for event in &events {
                self.note(event);
            }
            self.turn(now);
        }
        Ok(())
    }

    /// The only place where the loop waits.
    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = if self.work.waits() {
            Some(Duration::ZERO)
        } else {
            let deadline = match (self.hub.deadline(), self.work.accept_after) {
                (Some(hub), Some(accept)) => Some(hub.min(accept)),
                (hub, accept) => hub.or(accept),
            };
            let now = self.now().milliseconds;
            // One more, as the clock is cut off to milliseconds and the poll may be early.
            deadline.map(|at| Duration::from_millis(at.saturating_sub(now) + 1))
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { milliseconds: self.origin.elapsed().as_millis() as u64, unix_seconds: unix.as_secs() }
    }

    /// Remembers what the poll saw.
    fn note(&mut self, event: &Event) {
        match event.token() {
            WAKER => self.work.messages = true,
            SIGNALS => self.work.signals = true,
            Token(number) if number > LISTENERS - config::LISTENERS_MAX => {
                self.work.accepting = true;
            }
            Token(key) => {
                let Some(Some(socket)) = self.sockets.get_mut(key) else { return };
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    socket.readable = true;
                    socket.read_closed |= event.is_read_closed() || event.is_error();
                    self.work.queue_read(key as u32, socket, self.hub.goes_on(key as u32));
                }
                if event.is_writable() {
                    socket.writable = true;
                    if !self.hub.outbox(key as u32).is_empty() {
                        self.work.queue_write(key as u32, socket);
                    }
                }
            }
        }
    }

    /// One turn: bounded work of every kind, and the effects of each before the next.
    fn turn(&mut self, now: Now) {
        if self.work.signals {
            self.take_signals(now);
        }
        self.accept(now);
        self.carry_out(now);
        let read = self.read_all(now);
        self.hand_over();
        if self.work.messages {
            self.take_messages(now);
            self.carry_out(now);
        }
        for _ in 0..self.work.resumes.len().min(config::TURN_RESUMES_MAX) {
            let Some(key) = self.work.resumes.pop_front() else { break };
            self.read(now, key);
            self.carry_out(now);
        }
        self.hub.tick(now);
        self.carry_out(now);
        for _ in 0..self.work.replies.len().min(config::TURN_FLUSHES_MAX) {
            let Some(key) = self.work.replies.pop_front() else { break };
            self.take_turn(now, key);
        }
        self.write_deliveries(now, read);
        self.carry_out(now);
        self.hand_over();
    }

    /// All that have something new. Where they are many, what was answered meanwhile is not left to
    /// wait for all of them: the readers wait for room for their answers. Returns how many they were.
    fn read_all(&mut self, now: Now) -> usize {
        let count = self.work.reads.len();
        let mut left = count;
        while left > 0 {
            let together = left.min(config::TURN_READS_TOGETHER);
            self.read_together(now, together);
            left -= together;
            if left > 0 {
                self.hand_over();
                self.take_messages(now);
                self.carry_out(now);
            }
        }
        count
    }

    /// First all of them are read from, then what came is taken in, then what that asks for is done:
    /// after a system call little of the code that follows is in the processor's caches.
    fn read_together(&mut self, now: Now, count: usize) {
        let mut received = [(0, 0); config::TURN_READS_TOGETHER];
        let (mut taken, mut end) = (0, 0);
        for _ in 0..count {
            let Some(key) = self.work.reads.pop_front() else { break };
            if let Some(length) = self.receive(now, key, end) {
                end += length;
                received[taken] = (key, end);
                taken += 1;
            }
        }
        let mut start = 0;
        for &(key, end) in &received[..taken] {
            self.take_in(now, key, start..end);
            start = end;
        }
        self.carry_out(now);
    }

    /// To as many streams as connections were read from, within limits: neither waits long for the
    /// other. What was committed meanwhile is taken before the next ones, which get both with one write.
    fn write_deliveries(&mut self, now: Now, read: usize) {
        let most = read.clamp(config::TURN_DELIVERIES_MIN, config::TURN_FLUSHES_MAX);
        for _ in 0..self.work.deliveries.len().min(most) {
            let Some(key) = self.work.deliveries.pop_front() else { break };
            self.take_turn(now, key);
        }
    }

    /// What one turn read goes to the writer together, so that it is committed together.
    fn hand_over(&mut self) {
        for message in self.work.to_writer.drain(..) {
            self.channels.to_writer.send(message).expect("the writer outlives the reactor");
        }
    }

    fn take_signals(&mut self, now: Now) {
        self.work.signals = false;
        for _ in self.signals.pending() {
            self.work.stop_signals += 1;
        }
        if self.work.stop_signals > 1 {
            log::warn!("a second signal: exiting at once");
            log::logger().flush();
            std::process::exit(1);
        }
        if self.work.stop_signals == 1 {
            log::info!("stopping");
            self.hub.stop(now);
        }
    }

    fn accept(&mut self, now: Now) {
        if self.work.accept_after.is_some_and(|at| at <= now.milliseconds) {
            self.work.accept_after = None;
        }
        if !self.work.accepting || self.work.accept_after.is_some() {
            return;
        }
        let mut left = config::TURN_ACCEPTS_MAX;
        for number in 0..self.listeners.len() {
            while left > 0 {
                match self.listeners[number].accept() {
                    Ok((stream, peer)) => self.connected(now, stream, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The peer was gone before it was accepted: that is its own business.
                    Err(error) if socket::is_the_peers(&error) => {}
                    Err(error) => {
                        log::warn!("accepting is put off: {error}");
                        self.work.accept_after = Some(now.milliseconds + config::ACCEPT_RETRY);
                        return;
                    }
                }
                left -= 1;
            }
        }
        self.work.accepting = left == 0;
    }

    fn connected(&mut self, now: Now, mut stream: TcpStream, peer: SocketAddr) {
        let Some(key) = self.hub.accept(now, Some(peer)) else { return };
        if let Err(error) = socket::prepare(&stream) {
            log::debug!("a new connection broke: {error}");
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(key as usize), interest);
        if self.sockets.len() <= key as usize {
            self.sockets.resize_with(key as usize + 1, || None);
        }
        let socket = self.sockets[key as usize].insert(Connected {
            stream,
            readable: true,
            writable: true,
            sends_much: false,
            read_closed: false,
            read_queued: false,
            write_queued: false,
            streams: false,
        });
        match registered {
            // The request is often there already.
            Ok(()) => self.work.queue_read(key, socket, false),
            Err(error) => {
                log::warn!("a new connection cannot be watched: {error}");
                self.hub.lost(key);
            }
        }
    }

    fn read(&mut self, now: Now, key: u32) {
        if let Some(length) = self.receive(now, key, 0) {
            self.take_in(now, key, 0..length);
        }
    }

    /// A connection's turn to be read from came, or to go on with what was read before. Returns how many
    /// bytes came, which stand in the buffer from `start` on.
    fn receive(&mut self, now: Now, key: u32, start: usize) -> Option<usize> {
        let Some(Some(socket)) = self.sockets.get_mut(key as usize) else { return None };
        socket.read_queued = false;
        if self.hub.go_on(now, key) || !socket.readable || !self.hub.wants_input(key) {
            return None;
        }
        let size =
            if socket.sends_much { config::TURN_BYTES_MAX } else { config::SMALL_READ_BYTES };
        match socket.stream.read(&mut self.buffer[start..start + size]) {
            Ok(0) => {
                socket.readable = false;
                self.hub.input_ended(now, key);
            }
            Ok(length) => {
                socket.sends_much = length == size;
                socket.readable = socket.sends_much || socket.read_closed;
                return Some(length);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.work.queue_read(key, socket, false);
            }
            Err(error) => {
                log::debug!("a connection broke: {error}");
                self.hub.lost(key);
            }
        }
        None
    }

    fn take_in(&mut self, now: Now, key: u32, range: Range<usize>) {
        self.hub.input(now, key, &self.buffer[range]);
        if let Some(Some(socket)) = self.sockets.get_mut(key as usize) {
            self.work.queue_read(key, socket, self.hub.goes_on(key));
        }
    }

    /// A connection's turn to be written to came.
    fn take_turn(&mut self, now: Now, key: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(key as usize) {
            socket.write_queued = false;
            self.write(now, key);
        }
    }

    /// Writes what the socket takes, up to a turn's share; with a place in the queue it had that.
    fn write(&mut self, now: Now, key: u32) {
        match self.sockets.get(key as usize) {
            Some(Some(socket)) if !socket.write_queued => self.hub.flushing(key),
            _ => return,
        }
        let mut left = config::TURN_BYTES_MAX;
        while let Some(Some(socket)) = self.sockets.get_mut(key as usize)
            && socket.writable
        {
            let outbox = self.hub.outbox(key);
            if outbox.is_empty() {
                return;
            }
            if left == 0 {
                self.work.queue_write(key, socket);
                return;
            }
            let bytes = outbox.next(&mut self.gathered, left);
            let offered = bytes.len();
            match socket.stream.write(bytes) {
                Ok(length) => {
                    socket.writable = length == offered;
                    left = left.saturating_sub(length);
                    self.hub.sent(now, key, length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("a connection broke: {error}");
                    self.hub.lost(key);
                    return;
                }
            }
        }
    }

    fn take_messages(&mut self, now: Now) {
        let notices: Vec<FromWriter> =
            self.channels.from_writer.try_iter().take(config::TURN_MESSAGES_MAX).collect();
        self.work.messages = notices.len() == config::TURN_MESSAGES_MAX;
        {
            // Loaded after the notices were taken: it holds every slot that they say has joined.
            let index = self.published.load();
            for notice in notices {
                self.hub.from_writer(now, notice, &index);
            }
        }
        let (mut answers, mut bytes) = (0, 0);
        while answers < config::TURN_MESSAGES_MAX && bytes < config::TURN_ANSWERS_BYTES {
            let Ok(answer) = self.channels.from_readers.try_recv() else { return };
            answers += 1;
            bytes += answer.bytes();
            self.hub.from_reader(now, answer);
        }
        self.work.messages = true;
    }

    fn carry_out(&mut self, now: Now) {
        while let Some(effect) = self.hub.next_effect() {
            self.carry_out_one(now, effect);
        }
    }

    fn carry_out_one(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Flush(key) => self.write(now, key),
            Effect::Deliver(key) => {
                if let Some(Some(socket)) = self.sockets.get_mut(key as usize) {
                    socket.streams = true;
                    self.work.queue_write(key, socket);
                }
            }
            Effect::Resume(key) => {
                if let Some(Some(socket)) = self.sockets.get_mut(key as usize) {
                    self.work.queue_read(key, socket, self.hub.goes_on(key));
                }
            }
            Effect::EndOutput(key) => {
                if let Some(Some(socket)) = self.sockets.get(key as usize) {
                    // A peer that is gone already needs no goodbye.
                    let _ = socket.stream.shutdown(std::net::Shutdown::Write);
                }
            }
            Effect::Close(key) => {
                let socket = self.sockets[key as usize].take();
                if let Some(mut socket) = socket {
                    let _ = self.poll.registry().deregister(&mut socket.stream);
                }
                self.hub.closed(key);
            }
            Effect::ToWriter(message) => self.work.to_writer.push(message),
            Effect::ToReader(message) => {
                self.channels.to_readers.send(message).expect("the readers outlive the reactor");
            }
            Effect::StopAccepting => {
                for mut listener in self.listeners.drain(..) {
                    let _ = self.poll.registry().deregister(&mut listener);
                }
                self.work.accepting = false;
            }
            Effect::Finished => self.work.finished = true,
        }
    }
}
