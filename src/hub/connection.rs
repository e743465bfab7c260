//! Owns what the hub knows of one connection: its state, what it sent that nobody took yet, what is
//! queued for it, and when it must be looked at again. Decides nothing; the hub's other parts do.

use std::net::SocketAddr;
use std::sync::Arc;

use super::metrics::Kind;
use crate::config;
use crate::held::Held;
use crate::http::{BodyReader, Head};
use crate::message::{NextPage, Slot};
use crate::outbox::Outbox;
use crate::plan::ReadPlan;
use crate::route::Route;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) admission: Admission,
    /// Bytes that came and that no exchange took yet.
    pub(super) input: Vec<u8>,
    /// Whole requests may stand in `input`: it was not looked through to its end.
    pub(super) put_off: bool,
    pub(super) outbox: Outbox,
    /// When the state's wait began, and when the outbox last made progress.
    pub(super) since: u64,
    pub(super) outbox_since: u64,
    /// Its entry among the timers.
    pub(super) scheduled: Option<u64>,
    /// The peer sends no more.
    pub(super) input_ended: bool,
    /// A flush of the outbox is among the effects.
    pub(super) flush_queued: bool,
    /// Only known where access lines are asked for.
    pub(super) peer: Option<Box<SocketAddr>>,
}

/// Whether a connection is one of those that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Served,
    /// Taken over the limit, to be told so when it asks for something.
    Overflow,
}

#[derive(Debug)]
pub(super) enum State {
    /// Between requests, or within a head of which so much was looked at.
    Head {
        scanned: usize,
    },
    /// Within a body.
    Body(Box<Receiving>),
    /// Another thread is asked for the answer.
    Answering(Box<Exchange>, Waiting),
    /// A JSON reply goes out page by page.
    Replying(Box<Replying>),
    Streaming(Slot),
    /// The rest of the outbox goes out, then the connection is closed.
    Closing,
    /// Everything was sent; what still comes is read and dropped, so that no RST eats the reply.
    Lingering,
    /// The hub is done with it; the reactor drops the socket.
    Closed,
}

/// One request and what is needed to answer it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) head: Head,
    /// The memory of what came with the head, unless it is small.
    pub(super) held: Option<Held>,
    pub(super) started: u64,
    /// What the access line says it was about; empty unless one is asked for.
    pub(super) subject: String,
}

#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) exchange: Box<Exchange>,
    pub(super) target: Target,
    pub(super) query: String,
    pub(super) reader: BodyReader,
    pub(super) body: Vec<u8>,
}

/// What a request is for, known before its body came.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Route(Route),
    Preflight,
}

#[derive(Debug)]
pub(super) enum Waiting {
    Parse,
    Read {
        plan: Arc<ReadPlan>,
    },
    /// A filtered read's plan, which is on its way, too.
    Prepare,
    Compare,
    Append,
    Health,
}

#[derive(Debug)]
pub(super) struct Replying {
    pub(super) exchange: Box<Exchange>,
    pub(super) page: ReplyPage,
}

#[derive(Debug)]
pub(super) enum ReplyPage {
    /// To be asked for once the outbox has drained.
    Next(NextPage),
    InFlight,
}

impl Connection {
    pub(super) fn new(now: u64, admission: Admission, peer: Option<SocketAddr>) -> Connection {
        Connection {
            state: State::Head { scanned: 0 },
            admission,
            input: Vec::new(),
            put_off: false,
            outbox: Outbox::default(),
            since: now,
            outbox_since: now,
            scheduled: None,
            input_ended: false,
            flush_queued: false,
            peer: peer.map(Box::new),
        }
    }

    /// When something must happen to it at the latest.
    pub(super) fn deadline(&self) -> Option<u64> {
        let stalled =
            (!self.outbox.is_empty()).then_some(self.outbox_since + config::WRITE_STALL_TIMEOUT);
        let own = match &self.state {
            State::Head { .. } if self.is_idle() => Some(self.since + config::KEEP_ALIVE_TIMEOUT),
            // Requests behind replies that the peer does not take are no slow heads.
            State::Head { .. } if !self.outbox.is_empty() => None,
            State::Head { .. } => Some(self.since + config::HEAD_TIMEOUT),
            // Nor is a body slow that is not read because of them.
            State::Body(_) if !self.outbox.is_empty() => None,
            State::Body(_) => Some(self.since + config::BODY_STALL_TIMEOUT),
            State::Answering(_, Waiting::Health) => Some(self.since + config::HEALTH_TIMEOUT),
            State::Answering(..) | State::Replying(_) | State::Closing | State::Closed => None,
            State::Streaming(_) if self.outbox.is_empty() => {
                Some(self.outbox_since + config::COMMENT_INTERVAL)
            }
            State::Streaming(_) => None,
            State::Lingering => Some(self.since + config::LINGER_TIMEOUT),
        };
        match (stalled, own) {
            (Some(stalled), Some(own)) => Some(stalled.min(own)),
            (stalled, own) => stalled.or(own),
        }
    }

    /// Whether no request has begun: some clients end a body with a line of its own.
    pub(super) fn is_idle(&self) -> bool {
        self.input.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// Whether whole requests may wait in what came before.
    pub(super) fn has_put_off(&self) -> bool {
        self.put_off && !self.input.is_empty()
    }

    /// Whether such requests can be answered now.
    pub(super) fn goes_on(&self, outbox_bytes_max: usize) -> bool {
        let between = matches!(self.state, State::Head { .. });
        between && self.has_put_off() && self.outbox.bytes() <= outbox_bytes_max
    }

    /// Whether the reactor should read from it now. Without room, no request is read before the one
    /// before it was answered.
    pub(super) fn wants_input(&self, outbox_bytes_max: usize, room: bool) -> bool {
        match &self.state {
            _ if self.input_ended => false,
            State::Head { .. } if self.has_put_off() => false,
            State::Head { .. } if !room && !self.outbox.is_empty() => false,
            State::Head { .. } | State::Body(_) => self.outbox.bytes() <= outbox_bytes_max,
            State::Answering(..) | State::Replying(_) | State::Closing => {
                room && self.input.len() < config::TURN_BYTES_MAX
            }
            State::Streaming(_) | State::Lingering => true,
            State::Closed => false,
        }
    }

    /// The exchange that an answer from another thread belongs to.
    pub(super) fn exchange_number(&self) -> Option<u32> {
        match &self.state {
            State::Answering(exchange, _) => Some(exchange.number),
            State::Replying(replying) => Some(replying.exchange.number),
            _ => None,
        }
    }
}
