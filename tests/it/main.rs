//! Black-box tests of the real binary over real sockets: what a client may rely on, feature by
//! feature. Each test starts a server of its own in a folder of its own and waits only for bytes
//! and for exits. Knows the command line and the wire, and no type of the crate but those of the
//! example client, which it drives.
//!
//! `RILL_TEST_SEED=N` replays the random ones, `cargo test -- --ignored` runs the long ones.

mod append;
mod backup;
mod bloom;
mod bounded;
mod command;
mod crash;
mod exactly_once;
mod filtered;
mod foreign;
mod harness;
mod http_cases;
mod limits;
mod observe;
mod read;
mod restart;
mod stop;
mod stream;
mod sync;
mod tidy;
