//! Owns the measurement of what syncing costs: every way, for every size and difference. Called by
//! `main`; prints a table, a row as soon as it is measured.

use std::path::Path;
use std::time::{Duration, Instant};

use rill::config::SKETCH_CELLS_MAX;
use rill::event::Hash;
use rill::filter::{InverseBloom, Sketch};
use serde_json::{Value, json};

use crate::client::{Approach, Client, Failure};
use crate::directory::Directory;
use crate::http::{Http, Traffic};
use crate::population::{Population, STORAGE};
use crate::server::Server;

/// What is measured of one difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All of it, as the reference client does it that knows the server's count.
    By(Approach),
    /// All of it, as the reference client does it that knows nothing.
    OwnChoice,
    /// The same by a client that has nothing yet.
    Nothing,
    /// The one request that finds the difference, its filter made before.
    Find(Finding),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Sketch {
        cells: u32,
    },
    /// With one cell, which tells nothing of two events: the server scans its events once.
    Undecoded,
    InverseBloom,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::By(Approach::Sketch { .. }) => "version 2, difference known",
            Way::By(Approach::InverseBloom) => "version 1",
            Way::By(Approach::Everything) => "everything, both ways",
            Way::OwnChoice => "the client's own choice",
            Way::Nothing => "everything, from nothing",
            Way::Find(Finding::Undecoded) => "version 2: does not decode",
            Way::Find(Finding::Sketch { .. }) => "version 2: its /bloom alone",
            Way::Find(Finding::InverseBloom) => "version 1: its /bloom alone",
        }
    }
}

/// All that are possible.
fn ways(difference: usize) -> Vec<Way> {
    let cells = cells_for(difference);
    let sketches = [Way::Find(Finding::Sketch { cells }), Way::By(Approach::Sketch { cells })];
    let mut ways = if cells <= SKETCH_CELLS_MAX { sketches.to_vec() } else { Vec::new() };
    ways.push(Way::OwnChoice);
    ways.extend([Way::Find(Finding::InverseBloom), Way::By(Approach::InverseBloom)]);
    ways.push(Way::By(Approach::Everything));
    if difference > 1 {
        ways.insert(0, Way::Find(Finding::Undecoded));
    }
    ways
}

/// As the protocol recommends.
fn cells_for(difference: usize) -> u32 {
    u32::try_from(48 + difference * 3 / 2).unwrap_or(u32::MAX)
}

#[derive(Debug)]
struct Cost {
    traffic: Traffic,
    cpu: Duration,
    wall: Duration,
}

pub(crate) fn measure(
    rill: &Path,
    folder: &Path,
    sizes: &[usize],
    differences: &[usize],
) -> Result<(), Failure> {
    println!(
        "| {:>9} | {:>10} | {:27} | {:>11} | {:>11} | {:>11} | {:>13} | {:>10} |",
        "events",
        "difference",
        "way",
        "up, bytes",
        "down, bytes",
        "round trips",
        "server CPU, ms",
        "wall, ms"
    );
    println!("| --: | --: | --- | --: | --: | --: | --: | --: |");
    for &size in sizes {
        let population = Population::fill(rill, folder, size)?;
        for &difference in differences.iter().filter(|&&difference| difference / 2 <= size) {
            for way in ways(difference) {
                measure_one(&population, difference, way)?;
            }
        }
        // Where one side has nothing, all is the difference.
        measure_one(&population, size, Way::Nothing)?;
    }
    Ok(())
}

fn measure_one(population: &Population, difference: usize, way: Way) -> Result<(), Failure> {
    let size = population.size();
    let cost = cost(population, difference, way)
        .map_err(|error| format!("{size}, {difference}, {}: {error}", way.name()))?;
    print(size, difference, way, &cost);
    Ok(())
}

fn print(size: usize, difference: usize, way: Way, cost: &Cost) {
    let milliseconds = |duration: Duration| format!("{:.1}", duration.as_secs_f64() * 1e3);
    println!(
        "| {size:>9} | {difference:>10} | {:27} | {:>11} | {:>11} | {:>11} | {:>13} | {:>10} |",
        way.name(),
        cost.traffic.up_bytes,
        cost.traffic.down_bytes,
        cost.traffic.round_trips,
        milliseconds(cost.cpu),
        milliseconds(cost.wall)
    );
}

fn cost(population: &Population, difference: usize, way: Way) -> Result<Cost, Failure> {
    let own = match way {
        Way::Nothing => Directory::new(std::iter::empty()),
        _ => population.client_side(difference),
    };
    let union = population.size() + if way == Way::Nothing { 0 } else { difference.div_ceil(2) };
    let server = population.serve()?;
    match way {
        Way::Find(finding) => find(&server, population, &own, difference, finding),
        Way::By(approach) => sync(&server, population, own, union, Some(approach)),
        Way::OwnChoice | Way::Nothing => sync(&server, population, own, union, None),
    }
}

fn sync(
    server: &Server,
    population: &Population,
    mut own: Directory,
    union: usize,
    approach: Option<Approach>,
) -> Result<Cost, Failure> {
    let mut client = Client::new(server.url(), STORAGE, random)?;
    let (cpu, begin) = (server.cpu()?, Instant::now());
    match approach {
        Some(approach) => client.sync_from(&mut own, population.size() as u64, approach)?,
        None => client.sync(&mut own)?,
    }
    let wall = begin.elapsed();
    let cost = Cost { traffic: client.traffic(), cpu: server.cpu()? - cpu, wall };
    if own.len() != union {
        return Err(format!("{} events are on both sides, not {union}", own.len()).into());
    }
    Ok(cost)
}

fn find(
    server: &Server,
    population: &Population,
    own: &Directory,
    difference: usize,
    finding: Finding,
) -> Result<Cost, Failure> {
    let body = match finding {
        Finding::Sketch { cells } => sketch_body(own, cells),
        Finding::Undecoded => sketch_body(own, 1),
        Finding::InverseBloom => {
            let hashes: Vec<Hash> = own.hashes().copied().collect();
            let filter = InverseBloom::build(&hashes, population.size() as u64, random);
            question(filter.count(), &filter.encode())
        }
    };
    let mut http = Http::new(server.url())?;
    let (cpu, begin) = (server.cpu()?, Instant::now());
    match finding {
        Finding::Undecoded => {
            if compared(&mut http, &body)?["undecoded"] != true {
                return Err("one cell tells two events".into());
            }
        }
        Finding::Sketch { .. } | Finding::InverseBloom => ask(&mut http, &body, difference)?,
    }
    let wall = begin.elapsed();
    Ok(Cost { traffic: http.traffic, cpu: server.cpu()? - cpu, wall })
}

/// The question for a difference, with as many cells as it needs.
pub(crate) fn sketch_question(own: &Directory, difference: usize) -> String {
    sketch_body(own, cells_for(difference))
}

fn sketch_body(own: &Directory, cells: u32) -> String {
    let mut sketch = Sketch::new(cells, random());
    own.hashes().for_each(|hash| sketch.add(hash));
    question(sketch.count(), &sketch.encode())
}

fn question(count: u64, filter: &str) -> String {
    json!({ "items": { "id": STORAGE, "count": count, "bloomFilter": filter } }).to_string()
}

/// Asks for the difference, and holds the answer to what it is.
pub(crate) fn ask(http: &mut Http, body: &str, difference: usize) -> Result<(), Failure> {
    let found = compared(http, body)?;
    let length = |name: &str| found[name].as_array().map(Vec::len);
    let (lacked, own) = (length("clientMissing"), length("serverMissing"));
    if (lacked, own) == (Some(difference / 2), Some(difference.div_ceil(2))) {
        Ok(())
    } else {
        Err(format!("/bloom answers with lists of {lacked:?} and {own:?}").into())
    }
}

fn compared(http: &mut Http, body: &str) -> Result<Value, Failure> {
    let reply = http.post("/bloom", body)?;
    if reply.status != 200 {
        return Err(format!("/bloom answers {}", reply.status).into());
    }
    let mut found: Value = serde_json::from_slice(&reply.body)?;
    Ok(found["items"][0].take())
}

/// A seed that nobody knows before.
fn random() -> u64 {
    getrandom::u64().expect("the system has seeds")
}
