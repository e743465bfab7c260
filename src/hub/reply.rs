//! Owns how the hub replies: heads with what every reply carries, problems, and how an exchange
//! ends. What is said is decided by whoever calls it.

use super::connection::{Exchange, State, Target};
use super::metrics::Kind;
use super::{Hub, Now};
use crate::config;
use crate::http::{self, BodyLength, Framing, Head, Method, Version};
use crate::problem::Problem;
use crate::route::Route;
use crate::sse;

pub(super) const JSON: &[u8] = b"Content-Type: application/json\r\n";
pub(super) const PROBLEM: &[u8] = b"Content-Type: application/problem+json\r\n";
pub(super) const TEXT: &[u8] = b"Content-Type: text/plain; charset=utf-8\r\n";
pub(super) const VARY: &[u8] = b"Vary: Accept\r\n";
/// To be kept, and asked for again before each use.
pub(super) const NO_CACHE: &[u8] = b"Cache-Control: no-cache\r\n";
pub(super) const NO_STORE: &[u8] = b"Cache-Control: no-store\r\n";

/// What is known of a reply besides its exchange.
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    /// Lines of its head, ends included.
    pub(super) fields: &'a [&'a [u8]],
    pub(super) body: &'a [u8],
}

impl Hub {
    /// A request that is not read any further: if a body follows, the connection ends after it.
    pub(super) fn reply_unread(
        &mut self,
        now: Now,
        key: u32,
        mut exchange: Box<Exchange>,
        problem: &Problem,
    ) {
        exchange.head.keep_alive &= exchange.head.body == BodyLength::None;
        self.reply_problem(now, key, exchange, problem);
    }

    /// What cannot be served now: a stream is told to come back, as a browser gives up for good on
    /// a 503; everything else is told so.
    pub(super) fn turn_away(
        &mut self,
        now: Now,
        key: u32,
        mut exchange: Box<Exchange>,
        target: &Target,
        why: &str,
    ) {
        exchange.head.keep_alive = false;
        if matches!(target, Target::Route(Route::Get)) && sse::wants_stream(&exchange.head.accept) {
            return self.turn_stream_away(now, key, exchange);
        }
        self.reply_problem(now, key, exchange, &Problem::new(503, format!("{why}; try again")));
    }

    pub(super) fn reply_problem(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        problem: &Problem,
    ) {
        let body = http::write_problem_body(problem);
        let retry_after = format!("Retry-After: {}\r\n", config::RETRY_AFTER_SECONDS);
        let allow = format!("Allow: {}\r\n", problem.allow);
        let mut fields = vec![PROBLEM, NO_STORE];
        if problem.status == 503 {
            fields.push(retry_after.as_bytes());
        }
        if !problem.allow.is_empty() {
            fields.push(allow.as_bytes());
        }
        let method_is_taken = problem.allow.is_empty();
        if method_is_taken && matches!(exchange.kind, Kind::Get | Kind::Stream) {
            fields.push(VARY);
        }
        let reply = Reply { status: problem.status, fields: &fields, body: &body };
        self.reply(now, key, exchange, &reply);
    }

    /// A whole reply.
    pub(super) fn reply(&mut self, now: Now, key: u32, exchange: Box<Exchange>, reply: &Reply<'_>) {
        let mut out = self.buffers.take(reply.body.len() + 512);
        let framing = match reply.status {
            204 | 304 => Framing::Empty,
            _ => Framing::Length(reply.body.len()),
        };
        self.write_head(now, &mut out, &exchange, reply.status, framing, reply.fields);
        if exchange.head.method != Method::Head && !matches!(framing, Framing::Empty) {
            out.extend_from_slice(reply.body);
        }
        self.queue(now, key, out);
        self.finish_exchange(now, key, exchange, reply.status);
    }

    pub(super) fn write_head(
        &mut self,
        now: Now,
        out: &mut Vec<u8>,
        exchange: &Exchange,
        status: u16,
        framing: Framing,
        fields: &[&[u8]],
    ) {
        let keep_alive = exchange.head.keep_alive && !self.is_stopping();
        let always = self.always.lines(now.unix_seconds);
        http::write_head(out, always, exchange.head.version, status, keep_alive, framing, fields);
    }

    /// The reply is queued whole; the connection goes on to its next request, or ends. Whoever let it be
    /// answered arms its timer.
    pub(super) fn finish_exchange(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        status: u16,
    ) {
        self.account(now, key, &exchange, status);
        if !exchange.head.keep_alive || self.is_stopping() {
            // Not through `leave`: nothing but the exchange was the state's.
            self.connections[key as usize].state = State::Closing;
            return self.end_output(now, key);
        }
        let connection = &mut self.connections[key as usize];
        connection.state = State::Head { scanned: 0 };
        connection.since = now.milliseconds;
    }

    pub(super) fn account(&mut self, now: Now, key: u32, exchange: &Exchange, status: u16) {
        let kind = exchange.kind;
        self.metrics.request(kind, status);
        if self.options.access_log {
            let peer = self.connections[key as usize].peer.as_deref();
            log::info!(
                target: "access",
                "{} {} {}{} {status} {} ms",
                peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
                exchange.head.method.name(),
                kind.path(),
                exchange.subject,
                now.milliseconds - exchange.started,
            );
        }
    }

    /// An error before there is a request to answer. The connection ends: where the next request
    /// would start is not known.
    pub(super) fn refuse(&mut self, now: Now, key: u32, problem: &Problem) {
        self.leave(key);
        let head = Head { version: Version::Http11, ..Head::default() };
        let (number, kind) = (self.exchanges, Kind::Other);
        let (held, subject) = (None, String::new());
        let exchange =
            Box::new(Exchange { number, kind, head, held, started: now.milliseconds, subject });
        self.connections[key as usize].state = State::Head { scanned: 0 };
        self.reply_problem(now, key, exchange, problem);
    }

    pub(super) fn refuse_slow(&mut self, now: Now, key: u32, detail: &str) {
        self.refuse(now, key, &Problem::new(408, detail));
    }
}

pub(super) fn write_part(out: &mut Vec<u8>, part: &[u8], chunked: bool) {
    if chunked {
        http::write_chunk(out, part);
    } else {
        out.extend_from_slice(part);
    }
}
