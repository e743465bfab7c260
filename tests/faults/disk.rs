//! Owns the model of a disk whose power goes: what is on it for certain, what may be, and states it
//! may be found in. Only what a finished sync covers is certain. Of everything else any part may be
//! there, whatever the order it was written in: writes, each torn between sectors; changes of a
//! file's length; names that were made or removed, until their folder is synced.

use std::collections::{BTreeMap, HashMap};

use crate::harness::Random;
use crate::trace::{Change, Step};

const SECTOR_BYTES: usize = 512;

/// Names, and the files they are of.
type Names = BTreeMap<String, usize>;
/// What is found after the power came back.
pub(crate) type State = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// As the running system sees it.
    names: Names,
    durable_names: Names,
    pending_names: Vec<Pending<Renamed>>,
    files: Vec<File>,
    /// Syncs under way: what they cover.
    syncs: HashMap<(u32, String), u64>,
    /// Numbers the changes.
    number: u64,
}

#[derive(Clone, Default)]
struct File {
    /// As the running system sees it.
    length: usize,
    durable: Vec<u8>,
    pending: Vec<Pending<Changed>>,
}

#[derive(Clone)]
struct Pending<T> {
    number: u64,
    change: T,
}

#[derive(Clone)]
enum Renamed {
    Made(String, usize),
    Removed(String),
}

#[derive(Clone)]
enum Changed {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { bytes: usize },
}

/// What of that which was not synced is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    Everything,
    /// All but the end of the last write.
    LastTorn,
    /// Of each file nothing, everything, or any part.
    Some,
}

pub(crate) const KEPT: [Kept; 4] = [Kept::Nothing, Kept::Everything, Kept::LastTorn, Kept::Some];

impl Disk {
    /// With these files, all of them certain.
    pub(crate) fn with(state: &State) -> Disk {
        let mut disk = Disk::default();
        for (name, bytes) in state {
            disk.names.insert(name.clone(), disk.files.len());
            let (length, durable) = (bytes.len(), bytes.clone());
            disk.files.push(File { length, durable, pending: Vec::new() });
        }
        disk.durable_names.clone_from(&disk.names);
        disk
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        self.number += 1;
        let (number, name) = (self.number, &step.name);
        match &step.change {
            Change::Open if self.names.contains_key(name) => {}
            Change::Open => {
                let file = self.files.len();
                self.files.push(File::default());
                self.names.insert(name.clone(), file);
                let change = Renamed::Made(name.clone(), file);
                self.pending_names.push(Pending { number, change });
            }
            Change::Unlink => {
                self.names.remove(name);
                let change = Renamed::Removed(name.clone());
                self.pending_names.push(Pending { number, change });
            }
            Change::Write { at, bytes } => {
                self.file(name).write(number, *at, bytes.clone());
            }
            Change::Append { bytes } => {
                let file = self.file(name);
                let truncated =
                    |pending: &Pending<Changed>| matches!(pending.change, Changed::Truncate { .. });
                // It would stand in what was there before, where only the truncation is lost.
                assert!(
                    !file.pending.iter().any(truncated),
                    "{name} was not truncated for certain"
                );
                file.write(number, file.length, bytes.clone());
            }
            Change::Truncate { bytes } => {
                let file = self.file(name);
                file.length = *bytes;
                file.pending.push(Pending { number, change: Changed::Truncate { bytes: *bytes } });
            }
            Change::SyncBegins { thread } => {
                self.syncs.insert((*thread, name.clone()), number);
            }
            Change::SyncEnds { thread, succeeded } => {
                let key = (*thread, name.clone());
                let covers = self.syncs.remove(&key).expect("a sync begins before it ends");
                self.synced(name, covers, *succeeded);
            }
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let file = self.names.get(name).unwrap_or_else(|| panic!("{name} is not there"));
        &mut self.files[*file]
    }

    /// After a sync that failed, the system may hold what it covered for clean: no later one
    /// writes it. Names are another matter: they are in the file system's own journal.
    fn synced(&mut self, name: &str, covers: u64, succeeded: bool) {
        if name.is_empty() {
            if succeeded {
                let end = self.pending_names.partition_point(|pending| pending.number < covers);
                let covered = self.pending_names.drain(..end);
                covered.for_each(|pending| pending.change.apply(&mut self.durable_names));
            }
            return;
        }
        let file = self.file(name);
        let end = file.pending.partition_point(|pending| pending.number < covers);
        let covered = file.pending.drain(..end);
        let durable = &mut file.durable;
        covered.filter(|_| succeeded).for_each(|pending| pending.change.apply(durable));
    }

    /// As the running system sees it.
    pub(crate) fn running(&self) -> State {
        let mut state = State::new();
        for (name, file) in &self.names {
            let File { durable, pending, .. } = &self.files[*file];
            let mut bytes = durable.clone();
            pending.iter().for_each(|pending| pending.change.apply(&mut bytes));
            state.insert(name.clone(), bytes);
        }
        state
    }

    /// A state that the disk may be found in.
    pub(crate) fn cut(&self, kept: Kept, random: &mut Random) -> State {
        let last = self.files.iter().flat_map(|file| &file.pending).map(|pending| pending.number);
        let last = last.max().unwrap_or(0);
        let mut names = self.durable_names.clone();
        for pending in &self.pending_names {
            if kept == Kept::Everything || kept != Kept::Nothing && random.one_in(2) {
                pending.change.apply(&mut names);
            }
        }
        let mut state = State::new();
        for (name, file) in names {
            let file = &self.files[file];
            let share = random.range(0, 2);
            let mut bytes = file.durable.clone();
            for Pending { number, change } in &file.pending {
                match kept {
                    Kept::Nothing => {}
                    Kept::LastTorn if *number == last => change.apply_torn(&mut bytes, random),
                    Kept::Everything | Kept::LastTorn => change.apply(&mut bytes),
                    Kept::Some => match share {
                        0 => {}
                        1 if random.one_in(2) => {}
                        1 if random.one_in(4) => change.apply_scattered(&mut bytes, random),
                        _ => change.apply(&mut bytes),
                    },
                }
            }
            state.insert(name, bytes);
        }
        state
    }
}

impl File {
    fn write(&mut self, number: u64, at: usize, bytes: Vec<u8>) {
        self.length = self.length.max(at + bytes.len());
        self.pending.push(Pending { number, change: Changed::Write { at, bytes } });
    }
}

impl Renamed {
    fn apply(&self, names: &mut Names) {
        match self {
            Renamed::Made(name, file) => names.insert(name.clone(), *file),
            Renamed::Removed(name) => names.remove(name),
        };
    }
}

impl Changed {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Changed::Write { at, bytes } => put(file, *at, bytes),
            Changed::Truncate { bytes } => file.resize(*bytes, 0),
        }
    }

    /// Up to some sector.
    fn apply_torn(&self, file: &mut Vec<u8>, random: &mut Random) {
        let Changed::Write { at, bytes } = self else { return };
        let sectors: Vec<(usize, &[u8])> = sectors(*at, bytes).collect();
        for (at, part) in &sectors[..random.range(0, sectors.len() - 1)] {
            put(file, *at, part);
        }
    }

    /// Some sectors of it.
    fn apply_scattered(&self, file: &mut Vec<u8>, random: &mut Random) {
        let Changed::Write { at, bytes } = self else { return };
        for (at, part) in sectors(*at, bytes).filter(|_| random.one_in(2)) {
            put(file, at, part);
        }
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// A write's parts, none of which crosses from one sector to the next.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate();
    let rest = rest.map(move |(place, part)| (at + first + place * SECTOR_BYTES, part));
    [(at, head)].into_iter().chain(rest)
}
