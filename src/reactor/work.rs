//! Owns what the loop remembers between turns: what each socket is known to be ready for, and the
//! queues in which connections wait for their turn. The reactor fills and drains them. Moves no
//! bytes.

use std::collections::VecDeque;

use mio::net::TcpStream;

use crate::message::ToWriter;

/// A socket and what it is known to be ready for.
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The last read was full.
    pub(super) sends_much: bool,
    /// The peer ended its side: a short read is not the last.
    pub(super) read_closed: bool,
    /// It stands in `Work::reads` or `Work::resumes`, and in one of the queues to write: once, or a
    /// connection that keeps its socket full would take ever more of each turn.
    pub(super) read_queued: bool,
    pub(super) write_queued: bool,
    /// The hub delivers to it: it waits with the other streams.
    pub(super) streams: bool,
}

/// What waits for its turn. While there is any, the loop does not sleep.
#[derive(Default)]
pub(super) struct Work {
    pub(super) reads: VecDeque<u32>,
    /// Connections that go on with what they sent before, or are in the middle of sending much.
    pub(super) resumes: VecDeque<u32>,
    /// Connections to write to: replies do not wait for all streams of a broadcast.
    pub(super) replies: VecDeque<u32>,
    pub(super) deliveries: VecDeque<u32>,
    /// Until it is handed over.
    pub(super) to_writer: Vec<ToWriter>,
    pub(super) accepting: bool,
    /// Out of descriptors until then.
    pub(super) accept_after: Option<u64>,
    pub(super) messages: bool,
    pub(super) signals: bool,
    pub(super) stop_signals: u32,
    pub(super) finished: bool,
}

impl Work {
    pub(super) fn waits(&self) -> bool {
        let accepts = self.accepting && self.accept_after.is_none();
        let writes = !self.replies.is_empty() || !self.deliveries.is_empty();
        let reads = !self.reads.is_empty() || !self.resumes.is_empty();
        accepts || writes || reads || self.messages
    }

    pub(super) fn queue_read(&mut self, key: u32, socket: &mut Connected, goes_on: bool) {
        if (goes_on || socket.readable) && !std::mem::replace(&mut socket.read_queued, true) {
            let later = goes_on || socket.sends_much;
            let queue = if later { &mut self.resumes } else { &mut self.reads };
            queue.push_back(key);
        }
    }

    pub(super) fn queue_write(&mut self, key: u32, socket: &mut Connected) {
        if !std::mem::replace(&mut socket.write_queued, true) {
            let queue = if socket.streams { &mut self.deliveries } else { &mut self.replies };
            queue.push_back(key);
        }
    }
}
