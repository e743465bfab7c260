//! Owns the checks: for each part that meets bytes of strangers, what must hold whatever they are.
//! A check takes any input and panics where something does not hold. Called by the targets, with
//! what libFuzzer makes up, and by `tests/corpus.rs`, with the inputs that were kept.

pub mod filter;
pub mod hub;
mod input;
pub mod request;
pub mod selection;
pub mod stream;

pub type Check = fn(&[u8]);

/// Every check, by the name of its target and of its part of the corpus.
pub const CHECKS: [(&str, Check); 5] = [
    ("filter", filter::check),
    ("hub", hub::check),
    ("request", request::check),
    ("selection", selection::check),
    ("stream", stream::check),
];
