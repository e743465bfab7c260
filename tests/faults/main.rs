//! The disk at its worst, against the real binary: system calls that fail one by one and for good, a
//! disk that is full, the power that goes. strace makes the calls fail, and records what the server
//! writes. Whatever happens, what is on the disk afterwards is opened through the crate's store and
//! held against what anybody was told (`told`).
//!
//! Needs strace (Debian: `apt-get install strace`), and the right to trace a process of one's own.
//! `RILL_TEST_SEED=N` replays the random choices, `cargo test -- --ignored` tries every call, which
//! takes long: `RILL_TEST_PART=1/5` tries the first of five parts.

#[path = "../it/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "made for the other tests, which use all of it")]
mod harness;

mod client;
mod disk;
mod held;
mod inject;
mod lasting;
mod part;
mod power;
mod recording;
mod small_log;
mod strace;
mod told;
mod trace;
