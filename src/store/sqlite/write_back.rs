//! Owns how what a checkpoint copied reaches the disk: one part of it after the other, each awaited. A
//! sync of the log, which appends wait for, then stands in line behind one part, and not behind all that
//! was copied. Called by the checkpointer, and by `log_file` for zeros that it adds to the log. Makes
//! nothing durable: only the sync of the file does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::PAGE_BYTES;
use super::wal::{FRAME_BYTES, frame_at};
use crate::config;

/// Frames of the log that are read at a time.
const FRAMES_READ: usize = config::WRITE_BACK_BYTES / FRAME_BYTES as usize;

/// Which pages of the database are copied from the log.
pub(super) struct LoggedPages {
    log: File,
    /// Which log it was that was read last: the number changes when it begins anew.
    generation: u32,
    /// How many of its frames were read.
    frames: u64,
}

impl LoggedPages {
    pub(super) fn of(log: File) -> LoggedPages {
        LoggedPages { log, generation: 0, frames: 0 }
    }

    /// The pages that the first `frames` of the log hold, less the frames taken before, in ascending
    /// order. Where the log begins anew meanwhile some are others, which leaves more to the sync.
    pub(super) fn take(&mut self, frames: u64) -> io::Result<Vec<u32>> {
        // "The SQLite Database File Format", 4.1: the log's header has the number of the checkpoint at
        // 12, and a frame begins with the number of its page.
        let mut header = [0; 16];
        self.log.read_exact_at(&mut header, 0)?;
        let generation = number(&header[12..]);
        if generation != self.generation {
            (self.generation, self.frames) = (generation, 0);
        }
        let mut pages = Vec::new();
        let mut read = vec![0; FRAMES_READ * FRAME_BYTES as usize];
        while self.frames < frames {
            let part = (frames - self.frames).min(FRAMES_READ as u64);
            let read = &mut read[..(part * FRAME_BYTES) as usize];
            self.log.read_exact_at(read, frame_at(self.frames))?;
            pages.extend(read.chunks(FRAME_BYTES as usize).map(number));
            self.frames += part;
        }
        pages.sort_unstable();
        pages.dedup();
        Ok(pages)
    }
}

/// Big-endian, as all of them.
fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Writes the pages that ascend, as far as they were changed. An error may be one of writing, which the
/// sync would not report again.
pub(super) fn write_back(database: &File, pages: &[u32]) -> io::Result<()> {
    for part in pages.chunks(config::WRITE_BACK_BYTES / PAGE_BYTES as usize) {
        // Pages are numbered from 1; of a log that began anew the number may be anything.
        let begin = u64::from(part[0].saturating_sub(1)) * PAGE_BYTES;
        let end = u64::from(part[part.len() - 1].max(1)) * PAGE_BYTES;
        write_out(database, begin, end - begin)?;
    }
    Ok(())
}

/// Writes to the disk what was changed in these bytes of the file, unless that is refused.
pub(super) fn write_out(file: &File, begin: u64, bytes: u64) -> io::Result<()> {
    match sync_range(file, begin, bytes) {
        Err(error) if is_refusal(&error) => Ok(()),
        result => result,
    }
}

/// By the file system, or by a sandbox: nothing was done, and the sync does all of it.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn sync_range(file: &File, begin: u64, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (begin, bytes) = (begin.cast_signed(), bytes.cast_signed());
    // SAFETY: the call takes numbers only, and a descriptor that is open as long as `file`.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), begin, bytes, all) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere all of it is left to the sync.
#[cfg(not(target_os = "linux"))]
fn sync_range(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::file::beside;
    use super::super::tests::Folder;
    use super::*;

    #[test]
    fn each_page_of_the_log_is_taken_once_until_it_begins_anew() {
        let folder = Folder::new();
        let path = folder.file("db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; \
             PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(n INTEGER PRIMARY KEY, v BLOB);"
        ))
        .unwrap();
        let log = beside(&path, "-wal");
        let mut logged = LoggedPages::of(File::open(&log).unwrap());
        let frames = || (log.metadata().unwrap().len() - frame_at(0)) / FRAME_BYTES;
        let insert = |pages: usize| {
            conn.execute("INSERT INTO t(v) VALUES(zeroblob(?1))", [(pages * 4_096) as i64]).unwrap()
        };
        // The schema's table, and this one.
        assert_eq!(logged.take(frames()).unwrap(), [1, 2]);
        insert(3 * FRAMES_READ);
        let last: u32 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        assert!(last as usize > 3 * FRAMES_READ, "it takes several reads");
        assert_eq!(logged.take(frames()).unwrap(), (1..=last).collect::<Vec<_>>());
        assert_eq!(logged.take(frames()).unwrap(), [0; 0], "nothing is new");
        insert(0);
        assert_eq!(logged.take(frames()).unwrap(), [2], "what was changed since");
        conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        insert(0);
        assert_eq!(logged.take(1).unwrap(), [2], "of the log that began anew");
        let error = logged.take(u64::from(u32::MAX)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_refused_is_left_to_the_sync_and_what_fails_is_not() {
        let folder = Folder::new();
        std::fs::write(folder.file("db"), vec![1; 3 * PAGE_BYTES as usize]).unwrap();
        let database = File::open(folder.file("db")).unwrap();
        // In and beyond the file, and of no number that a page has.
        for pages in [&[][..], &[1, 3], &[2], &[7, 1_000_000], &[0], &[0, u32::MAX]] {
            write_back(&database, pages).unwrap();
        }
        for (code, expected) in
            [(libc::ENOSYS, true), (libc::EPERM, true), (libc::EINVAL, true), (libc::EIO, false)]
        {
            assert_eq!(is_refusal(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
        assert!(!is_refusal(&io::Error::from_raw_os_error(libc::ENOSPC)));
    }
}
