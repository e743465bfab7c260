//! Owns the streams of the hub: opening a feed, what is broadcast to it, the pages it catches up
//! with, and how it ends. Encoding is `sse`'s, the feed's state `feed`'s.

use std::ops::Range;
use std::sync::Arc;

use super::connection::{Exchange, State};
use super::metrics::Hostile;
use super::reply::{NO_STORE, VARY, write_part};
use super::{Hub, Now, cursors};
use crate::config;
use crate::event::Seq;
use crate::feed::Feed;
use crate::held::Held;
use crate::http::{self, Framing, Method, Version};
use crate::id::Id;
use crate::index::Index;
use crate::json;
use crate::message::{Appended, Asker, From, Reading, Slot, ToReader, ToWriter};
use crate::outbox::Shared;
use crate::plan::{Prepared, Purpose, ReadPlan};
use crate::selection::Selection;
use crate::sse::{self, Frame};
use crate::store::StoreError;

const FIELDS: &[&[u8]] =
    &[b"Content-Type: text/event-stream\r\n", NO_STORE, b"X-Accel-Buffering: no\r\n", VARY];

/// Who has a slot.
#[derive(Debug)]
pub(super) enum Tenant {
    Serving(Stream),
    /// Its stream is gone; so many answers may still name the slot.
    Leaving {
        answers: u32,
        /// The writer holds the selection until it answered.
        _held: Option<Held>,
    },
}

#[derive(Debug)]
pub(super) struct Stream {
    connection: u32,
    feed: Feed,
    reading: Reading,
    /// All it reads; the index has the same list.
    ids: Arc<[Id]>,
    chunked: bool,
    /// What its selection takes of the memory of all.
    held: Option<Held>,
}

impl Hub {
    /// A selection is answered as a stream.
    pub(super) fn open_stream(
        &mut self,
        now: Now,
        key: u32,
        mut exchange: Box<Exchange>,
        selection: Selection,
    ) {
        // Every connection may have one that is served.
        let leaving = self.tenants.len().saturating_sub(self.connections.len());
        if self.is_stopping() || leaving >= config::STREAMS_LEAVING_MAX {
            exchange.head.keep_alive = false;
            return self.turn_stream_away(now, key, exchange);
        }
        let epochs = &self.options.epochs;
        let last_event_id = exchange.head.last_event_id.as_deref();
        let mut plan = cursors::stream_plan(selection, last_event_id, epochs, self.visible);
        let scans = usize::from(plan.needs_scans());
        let held = self.hold_selection(&plan);
        let scanning = self.scans.get() + scans <= config::SCANS_MAX;
        let Some(held) = held.filter(|_| scanning && self.hold_filters(&mut plan)) else {
            exchange.head.keep_alive = false;
            return self.turn_stream_away(now, key, exchange);
        };
        let chunked = exchange.head.version == Version::Http11;
        if exchange.head.method == Method::Head {
            exchange.head.keep_alive &= chunked;
            let mut out = Vec::new();
            self.write_stream_head(now, &mut out, &exchange);
            self.queue(now, key, out);
            return self.finish_exchange(now, key, exchange, 200);
        }
        let mut out = Vec::with_capacity(512);
        self.write_stream_head(now, &mut out, &exchange);
        let mut first = sse::retry(config::RETRY);
        if plan.reset {
            first.extend_from_slice(sse::RESET);
        }
        write_part(&mut out, &first, chunked);
        self.account(now, key, &exchange, 200);
        self.add_feed(key, plan, chunked, held);
        self.queue(now, key, out);
    }

    fn add_feed(&mut self, key: u32, plan: ReadPlan, chunked: bool, held: Option<Held>) {
        let ids = plan.ids();
        let mut feed = Feed::open(self.visible);
        let (reading, preparing) = if plan.needs_preparing(Purpose::Stream) {
            feed.asked();
            (Reading::Following(Arc::clone(&ids)), Some(plan))
        } else {
            (Reading::Opening(Arc::new(plan)), None)
        };
        let stream =
            Stream { connection: key, feed, reading, ids: Arc::clone(&ids), chunked, held };
        let slot = self.tenants.insert(Tenant::Serving(stream));
        let slot = Slot::try_from(slot).expect("fewer feeds than 2^32");
        let connection = &mut self.connections[key as usize];
        connection.state = State::Streaming(slot);
        self.set_input(key, Vec::new());
        self.metrics.streams += 1;
        self.ask_subscription(ToWriter::Subscribe { slot, ids });
        match preparing {
            Some(plan) => self.prepare_stream(slot, plan),
            None => self.next_stream_page(slot),
        }
    }

    /// The first page had to wait for its plan.
    pub(super) fn stream_prepared(
        &mut self,
        now: Now,
        slot: Slot,
        prepared: Result<Prepared, StoreError>,
    ) {
        let Tenant::Serving(stream) = &mut self.tenants[slot as usize] else {
            return self.tenant_answered(slot);
        };
        match prepared {
            Ok(Prepared::More(preparing)) => {
                self.ask_reader(ToReader::Prepare { asker: Asker::Stream(slot), preparing });
            }
            Ok(Prepared::Ready { plan, to, .. }) => {
                stream.reading = Reading::Opening(Arc::new(plan));
                let reading = stream.reading.clone();
                self.ask_reader(ToReader::Follow {
                    slot,
                    reading,
                    from: From::Plan,
                    to,
                    gathering: None,
                });
            }
            Ok(Prepared::Undecoded(_)) => unreachable!("a stream goes on without such a sketch"),
            Err(error) => self.follow_failed(now, slot, &error),
        }
    }

    pub(super) fn joined(&mut self, slot: Slot, last: Seq) {
        if let Tenant::Serving(stream) = &mut self.tenants[slot as usize] {
            stream.feed.joined(last);
            self.next_stream_page(slot);
        }
    }

    /// Sends what a commit appended to one storage, with nothing to another between, to the feeds that
    /// its index names.
    pub(super) fn broadcast(&mut self, now: Now, appended: &[Appended], index: &Index) {
        let id = &appended[0].append.id;
        if index.subscribers(id).is_none() {
            return;
        }
        let epoch = self.options.epochs.current();
        let name = json::string(id.as_str());
        let placed = appended.iter().flat_map(|each| each.append.values.iter().zip(&each.placed));
        let new = placed.filter(|(_, placed)| placed.new);
        let mut events = new.map(|(value, placed)| (placed.seq, &*value.text)).peekable();
        while let Some(frame) = Frame::next(epoch, &name, &mut events) {
            let held = self.outboxes_bytes.hold(frame.bytes().len());
            let shared = Arc::new(Shared::new(frame.bytes().to_vec(), held));
            for slot in index.subscribers(id).into_iter().flatten() {
                self.offer(now, slot, &frame, &shared);
            }
            // A commit's frames may be six times its bytes.
            drop(shared);
            self.shed();
        }
    }

    fn offer(&mut self, now: Now, slot: Slot, frame: &Frame, shared: &Arc<Shared>) {
        // A slot that was given up may stand in the index a little longer.
        let Some(Tenant::Serving(stream)) = self.tenants.get_mut(slot as usize) else { return };
        let connection = &mut self.connections[stream.connection as usize];
        let range: Range<u32> = frame.range(stream.chunked);
        let queued = connection.outbox.bytes();
        let room = queued == 0 || queued + range.len() <= self.options.outbox_bytes_max;
        let key = stream.connection;
        if stream.feed.offer(frame.last(), room) {
            if queued == 0 {
                connection.outbox_since = now.milliseconds;
            }
            connection.outbox.push_shared(shared, range);
            self.metrics.events_delivered += frame.events() as u64;
            self.flush(key);
        } else {
            // Nothing may be queued whose drain would ask for it.
            self.next_stream_page(slot);
        }
    }

    /// Asks for the page that the feed needs, once its outbox has drained.
    pub(super) fn next_stream_page(&mut self, slot: Slot) {
        let Tenant::Serving(stream) = &mut self.tenants[slot as usize] else { return };
        let outbox = &self.connections[stream.connection as usize].outbox;
        if outbox.bytes() > config::OUTBOX_LOW_BYTES {
            return;
        }
        let Some((from, to)) = stream.feed.wants() else { return };
        stream.feed.asked();
        let reading = stream.reading.clone();
        self.metrics.pages += 1;
        self.ask_reader(ToReader::Follow { slot, reading, from, to, gathering: None });
    }

    /// A page of many storages is found in slices.
    pub(super) fn stream_gathered(&mut self, slot: Slot, rest: ToReader) {
        match &self.tenants[slot as usize] {
            Tenant::Serving(_) => self.ask_reader(rest),
            Tenant::Leaving { .. } => self.tenant_answered(slot),
        }
    }

    pub(super) fn stream_paged(
        &mut self,
        now: Now,
        slot: Slot,
        frames: Vec<u8>,
        cursor: Seq,
        synced: bool,
    ) {
        let Tenant::Serving(stream) = &mut self.tenants[slot as usize] else {
            return self.tenant_answered(slot);
        };
        stream.feed.paged(cursor, synced);
        if synced && let Reading::Opening(_) = &stream.reading {
            // The plan, and its filters, were for what existed when the stream opened.
            stream.reading = Reading::Following(Arc::clone(&stream.ids));
        }
        let key = stream.connection;
        let part = if stream.chunked {
            let mut out = Vec::with_capacity(frames.len() + 32);
            http::write_chunk(&mut out, &frames);
            out
        } else {
            frames
        };
        if !part.is_empty() {
            self.queue(now, key, part);
        }
        self.next_stream_page(slot);
    }

    /// The store failed: the client comes back, and resumes.
    pub(super) fn follow_failed(&mut self, now: Now, slot: Slot, error: &StoreError) {
        log::error!("a stream's page failed: {error}");
        let Tenant::Serving(stream) = &mut self.tenants[slot as usize] else {
            return self.tenant_answered(slot);
        };
        stream.feed.page_failed();
        let key = stream.connection;
        self.send_stream_away(now, key);
    }

    /// Silence for a while: a comment shows that both ends are there.
    pub(super) fn comment(&mut self, now: Now, key: u32) {
        let chunked = self.stream_is_chunked(key);
        let mut out = Vec::new();
        write_part(&mut out, sse::COMMENT, chunked);
        self.queue(now, key, out);
    }

    /// Ends a stream whole, and tells its client to come back.
    pub(super) fn send_stream_away(&mut self, now: Now, key: u32) {
        let chunked = self.stream_is_chunked(key);
        let mut out = Vec::new();
        let random = self.random();
        write_away(&mut out, random, chunked);
        self.queue(now, key, out);
        self.end_output(now, key);
    }

    /// A stream that cannot be served now: 200, a longer `retry:`, and the end.
    pub(super) fn turn_stream_away(&mut self, now: Now, key: u32, exchange: Box<Exchange>) {
        let chunked = exchange.head.version == Version::Http11;
        let mut out = Vec::new();
        self.write_stream_head(now, &mut out, &exchange);
        let random = self.random();
        if exchange.head.method != Method::Head {
            write_away(&mut out, random, chunked);
        }
        self.queue(now, key, out);
        self.metrics.hostile(Hostile::StreamsTurnedAway);
        self.finish_exchange(now, key, exchange, 200);
    }

    /// The connection leaves its feed; the slot is free once nothing can name it any more.
    pub(super) fn end_feed(&mut self, slot: Slot) {
        let tenant = &mut self.tenants[slot as usize];
        let Tenant::Serving(stream) = tenant else {
            unreachable!("a connection leaves its feed once");
        };
        let answers = 1 + u32::from(stream.feed.page_is_in_flight());
        *tenant = Tenant::Leaving { answers, _held: stream.held.take() };
        self.ask_subscription(ToWriter::Unsubscribe { slot });
    }

    /// One of the answers that could name a slot without a stream came.
    pub(super) fn tenant_answered(&mut self, slot: Slot) {
        let Tenant::Leaving { answers, .. } = &mut self.tenants[slot as usize] else {
            unreachable!("only a slot that is given up waits for its last answers");
        };
        *answers -= 1;
        if *answers == 0 {
            self.tenants.remove(slot as usize);
        }
    }

    /// Streams that are served, and those of them that are behind.
    pub(super) fn count_streams(&self) -> (usize, usize) {
        let serving = self.tenants.iter().filter_map(|(_, tenant)| match tenant {
            Tenant::Serving(stream) => Some(stream),
            Tenant::Leaving { .. } => None,
        });
        serving.fold((0, 0), |(all, lagging), stream| {
            (all + 1, lagging + usize::from(stream.feed.is_lagging()))
        })
    }

    fn stream_is_chunked(&self, key: u32) -> bool {
        let State::Streaming(slot) = self.connections[key as usize].state else {
            unreachable!("called for streams");
        };
        match &self.tenants[slot as usize] {
            Tenant::Serving(stream) => stream.chunked,
            Tenant::Leaving { .. } => unreachable!("a streaming connection's slot is served"),
        }
    }

    fn write_stream_head(&mut self, now: Now, out: &mut Vec<u8>, exchange: &Exchange) {
        let framing = match exchange.head.version {
            Version::Http11 => Framing::Chunked,
            Version::Http10 => Framing::UntilClose,
        };
        self.write_head(now, out, exchange, 200, framing, FIELDS);
    }
}

fn write_away(out: &mut Vec<u8>, random: u64, chunked: bool) {
    write_part(out, &sse::retry_away(random), chunked);
    if chunked {
        out.extend_from_slice(http::LAST_CHUNK);
    }
}
