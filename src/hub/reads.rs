//! Owns how the hub reads for a JSON reply: a selection becomes a plan, the readers' pages become
//! one reply. The plan's cursors are `cursors`' business, the bytes of the pages the readers'.

use std::sync::Arc;

use super::connection::{Exchange, ReplyPage, Replying, State, Waiting};
use super::exchange::busy;
use super::reply::Reply;
use super::{Hub, Now, cursors};
use crate::config;
use crate::event::Seq;
use crate::http::{self, Framing, Method, Version};
use crate::message::{Position, ReadPlan, ToReader, Token};
use crate::problem::Problem;
use crate::selection::Selection;
use crate::sse;
use crate::store::StoreError;

impl Hub {
    pub(super) fn select(&mut self, now: Now, key: u32, exchange: Exchange, selection: &Selection) {
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
            ("Content-Type", super::reply::JSON),
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
        plan: Arc<ReadPlan>,
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
        super::reply::write_part(&mut out, body, chunked);
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
        super::reply::write_part(&mut out, &body, chunked);
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
}
