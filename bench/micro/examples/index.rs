//! What the subscriber index takes: so many subscribers with so many storages each. Prints the memory
//! of a subscription in both copies, beside the list that each feed has anyway, and what publishing
//! one more subscriber takes then, as one comes and goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rill::id::Id;
use rill::index::Shadow;

const CHANGES: usize = 10_000;
const PAGE_BYTES: f64 = 4096.0;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [subscribers, each, storages] = numbers[..] else {
        eprintln!("index SUBSCRIBERS STORAGES_EACH STORAGES");
        std::process::exit(1);
    };
    let ids: Vec<Id> = (0..storages).map(|n| Id::new(&n.to_string()).expect("short")).collect();
    let selection = |slot: usize| -> Arc<[Id]> {
        // Another stride for each, so that none names a storage twice.
        let stride = 1 + 2 * slot % (storages / each);
        (0..each).map(|n| ids[(slot * 7_919 + n * stride) % storages].clone()).collect()
    };
    let selections: Vec<Arc<[Id]>> = (0..subscribers).map(selection).collect();
    let before = resident_bytes();
    let mut shadow = Shadow::default();
    let begin = Instant::now();
    for (slot, ids) in selections.iter().enumerate() {
        shadow.subscribe(slot as u32, Arc::clone(ids));
        shadow.publish();
    }
    let (seconds, bytes) = (begin.elapsed().as_secs_f64(), resident_bytes() - before);
    let subscriptions = (subscribers * each) as f64;
    println!("{:.1} bytes a subscription, {seconds:.0} s", bytes / subscriptions);
    let mut took: Vec<Duration> = (0..CHANGES)
        .map(|change| {
            let slot = subscribers as u32;
            match change % 2 {
                0 => shadow.subscribe(slot, selection(change)),
                _ => shadow.unsubscribe(slot),
            }
            let begin = Instant::now();
            assert_eq!(shadow.publish(), 1);
            begin.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!(
        "publishing a change: median {:?}, p99 {:?}",
        took[CHANGES / 2],
        took[CHANGES * 99 / 100]
    );
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * PAGE_BYTES
}
