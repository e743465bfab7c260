//! Attacks on the real binary, each with a figure: while one runs, a well-behaved client measures
//! what it notices, and the server's memory stays within what `config` adds up to. One at a time,
//! or they would measure each other. Knows the crate's limits, the command line and the wire.
//!
//! `cargo test` runs them small. `scripts/attack` runs them whole, against the release binary, and
//! only there is 50 ms at the 99th percentile the limit.

mod away;
mod bystander;
mod crowd;
mod descriptors;
mod disk;
mod large;
mod many;
mod overload;
mod scene;
mod slow;
mod vanished;

// The client of the other tests, of which not everything is needed here.
#[allow(dead_code, unused_imports)]
#[path = "../it/harness/mod.rs"]
mod harness;
