//! Owns the client that asks for JSON: reads of every form, comparisons, pages, several requests
//! behind each other. Every reply has to be the contract's at one moment between the request and
//! its end.

use std::collections::VecDeque;

use rill::event::Seq;
use serde_json::{Value, json};

use super::View;
use super::http::{self, Reply};
use super::selects::{Filter, Held, Item, STORAGES, Selects, Since, Window, among_many, name};
use super::selects::{difference, quote, surely_decodes};
use crate::filter::{self, Bloom, Digest};
use crate::random::Random;
use crate::record::Record;

/// Requests that are sent before there is a reply to the first.
const PIPELINED_MAX: usize = 4;

#[derive(Default)]
pub(super) struct Reader {
    asked: VecDeque<Asked>,
    /// Cursors and entity tags that replies had.
    cursors: Vec<String>,
    tags: Vec<String>,
    pub(super) checked: u64,
}

struct Asked {
    what: What,
    head: bool,
    /// The newest event that was noticed when it was sent.
    noticed: Seq,
}

enum What {
    Read {
        selects: Selects,
        tag: Option<String>,
        post: bool,
    },
    Compare(Vec<Compared>),
    /// Something else, with the statuses that it may have.
    Other(&'static [u16]),
}

struct Compared {
    storage: Option<String>,
    count: Option<u64>,
    filter: Option<Filter>,
}

const OTHERS: &[(&str, &str, &[u16])] = &[
    ("GET", "/", &[200]),
    ("GET", "/healthz", &[200, 503]),
    ("GET", "/metrics", &[200]),
    ("OPTIONS", "/get", &[204]),
    ("GET", "/nothing", &[404]),
    ("GET", "/set/a", &[405]),
    ("GET", "/get?id=a&limit=0", &[400]),
    ("POST", "/get", &[400]),
    ("POST", "/set/a", &[400]),
];

impl Reader {
    pub(super) fn is_busy(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn disconnected(&mut self) {
        self.asked.clear();
        // They may be another epoch's when they are used again: that is what they are kept for.
        self.cursors.truncate(8);
        self.tags.truncate(4);
    }

    pub(super) fn begin(
        &mut self,
        view: &View<'_>,
        epoch: &str,
        random: &mut Random,
    ) -> Option<Vec<u8>> {
        if self.asked.len() == PIPELINED_MAX {
            return None;
        }
        let noticed = view.noticed;
        let (head, what, request) = match random.below(8) {
            0 => {
                let (method, target, statuses) = OTHERS[random.below(OTHERS.len() as u64) as usize];
                (false, What::Other(statuses), http::request(method, target, "", ""))
            }
            1 | 2 => {
                let (items, request) = compare(view, random);
                (false, What::Compare(items), request)
            }
            _ => self.read(view, epoch, random),
        };
        self.asked.push_back(Asked { what, head, noticed });
        Some(request)
    }

    fn read(&self, view: &View<'_>, epoch: &str, random: &mut Random) -> (bool, What, Vec<u8>) {
        let selects = self.select(view, epoch, random);
        let (method, target, body) = selects.request(random);
        let post = method == "POST";
        let head = !post && random.one_in(10);
        let tag = random.one_in(4).then(|| pick(&self.tags, random)).flatten();
        let fields = match &tag {
            Some(tag) => format!("If-None-Match: {tag}\r\nAccept: application/json\r\n"),
            None => String::new(),
        };
        let method = if head { "HEAD" } else { method };
        (head, What::Read { selects, tag, post }, http::request(method, &target, &fields, &body))
    }

    fn select(&self, view: &View<'_>, epoch: &str, random: &mut Random) -> Selects {
        let window = match random.below(4) {
            0 => Window::Oldest(1 + random.below(10) as usize),
            1 => Window::Newest(random.below(10) as usize),
            _ => Window::All,
        };
        let cursors = !matches!(window, Window::Newest(_));
        let first = random.below(STORAGES);
        let many = if random.one_in(3) { 1 + random.below(3) } else { 1 };
        let items = (0..many).map(|n| {
            let storage = name((first + n) % STORAGES);
            let after = (cursors && random.one_in(6)).then(|| self.since(view, epoch, random));
            let filter = random.one_in(6).then(|| {
                let events = view.record.of(&storage, 0, view.noticed);
                Filter::of_some(events, random)
            });
            Item { storage, after: after.flatten(), filter }
        });
        let items = among_many(items.collect(), random);
        let after = (cursors && random.one_in(3)).then(|| self.since(view, epoch, random));
        Selects { items, after: after.flatten(), window }
    }

    /// A cursor of a reply, with its epoch or without, or one that nobody gave out.
    fn since(&self, view: &View<'_>, epoch: &str, random: &mut Random) -> Option<Since> {
        if random.one_in(8) {
            let text =
                ["99999999".to_owned(), "0.ffffffff".to_owned(), format!("99999999.{epoch}")];
            return Some(Since { text: pick(&text, random)?, seq: None });
        }
        let text = pick(&self.cursors, random)?;
        let seq: Seq = text.split('.').next()?.parse().ok()?;
        assert!(seq <= view.noticed, "a cursor is of what is visible");
        let text = if random.one_in(3) { seq.to_string() } else { text };
        Some(Since { text, seq: Some(seq) })
    }

    /// Whether the connection ends.
    pub(super) fn replies(&mut self, incoming: &mut Vec<u8>, epoch: &str, view: &View<'_>) -> bool {
        let mut closes = false;
        loop {
            let to_head = self.asked.front().is_some_and(|asked| asked.head);
            let Some(reply) = http::take(incoming, to_head) else { return closes };
            closes |= reply.closes();
            let Some(asked) = self.asked.pop_front() else {
                assert_eq!(reply.status, 408, "nobody asked: {}", reply.head);
                continue;
            };
            self.reply(&asked, &reply, epoch, view);
            if reply.closes() {
                // Nothing behind it is answered.
                self.asked.clear();
            }
        }
    }

    fn reply(&mut self, asked: &Asked, reply: &Reply, epoch: &str, view: &View<'_>) {
        let status = reply.status;
        match &asked.what {
            _ if status == 408 => {}
            _ if status == 500 && view.reads_failed => {}
            _ if status == 503 && view.crowded && reply.closes() => {}
            What::Other(statuses) => assert!(statuses.contains(&status), "{status}"),
            What::Compare(items) => check_comparison(items, asked, reply, epoch, view),
            What::Read { selects, tag, post } => {
                let moments = moments(selects, asked, view);
                if status == 409 {
                    // One to HEAD does not say which.
                    return if !asked.head {
                        check_undecoded(selects, &moments, reply, view.record);
                    };
                }
                let tag_at = |moment| {
                    let reset = if selects.starts_over() { "-reset" } else { "" };
                    format!("\"{}.{epoch}{reset}\"", selects.last(view.record, moment))
                };
                let tagged = reply.field("ETag");
                assert_eq!(tagged.is_none(), *post, "a GET's reply has an entity tag");
                let mut fits = moments
                    .iter()
                    .filter(|moment| tagged.is_none_or(|tag| tag == tag_at(**moment)));
                match status {
                    304 => assert!(tag.as_deref() == tagged && fits.next().is_some()),
                    200 if asked.head => assert!(fits.next().is_some()),
                    200 => {
                        let got = reply.json();
                        let same =
                            |moment: &&Seq| selects.reply(view.record, **moment, epoch) == got;
                        assert!(
                            fits.any(|moment| same(&moment)),
                            "no moment of {moments:?} has the reply {got} to {selects:?}"
                        );
                        assert_ne!(tag.as_deref(), tagged.or(Some("")), "a 304 says it shorter");
                        self.cursors.insert(0, got["cursor"].as_str().expect("text").to_owned());
                    }
                    status => panic!("a read was answered {status}: {}", reply.head),
                }
                self.tags.splice(0..0, tagged.map(str::to_owned));
            }
        }
        self.checked += 1;
    }
}

fn pick(list: &[String], random: &mut Random) -> Option<String> {
    let place = random.below(list.len().max(1) as u64) as usize;
    list.get(place).cloned()
}

/// Every moment at which the reply may have been made, as far as its storages can tell.
fn moments(selects: &Selects, asked: &Asked, view: &View<'_>) -> Vec<Seq> {
    let mut moments = vec![asked.noticed];
    for item in &selects.items {
        moments.extend(view.record.of(&item.storage, asked.noticed, view.noticed).map(|(s, _)| s));
    }
    moments.sort_unstable();
    moments
}

fn check_undecoded(selects: &Selects, moments: &[Seq], reply: &Reply, record: &Record) {
    let reply = reply.json();
    let listed = reply["items"].as_array().expect("those that did not decode are listed");
    assert!(!listed.is_empty());
    for entry in listed {
        let small = moments.iter().any(|moment| {
            let mut differences = selects.differences(record, *moment).into_iter();
            differences.any(|(storage, difference, cells)| {
                entry["id"] == storage && !surely_decodes(difference, cells)
            })
        });
        assert!(small, "{entry} has cells enough");
        assert!(entry["nextCells"].is_u64());
    }
}

// --- Comparisons --------------------------------------------------------------------------------

fn compare(view: &View<'_>, random: &mut Random) -> (Vec<Compared>, Vec<u8>) {
    let mut items = Vec::new();
    let first = random.below(STORAGES);
    for n in 0..1 + random.below(3) {
        // The whole server has a name of its own: none.
        let storage = (n > 0 || !random.one_in(4)).then(|| name((first + n) % STORAGES));
        let filter = match &storage {
            Some(storage) if random.one_in(2) => {
                Some(Filter::of_some(view.record.of(storage, 0, view.noticed), random))
            }
            _ => None,
        };
        let asked = random.one_in(2).then(|| random.below(30));
        let count = filter.as_ref().map(|filter| filter.count).or(asked);
        items.push(Compared { storage, count, filter });
    }
    let entry = |item: &Compared| {
        let mut entry = json!({});
        if let Some(storage) = &item.storage {
            entry["id"] = json!(storage);
        }
        if let Some(count) = item.count {
            entry["count"] = json!(count);
        }
        if let Some(filter) = &item.filter {
            entry["bloomFilter"] = json!(filter.text);
        }
        entry
    };
    let entries: Vec<Value> = items.iter().map(entry).collect();
    let request = if random.one_in(2) {
        http::request("POST", "/bloom", "", &json!({ "items": entries }).to_string())
    } else {
        let target = format!("/bloom?items={}", quote(&json!(entries).to_string()));
        http::request("GET", &target, "Accept: text/event-stream\r\n", "")
    };
    (items, request)
}

fn check_comparison(
    items: &[Compared],
    asked: &Asked,
    reply: &Reply,
    epoch: &str,
    view: &View<'_>,
) {
    assert_eq!(reply.status, 200, "{}", reply.head);
    let reply = reply.json();
    let same = |moment: Seq| {
        let last = items.iter().map(|item| match &item.storage {
            Some(storage) => view.record.last_of(storage, moment),
            None => moment,
        });
        let got = reply["items"].as_array().expect("items");
        reply["cursor"] == format!("{}.{epoch}", last.max().unwrap_or(0))
            && got.len() == items.len()
            && items.iter().zip(got).all(|(item, got)| item.is_answered_by(got, moment, view))
    };
    assert!((asked.noticed..=view.noticed).any(same), "no moment has the comparison {reply}");
}

impl Compared {
    fn is_answered_by(&self, got: &Value, moment: Seq, view: &View<'_>) -> bool {
        let digests: Vec<Digest> = match &self.storage {
            Some(storage) => view.record.of(storage, 0, moment).map(|(_, e)| e.digest).collect(),
            None => {
                let events = view.record.all(moment);
                events.map(|(_, e)| of_server(&e.storage, &e.digest)).collect()
            }
        };
        if got["count"] != digests.len() || got["id"] != json!(self.storage) {
            return false;
        }
        let sketch = matches!(self.filter, Some(Filter { held: Held::Sketch { .. }, .. }));
        let larger = self.count.is_some_and(|count| digests.len() as u64 > count);
        let own = match got["bloomFilter"].as_str() {
            Some(own) => {
                let own = Bloom::decode(own);
                larger && !sketch && digests.iter().all(|digest| own.contains(digest))
            }
            None => !larger || sketch,
        };
        own && self.filter.as_ref().is_none_or(|filter| differs(filter, &digests, got))
    }
}

/// Whether the lists are what the filter and the server's events have that the other lacks.
fn differs(filter: &Filter, digests: &[Digest], got: &Value) -> bool {
    let missing: Vec<String> = digests
        .iter()
        .filter(|digest| !filter.leaves_out(digest))
        .map(|digest| filter::hexadecimal(digest))
        .collect();
    let version = match &filter.held {
        Held::Sketch { digests: held, cells, .. } if got["undecoded"] == true => {
            return !surely_decodes(difference(held, digests), *cells);
        }
        Held::Sketch { .. } => 2,
        Held::Bloom(_) => 1,
    };
    let mut entries = filter.entries();
    let seed = filter.seed();
    entries.retain(|entry| digests.iter().all(|d| filter::entry(version, d, seed) != *entry));
    let mut listed: Vec<String> = strings(&got["serverMissing"]);
    entries.sort();
    listed.sort();
    strings(&got["clientMissing"]) == missing && listed == entries
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// What an event counts as over the whole server.
fn of_server(storage: &str, digest: &Digest) -> Digest {
    filter::digest(&[storage.as_bytes(), b"\0", digest].concat())
}
