//! Owns nothing but the place where the server's own `index` and `held` are compiled with loom's
//! types under them: those files are the shipped ones, `sync` is not. tests/orders.rs runs them.

#[path = "../../../src/config.rs"]
pub mod config;
#[path = "../../../src/held.rs"]
pub mod held;
#[path = "../../../src/id.rs"]
pub mod id;
#[path = "../../../src/index/mod.rs"]
pub mod index;
pub mod sync;

/// All that the index wants to know of messages.
pub mod message {
    pub type Slot = u32;
}
