//! Owns the client's events, in memory: takes the place of the reference client's directory, so
//! that no disk of the client's is measured. Called by the client's algorithm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use rill::event::Hash;

#[derive(Debug)]
pub(crate) struct Directory {
    events: HashMap<Hash, Box<str>>,
}

impl Directory {
    pub(crate) fn new(events: impl Iterator<Item = (Hash, Box<str>)>) -> Directory {
        Directory { events: events.collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn hashes(&self) -> impl Iterator<Item = &Hash> {
        self.events.keys()
    }

    /// The value of an event that it has.
    pub(crate) fn value(&self, hash: &Hash) -> io::Result<String> {
        Ok(self.events[hash].to_string())
    }

    /// Whether the value was not there yet.
    pub(crate) fn add(&mut self, value: &str) -> io::Result<bool> {
        let Entry::Vacant(vacant) = self.events.entry(Hash::of(value)) else { return Ok(false) };
        vacant.insert(value.into());
        Ok(true)
    }
}
