//! Owns how the hub reads for a JSON reply: a selection becomes a plan, the readers' pages become
//! one reply, or the hot cache makes it at once. The plan's cursors are `cursors`' business, the
//! bytes of the pages the readers'.

use std::sync::Arc;

use super::connection::{Exchange, ReplyPage, Replying, State, Waiting};
use super::exchange::busy;
use super::reply::{JSON, NO_CACHE, NO_STORE, Reply, VARY, write_part};
use super::{Hub, Now, cursors};
use crate::config;
use crate::event::Seq;
use crate::hot::Lookup;
use crate::http::{self, Framing, Method, Version};
use crate::id::Id;
use crate::json;
use crate::message::{Filling, FirstPage, NextPage, ToReader, Token};
use crate::plan::{Purpose, ReadPlan};
use crate::problem::Problem;
use crate::selection::{Selection, Window};
use crate::sse;
use crate::store::StoreError;

impl Hub {
    pub(super) fn select(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        selection: Selection,
    ) {
        if sse::wants_stream(&exchange.head.accept) {
            return self.open_stream(now, key, exchange, selection);
        }
        let mut plan = cursors::plan(selection, &self.options.epochs, self.visible);
        let Some(held) = self.hold_selection(&plan) else {
            return self.reply_problem(now, key, exchange, &busy("selections'"));
        };
        plan.selection_held = held;
        if !self.hold_filters(&mut plan) {
            return self.reply_problem(now, key, exchange, &busy("filters'"));
        }
        if plan.needs_preparing(Purpose::Reply) {
            return self.prepare_reply(now, key, exchange, plan);
        }
        if let Some(page) = self.hot_page(&plan) {
            self.metrics.hot_hits += 1;
            return self.reply_page(now, key, exchange, &plan, page);
        }
        let plan = Arc::new(plan);
        let token = Token { connection: key, exchange: exchange.number };
        let request = match plan.items.as_slice() {
            [item]
                if item.filter.is_none() && matches!(self.hot.lookup(&item.id), Lookup::Absent) =>
            {
                let unless = self.not_wanted(&exchange, &plan);
                ToReader::Fill { token, plan: Arc::clone(&plan), to: self.visible, unless }
            }
            _ => self.open(token, &exchange, &plan, self.visible, None),
        };
        if self.reads.is_full(request.lane()) {
            return self.reply_problem(now, key, exchange, &busy("readers'"));
        }
        if let ToReader::Fill { .. } = &request {
            self.hot.begin(&plan.items[0].id);
        }
        self.connections[key as usize].state = State::Answering(exchange, Waiting::Read { plan });
        self.ask_reader(request);
    }

    fn open(
        &self,
        token: Token,
        exchange: &Exchange,
        plan: &Arc<ReadPlan>,
        to: Seq,
        end: Option<Seq>,
    ) -> ToReader {
        let unless = self.not_wanted(exchange, plan);
        ToReader::Open { token, plan: Arc::clone(plan), to, unless, end }
    }

    /// The newest events with which the client has the reply.
    fn not_wanted(&self, exchange: &Exchange, plan: &ReadPlan) -> Vec<Seq> {
        match &exchange.head.if_none_match {
            Some(tags) if is_cacheable(exchange) => {
                cursors::seqs_of_tags(tags, plan.reset, &self.options.epochs)
            }
            _ => Vec::new(),
        }
    }

    /// The whole reply, if the hot cache holds all of its storages.
    fn hot_page(&mut self, plan: &ReadPlan) -> Option<FirstPage> {
        let single = plan.items.len() == 1;
        let made = plan.items.len() <= config::HOT_ITEMS_MAX
            && (single || plan.window == Window::All)
            && !plan.has_filters();
        if !made {
            return None;
        }
        let mut body = self.buffers.take(512);
        let (mut last, mut cursor, mut more) = (0, None, false);
        json::write_reply_start(&mut body, plan.reset);
        for (place, item) in plan.items.iter().enumerate() {
            let Lookup::Ready(events) = self.hot.lookup(&item.id) else {
                self.buffers.keep(body);
                return None;
            };
            let mut places = events.after(item.after);
            match plan.window {
                Window::Oldest(limit) if places.len() > limit as usize => {
                    places.end = places.start + limit as usize;
                    cursor = Some(events.seq(places.end - 1));
                    more = true;
                }
                Window::Newest(limit) => {
                    places.start = places.start.max(places.end.saturating_sub(limit as usize));
                }
                Window::Oldest(_) | Window::All => {}
            }
            let json = events.slice(places);
            if place > 0 && body.len() + json.len() > config::HOT_REPLY_BYTES_MAX {
                // More than that is sent by pages, as the peer takes them.
                return None;
            }
            json::write_item_start(&mut body, place, item.id.as_str(), events.count() as u64);
            body.extend_from_slice(json);
            json::write_item_end(&mut body);
            last = last.max(events.last());
        }
        let cursor = cursor.unwrap_or_else(|| last.max(plan.after));
        json::write_reply_end(&mut body, self.options.epochs.cursor(cursor), more);
        Some(FirstPage { last, body, next: None })
    }

    /// A storage was read for the hot cache; the reply that asked for it is made from there, unless it is
    /// too large.
    pub(super) fn filled(
        &mut self,
        now: Now,
        token: Token,
        id: &Id,
        filling: Result<Filling, StoreError>,
    ) {
        match filling {
            Ok(Filling::Whole(events)) => self.hot.filled(id, Some(events)),
            Ok(Filling::Large(page)) => {
                self.hot.filled(id, None);
                return self.opened(now, token, page);
            }
            Err(error) => {
                self.hot.failed(id);
                return self.read_failed(now, token, &error);
            }
        }
        let Some((key, exchange, plan)) = self.take_reading(token) else { return };
        if let Some(page) = self.hot_page(&plan) {
            self.reply_page(now, key, exchange, &plan, page);
            return self.resume(now, key);
        }
        self.open_prepared(key, exchange, plan, self.visible, None);
    }

    /// Asks for the first page of a plan that is ready.
    pub(super) fn open_prepared(
        &mut self,
        key: u32,
        exchange: Box<Exchange>,
        plan: Arc<ReadPlan>,
        to: Seq,
        end: Option<Seq>,
    ) {
        let token = Token { connection: key, exchange: exchange.number };
        let request = self.open(token, &exchange, &plan, to, end);
        self.connections[key as usize].state = State::Answering(exchange, Waiting::Read { plan });
        self.ask_reader(request);
    }

    /// The first page of a JSON reply came.
    pub(super) fn opened(&mut self, now: Now, token: Token, page: FirstPage) {
        let Some((key, exchange, plan)) = self.take_reading(token) else { return };
        self.reply_page(now, key, exchange, &plan, page);
        self.resume(now, key);
    }

    fn take_reading(&mut self, token: Token) -> Option<(u32, Box<Exchange>, Arc<ReadPlan>)> {
        match self.take_answering(token)? {
            (key, exchange, Waiting::Read { plan }) => Some((key, exchange, plan)),
            _ => unreachable!("a page was asked for by a read"),
        }
    }

    /// Replies with the first page, or with 304 where the client has it.
    fn reply_page(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        plan: &ReadPlan,
        page: FirstPage,
    ) {
        let cacheable = is_cacheable(&exchange);
        // A URL with a filter in it is asked for once.
        let worth_keeping = cacheable && !plan.has_filters();
        let unchanged = cacheable
            && exchange.head.if_none_match.as_deref().is_some_and(|tags| {
                let tag = cursors::entity_tag(page.last, plan.reset, &self.options.epochs);
                http::none_match(tags, &tag)
            });
        let mut tag = self.buffers.take(64);
        tag.extend_from_slice(b"ETag: ");
        cursors::write_entity_tag(&mut tag, page.last, plan.reset, &self.options.epochs);
        tag.extend_from_slice(b"\r\n");
        let fields = [JSON, VARY, if worth_keeping { NO_CACHE } else { NO_STORE }, &tag];
        let fields = if cacheable { &fields[..] } else { &fields[..3] };
        let whole = Reply { status: 200, fields, body: &page.body };
        match page.next {
            _ if unchanged => {
                let reply = Reply { status: 304, fields: &fields[1..], body: b"" };
                self.reply(now, key, exchange, &reply);
            }
            None => self.reply(now, key, exchange, &whole),
            Some(next) => self.begin_reply(now, key, exchange, &whole, next),
        }
        self.buffers.keep(tag);
        self.buffers.keep(page.body);
    }

    /// A reply of several pages: its head, unless that is all of it.
    pub(super) fn begin_reply(
        &mut self,
        now: Now,
        key: u32,
        mut exchange: Box<Exchange>,
        reply: &Reply<'_>,
        next: NextPage,
    ) {
        let chunked = exchange.head.version == Version::Http11;
        exchange.head.keep_alive &= chunked;
        let framing = if chunked { Framing::Chunked } else { Framing::UntilClose };
        let mut out = Vec::with_capacity(reply.body.len() + 512);
        self.write_head(now, &mut out, &exchange, reply.status, framing, reply.fields);
        if exchange.head.method == Method::Head {
            self.queue(now, key, out);
            return self.finish_exchange(now, key, exchange, reply.status);
        }
        write_part(&mut out, reply.body, chunked);
        let replying = Replying { exchange, page: ReplyPage::Next(next) };
        self.connections[key as usize].state = State::Replying(Box::new(replying));
        self.queue(now, key, out);
    }

    /// The next page is asked for, if the outbox has drained and it was not yet.
    pub(super) fn next_reply_page(&mut self, key: u32) {
        let connection = &mut self.connections[key as usize];
        if connection.outbox.bytes() > config::OUTBOX_LOW_BYTES {
            return;
        }
        let State::Replying(replying) = &mut connection.state else { return };
        let exchange = replying.exchange.number;
        let ReplyPage::Next(page) = std::mem::replace(&mut replying.page, ReplyPage::InFlight)
        else {
            return;
        };
        self.ask_reader(ToReader::Page { token: Token { connection: key, exchange }, page });
    }

    /// A page came that is not the first of a read.
    pub(super) fn reply_paged(
        &mut self,
        now: Now,
        token: Token,
        body: Vec<u8>,
        next: Option<NextPage>,
    ) {
        let Some(key) = self.addressee(token) else { return };
        let connection = &mut self.connections[key as usize];
        let State::Replying(replying) = &mut connection.state else {
            return self.compared(now, token, &body, next);
        };
        let chunked = replying.exchange.head.version == Version::Http11;
        let mut out = Vec::with_capacity(body.len() + 32);
        write_part(&mut out, &body, chunked);
        if let Some(page) = next {
            replying.page = ReplyPage::Next(page);
            self.queue(now, key, out);
            return self.next_reply_page(key);
        }
        if chunked {
            out.extend_from_slice(http::LAST_CHUNK);
        }
        self.queue(now, key, out);
        let state = &mut self.connections[key as usize].state;
        let State::Replying(replying) = std::mem::replace(state, State::Head { scanned: 0 }) else {
            unreachable!("it was replying above")
        };
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
}

/// Whether the reply may be kept and asked for again by its entity tag.
fn is_cacheable(exchange: &Exchange) -> bool {
    exchange.head.method != Method::Post
}
