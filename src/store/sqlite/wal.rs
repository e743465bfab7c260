//! Owns the write-ahead log: that what was committed is synced, how large it is, when a checkpoint is
//! due, and how it starts over. Called by the writer between commits, by the syncer and by the
//! checkpointer. Copies nothing by itself: SQLite's automatic checkpoints are off on every connection.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, Row};

use super::log_file::LogFile;
use super::write_back::{LoggedPages, write_back};
use super::{BUSY_TIMEOUT, PAGE_BYTES, Tuning};
use crate::config;
use crate::store::{Checkpoint, StoreError, SyncLog};

pub(super) const HEAD_BYTES: u64 = 32;
/// Of a frame, which a page follows.
pub(super) const FRAME_HEAD_BYTES: u64 = 24;
pub(super) const FRAME_BYTES: u64 = FRAME_HEAD_BYTES + PAGE_BYTES;

/// How long the restart between two commits waits for readers to leave the log; their
/// transactions last a page.
const RESTART_PATIENCE: Duration = Duration::from_millis(10);
/// How often it is tried when appends cannot go on without, and how long apart.
const ROOM_TRIES: usize = 100;

pub(super) const HELD: &str = "something that reads the database (a backup?) keeps the \
                               write-ahead log from being copied as a whole";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    AboveBytes(u64),
    /// Once more, after so many runs of the checkpointer.
    Again(u32),
    /// Said so, for the run of this number; nothing more until it is over.
    Said(u32),
}

#[derive(Debug)]
pub(super) struct WriteAheadLog {
    /// Set by SQLite's hook after every commit.
    frames: Arc<AtomicU64>,
    due: Due,
    /// What the last run copied.
    copied_bytes: u64,
    /// How long the file was asked to be.
    file_bytes: u64,
    bytes_soft: u64,
    bytes_hard: u64,
}

/// Where the nth frame of the log begins.
pub(super) fn frame_at(nth: u64) -> u64 {
    HEAD_BYTES + nth * FRAME_BYTES
}

fn bytes_of(frames: u64) -> u64 {
    match frames {
        0 => 0,
        frames => frame_at(frames),
    }
}

/// How a checkpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    All,
    /// Someone still reads the log, or checkpoints it too.
    Some,
}

impl WriteAheadLog {
    pub(super) fn watch(
        conn: &mut Connection,
        tuning: &Tuning,
    ) -> Result<WriteAheadLog, StoreError> {
        let frames = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&frames);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let bytes_soft = tuning.wal_bytes_soft as u64;
        let bytes_hard = tuning.wal_bytes_hard as u64;
        let due = Due::AboveBytes(bytes_soft);
        let file_bytes = tuning.wal_file_bytes_min as u64;
        Ok(WriteAheadLog { frames, due, copied_bytes: 0, file_bytes, bytes_soft, bytes_hard })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Twice as long, whenever a third is used, up to somewhat more than should ever be.
    pub(super) fn lengthening_due(&mut self) -> Option<u64> {
        let most = self.bytes_soft + self.bytes_soft / 8;
        let before = self.file_bytes;
        while self.file_bytes < most && self.bytes() > self.file_bytes / 3 {
            self.file_bytes = most.min(self.file_bytes * 2);
        }
        (self.file_bytes > before).then_some(self.file_bytes)
    }

    pub(super) fn bytes(&self) -> u64 {
        bytes_of(self.frames.load(Ordering::Relaxed))
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes() > self.bytes_hard
    }

    pub(super) fn checkpoint_due(&mut self) -> bool {
        match self.due {
            Due::AboveBytes(bytes) if self.bytes() > bytes => {
                self.due = Due::Said(1);
                true
            }
            Due::Again(runs) => {
                self.due = Due::Said(runs + 1);
                true
            }
            Due::AboveBytes(_) | Due::Said(_) => false,
        }
    }

    pub(super) fn is_restarting(&self) -> bool {
        matches!(self.due, Due::Again(_) | Due::Said(2..))
    }

    /// After a run that copied so much: the restart, unless much was committed meanwhile, or SQLite
    /// has begun the log anew because nothing was. Where a run got no further than the one before, as
    /// somebody holds the log, another would not either.
    pub(super) fn restart_after(
        &mut self,
        copied_bytes: u64,
        conn: &Connection,
    ) -> Result<(), StoreError> {
        let bytes = self.bytes();
        if bytes < copied_bytes {
            (self.due, self.copied_bytes) = (Due::AboveBytes(self.bytes_soft), 0);
            return Ok(());
        }
        let much = bytes - copied_bytes > config::WAL_REST_BYTES as u64;
        match self.due {
            Due::Said(runs)
                if much
                    && copied_bytes > self.copied_bytes
                    && runs < config::CHECKPOINT_RUNS_MAX =>
            {
                (self.due, self.copied_bytes) = (Due::Again(runs), copied_bytes);
                Ok(())
            }
            _ => self.restart(conn).map(drop),
        }
    }

    /// Copies the rest, so that the next commit writes from the log's start.
    fn restart(&mut self, conn: &Connection) -> Result<Copied, StoreError> {
        conn.busy_timeout(RESTART_PATIENCE)?;
        let copied = checkpoint(conn, "RESTART");
        conn.busy_timeout(BUSY_TIMEOUT)?;
        if copied == Ok(Copied::All) {
            self.frames.store(0, Ordering::Relaxed);
        }
        self.copied_bytes = 0;
        // A log that someone holds is tried again when it has grown by a part, not at once.
        self.due = match self.bytes() {
            0 => Due::AboveBytes(self.bytes_soft),
            bytes => Due::AboveBytes(self.bytes_soft.max(bytes + self.bytes_soft / 4)),
        };
        copied
    }

    /// Appends do not go on before the log is below its hard limit.
    pub(super) fn make_room(&mut self, conn: &Connection) -> Result<(), StoreError> {
        for _ in 0..ROOM_TRIES {
            if !self.is_full() || self.restart(conn)? == Copied::All {
                return Ok(());
            }
            // Another checkpoint is refused at once, without SQLite's patience.
            std::thread::sleep(RESTART_PATIENCE);
        }
        Err(StoreError::Failed(HELD.to_owned()))
    }
}

/// `mode` as in `PRAGMA wal_checkpoint`.
pub(super) fn checkpoint(conn: &Connection, mode: &str) -> Result<Copied, StoreError> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let busy: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
    Ok(if busy == 0 { Copied::All } else { Copied::Some })
}

/// Syncs what was committed.
pub(super) struct Syncer {
    /// The file that SQLite writes it to, which stays the same as long as a connection is open.
    pub(super) log: File,
}

impl SyncLog for Syncer {
    fn sync(&self) -> Result<(), StoreError> {
        synced(&self.log, "write-ahead log")
    }
}

/// After a failed sync the kernel may call pages clean that never reached the disk.
fn synced(file: &File, what: &str) -> Result<(), StoreError> {
    file.sync_data().map_err(not_synced(what))
}

pub(super) fn not_synced(what: &str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Fatal(format!("the {what} could not be synced: {error}"))
}

/// The checkpointer's thread has these.
pub(super) struct Checkpointer {
    pub(super) conn: Connection,
    pub(super) pages: LoggedPages,
    pub(super) log_file: Arc<LogFile>,
    /// To sync it. Closed last: the system drops all locks of a process on a file that it closes.
    pub(super) database: File,
}

impl Checkpoint for Checkpointer {
    fn run(&mut self) -> Result<u64, StoreError> {
        let copied = |row: &Row<'_>| row.get::<_, i64>(2);
        let frames = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], copied)?;
        let frames = u64::try_from(frames).unwrap_or(0);
        // Where the log cannot be read, all is left to the sync.
        let pages = self.pages.take(frames).unwrap_or_default();
        write_back(&self.database, &pages).map_err(not_synced("database"))?;
        // SQLite syncs the copy only when nothing was committed meanwhile, and else leaves that to the
        // next checkpoint: the restart, which appends wait for.
        synced(&self.database, "database")?;
        Ok(bytes_of(frames))
    }

    fn lengthen(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.log_file.lengthen(bytes)
    }
}
