//! Owns what a simulated client selects, in which of the request's forms it says so, and what the
//! wire contract makes of it: the reply to it at a moment, said again from the contract and not
//! from the server's code.

use std::rc::Rc;

use rill::config;
use rill::event::Seq;
use serde_json::{Value, json};

use crate::filter::{self, Bloom, Digest};
use crate::random::Random;
use crate::record::{Event, Record};

pub(crate) const STORAGES: u64 = 5;

pub(crate) fn name(storage: u64) -> String {
    // Every form has to quote it.
    format!("s {storage}&\"ü")
}

/// What is selected: storages, each once.
#[derive(Clone, Debug)]
pub(crate) struct Selects {
    pub(crate) items: Vec<Item>,
    pub(crate) after: Option<Since>,
    pub(crate) window: Window,
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) storage: String,
    pub(crate) after: Option<Since>,
    pub(crate) filter: Option<Filter>,
}

/// A cursor as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Since {
    pub(crate) text: String,
    /// Where it stands; `None` where no server gave it out.
    pub(crate) seq: Option<Seq>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Window {
    All,
    Oldest(usize),
    Newest(usize),
}

#[derive(Clone)]
pub(crate) struct Filter {
    pub(crate) text: String,
    pub(crate) count: u64,
    pub(crate) held: Held,
}

/// What the client made its filter of.
#[derive(Clone)]
pub(crate) enum Held {
    /// Without the events that found no room.
    Bloom(Rc<Bloom>),
    Sketch {
        digests: Rc<Vec<Digest>>,
        cells: u32,
        seed: u64,
    },
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if matches!(self.held, Held::Bloom(_)) { 1 } else { 2 };
        write!(f, "version {version}, {} events", self.count)
    }
}

impl Filter {
    /// Of some of the storage's events, and of some that nobody else has.
    pub(crate) fn of_some<'a>(
        events: impl Iterator<Item = (Seq, &'a Event)>,
        random: &mut Random,
    ) -> Filter {
        let mut digests: Vec<Digest> = Vec::new();
        let share = 2 + random.below(20);
        digests.extend(events.map(|(_, e)| e.digest).filter(|_| !random.one_in(share)));
        digests.extend((0..random.below(4)).map(|n| filter::digest(&[n as u8])));
        let seed = random.next();
        if random.one_in(2) {
            let count = digests.len() as u64 + random.below(3);
            let (bloom, _) = Bloom::of(&digests, count, seed);
            return Filter { text: bloom.encode(), count, held: Held::Bloom(Rc::new(bloom)) };
        }
        let cells = 8 + random.below(120) as u32;
        let text = filter::sketch(&digests, cells, seed);
        let count = digests.len() as u64;
        Filter { text, count, held: Held::Sketch { digests: Rc::new(digests), cells, seed } }
    }

    pub(crate) fn seed(&self) -> u64 {
        match &self.held {
            Held::Bloom(bloom) => bloom.seed,
            Held::Sketch { seed, .. } => *seed,
        }
    }

    /// What a comparison may say that the server lacks.
    pub(crate) fn entries(&self) -> Vec<String> {
        match &self.held {
            Held::Bloom(bloom) => bloom.fingerprints().map(|f| format!("{f:016x}")).collect(),
            Held::Sketch { digests, seed, .. } => {
                digests.iter().map(|digest| filter::entry(2, digest, *seed)).collect()
            }
        }
    }

    pub(crate) fn leaves_out(&self, digest: &Digest) -> bool {
        match &self.held {
            Held::Bloom(bloom) => bloom.contains(digest),
            Held::Sketch { digests, .. } => digests.contains(digest),
        }
    }
}

/// Sometimes makes a large selection of a small one: the items stand among storages that nobody
/// appends to, more than one page or slice is made of.
pub(crate) fn among_many(items: Vec<Item>, random: &mut Random) -> Vec<Item> {
    if !random.one_in(12) {
        return items;
    }
    let none = |n| Item { storage: format!("none {n}"), after: None, filter: None };
    let mut all: Vec<Item> = (0..config::PAGE_ITEMS_MAX).map(none).collect();
    for item in items {
        let place = random.below(all.len() as u64) as usize;
        all.insert(place, item);
    }
    all
}

impl Selects {
    pub(crate) fn starts_over(&self) -> bool {
        let cursors = self.items.iter().filter_map(|item| item.after.as_ref());
        cursors.chain(&self.after).any(|since| since.seq.is_none())
    }

    pub(crate) fn names(&self, storage: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.storage == storage)
    }

    /// Past where the item's events are wanted.
    pub(crate) fn floor(&self, item: &Item) -> Seq {
        if self.starts_over() {
            return 0;
        }
        let seq = |since: &Option<Since>| since.as_ref().and_then(|since| since.seq).unwrap_or(0);
        seq(&self.after).max(seq(&item.after))
    }

    /// The last event of the storages up to `to`, 0 where there is none.
    pub(crate) fn last(&self, record: &Record, to: Seq) -> Seq {
        let items = self.items.iter();
        items.map(|item| record.last_of(&item.storage, to)).max().unwrap_or(0)
    }

    /// The selected events up to `to`, filtered or not, in order.
    pub(crate) fn events<'a>(
        &self,
        record: &'a Record,
        after: Seq,
        to: Seq,
    ) -> Vec<(Seq, &'a Event)> {
        let mut events: Vec<_> = self
            .items
            .iter()
            .flat_map(|item| record.of(&item.storage, after.max(self.floor(item)), to))
            .collect();
        events.sort_by_key(|(seq, _)| *seq);
        events
    }

    pub(crate) fn leaves_out(&self, event: &Event) -> bool {
        let filter = self.names(&event.storage).and_then(|item| item.filter.as_ref());
        filter.is_some_and(|filter| filter.leaves_out(&event.digest))
    }

    /// The reply, as it was when `moment` was the newest event.
    pub(crate) fn reply(&self, record: &Record, moment: Seq, epoch: &str) -> Value {
        let all = self.events(record, 0, moment);
        let mut sent: Vec<&(Seq, &Event)> =
            all.iter().filter(|(_, event)| !self.leaves_out(event)).collect();
        let after = self.after.as_ref().and_then(|since| since.seq).unwrap_or(0);
        let after = if self.starts_over() { 0 } else { after };
        let (mut cursor, mut more) = (self.last(record, moment).max(after), false);
        match self.window {
            Window::Oldest(limit) => {
                if let Some((last, _)) = limit.checked_sub(1).and_then(|last| sent.get(last)) {
                    more = all.iter().any(|(seq, _)| seq > last);
                    cursor = if more { *last } else { cursor };
                }
                sent.truncate(limit);
            }
            Window::Newest(most) => drop(sent.drain(..sent.len().saturating_sub(most))),
            Window::All => {}
        }
        let items: Vec<Value> = self
            .items
            .iter()
            .map(|item| {
                let own = sent.iter().filter(|(_, event)| event.storage == item.storage);
                let events: Vec<Value> =
                    own.map(|(seq, event)| json!({ "seq": seq, "value": event.value })).collect();
                let count = record.count(&item.storage, moment);
                json!({ "id": item.storage, "count": count, "events": events })
            })
            .collect();
        let cursor = format!("{cursor}.{epoch}");
        let mut reply = json!({ "items": items, "cursor": cursor, "more": more });
        if self.starts_over() {
            reply["reset"] = json!(true);
        }
        reply
    }

    /// The differences that the sketches have to tell, and the cells that there are for them.
    pub(crate) fn differences(&self, record: &Record, moment: Seq) -> Vec<(String, usize, u32)> {
        let sketches = self.items.iter().filter_map(|item| match &item.filter.as_ref()?.held {
            Held::Sketch { digests, cells, .. } => Some((item, digests, *cells)),
            Held::Bloom(_) => None,
        });
        sketches
            .map(|(item, digests, cells)| {
                let theirs: Vec<Digest> =
                    record.of(&item.storage, 0, moment).map(|(_, e)| e.digest).collect();
                (item.storage.clone(), difference(digests, &theirs), cells)
            })
            .collect()
    }

    // --- Its forms ------------------------------------------------------------------------------

    /// Method, target and body, in one of the forms that can say it.
    pub(crate) fn request(&self, random: &mut Random) -> (&'static str, String, String) {
        let plain = self.items.iter().all(|i| i.after.is_none() && i.filter.is_none());
        let single = self.items.len() == 1 && self.items[0].after.is_none();
        let post = random.one_in(3);
        if post {
            return ("POST", "/get".to_owned(), self.body(random).to_string());
        }
        let quoted = |text: &str| quote(text);
        let mut parameters = match random.below(5) {
            0 if single => {
                let filter = self.items[0].filter.as_ref();
                let filter = filter.map(|filter| format!("bloomFilter={}", filter.text));
                let id = format!("id={}", quoted(&self.items[0].storage));
                std::iter::once(id).chain(filter).collect()
            }
            1 if plain => self.listed("items"),
            2 if plain => self.listed("items%5B%5D"),
            3 => self.indexed(),
            _ => vec![format!("items={}", quoted(&json!(self.entries(false)).to_string()))],
        };
        match self.window {
            Window::All => {}
            Window::Oldest(limit) => parameters.push(format!("limit={limit}")),
            Window::Newest(most) => parameters.push(format!("last={most}")),
        }
        parameters.extend(self.after.as_ref().map(|since| format!("after={}", since.text)));
        ("GET", format!("/get?{}", parameters.join("&")), String::new())
    }

    fn listed(&self, name: &str) -> Vec<String> {
        self.items.iter().map(|item| format!("{name}={}", quote(&item.storage))).collect()
    }

    fn indexed(&self) -> Vec<String> {
        let mut parameters = Vec::new();
        for (place, item) in self.items.iter().enumerate() {
            let mut put = |key: &str, value: &str| {
                parameters.push(format!("items[{place}][{key}]={}", quote(value)));
            };
            put("id", &item.storage);
            if let Some(filter) = &item.filter {
                put("bloomFilter", &filter.text);
            }
            if let Some(since) = &item.after {
                put("after", &since.text);
            }
        }
        parameters
    }

    /// Items as JSON; `bare` numbers may stand for cursors that have no epoch.
    fn entries(&self, bare: bool) -> Vec<Value> {
        let since = |since: &Since| match since.text.parse::<u64>() {
            Ok(seq) if bare => json!(seq),
            _ => json!(since.text),
        };
        let entry = |item: &Item| {
            if item.after.is_none() && item.filter.is_none() {
                return json!(item.storage);
            }
            let mut entry = json!({ "id": item.storage });
            if let Some(filter) = &item.filter {
                entry["bloomFilter"] = json!(filter.text);
            }
            if let Some(after) = &item.after {
                entry["after"] = since(after);
            }
            entry
        };
        self.items.iter().map(entry).collect()
    }

    fn body(&self, random: &mut Random) -> Value {
        let mut entries = self.entries(true);
        let one = entries.len() == 1 && random.one_in(2);
        let items = if one { entries.remove(0) } else { json!(entries) };
        let mut body = json!({ "items": items, "unknown": null });
        match self.window {
            Window::All => {}
            Window::Oldest(limit) => body["limit"] = json!(limit),
            Window::Newest(most) => body["last"] = json!(most),
        }
        if let Some(since) = &self.after {
            body["after"] = json!(since.text);
        }
        body
    }
}

/// In how many events two sets differ.
pub(crate) fn difference(ours: &[Digest], theirs: &[Digest]) -> usize {
    let lacks = |set: &[Digest], other: &[Digest]| {
        set.iter().filter(|digest| !other.contains(digest)).count()
    };
    lacks(ours, theirs) + lacks(theirs, ours)
}

/// So many cells decode, whatever the seed: the contract's 48 and half as many again as there are
/// differences almost always do.
pub(crate) fn surely_decodes(difference: usize, cells: u32) -> bool {
    cells as usize >= 96 + 3 * difference
}

pub(crate) fn quote(text: &str) -> String {
    let quoted = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(quoted).collect()
}
