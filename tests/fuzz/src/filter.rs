//! Owns the check of filters: any text is refused, or is a filter that gives its text back and can
//! be asked; and of sets made up from an input, the server and a second implementation, written from
//! the wire contract, find the same.

use std::collections::BTreeSet;

use rill::event::Hash;
use rill::filter::{Filter, InverseBloom, Matching, Sketch};

use super::input::Input;

#[allow(dead_code, reason = "the tests of the wire use more of it")]
#[path = "../../it/harness/filter.rs"]
pub(crate) mod independent;

use independent::{Bloom, Digest};

/// What the kind is of, then what the kind takes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 => decoded(&String::from_utf8_lossy(input.rest())),
        1 => decoded(&independent::base64url(input.rest())),
        2 => decoded(&well_formed(&mut input)),
        3 => inverse_bloom_of_a_set(&mut input),
        4 => sketch_of_a_set(&mut input),
        _ => torn_sketch(&mut input),
    }
}

/// A head whose size is right, and any table behind it.
fn well_formed(input: &mut Input<'_>) -> String {
    let (version, number, seed) = (1 + input.byte() % 2, u64::from(input.u16() % 600), input.u64());
    let (size, unit) = if version == 1 { (number * 21 / 80 + 1, 24) } else { (number + 1, 12) };
    let mut bytes = independent::head(version, size as u32, number, seed);
    bytes.extend_from_slice(input.bytes(size as usize * unit));
    bytes.resize(24 + size as usize * unit, 0);
    independent::base64url(&bytes)
}

fn decoded(text: &str) {
    match Filter::decode(text) {
        Ok(Filter::InverseBloom(filter)) => {
            assert_eq!(filter.encode(), text);
            ask_inverse_bloom(filter, &numbered(0, 64));
        }
        Ok(Filter::Sketch(sketch)) => {
            assert_eq!(sketch.encode(), text);
            ask_sketch(sketch, text);
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

fn ask_inverse_bloom(filter: InverseBloom, digests: &[Digest]) {
    let independent = Bloom::decode(&filter.encode());
    assert_eq!(filter.entries().count(), independent.entries());
    let mut matching = Matching::new(filter.clone());
    let mut found = BTreeSet::new();
    for digest in digests {
        let contained = independent.contains(digest);
        assert_eq!(filter.contains(&Hash(*digest)), contained);
        assert_eq!(matching.contains(&Hash(*digest)), contained);
        if contained {
            found.insert(independent::entry(1, digest, filter.seed()));
        }
    }
    let unmatched: Vec<String> =
        matching.unmatched(0).map(|(_, entry)| entry.to_string()).collect();
    let left = filter.entries().filter(|entry| !found.contains(&entry.to_string())).count();
    assert!(unmatched.len() >= left, "an entry that nothing matched is listed");
    for (position, (next, _)) in matching.unmatched(0).enumerate() {
        let rest = matching.unmatched(next).map(|(_, entry)| entry.to_string());
        assert!(rest.eq(unmatched[position + 1..].iter().cloned()), "a listing can be carried on");
    }
}

/// Whatever the cells hold, peeling ends; what it finds adds up to the first cell, where every
/// event is.
fn ask_sketch(sketch: Sketch, text: &str) {
    let size = sketch.size() as usize;
    let Some(peeled) = sketch.into_difference().peel() else { return };
    let bytes = independent::from_base64url(text);
    let first = u64::from_le_bytes(bytes[24..32].try_into().expect("a sketch has a cell"));
    let entries: Vec<u64> = peeled.unclaimed(0).map(|(_, entry)| entry.0).collect();
    assert!(entries.len() <= size, "no more events than cells");
    assert_eq!(entries.iter().fold(0, |sum, entry| sum ^ entry), first);
}

fn numbered(from: u64, count: u64) -> Vec<Digest> {
    (from..from + count).map(|number| independent::digest(&number.to_le_bytes())).collect()
}

/// The server's filter of a set as another reads it, and the other way round.
fn inverse_bloom_of_a_set(input: &mut Input<'_>) {
    let (events, more, seed) = (u64::from(input.byte()), u64::from(input.byte()), input.u64());
    let (mut digests, others) = (numbered(0, events), numbered(1_000, 20));
    let hashes: Vec<Hash> = digests.iter().map(|digest| Hash(*digest)).collect();
    let mut seeds = (0..).map(|number| seed.wrapping_add(number));
    let random = || seeds.next().expect("there is always another seed");
    let made = InverseBloom::build(&hashes, events / 2 + more, random);
    assert_eq!(made.count(), events.max(events / 2 + more));
    assert!(hashes.iter().all(|hash| made.contains(hash)), "the server's own filter loses none");
    assert!(!others.iter().any(|digest| made.contains(&Hash(*digest))));
    assert_eq!(Filter::decode(&made.encode()), Ok(Filter::InverseBloom(made.clone())));
    ask_inverse_bloom(made, &digests);

    let (theirs, unplaced) = Bloom::of(&digests, events + more, seed);
    let Ok(Filter::InverseBloom(read)) = Filter::decode(&theirs.encode()) else {
        panic!("a well-formed filter is one");
    };
    let missing = digests.iter().filter(|digest| !read.contains(&Hash(**digest))).count();
    assert_eq!(missing, unplaced.len(), "it lacks what found no room");
    digests.extend(others);
    ask_inverse_bloom(read, &digests);
}

/// Two sets, some events in both: what is peeled is what only one has.
fn sketch_of_a_set(input: &mut Input<'_>) {
    let (common, own, theirs) = (u64::from(input.byte()), input.byte() % 64, input.byte() % 64);
    let (cells, seed) = (u32::from(input.u16() % 300) + 1, input.u64());
    let common = numbered(0, common);
    let (own, theirs) = (numbered(1_000, own.into()), numbered(2_000, theirs.into()));
    let sent = [common.clone(), theirs.clone()].concat();
    let mut made = Sketch::new(cells, seed);
    sent.iter().for_each(|digest| made.add(&Hash(*digest)));
    assert_eq!(made.encode(), independent::sketch(&sent, cells, seed), "byte for byte");
    assert_eq!(Filter::decode(&made.encode()), Ok(Filter::Sketch(made.clone())));

    let mut difference = made.into_difference();
    common.iter().chain(&own).for_each(|digest| difference.add(&Hash(*digest)));
    let Some(mut peeled) = difference.peel() else {
        let differences = own.len() + theirs.len();
        assert!(differences > 0, "no difference is always decoded");
        return;
    };
    assert!(own.iter().all(|digest| peeled.contains(&Hash(*digest))));
    assert!(own.iter().all(|digest| peeled.claim(&Hash(*digest))));
    assert!(!common.iter().any(|digest| peeled.contains(&Hash(*digest))));
    let left: BTreeSet<String> = peeled.unclaimed(0).map(|(_, entry)| entry.to_string()).collect();
    let expected = theirs.iter().map(|digest| independent::entry(2, digest, seed));
    assert_eq!(left, expected.collect(), "what is not claimed is the sender's");
}

/// A sketch without some of its cells: events that can be taken out of one cell stand in others
/// only then, and could be taken out for ever.
fn torn_sketch(input: &mut Input<'_>) {
    let (events, cells, seed) = (input.byte() % 8, usize::from(input.byte()) + 1, input.u64());
    let text = independent::sketch(&numbered(0, events.into()), cells as u32, seed);
    let mut bytes = independent::from_base64url(&text);
    for cell in bytes[24..].chunks_mut(12) {
        if input.byte() % 3 == 1 {
            cell.fill(0);
        }
    }
    decoded(&independent::base64url(&bytes));
}
