//! Owns the databases of the store that serves, one for each life of the server: what a process
//! that died leaves is what stood in its files, so that they are copied while it has them open.
//! Its limits are small, so that it folds, merges and starts its log over all the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rill::event::{Epochs, Seq};
use rill::store::sqlite::{self, Tuning};
use rusqlite::Connection;

use super::{Opened, WHY};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Files in memory, where the system has any: a simulated disk needs no real one.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

#[derive(Clone)]
pub(super) struct Folder {
    root: Arc<Root>,
    life: u32,
}

struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        // What is left behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    pub(super) fn new() -> Folder {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("rill-simulation-{}-{number}", std::process::id());
        let folder = Folder { root: Arc::new(Root(scratch().join(name))), life: 0 };
        std::fs::create_dir_all(folder.path()).expect("a folder can be made");
        folder
    }

    fn path(&self) -> PathBuf {
        self.root.0.join(self.life.to_string())
    }

    fn file(&self) -> PathBuf {
        self.path().join("rill.db")
    }

    pub(super) fn snatch(&mut self) {
        let from = self.path();
        self.life += 1;
        std::fs::create_dir_all(self.path()).expect("a folder can be made");
        // Not the shared memory: it is made anew from the log by who opens the database first.
        for name in ["rill.db", "rill.db-wal"] {
            if from.join(name).exists() {
                std::fs::copy(from.join(name), self.path().join(name)).expect("files are copied");
            }
        }
    }

    pub(super) fn open(&self) -> Opened {
        let tuning = Tuning {
            fold_events: 16,
            idle_fold_events: 4,
            unfolded_events_max: 64,
            index_ahead_events: 2,
            index_share_events: 3,
            fan_out: 3,
            segment_events_max: 1_000,
            rest_merge_events_max: 200,
            slice_units: 8,
            wal_bytes_soft: 200_000,
            wal_bytes_hard: 1_000_000,
            wal_file_bytes_min: 8_000,
            wal_spare_bytes: 0,
            ..Tuning::default()
        };
        let opened = sqlite::open_with(&self.file(), tuning).expect("the database opens");
        let reader = sqlite::open_reader(&self.file()).expect("the database opens");
        let epochs = Epochs::new(&opened.epochs);
        let sqlite::Opened { log, sync, checkpoint, last, .. } = opened;
        Opened { log, reader, sync, checkpoint, epochs, last }
    }

    /// From now on this event cannot be written.
    pub(super) fn refuse(&self, seq: Seq) -> Connection {
        let spike = Connection::open(self.file()).expect("the database opens");
        spike
            .execute_batch(&format!(
                "CREATE TRIGGER refused BEFORE INSERT ON log WHEN NEW.seq = {seq} \
                 BEGIN SELECT RAISE(ABORT, '{WHY}'); END"
            ))
            .expect("a trigger can be made");
        spike
    }

    pub(super) fn accept(&self, spike: &Connection) {
        spike.execute_batch("DROP TRIGGER refused").expect("a trigger can be dropped");
    }
}
