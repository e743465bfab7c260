//! Owns the SQLite store: how it is opened, and what its parts agree on. Used through the traits of
//! `store`.
//!
//! An append writes the `log` table and nothing else; everything else can be made from it again.
//! Segments index consecutive events of the log, and are made (`fold`), made into larger ones
//! (`merge`) and deleted in slices that ride along in commits, or between them (`upkeep`). Segments
//! are written once; only those that have a row count. Events past the last segment are in memory,
//! on the writing side (`unfolded`) to know a value again, on the reading side (`tail`) to be found.
//!
//! The write-ahead log is synced by whoever has its file, not by SQLite, and its file is made longer ahead
//! of commits (`log_file`), which then only write over what is there. What a crash left of it is made durable
//! before anything goes by it (`crashed_log`).
//!
//! Invariants:
//! - Events are numbered from 1 without a gap, and so are segments: the `mark` splits the log in two.
//! - A transaction that fails leaves no trace in memory (`write::Writer::transact`).
//! - A reader's view is one SQLite transaction; segments that it lists have all their blocks in it.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::{Checkpoint, ReadLog, StoreError, SyncLog, WriteLog};
use crate::config;
use crate::event::{Epoch, Hash, Seq};
use crate::id::{Id, StorageKey};

mod block;
mod bloom;
mod crashed_log;
mod cursor;
mod error;
pub(super) mod file;
mod fold;
mod log_file;
mod merge;
mod read;
mod segment;
mod tail;
#[cfg(test)]
mod tests;
mod unfolded;
mod upkeep;
mod values;
mod wal;
mod write;
mod write_back;

const PAGE_BYTES: u64 = 4_096;
/// How long a connection waits for another program that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of `config`, as a test may want them smaller.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub fold_events: usize,
    pub idle_fold_events: usize,
    pub unfolded_events_max: usize,
    pub index_ahead_events: usize,
    pub index_share_events: usize,
    pub fan_out: usize,
    pub segment_events_max: usize,
    pub rest_merge_events_max: usize,
    pub slice_units: usize,
    pub filters_bytes_max: usize,
    pub wal_bytes_soft: usize,
    pub wal_bytes_hard: usize,
    pub wal_file_bytes_min: usize,
    pub wal_spare_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            fold_events: config::FOLD_EVENTS,
            idle_fold_events: config::IDLE_FOLD_EVENTS,
            unfolded_events_max: config::UNFOLDED_EVENTS_MAX,
            index_ahead_events: config::INDEX_AHEAD_EVENTS,
            index_share_events: config::INDEX_SHARE_EVENTS,
            fan_out: config::SEGMENT_FAN_OUT,
            segment_events_max: config::SEGMENT_EVENTS_MAX,
            rest_merge_events_max: config::REST_MERGE_EVENTS_MAX,
            slice_units: config::UPKEEP_SLICE_UNITS,
            filters_bytes_max: config::FILTERS_BYTES_MAX,
            wal_bytes_soft: config::WAL_BYTES_SOFT,
            wal_bytes_hard: config::WAL_BYTES_HARD,
            wal_file_bytes_min: config::WAL_FILE_BYTES_MIN,
            wal_spare_bytes: config::WAL_SPARE_BYTES,
        }
    }
}

/// A store that is ready to serve.
pub struct Opened {
    pub log: Box<dyn WriteLog>,
    pub sync: Box<dyn SyncLog>,
    pub checkpoint: Box<dyn Checkpoint>,
    /// Every epoch on record with the last `seq` when it began, in order; the current one last.
    pub epochs: Vec<(Epoch, Seq)>,
    pub last: Seq,
}

/// Why a database is not served. All but the last leave the file untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    Served,
    NotRill,
    OtherProgram,
    Newer(i32),
    /// By another process, beside a log that was not copied.
    Open,
    /// What is wrong with the path.
    Path(String),
    Store(StoreError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Served => write!(f, "another process serves this database"),
            OpenError::NotRill => write!(f, "not a rill database"),
            OpenError::OtherProgram => write!(f, "a database of another program"),
            OpenError::Newer(version) => {
                write!(f, "made by a newer rill (its schema has version {version})")
            }
            OpenError::Open => f.write_str(
                "another program (a backup?) has the database open, and a start that finds a \
                 write-ahead log (the file ending in -wal) needs it alone",
            ),
            OpenError::Path(why) => f.write_str(why),
            OpenError::Store(error @ StoreError::Full(_)) => write!(
                f,
                "{error}; nothing is lost, and a start needs room for as much as the write-ahead \
                 log (the file ending in -wal) holds, and a little more"
            ),
            OpenError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> OpenError {
        OpenError::Store(error)
    }
}

/// Opens the database for its one writer, makes it if there is none, and begins a new epoch.
pub fn open(path: &Path) -> Result<Opened, OpenError> {
    open_with(path, Tuning::default())
}

pub fn open_with(path: &Path, tuning: Tuning) -> Result<Opened, OpenError> {
    let path = file::resolve(path)?;
    let (conn, lock) = file::open(&path)?;
    let checkpointer = file::connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    file::configure(&checkpointer, config::PAGE_CACHE_BYTES)?;
    let mut writer = write::Writer::load(conn, lock, tuning)?;
    let last = writer.last();
    let epochs = writer.begin_epoch()?;
    writer.leave_syncs_to_syncer()?;
    file::sync_names(&path)?;
    let open = |path: &Path| File::open(path).map_err(|error| OpenError::Path(error.to_string()));
    let sync = Box::new(wal::Syncer { log: open(&file::beside(&path, "-wal"))? });
    let log_file = writer.lengthen_log(&file::beside(&path, "-wal"))?;
    let checkpoint = Box::new(wal::Checkpointer {
        conn: checkpointer,
        pages: write_back::LoggedPages::of(open(&file::beside(&path, "-wal"))?),
        log_file,
        database: open(&path)?,
    });
    Ok(Opened { log: Box::new(writer), sync, checkpoint, epochs, last })
}

/// Opens a served database for one reader.
pub fn open_reader(path: &Path) -> Result<Box<dyn ReadLog>, StoreError> {
    let conn = file::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    file::configure(&conn, config::PAGE_CACHE_BYTES)?;
    Ok(Box::new(read::Reader::new(conn)?))
}

/// Records a new epoch, which begins after `last`.
fn record_epoch(conn: &Connection, last: Seq) -> Result<Vec<(Epoch, Seq)>, StoreError> {
    let mut statement = conn.prepare("SELECT epoch, seq FROM epoch ORDER BY start")?;
    let rows =
        statement.query_map([], |row| Ok((Epoch(row.get(0)?), row.get::<_, i64>(1)? as Seq)))?;
    let mut epochs = rows.collect::<Result<Vec<_>, _>>()?;
    let epoch = loop {
        let random = getrandom::u32()
            .map_err(|error| StoreError::Failed(format!("no random numbers: {error}")))?;
        if epochs.iter().all(|(epoch, _)| epoch.0 != random) {
            break Epoch(random);
        }
    };
    conn.execute(
        "INSERT INTO epoch(epoch, seq) VALUES(?1, ?2)",
        params![epoch.0, segment::sql(last)],
    )?;
    epochs.push((epoch, last));
    Ok(epochs)
}

/// Visits the events of the log past `after`, which follow each other without a gap.
fn for_each_in_log(
    conn: &Connection,
    after: Seq,
    mut visit: impl FnMut(StorageKey, Hash) -> Seq,
) -> Result<(), StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT seq, id, hash FROM log WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query([segment::sql(after)])?;
    while let Some(row) = rows.next()? {
        let id = row.get_ref(1)?.as_str().ok().and_then(|text| Id::new(text).ok());
        let hash = row.get_ref(2)?.as_blob().ok().and_then(|bytes| bytes.try_into().ok());
        let (Some(id), Some(hash)) = (id, hash) else {
            return Err(error::corrupt("an event of the log is malformed"));
        };
        if visit(id.key(), Hash(hash)) != row.get::<_, i64>(0)? as Seq {
            return Err(error::corrupt("the log has a gap"));
        }
    }
    Ok(())
}
