//! Owns the hot cache: storages that are read often, whole, encoded, bounded by bytes. As nothing
//! is ever changed, a commit extends an entry and nothing invalidates one. The hub asks it before
//! it asks a reader; a reader makes what is put in. Does no I/O.
//!
//! An entry that a reader is asked for collects what is committed meanwhile, so that it is complete
//! when the reader's part comes.

use std::collections::{HashMap, VecDeque};

use crate::config::{HOT_BYTES_MAX, HOT_ENTRY_BYTES_MAX};
use crate::event::Seq;
use crate::id::Id;
use crate::json;

/// What an entry takes besides its events and its name: map, queue, vectors.
const ENTRY_BYTES: usize = 256;

#[derive(Debug, Default)]
pub struct Hot {
    entries: HashMap<Id, Entry>,
    /// Every entry but those being filled, in the order in which they are considered for eviction.
    clock: VecDeque<Id>,
    bytes: usize,
}

#[derive(Debug)]
enum Entry {
    /// A reader was asked for it.
    Filling(Encoded),
    Ready {
        events: Encoded,
        /// Read since the clock passed.
        used: bool,
    },
    /// Larger than an entry may be, and never smaller again.
    Large,
}

/// Events of one storage as JSON, commas between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    json: Vec<u8>,
    /// Each event and where it starts in `json`.
    starts: Vec<(Seq, u32)>,
}

/// What the cache says to a read.
#[derive(Debug)]
pub enum Lookup<'a> {
    Ready(&'a Encoded),
    /// Not there; `begin` may be called.
    Absent,
    /// Not there, and not to be asked for.
    Uncached,
}

impl Encoded {
    pub fn push(&mut self, seq: Seq, value: &str) {
        assert!(self.last() < seq, "events come in order");
        if !self.starts.is_empty() {
            self.json.push(b',');
        }
        let start = u32::try_from(self.json.len()).expect("entries are limited to less than 4 GiB");
        self.starts.push((seq, start));
        json::write_event(&mut self.json, seq, value);
    }

    pub fn count(&self) -> usize {
        self.starts.len()
    }

    pub fn last(&self) -> Seq {
        self.starts.last().map_or(0, |(seq, _)| *seq)
    }

    pub fn bytes(&self) -> usize {
        self.json.len() + self.starts.len() * size_of::<(Seq, u32)>()
    }

    /// The events past `after`: their places.
    pub fn after(&self, after: Seq) -> std::ops::Range<usize> {
        self.starts.partition_point(|(seq, _)| *seq <= after)..self.starts.len()
    }

    pub fn seq(&self, place: usize) -> Seq {
        self.starts[place].0
    }

    /// The events at these places, commas between them.
    pub fn slice(&self, places: std::ops::Range<usize>) -> &[u8] {
        if places.is_empty() {
            return &[];
        }
        let start = self.starts[places.start].1 as usize;
        let end = match self.starts.get(places.end) {
            Some((_, next)) => *next as usize - 1,
            None => self.json.len(),
        };
        &self.json[start..end]
    }

    fn extend(&mut self, later: &Encoded) {
        if !self.starts.is_empty() && !later.starts.is_empty() {
            self.json.push(b',');
        }
        let base = self.json.len() as u32;
        self.json.extend_from_slice(&later.json);
        self.starts.extend(later.starts.iter().map(|(seq, start)| (*seq, base + start)));
    }
}

impl Hot {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn lookup(&mut self, id: &Id) -> Lookup<'_> {
        match self.entries.get_mut(id) {
            Some(Entry::Ready { events, used }) => {
                *used = true;
                Lookup::Ready(events)
            }
            Some(Entry::Filling(_) | Entry::Large) => Lookup::Uncached,
            None => Lookup::Absent,
        }
    }

    /// A reader is asked for the storage, as it is now.
    pub fn begin(&mut self, id: &Id) {
        let former = self.entries.insert(id.clone(), Entry::Filling(Encoded::default()));
        assert!(former.is_none(), "only what is absent is asked for");
    }

    /// The reader's answer; `None` where the storage is larger than an entry may be.
    pub fn filled(&mut self, id: &Id, events: Option<Encoded>) {
        let Some(Entry::Filling(later)) = self.entries.remove(id) else {
            unreachable!("an entry is being filled until it is filled");
        };
        let entry = match events {
            Some(mut events) => {
                events.extend(&later);
                if events.bytes() > HOT_ENTRY_BYTES_MAX {
                    Entry::Large
                } else {
                    Entry::Ready { events, used: true }
                }
            }
            None => Entry::Large,
        };
        self.bytes += entry.bytes(id);
        self.entries.insert(id.clone(), entry);
        self.clock.push_back(id.clone());
        self.evict();
    }

    /// The reader could not say.
    pub fn failed(&mut self, id: &Id) {
        self.entries.remove(id);
    }

    /// An event was committed.
    pub fn committed(&mut self, id: &Id, seq: Seq, value: &str) {
        match self.entries.get_mut(id) {
            // Over the limit it is known to become `Large`: nothing more is kept for it.
            Some(Entry::Filling(later)) if later.bytes() <= HOT_ENTRY_BYTES_MAX => {
                later.push(seq, value);
            }
            Some(Entry::Ready { events, .. }) => {
                self.bytes -= events.bytes();
                events.push(seq, value);
                if events.bytes() > HOT_ENTRY_BYTES_MAX {
                    self.entries.insert(id.clone(), Entry::Large);
                } else {
                    self.bytes += events.bytes();
                    self.evict();
                }
            }
            Some(Entry::Filling(_) | Entry::Large) | None => {}
        }
    }

    /// The clock: an entry that was read since it passed gets another round.
    fn evict(&mut self) {
        while self.bytes > HOT_BYTES_MAX
            && let Some(id) = self.clock.pop_front()
        {
            match self.entries.get_mut(&id) {
                Some(Entry::Ready { used: used @ true, .. }) => {
                    *used = false;
                    self.clock.push_back(id);
                }
                Some(entry) => {
                    self.bytes -= entry.bytes(&id);
                    self.entries.remove(&id);
                }
                None => unreachable!("what the clock holds is an entry"),
            }
        }
    }
}

impl Entry {
    fn bytes(&self, id: &Id) -> usize {
        let events = match self {
            Entry::Filling(events) | Entry::Ready { events, .. } => events.bytes(),
            Entry::Large => 0,
        };
        ENTRY_BYTES + id.as_str().len() + events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id::new(name).unwrap()
    }

    fn encoded(seqs: impl IntoIterator<Item = Seq>) -> Encoded {
        let mut events = Encoded::default();
        for seq in seqs {
            events.push(seq, "v");
        }
        events
    }

    #[test]
    fn slices_are_events_with_commas_between_them() {
        let events = encoded([3, 5, 9]);
        let text = |after, most: usize| {
            let places = events.after(after);
            let places = places.start..places.end.min(places.start + most);
            String::from_utf8(events.slice(places).to_vec()).unwrap()
        };
        let event = |seq| format!("{{\"seq\":{seq},\"value\":\"v\"}}");
        assert_eq!(text(0, 3), format!("{},{},{}", event(3), event(5), event(9)));
        assert_eq!(text(3, 1), event(5));
        assert_eq!(text(8, 9), event(9));
        assert_eq!(text(9, 9), "");
        assert_eq!((events.count(), events.last()), (3, 9));
    }

    #[test]
    fn what_is_committed_while_a_reader_is_asked_is_there_afterwards() {
        let mut hot = Hot::default();
        let a = id("a");
        assert!(matches!(hot.lookup(&a), Lookup::Absent));
        hot.begin(&a);
        hot.committed(&a, 7, "v");
        assert!(matches!(hot.lookup(&a), Lookup::Uncached));
        hot.filled(&a, Some(encoded([2, 4])));
        hot.committed(&a, 9, "v");
        hot.committed(&id("b"), 10, "v");
        match hot.lookup(&a) {
            Lookup::Ready(events) => assert_eq!(*events, encoded([2, 4, 7, 9])),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_committed_while_a_reader_is_asked_is_bounded() {
        let mut hot = Hot::default();
        let a = id("a");
        let value = "x".repeat(HOT_ENTRY_BYTES_MAX / 4);
        hot.begin(&a);
        for seq in 1..100 {
            hot.committed(&a, seq, &value);
        }
        let Some(Entry::Filling(later)) = hot.entries.get(&a) else { panic!("it is being filled") };
        assert!(later.bytes() < 2 * HOT_ENTRY_BYTES_MAX, "{} bytes", later.bytes());
        hot.filled(&a, Some(Encoded::default()));
        assert!(matches!(hot.entries.get(&a), Some(Entry::Large)), "and not one with a gap");
    }

    #[test]
    fn large_entries_and_old_ones_go_and_the_bytes_add_up() {
        let mut hot = Hot::default();
        let big = "x".repeat(HOT_ENTRY_BYTES_MAX - 200);
        let names: Vec<Id> =
            (0..HOT_BYTES_MAX / HOT_ENTRY_BYTES_MAX + 3).map(|n| id(&format!("s{n}"))).collect();
        for (name, seq) in names.iter().zip(1..) {
            hot.begin(name);
            let mut events = Encoded::default();
            events.push(seq, &big);
            hot.filled(name, Some(events));
            assert!(hot.bytes() <= HOT_BYTES_MAX);
        }
        let ready = |hot: &mut Hot, name| matches!(hot.lookup(name), Lookup::Ready(_));
        assert!(!ready(&mut hot, &names[0]) && ready(&mut hot, names.last().unwrap()));
        let counted: usize = hot.entries.iter().map(|(name, entry)| entry.bytes(name)).sum();
        assert_eq!(hot.bytes(), counted);
        let last = names.last().unwrap();
        hot.committed(last, 10_000, &big);
        assert!(matches!(hot.lookup(last), Lookup::Uncached), "it outgrew its place");
        let counted: usize = hot.entries.iter().map(|(name, entry)| entry.bytes(name)).sum();
        assert_eq!(hot.bytes(), counted);
    }
}
