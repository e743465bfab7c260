//! Owns the backup: a copy of a database, consistent as of one commit, made while another process
//! may serve it. Called by the command line. The copy begins a new epoch when it is served, so
//! cursors given out after it was made are noticed.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::sqlite::OpenError;
use super::sqlite::file::{beside, connect, is_rill};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupError {
    /// The source is none that can be copied.
    Source(OpenError),
    TargetExists,
    /// What went wrong with the copy.
    Target(String),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Source(error) => write!(f, "the database: {error}"),
            BackupError::TargetExists => write!(f, "the copy: a file of that name exists"),
            BackupError::Target(why) => write!(f, "the copy: {why}"),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> BackupError {
        BackupError::Target(error.to_string())
    }
}

/// Copies `from` to `to`, which appears whole, checked and on disk, or not at all.
pub fn backup(from: &Path, to: &Path) -> Result<(), BackupError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::TargetExists);
    }
    let partial = beside(to, ".partial");
    let copied = copy(from, &partial).and_then(|()| publish(&partial, to));
    if copied.is_err() {
        // The error that is returned says more than a failure to clean up would.
        let _ = fs::remove_file(&partial);
    }
    copied
}

fn copy(from: &Path, partial: &Path) -> Result<(), BackupError> {
    let source = open_source(from)?;
    let copied = copy_open(&source, partial);
    // Before the copy is checked: a start after a crash waits until nobody has the database open.
    let_go(source, from);
    check(copied?)
}

fn copy_open(source: &Connection, partial: &Path) -> Result<Connection, BackupError> {
    is_rill(source).map_err(BackupError::Source)?;
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target = connect(partial, flags).map_err(failed)?;
    // A copy that is interrupted is thrown away, and a whole one is synced as a file.
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        .map_err(|error| failed(error.into()))?;
    let copied = Backup::new(source, &mut target).and_then(|backup| backup.step(-1));
    match copied.map_err(|error| failed(error.into()))? {
        StepResult::Done => Ok(target),
        state => Err(BackupError::Target(format!("the database is held: {state:?}"))),
    }
}

fn check(target: Connection) -> Result<(), BackupError> {
    let verdict: String = target
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| failed(error.into()))?;
    if verdict != "ok" {
        return Err(BackupError::Target(format!("the check found: {verdict}")));
    }
    target.close().map_err(|(_, error)| failed(error.into()))
}

fn failed(error: StoreError) -> BackupError {
    BackupError::Target(error.to_string())
}

/// Opened by SQLite alone: reading the file and closing it would drop the locks of a server in this
/// process. Not read-only, so that what SQLite puts beside the file for reading goes away with it.
fn open_source(from: &Path) -> Result<Connection, BackupError> {
    let refused = |error| BackupError::Source(error);
    let metadata =
        fs::metadata(from).map_err(|error| refused(OpenError::Path(error.to_string())))?;
    if !metadata.is_file() {
        return Err(refused(OpenError::Path("is not a file".to_owned())));
    }
    connect(from, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|error| refused(OpenError::Store(error)))
}

/// The last to close copies the log into the database, and deletes it. What a crash left in it may
/// not be on the disk, which only a start makes good: such a log stays.
fn let_go(source: Connection, from: &Path) {
    let log = fs::canonicalize(from).and_then(|from| fs::metadata(beside(&from, "-wal")));
    let is_empty = log.is_ok_and(|log| log.len() == 0);
    if !is_empty
        && let Err(error) = source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
    {
        log::warn!("the write-ahead log may be copied: {error}");
    }
}

fn publish(partial: &Path, to: &Path) -> Result<(), BackupError> {
    File::open(partial)?.sync_all()?;
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::TargetExists);
    }
    fs::rename(partial, to)?;
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    Ok(File::open(folder)?.sync_all()?)
}
