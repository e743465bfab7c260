//! Owns the floor under an append: one thread that inserts the rows rill's log has, 64 a commit,
//! each commit synced, no index beside the table and no checkpoints but SQLite's own. Called by
//! `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

const ROWS_A_COMMIT: usize = 64;
const VALUE_BYTES: usize = 200;

pub(crate) fn insert(file: &Path, seconds: u64, storages: usize) -> rusqlite::Result<()> {
    let mut connection = Connection::open(file)?;
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE log(
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL, hash BLOB NOT NULL, value BLOB NOT NULL);",
    )?;
    let (begin, mut commits, mut rows) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let started = Instant::now();
        commit(&mut connection, &mut rows, storages)?;
        commits.push(started.elapsed().as_micros());
    }
    let elapsed = begin.elapsed().as_secs_f64();
    commits.sort_unstable();
    let last = commits.len() - 1;
    println!(
        "{{\"seconds\":{elapsed},\"requests\":{rows},\"reply_p50_us\":{},\"reply_p99_us\":{}}}",
        commits[last / 2],
        commits[last - last / 100]
    );
    Ok(())
}

fn commit(connection: &mut Connection, rows: &mut usize, storages: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached("INSERT INTO log VALUES(NULL, ?1, ?2, ?3)")?;
        for _ in 0..ROWS_A_COMMIT {
            *rows += 1;
            let value = format!("{:0width$}", *rows, width = VALUE_BYTES);
            // Stands for a SHA-256: as long, and as hard to compress. Hashing is rill's to do.
            let hash = [(*rows as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(); 4];
            let id = format!("s{}", *rows % storages);
            insert.execute(params![id, hash.as_flattened(), value.as_bytes()])?;
        }
    }
    transaction.commit()
}
