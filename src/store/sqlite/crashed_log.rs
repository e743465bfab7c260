//! Owns that what a crash left in the write-ahead log is durable before SQLite goes by it. Called when a
//! database is opened that exists. Does not copy the log, nor say what of it was committed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::OpenError;
use super::file::{LOG, beside, connect};
use super::wal::{FRAME_HEAD_BYTES, HEAD_BYTES};
use crate::store::StoreError;

/// Frames of the log that are written again at a time.
const FRAMES_WRITTEN: usize = 64;

/// Makes what a crash left in the log durable, while nobody else has the database open: what others
/// know of the log, which SQLite shares with them and would go by, may be what the system has
/// forgotten since; and what they write to the log meanwhile would be lost.
pub(super) fn make_log_certain(path: &Path) -> Result<(), OpenError> {
    let unreadable = |error| OpenError::Path(format!("{LOG}: {error}"));
    let log = match File::options().read(true).write(true).open(beside(path, "-wal")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        log => log.map_err(unreadable)?,
    };
    if log.metadata().map_err(unreadable)?.len() == 0 {
        return Ok(());
    }
    let alone = open_alone(path)?;
    write_again(&log).map_err(unreadable)?;
    alone.close().map_err(|(_, error)| StoreError::from(error).into())
}

/// A connection beside which there is no other, and which leaves the log as it is. What it has read of
/// it ends with it.
fn open_alone(path: &Path) -> Result<Connection, OpenError> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(StoreError::from)?;
    // So it shares nothing, and its first read locks everyone out.
    let locked = conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA user_version;");
    match locked {
        Ok(()) => Ok(conn),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Err(OpenError::Open)
        }
        Err(error) => Err(StoreError::from(error).into()),
    }
}

/// Writes the log over itself, as far as it is one, and syncs it; returns how far that is. After a sync that
/// failed the system may call clean what never reached the disk: it is read like everything else, no later
/// sync writes it, and SQLite would copy it into the database. If the power went then, the database would
/// hold some of it, and the log, which makes that whole again, nothing. Before SQLite goes by the log: what
/// the system has forgotten again is then not taken for committed. By zeros at its end, and by what an
/// earlier log left there, SQLite does not go.
fn write_again(log: &File) -> io::Result<u64> {
    let own_bytes = match Head::read(log)? {
        Some(head) => {
            log.write_all_at(&head.0, 0)?;
            HEAD_BYTES + write_frames_again(log, &head)?
        }
        None => 0,
    };
    log.sync_all()?;
    Ok(own_bytes)
}

/// Returns how many bytes those of this log are.
fn write_frames_again(log: &File, head: &Head) -> io::Result<u64> {
    let end = log.metadata()?.len();
    let mut buffer = vec![0; FRAMES_WRITTEN * head.frame_bytes()];
    let mut at = HEAD_BYTES;
    loop {
        let whole = end.saturating_sub(at) / head.frame_bytes() as u64;
        let frames = &mut buffer[..whole.min(FRAMES_WRITTEN as u64) as usize * head.frame_bytes()];
        log.read_exact_at(frames, at)?;
        let own_bytes = head.own_bytes(frames);
        log.write_all_at(&frames[..own_bytes], at)?;
        at += own_bytes as u64;
        if own_bytes < buffer.len() {
            return Ok(at - HEAD_BYTES);
        }
    }
}

/// "The SQLite Database File Format", 4.1: the header has the size of a page at 8, and at 16 eight bytes
/// that are others in each log. Every frame of it has these at 8, before its page at 24, and the first
/// that has not is the log's end.
struct Head([u8; HEAD_BYTES as usize]);

impl Head {
    /// None where there is none: so the file is no log.
    fn read(log: &File) -> io::Result<Option<Head>> {
        let mut head = Head([0; HEAD_BYTES as usize]);
        match log.read_exact_at(&mut head.0, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        Ok((512..=65_536).contains(&head.page_bytes()).then_some(head))
    }

    fn page_bytes(&self) -> usize {
        u32::from_be_bytes(self.0[8..12].try_into().expect("4 bytes")) as usize
    }

    fn frame_bytes(&self) -> usize {
        FRAME_HEAD_BYTES as usize + self.page_bytes()
    }

    /// Of these, which begin where a frame does.
    fn own_bytes(&self, frames: &[u8]) -> usize {
        let frames = frames.chunks_exact(self.frame_bytes());
        frames.take_while(|frame| frame[8..16] == self.0[16..24]).map(<[u8]>::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::beside;
    use super::super::tests::Folder;
    use super::*;

    #[test]
    fn of_a_log_what_belongs_to_it_is_written_again() {
        let folder = Folder::new();
        let path = folder.file("db");
        for page_bytes in [512, 4_096, 65_536] {
            let conn = Connection::open(&path).unwrap();
            conn.execute_batch(&format!(
                "PRAGMA page_size = {page_bytes}; PRAGMA journal_mode = WAL; \
                 PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(v BLOB);"
            ))
            .unwrap();
            let log = beside(&path, "-wal");
            let insert = |pages: usize| {
                let sql = "INSERT INTO t(v) VALUES(zeroblob(?1))";
                conn.execute(sql, [(pages * page_bytes) as i64]).unwrap();
            };
            let check = |longer: u64| {
                let before = std::fs::read(&log).unwrap();
                let file = File::options().read(true).write(true).open(&log).unwrap();
                file.set_len(before.len() as u64 + longer).unwrap();
                let frames = "PRAGMA wal_checkpoint(PASSIVE)";
                let frames: u32 = conn.query_row(frames, [], |row| row.get(1)).unwrap();
                let expected =
                    HEAD_BYTES + u64::from(frames) * (FRAME_HEAD_BYTES + page_bytes as u64);
                assert_eq!(write_again(&file).unwrap(), expected, "{frames} of {page_bytes} bytes");
                assert_eq!(std::fs::read(&log).unwrap()[..before.len()], before);
                (frames as usize, expected == before.len() as u64)
            };
            assert_eq!(check(0), (2, true));
            insert(3 * FRAMES_WRITTEN);
            let (frames, is_all) = check(0);
            assert!(frames > 3 * FRAMES_WRITTEN && is_all);
            assert_eq!(check(10_000), (frames, true), "zeros are no frames");
            for pages in [0, FRAMES_WRITTEN, 2 * FRAMES_WRITTEN] {
                conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
                insert(pages);
                let (frames, is_all) = check(0);
                assert!(frames > pages && !is_all, "a longer one was there before");
            }
            drop(conn);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_log_is_left_as_it_is() {
        let folder = Folder::new();
        let mut long = vec![7; 100_000];
        for bytes in [&[][..], &[1; 31], &[0; 100_000], &long.clone()] {
            std::fs::write(folder.file("log"), bytes).unwrap();
            let file = File::options().read(true).write(true).open(folder.file("log")).unwrap();
            assert_eq!(write_again(&file).unwrap(), 0);
            assert_eq!(std::fs::read(folder.file("log")).unwrap(), bytes);
        }
        // A page of so many bytes: a log whose only frame is not whole.
        long[8..12].copy_from_slice(&65_536_u32.to_be_bytes());
        std::fs::write(folder.file("log"), &long[..50_000]).unwrap();
        let file = File::options().read(true).write(true).open(folder.file("log")).unwrap();
        assert_eq!(write_again(&file).unwrap(), HEAD_BYTES);
    }
}
