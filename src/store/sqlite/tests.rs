//! The store against a naive model of it: whatever is appended, folded, merged, reopened, copied or
//! cut off, what is read is what the model holds.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

use super::*;
use crate::event::{NewValue, Placed};
use crate::store::{Batch, Direction, Found, Source, Survey, Upkeep};

mod files;
mod log;

/// A folder of its own, deleted at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rill-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // In memory where there is such a folder: what is tested does not depend on a disk's syncs.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// All names in it, with the hash of what they hold.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut contents: Vec<_> = paths
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), Sha256::digest(fs::read(path).unwrap()).to_vec()))
            .collect();
        contents.sort();
        contents
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Folds and merges after a few events.
pub(super) fn tiny() -> Tuning {
    Tuning {
        fold_events: 40,
        idle_fold_events: 10,
        unfolded_events_max: 120,
        index_ahead_events: 4,
        index_share_events: 8,
        fan_out: 3,
        segment_events_max: 2_000,
        rest_merge_events_max: 300,
        slice_units: 48,
        filters_bytes_max: 1_000,
        wal_bytes_soft: 100_000,
        wal_bytes_hard: 400_000,
        wal_file_bytes_min: 8_000,
        wal_spare_bytes: 0,
    }
}

fn id(n: u64) -> Id {
    Id::new(&format!("storage {n}")).unwrap()
}

/// What the store should hold.
#[derive(Clone, Default)]
struct Model {
    events: Vec<(Id, NewValue)>,
    places: HashMap<(Id, Hash), Seq>,
}

impl Model {
    fn append(&mut self, id: &Id, value: &NewValue) -> Placed {
        let next = self.events.len() as Seq + 1;
        let place = self.places.entry((id.clone(), value.hash)).or_insert(next);
        let placed = Placed { seq: *place, new: *place == next };
        if placed.new {
            self.events.push((id.clone(), value.clone()));
        }
        placed
    }

    /// The first events only, as after a crash that lost the rest.
    fn cut(&mut self, last: Seq) {
        self.events.truncate(last as usize);
        self.places.retain(|_, seq| *seq <= last);
    }

    fn survey(&self, id: &Id, to: Seq) -> Survey {
        let seqs = self.found(&[Source { id, after: 0 }], to);
        Survey { count: seqs.len() as u64, last: seqs.last().map_or(0, |found| found.seq) }
    }

    fn found(&self, sources: &[Source<'_>], to: Seq) -> Vec<Found> {
        let events = self.events.iter().zip(1..).filter(|(_, seq)| *seq <= to);
        let find = |((id, value), seq): (&(Id, NewValue), Seq)| {
            let source = sources.iter().position(|s| s.id == id && s.after < seq)?;
            Some(Found { source, seq, hash: value.hash })
        };
        events.filter_map(find).collect()
    }
}

const STORAGES: u64 = 9;

/// A few batches over a few storages, many values of them known already.
fn random_batches(random: &mut Random) -> Vec<(Id, Vec<NewValue>)> {
    let mut batch = |_| {
        // Storage 0 gets half of everything.
        let n = if random.below(2) == 0 { 0 } else { random.below(STORAGES) };
        let values = 1 + random.below(12);
        let mut value = |_| NewValue::new(format!("value\0{}", random.below(1_500)));
        (id(n), (0..values).map(&mut value).collect())
    };
    (0..4).map(&mut batch).collect()
}

/// One transaction.
pub(super) fn commit(
    log: &mut dyn WriteLog,
    batches: &[Batch<'_>],
) -> Result<Vec<Box<[Placed]>>, StoreError> {
    let mut transaction = log.begin()?;
    let placed = transaction.append(batches)?;
    transaction.commit()?;
    Ok(placed)
}

/// One transaction, in as many parts as there are batches.
fn commit_both(log: &mut dyn WriteLog, model: &mut Model, batches: &[(Id, Vec<NewValue>)]) {
    let mut transaction = log.begin().unwrap();
    let mut append = |(id, values): &(Id, Vec<NewValue>)| {
        transaction.append(&[Batch { id, values }]).unwrap().remove(0)
    };
    let placed: Vec<Box<[Placed]>> = batches.iter().map(&mut append).collect();
    transaction.commit().unwrap();
    for ((id, values), placed) in batches.iter().zip(&placed) {
        let expected: Vec<_> = values.iter().map(|value| model.append(id, value)).collect();
        assert_eq!(**placed, expected);
    }
    assert_eq!(log.last(), model.events.len() as Seq);
}

fn find(
    reader: &dyn ReadLog,
    sources: &[Source<'_>],
    to: Seq,
    direction: Direction,
    limit: usize,
) -> Vec<Found> {
    let mut found = Vec::new();
    reader
        .find(sources, to, direction, &mut |event| {
            found.push(event);
            if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    found
}

fn check_reader(reader: &mut dyn ReadLog, model: &Model, random: &mut Random) {
    let last = model.events.len() as Seq;
    let ids: Vec<Id> = (0..STORAGES + 1).map(id).collect();
    reader.begin().unwrap();
    for to in [Seq::MAX, last, random.below(last + 2)] {
        for id in &ids {
            assert_eq!(reader.survey(id, to).unwrap(), model.survey(id, to), "{id:?} to {to}");
        }
        for many in [1, 3, ids.len()] {
            let mut source = |n| {
                let id = &ids[(n + random.below(2) as usize * 3) % ids.len()];
                Source { id, after: random.below(3) * random.below(last + 2) / 2 }
            };
            let mut sources: Vec<Source<'_>> = (0..many).map(&mut source).collect();
            sources.sort_by(|a, b| a.id.cmp(b.id));
            sources.dedup_by(|a, b| a.id == b.id);
            check_find(reader, model, &sources, to, 1 + random.below(60) as usize);
        }
    }
    reader.end();
    reader.end();
}

fn check_find(reader: &dyn ReadLog, model: &Model, sources: &[Source<'_>], to: Seq, limit: usize) {
    let mut expected = model.found(sources, to);
    assert_eq!(find(reader, sources, to, Direction::OldestFirst, usize::MAX), expected);
    let some = &expected[..limit.min(expected.len())];
    assert_eq!(find(reader, sources, to, Direction::OldestFirst, limit), some);
    check_values(reader, model, &expected);
    expected.reverse();
    assert_eq!(find(reader, sources, to, Direction::NewestFirst, usize::MAX), expected);
    let some = &expected[..limit.min(expected.len())];
    assert_eq!(find(reader, sources, to, Direction::NewestFirst, limit), some);
}

fn check_values(reader: &dyn ReadLog, model: &Model, found: &[Found]) {
    let seqs: Vec<Seq> = found.iter().map(|found| found.seq).collect();
    let mut visited = 0;
    let kept = reader
        .values(&seqs, usize::MAX, &mut |at, value| {
            assert_eq!(at, visited);
            assert_eq!(value, &*model.events[seqs[at] as usize - 1].1.text);
            visited += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((kept, visited), (seqs.len(), seqs.len()));
    // The longest ones end the visit.
    let length = |seq: &Seq| model.events[*seq as usize - 1].1.text.len();
    let Some(longest) = seqs.iter().map(length).max().filter(|longest| *longest > 0) else {
        return;
    };
    let before = seqs.iter().position(|seq| length(seq) == longest).unwrap();
    let continues = &mut |_, _: &str| ControlFlow::Continue(());
    assert_eq!(reader.values(&seqs, longest - 1, continues).unwrap(), before);
}

/// One step of a life: commits, with upkeep and checkpoints in between. A transaction that indexes
/// ahead may be open afterwards.
fn live(opened: &mut Opened, model: &mut Model, random: &mut Random) {
    let log = &mut opened.log;
    commit_both(&mut **log, model, &random_batches(random));
    while random.below(3) > 0 && log.index_ahead().unwrap() {}
    for _ in 0..random.below(3) {
        log.upkeep(random.below(2) == 0).unwrap();
    }
    if let Some(bytes) = opened.log.lengthening_due() {
        opened.checkpoint.lengthen(bytes).unwrap();
    }
    checkpoint_if_due(opened);
}

fn checkpoint_if_due(opened: &mut Opened) {
    if opened.log.checkpoint_due() {
        assert!(!opened.log.checkpoint_due(), "once until the log was restarted");
        let copied_bytes = opened.checkpoint.run().unwrap();
        opened.log.restart_log(copied_bytes).unwrap();
    }
}

fn finish_upkeep(opened: &mut Opened) {
    while opened.log.upkeep(true).unwrap() != Upkeep::Done {
        checkpoint_if_due(opened);
    }
}

/// The files as a crash of the machine could leave them: all of the database, and of its log what
/// `keep` says.
fn copy_files(from: &Path, to: &Path, keep: impl FnOnce(usize) -> usize) {
    fs::copy(from, to).unwrap();
    let wal = fs::read(file::beside(from, "-wal")).unwrap_or_default();
    let kept = keep(wal.len()).min(wal.len());
    fs::write(file::beside(to, "-wal"), &wal[..kept]).unwrap();
}

#[test]
fn what_is_read_is_what_was_appended() {
    for seed in 0..4 {
        let folder = Folder::new();
        let path = folder.file("db");
        let (mut random, mut model) = (Random(seed), Model::default());
        let mut epochs = 0;
        for _ in 0..4 {
            let mut opened = open_with(&path, tiny()).unwrap();
            epochs += 1;
            assert_eq!((opened.last, opened.epochs.len()), (model.events.len() as Seq, epochs));
            assert_eq!(opened.epochs.last().unwrap().1, opened.last);
            let mut reader = open_reader(&path).unwrap();
            for step in 0..40 {
                live(&mut opened, &mut model, &mut random);
                if step % 8 == 0 {
                    check_reader(&mut *reader, &model, &mut random);
                }
            }
            check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
            if random.below(2) == 0 {
                drop(reader);
                opened.log.close().unwrap();
            }
        }
        let mut opened = open_with(&path, tiny()).unwrap();
        finish_upkeep(&mut opened);
        check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
        let gauges = opened.log.gauges();
        assert!(gauges.segments > 1 && gauges.unfolded < 10, "{gauges:?}");
        assert_no_garbage(&path);
    }
}

/// Every block belongs to a segment, and none is larger than its page allows.
fn assert_no_garbage(path: &Path) {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for table in ["posting", "digest", "filter"] {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE segment NOT IN (SELECT number FROM segment)"
        );
        assert_eq!(conn.query_row(&sql, [], |row| row.get(0)), Ok(0), "garbage in {table}");
    }
    let verdict = conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(verdict.unwrap(), "ok");
}

#[test]
fn a_crash_leaves_the_events_up_to_some_commit() {
    for seed in 0..6 {
        let folder = Folder::new();
        let (mut random, mut model) = (Random(seed), Model::default());
        let mut path = folder.file("db");
        for life in 0..4 {
            let mut opened = open_with(&path, tiny()).unwrap();
            for _ in 0..10 + random.below(20) {
                live(&mut opened, &mut model, &mut random);
            }
            // A new commit, so that nothing in the log was copied into the database already: what
            // was copied had been synced, and no crash takes it away.
            let values = vec![NewValue::new(format!("life {life}"))];
            commit_both(&mut *opened.log, &mut model, &[(id(0), values)]);
            let crashed = folder.file(&format!("db {life}"));
            let whole = life % 2 == 0;
            copy_files(&path, &crashed, |bytes| {
                if whole { bytes } else { random.below(bytes as u64 + 1) as usize }
            });
            drop(opened);
            path = crashed;
            let opened = open_with(&path, tiny()).unwrap();
            assert!(opened.last <= model.events.len() as Seq);
            assert!(!whole || opened.last == model.events.len() as Seq, "nothing was lost");
            model.cut(opened.last);
            check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
        }
        let mut opened = open_with(&path, tiny()).unwrap();
        live(&mut opened, &mut model, &mut random);
        finish_upkeep(&mut opened);
        check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
        assert_no_garbage(&path);
    }
}

#[test]
fn a_view_stays_as_it_was_while_appends_go_on() {
    let folder = Folder::new();
    let path = folder.file("db");
    let (mut random, mut model) = (Random(9), Model::default());
    let tuning = Tuning { wal_bytes_hard: usize::MAX, ..tiny() };
    let mut opened = open_with(&path, tuning).unwrap();
    let mut reader = open_reader(&path).unwrap();
    for _ in 0..10 {
        live(&mut opened, &mut model, &mut random);
        let before = model.clone();
        reader.begin().unwrap();
        for _ in 0..8 {
            commit_both(&mut *opened.log, &mut model, &random_batches(&mut random));
            opened.log.upkeep(true).unwrap();
        }
        let (id, last) = (id(0), before.events.len() as Seq);
        assert_eq!(reader.survey(&id, Seq::MAX).unwrap(), before.survey(&id, Seq::MAX));
        check_find(&*reader, &before, &[Source { id: &id, after: 0 }], last, 7);
        reader.end();
    }
    check_reader(&mut *reader, &model, &mut random);
}

#[test]
fn a_transaction_that_is_dropped_leaves_nothing() {
    let folder = Folder::new();
    let path = folder.file("db");
    let (mut random, mut model) = (Random(8), Model::default());
    let mut opened = open_with(&path, tiny()).unwrap();
    for round in 0..30 {
        live(&mut opened, &mut model, &mut random);
        let values: Vec<_> = (0..40).map(|n| NewValue::new(format!("{round} {n}"))).collect();
        let batches = [(id(1), values)];
        let before = opened.log.gauges();
        let mut transaction = opened.log.begin().unwrap();
        for (id, values) in &batches {
            let placed = transaction.append(&[Batch { id, values }]).unwrap();
            assert!(placed[0].iter().all(|placed| placed.new));
        }
        drop(transaction);
        assert_eq!(opened.log.gauges(), before);
        commit_both(&mut *opened.log, &mut model, &batches);
    }
    finish_upkeep(&mut opened);
    check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
    assert_no_garbage(&path);
}

/// What is indexed between appends is committed by whatever comes next, and is lost with nothing but
/// the time it took.
#[test]
fn what_is_indexed_ahead_is_committed_with_what_follows() {
    type Follows = fn(&mut Opened, &mut Model);
    let follows: [(&str, Follows); 5] = [
        ("an append", |opened, model| commit_both(&mut *opened.log, model, &[more(0)])),
        ("a failed append", |opened, _| drop(opened.log.begin().unwrap())),
        ("upkeep", |opened, _| assert!(opened.log.upkeep(false).is_ok())),
        ("a checkpoint", |opened, _| opened.log.restart_log(0).unwrap()),
        ("the end", |_, _| {}),
    ];
    for (name, follow) in follows {
        let folder = Folder::new();
        let path = folder.file("db");
        let (mut random, mut model) = (Random(3), Model::default());
        let mut opened = open_with(&path, tiny()).unwrap();
        let mut ahead = 0;
        for round in 1..40 {
            commit_both(&mut *opened.log, &mut model, &[more(round)]);
            assert!(is_writable(&path), "{name}: nothing is open after a commit");
            if opened.log.index_ahead().unwrap() {
                ahead += 1;
                assert!(!is_writable(&path), "{name}: the next commit is waited for");
                follow(&mut opened, &mut model);
                assert!(name == "the end" || is_writable(&path), "{name} ended it");
                let unfolded = opened.log.gauges().unfolded;
                assert!(name == "a failed append" || unfolded < 80, "{name} keeps it: {unfolded}");
            }
        }
        assert!(ahead > 10, "{name}: only {ahead} times");
        opened.log.close().unwrap();
        check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
        finish_upkeep(&mut open_with(&path, tiny()).unwrap());
        check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
        assert_no_garbage(&path);
    }
}

/// A few values that no other round has, but for the first.
fn more(round: u64) -> (Id, Vec<NewValue>) {
    (id(round % STORAGES), (0..6).map(|n| NewValue::new(format!("{round} {n}"))).collect())
}

/// Whether no transaction that writes is open.
fn is_writable(path: &Path) -> bool {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
}

#[test]
fn a_failed_commit_leaves_nothing_and_is_repeated() {
    let folder = Folder::new();
    let path = folder.file("db");
    let (mut random, mut model) = (Random(5), Model::default());
    let mut opened = open_with(&path, tiny()).unwrap();
    let mut other = Connection::open(&path).unwrap();
    other.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    for round in 0..30 {
        for _ in 0..3 {
            live(&mut opened, &mut model, &mut random);
        }
        opened.log.upkeep(true).unwrap();
        // An event that someone else put in the next place makes the insert fail half-way.
        let taken = model.events.len() as Seq + 1 + round % 3;
        let other = other.transaction().unwrap();
        other
            .execute("INSERT INTO log VALUES(?1, 'x', x'00', x'00')", [segment::sql(taken)])
            .unwrap();
        other.commit().unwrap();
        let values: Vec<_> =
            (0..60).map(|n| NewValue::new(format!("round {round} value {n}"))).collect();
        let batches = [(id(1), values)];
        let asked = [Batch { id: &batches[0].0, values: &batches[0].1 }];
        let before = opened.log.gauges();
        assert!(matches!(commit(&mut *opened.log, &asked), Err(StoreError::Failed(_))));
        let after = opened.log.gauges();
        assert_eq!((after.last, after.unfolded), (before.last, before.unfolded));
        let mend = Connection::open(&path).unwrap();
        mend.execute("DELETE FROM log WHERE seq = ?1", [segment::sql(taken)]).unwrap();
        drop(mend);
        commit_both(&mut *opened.log, &mut model, &batches);
    }
    finish_upkeep(&mut opened);
    check_reader(&mut *open_reader(&path).unwrap(), &model, &mut random);
    assert_no_garbage(&path);
}

const VALUES: Seq = 2_000;

/// A segment of so many values of the storage `a`, with these digests, in order.
fn segment_with(folder: &Folder, digest: fn(Seq) -> u64) -> (Connection, segment::Segment) {
    drop(open_with(&folder.file("db"), tiny()).unwrap());
    let conn = Connection::open(folder.file("db")).unwrap();
    let segment = segment::Segment { number: 1, level: 0, first: 1, last: VALUES };
    let mut writer = segment::SegmentWriter::new(segment);
    conn.execute_batch("BEGIN").unwrap();
    for seq in 1..=VALUES {
        let NewValue { text, hash } = numbered(seq);
        let row = params![segment::sql(seq), hash.0, text.as_bytes()];
        conn.execute("INSERT INTO log VALUES(?1, 'a', ?2, ?3)", row).unwrap();
        writer.digest(&conn, digest(seq), seq).unwrap();
    }
    writer.finish(&conn).unwrap();
    conn.execute_batch("COMMIT").unwrap();
    (conn, segment)
}

fn numbered(seq: Seq) -> NewValue {
    NewValue::new(format!("{seq}"))
}

#[test]
fn digests_that_collide_are_told_apart_across_blocks() {
    let folder = Folder::new();
    // Two digests for all of them, on both sides of the sign.
    let digest = |seq| if seq <= VALUES / 2 { 7 } else { u64::MAX - 7 };
    let (conn, segment) = segment_with(&folder, digest);
    let mut lookup = segment::Lookup::new(&conn, segment);
    let mut find = |digest, id: &str, hash| lookup.find(digest, id, &hash);
    for seq in 1..=VALUES {
        let (own, other) = (digest(seq), digest(VALUES + 1 - seq));
        assert_eq!(find(own, "a", numbered(seq).hash), Ok(Some(seq)));
        assert_eq!(find(other, "a", numbered(seq).hash), Ok(None));
        assert_eq!(find(own, "b", numbered(seq).hash), Ok(None), "another storage's value");
    }
    assert_eq!(find(8, "a", numbered(1).hash), Ok(None));
}

#[test]
fn a_value_is_found_whatever_was_looked_for_before() {
    let folder = Folder::new();
    // Three of each, so that a block ends within some.
    let digest = |seq| seq / 3 * 10;
    let (conn, segment) = segment_with(&folder, digest);
    let blocks: i64 = conn.query_row("SELECT count(*) FROM digest", [], |row| row.get(0)).unwrap();
    assert!(blocks > 5, "{blocks}");
    let mut lookup = segment::Lookup::new(&conn, segment);
    let mut find = |seq, digest| lookup.find(digest, "a", &numbered(seq).hash);
    let mut random = Random(5);
    let any = (0..8_000).map(|_| 1 + random.below(VALUES));
    for seq in (1..=VALUES).chain((1..=VALUES).rev()).chain(any) {
        assert_eq!(find(seq, digest(seq)), Ok(Some(seq)));
        assert_eq!(find(seq, digest(seq) + 10), Ok(None));
        assert_eq!(find(seq, digest(seq) + 1), Ok(None));
    }
}
