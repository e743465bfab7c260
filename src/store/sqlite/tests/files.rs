//! Which files are opened, refused and copied, and what is left beside them.

use std::fs;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::*;
use crate::store::backup::{BackupError, backup};

#[test]
fn files_that_are_not_served_stay_as_they_are() {
    let database = |application_id: i32, version: i32| {
        let folder = Folder::new();
        let conn = Connection::open(folder.file("db")).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA application_id = {application_id}; PRAGMA user_version = {version}; \
             CREATE TABLE t(x);"
        ))
        .unwrap();
        folder
    };
    let bytes = |bytes: &[u8]| {
        let folder = Folder::new();
        fs::write(folder.file("db"), bytes).unwrap();
        folder
    };
    const RILL: i32 = 0x7269_6c6c;
    for (folder, expected) in [
        (bytes(b"hello"), OpenError::NotRill),
        (bytes(&[0; 4096]), OpenError::NotRill),
        (bytes(&[b'x'; 5000]), OpenError::NotRill),
        (bytes(b"SQLite format 3\0"), OpenError::NotRill),
        (database(0, 0), OpenError::OtherProgram),
        (database(7, 1), OpenError::OtherProgram),
        (database(RILL, 3), OpenError::Newer(3)),
        (database(RILL, 0), OpenError::NotRill),
    ] {
        let before = folder.contents();
        assert_eq!(open(&folder.file("db")).err(), Some(expected));
        assert_eq!(folder.contents(), before);
    }
}

/// What the first schema had in place of today's tables of blocks.
const FORMER_BLOCKS: &str = "
    ALTER TABLE posting RENAME TO p; ALTER TABLE digest RENAME TO d;
    CREATE TABLE posting(segment INTEGER NOT NULL, key BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY(segment, key)) WITHOUT ROWID;
    CREATE TABLE digest(segment INTEGER NOT NULL, key INTEGER NOT NULL, offset INTEGER NOT NULL,
        data BLOB NOT NULL, PRIMARY KEY(segment, key, offset)) WITHOUT ROWID;
    INSERT INTO posting SELECT segment, key, data FROM p;
    INSERT INTO digest SELECT segment, key, offset, data FROM d;
    DROP TABLE p; DROP TABLE d; PRAGMA user_version = 1;";

#[test]
fn a_database_of_the_first_schema_is_upgraded() {
    let folder = Folder::new();
    let path = folder.file("db");
    let (mut random, mut model) = (Random(3), Model::default());
    let mut opened = open_with(&path, tiny()).unwrap();
    (0..40).for_each(|_| live(&mut opened, &mut model, &mut random));
    opened.log.close().unwrap();
    drop(opened.checkpoint);
    Connection::open(&path).unwrap().execute_batch(FORMER_BLOCKS).unwrap();
    for _ in 0..2 {
        let mut opened = open_with(&path, tiny()).unwrap();
        let mut reader = open_reader(&path).unwrap();
        check_reader(&mut *reader, &model, &mut random);
        for _ in 0..20 {
            live(&mut opened, &mut model, &mut random);
            check_reader(&mut *reader, &model, &mut random);
        }
        finish_upkeep(&mut opened);
        assert_no_garbage(&path);
        opened.log.close().unwrap();
    }
    let conn = Connection::open(&path).unwrap();
    let names = "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema \
                 WHERE sql IS NOT NULL ORDER BY name)";
    let schema = |conn: &Connection| conn.query_row(names, [], |row| row.get::<_, String>(0));
    let new = folder.file("new");
    open(&new).unwrap().log.close().unwrap();
    assert_eq!(schema(&conn), schema(&Connection::open(&new).unwrap()));
}

#[test]
fn paths_that_are_no_files_are_named() {
    let folder = Folder::new();
    fs::create_dir(folder.file("folder")).unwrap();
    for (path, expected) in [("folder", "is not a file"), ("no/db", "its folder: No such file")] {
        let error = open(&folder.file(path)).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{path}: {error}");
    }
    assert_eq!(folder.contents(), []);
}

#[test]
fn a_log_without_its_database_is_not_deleted() {
    let folder = Folder::new();
    fs::write(folder.file("db-wal"), "what may be all that is left").unwrap();
    let before = folder.contents();
    let error = open(&folder.file("db")).err().unwrap().to_string();
    assert!(error.contains("write-ahead log"), "{error}");
    assert_eq!(folder.contents(), before);
}

#[test]
fn a_database_is_served_once() {
    let folder = Folder::new();
    let path = folder.file("db");
    let opened = open(&path).unwrap();
    assert_eq!(open(&path).err(), Some(OpenError::Served));
    std::os::unix::fs::symlink(&path, folder.file("link")).unwrap();
    assert_eq!(open(&folder.file("link")).err(), Some(OpenError::Served));
    drop(opened);
    assert!(open(&path).is_ok());
}

#[test]
fn an_interrupted_creation_is_begun_again() {
    let folder = Folder::new();
    let path = folder.file("db");
    let conn = Connection::open(&path).unwrap();
    // What is written before the commit, while the journal still says "there was nothing".
    conn.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; CREATE TABLE t(x);")
        .unwrap();
    conn.execute("INSERT INTO t SELECT randomblob(100000)", []).unwrap();
    let journal = fs::read(folder.file("db-journal")).unwrap();
    let interrupted = Folder::new();
    for (name, head) in [("empty", Vec::new()), ("zeros", vec![0; 8192])] {
        let path = interrupted.file(name);
        fs::write(&path, head).unwrap();
        fs::write(file::beside(&path, "-journal"), &journal).unwrap();
        let mut opened = open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let values = [NewValue::new("x")];
        commit(&mut *opened.log, &[Batch { id: &id(1), values: &values }]).unwrap();
    }
}

#[test]
fn a_backup_is_one_commit_of_a_served_database() {
    let folder = Folder::new();
    let path = folder.file("db");
    let (mut random, mut model) = (Random(1), Model::default());
    let mut opened = open_with(&path, tiny()).unwrap();
    for _ in 0..20 {
        live(&mut opened, &mut model, &mut random);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                live(&mut opened, &mut model, &mut random);
            }
        });
        for n in 0..5 {
            backup(&path, &folder.file(&format!("copy {n}"))).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap();
    });
    for n in 0..5 {
        let copy = folder.file(&format!("copy {n}"));
        let served = open_with(&copy, tiny()).unwrap();
        assert_eq!(served.epochs.len(), 2);
        let mut model = model.clone();
        model.cut(served.last);
        check_reader(&mut *open_reader(&copy).unwrap(), &model, &mut random);
    }
}

#[test]
fn a_backup_leaves_what_a_crash_left_to_the_next_start() {
    let (folder, crashed) = (Folder::new(), Folder::new());
    let mut opened = open(&folder.file("db")).unwrap();
    let values = [NewValue::new("x")];
    commit(&mut *opened.log, &[Batch { id: &id(1), values: &values }]).unwrap();
    for name in ["db", "db-wal"] {
        fs::copy(folder.file(name), crashed.file(name)).unwrap();
    }
    let before = crashed.contents();
    backup(&crashed.file("db"), &crashed.file("copy")).unwrap();
    let mut after = crashed.contents();
    after.retain(|file| before.iter().any(|(path, _)| *path == file.0));
    assert_eq!(after, before);
    assert_eq!(open(&crashed.file("copy")).unwrap().last, 1);
}

#[test]
fn backups_that_cannot_be_made_leave_nothing() {
    let folder = Folder::new();
    let (db, text) = (folder.file("db"), folder.file("text"));
    open(&db).unwrap().log.close().unwrap();
    fs::write(&text, "text").unwrap();
    let before = folder.contents();
    let missing = || OpenError::Path("No such file or directory (os error 2)".to_owned());
    for (from, to, expected) in [
        (&db, &text, BackupError::TargetExists),
        (&db, &db, BackupError::TargetExists),
        (&text, &folder.file("copy"), BackupError::Source(OpenError::NotRill)),
        (&folder.file("none"), &folder.file("copy"), BackupError::Source(missing())),
        (
            &db,
            &folder.file("none/copy"),
            BackupError::Target("the store failed: unable to open database file".to_owned()),
        ),
    ] {
        match (backup(from, to), expected) {
            (Err(BackupError::Target(why)), BackupError::Target(expected)) => {
                assert!(why.starts_with(&expected), "{why}");
            }
            (result, expected) => assert_eq!(result, Err(expected)),
        }
        assert_eq!(folder.contents(), before, "{from:?} to {to:?}");
    }
    backup(&db, &folder.file("copy")).unwrap();
    assert_eq!(folder.contents().len(), before.len() + 1, "only the copy is new");
}
