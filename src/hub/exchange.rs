//! Owns the exchanges of the hub: bytes become requests, the router's answers become replies or
//! requests to other threads, and what those answer becomes replies. Knows nothing of how events
//! are found; hands streams to `streams`.

use super::connection::{Admission, Exchange, Receiving, State, Target, Waiting};
use super::metrics::{Hostile, Kind};
use super::reply::{JSON, NO_CACHE, NO_STORE, Reply, TEXT};
use super::{Effect, Hub, Now};
use crate::config;
use crate::event::NewValues;
use crate::held::Held;
use crate::http::{self, BodyLength, BodyReader, Method, ParsedHead};
use crate::json;
use crate::message::{Append, Appended, Lane, ToReader, ToWriter, Token};
use crate::problem::Problem;
use crate::route::{self, Answer, Route};
use crate::sse;
use crate::store::StoreError;

const TOO_MANY_HEADS: &str = "too many request heads are in memory";

const PREFLIGHT: &[&[u8]] = &[
    b"Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n",
    b"Access-Control-Allow-Headers: Content-Type, Accept, Last-Event-ID, If-None-Match, \
      Authorization, Cache-Control\r\n",
    b"Access-Control-Max-Age: 86400\r\n",
];
const METRICS: &[&[u8]] =
    &[b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", NO_STORE];
const PAGE: &[&[u8]] = &[b"Content-Type: text/html; charset=utf-8\r\n", NO_CACHE];

impl Hub {
    /// Bytes came from the peer: once a turn.
    pub fn input(&mut self, now: Now, key: u32, data: &[u8]) {
        let connection = &mut self.connections[key as usize];
        if matches!(connection.state, State::Streaming(_) | State::Lingering | State::Closed) {
            return;
        }
        self.metrics.bytes_received += data.len() as u64;
        if matches!(connection.state, State::Head { .. }) && connection.is_idle() {
            connection.since = now.milliseconds;
        }
        if connection.input.is_empty() {
            self.take(now, key, data);
        } else {
            connection.input.extend_from_slice(data);
            self.inputs_bytes += data.len();
            self.take_kept(now, key);
        }
        if self.goes_on(key) {
            self.effects.push_back(Effect::Resume(key));
        }
        self.arm(key);
    }

    /// Goes on with requests that came before: once a turn, instead of `input`. False where none
    /// could be answered now.
    pub fn go_on(&mut self, now: Now, key: u32) -> bool {
        let goes_on = self.goes_on(key);
        if goes_on {
            self.take_kept(now, key);
            self.resume(now, key);
        }
        goes_on
    }

    /// Something ended that the connection may have waited for. What came before has its next turn.
    pub(super) fn resume(&mut self, now: Now, key: u32) {
        if self.goes_on(key) || self.wants_input(key) {
            self.effects.push_back(Effect::Resume(key));
        } else if self.connections[key as usize].input_ended {
            self.after_input_ended(now, key);
        }
        self.arm(key);
    }

    fn take_kept(&mut self, now: Now, key: u32) {
        let input = std::mem::take(&mut self.connections[key as usize].input);
        self.inputs_bytes -= input.len();
        self.take(now, key, &input);
    }

    /// Takes requests, and keeps the rest unless it will never be answered.
    fn take(&mut self, now: Now, key: u32, bytes: &[u8]) {
        let used = self.consume(now, key, bytes);
        let rest = &bytes[used..];
        let full = self.all_inputs_bytes() + rest.len() > config::INPUTS_BYTES_MAX;
        match &mut self.connections[key as usize].state {
            State::Head { .. } if full => {
                self.metrics.hostile(Hostile::HeadsOverLimit);
                self.refuse(now, key, &Problem::new(503, TOO_MANY_HEADS));
            }
            // The connection ends after its reply, and what follows is asked for again.
            State::Answering(exchange, _) if full => exchange.head.keep_alive = false,
            State::Replying(replying) if full => replying.exchange.head.keep_alive = false,
            State::Head { .. } | State::Answering(..) | State::Replying(_) => {
                self.set_input(key, rest.to_vec());
            }
            _ => {}
        }
    }

    /// Takes requests from `bytes` as far as they can be answered now, and no more than one
    /// connection's share of a turn; returns how much it took.
    fn consume(&mut self, now: Now, key: u32, bytes: &[u8]) -> usize {
        let (mut used, mut requests) = (0, 0);
        loop {
            let connection = &mut self.connections[key as usize];
            let full = connection.outbox.bytes() > self.options.outbox_bytes_max;
            let rest = &bytes[used..];
            connection.put_off = !rest.is_empty();
            match &mut connection.state {
                State::Head { .. } if full || rest.is_empty() => return used,
                State::Head { .. } if requests == config::TURN_REQUESTS_MAX => return used,
                State::Head { scanned } => {
                    match http::parse_head(rest, scanned, self.options.body_bytes_max) {
                        Ok(Some(parsed)) => {
                            used += parsed.length;
                            requests += 1;
                            self.begin(now, key, parsed, bytes.len() > used);
                        }
                        Ok(None) => {
                            connection.put_off = false;
                            return used;
                        }
                        Err(problem) => {
                            self.metrics.hostile(Hostile::Malformed);
                            self.refuse(now, key, &problem);
                            return bytes.len();
                        }
                    }
                }
                State::Body(_) if rest.is_empty() => return used,
                State::Body(_) => match self.body(now, key, rest) {
                    Ok(consumed) => used += consumed,
                    Err(problem) => {
                        self.metrics.hostile(Hostile::Malformed);
                        self.refuse(now, key, &problem);
                        return bytes.len();
                    }
                },
                _ => return used,
            }
        }
    }

    /// A head is complete.
    fn begin(&mut self, now: Now, key: u32, parsed: ParsedHead<'_>, body_began: bool) {
        let ParsedHead { head, path, query, .. } = parsed;
        self.exchanges = self.exchanges.wrapping_add(1);
        let target = match head.method {
            Method::Options => Ok(Target::Preflight),
            _ => route::find(head.method, path).map(Target::Route),
        };
        let query_kept_bytes = if head.body == BodyLength::None { 0 } else { query.len() };
        let exchange = Box::new(Exchange {
            number: self.exchanges,
            kind: Kind::of(path, sse::wants_stream(&head.accept)),
            held: self.hold_head(head.bytes() + query_kept_bytes),
            head,
            started: now.milliseconds,
            subject: String::new(),
        });
        let target = match target {
            Ok(target) => target,
            Err(problem) => return self.reply_unread(now, key, exchange, &problem),
        };
        if self.connections[key as usize].admission == Admission::Overflow {
            self.metrics.hostile(Hostile::TooManyConnections);
            return self.turn_away(now, key, exchange, &target, "too many connections");
        }
        if self.all_inputs_bytes() > config::INPUTS_BYTES_MAX {
            self.metrics.hostile(Hostile::HeadsOverLimit);
            return self.turn_away(now, key, exchange, &target, TOO_MANY_HEADS);
        }
        let reader = match exchange.head.body {
            BodyLength::None => return self.answer(now, key, exchange, &target, query, Vec::new()),
            length => BodyReader::new(length),
        };
        if exchange.head.expects_continue && !body_began {
            self.queue(now, key, http::CONTINUE.to_vec());
        }
        let connection = &mut self.connections[key as usize];
        connection.since = now.milliseconds;
        let query = query.to_owned();
        connection.state =
            State::Body(Box::new(Receiving { exchange, target, query, reader, body: Vec::new() }));
    }

    /// Counts the memory of what came with a head, unless it is small.
    fn hold_head(&self, bytes: usize) -> Option<Held> {
        (bytes > config::HEAD_SMALL_BYTES).then(|| self.heads_bytes.hold(bytes))
    }

    /// Part of a body came; returns how much of it was the body's.
    fn body(&mut self, now: Now, key: u32, bytes: &[u8]) -> Result<usize, Problem> {
        let connection = &mut self.connections[key as usize];
        let State::Body(receiving) = &mut connection.state else {
            unreachable!("called while a body arrives");
        };
        connection.since = now.milliseconds;
        let before = receiving.body.len();
        let progress =
            receiving.reader.read(bytes, &mut receiving.body, self.options.body_bytes_max);
        let bytes = receiving.body.len();
        self.bodies_bytes += bytes - before;
        let progress = progress?;
        if !self.has_room_for_body(bytes, 0) {
            self.metrics.hostile(Hostile::BodiesOverLimit);
            return Err(Problem::new(
                503,
                "too many request bodies are in memory; nothing was stored",
            ));
        }
        if progress.complete {
            let state = &mut self.connections[key as usize].state;
            let state = std::mem::replace(state, State::Head { scanned: 0 });
            let State::Body(receiving) = state else {
                unreachable!("the state was a body above");
            };
            let Receiving { mut exchange, target, query, body, .. } = *receiving;
            self.bodies_bytes -= body.len();
            // The head is needed until the reply begins, and the query may be the most of it.
            exchange.held = self.hold_head(exchange.head.bytes());
            self.answer(now, key, exchange, &target, &query, body);
        }
        Ok(progress.consumed)
    }

    /// The request is complete.
    fn answer(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        target: &Target,
        query: &str,
        body: Vec<u8>,
    ) {
        let Target::Route(route) = target else {
            let reply = Reply { status: 204, fields: PREFLIGHT, body: b"" };
            return self.reply(now, key, exchange, &reply);
        };
        let post = exchange.head.method == Method::Post;
        // A body that does not belong to a POST asks for nothing, and is not read.
        if post && body.len() > config::PARSE_ON_LOOP_BYTES_MAX {
            return self.parse_elsewhere(now, key, exchange, route, query.to_owned(), body);
        }
        match route.answer(post, query, &body, &self.options.limits) {
            Ok(answer) => self.dispatch(now, key, exchange, answer),
            Err(problem) => self.reply_problem(now, key, exchange, &problem),
        }
    }

    fn parse_elsewhere(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        route: &Route,
        query: String,
        body: Vec<u8>,
    ) {
        if self.reads.is_full(Lane::Parse) {
            return self.reply_problem(now, key, exchange, &busy("readers'"));
        }
        self.bodies_bytes += query.len() + body.len();
        self.connections[key as usize].state = State::Answering(exchange, Waiting::Parse);
        let token = self.token_of(key);
        self.ask_reader(ToReader::Parse { token, route: route.clone(), query, body });
    }

    pub(super) fn parsed(&mut self, now: Now, token: Token, answer: Result<Answer, Problem>) {
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        match answer {
            Ok(answer) => self.dispatch(now, key, exchange, answer),
            Err(problem) => self.reply_problem(now, key, exchange, &problem),
        }
        self.resume(now, key);
    }

    /// What the router's answer asks for.
    fn dispatch(&mut self, now: Now, key: u32, mut exchange: Box<Exchange>, answer: Answer) {
        if self.options.access_log {
            exchange.subject = subject(&answer);
        }
        match answer {
            Answer::Select(selection) => self.select(now, key, exchange, selection),
            Answer::Compare(items) => self.compare(now, key, exchange, items),
            Answer::Append { id, values } => {
                let token = Token { connection: key, exchange: exchange.number };
                let append = Append { token, id, values };
                self.append(now, key, exchange, append);
            }
            Answer::Health => self.ask_health(now, key, exchange),
            Answer::Metrics => {
                let body = self.render_metrics();
                let reply = Reply { status: 200, fields: METRICS, body: body.as_bytes() };
                self.reply(now, key, exchange, &reply);
            }
            Answer::Page => {
                let reply = Reply { status: 200, fields: PAGE, body: route::page().as_bytes() };
                self.reply(now, key, exchange, &reply);
            }
        }
    }

    // --- Appending ----------------------------------------------------------------------------

    fn append(&mut self, now: Now, key: u32, exchange: Box<Exchange>, append: Append) {
        if self.credits.appends >= config::APPENDS_IN_FLIGHT_MAX
            || !self.has_room_for_body(append.bytes(), append.bytes())
        {
            self.metrics.appends_refused += 1;
            return self.reply_problem(now, key, exchange, &busy("writer's"));
        }
        self.credits.appends += 1;
        self.bodies_bytes += append.bytes();
        self.connections[key as usize].state = State::Answering(exchange, Waiting::Append);
        self.effects.push_back(Effect::ToWriter(ToWriter::Append(append)));
    }

    /// An append is durable.
    pub(super) fn acknowledge(&mut self, now: Now, appended: &Appended) {
        let new = appended.placed.iter().filter(|placed| placed.new).count();
        self.metrics.events_appended += new as u64;
        self.metrics.events_repeated += (appended.placed.len() - new) as u64;
        let Some((key, exchange, waiting)) = self.take_answering(appended.append.token) else {
            return;
        };
        assert!(matches!(waiting, Waiting::Append), "an append was asked for");
        let id_bytes = appended.append.id.as_str().len();
        let mut body = self.buffers.take(64 + id_bytes + 112 * appended.placed.len());
        write_append_body(&mut body, appended);
        let reply = Reply {
            status: if new > 0 { 201 } else { 200 },
            fields: &[JSON, NO_STORE],
            body: &body,
        };
        self.reply(now, key, exchange, &reply);
        self.buffers.keep(body);
        self.resume(now, key);
    }

    pub(super) fn append_failed(&mut self, now: Now, token: Token, error: &StoreError) {
        self.metrics.appends_failed += 1;
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        let status = if matches!(error, StoreError::Full(_)) { 507 } else { 500 };
        self.reply_problem(now, key, exchange, &Problem::new(status, error.to_string()));
        self.resume(now, key);
    }

    // --- Health -------------------------------------------------------------------------------

    fn ask_health(&mut self, now: Now, key: u32, exchange: Box<Exchange>) {
        if self.credits.pings >= config::PINGS_IN_FLIGHT_MAX {
            return self.reply_problem(now, key, exchange, &busy("writer's"));
        }
        self.credits.pings += 1;
        let connection = &mut self.connections[key as usize];
        connection.state = State::Answering(exchange, Waiting::Health);
        connection.since = now.milliseconds;
        let token = self.token_of(key);
        self.effects.push_back(Effect::ToWriter(ToWriter::Ping { token }));
    }

    pub(super) fn healthy(&mut self, now: Now, token: Token) {
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        let reply = Reply { status: 200, fields: &[TEXT, NO_STORE], body: b"ok\n" };
        self.reply(now, key, exchange, &reply);
        self.resume(now, key);
    }

    pub(super) fn unhealthy(&mut self, now: Now, key: u32) {
        let token = self.token_of(key);
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        let detail = format!("the writer did not answer within {} ms", config::HEALTH_TIMEOUT);
        self.reply_problem(now, key, exchange, &Problem::new(503, detail));
        self.resume(now, key);
    }

    // --- Ends -------------------------------------------------------------------------------

    /// The peer will send nothing more: what is complete is answered, what is not never will be.
    pub(super) fn after_input_ended(&mut self, now: Now, key: u32) {
        match &self.connections[key as usize].state {
            State::Head { .. } if self.connections[key as usize].has_put_off() => {}
            State::Head { .. } => self.end_output(now, key),
            State::Body(_) => {
                let problem =
                    Problem::bad_request("the connection ended within the request's body");
                self.refuse(now, key, &problem);
            }
            // A stream has nobody any more, but what stands before it in the outbox may have.
            State::Streaming(_) => self.end_output(now, key),
            State::Lingering => self.close(key),
            State::Answering(..) | State::Replying(_) | State::Closing | State::Closed => {}
        }
    }

    /// Takes the exchange that waits for the answer `token` names, if it still does.
    pub(super) fn take_answering(&mut self, token: Token) -> Option<(u32, Box<Exchange>, Waiting)> {
        let key = self.addressee(token)?;
        let state = &mut self.connections[key as usize].state;
        if !matches!(state, State::Answering(..)) {
            return None;
        }
        match std::mem::replace(state, State::Head { scanned: 0 }) {
            State::Answering(exchange, waiting) => Some((key, exchange, waiting)),
            _ => unreachable!("it was answering above"),
        }
    }
}

pub(super) fn busy(whose: &str) -> Problem {
    Problem::new(503, format!("the {whose} queue is full; nothing was stored, try again"))
}

fn write_append_body(out: &mut Vec<u8>, appended: &Appended) {
    let Append { id, values, .. } = &appended.append;
    let many = matches!(values, NewValues::List(_));
    out.extend_from_slice(b"{\"id\":");
    json::write_string(out, id.as_str());
    out.extend_from_slice(if many { b",\"events\":[" } else { b"," });
    for (place, (value, placed)) in values.iter().zip(&appended.placed).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(if many { b"{\"seq\":" } else { b"\"seq\":" });
        out.extend_from_slice(itoa::Buffer::new().format(placed.seq).as_bytes());
        out.extend_from_slice(b",\"hash\":\"");
        out.extend_from_slice(&value.hash.digits());
        out.extend_from_slice(if many { b"\"}" } else { b"\"" });
    }
    out.extend_from_slice(if many { b"]}" } else { b"}" });
}

/// What an access line says of a request, identifiers shortened.
fn subject(answer: &Answer) -> String {
    match answer {
        Answer::Select(selection) => match selection.items.as_slice() {
            [item] => format!(" {:?}", item.id),
            items => format!(" {:?} and {} more", items[0].id, items.len() - 1),
        },
        Answer::Compare(items) => format!(" comparisons {}", items.len()),
        Answer::Append { id, values } => format!("{id:?} values {}", values.len()),
        Answer::Health | Answer::Metrics | Answer::Page => String::new(),
    }
}
