//! Owns the algorithm: how a set of events and a storage become each other's equal. It is complete,
//! and all that a client in another language has to have. Makes no promise about time: whoever
//! appends without end keeps it from finishing, and it gives up after some rounds.

use std::collections::HashSet;
use std::error::Error;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::directory::Directory;
use super::http::{Http, Reply, Traffic};
use rill::config::{FILTER_EVENTS_MAX, SKETCH_CELLS_MAX};
use rill::event::Hash;
use rill::filter::{Entry, Filter, InverseBloom, Sketch};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A sketch grows fourfold a round, so that seven are the most before its successor.
const ROUNDS_MAX: usize = 16;
/// What one append carries. A single value of 1 MiB escapes to 6 MiB at most; the server takes 16.
const APPEND_BYTES: usize = 8 << 20;
const APPEND_VALUES: usize = 10_000;

/// How a round finds the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approach {
    /// 12 bytes a cell, 1.5 cells for every event that only one side has.
    Sketch { cells: u32 },
    /// 6.3 bytes for every event.
    InverseBloom,
    /// No filter: both sides send all they have. For who has nothing yet, and beyond all filters.
    Everything,
}

impl Approach {
    /// The difference is not known before. The counts say what it is at least, and where they say
    /// too little the sketch does not decode and a larger one is tried.
    pub(crate) fn choose(own: u64, servers: u64) -> Approach {
        let cells = 48 + own.abs_diff(servers).saturating_mul(3) / 2;
        if own == 0 { Approach::Everything } else { Approach::cheapest(Some(cells), own, servers) }
    }

    /// What comes after a sketch that did not decode. The server proposes four times the cells;
    /// where that is too large, the largest that is not may still do.
    pub(crate) fn after_undecoded(
        self,
        next_cells: Option<u64>,
        own: u64,
        servers: u64,
    ) -> Approach {
        let largest = (self != Approach::Sketch { cells: SKETCH_CELLS_MAX })
            .then_some(u64::from(SKETCH_CELLS_MAX));
        Approach::cheapest(next_cells.or(largest), own, servers)
    }

    /// The sketch, if it is small enough to be allowed and to pay.
    fn cheapest(cells: Option<u64>, own: u64, servers: u64) -> Approach {
        let events = own.max(servers);
        let bloom_bytes =
            (events <= FILTER_EVENTS_MAX).then(|| InverseBloom::encoded_bytes(events));
        let pays = |cells: &u64| bloom_bytes.is_none_or(|bytes| cells * 12 < bytes);
        match cells.filter(pays).map(u32::try_from) {
            Some(Ok(cells)) if cells <= SKETCH_CELLS_MAX => Approach::Sketch { cells },
            _ if bloom_bytes.is_some() => Approach::InverseBloom,
            _ => Approach::Everything,
        }
    }
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both sides hold the same events.
    Settled,
    /// The server has so many events after the round, and we have another number: the filter hid
    /// one, or somebody appended one. Another seed will not hide the same.
    Unsettled { servers: u64 },
    /// The sketch has too few cells. None where a larger one would be too large.
    Undecoded { next_cells: Option<u64> },
}

impl Outcome {
    fn of(own: &Directory, servers: u64) -> Outcome {
        let settled = servers == own.len() as u64;
        if settled { Outcome::Settled } else { Outcome::Unsettled { servers } }
    }
}

/// What the server says of a filter.
struct Comparison {
    servers: u64,
    we_lack: usize,
    /// The entries of the filter that none of its events matches.
    server_lacks: HashSet<String>,
}

pub(crate) struct Client<R> {
    http: Http,
    storage: String,
    /// Seeds. They must not be predictable, or somebody could append values that collide.
    random: R,
    /// Events of one reply, which stands in memory. The filter is sent with every page.
    pub(crate) page_events: usize,
}

impl<R: FnMut() -> u64> Client<R> {
    pub(crate) fn new(url: &str, storage: &str, random: R) -> Result<Client<R>, Failure> {
        let (http, storage) = (Http::new(url)?, storage.to_owned());
        Ok(Client { http, storage, random, page_events: 4_000 })
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.http.traffic
    }

    /// Makes both sides equal.
    pub(crate) fn sync(&mut self, own: &mut Directory) -> Result<(), Failure> {
        let item = json!({ "id": self.storage });
        let reply = self.post("/bloom", &json!({ "items": item }))?;
        let servers = number(&success(&reply)?["items"][0]["count"])?;
        println!("{} events here, {servers} on the server", own.len());
        self.sync_from(own, servers, Approach::choose(own.len() as u64, servers))
    }

    /// As `sync`, knowing how many events the server has.
    pub(crate) fn sync_from(
        &mut self,
        own: &mut Directory,
        mut servers: u64,
        mut approach: Approach,
    ) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            println!("by {approach:?}:");
            let filter = self.make_filter(own, servers, approach);
            approach = match self.round(own, filter.as_ref())? {
                Outcome::Settled => return Ok(()),
                Outcome::Unsettled { servers: now } => {
                    println!("  {} events here, {now} on the server: once more", own.len());
                    servers = now;
                    Approach::choose(own.len() as u64, servers)
                }
                Outcome::Undecoded { next_cells } => {
                    println!("  more differences than that");
                    approach.after_undecoded(next_cells, own.len() as u64, servers)
                }
            };
        }
        Err(format!("not equal after {ROUNDS_MAX} rounds; is somebody appending all the time?"))?
    }

    /// A filter of our events, with a seed that was never used before.
    fn make_filter(&mut self, own: &Directory, servers: u64, approach: Approach) -> Option<Filter> {
        match approach {
            Approach::Sketch { cells } => {
                let mut sketch = Sketch::new(cells, (self.random)());
                own.hashes().for_each(|hash| sketch.add(hash));
                Some(Filter::Sketch(sketch))
            }
            // For the larger count: for a smaller one the server would send a filter of its own.
            Approach::InverseBloom => {
                let hashes: Vec<Hash> = own.hashes().copied().collect();
                let filter = InverseBloom::build(&hashes, servers, &mut self.random);
                Some(Filter::InverseBloom(filter))
            }
            Approach::Everything => None,
        }
    }

    /// Finds the difference, appends what the server lacks, fetches what we lack, counts.
    pub(crate) fn round(
        &mut self,
        own: &mut Directory,
        filter: Option<&Filter>,
    ) -> Result<Outcome, Failure> {
        let Some(filter) = filter else { return self.exchange_everything(own) };
        let comparison = match self.compare(filter)? {
            Ok(comparison) => comparison,
            Err(next_cells) => return Ok(Outcome::Undecoded { next_cells }),
        };
        let Comparison { servers, we_lack, server_lacks } = comparison;
        println!("  the server lacks {}, we lack {we_lack}", server_lacks.len());
        let lacks =
            |hash: &&Hash| server_lacks.contains(&entry(filter, hash)) || !has_placed(filter, hash);
        let lacking: HashSet<Hash> = own.hashes().filter(lacks).copied().collect();
        if we_lack == 0 && server_lacks.is_empty() && lacking.is_empty() {
            return Ok(Outcome::of(own, servers));
        }
        self.append(own, &lacking)?;
        Ok(match self.fetch(own, Some(filter), &mut HashSet::new())? {
            Ok(servers) => Outcome::of(own, servers),
            Err(next_cells) => Outcome::Undecoded { next_cells },
        })
    }

    /// Without a filter it is what comes that says what the server lacks.
    fn exchange_everything(&mut self, own: &mut Directory) -> Result<Outcome, Failure> {
        let mut lacking = own.hashes().copied().collect();
        let servers = self.fetch(own, None, &mut lacking)?.expect("only a sketch may not decode");
        self.append(own, &lacking)?;
        Ok(Outcome::of(own, servers + lacking.len() as u64))
    }

    /// Asks for the difference. The inner error is that the sketch did not decode.
    fn compare(&mut self, filter: &Filter) -> Result<Result<Comparison, Option<u64>>, Failure> {
        let reply = self.post("/bloom", &json!({ "items": self.item(Some(filter)) }))?;
        let reply = success(&reply)?;
        let item = &reply["items"][0];
        if item["undecoded"] == true {
            return Ok(Err(item["nextCells"].as_u64()));
        }
        let entries = list(&item["serverMissing"])?;
        Ok(Ok(Comparison {
            servers: number(&item["count"])?,
            we_lack: list(&item["clientMissing"])?.len(),
            server_lacks: entries.iter().map(string).collect::<Result<_, _>>()?,
        }))
    }

    /// In as few requests as their size allows. What the server has already it does not store again.
    fn append(&mut self, own: &Directory, hashes: &HashSet<Hash>) -> Result<(), Failure> {
        let path = format!("/set/{}", percent_encoded(&self.storage));
        let mut waiting = hashes.iter().peekable();
        while waiting.peek().is_some() {
            let (mut values, mut bytes) = (Vec::new(), 0);
            while values.len() < APPEND_VALUES && bytes < APPEND_BYTES {
                let Some(hash) = waiting.next() else { break };
                let value = serde_json::to_string(&own.value(hash)?)?;
                bytes += value.len();
                values.push(value);
            }
            let body = format!("{{\"values\":[{}]}}", values.join(","));
            success(&self.http.post(&path, &body)?)?;
            println!("  appended {}", values.len());
        }
        Ok(())
    }

    /// Takes all that the filter does not hold: how many events the server has. What came is no longer
    /// `lacking` there. The inner error is that the sketch does not decode any more, as others append.
    fn fetch(
        &mut self,
        own: &mut Directory,
        filter: Option<&Filter>,
        lacking: &mut HashSet<Hash>,
    ) -> Result<Result<u64, Option<u64>>, Failure> {
        let (mut after, mut new, mut repeated) = ("0".to_owned(), 0, 0);
        loop {
            let items = self.item(filter);
            let page = json!({ "items": items, "after": after, "limit": self.page_events });
            let reply = self.post("/get", &page)?;
            if reply.status == 409 {
                let problem: Value = serde_json::from_slice(&reply.body)?;
                return Ok(Err(problem["items"][0]["nextCells"].as_u64()));
            }
            let reply = success(&reply)?;
            let item = &reply["items"][0];
            for event in list(&item["events"])? {
                let value = string(&event["value"])?;
                let is_new = own.add(&value)?;
                if !is_new {
                    lacking.remove(&Hash::of(&value));
                }
                *(if is_new { &mut new } else { &mut repeated }) += 1;
            }
            if reply["more"] != true {
                println!("  fetched {new}, and {repeated} that we had");
                return Ok(Ok(number(&item["count"])?));
            }
            after = string(&reply["cursor"])?;
        }
    }

    fn item(&self, filter: Option<&Filter>) -> Value {
        let mut item = json!({ "id": self.storage });
        if let Some(filter) = filter {
            item["count"] = filter.count().into();
            item["bloomFilter"] = match filter {
                Filter::InverseBloom(filter) => filter.encode().into(),
                Filter::Sketch(sketch) => sketch.encode().into(),
            };
        }
        item
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Reply, Failure> {
        Ok(self.http.post(path, &body.to_string())?)
    }
}

/// What stands for an event in a filter, as the server lists it.
fn entry(filter: &Filter, hash: &Hash) -> String {
    let a = xxh3_64_with_seed(&hash.0, filter.seed());
    let entry = match filter {
        Filter::InverseBloom(_) => (a >> 16).max(1),
        Filter::Sketch(_) => a,
    };
    Entry(entry).to_string()
}

/// Whether the server can have learned of the event from the filter. A maker that gives up on
/// events for which both buckets are full appends them itself; a sketch has room for all.
fn has_placed(filter: &Filter, hash: &Hash) -> bool {
    match filter {
        Filter::InverseBloom(filter) => filter.contains(hash),
        Filter::Sketch(_) => true,
    }
}

/// One path segment (RFC 3986, 2.1).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The JSON of a reply that is no problem.
fn success(reply: &Reply) -> Result<Value, Failure> {
    let body = String::from_utf8_lossy(&reply.body);
    if matches!(reply.status, 200 | 201) {
        return Ok(serde_json::from_str(&body)?);
    }
    let problem: Value = serde_json::from_str(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or(&body);
    Err(format!("the server answers {}: {detail}", reply.status).into())
}

fn number(value: &Value) -> Result<u64, Failure> {
    value.as_u64().ok_or_else(|| format!("a number was expected, not {value}").into())
}

fn string(value: &Value) -> Result<String, Failure> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("a string was expected, not {value}").into())
}

fn list(value: &Value) -> Result<&[Value], Failure> {
    let list = value.as_array().map(Vec::as_slice);
    list.ok_or_else(|| format!("a list was expected, not {value}").into())
}
