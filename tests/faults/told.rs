//! Owns what anybody was told, and the oracle: opens a database as a starting server does, and says
//! whether every promise holds in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rill::event::{Hash, NewValue, Placed, Seq};
use rill::id::Id;
use rill::store::sqlite::{self, Opened};
use rill::store::{Batch, Direction, Found, ReadLog, Source, Survey};

use crate::harness::halves;

/// A storage's identifier, and a value in it.
pub(crate) type Event = (String, String);

/// Microseconds since 1970, on the clock that strace notes.
pub(crate) type Moment = u64;

#[derive(Clone, Default)]
pub(crate) struct Told {
    /// Acknowledged, or shown by a read or a stream.
    pub(crate) events: BTreeMap<Seq, Event>,
    /// When each was told first.
    moments: BTreeMap<Seq, Moment>,
    /// Appends that were answered "nothing was stored", and not stored since.
    pub(crate) refused: BTreeSet<Event>,
    /// Epochs of cursors that were given out, and since when.
    epochs: BTreeMap<String, Moment>,
}

impl Told {
    pub(crate) fn tell(&mut self, seq: Seq, id: &str, value: &str) {
        self.tell_at(now(), seq, id, value);
    }

    pub(crate) fn tell_at(&mut self, moment: Moment, seq: Seq, id: &str, value: &str) {
        let event = (id.to_owned(), value.to_owned());
        self.refused.remove(&event);
        let before = self.events.insert(seq, event.clone());
        assert!(before.is_none_or(|before| before == event), "{seq} was told twice");
        self.moments.entry(seq).or_insert(moment);
    }

    pub(crate) fn tell_cursor(&mut self, cursor: &str) {
        self.epochs.entry(halves(cursor).1.to_owned()).or_insert_with(now);
    }

    /// What had been told before that moment.
    pub(crate) fn before(&self, moment: Moment) -> Told {
        let earlier = |at: &Moment| *at < moment;
        let told = |seq: &Seq| earlier(&self.moments[seq]);
        let events = self.events.iter().filter(|(seq, _)| told(seq));
        Told {
            events: events.map(|(seq, event)| (*seq, event.clone())).collect(),
            moments: self.moments.clone().into_iter().filter(|(_, at)| earlier(at)).collect(),
            refused: BTreeSet::new(),
            epochs: self.epochs.clone().into_iter().filter(|(_, at)| earlier(at)).collect(),
        }
    }

    /// What another client was told too.
    pub(crate) fn join(&mut self, other: Told) {
        for (seq, event) in other.events {
            let before = self.events.insert(seq, event.clone());
            assert!(before.is_none_or(|before| before == event), "{seq} was told twice");
        }
        for (seq, moment) in other.moments {
            let first = self.moments.entry(seq).or_insert(moment);
            *first = moment.min(*first);
        }
        for (epoch, moment) in other.epochs {
            let first = self.epochs.entry(epoch).or_insert(moment);
            *first = moment.min(*first);
        }
        self.refused.extend(other.refused);
    }
}

pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is past 1970").as_micros() as Moment
}

/// The log as it stands, by storage.
struct Stored {
    events: Vec<(String, Hash)>,
    storages: BTreeMap<String, Vec<(Seq, Hash)>>,
}

/// Opens the database as a start does, and checks it; `what` is said when something is wrong.
pub(crate) fn check(db: &Path, told: &Told, what: &str) {
    let opened = sqlite::open(db).unwrap_or_else(|error| panic!("{what}: no start: {error}"));
    let epochs: BTreeSet<String> =
        opened.epochs.iter().map(|(epoch, _)| format!("{:08x}", epoch.0)).collect();
    let forgotten = told.epochs.keys().find(|epoch| !epochs.contains(*epoch));
    assert_eq!(forgotten, None, "{what}: the epoch of a cursor is not among {epochs:?}");
    let begun: Vec<Seq> = opened.epochs.iter().map(|(_, seq)| *seq).collect();
    assert!(begun.is_sorted(), "{what}: an epoch begins before an earlier one: {begun:?}");
    assert!(begun.iter().all(|seq| *seq <= opened.last), "{what}: the log went back: {begun:?}");
    let mut reader = sqlite::open_reader(db).unwrap_or_else(|error| panic!("{what}: {error}"));
    reader.begin().unwrap_or_else(|error| panic!("{what}: {error}"));
    let stored = stored(&*reader, opened.last, what);
    check_told(&*reader, &stored, told, what);
    check_indexes(&*reader, &stored, opened.last, what);
    reader.end();
    drop(reader);
    check_repeats(opened, told, what);
    let database = rusqlite::Connection::open(db).expect("SQLite opens what it opened before");
    let verdict: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("integrity_check answers");
    assert_eq!(verdict, "ok", "{what}");
}

/// Events are numbered from 1 without a gap, and no value stands twice in its storage.
fn stored(reader: &dyn ReadLog, last: Seq, what: &str) -> Stored {
    let mut stored = Stored { events: Vec::new(), storages: BTreeMap::new() };
    let mut once = BTreeSet::new();
    let scanned = reader.scan(0, last, Direction::OldestFirst, &mut |seq, id, hash| {
        stored.events.push((id.to_owned(), hash));
        assert_eq!(seq, stored.events.len() as Seq, "{what}: the log has a gap");
        assert!(once.insert((id.to_owned(), hash.0)), "{what}: the value at {seq} stands twice");
        stored.storages.entry(id.to_owned()).or_default().push((seq, hash));
        ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()), "{what}");
    assert_eq!(stored.events.len() as Seq, last, "{what}");
    stored
}

/// What was told stands where it was told to; what was refused stands nowhere.
fn check_told(reader: &dyn ReadLog, stored: &Stored, told: &Told, what: &str) {
    for (&seq, (id, _)) in &told.events {
        let there = stored.events.get(seq as usize - 1);
        assert_eq!(there.map(|(id, _)| id), Some(id), "{what}: {seq} was told");
    }
    let seqs: Vec<Seq> = told.events.keys().copied().collect();
    let mut seen = 0;
    let read = reader.values(&seqs, usize::MAX, &mut |place, value| {
        assert!(told.events[&seqs[place]].1 == value, "{what}: the value at {}", seqs[place]);
        seen += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((read, seen), (Ok(seqs.len()), seqs.len()), "{what}");
    for (id, value) in &told.refused {
        let hash = NewValue::new(value.as_str()).hash;
        let refused = |events: &Vec<(Seq, Hash)>| events.iter().all(|(_, known)| *known != hash);
        assert!(
            stored.storages.get(id).is_none_or(refused),
            "{what}: {value:.20} in {id} was refused, and is there"
        );
    }
}

/// What is found through the indexes, in both directions, is what the log says.
fn check_indexes(reader: &dyn ReadLog, stored: &Stored, last: Seq, what: &str) {
    for (name, events) in &stored.storages {
        let id = Id::new(name).expect("the store takes no other names");
        let expected = Survey { count: events.len() as u64, last: events[events.len() - 1].0 };
        assert_eq!(reader.survey(&id, last), Ok(expected), "{what}: {name}");
        for direction in [Direction::OldestFirst, Direction::NewestFirst] {
            let mut found = Vec::new();
            let source = [Source { id: &id, after: 0 }];
            let result =
                reader.find(&source, last, direction, &mut |Found { seq, hash, .. }| {
                    found.push((seq, hash));
                    ControlFlow::Continue(())
                });
            if direction == Direction::NewestFirst {
                found.reverse();
            }
            assert_eq!(result, Ok(()), "{what}: {name}");
            assert!(found == *events, "{what}: {name} is read as another {direction:?}");
        }
    }
}

/// Appending again what was told changes nothing: each value is found where it stands.
fn check_repeats(mut opened: Opened, told: &Told, what: &str) {
    let mut values: BTreeMap<&str, Vec<(Seq, NewValue)>> = BTreeMap::new();
    for (&seq, (id, value)) in &told.events {
        values.entry(id).or_default().push((seq, NewValue::new(value.as_str())));
    }
    for (name, values) in values {
        let id = Id::new(name).expect("the store takes no other names");
        let (seqs, values): (Vec<Seq>, Vec<NewValue>) = values.into_iter().unzip();
        let mut transaction = opened.log.begin().unwrap_or_else(|error| panic!("{what}: {error}"));
        let placed = transaction.append(&[Batch { id: &id, values: &values }]);
        assert_eq!(transaction.commit(), Ok(()), "{what}: {name}");
        let expected: Vec<Placed> = seqs.iter().map(|&seq| Placed { seq, new: false }).collect();
        assert_eq!(placed, Ok(vec![expected.into()]), "{what}: {name}");
    }
    assert_eq!(opened.log.last(), opened.last, "{what}");
    // The checkpointer's connection first, as the last one to close deletes the log.
    drop(opened.checkpoint);
    opened.log.close().unwrap_or_else(|error| panic!("{what}: {error}"));
}
