//! Owns the database file: who may serve it, whether it is ours, and how a new one is made. Called
//! when a store is opened. A file that is refused is left as it was, byte for byte, and nothing is
//! left beside it.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::crashed_log::make_log_certain;
use super::segment::block_number;
use super::{BUSY_TIMEOUT, OpenError, PAGE_BYTES};
use crate::config::WRITER_PAGE_CACHE_BYTES;
use crate::store::StoreError;

/// "rill", in the header's field for the kind of an SQLite database.
const APPLICATION_ID: i32 = 0x7269_6c6c;
const SCHEMA_VERSION: i32 = 2;
/// Whose blocks are rows of trees that hold them in inner pages, too. Upgraded as it is opened.
const FORMER_SCHEMA_VERSION: i32 = 1;

/// SQLite's own header.
const HEADER_BYTES: u64 = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// As errors call the log.
pub(super) const LOG: &str = "its write-ahead log (the file ending in -wal)";

const SCHEMA: &str = "
    CREATE TABLE log(
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, hash BLOB NOT NULL, value BLOB NOT NULL);
    CREATE TABLE segment(
        change INTEGER PRIMARY KEY, number INTEGER NOT NULL, level INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL);
    CREATE TABLE filter(
        segment INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY(segment, part)) WITHOUT ROWID;
    CREATE TABLE epoch(
        start INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL);";

/// A block fills a page by itself, numbered as `segment::block_number` has it; where it stands in its
/// segment is in a tree beside it, of which a page holds a hundred.
const BLOCKS_SCHEMA: &str = "
    CREATE TABLE posting(
        block INTEGER PRIMARY KEY, segment INTEGER NOT NULL, key BLOB NOT NULL,
        data BLOB NOT NULL);
    CREATE UNIQUE INDEX posting_place ON posting(segment, key);
    CREATE TABLE digest(
        block INTEGER PRIMARY KEY, segment INTEGER NOT NULL, key INTEGER NOT NULL,
        offset INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE UNIQUE INDEX digest_place ON digest(segment, key, offset);";

/// What the start of a file says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Missing, empty, or an interrupted creation that SQLite will undo.
    Nothing,
    Rill,
}

/// The file's one name, so that two ways to write it do not lock two files.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    match fs::canonicalize(path) {
        Ok(resolved) => Ok(resolved),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = match path.parent() {
                Some(folder) if folder != Path::new("") => folder,
                _ => Path::new("."),
            };
            let name = path.file_name().ok_or(OpenError::Path("has no file name".to_owned()))?;
            let folder = fs::canonicalize(folder)
                .map_err(|error| OpenError::Path(format!("its folder: {error}")))?;
            Ok(folder.join(name))
        }
        Err(error) => Err(OpenError::Path(error.to_string())),
    }
}

/// Locks and opens the database, and makes it if there is none. The lock lasts as long as the file
/// that is returned.
pub(super) fn open(path: &Path) -> Result<(Connection, File), OpenError> {
    let lock_path = beside(path, ".lock");
    // Reading the file and closing it again would drop the locks of whoever has it open in this
    // process, so an existing lock is asked first. One that does not exist is made only beside a
    // file that is not refused.
    let lock = match File::options().read(true).write(true).open(&lock_path) {
        Ok(file) => Some(locked(file)?),
        Err(_) => None,
    };
    inspect(path)?;
    let lock = match lock {
        Some(lock) => lock,
        None => {
            let mut options = File::options();
            let made = options.read(true).write(true).create(true).truncate(false).open(&lock_path);
            locked(made.map_err(|error| OpenError::Path(format!("its lock file: {error}")))?)?
        }
    };
    // Whoever held the lock a moment ago may have made the file.
    let flags = match inspect(path)? {
        Kind::Nothing => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Kind::Rill => {
            make_log_certain(path)?;
            OpenFlags::SQLITE_OPEN_READ_WRITE
        }
    };
    let conn = connect(path, flags)?;
    if conn.is_readonly("main").map_err(StoreError::from)? {
        return Err(OpenError::Path("is read-only".to_owned()));
    }
    make_or_check(&conn)?;
    configure(&conn, WRITER_PAGE_CACHE_BYTES)?;
    upgrade(&conn)?;
    Ok((conn, lock))
}

/// All blocks move to the tables that hold them now, in one transaction.
fn upgrade(conn: &Connection) -> Result<(), StoreError> {
    let version: i32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != FORMER_SCHEMA_VERSION {
        return Ok(());
    }
    log::info!("upgrading the indexes of the database, once");
    let transaction = conn.unchecked_transaction()?;
    conn.execute_batch(
        "ALTER TABLE posting RENAME TO former_posting; ALTER TABLE digest RENAME TO former_digest;",
    )?;
    conn.execute_batch(BLOCKS_SCHEMA)?;
    move_blocks(
        conn,
        "SELECT segment, key, data FROM former_posting ORDER BY segment, key",
        "INSERT INTO posting(block, segment, key, data) VALUES(?, ?, ?, ?)",
    )?;
    move_blocks(
        conn,
        "SELECT segment, key, offset, data FROM former_digest ORDER BY segment, key, offset",
        "INSERT INTO digest(block, segment, key, offset, data) VALUES(?, ?, ?, ?, ?)",
    )?;
    conn.execute_batch(&format!(
        "DROP TABLE former_posting; DROP TABLE former_digest; \
         PRAGMA user_version = {SCHEMA_VERSION};"
    ))?;
    Ok(transaction.commit()?)
}

/// Inserts what is selected, which begins with the segment's number, after the number of the block.
fn move_blocks(conn: &Connection, select: &str, insert: &str) -> Result<(), StoreError> {
    let mut select = conn.prepare(select)?;
    let mut insert = conn.prepare(insert)?;
    let columns = select.column_count();
    let mut rows = select.query([])?;
    let mut last = (0, 0);
    while let Some(row) = rows.next()? {
        let segment: i64 = row.get(0)?;
        last = (segment, if last.0 == segment { last.1 + 1 } else { 0 });
        insert.raw_bind_parameter(1, block_number(segment, last.1))?;
        for column in 0..columns {
            insert.raw_bind_parameter(column + 2, ToSqlOutput::Borrowed(row.get_ref(column)?))?;
        }
        insert.raw_execute()?;
    }
    Ok(())
}

/// Makes the names of the database's files durable. SQLite does so as it makes them, but takes no
/// notice when that fails, and a log whose name is lost is lost.
pub(super) fn sync_names(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().expect("a resolved path of a file has a folder");
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems sync no folders, and need not.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        result => result.map_err(|error| OpenError::Path(format!("its folder: {error}"))),
    }
}

/// The name of a file that belongs to the database.
pub(in crate::store) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn locked(file: File) -> Result<File, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Served),
        Err(TryLockError::Error(error)) => Err(OpenError::Path(format!("its lock file: {error}"))),
    }
}

/// Looks at the file before SQLite does, which would recover a log or a journal beside it.
fn inspect(path: &Path) -> Result<Kind, OpenError> {
    let unreadable = |error: io::Error| OpenError::Path(error.to_string());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return nothing(path),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_file() {
        return Err(OpenError::Path("is not a file".to_owned()));
    }
    let mut head = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(HEADER_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    if head.is_empty() {
        return nothing(path);
    }
    let zeros = head.iter().all(|&byte| byte == 0);
    if zeros && beside(path, "-journal").exists() {
        return Ok(Kind::Nothing);
    }
    if head.len() < HEADER_BYTES as usize || &head[..16] != MAGIC {
        return Err(OpenError::NotRill);
    }
    check(i32_at(&head, 68), i32_at(&head, 60))
}

/// SQLite deletes a log that it finds beside an empty database. Ours has its header from its first
/// moment, so such a log is what is left of one that was removed.
fn nothing(path: &Path) -> Result<Kind, OpenError> {
    match fs::metadata(beside(path, "-wal")) {
        Ok(wal) if wal.len() > 0 => {
            Err(OpenError::Path(format!("is missing or empty, but {LOG} is not")))
        }
        _ => Ok(Kind::Nothing),
    }
}

fn i32_at(head: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"))
}

fn check(application_id: i32, version: i32) -> Result<Kind, OpenError> {
    match (application_id, version) {
        (APPLICATION_ID, FORMER_SCHEMA_VERSION | SCHEMA_VERSION) => Ok(Kind::Rill),
        (APPLICATION_ID, version) if version > SCHEMA_VERSION => Err(OpenError::Newer(version)),
        (APPLICATION_ID, _) => Err(OpenError::NotRill),
        _ => Err(OpenError::OtherProgram),
    }
}

/// A journal may have rolled the file back to what it was before: nothing.
fn make_or_check(conn: &Connection) -> Result<(), OpenError> {
    let integer = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i32>(0));
    if integer("PRAGMA page_count").map_err(StoreError::from)? == 0 {
        return Ok(make(conn)?);
    }
    let application_id = integer("PRAGMA application_id").map_err(StoreError::from)?;
    let version = integer("PRAGMA user_version").map_err(StoreError::from)?;
    check(application_id, version).map(drop)
}

/// With a rollback journal, so that the file itself has its header from its first moment: a file
/// whose header is still in a log cannot be told from another program's.
fn make(conn: &Connection) -> Result<(), StoreError> {
    conn.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; \
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; \
         {SCHEMA} {BLOCKS_SCHEMA} COMMIT;"
    ))?;
    Ok(())
}

/// Whether an open connection's database is one of ours.
pub(in crate::store) fn is_rill(conn: &Connection) -> Result<(), OpenError> {
    let integer = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i32>(0));
    match integer("PRAGMA application_id") {
        Ok(id) => check(id, integer("PRAGMA user_version").map_err(StoreError::from)?).map(drop),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(OpenError::NotRill)
        }
        Err(error) => Err(StoreError::from(error).into()),
    }
}

pub(in crate::store) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// What every connection of a served database has in common.
pub(super) fn configure(conn: &Connection, page_cache_bytes: usize) -> Result<(), StoreError> {
    if !conn.is_readonly("main")? {
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Failed(format!("the file system allows no WAL, but {mode}")));
        }
    }
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -{};",
        page_cache_bytes / 1_024
    ))?;
    conn.set_prepared_statement_cache_capacity(64);
    // Or a statement is prepared again whenever it was bound to 0 or 1, as if these were flags: ten
    // times the cost of a look-up in the first segment.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
