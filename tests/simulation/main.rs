//! Owns the simulation: hub, writer and reader on one thread under one seed, with a network that
//! splits, stalls, half-closes and resets, a store that fails and a process that dies, a clock that
//! jumps, and a scheduler that picks who goes next. Every reply and every event is compared with
//! what the log holds as it comes; once faults stop, everything is answered and delivered.
//!
//! - `world`: who goes next, and what goes wrong.
//! - `server`, `network`, `store`: one life of the server, its sockets, and the disk that stays.
//! - `client`: what clients ask for, and how they judge what they get.
//! - `record`: what the log holds, as the model that everything is compared with.
//!
//! A seed that fails is printed; `RILL_SEED` runs it alone, `RILL_SEEDS` so many fresh ones, or those
//! from `0..400`. `scripts/planted` shows that it finds bugs.

mod client;
#[allow(dead_code, reason = "the tests of the binary use all of it")]
#[path = "../it/harness/filter.rs"]
mod filter;
mod network;
mod random;
mod record;
mod server;
mod store;
mod world;

use std::ops::Range;
use std::panic::catch_unwind;
use std::time::{SystemTime, UNIX_EPOCH};

use world::{Achieved, World};

const STEPS: u32 = 8_000;
const SEEDS: u64 = 80;

fn run(seed: u64) -> Achieved {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    // Some are stopped while everything is under way.
    if !seed.is_multiple_of(4) {
        world.settle();
    }
    world.stop()
}

fn seeds() -> Range<u64> {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match (variable("RILL_SEED"), variable("RILL_SEEDS")) {
        (Some(seed), _) => number(&seed)..number(&seed) + 1,
        (None, Some(seeds)) => match seeds.split_once("..") {
            Some((start, end)) => number(start)..number(end),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                let start = since.map_or(0, |since| since.as_nanos() as u64);
                start..start + number(&seeds)
            }
        },
        (None, None) => 0..SEEDS,
    }
}

#[test]
fn whatever_fails_every_client_gets_what_was_promised() {
    let seeds = seeds();
    let mut all = Achieved::default();
    for (tried, seed) in seeds.clone().enumerate() {
        let Ok(achieved) = catch_unwind(|| run(seed)) else {
            panic!(
                "seed {seed} failed, the {}. of {}; again: RILL_SEED={seed} cargo test --test simulation",
                tried + 1,
                seeds.end - seeds.start
            );
        };
        all.crashes += achieved.crashes;
        all.replies += achieved.replies;
    }
    if seeds.end - seeds.start >= SEEDS {
        assert!(all.crashes > SEEDS / 2 && all.replies > 100 * SEEDS, "it went wrong: {all:?}");
    }
}
