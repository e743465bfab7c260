//! Owns everything the event loop decides: connections, exchanges, streams, credits. Bytes,
//! messages and `now` go in, effects come out; it does no I/O and reads no clock, so that a test
//! can drive it. The reactor calls it.
//!
//! - `connection`: what is known of one connection.
//! - `exchange`: bytes to requests, requests to what they ask for; appends and health.
//! - `reads`: JSON replies, page by page.
//! - `filtered`: what filters need: preparations, comparisons, their limits.
//! - `credits`, `lanes`: what other threads were asked for, and whose turn it is at the readers.
//! - `output`: what is queued, flushed, shed, and how a connection ends.
//! - `reply`: heads, problems, the end of an exchange.
//! - `streams`: feeds and what is broadcast to them.
//! - `timers`, `metrics`, `cursors`: their names say it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use slab::Slab;

use crate::config;
use crate::event::{Epochs, Seq};
use crate::held::Counter;
use crate::hot::Hot;
use crate::http::Always;
use crate::index::Index;
use crate::message::{
    Appended, Asker, Commit, FromReader, FromWriter, Read, ToReader, ToWriter, Token,
};
use crate::outbox::{Buffers, Outbox};
use crate::route::Limits;
use crate::store::StoreGauges;

mod connection;
mod credits;
mod cursors;
mod exchange;
mod filtered;
mod lanes;
mod metrics;
mod output;
mod reads;
mod reply;
mod streams;
#[cfg(test)]
mod tests;
mod timers;

use connection::{Admission, Connection, State, Waiting};
use credits::Credits;
use lanes::Reads;
use metrics::{Hostile, Metrics};
use streams::Tenant;
use timers::Timers;

/// The time, as the reactor knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some start, never going back.
    pub milliseconds: u64,
    pub unix_seconds: u64,
}

/// What the reactor is to do, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Write from the outbox, as much as the socket takes; then `sent`.
    Flush(u32),
    /// The same for a stream, where many may be due at once: when its turn comes.
    Deliver(u32),
    /// `goes_on` or `wants_input` may have become true.
    Resume(u32),
    /// Shut the sending side down.
    EndOutput(u32),
    /// Drop the socket; then `closed`.
    Close(u32),
    ToWriter(ToWriter),
    ToReader(ToReader),
    StopAccepting,
    /// Every connection is gone after `stop`.
    Finished,
}

/// What the hub is told of the server it works for.
#[derive(Debug)]
pub struct Options {
    pub epochs: Epochs,
    pub visible: Seq,
    pub limits: Limits,
    pub body_bytes_max: usize,
    pub outbox_bytes_max: usize,
    pub connections_max: usize,
    /// Threads that read.
    pub readers: usize,
    pub cors_origin: String,
    pub access_log: bool,
    /// For jitter.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Hub {
    options: Options,
    /// The newest event that was noticed. Reads and feeds are bounded by it.
    visible: Seq,
    connections: Slab<Connection>,
    /// A feed's slot is a place here; used again only when nobody can mean the former tenant.
    tenants: Slab<Tenant>,
    timers: Timers,
    effects: VecDeque<Effect>,
    exchanges: u32,
    credits: Credits,
    reads: Reads,
    hot: Hot,
    /// Memory of the filters of reads and comparisons under way, and how many need scans.
    filters_bytes: Counter,
    scans: Counter,
    /// What the outboxes of all connections hold, and the larger ones among selections.
    outboxes_bytes: Counter,
    selections_bytes: Counter,
    buffers: Buffers,
    waiting_subscriptions: VecDeque<ToWriter>,
    /// Request bodies in memory: arriving, being parsed, with the writer.
    bodies_bytes: usize,
    /// Bytes of all connections that no exchange took yet.
    inputs_bytes: usize,
    /// The larger ones among the heads of exchanges.
    heads_bytes: Counter,
    always: Always,
    phase: Phase,
    store: StoreGauges,
    metrics: Metrics,
    random: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Stopping { until: u64 },
    Finished,
}

impl Hub {
    pub fn new(options: Options) -> Hub {
        Hub {
            visible: options.visible,
            reads: Reads::new(options.readers),
            random: options.seed | 1,
            always: Always::new(&options.cors_origin),
            options,
            connections: Slab::new(),
            tenants: Slab::new(),
            timers: Timers::default(),
            effects: VecDeque::new(),
            exchanges: 0,
            credits: Credits::default(),
            hot: Hot::default(),
            filters_bytes: Counter::default(),
            scans: Counter::default(),
            outboxes_bytes: Counter::default(),
            selections_bytes: Counter::default(),
            buffers: Buffers::default(),
            waiting_subscriptions: VecDeque::new(),
            bodies_bytes: 0,
            inputs_bytes: 0,
            heads_bytes: Counter::default(),
            phase: Phase::Serving,
            store: StoreGauges::default(),
            metrics: Metrics::default(),
        }
    }

    /// What is to be done next; carrying it out may add to what follows.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if effect.is_none() {
            // After a large broadcast; the usual few keep their room.
            self.effects.shrink_to(config::EFFECTS_KEPT);
        }
        effect
    }

    /// A connection was accepted. `None` when it cannot even be told that there are too many, or
    /// came in the turn of the stop, which would wait for it.
    pub fn accept(&mut self, now: Now, peer: Option<SocketAddr>) -> Option<u32> {
        if self.is_stopping() {
            return None;
        }
        let room = self.options.connections_max;
        let admission = match self.connections.len() {
            open if open < room => Admission::Served,
            open if open < room + config::CONNECTIONS_OVERFLOW => Admission::Overflow,
            _ => {
                self.metrics.hostile(Hostile::TooManyConnections);
                return None;
            }
        };
        let peer = peer.filter(|_| self.options.access_log);
        let key = self.connections.insert(Connection::new(now.milliseconds, admission, peer));
        let key = u32::try_from(key).expect("fewer connections than 2^32");
        self.arm(key);
        Some(key)
    }

    /// Whether the reactor should read from the connection.
    pub fn wants_input(&self, key: u32) -> bool {
        let room = self.all_inputs_bytes() < config::INPUTS_BYTES_MAX;
        self.connections[key as usize].wants_input(self.options.outbox_bytes_max, room)
    }

    /// Whether the connection has sent requests that wait for a turn of theirs.
    pub fn goes_on(&self, key: u32) -> bool {
        self.connections[key as usize].goes_on(self.options.outbox_bytes_max)
    }

    pub fn outbox(&self, key: u32) -> &Outbox {
        &self.connections[key as usize].outbox
    }

    /// A flush begins: later bytes need another.
    pub fn flushing(&mut self, key: u32) {
        self.connections[key as usize].flush_queued = false;
    }

    /// So many bytes of the outbox were taken by the socket.
    pub fn sent(&mut self, now: Now, key: u32, bytes: usize) {
        let connection = &mut self.connections[key as usize];
        let was_high = connection.outbox.bytes() > config::OUTBOX_LOW_BYTES;
        connection.outbox.advance(bytes, &mut self.buffers);
        connection.outbox_since = now.milliseconds;
        let drained = connection.outbox.is_empty();
        let low = connection.outbox.bytes() <= config::OUTBOX_LOW_BYTES;
        self.metrics.bytes_sent += bytes as u64;
        match &connection.state {
            State::Replying(_) => self.next_reply_page(key),
            // A page that was wanted was put off only if there was more. With thousands of streams
            // each feed would be out of the processor's cache.
            State::Streaming(slot) if was_high && low => {
                let slot = *slot;
                self.next_stream_page(slot);
            }
            State::Closing if drained => self.output_ended(now, key),
            State::Head { .. } | State::Body(_) => {
                if drained {
                    // What was not waited for until now has its time from now on.
                    connection.since = now.milliseconds;
                }
                return self.resume(now, key);
            }
            _ => {}
        }
        self.arm(key);
    }

    /// The peer ended its side.
    pub fn input_ended(&mut self, now: Now, key: u32) {
        self.connections[key as usize].input_ended = true;
        self.after_input_ended(now, key);
    }

    /// The connection broke: nothing can be sent or read any more.
    pub fn lost(&mut self, key: u32) {
        self.close(key);
    }

    /// The socket was dropped.
    pub fn closed(&mut self, key: u32) {
        let mut connection = self.connections.remove(key as usize);
        assert!(matches!(connection.state, State::Closed), "the hub decides what is closed");
        self.timers.disarm(key, &mut connection.scheduled);
        self.finish_if_empty();
    }

    pub fn from_writer(&mut self, now: Now, notice: FromWriter, index: &Index) {
        match notice {
            FromWriter::Committed(commit) => self.committed(now, commit, index),
            FromWriter::Failed { appends, error } => {
                for append in appends {
                    self.append_answered(append.bytes());
                    self.append_failed(now, append.token, &error);
                }
            }
            FromWriter::Joined { slot, last } => {
                self.subscription_answered();
                self.joined(slot, last);
            }
            FromWriter::Left { slot } => {
                self.subscription_answered();
                self.tenant_answered(slot);
            }
            FromWriter::Gauges(gauges) => self.store = gauges,
            FromWriter::Pong { token } => {
                self.credits.pings -= 1;
                self.healthy(now, token);
            }
        }
        self.shed();
    }

    pub fn from_reader(&mut self, now: Now, answered: FromReader) {
        self.reads.answered(answered.lane);
        match answered.answer {
            Read::Parsed { token, body_bytes, answer } => {
                self.bodies_bytes -= body_bytes;
                self.parsed(now, token, answer);
            }
            Read::Opened { token, page } => self.opened(now, token, page),
            Read::Filled { token, id, filling } => self.filled(now, token, &id, filling),
            Read::Paged { token, body, next } => self.reply_paged(now, token, body, next),
            Read::Followed { slot, frames, cursor, synced } => {
                self.stream_paged(now, slot, frames, cursor, synced);
            }
            Read::Gathered { slot, rest } => self.stream_gathered(slot, *rest),
            Read::Prepared { asker: Asker::Reply(token), prepared } => {
                self.reply_prepared(now, token, prepared);
            }
            Read::Prepared { asker: Asker::Stream(slot), prepared } => {
                self.stream_prepared(now, slot, prepared);
            }
            Read::Failed { token, error } => self.read_failed(now, token, &error),
            Read::FollowFailed { slot, error } => self.follow_failed(now, slot, &error),
        }
        self.send_to_readers();
        self.shed();
    }

    /// When `tick` wants to be called at the latest.
    pub fn deadline(&self) -> Option<u64> {
        let stop = match self.phase {
            Phase::Stopping { until } => Some(until),
            Phase::Serving | Phase::Finished => None,
        };
        match (self.timers.next(), stop) {
            (Some(timer), Some(stop)) => Some(timer.min(stop)),
            (timer, stop) => timer.or(stop),
        }
    }

    pub fn tick(&mut self, now: Now) {
        while let Some(key) = self.timers.pop(now.milliseconds) {
            let connection = &mut self.connections[key as usize];
            connection.scheduled = None;
            if connection.deadline().is_some_and(|at| at <= now.milliseconds) {
                self.timed_out(now, key);
            }
            self.arm(key);
        }
        if matches!(self.phase, Phase::Stopping { until } if until <= now.milliseconds) {
            log::warn!("stopping with {} connections unfinished", self.connections.len());
            self.finish();
        }
    }

    /// Finishes what was accepted, sends streams away, then `Effect::Finished`.
    pub fn stop(&mut self, now: Now) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Stopping { until: now.milliseconds + config::STOP_TIMEOUT };
        self.effects.push_back(Effect::StopAccepting);
        let keys: Vec<u32> = self.connections.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            let connection = &self.connections[key as usize];
            match &connection.state {
                State::Streaming(_) => self.send_stream_away(now, key),
                State::Head { .. } if connection.is_idle() => self.end_output(now, key),
                _ => {}
            }
        }
        self.finish_if_empty();
    }

    fn is_stopping(&self) -> bool {
        self.phase != Phase::Serving
    }

    fn finish_if_empty(&mut self) {
        if self.is_stopping() && self.connections.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if self.phase != Phase::Finished {
            self.phase = Phase::Finished;
            self.effects.push_back(Effect::Finished);
        }
    }

    /// Everything a commit brings: what it made visible, who asked for it, who gets it.
    fn committed(&mut self, now: Now, commit: Commit, index: &Index) {
        assert!(commit.last >= self.visible, "commits are noticed in order");
        self.visible = commit.last;
        self.store = commit.store;
        self.metrics.committed(commit.took);
        for Appended { append, placed } in &commit.appended {
            for (value, placed) in append.values.iter().zip(placed).filter(|(_, p)| p.new) {
                self.hot.committed(&append.id, placed.seq, &value.text);
            }
        }
        for appended in &commit.appended {
            self.append_answered(appended.append.bytes());
            self.acknowledge(now, appended);
        }
        for appended in commit.appended.chunk_by(|one, next| one.append.id == next.append.id) {
            self.broadcast(now, appended, index);
        }
    }

    fn timed_out(&mut self, now: Now, key: u32) {
        let connection = &self.connections[key as usize];
        let stalled = !connection.outbox.is_empty()
            && connection.outbox_since + config::WRITE_STALL_TIMEOUT <= now.milliseconds;
        match &connection.state {
            _ if stalled => {
                self.metrics.hostile(Hostile::StalledReader);
                self.close(key);
            }
            State::Head { .. } if connection.is_idle() => self.end_output(now, key),
            State::Head { .. } => {
                self.metrics.hostile(Hostile::SlowHead);
                self.refuse_slow(now, key, "the request's head did not arrive within 10 s");
            }
            State::Body(_) => {
                self.metrics.hostile(Hostile::SlowBody);
                self.refuse_slow(now, key, "the request's body made no progress for 10 s");
            }
            State::Answering(_, Waiting::Health) => self.unhealthy(now, key),
            State::Streaming(_) => self.comment(now, key),
            State::Lingering => self.close(key),
            State::Answering(..) | State::Replying(_) | State::Closing | State::Closed => {}
        }
    }

    // --- What the parts share -----------------------------------------------------------------

    fn token_of(&mut self, key: u32) -> Token {
        let exchange = self.connections[key as usize]
            .exchange_number()
            .expect("only an exchange asks other threads");
        Token { connection: key, exchange }
    }

    /// The connection that an answer is for, if it is still there and still waits for it.
    fn addressee(&self, token: Token) -> Option<u32> {
        let connection = self.connections.get(token.connection as usize)?;
        (connection.exchange_number() == Some(token.exchange)).then_some(token.connection)
    }

    /// What is kept of requests, but for their bodies.
    fn all_inputs_bytes(&self) -> usize {
        self.inputs_bytes + self.heads_bytes.get()
    }

    /// What came and was not taken, kept for later.
    fn set_input(&mut self, key: u32, input: Vec<u8>) {
        let connection = &mut self.connections[key as usize];
        self.inputs_bytes += input.len();
        self.inputs_bytes -= std::mem::replace(&mut connection.input, input).len();
    }

    fn arm(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if let Some(deadline) = connection.deadline() {
            self.timers.arm(key, &mut connection.scheduled, deadline);
        }
    }

    /// xorshift64: jitter needs no better.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
