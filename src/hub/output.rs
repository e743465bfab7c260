//! Owns the way out of a connection: what is queued for it, when that is written, what is given up
//! when all outboxes hold too much, and how a connection ends. The other parts of the hub call it.
//! Does not know what the bytes say.

use super::connection::State;
use super::metrics::Hostile;
use super::{Effect, Hub, Now};
use crate::config;

impl Hub {
    /// Queues bytes that are a whole part of what the connection is to get.
    pub(super) fn queue(&mut self, now: Now, key: u32, bytes: Vec<u8>) {
        let held = self.outboxes_bytes.hold(bytes.len());
        let connection = &mut self.connections[key as usize];
        if connection.outbox.is_empty() {
            connection.outbox_since = now.milliseconds;
        }
        connection.outbox.push(bytes, held);
        self.flush(key);
    }

    pub(super) fn flush(&mut self, key: u32) {
        let connection = &mut self.connections[key as usize];
        if !connection.flush_queued {
            connection.flush_queued = true;
            let streaming = matches!(connection.state, State::Streaming(_));
            self.effects.push_back(if streaming {
                Effect::Deliver(key)
            } else {
                Effect::Flush(key)
            });
        }
    }

    /// Outboxes hold too much: those that hold the most are given up, those first that made no
    /// progress for longest. A stream resumes; a reply is cut.
    pub(super) fn shed(&mut self) {
        if self.outboxes_bytes.get() <= config::OUTBOXES_BYTES_MAX {
            return;
        }
        let connections = self.connections.iter();
        let mut full: Vec<(usize, u64, u32)> = connections
            .filter(|(_, connection)| !connection.outbox.is_empty())
            .map(|(key, c)| (usize::MAX - c.outbox.bytes(), c.outbox_since, key as u32))
            .collect();
        full.sort_unstable();
        for (_, _, key) in full {
            if self.outboxes_bytes.get() <= config::OUTBOXES_BYTES_MAX / 4 * 3 {
                return;
            }
            self.metrics.hostile(Hostile::OutboxesOverLimit);
            self.close(key);
        }
    }

    /// Nothing more will be queued: closes once the outbox is empty.
    pub(super) fn end_output(&mut self, now: Now, key: u32) {
        self.leave(key);
        let connection = &mut self.connections[key as usize];
        connection.state = State::Closing;
        if connection.outbox.is_empty() {
            self.output_ended(now, key);
        }
        self.arm(key);
    }

    pub(super) fn output_ended(&mut self, now: Now, key: u32) {
        let connection = &mut self.connections[key as usize];
        if connection.input_ended {
            self.close(key);
            return;
        }
        connection.state = State::Lingering;
        connection.since = now.milliseconds;
        self.set_input(key, Vec::new());
        self.effects.push_back(Effect::EndOutput(key));
        self.effects.push_back(Effect::Resume(key));
        self.arm(key);
    }

    /// Drops the connection as it is.
    pub(super) fn close(&mut self, key: u32) {
        self.leave(key);
        let connection = &mut self.connections[key as usize];
        if !matches!(connection.state, State::Closed) {
            connection.state = State::Closed;
            connection.outbox.clear();
            self.set_input(key, Vec::new());
            self.effects.push_back(Effect::Close(key));
        }
    }

    /// What a state owns beyond itself is given back when the connection leaves it for good.
    pub(super) fn leave(&mut self, key: u32) {
        match &self.connections[key as usize].state {
            State::Streaming(slot) => {
                let slot = *slot;
                self.end_feed(slot);
            }
            State::Body(receiving) => self.bodies_bytes -= receiving.body.len(),
            _ => {}
        }
    }
}
