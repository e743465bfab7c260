//! Owns the sockets: what was sent and did not arrive, what arrived and was not read, which sides
//! ended. The simulated reactor keeps the rules of the real one: it reads and writes only when a
//! socket became readable or writable, or when the hub says so, so that a wake-up that the hub
//! forgets is felt.

use std::collections::{BTreeMap, VecDeque};

use rill::hub::{Hub, Now};

use crate::random::Random;

/// What a socket holds that nobody reads, at most.
pub(crate) const ROOM_MAX: usize = 20_000;
/// Pieces are sent together up to this, which is less than most replies.
const GATHERED_BYTES: usize = 256;

#[derive(Default)]
pub(crate) struct Network {
    sockets: BTreeMap<u32, Socket>,
    /// Connections to be read from and to be written to, each once.
    reads: VecDeque<u32>,
    writes: VecDeque<u32>,
}

/// The server's end of a connection, with what is on its way.
#[derive(Default)]
struct Socket {
    arrived: VecDeque<u8>,
    end_arrived: bool,
    /// Written, and not yet taken by the client.
    written: VecDeque<u8>,
    /// What `written` may hold.
    room: usize,
    output_ended: bool,
    fate: Fate,
    readable: bool,
    writable: bool,
    read_queued: bool,
    write_queued: bool,
}

/// What became of the other side.
#[derive(Default, PartialEq)]
enum Fate {
    #[default]
    There,
    /// Its process is gone: what is written breaks the connection.
    Gone,
    Broken,
}

/// What a client finds when it reads.
pub(crate) enum Taken {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

impl Network {
    pub(crate) fn connect(&mut self, key: u32, room: usize) {
        let socket = Socket { room, readable: true, writable: true, ..Socket::default() };
        let former = self.sockets.insert(key, socket);
        assert!(former.is_none(), "a key is used again when its connection is closed");
        self.queue_read(key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = u32> + '_ {
        self.sockets.keys().copied()
    }

    // --- The client's side ----------------------------------------------------------------------

    pub(crate) fn send(&mut self, key: u32, bytes: &[u8]) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        socket.arrived.extend(bytes);
        socket.readable = true;
        self.queue_read(key);
    }

    pub(crate) fn end_sending(&mut self, key: u32) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        socket.end_arrived = true;
        socket.readable = true;
        self.queue_read(key);
    }

    /// The client closes its socket. What it did not read makes its kernel reset the connection.
    pub(crate) fn leave(&mut self, key: u32) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        if !socket.written.is_empty() {
            return self.reset(key);
        }
        socket.fate = Fate::Gone;
        self.end_sending(key);
    }

    pub(crate) fn reset(&mut self, key: u32) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        socket.fate = Fate::Broken;
        (socket.readable, socket.writable) = (true, true);
        self.queue_read(key);
        self.queue_write(key);
    }

    pub(crate) fn receive(&mut self, key: u32, random: &mut Random) -> Taken {
        let socket = self.sockets.get_mut(&key).expect("a client knows when its socket is gone");
        if socket.written.is_empty() {
            return if socket.output_ended { Taken::End } else { Taken::Nothing };
        }
        let length = random.part(socket.written.len());
        let bytes = socket.written.drain(..length).collect();
        if !socket.writable {
            socket.writable = true;
            self.queue_write(key);
        }
        Taken::Bytes(bytes)
    }

    // --- The reactor's side ---------------------------------------------------------------------

    fn queue_read(&mut self, key: u32) {
        if let Some(socket) = self.sockets.get_mut(&key)
            && !std::mem::replace(&mut socket.read_queued, true)
        {
            self.reads.push_back(key);
        }
    }

    pub(crate) fn queue_write(&mut self, key: u32) {
        if let Some(socket) = self.sockets.get_mut(&key)
            && !std::mem::replace(&mut socket.write_queued, true)
        {
            self.writes.push_back(key);
        }
    }

    /// The hub may want input again, or go on with what it has.
    pub(crate) fn resume(&mut self, key: u32, hub: &Hub) {
        if self.sockets.get(&key).is_some_and(|socket| socket.readable || hub.goes_on(key)) {
            self.queue_read(key);
        }
    }

    /// Reads from one of the connections that wait for it, or lets the hub go on with what was read.
    pub(crate) fn read_one(&mut self, hub: &mut Hub, now: Now, random: &mut Random) {
        let Some(key) = self.reads.pop_front() else { return };
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        socket.read_queued = false;
        if hub.go_on(now, key) || !socket.readable || !hub.wants_input(key) {
            return;
        }
        if socket.fate == Fate::Broken {
            return hub.lost(key);
        }
        if socket.arrived.is_empty() {
            socket.readable = false;
            if socket.end_arrived {
                hub.input_ended(now, key);
            }
            return;
        }
        let length = random.part(socket.arrived.len());
        let bytes: Vec<u8> = socket.arrived.drain(..length).collect();
        socket.readable = !socket.arrived.is_empty() || socket.end_arrived;
        if socket.readable {
            self.queue_read(key);
        }
        hub.input(now, key, &bytes);
    }

    /// Writes to one of the connections that wait for it.
    pub(crate) fn write_one(&mut self, hub: &mut Hub, now: Now, random: &mut Random) {
        let Some(key) = self.writes.pop_front() else { return };
        if let Some(socket) = self.sockets.get_mut(&key) {
            socket.write_queued = false;
            self.write(key, hub, now, random);
        }
    }

    /// Writes what the socket takes, unless it waits for its turn.
    pub(crate) fn write(&mut self, key: u32, hub: &mut Hub, now: Now, random: &mut Random) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        if socket.write_queued {
            return;
        }
        hub.flushing(key);
        while socket.writable && !hub.outbox(key).is_empty() {
            if socket.fate == Fate::Broken {
                return hub.lost(key);
            }
            let mut buffer = [0; GATHERED_BYTES];
            let offered = hub.outbox(key).next(&mut buffer, usize::MAX);
            let room = random.part(socket.room - socket.written.len());
            let length = offered.len().min(room);
            socket.written.extend(&offered[..length]);
            socket.writable = length == offered.len();
            if socket.fate == Fate::Gone {
                socket.written.clear();
                socket.fate = Fate::Broken;
                (socket.readable, socket.writable) = (true, true);
            } else if !socket.writable && socket.written.len() < socket.room {
                // A split, not a full socket: it goes on by itself.
                socket.writable = true;
            }
            if length > 0 {
                hub.sent(now, key, length);
            }
        }
        if socket.fate == Fate::Broken {
            self.queue_read(key);
        }
    }

    pub(crate) fn end_output(&mut self, key: u32) {
        if let Some(socket) = self.sockets.get_mut(&key) {
            assert!(!socket.output_ended, "the output ends once");
            socket.output_ended = true;
        }
    }

    /// The server drops the socket. Returns what the client can still read; unread input makes the
    /// kernel reset the connection, which may eat that.
    pub(crate) fn close(&mut self, key: u32, random: &mut Random) -> Vec<u8> {
        let socket = self.sockets.remove(&key).expect("a connection is closed once");
        let eaten = !socket.arrived.is_empty() && random.one_in(2);
        if eaten { Vec::new() } else { socket.written.into() }
    }

    /// The server died: what it had written may arrive, or not.
    pub(crate) fn crash(&mut self, random: &mut Random) -> BTreeMap<u32, Vec<u8>> {
        let crashed = std::mem::take(self);
        let mut rest = |socket: Socket| -> Vec<u8> {
            if random.one_in(2) { socket.written.into() } else { Vec::new() }
        };
        crashed.sockets.into_iter().map(|(key, socket)| (key, rest(socket))).collect()
    }

    /// From now on nothing is narrow.
    pub(crate) fn widen(&mut self) {
        let keys: Vec<u32> = self.sockets.keys().copied().collect();
        for key in keys {
            let socket = self.sockets.get_mut(&key).expect("it was there a line above");
            (socket.room, socket.writable) = (ROOM_MAX, true);
            self.queue_write(key);
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.reads.is_empty() || !self.writes.is_empty()
    }
}
