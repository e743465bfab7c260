//! Owns what filters need of the hub: room for them in memory, the preparation of filtered and of
//! large reads, and comparisons. How hashes are put to filters is `plan`'s and `compare`'s business.

use std::sync::Arc;

use super::connection::{Exchange, State, Waiting};
use super::exchange::busy;
use super::reply::{JSON, NO_STORE, PROBLEM, Reply, VARY};
use super::{Hub, Now};
use crate::compare::Comparing;
use crate::config;
use crate::held::Held;
use crate::json;
use crate::message::{Asker, Lane, NextPage, Slot, ToReader, Token};
use crate::plan::{ItemFilter, Prepared, Preparing, Purpose, ReadPlan, Undecoded};
use crate::problem::Problem;
use crate::selection::CompareItem;
use crate::store::StoreError;

impl Hub {
    /// Holds the memory of a plan's filters for as long as there is the plan. False when there is
    /// no room.
    pub(super) fn hold_filters(&mut self, plan: &mut ReadPlan) -> bool {
        let bytes = plan.items.iter().map(|item| match &item.filter {
            Some(ItemFilter::InverseBloom(filter)) => filter.bytes(),
            Some(ItemFilter::Sketch(sketch)) => sketch.bytes(),
            Some(ItemFilter::Peeled(_)) | None => 0,
        });
        let bytes = bytes.sum();
        if bytes > 0 {
            plan.held = self.hold_bytes(bytes);
            return plan.held.is_some();
        }
        true
    }

    /// Holds the memory of a selection, if it is a large one. `None` when there is no room.
    pub(super) fn hold_selection(&self, plan: &ReadPlan) -> Option<Option<Held>> {
        let names = plan.items.iter().map(|item| item.id.as_str().len());
        let bytes = names.map(|name| name + config::SELECTED_STORAGE_BYTES).sum();
        if bytes <= config::SELECTION_SMALL_BYTES {
            return Some(None);
        }
        let all = self.selections_bytes.get() + bytes;
        (all <= config::SELECTIONS_BYTES_MAX).then(|| Some(self.selections_bytes.hold(bytes)))
    }

    /// Filters share the memory of bodies: most came in one.
    fn hold_bytes(&mut self, bytes: usize) -> Option<Held> {
        self.has_room_for_body(bytes, bytes).then(|| self.filters_bytes.hold(bytes))
    }

    /// Whether a body of this size may be in memory, so much of which is not counted yet.
    pub(super) fn has_room_for_body(&self, bytes: usize, uncounted: usize) -> bool {
        let small = bytes <= config::BODY_SMALL_BYTES;
        let most = if small { config::BODIES_BYTES_MAX } else { config::BODIES_BYTES_LARGE_MAX };
        self.bodies_bytes + self.filters_bytes.get() + uncounted <= most
    }

    /// A place among the scans under way, where the plan needs one and there is one.
    fn permit_of(&mut self, plan: &ReadPlan) -> Option<Held> {
        if plan.needs_scans() { self.scan_permit() } else { None }
    }

    /// A place among the scans under way.
    fn scan_permit(&mut self) -> Option<Held> {
        (self.scans.get() < config::SCANS_MAX).then(|| self.scans.hold(1))
    }

    pub(super) fn prepare_reply(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        plan: ReadPlan,
    ) {
        let permit = self.permit_of(&plan);
        if plan.needs_scans() && permit.is_none() {
            return self.reply_problem(now, key, exchange, &busy("scans'"));
        }
        if self.reads.is_full(Lane::Large) {
            return self.reply_problem(now, key, exchange, &busy("readers'"));
        }
        let asker = Asker::Reply(Token { connection: key, exchange: exchange.number });
        self.connections[key as usize].state = State::Answering(exchange, Waiting::Prepare);
        let preparing = Box::new(Preparing::new(plan, Purpose::Reply, self.visible, permit));
        self.ask_reader(ToReader::Prepare { asker, preparing });
    }

    /// `open_stream` made sure of the permit.
    pub(super) fn prepare_stream(&mut self, slot: Slot, plan: ReadPlan) {
        let permit = self.permit_of(&plan);
        let preparing = Box::new(Preparing::new(plan, Purpose::Stream, self.visible, permit));
        self.ask_reader(ToReader::Prepare { asker: Asker::Stream(slot), preparing });
    }

    /// A slice of a reply's preparation was done.
    pub(super) fn reply_prepared(
        &mut self,
        now: Now,
        token: Token,
        prepared: Result<Prepared, StoreError>,
    ) {
        // A preparation whose client is gone ends here.
        if self.addressee(token).is_none() {
            return;
        }
        match prepared {
            Ok(Prepared::More(preparing)) => {
                let asker = Asker::Reply(token);
                self.ask_reader(ToReader::Prepare { asker, preparing });
            }
            Ok(Prepared::Ready { plan, to, end }) => {
                let (key, exchange) = self.take_waiting(token);
                self.open_prepared(key, exchange, Arc::new(plan), to, end);
            }
            Ok(Prepared::Undecoded(undecoded)) => {
                let (key, exchange) = self.take_waiting(token);
                let body = undecoded_body(&undecoded);
                let reply = Reply { status: 409, fields: &[PROBLEM, VARY, NO_STORE], body: &body };
                self.reply(now, key, exchange, &reply);
                self.resume(now, key);
            }
            Err(error) => self.read_failed(now, token, &error),
        }
    }

    fn take_waiting(&mut self, token: Token) -> (u32, Box<Exchange>) {
        let (key, exchange, _) =
            self.take_answering(token).expect("who is addressed waits for an answer");
        (key, exchange)
    }

    /// What the client's filters and the server's events have that the other lacks.
    pub(super) fn compare(
        &mut self,
        now: Now,
        key: u32,
        exchange: Box<Exchange>,
        items: Vec<CompareItem>,
    ) {
        if let Some(place) = items.iter().position(|item| self.is_over_too_much(item)) {
            let detail = format!(
                "items[{place}]: without an id a filter is over all {} events of the server; it \
                 may be over at most {}",
                self.visible,
                config::FILTER_EVENTS_MAX
            );
            return self.reply_problem(now, key, exchange, &Problem::bad_request(detail));
        }
        let Some((permit, memory)) = self.hold_comparison(&items) else {
            return self.reply_problem(now, key, exchange, &busy("scans'"));
        };
        let comparing = Box::new(Comparing::new(items, self.visible, permit, memory));
        let token = Token { connection: key, exchange: exchange.number };
        self.connections[key as usize].state = State::Answering(exchange, Waiting::Compare);
        self.ask_reader(ToReader::Page { token, page: NextPage::Compare(comparing) });
    }

    fn is_over_too_much(&self, item: &CompareItem) -> bool {
        item.id.is_none() && item.filter.is_some() && self.visible > config::FILTER_EVENTS_MAX
    }

    /// A place among the scans, and the memory of the filters and of what the server's own needs.
    fn hold_comparison(&mut self, items: &[CompareItem]) -> Option<(Held, Held)> {
        let filters = items.iter().filter_map(|item| item.filter.as_ref());
        let own = items.iter().any(|item| item.count.is_some());
        let own = usize::from(own) * config::OWN_FILTER_HASHES_BYTES_MAX;
        let bytes = own + filters.map(crate::filter::Filter::bytes).sum::<usize>();
        Some((self.scan_permit()?, self.hold_bytes(bytes)?))
    }

    /// The first page of a comparison came.
    pub(super) fn compared(&mut self, now: Now, token: Token, body: &[u8], next: Option<NextPage>) {
        let (key, exchange) = self.take_waiting(token);
        let reply = Reply { status: 200, fields: &[JSON, NO_STORE], body };
        match next {
            None => self.reply(now, key, exchange, &reply),
            Some(next) => {
                self.begin_reply(now, key, exchange, &reply, next);
                self.next_reply_page(key);
            }
        }
        self.resume(now, key);
    }
}

/// A problem (RFC 9457) whose extension lists the sketches that were too small.
fn undecoded_body(undecoded: &[Undecoded]) -> Vec<u8> {
    let mut out = br#"{"type":"about:blank","title":"Conflict","status":409,"detail":"#.to_vec();
    json::write_string(&mut out, "bloomFilter: a sketch is too small for the difference");
    out.extend_from_slice(br#","items":["#);
    for (place, undecoded) in undecoded.iter().enumerate() {
        out.extend_from_slice(if place > 0 { b",{\"id\":" } else { b"{\"id\":" });
        json::write_string(&mut out, undecoded.id.as_str());
        if let Some(cells) = undecoded.next_cells {
            out.extend_from_slice(b",\"nextCells\":");
            out.extend_from_slice(itoa::Buffer::new().format(cells).as_bytes());
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}
