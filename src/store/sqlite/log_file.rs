//! Owns how long the file of the write-ahead log is: longer than what stands in it, by zeros that
//! commits write over. A sync after a commit that makes the file longer has that to make durable, too,
//! which is a transaction of the file system, and takes twice as long. Called when a store is opened,
//! and by the checkpointer where the writer says so. Promises nothing: where there is little room, or
//! none, the file is as long as commits make it. Does not know what stands in the log.
//!
//! Zeros are no log and no frame of one: a log begins with a number that says so, a frame with the number
//! of its page, and pages are numbered from 1 ("The SQLite Database File Format", 4.1).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::OpenError;
use super::wal::not_synced;
use super::write_back::write_out;
use crate::config;
use crate::store::StoreError;

/// Shared by the checkpointer and the writer, who ends it before it truncates the log.
pub(super) struct LogFile {
    end: Mutex<Option<End>>,
    /// What the disk has room for besides, or nothing is added.
    spare_bytes: u64,
}

struct End {
    /// Open for what is added at its end, wherever that is by then: nothing that SQLite writes meanwhile
    /// is written over.
    file: Arc<File>,
    /// The file is shorter only where somebody else truncated it.
    bytes_min: u64,
}

impl LogFile {
    /// Of a log that was truncated. Zeros that reach the disk where that did not would stand in the middle of
    /// what the log was before: its start would be a log again, and older than the database.
    pub(super) fn open(path: &Path, spare_bytes: u64) -> Result<LogFile, OpenError> {
        let file = File::options().append(true).open(path);
        let file = Arc::new(file.map_err(|error| OpenError::Path(error.to_string()))?);
        file.sync_all().map_err(not_synced("write-ahead log"))?;
        Ok(LogFile { end: Mutex::new(Some(End { file, bytes_min: 0 })), spare_bytes })
    }

    /// Nothing is added from now on.
    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().expect("a panic ends the process")
    }

    /// Makes the file so long, if it is not. Each part is written to the disk before the next, so that no
    /// sync waits for more; an error of that may be one that a sync would not report again.
    pub(super) fn lengthen(&self, bytes: u64) -> Result<(), StoreError> {
        while let Some(part) = self.add_part(bytes) {
            write_out(&part.file, part.begin, part.bytes).map_err(not_synced("write-ahead log"))?;
        }
        Ok(())
    }

    /// None where the file is long enough, or cannot be longer.
    fn add_part(&self, bytes: u64) -> Option<Part> {
        let mut end = self.lock();
        let end = end.as_mut()?;
        end.add_zeros(bytes, self.spare_bytes).unwrap_or_else(|error| {
            log::debug!("the write-ahead log is not made longer ahead of time: {error}");
            None
        })
    }
}

/// What was added.
struct Part {
    file: Arc<File>,
    begin: u64,
    bytes: u64,
}

impl End {
    fn add_zeros(&mut self, bytes: u64, spare_bytes: u64) -> io::Result<Option<Part>> {
        let mut file = &*self.file;
        let begin = file.metadata()?.len();
        let missing = bytes.saturating_sub(begin);
        if missing == 0
            || begin < self.bytes_min
            || free_bytes(file)? < missing.saturating_add(spare_bytes)
        {
            return Ok(None);
        }
        let zeros = vec![0; missing.min(config::WAL_FILE_PART_BYTES as u64) as usize];
        let bytes = file.write(&zeros)? as u64;
        self.bytes_min = begin + bytes;
        Ok((bytes > 0).then(|| Part { file: Arc::clone(&self.file), begin, bytes }))
    }
}

/// On the disk that the file is on, for those who are not root.
fn free_bytes(file: &File) -> io::Result<u64> {
    let system = rustix::fs::fstatvfs(file)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::tests::Folder;
    use super::*;

    #[test]
    fn zeros_are_added_up_to_a_length_where_there_is_room() {
        let folder = Folder::new();
        let path = folder.file("log");
        std::fs::write(&path, "something").unwrap();
        let mut file = LogFile::open(&path, 0).unwrap();
        let part = config::WAL_FILE_PART_BYTES as u64;
        for (asked, spare_bytes, expected) in [
            (4, 0, 9),
            (9, 0, 9),
            (10, 0, 10),
            (2 * part + 3, 0, 2 * part + 3),
            (part, 0, 2 * part + 3),
            (3 * part, u64::MAX, 2 * part + 3),
            (u64::MAX, 0, 2 * part + 3),
            (3 * part, 0, 3 * part),
        ] {
            file.spare_bytes = spare_bytes;
            file.lengthen(asked).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, expected, "{asked} with {spare_bytes} to spare");
            assert_eq!(&bytes[..9], b"something");
            assert!(bytes[9..].iter().all(|byte| *byte == 0));
        }
        File::create(&path).unwrap();
        file.lengthen(3 * part).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "somebody else truncated it");
        let file = LogFile::open(&path, 0).unwrap();
        file.end();
        file.lengthen(part).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "that was its end");
    }

    #[test]
    fn what_others_write_meanwhile_is_not_written_over() {
        let folder = Folder::new();
        let path = folder.file("log");
        let log = File::create(&path).unwrap();
        let file = LogFile::open(&path, 0).unwrap();
        let pages: Vec<[u8; 1_000]> = (0..20_000_u32).map(|page| [page as u8 | 1; 1_000]).collect();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (page, at) in pages.iter().zip((0..).step_by(1_000)) {
                    log.write_all_at(page, at).unwrap();
                }
                is_done.store(true, Ordering::Release);
            });
            while !is_done.load(Ordering::Acquire) {
                file.lengthen(log.metadata().unwrap().len() + 1_500).unwrap();
            }
        });
        assert!(std::fs::read(&path).unwrap().starts_with(&pages.concat()));
    }
}
