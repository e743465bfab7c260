//! Owns the exchanges of the hub: bytes become requests, the router's answers become replies or
//! requests to other threads, and what those answer becomes replies. Knows nothing of how events
//! are found; hands streams to `streams`.

use std::sync::Arc;

use super::connection::{Exchange, Receiving, ReplyPage, Replying, State, Target, Waiting};
use super::metrics::{Hostile, Kind};
use super::{Hub, Now, cursors};
use crate::config;
use crate::event::Seq;
use crate::http::{self, BodyLength, BodyReader, Fields, Framing, Head, Method, Version};
use crate::id::Id;
use crate::message::{Append, Appended, Position, ToReader, ToWriter, Token};
use crate::problem::Problem;
use crate::route::{self, Answer, Route};
use crate::selection::Selection;
use crate::sse;
use crate::store::StoreError;

const JSON: &str = "application/json";
const PREFLIGHT: &[(&str, &str)] = &[
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Content-Type, Accept, Last-Event-ID, If-None-Match, Authorization, Cache-Control",
    ),
    ("Access-Control-Max-Age", "86400"),
];

/// What is known of a reply besides its exchange.
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl Hub {
    /// Bytes came from the peer.
    pub fn input(&mut self, now: Now, key: u32, data: &[u8]) {
        let connection = &mut self.connections[key as usize];
        if matches!(connection.state, State::Streaming(_) | State::Lingering | State::Closed) {
            return;
        }
        self.metrics.bytes_received += data.len() as u64;
        if !connection.input.is_empty() {
            connection.input.extend_from_slice(data);
            self.resume(now, key);
            return;
        }
        if matches!(connection.state, State::Head { .. }) {
            connection.since = now.milliseconds;
        }
        let used = self.consume(now, key, data);
        self.keep(key, &data[used..]);
        self.arm(key);
    }

    /// Goes on with what came before and waited.
    pub(super) fn resume(&mut self, now: Now, key: u32) {
        let mut input = std::mem::take(&mut self.connections[key as usize].input);
        if !input.is_empty() {
            let used = self.consume(now, key, &input);
            input.drain(..used);
            self.keep(key, &input);
        }
        let connection = &self.connections[key as usize];
        if connection.input_ended {
            self.after_input_ended(now, key);
        } else if connection.wants_input(self.options.outbox_bytes_max) {
            self.effects.push(super::Effect::Resume(key));
        }
        self.arm(key);
    }

    /// Keeps bytes that no exchange took, unless none ever will.
    fn keep(&mut self, key: u32, rest: &[u8]) {
        let connection = &mut self.connections[key as usize];
        let taken = matches!(
            connection.state,
            State::Head { .. } | State::Answering(..) | State::Replying(_)
        );
        if taken {
            connection.input = rest.to_vec();
        }
    }

    /// Takes requests from `bytes` as far as they can be answered now; returns how much it took.
    fn consume(&mut self, now: Now, key: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let connection = &mut self.connections[key as usize];
            let full = connection.outbox.bytes() > self.options.outbox_bytes_max;
            let rest = &bytes[used..];
            match &mut connection.state {
                State::Head { .. } if full || rest.is_empty() => return used,
                State::Head { scanned } => {
                    match http::parse_head(rest, scanned, self.options.body_bytes_max) {
                        Ok(Some((head, length))) => {
                            used += length;
                            self.begin(now, key, head, bytes.len() > used);
                        }
                        Ok(None) => return used,
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
    fn begin(&mut self, now: Now, key: u32, head: Head, body_began: bool) {
        self.exchanges = self.exchanges.wrapping_add(1);
        let target = match head.method {
            Method::Options => Ok(Target::Preflight),
            _ => route::find(head.method, &head.path).map(Target::Route),
        };
        let exchange = Exchange {
            number: self.exchanges,
            head,
            started: now.milliseconds,
            subject: String::new(),
        };
        let target = match target {
            Ok(target) => target,
            Err(problem) => return self.reply_unread(now, key, exchange, &problem),
        };
        if self.connections.len() > self.options.connections_max {
            self.metrics.hostile(Hostile::TooManyConnections);
            return self.turn_away(now, key, exchange, &target, "too many connections");
        }
        let reader = match exchange.head.body {
            BodyLength::None => return self.answer(now, key, exchange, &target, Vec::new()),
            length => BodyReader::new(length),
        };
        if exchange.head.expects_continue && !body_began {
            self.queue(now, key, http::CONTINUE.to_vec());
        }
        let connection = &mut self.connections[key as usize];
        connection.since = now.milliseconds;
        connection.state =
            State::Body(Box::new(Receiving { exchange, target, reader, body: Vec::new() }));
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
        self.bodies_bytes += receiving.body.len() - before;
        let progress = progress?;
        if self.bodies_bytes > config::BODIES_BYTES_MAX {
            self.metrics.hostile(Hostile::BodiesOverLimit);
            return Err(Problem::new(
                503,
                "too many request bodies are in memory; nothing was stored",
            ));
        }
        if progress.complete {
            let state = std::mem::replace(&mut connection.state, State::Head { scanned: 0 });
            let State::Body(receiving) = state else {
                unreachable!("the state was a body above");
            };
            let Receiving { exchange, target, body, .. } = *receiving;
            self.bodies_bytes -= body.len();
            self.answer(now, key, exchange, &target, body);
        }
        Ok(progress.consumed)
    }

    /// The request is complete.
    fn answer(&mut self, now: Now, key: u32, exchange: Exchange, target: &Target, body: Vec<u8>) {
        let Target::Route(route) = target else {
            let reply = Reply { status: 204, fields: PREFLIGHT, body: b"" };
            return self.reply(now, key, exchange, &reply);
        };
        if body.len() > config::PARSE_ON_LOOP_BYTES_MAX {
            return self.parse_elsewhere(now, key, exchange, route, body);
        }
        let post = exchange.head.method == Method::Post;
        match route.answer(post, &exchange.head.query, &body, &self.options.limits) {
            Ok(answer) => self.dispatch(now, key, exchange, answer),
            Err(problem) => self.reply_problem(now, key, exchange, &problem),
        }
    }

    fn parse_elsewhere(
        &mut self,
        now: Now,
        key: u32,
        exchange: Exchange,
        route: &Route,
        body: Vec<u8>,
    ) {
        if self.waiting_reads.len() >= config::READS_WAITING_MAX {
            return self.reply_problem(now, key, exchange, &busy("readers'"));
        }
        self.bodies_bytes += body.len();
        let query = exchange.head.query.clone();
        self.connections[key as usize].state = State::Answering(Box::new(exchange), Waiting::Parse);
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
    fn dispatch(&mut self, now: Now, key: u32, mut exchange: Exchange, answer: Answer) {
        if self.options.access_log {
            exchange.subject = subject(&answer);
        }
        match answer {
            Answer::Select(selection) => self.select(now, key, exchange, &selection),
            Answer::Append { id, values, many } => {
                let token = Token { connection: key, exchange: exchange.number };
                let append = Append { token, id, values };
                self.append(now, key, exchange, append, many);
            }
            Answer::Health => self.ask_health(now, key, exchange),
            Answer::Metrics => {
                let body = self.render_metrics();
                let fields = [
                    ("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),
                    ("Cache-Control", "no-store"),
                ];
                let reply = Reply { status: 200, fields: &fields, body: body.as_bytes() };
                self.reply(now, key, exchange, &reply);
            }
            Answer::Page => {
                let fields =
                    [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache")];
                let reply = Reply { status: 200, fields: &fields, body: route::page().as_bytes() };
                self.reply(now, key, exchange, &reply);
            }
        }
    }

    // --- Reading ------------------------------------------------------------------------------

    fn select(&mut self, now: Now, key: u32, exchange: Exchange, selection: &Selection) {
        if let Some(item) = selection.items.iter().position(|item| item.filter.is_some()) {
            let detail = format!("items[{item}].bloomFilter: this version serves no filters");
            return self.reply_problem(now, key, exchange, &Problem::new(501, detail));
        }
        if sse::wants_stream(&exchange.head.accept) {
            return self.open_stream(now, key, exchange, selection);
        }
        if self.waiting_reads.len() >= config::READS_WAITING_MAX {
            return self.reply_problem(now, key, exchange, &busy("readers'"));
        }
        let plan = Arc::new(cursors::plan(selection, &self.options.epochs, self.visible));
        let cacheable = exchange.head.method != Method::Post;
        let unless = match &exchange.head.if_none_match {
            Some(tags) if cacheable => {
                cursors::seqs_of_tags(tags, plan.reset, &self.options.epochs)
            }
            _ => Vec::new(),
        };
        let waiting = Waiting::Read { plan: Arc::clone(&plan), cacheable };
        self.connections[key as usize].state = State::Answering(Box::new(exchange), waiting);
        let token = self.token_of(key);
        self.ask_reader(ToReader::Open { token, plan, to: self.visible, unless });
    }

    /// The first page of a JSON reply came.
    pub(super) fn opened(
        &mut self,
        now: Now,
        token: Token,
        last: Seq,
        body: Vec<u8>,
        next: Option<Position>,
    ) {
        let Some((key, exchange, waiting)) = self.take_answering(token) else { return };
        let Waiting::Read { plan, cacheable } = waiting else {
            unreachable!("a page was asked for by a read");
        };
        let tag = cursors::entity_tag(last, plan.reset, &self.options.epochs);
        let fields = [
            ("Content-Type", JSON),
            ("Vary", "Accept"),
            ("Cache-Control", if cacheable { "no-cache" } else { "no-store" }),
            ("ETag", tag.as_str()),
        ];
        let fields = if cacheable { &fields[..] } else { &fields[..3] };
        let unchanged = cacheable
            && exchange.head.if_none_match.as_deref().is_some_and(|t| http::none_match(t, &tag));
        match next {
            _ if unchanged => {
                let reply = Reply { status: 304, fields: &fields[1..], body: b"" };
                self.reply(now, key, exchange, &reply);
            }
            None => {
                let reply = Reply { status: 200, fields, body: &body };
                self.reply(now, key, exchange, &reply);
            }
            Some(position) => {
                self.begin_reply(now, key, exchange, fields, &body, plan, position);
            }
        }
        self.resume(now, key);
    }

    /// A reply of several pages.
    #[allow(clippy::too_many_arguments)]
    fn begin_reply(
        &mut self,
        now: Now,
        key: u32,
        mut exchange: Exchange,
        fields: &[(&str, &str)],
        body: &[u8],
        plan: Arc<crate::message::ReadPlan>,
        position: Position,
    ) {
        let chunked = exchange.head.version == Version::Http11;
        exchange.head.keep_alive &= chunked;
        let framing = if chunked { Framing::Chunked } else { Framing::UntilClose };
        let mut out = Vec::with_capacity(body.len() + 512);
        self.write_head(now, &mut out, &exchange, 200, framing, fields);
        if exchange.head.method == Method::Head {
            self.queue(now, key, out);
            return self.finish_exchange(now, key, exchange, 200);
        }
        write_part(&mut out, body, chunked);
        let page = ReplyPage::Next(position);
        self.connections[key as usize].state =
            State::Replying(Box::new(Replying { exchange, plan, page }));
        self.queue(now, key, out);
    }

    /// The outbox has drained: the next page is asked for, if it was not yet.
    pub(super) fn next_reply_page(&mut self, key: u32) {
        let token = self.token_of(key);
        let Some(page) = self.reply_page_of(key) else { return };
        let ReplyPage::Next(position) = *page else { return };
        *page = ReplyPage::InFlight;
        let State::Replying(replying) = &self.connections[key as usize].state else {
            unreachable!("its page was just taken");
        };
        let plan = Arc::clone(&replying.plan);
        self.ask_reader(ToReader::Page { token, plan, position });
    }

    pub(super) fn reply_paged(
        &mut self,
        now: Now,
        token: Token,
        body: Vec<u8>,
        next: Option<Position>,
    ) {
        let Some(key) = self.addressee(token) else { return };
        let connection = &mut self.connections[key as usize];
        let State::Replying(replying) = &mut connection.state else {
            unreachable!("a page was asked for by a reply");
        };
        let chunked = replying.exchange.head.version == Version::Http11;
        let mut out = Vec::with_capacity(body.len() + 32);
        write_part(&mut out, &body, chunked);
        if let Some(position) = next {
            replying.page = ReplyPage::Next(position);
            return self.queue(now, key, out);
        }
        if chunked {
            out.extend_from_slice(http::LAST_CHUNK);
        }
        self.queue(now, key, out);
        let state = std::mem::replace(
            &mut self.connections[key as usize].state,
            State::Head { scanned: 0 },
        );
        let State::Replying(replying) = state else { unreachable!("it was replying above") };
        self.finish_exchange(now, key, replying.exchange, 200);
        self.resume(now, key);
    }

    pub(super) fn read_failed(&mut self, now: Now, token: Token, error: &StoreError) {
        log::error!("a read failed: {error}");
        let Some(key) = self.addressee(token) else { return };
        if let State::Replying(_) = &self.connections[key as usize].state {
            // The head said 200: all that is left to say is that the reply is not whole.
            self.metrics.replies_cut += 1;
            return self.close(key);
        }
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        self.reply_problem(now, key, exchange, &Problem::new(500, error.to_string()));
        self.resume(now, key);
    }

    // --- Appending ----------------------------------------------------------------------------

    fn append(&mut self, now: Now, key: u32, exchange: Exchange, append: Append, many: bool) {
        if self.credits.appends >= config::APPENDS_IN_FLIGHT_MAX
            || self.bodies_bytes + append.bytes() > config::BODIES_BYTES_MAX
        {
            self.metrics.appends_refused += 1;
            return self.reply_problem(now, key, exchange, &busy("writer's"));
        }
        self.credits.appends += 1;
        self.bodies_bytes += append.bytes();
        let waiting = Waiting::Append { id: append.id.clone(), many };
        self.connections[key as usize].state = State::Answering(Box::new(exchange), waiting);
        self.effects.push(super::Effect::ToWriter(ToWriter::Append(append)));
    }

    /// An append is durable.
    pub(super) fn acknowledge(&mut self, now: Now, appended: &Appended) {
        let new = appended.placed.iter().filter(|placed| placed.new).count();
        self.metrics.events_appended += new as u64;
        self.metrics.events_repeated += (appended.placed.len() - new) as u64;
        let Some((key, exchange, waiting)) = self.take_answering(appended.append.token) else {
            return;
        };
        let Waiting::Append { id, many } = waiting else {
            unreachable!("an append was asked for");
        };
        let body = append_body(&id, appended, many);
        let reply = Reply {
            status: if new > 0 { 201 } else { 200 },
            fields: &[("Content-Type", JSON), ("Cache-Control", "no-store")],
            body: &body,
        };
        self.reply(now, key, exchange, &reply);
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

    fn ask_health(&mut self, now: Now, key: u32, exchange: Exchange) {
        if self.credits.pings >= config::PINGS_IN_FLIGHT_MAX {
            return self.reply_problem(now, key, exchange, &busy("writer's"));
        }
        self.credits.pings += 1;
        let connection = &mut self.connections[key as usize];
        connection.state = State::Answering(Box::new(exchange), Waiting::Health);
        connection.since = now.milliseconds;
        let token = self.token_of(key);
        self.effects.push(super::Effect::ToWriter(ToWriter::Ping { token }));
    }

    pub(super) fn healthy(&mut self, now: Now, token: Token) {
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        let fields = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")];
        self.reply(now, key, exchange, &Reply { status: 200, fields: &fields, body: b"ok\n" });
        self.resume(now, key);
    }

    pub(super) fn unhealthy(&mut self, now: Now, key: u32) {
        let token = self.token_of(key);
        let Some((key, exchange, _)) = self.take_answering(token) else { return };
        let detail = format!("the writer did not answer within {} ms", config::HEALTH_TIMEOUT);
        self.reply_problem(now, key, exchange, &Problem::new(503, detail));
        self.resume(now, key);
    }

    // --- Replies ------------------------------------------------------------------------------

    /// A request that is not read any further: if a body follows, the connection ends after it.
    fn reply_unread(&mut self, now: Now, key: u32, mut exchange: Exchange, problem: &Problem) {
        exchange.head.keep_alive &= exchange.head.body == BodyLength::None;
        self.reply_problem(now, key, exchange, problem);
    }

    /// What cannot be served now: a stream is told to come back, as a browser gives up for good on
    /// a 503; everything else is told so.
    fn turn_away(
        &mut self,
        now: Now,
        key: u32,
        mut exchange: Exchange,
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
        exchange: Exchange,
        problem: &Problem,
    ) {
        let body = http::write_problem_body(problem);
        let retry_after = config::RETRY_AFTER_SECONDS.to_string();
        let mut fields =
            vec![("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")];
        if problem.status == 503 {
            fields.push(("Retry-After", &retry_after));
        }
        if !problem.allow.is_empty() {
            fields.push(("Allow", problem.allow));
        }
        if route::find(exchange.head.method, &exchange.head.path) == Ok(Route::Get) {
            fields.push(("Vary", "Accept"));
        }
        let reply = Reply { status: problem.status, fields: &fields, body: &body };
        self.reply(now, key, exchange, &reply);
    }

    /// A whole reply.
    pub(super) fn reply(&mut self, now: Now, key: u32, exchange: Exchange, reply: &Reply<'_>) {
        let mut out = Vec::with_capacity(reply.body.len() + 512);
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
        fields: &[(&str, &str)],
    ) {
        self.refresh_date(now);
        let keep_alive = exchange.head.keep_alive && !self.is_stopping();
        let always = Fields { date: &self.date.1, cors_origin: &self.options.cors_origin };
        http::write_head(out, &always, exchange.head.version, status, keep_alive, framing, fields);
    }

    /// The reply is queued whole; the connection goes on to its next request, or ends.
    pub(super) fn finish_exchange(&mut self, now: Now, key: u32, exchange: Exchange, status: u16) {
        self.account(now, key, &exchange, status);
        if !exchange.head.keep_alive || self.is_stopping() {
            // Not through `leave`: nothing but the exchange was the state's.
            self.connections[key as usize].state = State::Closing;
            return self.end_output(now, key);
        }
        let connection = &mut self.connections[key as usize];
        connection.state = State::Head { scanned: 0 };
        connection.since = now.milliseconds;
        self.arm(key);
    }

    pub(super) fn account(&mut self, now: Now, key: u32, exchange: &Exchange, status: u16) {
        let kind = Kind::of(&exchange.head.path, sse::wants_stream(&exchange.head.accept));
        self.metrics.request(kind, status);
        if self.options.access_log {
            let peer = self.connections[key as usize].peer;
            log::info!(
                target: "access",
                "{} {:?} {}{} {status} {} ms",
                peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
                exchange.head.method,
                kind.name(),
                exchange.subject,
                now.milliseconds - exchange.started,
            );
        }
    }

    /// An error before there is a request to answer. The connection ends: where the next request
    /// would start is not known.
    fn refuse(&mut self, now: Now, key: u32, problem: &Problem) {
        self.leave(key);
        let head = Head { version: Version::Http11, ..Head::default() };
        let number = self.exchanges;
        let exchange = Exchange { number, head, started: now.milliseconds, subject: String::new() };
        self.connections[key as usize].state = State::Head { scanned: 0 };
        self.reply_problem(now, key, exchange, problem);
    }

    pub(super) fn refuse_slow(&mut self, now: Now, key: u32, detail: &str) {
        self.refuse(now, key, &Problem::new(408, detail));
    }

    /// The peer will send nothing more: what is complete is answered, what is not never will be.
    pub(super) fn after_input_ended(&mut self, now: Now, key: u32) {
        match &self.connections[key as usize].state {
            State::Head { .. } if self.outbox(key).bytes() > self.options.outbox_bytes_max => {}
            State::Head { .. } => self.end_output(now, key),
            State::Body(_) => {
                let problem =
                    Problem::bad_request("the connection ended within the request's body");
                self.refuse(now, key, &problem);
            }
            State::Streaming(_) | State::Lingering => self.close(key),
            State::Answering(..) | State::Replying(_) | State::Closing | State::Closed => {}
        }
    }

    /// Takes the exchange that waits for the answer `token` names, if it still does.
    fn take_answering(&mut self, token: Token) -> Option<(u32, Exchange, Waiting)> {
        let key = self.addressee(token)?;
        let state = &mut self.connections[key as usize].state;
        if !matches!(state, State::Answering(..)) {
            return None;
        }
        match std::mem::replace(state, State::Head { scanned: 0 }) {
            State::Answering(exchange, waiting) => Some((key, *exchange, waiting)),
            _ => unreachable!("it was answering above"),
        }
    }
}

fn busy(whose: &str) -> Problem {
    Problem::new(503, format!("the {whose} queue is full; nothing was stored, try again"))
}

pub(super) fn write_part(out: &mut Vec<u8>, part: &[u8], chunked: bool) {
    if chunked {
        http::write_chunk(out, part);
    } else {
        out.extend_from_slice(part);
    }
}

fn append_body(id: &Id, appended: &Appended, many: bool) -> Vec<u8> {
    let values = &appended.append.values;
    let mut out = Vec::with_capacity(64 + id.as_str().len() + 112 * values.len());
    out.extend_from_slice(b"{\"id\":");
    sse::write_json_string(&mut out, id.as_str());
    out.extend_from_slice(if many { b",\"events\":[" } else { b"," });
    for (place, (value, placed)) in values.iter().zip(&appended.placed).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(if many { b"{\"seq\":" } else { b"\"seq\":" });
        out.extend_from_slice(itoa::Buffer::new().format(placed.seq).as_bytes());
        out.extend_from_slice(b",\"hash\":\"");
        out.extend_from_slice(value.hash.to_string().as_bytes());
        out.extend_from_slice(if many { b"\"}" } else { b"\"" });
    }
    out.extend_from_slice(if many { b"]}" } else { b"}" });
    out
}

/// What an access line says of a request, identifiers shortened.
fn subject(answer: &Answer) -> String {
    match answer {
        Answer::Select(selection) => {
            format!(" {:?} of {}", selection.items[0].id, selection.items.len())
        }
        Answer::Append { id, values, .. } => format!(" {id:?} values {}", values.len()),
        Answer::Health | Answer::Metrics | Answer::Page => String::new(),
    }
}
