//! Owns what the log is known to hold: the model that replies, streams and the store itself are
//! compared with. Knows nothing of how events come into it.

use std::collections::HashMap;

use rill::event::Seq;

use super::filter::{Digest, digest};

/// Everything that was committed, in `seq` order from 1.
#[derive(Default)]
pub(crate) struct Record {
    events: Vec<Event>,
    places: HashMap<(String, Digest), Seq>,
    storages: HashMap<String, Vec<Seq>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) storage: String,
    pub(crate) value: String,
    pub(crate) digest: Digest,
}

impl Record {
    pub(crate) fn last(&self) -> Seq {
        self.events.len() as Seq
    }

    pub(crate) fn event(&self, seq: Seq) -> Option<&Event> {
        self.events.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    pub(crate) fn place(&self, storage: &str, digest: &Digest) -> Option<Seq> {
        self.places.get(&(storage.to_owned(), *digest)).copied()
    }

    /// Where the value stands now, and whether it was put there by this.
    pub(crate) fn append(&mut self, storage: &str, value: &str) -> (Seq, bool) {
        let digest = digest(value.as_bytes());
        let key = (storage.to_owned(), digest);
        if let Some(&seq) = self.places.get(&key) {
            return (seq, false);
        }
        let (storage, value) = (storage.to_owned(), value.to_owned());
        let seq = self.last() + 1;
        self.storages.entry(storage.clone()).or_default().push(seq);
        self.events.push(Event { storage, value, digest });
        self.places.insert(key, seq);
        (seq, true)
    }

    /// Takes back every event past `last`.
    pub(crate) fn truncate(&mut self, last: Seq) {
        self.events.truncate(last as usize);
        self.places.retain(|_, seq| *seq <= last);
        self.storages.values_mut().for_each(|seqs| seqs.retain(|seq| *seq <= last));
    }

    /// The storage's events with `after < seq <= to`.
    pub(crate) fn of(
        &self,
        storage: &str,
        after: Seq,
        to: Seq,
    ) -> impl Iterator<Item = (Seq, &Event)> + '_ {
        let seqs = self.storages.get(storage).map_or(&[][..], Vec::as_slice);
        let start = seqs.partition_point(|seq| *seq <= after);
        let within = seqs[start..].iter().take_while(move |seq| **seq <= to);
        within.map(|seq| (*seq, &self.events[*seq as usize - 1]))
    }

    pub(crate) fn all(&self, to: Seq) -> impl Iterator<Item = (Seq, &Event)> + '_ {
        (1..=to).zip(&self.events)
    }

    pub(crate) fn count(&self, storage: &str, to: Seq) -> u64 {
        let seqs = self.storages.get(storage).map_or(&[][..], Vec::as_slice);
        seqs.partition_point(|seq| *seq <= to) as u64
    }

    /// The storage's last event up to `to`, 0 where there is none.
    pub(crate) fn last_of(&self, storage: &str, to: Seq) -> Seq {
        let seqs = self.storages.get(storage).map_or(&[][..], Vec::as_slice);
        seqs[..seqs.partition_point(|seq| *seq <= to)].last().copied().unwrap_or(0)
    }
}
