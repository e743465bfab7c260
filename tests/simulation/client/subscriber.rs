//! Owns the client that follows storages over any number of connections: what it gets is what it
//! selected, each event once and in order, up to the last; a filter or a window may leave out what
//! existed when the connection opened, and nothing after that.

use rill::config;
use rill::event::Seq;

use super::View;
use super::http;
use super::selects::{Filter, Held, Item, STORAGES, Selects, Since, Window, among_many, name};
use crate::random::Random;
use crate::record::Record;

const BOGUS: [&str; 5] =
    ["99999999", "7.ffffffff", "never", "1.", "99999999999999999999999.00000007"];

#[derive(Default)]
pub(super) struct Subscriber {
    /// What it follows: chosen once, when there may be something to leave out.
    selects: Option<Selects>,
    last_event_id: String,
    /// The connection that is open.
    opening: Option<Opening>,
    /// Everything up to here came, or was left out.
    place: Seq,
    pub(super) delivered: u64,
    head_seen: bool,
    ended: bool,
    body: Vec<u8>,
    event: (String, String, String),
}

/// What was asked for with a connection's request, and what is known of its history.
struct Opening {
    selects: Selects,
    /// The newest event that was noticed when it was sent.
    noticed: Seq,
    reset_due: bool,
    synced: bool,
    history: Vec<Seq>,
}

impl Subscriber {
    /// Whether what came over the connection is a stream to its end, or nothing of one.
    pub(super) fn is_whole(&self) -> bool {
        (!self.head_seen || self.ended) && self.body.is_empty()
    }

    pub(super) fn has_all(&self, record: &Record) -> bool {
        let Some(opening) = &self.opening else { return false };
        let missing = opening.selects.events(record, self.place, record.last());
        opening.synced && !self.ended && missing.is_empty()
    }

    pub(super) fn open(&mut self, view: &View<'_>, random: &mut Random) -> Vec<u8> {
        self.head_seen = false;
        self.ended = false;
        self.body.clear();
        self.event = Default::default();
        let mut selects = self.selects.get_or_insert_with(|| select(view, random)).clone();
        // Now and then it is one that no server gave out.
        let bogus = random.one_in(15);
        let last_event_id = match bogus {
            true => BOGUS[random.below(BOGUS.len() as u64) as usize],
            false => &self.last_event_id,
        };
        let (method, mut target, body) = selects.request(random);
        let mut fields = match random.below(3) {
            0 => "Accept: text/html, event/text-stream\r\n".to_owned(),
            _ => "Accept: text/event-stream\r\n".to_owned(),
        };
        if !last_event_id.is_empty() {
            if random.one_in(2) {
                fields += &format!("Last-Event-ID: {last_event_id}\r\n");
            } else {
                target += if target.contains('?') { "&" } else { "?" };
                target += &format!("lastEventId={last_event_id}");
            }
            let seq = last_event_id.split('.').next().and_then(|seq| seq.parse().ok());
            let seq = seq.filter(|_| !bogus);
            selects.after = Some(Since { text: last_event_id.to_owned(), seq });
            if seq.is_some() {
                selects.window = Window::All;
            }
        }
        let reset_due = selects.starts_over();
        if selects.after.is_some() || reset_due {
            // It is ignored where there is a cursor.
            let sketch = |filter: &mut Filter| matches!(filter.held, Held::Sketch { .. });
            selects.items.iter_mut().for_each(|item| drop(item.filter.take_if(sketch)));
        }
        self.place =
            if reset_due { 0 } else { selects.after.as_ref().and_then(|s| s.seq).unwrap_or(0) };
        let noticed = view.noticed;
        self.opening =
            Some(Opening { selects, noticed, reset_due, synced: false, history: vec![] });
        http::request(method, &target, &fields, &body)
    }

    pub(super) fn stream(&mut self, incoming: &mut Vec<u8>, epoch: &str, view: &View<'_>) {
        if !self.head_seen {
            let Some((head, length)) = http::head(incoming) else { return };
            match http::status(&head) {
                200 => {}
                // The clock jumped while the request was on its way; the connection ends.
                408 => return incoming.clear(),
                status => panic!("a stream was answered {status}: {head}"),
            }
            incoming.drain(..length);
            self.head_seen = true;
        }
        while let Some((chunk, used)) = http::whole_chunk(incoming) {
            assert!(!self.ended, "nothing follows the last chunk");
            self.ended = chunk.is_empty();
            assert!(chunk.is_empty() || chunk.ends_with(b"\n"), "whole lines only");
            self.body.extend_from_slice(&chunk);
            incoming.drain(..used);
        }
        while let Some(end) = self.body.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.body.drain(..=end).collect();
            let line = String::from_utf8(line).expect("streams are UTF-8");
            self.line(line.trim_end_matches('\n'), epoch, view);
        }
    }

    fn line(&mut self, line: &str, epoch: &str, view: &View<'_>) {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name {
            "" => self.dispatch(epoch, view),
            "event" => self.event.0 = value.to_owned(),
            "id" => self.event.1 = value.to_owned(),
            "data" => self.event.2 = value.to_owned(),
            ":" | "retry" => {}
            _ => panic!("a line that no stream has: {line:?}"),
        }
    }

    fn dispatch(&mut self, epoch: &str, view: &View<'_>) {
        let (name, id, data) = std::mem::take(&mut self.event);
        let data: serde_json::Value = serde_json::from_str(&data).expect("data is JSON");
        let opening = self.opening.as_mut().expect("a stream was opened");
        assert_eq!(opening.reset_due, name == "reset", "a reset comes first, and when it is due");
        self.last_event_id.clone_from(&id);
        match name.as_str() {
            "" => {
                let seq = data["seq"].as_u64().expect("a seq is a number");
                assert_eq!(id, format!("{seq}.{epoch}"));
                self.appended(seq, &data, view);
            }
            "synced" => {
                let cursor = data["cursor"].as_str().expect("a cursor is text");
                assert_eq!(id, cursor);
                let seq = cursor.strip_suffix(epoch).expect("of this server");
                self.synced(seq.trim_end_matches('.').parse().expect("SEQ.EPOCH"), &data, view);
            }
            "reset" => {
                opening.reset_due = false;
                assert_eq!(data["cursor"], "0");
            }
            _ => panic!("an event of a name that no stream has: {name}"),
        }
    }

    /// The next event of the selection, but for those that may be left out.
    fn appended(&mut self, seq: Seq, data: &serde_json::Value, view: &View<'_>) {
        let opening = self.opening.as_mut().expect("a stream was opened");
        assert!(seq > self.place, "{seq} came after {}", self.place);
        assert!(seq <= view.noticed, "what is delivered is visible");
        let event = view.record.event(seq).expect("what is delivered is durable");
        assert_eq!(data["id"], event.storage, "at {seq}");
        assert_eq!(data["value"], event.value, "at {seq}");
        let item = opening.selects.names(&event.storage).expect("it was selected");
        assert!(seq > opening.selects.floor(item), "it was asked for");
        let skipped = opening.selects.events(view.record, self.place, seq - 1);
        opening.may_skip(&skipped, view.record);
        if !opening.synced {
            let left_out = opening.leaves_out(event, view.record);
            assert_ne!(left_out, Some(true), "{seq} was to be left out");
            opening.history.push(seq);
        }
        self.place = seq;
        self.delivered += 1;
    }

    /// The history is complete: it is what the filters and the window leave of it.
    fn synced(&mut self, cursor: Seq, data: &serde_json::Value, view: &View<'_>) {
        let opening = self.opening.as_mut().expect("a stream was opened");
        assert!(!opening.synced, "synced comes once a connection");
        let selects = &opening.selects;
        // No event of the selection stands between the cursor and the moment it was opened at.
        let moment = cursor.max(opening.noticed).min(view.noticed);
        let start =
            selects.after.as_ref().and_then(|since| since.seq).filter(|_| !selects.starts_over());
        assert_eq!(cursor, selects.last(view.record, moment).max(start.unwrap_or(0)));
        let listed = data.get("items").map(|items| items.as_array().expect("a list"));
        assert_eq!(listed.is_some(), selects.items.len() <= config::SYNCED_ITEMS_MAX);
        for (item, listed) in selects.items.iter().zip(listed.into_iter().flatten()) {
            assert_eq!(listed["id"], item.storage);
            assert_eq!(listed["count"], view.record.count(&item.storage, moment));
        }
        let skipped = selects.events(view.record, self.place, moment);
        opening.may_skip(&skipped, view.record);
        if let Window::Newest(most) = opening.selects.window {
            let all = opening.selects.events(view.record, 0, moment);
            let kept =
                all.iter().filter(|(_, e)| opening.leaves_out(e, view.record) == Some(false));
            let kept: Vec<Seq> = kept.map(|(seq, _)| *seq).collect();
            let known = all.iter().all(|(_, e)| opening.leaves_out(e, view.record).is_some());
            if known {
                assert_eq!(opening.history, kept[kept.len().saturating_sub(most)..]);
            }
            assert!(opening.history.len() <= most);
        }
        opening.synced = true;
        self.place = self.place.max(cursor);
    }
}

impl Opening {
    /// Whether the event is left out of the history. It is not known of a sketch that may be too
    /// small: then nothing is.
    fn leaves_out(&self, event: &crate::record::Event, record: &Record) -> Option<bool> {
        if !self.selects.leaves_out(event) {
            return Some(false);
        }
        let sketches = self.selects.differences(record, record.last());
        let sketch = sketches.iter().find(|(storage, ..)| *storage == event.storage);
        match sketch {
            None => Some(true),
            Some(_) => None,
        }
    }

    fn may_skip(&self, skipped: &[(Seq, &crate::record::Event)], record: &Record) {
        for (seq, event) in skipped {
            assert!(!self.synced, "{seq} was skipped");
            let window =
                matches!(self.selects.window, Window::Newest(_)) && self.history.is_empty();
            let filtered = self.leaves_out(event, record) != Some(false);
            assert!(window || filtered, "{seq} was skipped");
        }
    }
}

/// What to follow.
fn select(view: &View<'_>, random: &mut Random) -> Selects {
    let mut storages: Vec<u64> = (0..STORAGES).filter(|_| random.one_in(2)).collect();
    if storages.is_empty() {
        storages.push(random.below(STORAGES));
    }
    let filtered = random.one_in(3);
    let item = |storage| {
        let storage = name(storage);
        let events = view.record.of(&storage, 0, view.noticed);
        let filter = (filtered && random.one_in(2)).then(|| Filter::of_some(events, random));
        Item { storage, after: None, filter }
    };
    let items = among_many(storages.into_iter().map(item).collect(), random);
    let window = match random.below(6) {
        0 => Window::Newest(random.below(8) as usize),
        _ => Window::All,
    };
    Selects { items, after: None, window }
}
